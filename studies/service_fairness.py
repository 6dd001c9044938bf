"""Measure how long small events take beside large ones, and how many large ones are done.

Usage: python -m studies.service_fairness --large FILE [--clients 4] [--seconds 40] [--small-cells 663]

Starts a Triton server on this machine with one instance on the CPU. First the large event is sent alone, a few times;
then `clients` clients send it as fast as they are answered, while one client sends a small event again and again: the
one that comes with the package. Large events are done at 90 % of the rate without the small ones, and the p99 of small
ones is below the time of a large one plus 100 ms, or the study exits with 1.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.common import OUTPUT, Output, Threads, write_results
from traccc_py import Cells, read_cells
from traccc_py.backend.installation import package_folder
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import ModelSettings, ServerSettings
from traccc_py.client import TrackingClient
from traccc_py.data.sample import sample_event_path
from traccc_py.errors import ServiceError

START_SECONDS = 600
N_ALONE = 5
ALLOWED_MILLISECONDS = 100.0  # of a small event, more than a large one takes
ALLOWED_RATE = 0.9  # of large events, of the rate without small ones
TIMEOUT = 300.0


class Clients:
    """Clients that send one event until they are stopped."""

    def __init__(self, url: str, cells: Cells, n: int) -> None:
        self._url, self._cells = url, cells
        self.times: list[tuple[float, float]] = []  # of requests: end, milliseconds
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(n)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with TrackingClient(self._url, timeout=TIMEOUT) as client:
            while not self._stop.is_set():
                begin = time.monotonic()
                try:
                    client.reconstruct(self._cells)
                except ServiceError as error:
                    self.errors.append(str(error))
                    continue
                end = time.monotonic()
                self.times.append((end, (end - begin) * 1e3))

    def stop(self) -> None:
        """Let requests finish."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def summary(self, begin: float, end: float) -> dict[str, Any]:
        """Return rate, percentiles and errors of requests that ended in a span of time."""
        times = [t for when, t in self.times if begin <= when < end]
        if not times:
            return {"requests": 0, "errors": self.errors}
        percentiles = {f"p{q}_ms": round(float(np.percentile(times, q)), 1) for q in (50, 99)}
        return {"requests": len(times), "per_second": len(times) / (end - begin), **percentiles, "errors": self.errors}


def run_for(seconds: float, *clients: Clients) -> list[dict[str, Any]]:
    """Return summaries of clients, which have run for some time before they are stopped."""
    begin = time.monotonic()
    time.sleep(seconds)
    end = time.monotonic()
    for one in clients:
        one.stop()
    return [one.summary(begin, end) for one in clients]


def main(
    large: Annotated[Path, typer.Option(help="Cells file of a large event.")],
    clients: Annotated[int, typer.Option(min=1, help="That send it.")] = 4,
    seconds: Annotated[float, typer.Option(help="Time of each of the two loads.")] = 40.0,
    threads: Threads = 2,
    output: Output = OUTPUT,
) -> None:
    """Measure small events beside large ones."""
    event, small = read_cells(large), read_cells(sample_event_path())
    output.mkdir(parents=True, exist_ok=True)
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port"), 0)
    settings = ServerSettings(**ports, log_file=output / "service_fairness.log")
    repository = ModelRepository(ModelSettings(threads=threads), package_folder=package_folder())
    with TritonServer(repository, settings) as server:
        server.start_until_ready(START_SECONDS)
        url = f"127.0.0.1:{server.ports.grpc}"
        alone = []
        with TrackingClient(url, timeout=TIMEOUT) as client:
            for _ in range(N_ALONE):
                begin = time.monotonic()
                client.reconstruct(event)
                alone.append((time.monotonic() - begin) * 1e3)
        (large_alone,) = run_for(seconds, Clients(url, event, clients))
        large_beside, small_beside = run_for(seconds, Clients(url, event, clients), Clients(url, small, 1))
    found = {
        "cells": {"large": len(event), "small": len(small)},
        "large_once_ms": float(np.median(alone)),
        "large_without_small": large_alone,
        "large_beside_small": large_beside,
        "small_beside_large": small_beside,
    }
    print(json.dumps(found, indent=2))
    write_results(output, "service_fairness", {"options": {"clients": clients, "seconds": seconds}, **found})
    is_quick = small_beside["p99_ms"] < found["large_once_ms"] + ALLOWED_MILLISECONDS
    is_fast = large_beside["per_second"] > ALLOWED_RATE * large_alone["per_second"]
    if not (is_quick and is_fast):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
