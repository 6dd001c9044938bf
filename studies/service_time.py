"""Measure what the service adds to the chain: the time of a request less that of the chain's stages, for each way.

Usage: python -m studies.service_time [--muons 8700] [--cells FILE] [--repeats 15] [--threads N]

Starts a Triton server on this machine with one instance on the CPU, and sends one event in the Open Data Detector again
and again: simulated muons (8,700 make 300,000 cells, as many as some hundred collisions), or those of a cells file. A
request's time runs from cells in memory to tracks in memory. In turn with the requests the chain runs in the client's
process; `over chain` is the median of the differences of each request and the run behind it. Median, smallest and mean
are those of a request less the stages that the server reports for it; the mean is made of:

pack       cells to tensors; measured alone, in the client's process
unpack     tensors to tracks; likewise
model      from the event's arrival in the model's process to its answer, less the stages: queue, tracks to tensors
transport  the rest: requests, encoding, copies through sockets or shared memory, between the server and the model's
           process, waiting for a core
"""

from __future__ import annotations

import os
import re
import statistics
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from studies.common import OUTPUT, Output, Repeats, Seed, Threads, detector_in, in_own_process, muon_gun, write_results
from traccc_py import Cells, TrackingChain, read_cells, wire
from traccc_py.backend.installation import find_installation, package_folder
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import ModelSettings, ServerSettings
from traccc_py.client import TrackingClient
from traccc_py.pipeline.prepare_cells import prepare_cells

WAYS: dict[str, dict[str, Any]] = {
    "gRPC": {},
    "HTTP": {"protocol": "http"},
    "gRPC, shared memory": {"shared_memory": "system"},
    "gRPC, compact": {"compact": True},
    "HTTP, compact": {"compact": True, "protocol": "http"},
    "gRPC, compact, shared memory": {"compact": True, "shared_memory": "system"},
    "HTTP, compact, shared memory": {"compact": True, "shared_memory": "system", "protocol": "http"},
}
START_SECONDS = 600
N_WARM_UP = 2  # connections and buffers are made
METRICS_SECONDS = 1.0  # counters are sent a few times a second
LATENCY = "traccc_py_latency_seconds_total"


def simulated(n_muons: int, seed: int) -> Cells:
    """Return the cells of an event of muons."""
    from traccc_py.simulation.events import simulate_event

    return simulate_event(detector_in("odd"), muon_gun(n_muons), seed).cells


def server_milliseconds(server: TritonServer) -> float:
    """Return the time from arrival to answer that the model has counted [ms]."""
    time.sleep(METRICS_SECONDS)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return 1e3 * sum(float(line.split()[-1]) for line in lines if line.startswith(f"{LATENCY}{{"))


def milliseconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def send(client: TrackingClient, cells: Cells) -> tuple[float, float]:
    """Return the time of a request and that of its stages [ms]."""
    begin = time.perf_counter()
    tracks = client.reconstruct(cells)
    wall = (time.perf_counter() - begin) * 1e3
    assert tracks.stage_milliseconds is not None
    return wall, sum(tracks.stage_milliseconds.values())


def run_alone(chain: TrackingChain, cells: Cells) -> float:
    """Return the time of the chain in this process [ms]."""
    begin = time.perf_counter()
    chain.run(cells)
    return (time.perf_counter() - begin) * 1e3


def measure(server: TritonServer, chain: TrackingChain, cells: Cells, repeats: int) -> dict[str, dict[str, Any]]:
    """Return the times of requests and of the chain alone by way [ms], and the means that the server counted."""
    url = {"grpc": f"127.0.0.1:{server.ports.grpc}", "http": f"127.0.0.1:{server.ports.http}"}
    clients = {
        name: TrackingClient(url[way.get("protocol", "grpc")], **way, timeout=START_SECONDS)
        for name, way in WAYS.items()
    }
    measured = {}
    for name, client in clients.items():
        for _ in range(N_WARM_UP):
            send(client, cells)
        before = server_milliseconds(server)
        requests, alone = [], []
        for _ in range(repeats):
            requests.append(send(client, cells))
            alone.append(run_alone(chain, cells))
        mean = (server_milliseconds(server) - before) / repeats
        measured[name] = {"wall_and_stages": requests, "alone": alone, "server_mean": mean}
        client.close()
    return measured


def summary(name: str, measured: dict[str, Any], pieces: dict[str, float]) -> dict[str, float]:
    """Return a row of the table [ms]."""
    form = ", compact" if WAYS[name].get("compact", False) else ""
    over = [wall - stages for wall, stages in measured["wall_and_stages"]]
    stages = [stages for _, stages in measured["wall_and_stages"]]
    parts = {
        "pack": pieces[f"pack cells{form}"],
        "unpack": pieces[f"unpack tracks{form}"],
        "model": measured["server_mean"] - statistics.mean(stages),
    }
    mean = statistics.mean(over)
    walls = [wall for wall, _ in measured["wall_and_stages"]]
    return {
        "over chain": statistics.median(w - alone for w, alone in zip(walls, measured["alone"], strict=True)),
        "median": statistics.median(over),
        "smallest": min(over),
        "mean": mean,
        **parts,
        "transport": mean - sum(parts.values()),
        "stages": statistics.median(stages),
        "chain": statistics.median(measured["alone"]),
    }


def pieces_alone(cells: Cells, threads: int, repeats: int) -> dict[str, float]:
    """Return the times of single steps, each alone in this process [ms]."""
    chain = TrackingChain("odd", device="cpu", threads=threads)
    result = chain.run(cells)
    standard, compact = wire.pack_cells(cells), wire.pack_compact_cells(cells)
    names = {
        "": [spec.name for spec in (*wire.STANDARD_OUTPUTS, wire.STAGE_TIMES)],
        ", compact": [
            spec.name
            for spec in (wire.TRK_PARAMS, wire.TRK_PERIGEE, wire.TRK_COVARIANCES, wire.TRK_SUMMARY, wire.STAGE_TIMES)
        ],
    }
    outputs = {kind: wire.pack_result(result, wanted) for kind, wanted in names.items()}
    steps: dict[str, Callable[[], Any]] = {
        "pack cells": lambda: wire.pack_cells(cells),
        "pack cells, compact": lambda: wire.pack_compact_cells(cells),
        "unpack cells": lambda: wire.unpack_cells(standard),
        "unpack cells, compact": lambda: wire.unpack_compact_cells(compact),
        "ids to modules, checks, order (part of the stages)": lambda: prepare_cells(cells, chain.detector),
        "pack tracks": lambda: wire.pack_result(result, names[""]),
        "pack tracks, compact": lambda: wire.pack_result(result, names[", compact"]),
        "unpack tracks": lambda: wire.unpack_tracks(outputs[""]),
        "unpack tracks, compact": lambda: wire.unpack_tracks(outputs[", compact"]),
    }
    return {name: milliseconds(step, repeats) for name, step in steps.items()}


def bytes_of(cells: Cells) -> dict[str, float]:
    """Return the bytes a cell takes on the wire."""
    n = max(1, len(cells))
    forms = {"standard": wire.pack_cells(cells), "compact": wire.pack_compact_cells(cells)}
    return {name: sum(t.nbytes for t in tensors.values()) / n for name, tensors in forms.items()}


def show(rows: dict[str, dict[str, float]], pieces: dict[str, float]) -> None:
    """Print the table, and the single steps."""
    columns = list(next(iter(rows.values())))
    print(f"| [ms] | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[c]:.1f}' for c in columns)} |")
    for name, value in pieces.items():
        print(f"{name:55} {value:8.2f} ms")


def main(
    muons: Annotated[int, typer.Option(min=0, help="Muons in the event.")] = 8700,
    cells: Annotated[Path | None, typer.Option(help="Cells file to take instead.")] = None,
    max_cells: Annotated[int | None, typer.Option(help="Take so many of the first cells.")] = None,
    repeats: Repeats = 15,
    threads: Threads = 2,
    seed: Seed = 5,
    output: Output = OUTPUT,
) -> None:
    """Measure what the service adds to the chain."""
    event = in_own_process(simulated, muons, seed) if cells is None else read_cells(cells)
    if max_cells is not None:
        event = Cells(*(getattr(event, name)[:max_cells].copy() for name in Cells.__slots__))
    load = os.getloadavg()
    pieces = pieces_alone(event, threads, repeats)
    output.mkdir(parents=True, exist_ok=True)
    log = output / "service_time.log"
    repository = ModelRepository(ModelSettings(threads=threads), package_folder=package_folder())
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port"), 0)
    settings = ServerSettings(**ports, shared_memory="local", log_file=log)
    with TritonServer(repository, settings) as server:
        server.start_until_ready(START_SECONDS)
        chain = TrackingChain("odd", device="cpu", threads=threads)
        chain.run(event)
        measured = measure(server, chain, event, repeats)
    version = re.search(r"server_version\s*\|\s*(\S+)", log.read_text())
    rows = {name: summary(name, found, pieces) for name, found in measured.items()}
    print(f"{len(event)} cells, {bytes_of(event)} bytes a cell")
    show(rows, pieces)
    content = {
        "server": {"version": version.group(1) if version else None, "binary": find_installation().binary.name},
        "threads": threads,
        "load_before": load,
        "event": {"cells": len(event), "muons": None if cells else muons, "bytes_a_cell": bytes_of(event)},
        "n_repeats": repeats,
        "milliseconds": rows,
        "pieces_milliseconds": pieces,
        "measured": measured,
    }
    write_results(output, "service_time", content)


if __name__ == "__main__":
    typer.run(main)
