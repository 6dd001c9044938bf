"""Time the chain on the CPU against pile-up: each stage, events per second, memory, cost per cell, threads.

Usage: python -m studies.pileup_time [--sample 20=out/mu20 --sample 200=out/mu200] [--events 2] [--repeats 3]
                                     [--threads 1 --threads 2]

A sample is a mean number of pile-up collisions and a folder that `traccc-py simulate --process ttbar --pileup MU` made;
without any, samples at 20, 100, 200 and 300 are made and kept in the data folder. Every combination of sample and
threads is measured in a process of its own, whose peak memory is that of the chain. Besides wall time, of which the
median counts, the processor time is taken, of which the least counts: other work on the machine lengthens it less.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from studies.common import (
    OUTPUT,
    Detector,
    Events,
    Output,
    Repeats,
    ThreadCounts,
    detector_in,
    in_own_process,
    peak_memory,
    write_results,
)

PILEUP = (20.0, 100.0, 200.0, 300.0)
COLORS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb", "#222255", "#999933")


def make_sample(name: str, pileup: float, n_events: int, workers: int) -> str:
    """Return the folder of a sample of ttbar events, made if need be."""
    from traccc_py.simulation.samples import load_sample

    return str(load_sample("ttbar", pileup, n_events, detector=name, workers=workers).folder)


def time_run(chain: Any, cells: Any) -> tuple[Any, float, float]:
    """Return the result of an event, its wall time and its processor time [ms]."""
    wall, processor = time.perf_counter(), time.process_time()
    result = chain.run(cells)
    return result, 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)


def measure_event(chain: Any, cells: Any, repeats: int) -> dict[str, Any]:
    """Reconstruct an event again and again."""
    chain.run(cells)  # buffers grow
    runs = [time_run(chain, cells) for _ in range(repeats)]
    results, wall, processor = zip(*runs, strict=True)
    stages = {k: statistics.median(r.stage_milliseconds[k] for r in results) for k in results[0].stage_milliseconds}
    return {
        "n_cells": len(cells),
        "counts": results[0].counts(),
        "wall_ms": round(statistics.median(wall), 1),
        "processor_ms": round(min(processor), 1),
        "stage_ms": {k: round(v, 1) for k, v in stages.items()},
    }


def measure(name: str, folder: str, threads: int, n_events: int, repeats: int) -> dict[str, Any]:
    """Reconstruct the first events of a sample."""
    from traccc_py import TrackingChain, read_cells

    paths = sorted(Path(folder).glob("event*-cells.csv*"))[:n_events]
    if not paths:
        msg = f"{folder} holds no event*-cells.csv; expected a folder made by traccc-py simulate"
        raise typer.BadParameter(msg)
    chain = TrackingChain(detector_in(name), device="cpu", threads=threads)
    chain.initialize()
    rows = [measure_event(chain, read_cells(path), repeats) for path in paths]
    n_cells, wall, processor = (sum(row[k] for row in rows) for k in ("n_cells", "wall_ms", "processor_ms"))
    stages = {k: sum(row["stage_ms"][k] for row in rows) / len(rows) for k in rows[0]["stage_ms"]}
    return {
        "threads": threads,
        "events_per_second": round(1e3 * len(rows) / wall, 3),
        "wall_us_per_cell": round(1e3 * wall / n_cells, 3),
        "processor_us_per_cell": round(1e3 * processor / n_cells, 3),
        "stage_ms": {k: round(v, 1) for k, v in stages.items()},
        "mean_cells": round(n_cells / len(rows)),
        "peak_memory_mb": round(peak_memory()),
        "events": rows,
    }


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Draw stages, cost per cell and gain by threads against pile-up."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    threads = sorted({c["threads"] for c in cases})
    first = sorted((c for c in cases if c["threads"] == threads[0]), key=lambda c: c["pileup"])
    bottom = [0.0] * len(first)
    names = [f"{c['pileup']:g}" for c in first]
    for stage, color in zip(first[0]["stage_ms"], COLORS, strict=True):
        heights = [c["stage_ms"][stage] for c in first]
        left.bar(names, heights, bottom=bottom, color=color, label=stage.replace("_", " "))
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    left.set(xlabel="mean number of pile-up collisions", ylabel=f"wall time per event, {threads[0]} thread(s) [ms]")
    left.legend(fontsize=8, reverse=True)
    for n in threads:
        chosen = sorted((c for c in cases if c["threads"] == n), key=lambda c: c["pileup"])
        x = [c["pileup"] for c in chosen]
        right.plot(x, [c["wall_us_per_cell"] for c in chosen], "o--", label=f"wall, {n} thread(s)")
        right.plot(x, [c["processor_us_per_cell"] for c in chosen], "s-", label=f"processor, {n} thread(s)")
    right.set(xlabel="mean number of pile-up collisions", ylabel="time per cell [us]", ylim=(0, None))
    right.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def growth(cases: list[dict[str, Any]]) -> dict[str, float]:
    """Return by how much the processor time per cell grows from the least to the most pile-up, by threads."""
    found = {}
    for n in sorted({c["threads"] for c in cases}):
        chosen = sorted((c for c in cases if c["threads"] == n), key=lambda c: c["pileup"])
        found[str(n)] = round(chosen[-1]["processor_us_per_cell"] / chosen[0]["processor_us_per_cell"], 2)
    return found


def print_table(cases: list[dict[str, Any]]) -> None:
    """Print a line for each sample and number of threads."""
    columns = (
        "pile-up",
        "threads",
        "cells",
        "events/s",
        "wall us/cell",
        "cpu us/cell",
        "memory MB",
        "seeding, finding ms",
    )
    print("  ".join(columns))
    for c in cases:
        keys = ("pileup", "threads", "mean_cells", "events_per_second", "wall_us_per_cell", "processor_us_per_cell")
        values = [*(c[k] for k in (*keys, "peak_memory_mb")), f"{c['stage_ms']['seeding']}, {c['stage_ms']['finding']}"]
        print("  ".join(f"{value!s:>{len(name)}}" for value, name in zip(values, columns, strict=True)))


def parse_samples(samples: list[str]) -> dict[float, str]:
    """Return the folders by pile-up."""
    found = {}
    for sample in samples:
        pileup, sign, folder = sample.partition("=")
        try:
            found[float(pileup)] = folder
        except ValueError:
            sign = ""
        if not (sign and folder):
            msg = f"--sample {sample}: expected MU=FOLDER, such as 200=out/mu200"
            raise typer.BadParameter(msg)
    return found


def main(
    sample: Annotated[list[str] | None, typer.Option(help="MU=FOLDER; may be given again.")] = None,
    events: Events = 2,
    repeats: Repeats = 3,
    threads: ThreadCounts = None,
    detector: Detector = "odd",
    output: Output = OUTPUT,
) -> None:
    """Time the chain on the CPU against pile-up."""
    if sample:
        folders = parse_samples(sample)
    else:
        folders = {mu: in_own_process(make_sample, detector, mu, events, os.cpu_count() or 1) for mu in PILEUP}
    loads, cases = [os.getloadavg()[0]], []
    for mu, folder in sorted(folders.items()):
        for n in threads or [1, 2]:
            cases.append({"pileup": mu, **in_own_process(measure, detector, folder, n, events, repeats)})
            loads.append(os.getloadavg()[0])
    print_table(cases)
    grown = growth(cases)
    print(f"processor time per cell grows by {grown}; load {max(loads):.1f} at most")
    content = {"loads": [round(load, 1) for load in loads], "n_repeats": repeats}
    content |= {"growth_of_processor_time_per_cell": grown, "cases": cases}
    path = write_results(output, "pileup_time", content)
    plot(cases, path.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
