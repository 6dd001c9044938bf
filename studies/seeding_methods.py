"""Compare the methods of seeding: time of the stages, seeds, efficiency and fakes, in turn in one process.

Usage: python -m studies.seeding_methods --folder mu200 [--events 2] [--repeats 5]
       python -m studies.seeding_methods --muons 5000 --detector toy

Times are processor time of one thread, the least of the repeats: other work on the machine lengthens it less than wall
time. Each repeat runs every event with one method after the other.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer

from studies.common import (
    OUTPUT,
    Detector,
    Events,
    Output,
    Repeats,
    Seed,
    collision_events,
    detector_in,
    muon_gun,
    write_results,
)
from studies.scan_settings import SELECTIONS
from traccc_py.chain import TrackingChain
from traccc_py.config import read_config
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.pipeline import stages
from traccc_py.simulation.events import simulate_events

METHODS = ("grid", "layer_pairs")
STAGES = ("seeding", "parameter_estimation", "finding", "fitting")


def times_of(chains: dict[str, TrackingChain], events: list[Any], repeats: int) -> dict[str, dict[str, float]]:
    """Return the mean over the events of each method's least times [ms], of stages and "all"."""
    found: dict[str, Any] = {method: [defaultdict(list) for _ in events] for method in chains}
    with patch.object(stages, "time", SimpleNamespace(perf_counter=time.process_time)):
        for _ in range(repeats):
            for k, event in enumerate(events):
                for method, chain in chains.items():
                    begin = time.process_time()
                    result = chain.run(event.cells)
                    found[method][k]["all"].append(1e3 * (time.process_time() - begin))
                    for stage in STAGES:
                        found[method][k][stage].append(result.stage_milliseconds[stage])
    return {
        method: {name: float(np.mean([min(one[name]) for one in of_events])) for name in (*STAGES, "all")}
        for method, of_events in found.items()
    }


def main(
    folder: Annotated[Path | None, typer.Option(help="Sample made by traccc-py simulate; else muons are shot.")] = None,
    muons: Annotated[int, typer.Option(help="Muons in an event.")] = 1000,
    config: Annotated[str | None, typer.Option(help="File of settings, or the name of a preset.")] = None,
    detector: Detector = "odd",
    events: Events = 2,
    repeats: Repeats = 3,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Print a row for each method."""
    chosen = detector_in(detector)
    if folder is None:
        given = list(simulate_events(chosen, muon_gun(muons), seed, events))
    else:
        given = collision_events(chosen, folder, "", 0.0, events, seed)
    settings, rows = read_config(config), []
    if folder is None:
        settings = settings.with_settings({"finding.particle": "muon", "fitting.particle": "muon"})
    chains = {
        method: TrackingChain(chosen, settings.with_settings({"seeding.method": method}), threads=1)
        for method in METHODS
    }
    summaries = {method: PerformanceSummary(SELECTIONS, float(chosen.arrays().b_z)) for method in METHODS}
    for event in given:
        for method, chain in chains.items():
            summaries[method].add_result(event, chain.run(event.cells))  # and buffers grow
    times = times_of(chains, given, repeats)
    columns = (*(f"{name} ms" for name in (*STAGES, "all")), "seeds", "tracks", "fakes %", *SELECTIONS)
    print("| method |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for method in METHODS:
        samples = summaries[method].samples
        first = next(iter(samples.values()))
        counts = (first.seeds.n_groups / len(given), first.tracks.n_groups / len(given))
        rates = (100 * first.tracks.fakes_per_group, *(100 * s.tracks.efficiency for s in samples.values()))
        row = dict(zip(columns, (*times[method].values(), *counts, *rates), strict=True))
        rows.append({"method": method, **row})
        print(f"| {method} |", " | ".join(f"{x:,.0f}" if x >= 200 else f"{x:.2f}" for x in row.values()), "|")
    write_results(output, "seeding_methods", {"folder": str(folder), "muons": muons, "rows": rows})


if __name__ == "__main__":
    typer.run(main)
