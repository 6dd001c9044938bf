"""Time reading and writing detray's JSON files of the Open Data Detector.

Usage: python benchmarks/bench_detray.py [--repeats 5] [--output FILE]

Everything is measured in a process of its own, with an empty cache, so that layers and bins are made as well; the time
of a second reading, from the cache, is given beside it. Importing is not timed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer

KILOBYTES_PER_MB = 1000


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write(folder: str) -> tuple[dict[str, str], float]:
    """Write the detector; return its files and the time [s]."""
    from traccc_py.geometry import build_detector, write_detray

    detector = build_detector("odd")
    start = time.perf_counter()
    files = write_detray(detector, folder)
    return {name: str(path) for name, path in files.items()}, time.perf_counter() - start


def read(files: dict[str, str], cache: str) -> dict[str, float]:
    """Read the detector twice; return times [s] and the largest memory [MB]."""
    os.environ["TRACCC_PY_CACHE_DIR"] = cache
    from traccc_py.geometry import read_detray

    measured = {}
    for name in ("first_seconds", "second_seconds"):
        start = time.perf_counter(), time.process_time()
        detector = read_detray(
            files["geometry"], files["homogeneous_material"], files["surface_grids"], digitization=files["digitization"]
        )
        detector.arrays()
        measured[name] = time.perf_counter() - start[0]
        measured[name.replace("seconds", "cpu_seconds")] = time.process_time() - start[1]
    measured["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KILOBYTES_PER_MB
    return measured


def main(
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    output: Annotated[Path | None, typer.Option(help="JSON file for the results.")] = None,
) -> None:
    """Time reading and writing detray's JSON files of the Open Data Detector."""
    with tempfile.TemporaryDirectory() as folder:
        files, writing = in_own_process(write, folder)
        runs = [in_own_process(read, files, str(Path(folder, f"cache{k}"))) for k in range(repeats)]
    result = {name: round(statistics.median(r[name] for r in runs), 3) for name in runs[0]}
    result["write_seconds"] = round(writing, 3)
    text = json.dumps(result, indent=1)
    print(text)
    if output is not None:
        output.write_text(text + "\n")


if __name__ == "__main__":
    typer.run(main)
