"""Check and time the chain on a GPU: every kernel, events of several sizes, batches, memory; or the same on the CPU.

Usage: python -m studies.gpu [--events DIR] [--device cuda] [--minutes 8]
       python -m studies.gpu --sanitize memcheck|racecheck|initcheck|synccheck
       nsys profile -c cudaProfilerApi python -m studies.gpu --profile

It needs CuPy and numba-cuda, prepares everything itself and ends within the minutes given: what there is no time for is
left out and named. `--events` takes a folder of ``event*-cells.csv`` files instead of simulated muons.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from studies.common import OUTPUT, ROOT, Device, Output, Repeats, Seed, detector_in, muon_gun, write_results
from studies.gpu_devices import GpuTimer, HostTimer, copy_bandwidth, memory_in_use
from tests.comparison import compare
from traccc_py import TrackingChain, read_cells

# As many as there are charged particles with |eta| < 2.5 at 20, 100, 200 and 300 interactions a crossing, 33 each
# (ATLAS, Phys. Lett. B 758 (2016) 67: 6.4 a unit of eta above 100 MeV at 13 TeV).
MUONS = (660, 3300, 6600, 9900)
BATCHES = (1, 2, 4, 8, 16, 32)
MAX_CELLS = 20_000_000  # of a batch
N_DISTINCT = 2  # simulated events of each size; batches repeat them
SANITIZER_ARGUMENTS = ("--muons", "20", "--batches", "2", "--repeats", "1", "--no-timing")


class Budget:
    """The time that is left."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.left_out: list[str] = []

    def allows(self, what: str, seconds: float) -> bool:
        """Return whether something that takes some time can still be done; if not, note it."""
        if time.monotonic() + seconds < self.end:
            return True
        self.left_out.append(what)
        print(f"no time left for {what}")
        return False


def simulated(muons: list[int], detector: Any, seed: int) -> dict[str, list[Any]]:
    """Return simulated events by the name of their size."""
    from traccc_py.simulation.events import simulate_events

    return {
        f"{n} muons": [event.cells for event in simulate_events(detector, muon_gun(n), seed, N_DISTINCT)] for n in muons
    }


def read_events(folder: Path) -> dict[str, list[Any]]:
    """Return the events of a folder, each one as a size of its own."""
    paths = sorted(folder.glob("event*-cells.csv"))
    if not paths:
        msg = f"{folder} holds no event*-cells.csv"
        raise typer.BadParameter(msg)
    return {path.name.removesuffix("-cells.csv"): [read_cells(path)] for path in paths}


def check(chain: Any, reference: Any, events: dict[str, list[Any]], budget: Budget) -> dict[str, Any]:
    """Compare results with those of the CPU, and repeated runs with each other, bit by bit."""
    found = {}
    for name, cells in events.items():
        if not budget.allows(f"the comparison of {name}", 60 if chain.device.name.startswith("cuda") else 1):
            continue
        result = chain.run(cells[0])
        comparison = compare(result, reference.run(cells[0]))
        again = [chain.run(cells[0]), chain.run_batch([cells[-1], cells[0]])[1]]
        same_bits = all(r.tracks.params.tobytes() == result.tracks.params.tobytes() for r in again)
        found[name] = {**vars(comparison), "is_good": comparison.is_good, "same_bits_again": same_bits}
        print(f"{name}: {comparison}, {'good' if comparison.is_good else 'NOT GOOD'}, same bits again: {same_bits}")
    return found


def time_batches(chain: Any, cells: list[Any], n: int, repeats: int) -> dict[str, Any]:
    """Time batches of `n` events one by one (latency), and one after the other (throughput)."""
    batch = [cells[k % len(cells)] for k in range(n)]
    for _ in range(3):  # buffers grow, graphs are recorded
        chain.run_batch(batch)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        chain.run_batch(batch)
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    for _ in chain.run_batches([batch] * repeats):
        pass
    in_a_row = (time.perf_counter() - begin) / repeats
    return {
        "n_events": n,
        "n_cells": sum(len(c.channel0) for c in batch),
        "latency_ms": round(1e3 * statistics.median(times), 3),
        "latency_ms_range": [round(1e3 * min(times), 3), round(1e3 * max(times), 3)],
        "events_per_second": round(n / in_a_row, 2),
        "memory_mb": round(memory_in_use(chain.device) / 1e6),
    }


def scan_sizes(chain: Any, events: dict[str, list[Any]], batches: list[int], repeats: int, budget: Budget) -> Any:
    """Time all sizes of events and batches there is time for."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, cells in events.items():
        seconds = 5.0
        for n in batches:
            largest = n * max(len(c.channel0) for c in cells)
            if largest > MAX_CELLS or not budget.allows(f"{name}, batch of {n}", seconds):
                break
            begin = time.monotonic()
            row = time_batches(chain, cells, n, repeats)
            seconds = 2.2 * (time.monotonic() - begin)
            found.setdefault(name, []).append(row)
            print(f"{name:>14} x {n:<3} {row['latency_ms']:10.2f} ms {row['events_per_second']:10.1f} events/s")
    return found


def time_kernels(chain: Any, timer: Any, cells: Any, n: int, copy_gb_per_s: float | None) -> list[dict[str, Any]]:
    """Time each kernel in a batch of `n` like events; not in graphs, whose launches can't be timed one by one."""
    used_graphs, chain.device.uses_graphs = getattr(chain.device, "uses_graphs", False), False
    for _ in range(3):
        chain.run_batch([cells] * n)
    timer.begin()
    chain.run_batch([cells] * n)
    chain.device.uses_graphs = used_graphs
    rows = []
    for name, milliseconds in sorted(timer.end().items(), key=lambda item: -sum(item[1])):
        row = {"kernel": name, "runs": len(milliseconds), "ms": round(sum(milliseconds), 4)}
        n_bytes = timer.payload_bytes.get(name)
        if copy_gb_per_s and n_bytes and sum(milliseconds) > 0:
            # arrays given over time: above the copy's rate they were not all touched
            row["payload_over_copy_rate"] = round(n_bytes / sum(milliseconds) / 1e6 / copy_gb_per_s, 3)
        rows.append(row)
    return rows


def plot(content: dict[str, Any], path: Path) -> None:
    """Draw events per second against the batch, and the kernels' times."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, rows in content["batches"].items():
        left.plot([r["n_events"] for r in rows], [r["events_per_second"] for r in rows], "o-", label=name)
    left.set(
        xscale="log", yscale="log", xlabel="events in a batch", ylabel="events per second", title=content["device"]
    )
    if content["batches"]:
        left.legend()
    kernels = content["kernels"][:15][::-1]
    right.barh([k["kernel"] for k in kernels], [k["ms"] for k in kernels])
    right.set(xlabel="ms", title="kernels")
    figure.savefig(path)


def sanitize(tool: str) -> None:
    """Run a small event under compute-sanitizer and end with its status."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        print("compute-sanitizer is not in PATH; it comes with the CUDA toolkit")
        raise typer.Exit(2)
    study = [sys.executable, "-m", "studies.gpu", *SANITIZER_ARGUMENTS, "--no-pool"]
    command = [program, "--tool", tool, "--error-exitcode", "1", *study]
    raise typer.Exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


def make_chain(device: str, *, graphs: bool, no_pool: bool) -> tuple[Any, Any]:
    """Return a chain and what times its kernels."""
    detector = detector_in("odd")
    if device == "cpu":
        timer: Any = HostTimer()
        return TrackingChain(detector, device=timer.device), timer
    from traccc_py.device.cuda.executor import CudaDevice

    timer = GpuTimer()
    index = int(device.partition(":")[2] or 0)
    on_gpu = CudaDevice(index, timer, uses_graphs=graphs)
    if no_pool:  # an allocation for each array, so that the sanitizer sees their ends
        on_gpu._pool = SimpleNamespace(malloc=None, total_bytes=lambda: 0)
    timer.watch(on_gpu)
    return TrackingChain(detector, device=on_gpu), timer


def profile(chain: Any, cells: list[Any], n: int) -> None:
    """Run batches of one size between the marks that profilers wait for."""
    import cupy

    for _ in range(3):
        chain.run_batch(cells[:1] * n)
    cupy.cuda.profiler.start()
    for _ in chain.run_batches([cells[:1] * n] * 3):
        pass
    cupy.cuda.profiler.stop()


def main(
    events: Annotated[Path | None, typer.Option(help="Folder of event*-cells.csv files of the ODD.")] = None,
    muons: Annotated[list[int] | None, typer.Option(min=1, help="Muons of an event; may be given again.")] = None,
    batches: Annotated[list[int] | None, typer.Option(min=1, help="Events of a batch; may be given again.")] = None,
    repeats: Repeats = 9,
    device: Device = "cuda",
    minutes: Annotated[float, typer.Option(help="Time after which nothing new is begun.")] = 8.0,
    graphs: Annotated[bool, typer.Option(help="Replay batches as CUDA graphs.")] = False,
    timing: Annotated[bool, typer.Option(help="Time kernels and batches.")] = True,
    sanitizer: Annotated[str | None, typer.Option("--sanitize", help="Tool of compute-sanitizer.")] = None,
    for_profiler: Annotated[bool, typer.Option("--profile", help="Only run batches for a profiler.")] = False,
    no_pool: Annotated[bool, typer.Option("--no-pool", hidden=True)] = False,
    seed: Seed = 5,
    output: Output = OUTPUT,
) -> None:
    """Check and time the chain on a GPU."""
    if sanitizer:
        sanitize(sanitizer)
    budget = Budget(minutes)
    chain, timer = make_chain(device, graphs=graphs, no_pool=no_pool)
    samples = read_events(events) if events else simulated(list(muons or MUONS), chain.detector, seed)
    begin = time.monotonic()
    chain.initialize()
    content: dict[str, Any] = {"device": chain.device.name}
    content["initialize_seconds"] = round(time.monotonic() - begin, 2)
    print(f"{chain.device.name}: ready after {content['initialize_seconds']} s")
    largest = list(samples)[-1]
    if for_profiler:
        profile(chain, samples[largest], (batches or [8])[-1])
        return
    content["check"] = check(chain, TrackingChain(chain.detector, device="cpu"), samples, budget)
    content["batches"], content["kernels"] = {}, []
    if timing:
        content["copy_gb_per_s"] = copy = copy_bandwidth(chain.device)
        content["kernels"] = time_kernels(chain, timer, samples[largest][0], (batches or [4])[0], copy)
        content["batches"] = scan_sizes(chain, samples, list(batches or BATCHES), repeats, budget)
    content["left_out"] = budget.left_out
    for row in content["kernels"][:12]:
        print(f"{row['kernel']:45} {row['runs']:3} {row['ms']:9.3f} ms")
    path = write_results(output, "gpu", content)
    plot(content, path.with_suffix(".png"))
    if not all(one["is_good"] and one["same_bits_again"] for one in content["check"].values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
