"""Time the chain on the CPU, stage by stage, with one simulated event in the Open Data Detector.

Usage: python benchmarks/bench_chain.py [--muons 5000] [--repeats 10] [--threads 1 --threads 2] [--solenoid]
                                        [--output FILE]

Every number of threads is measured in a process of its own, so that the peak memory is that of the chain and not of the
simulation. Compilation and the first event, in which buffers grow, are not timed.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import resource
import statistics
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PT = (0.5, 10.0)  # [GeV]
SEED = 5
KILOBYTES_PER_MB = 1000


def detector_in(solenoid: bool) -> Any:
    """Return the Open Data Detector, in a homogeneous field or in that of a solenoid."""
    from traccc_py.geometry import build_detector
    from traccc_py.geometry.field import solenoid_field_map

    detector = build_detector("odd")
    return detector.with_field_map(solenoid_field_map()) if solenoid else detector


def write_event(path: Path, n_muons: int, solenoid: bool) -> None:
    """Simulate an event and keep its cells."""
    from traccc_py.simulation.events import simulate_event
    from traccc_py.simulation.generators.gun import ParticleGunConfig

    gun = ParticleGunConfig(n_particles=n_muons, momentum=PT, eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0))
    cells = simulate_event(detector_in(solenoid), gun, SEED).cells
    np.savez(path, **{f.name: getattr(cells, f.name) for f in fields(cells)})


def peak_memory() -> float:
    """Return the largest memory this process has had [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES_PER_MB


def measure(path: Path, n_threads: int, n_repeats: int, solenoid: bool) -> dict[str, Any]:
    """Reconstruct the event again and again; return counts, times and memory."""
    from traccc_py import Cells, TrackingChain

    with np.load(path) as columns:
        cells = Cells(**columns)
    chain = TrackingChain(detector_in(solenoid), device="cpu", threads=n_threads)
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


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def facts() -> dict[str, Any]:
    """Return what the numbers depend on."""
    from traccc_py.cli.report import versions

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False).stdout.strip()

    changed = " with changes" if git("status", "--porcelain", "traccc_py") else ""
    cpu = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    n_cores = multiprocessing.cpu_count()
    return {"commit": git("rev-parse", "HEAD") + changed, "versions": versions(), "cpu": cpu, "n_cores": n_cores}


def main(
    muons: Annotated[int, typer.Option(min=1, help="Muons in the event.")] = 5000,
    repeats: Annotated[int, typer.Option(min=1, help="Times the event is reconstructed.")] = 10,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="CPU threads; may be given again.")] = None,
    solenoid: Annotated[bool, typer.Option(help="In a map of a solenoid's field.")] = False,
    output: Annotated[Path | None, typer.Option(help="JSON file. (default: benchmarks/results/DATE-cpu.json)")] = None,
) -> None:
    """Time the chain on the CPU with one simulated event of muons in the Open Data Detector."""
    date = datetime.now(UTC).date().isoformat()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.npz"
        in_own_process(write_event, path, muons, solenoid)
        in_own_process(measure, path, 1, 1, solenoid)  # compiles, if need be: its memory is not the chain's
        cases = [in_own_process(measure, path, n, repeats, solenoid) for n in threads or [1, 2]]
    event = {"n_muons": muons, "pt_gev": PT, "abs_eta_max": 2.5, "seed": SEED, "solenoid": solenoid}
    content = {"date": date, **facts(), "event": event, "n_repeats": repeats, "cases": cases}
    output = output or RESULTS / f"{date}-cpu.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n")
    print(f"{content['cpu']}; {muons} muons: {cases[0]['counts']}")
    print(f"{'median of ' + str(repeats) + ' [ms]':24}" + "".join(f"{c['threads']:>8} thread(s)" for c in cases))
    for name in cases[0]["stage_milliseconds"]:
        print(f"{name:24}" + "".join(f"{c['stage_milliseconds'][name]:18.1f}" for c in cases))
    print(f"{'total':24}" + "".join(f"{c['total_milliseconds']:18.1f}" for c in cases))
    print(f"{'peak memory [MB]':24}" + "".join(f"{c['peak_memory_mb']:18}" for c in cases))
    print(f"written to {output}")


if __name__ == "__main__":
    typer.run(main)
