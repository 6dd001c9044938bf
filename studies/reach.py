"""Which particles settings reach: efficiency in bins of the production radius or of pT, with fakes and time.

Usage: python -m studies.reach --by radius --folder mu20 --folder mu200 --config default --config displaced
       python -m studies.reach --by pt --pions 500 --events 10 --config default --config low-pt
       python -m studies.reach --by radius --folder mu20 --config displaced --set seeding.impact_max=20

Particles count as docs/limits.md says. The file of results has intervals of one sigma. Time is processor time of one
thread for an event, the least of the repeats.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.common import OUTPUT, Detector, Events, Output, Repeats, Seed, collision_events, detector_in, write_results
from studies.scan_settings import values_of
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, read_config
from traccc_py.performance.definitions import TruthSelection, collision_selections
from traccc_py.performance.statistics import wilson_interval
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

DEFAULT = "default"
EDGES = {
    "radius": (0.0, 2.0, 10.0, 20.0, 40.0, 60.0, 80.0, 120.0, 200.0, 300.0),
    "pt": (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 5.0),
}
_FEWEST = {"radius": 7, "pt": 5}  # measurements of particles that count; one of 0.1 GeV turns back after five layers
_SOFTEST, _HARDEST = 0.1, 1.0


def selection_of(by: str, min_pt: float) -> TruthSelection:
    """Return which particles count; the production radius is cut at 10 mm where bins are not those of it."""
    cuts = {"min_pt": min_pt if by == "radius" else _SOFTEST, "min_measurements": _FEWEST[by]}
    return collision_selections(cuts)["central"]


def pion_events(detector: Any, n: int, events: int, seed: int) -> list[Any]:
    """Return events of pions from 0.1 to 1 GeV, with all that happens to pions of collisions."""
    gun = ParticleGunConfig(
        n, particle="pion", momentum=(_SOFTEST, _HARDEST), eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0)
    )
    return list(simulate_events(detector, gun, seed, events))


def measure(
    chain: TrackingChain, detector: Any, given: list[Any], by: str, min_pt: float, repeats: int
) -> dict[str, Any]:
    """Return efficiencies in bins with their intervals, fakes and time."""
    summary = PerformanceSummary({"counted": selection_of(by, min_pt)}, float(detector.arrays().b_z))
    for event in given:
        summary.add_result(event, chain.run(event.cells))
    seconds = [min(_processor_seconds(chain, event) for _ in range(repeats)) for event in given]
    sample = summary.samples["counted"]
    rows = sample.at_any_radius if by == "radius" else sample.particles
    bins = []
    for low, high in zip(EDGES[by], EDGES[by][1:], strict=False):
        inside = (rows[by] >= low) & (rows[by] < high)
        n, n_found = int(inside.sum()), int((rows["n_matches"][inside] > 0).sum())
        n_seeded = int((rows["n_seeds"][inside] > 0).sum())
        interval = [float(x) for x in wilson_interval(np.array(n_found), np.array(n))]
        bins.append({"low": low, "high": high, "n": n, "found": n_found, "seeded": n_seeded, "interval": interval})
    n = len(given)
    return {
        "bins": bins,
        "seeds": sample.seeds.n_groups / n,
        "tracks": sample.tracks.n_groups / n,
        "fakes_percent": 100 * sample.tracks.fakes_per_group,
        "milliseconds": 1e3 * float(np.mean(seconds)),
    }


def _processor_seconds(chain: TrackingChain, event: Any) -> float:
    begin = time.process_time()
    chain.run(event.cells)
    return time.process_time() - begin


def print_table(by: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print a row for each configuration."""
    first = next(iter(rows.values()))["bins"]
    heads = [f"{b['low']:g} to {b['high']:g} (of {b['n']})" for b in first if b["n"]]
    print(f"| {by} |", " | ".join((*heads, "fakes %", "seeds", "tracks", "ms")), "|")
    print("|---|" + "---|" * (len(heads) + 4))
    for name, row in rows.items():
        rates = [f"{100 * b['found'] / b['n']:.1f}" for b in row["bins"] if b["n"]]
        tail = (f"{row['fakes_percent']:.2f}", *(f"{row[key]:,.0f}" for key in ("seeds", "tracks", "milliseconds")))
        print(f"| {name} |", " | ".join((*rates, *tail)), "|")


def main(
    by: Annotated[str, typer.Option(help="radius or pt.")] = "radius",
    folder: Annotated[list[Path] | None, typer.Option(help="Sample of traccc-py simulate; may be given again.")] = None,
    pions: Annotated[int, typer.Option(help="Pions of 0.1 to 1 GeV in an event, in the place of samples.")] = 0,
    config: Annotated[list[str] | None, typer.Option(help="File or preset, or default; may be given again.")] = None,
    fixed: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of all.")] = None,
    min_pt: Annotated[float, typer.Option(help="With --by radius: smallest pT [GeV].")] = 1.0,
    detector: Detector = "odd",
    events: Events = 2,
    repeats: Repeats = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Print a table for each sample."""
    if by not in EDGES:
        msg = f"--by {by}: expected one of {', '.join(EDGES)}"
        raise typer.BadParameter(msg)
    chosen = detector_in(detector)
    samples = {path.name: collision_events(chosen, path, "", 0.0, events, seed) for path in folder or ()}
    if pions:
        samples[f"{pions} pions"] = pion_events(chosen, pions, events, seed)
    given = {key: values[0] for key, values in map(values_of, fixed or [])}
    chains = {}
    for name in config or [DEFAULT]:
        settings = ChainConfig() if name == DEFAULT else read_config(name)
        chains[name] = TrackingChain(chosen, settings.with_settings(given), threads=1)
    found: dict[str, Any] = {}
    for sample, of_sample in samples.items():
        print(f"\n{sample}, {len(of_sample)} events\n")
        found[sample] = {name: measure(chain, chosen, of_sample, by, min_pt, repeats) for name, chain in chains.items()}
        print_table(by, found[sample])
    write_results(output, f"reach_{by}", {"by": by, "min_pt": min_pt, "set": given, "samples": found})


if __name__ == "__main__":
    typer.run(main)
