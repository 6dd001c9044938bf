"""Draw the pictures of the README: an event, and efficiency versus eta beside time versus pile-up.

Usage: python -m studies.readme_pictures --sample 20=out/mu20 --sample 200=out/mu200 [--output docs/pictures]

Samples are a mean number of pile-up collisions and a folder that `traccc-py simulate --process ttbar --pileup MU` made;
without any, times stay as they are in the picture. Each picture keeps what it shows in its text "facts"; a test
compares it with what the code makes now.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.common import collision_events
from traccc_py import TrackingChain, read_cells
from traccc_py.data.sample import sample_event_path
from traccc_py.files import write_files
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.statistics import wilson_interval
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.views import draw_event
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
PTS = (1.0, 10.0, 100.0)  # of muons [GeV]
MUONS, EVENTS = 200, 10
ETA_EDGES = np.linspace(-2.5, 2.5, 26)
REPEATS = 3
_SEED = 1
_COLOURS = ("#4477aa", "#228833", "#ee6677")


def event_facts(chain: Any, result: Any) -> str:
    """Return what the picture of the bundled event depends on."""
    return json.dumps({"detector": chain.detector.fingerprint, **{k: int(n) for k, n in result.counts().items()}})


def muon_chain() -> TrackingChain:
    """Return the chain that finds the muons."""
    from traccc_py.config import ChainConfig

    return TrackingChain("odd", ChainConfig().with_particle("muon"), device="cpu", threads=1)


def muon_efficiency(chain: TrackingChain, pt: float, events: int) -> dict[str, Any]:
    """Return how many muons with seven measurements there are in bins of eta, and how many of them are found."""
    gun = ParticleGunConfig(MUONS, momentum=(pt, pt), eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0))
    selection = TruthSelection(min_pt=0.0, max_eta=2.5, min_measurements=7)
    summary = PerformanceSummary({"muons": selection}, float(chain.detector.arrays().b_z))
    n_seeds = 0
    for number in range(events):
        event = simulate_event(chain.detector, gun, _SEED, number)
        result = chain.run(event.cells)
        n_seeds += len(result.seeds)
        summary.add_result(event, result)
    rows = summary.samples["muons"].particles
    n, _ = np.histogram(rows["eta"], ETA_EDGES)
    found, _ = np.histogram(rows["eta"][rows["n_matches"] > 0], ETA_EDGES)
    return {"n": n.tolist(), "found": found.tolist(), "seeds": n_seeds}


def times_of(samples: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Return cells, and processor time of one thread [ms], the least of some runs, means over two events at most."""
    chain = TrackingChain("odd", device="cpu", threads=1)
    times = {}
    for mu, folder in samples.items():
        runs, cells = [], []
        for event in collision_events(chain.detector, folder, "", 0.0, 2, _SEED):
            chain.run(event.cells)
            of_event = []
            for _ in range(REPEATS):
                begin = time.process_time()
                chain.run(event.cells)
                of_event.append(1e3 * (time.process_time() - begin))
            runs.append(min(of_event))
            cells.append(len(event.cells))
        times[mu] = {"cells": float(np.mean(cells)), "milliseconds": float(np.mean(runs))}
    return times


def draw_performance(facts: dict[str, Any], path: Path) -> None:
    """Draw efficiency versus eta and time versus pile-up."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    middle = (ETA_EDGES[1:] + ETA_EDGES[:-1]) / 2
    for shift, colour, (pt, row) in zip((-0.04, 0.0, 0.04), _COLOURS, facts["efficiency"].items(), strict=True):
        n, found = np.array(row["n"]), np.array(row["found"])
        low, high = wilson_interval(found, n)
        rate = found / n
        bars = 100 * np.array([rate - low, high - rate])
        left.errorbar(
            middle + shift, 100 * rate, bars, fmt="o", markersize=3, linewidth=1, color=colour, label=f"{pt} GeV"
        )
    left.set(xlabel="eta", ylabel="efficiency [%]", ylim=(90, 101), title="muons with seven measurements")
    left.legend(loc="lower center", ncols=3)
    points = sorted((float(mu), row["milliseconds"], row["cells"]) for mu, row in facts["times"].items())
    if points:
        right.plot(*zip(*(point[:2] for point in points), strict=True), "o-", color=_COLOURS[0])
        right.set_xlim(0, 1.15 * points[-1][0])
        for x, y, n in points:
            right.annotate(f"{n / 1000:.0f}k cells", (x, y), textcoords="offset points", xytext=(6, -12), fontsize=8)
    right.set(xlabel="pile-up collisions", ylabel="processor time, one thread [ms]", ylim=(0, None))
    right.set_title("ttbar, cells to fitted tracks")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"facts": json.dumps(facts)})
    write_files({path: buffer.getvalue()})


def kept_times(path: Path) -> dict[str, dict[str, float]]:
    """Return the times that a picture shows, none if there is no picture."""
    from PIL import Image

    if not path.exists():
        return {}
    with Image.open(path) as image:
        return dict(json.loads(image.text["facts"])["times"])


def main(
    sample: Annotated[list[str] | None, typer.Option(metavar="MU=DIR", help="May be given again.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the pictures.")] = PICTURES,
) -> None:
    """Draw the pictures."""
    chain = TrackingChain("odd", device="cpu")
    result = chain.run(read_cells(sample_event_path()))
    output.mkdir(parents=True, exist_ok=True)
    title = "20 simulated muons in the Open Data Detector, reconstructed"
    draw_event(
        result, chain.detector, output / "event.png", title=title, facts={"facts": event_facts(chain, result)}, dpi=90
    )
    path = output / "performance.png"
    given = {mu: Path(folder) for mu, _, folder in (text.partition("=") for text in sample or ())}
    muons = muon_chain()
    facts = {
        "detector": chain.detector.fingerprint,
        "first": {f"{pt:g}": muon_efficiency(muons, pt, 1) for pt in PTS},
        "efficiency": {f"{pt:g}": muon_efficiency(muons, pt, EVENTS) for pt in PTS},
        "times": times_of(given) if given else kept_times(path),
    }
    draw_performance(facts, path)
    print(f"{output / 'event.png'}, {path}")


if __name__ == "__main__":
    typer.run(main)
