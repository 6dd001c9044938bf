"""Time the chain on the CPU, stage by stage, with one simulated event of muons.

Usage: python -m studies.chain_time [--muons 5000] [--repeats 10] [--threads 1 --threads 2] [--solenoid]

Every number of threads is measured in a process of its own, so that the peak memory is that of the chain and not of the
simulation. Compilation and the first event, in which buffers grow, are not timed.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.common import (
    OUTPUT,
    Detector,
    Output,
    Repeats,
    Seed,
    ThreadCounts,
    detector_in,
    in_own_process,
    muon_gun,
    peak_memory,
    write_results,
)


def write_event(path: Path, name: str, n_muons: int, seed: int, solenoid: bool) -> None:
    """Simulate an event and keep its cells."""
    from traccc_py.simulation.events import simulate_event

    cells = simulate_event(detector_in(name, solenoid=solenoid), muon_gun(n_muons), seed).cells
    np.savez(path, **{f.name: getattr(cells, f.name) for f in fields(cells)})


def measure(path: Path, name: str, n_threads: int, n_repeats: int, solenoid: bool) -> dict[str, Any]:
    """Reconstruct the event again and again; return counts, times and memory."""
    from traccc_py import Cells, TrackingChain

    with np.load(path) as columns:
        cells = Cells(**columns)
    chain = TrackingChain(detector_in(name, solenoid=solenoid), device="cpu", threads=n_threads)
    chain.initialize()
    memory_ready = peak_memory()
    chain.run(cells)
    results = [chain.run(cells) for _ in range(n_repeats)]
    stages = {name: [r.stage_milliseconds[name] for r in results] for name in results[0].stage_milliseconds}
    totals = [sum(r.stage_milliseconds.values()) for r in results]
    return {
        "threads": n_threads,
        "counts": results[0].counts(),
        "stage_milliseconds": {name: round(statistics.median(times), 2) for name, times in stages.items()},
        "total_milliseconds": round(statistics.median(totals), 2),
        "total_milliseconds_range": [round(min(totals), 2), round(max(totals), 2)],
        "peak_memory_mb": round(peak_memory()),
        "memory_before_the_event_mb": round(memory_ready),
    }


def main(
    muons: Annotated[int, typer.Option(min=1, help="Muons in the event.")] = 5000,
    repeats: Repeats = 10,
    threads: ThreadCounts = None,
    solenoid: Annotated[bool, typer.Option(help="In a map of a solenoid's field.")] = False,
    detector: Detector = "odd",
    seed: Seed = 5,
    output: Output = OUTPUT,
) -> None:
    """Time the chain on the CPU with one simulated event of muons."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.npz"
        in_own_process(write_event, path, detector, muons, seed, solenoid)
        in_own_process(measure, path, detector, 1, 1, solenoid)  # compiles, if need be: its memory is not the chain's
        cases = [in_own_process(measure, path, detector, n, repeats, solenoid) for n in threads or [1, 2]]
    print(f"{muons} muons: {cases[0]['counts']}")
    print(f"{'median of ' + str(repeats) + ' [ms]':24}" + "".join(f"{c['threads']:>8} thread(s)" for c in cases))
    for name in cases[0]["stage_milliseconds"]:
        print(f"{name:24}" + "".join(f"{c['stage_milliseconds'][name]:18.1f}" for c in cases))
    print(f"{'total':24}" + "".join(f"{c['total_milliseconds']:18.1f}" for c in cases))
    print(f"{'peak memory [MB]':24}" + "".join(f"{c['peak_memory_mb']:18}" for c in cases))
    event = {"n_muons": muons, "gun": repr(muon_gun(muons)), "seed": seed, "detector": detector, "solenoid": solenoid}
    write_results(output, "chain_time", {"event": event, "n_repeats": repeats, "cases": cases})


if __name__ == "__main__":
    typer.run(main)
