"""Time `traccc-py run` on many events, from files to files, beside the chain alone with events in memory.

Usage: python -m studies.run_rate --folder out/mu20 [--events 200] [--workers 2] [--form csv --form parquet]
                                  [--repeats 2]

The folder is one of `traccc-py simulate`; its events are repeated, by links, until there are enough. Each repeat
measures all in turn. A run is timed with all events and with a quarter of them: the difference has no start in it, if a
quarter has a file for each of the processes. Besides wall time, the processor time is taken, which other work on the
machine lengthens less; that of the chain also with one thread, as a process of a run has. Where even that is not quiet,
the last lines help: in one process, rounds of the chain alone and of what a run does besides, in turn; their medians.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from studies.common import OUTPUT, Detector, Events, Output, Repeats, in_own_process, write_results

_SHARE = 4
_EVENTS_OF_ROUND, _ROUNDS = 12, 9
_EVENTS_PER_FILE = 25
_KILOBYTES_PER_MB = 1000


def linked_events(folder: Path, events: int, target: Path) -> Path:
    """Make a folder with cells of so many events, as links to those of another."""
    paths = sorted(folder.glob("event*-cells.csv*"))
    target.mkdir()
    for number in range(events):
        path = paths[number % len(paths)].resolve()
        (target / f"event{number:09d}-cells{''.join(path.suffixes)}").symlink_to(path)
    return target


def chain_rate(folder: Path, detector: str, digitization: str | None, threads: int, events: int) -> dict[str, float]:
    """Return the rate of the chain alone."""
    from traccc_py import TrackingChain, build_detector, read_cells

    options = {} if digitization is None else {"digitization": digitization}
    chain = TrackingChain(build_detector(detector, **options), device="cpu", threads=threads)
    cells = [read_cells(path) for path in sorted(folder.glob("event*-cells.csv*"))]
    chain.run(cells[0])
    wall, processor = time.perf_counter(), time.process_time()
    for number in range(events):
        chain.run(cells[number % len(cells)])
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"events_per_second": events / wall, "processor_milliseconds": 1e3 * processor / events}


def _timed(words: list[str]) -> tuple[float, float, float]:
    """Return wall and processor seconds of a program and its processes, and their largest memory so far [MB]."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as pip installs it: with bytecode
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "traccc_py", *words], check=True, capture_output=True, env=environment)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, after.ru_maxrss / _KILOBYTES_PER_MB


def run_rate(source: Path, form: str, events: int, options: list[str]) -> dict[str, float]:
    """Return the rate of a run, with its start and without it."""
    times = []
    for n in (max(1, events // _SHARE), events):
        with tempfile.TemporaryDirectory() as folder:
            out = ["--output", folder, "--format", form, "--events-per-file", str(_EVENTS_PER_FILE)]
            times.append((n, *_timed(["run", str(source), "--events", str(n), *out, *options])))
    (n_few, few, cpu_few, _), (n, wall, processor, memory) = times
    return {
        "events_per_second": n / wall,
        "events_per_second_without_start": (n - n_few) / (wall - few) if n > n_few else float("nan"),
        "processor_milliseconds": 1e3 * processor / n,
        "processor_milliseconds_without_start": 1e3 * (processor - cpu_few) / max(n - n_few, 1),
        "largest_process_mb": memory,
    }


def paired_times(source: Path, form: str, detector: str, digitization: str | None, rounds: int) -> dict[str, float]:
    """Return the medians of rounds in one process: the chain alone, and what a run does besides [ms of an event]."""
    from traccc_py import TrackingChain, build_detector
    from traccc_py.cli.event_reader import EventReader
    from traccc_py.cli.files import find_event_files
    from traccc_py.cli.reconstruction import RunOptions, output_of
    from traccc_py.data.parquet_files import use_plain_memory

    use_plain_memory()
    options = {} if digitization is None else {"digitization": digitization}
    chain = TrackingChain(build_detector(detector, **options), device="cpu", threads=1)
    files = find_event_files([str(source)], 0, _EVENTS_OF_ROUND, None, lambda *_: None, with_tables=True)
    events = [EventReader(chain.detector).read(file) for file in files]
    clock = time.process_time
    alone, besides = [], []
    for _ in range(rounds + 1):
        begin = clock()
        for event in events:
            chain.run(event.event, event.source)
        alone.append(clock() - begin)
        with tempfile.TemporaryDirectory() as folder:
            begin, inside = clock(), 0.0
            reader = EventReader(chain.detector)
            output = output_of(RunOptions(output=Path(folder), format=form, events_per_file=_EVENTS_PER_FILE))
            for file in files:
                event = reader.read(file)
                start = clock()
                result = chain.run(event.event, event.source)
                inside += clock() - start
                output.add(file.event, result, event.particle_of_measurement, event.hit_id)
            output.close()
            besides.append(clock() - begin - inside)
    found = (1e3 * statistics.median(times[1:]) / len(files) for times in (alone, besides))  # buffers grow in the first
    return dict(zip(("chain_alone", "besides"), found, strict=True))


def main(
    folder: Annotated[Path, typer.Option(help="Folder of traccc-py simulate.")],
    events: Events = 200,
    workers: Annotated[int, typer.Option(min=1, help="Processes of a run, and threads of the chain alone.")] = 2,
    form: Annotated[
        list[str] | None, typer.Option(help="csv or parquet, of input and output; may be repeated.")
    ] = None,
    repeats: Repeats = 2,
    detector: Detector = "odd",
    output: Output = OUTPUT,
) -> None:
    """Time runs beside the chain alone."""
    recipe = json.loads((folder / "manifest.json").read_text())["recipe"]
    readout = recipe.get("detector", {}).get("digitization") if isinstance(recipe.get("detector"), dict) else None
    options = ["--detector", detector, "--device", "cpu", "--workers", str(workers)]
    options += [] if readout is None else ["--digitization", readout]
    work = Path(tempfile.mkdtemp())
    try:
        sources = {"csv": linked_events(folder, events, work / "csv"), "parquet": work / "parquet"}
        chosen = form or ["csv", "parquet"]
        if "parquet" in chosen:
            words = ["--output", str(sources["parquet"]), "--events-per-file", str(_EVENTS_PER_FILE)]
            _timed(["convert", str(sources["csv"]), *words])
        rounds: list[dict[str, Any]] = []
        for _ in range(repeats):
            alone, one_thread = (chain_rate(folder, detector, readout, n, events) for n in (workers, 1))
            runs = {name: run_rate(sources[name], name, events, options) for name in chosen}
            rounds.append({"load": os.getloadavg()[0], "alone": alone, "one_thread": one_thread, **runs})
            print(f"load {os.getloadavg()[0]:.1f}")
            print(
                f"chain alone {alone['events_per_second']:.2f} events/s, {alone['processor_milliseconds']:.1f} ms; "
                f"with one thread {one_thread['processor_milliseconds']:.1f} ms"
            )
            for name, found in runs.items():
                shares = [found[key] / alone["events_per_second"] for key in list(found)[:2]]
                print(
                    f"{name:8} {found['events_per_second']:.2f} events/s, {shares[0]:.0%} of the chain alone; "
                    f"without start {shares[1]:.0%}; {found['processor_milliseconds_without_start']:.1f} ms"
                )
        paired = {}
        for name in chosen:
            paired[name] = in_own_process(paired_times, sources[name], name, detector, readout, _ROUNDS)
            alone, besides = paired[name].values()
            print(
                f"{name:8} in turn: chain alone {alone:.1f} ms of processor time, reading and writing {besides:.1f}: "
                f"{alone / (alone + besides):.1%}"
            )
    finally:
        shutil.rmtree(work)
    content = {"folder": folder.name, "events": events, "workers": workers, "rounds": rounds, "paired": paired}
    write_results(output, "run_rate", content)


if __name__ == "__main__":
    typer.run(main)
