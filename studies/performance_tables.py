"""Make the tables of the README and docs/simulation.md with `traccc-py performance`: its selections and definitions.

Usage: python -m studies.performance_tables muons [--pt 1 --pt 10 --pt 100] [--muons 10000]
       python -m studies.performance_tables collisions --sample mu20 --sample mu200 [--events 3]
A sample is a folder that `traccc-py simulate` made. All numbers of `traccc-py performance --json` are in the results.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from studies.common import OUTPUT, Detector, Device, Events, Output, Seed, Threads, write_results
from traccc_py.cli.performance import VERTEX_SIGMA, Evaluation, run_performance
from traccc_py.detector_options import DetectorOptions
from traccc_py.simulation.settings import ParticleGunConfig

app = typer.Typer(no_args_is_help=True, add_completion=False)
MUON_HEADER = (
    "| pT [GeV] | efficiency, reconstructable [%] | efficiency, all [%] | duplicates [%] "
    "| pull widths at the perigee | mean p-value |\n|---|---|---|---|---|---|"
)
COLLISION_HEADER = (
    "| mu | cells | seeds | candidates | tracks | efficiency [%] | the same to eta 3 [%] | muons [%] "
    "| fakes per track [%] | duplicates |\n|---|---|---|---|---|---|---|---|---|---|"
)


def performance(detector: str, gun: ParticleGunConfig | None = None, **options: Any) -> dict[str, Any]:
    """Return what `traccc-py performance` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "performance.json"
        evaluation, chosen = Evaluation(json=path, **options), DetectorOptions(name=detector)
        run_performance(evaluation, chosen, gun or ParticleGunConfig(), Console(quiet=True), Console(stderr=True))
        return dict(json.loads(path.read_text()))


def percent(counts: dict[str, Any], rate: str = "efficiency") -> str:
    """Return a rate in percent; a rate of nothing is a dash."""
    return "-" if counts[rate] is None else f"{100 * counts[rate]:.2f}"


def muon_row(pt: float, numbers: dict[str, Any]) -> str:
    """Return the row of one momentum."""
    tracks = numbers["tracks"]
    widths = [fit["sigma"] for fit in numbers["perigee_pulls"].values()]
    rates = (percent(tracks["reconstructable"]), percent(tracks["all"]), percent(tracks["all"], "duplicate_rate"))
    pulls = f"{min(widths):.2f} to {max(widths):.2f}" if widths else "-"
    return f"| {pt:g} | {' | '.join(rates)} | {pulls} | {numbers['p_values']['mean']:.3f} |"


def collision_row(numbers: dict[str, Any]) -> str:
    """Return the row of one sample."""
    tracks, sizes = numbers["tracks"], numbers["sizes"]
    means = " | ".join(f"{sizes[name]:,.0f}" for name in ("cells", "seeds", "candidates", "tracks"))
    central = tracks["central"]
    rates = (
        f"{percent(central)} (of {central['n_particles']:,}) | {percent(tracks['wide'])} | {percent(tracks['muons'])}"
    )
    fakes = f"{percent(central, 'fakes_per_group')} | {central['n_duplicates']}"
    return f"| {numbers['pileup'] or 0:g} | {means} | {rates} | {fakes} |"


@app.command("muons")
def muon_table(
    pt: Annotated[list[float] | None, typer.Option(help="Transverse momentum [GeV]; may be given again.")] = None,
    muons: Annotated[int, typer.Option(min=1, help="Muons of each momentum, one an event.")] = 10_000,
    eta: Annotated[float, typer.Option(help="Largest |eta|.")] = 2.5,
    detector: Detector = "odd",
    device: Device = "cpu",
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Reconstruct single muons of several momenta."""
    found = {}
    print(MUON_HEADER)
    for momentum in pt or [1.0, 10.0, 100.0]:
        gun = ParticleGunConfig(momentum=(momentum, momentum), eta=(-eta, eta), vertex_sigma=VERTEX_SIGMA)
        options = {"events": muons, "seed": seed, "device": device, "threads": threads}
        found[f"{momentum:g}"] = performance(detector, gun, **options)
        (numbers,) = found[f"{momentum:g}"]["results"].values()
        print(muon_row(momentum, numbers), flush=True)
    write_results(output, "performance_of_muons", {"by_pt_gev": found})


@app.command("collisions")
def collision_table(
    sample: Annotated[list[Path], typer.Option(help="Folder of traccc-py simulate; may be given again.")],
    events: Events = 3,
    detector: Detector = "odd",
    device: Device = "cpu",
    threads: Threads = 1,
    output: Output = OUTPUT,
) -> None:
    """Reconstruct samples of collisions."""
    found = performance(detector, events=events, samples=tuple(sample), device=device, threads=threads)
    print(COLLISION_HEADER)
    for numbers in found["results"].values():
        print(collision_row(numbers))
    write_results(output, "performance_of_collisions", found)


if __name__ == "__main__":
    app()
