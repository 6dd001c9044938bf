"""Time reading and writing detray's JSON files of the Open Data Detector.

Usage: python -m studies.detray_time [--repeats 5]

Everything is measured in a process of its own, with an empty cache, so that layers and bins are made as well; the time
of a second reading, from the cache, is given beside it. Importing is not timed.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import typer

from studies.common import OUTPUT, Detector, Output, Repeats, detector_in, in_own_process, peak_memory, write_results


def write(name: str, folder: str) -> tuple[dict[str, str], float]:
    """Write the detector; return its files and the time [s]."""
    from traccc_py.geometry import write_detray

    detector = detector_in(name)
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
    measured["peak_memory_mb"] = peak_memory()
    return measured


def main(repeats: Repeats = 5, detector: Detector = "odd", output: Output = OUTPUT) -> None:
    """Time reading and writing detray's JSON files of a detector."""
    with tempfile.TemporaryDirectory() as folder:
        files, writing = in_own_process(write, detector, folder)
        runs = [in_own_process(read, files, str(Path(folder, f"cache{k}"))) for k in range(repeats)]
    found = {name: round(statistics.median(r[name] for r in runs), 3) for name in runs[0]}
    found["write_seconds"] = round(writing, 3)
    print(json.dumps(found, indent=1))
    write_results(output, "detray_time", {"detector": detector, "n_repeats": repeats, **found})


if __name__ == "__main__":
    typer.run(main)
