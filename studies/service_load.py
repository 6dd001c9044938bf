"""Load the service for a while and see whether it stays as it was: memory, times, errors, recovery from dead instances.

Usage: python -m studies.service_load [--minutes 30] [--clients 2] [--muons 0 --muons 100] [--kills 0]

Starts `traccc-py serve` on free ports of this machine, and clients of different kinds (compact or standard tensors,
gRPC or HTTP, system shared memory or not) that send events of different sizes, compare each answer with the first one
of that event, and pause as long as an answer took, so that other work on the machine goes on. With `--kills` an
instance is killed again and again at the end. Exits with 1 if the memory of a process grew by more than 5 % after the
first two minutes, if an answer was wrong or an error came (but to requests in flight when an instance was killed).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.common import OUTPUT, Device, Output, Seed, detector_in, muon_gun, write_results
from traccc_py import Cells
from traccc_py.client import TrackingClient
from traccc_py.errors import TracccError
from traccc_py.simulation.events import simulate_event
from traccc_py.studies import programs
from traccc_py.studies.programs import children, resident_mb

KINDS = (
    {"compact": True},
    {"protocol": "http"},
    {"compact": True, "shared_memory": "system"},
    {"shared_memory": "system"},
)
MUONS = (0, 10, 100, 1000)  # in the events
SETTLED_SECONDS = 120  # memory is compared with what it was then
ALLOWED_GROWTH = 0.05
START_SECONDS = 300
SECONDS_AFTER_A_KILL = 15


def make_events(muons: list[int], seed: int) -> list[Cells]:
    """Simulate one event of each size in the Open Data Detector."""
    detector = detector_in("odd")
    return [simulate_event(detector, muon_gun(n), seed).cells for n in muons]


class Service(programs.Service):
    """A running `traccc-py serve`, whose processes are looked at; its log and Triton's are beside the results."""

    def __init__(self, device: str, instances: int, log: Path) -> None:
        words = [f"--device={device}", f"--instances={instances}", "--shared-memory=local"]
        super().__init__(log.parent, words, name=log.stem)
        self.ports = {"http": self.http, "grpc": self.grpc, "metrics": self.metrics_port}
        try:
            self.ready_seconds = self.wait_until_ready(START_SECONDS)
        except BaseException:
            self.close()
            raise

    def processes(self) -> dict[int, str]:
        """Return launcher, server and instances by process id."""
        (server,) = (pid for pid, command in children(self.process.pid) if "tritonserver" in command)
        stubs = [pid for pid, command in children(server) if "stub" in command]
        return {self.process.pid: "launcher", server: "server", **dict.fromkeys(stubs, "instance")}

    def memory(self) -> dict[str, float]:
        """Return the resident memory of each process [MB]."""
        return {f"{name} {pid}": resident_mb(pid) for pid, name in self.processes().items()}


class Load:
    """Clients that send events until they are told to stop."""

    def __init__(self, ports: dict[str, int], events: list[Cells], n_clients: int) -> None:
        self._ports, self._events = ports, events
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._first: dict[tuple[int, bool], str] = {}  # answer to an event, by its number and kind of tensors
        self.milliseconds: dict[int, list[float]] = defaultdict(list)  # by number of cells
        self.answered: list[float] = []  # times of good answers
        self.errors: list[tuple[float, str]] = []
        self.n_wrong = 0
        self._threads = [threading.Thread(target=self._client, args=(k,)) for k in range(n_clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let requests finish."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        kind: dict[str, Any] = KINDS[number % len(KINDS)]
        choice = random.Random(number)
        url = f"127.0.0.1:{self._ports[kind.get('protocol', 'grpc')]}"
        with TrackingClient(url, **kind, retries=0, timeout=60) as client:
            while not self._stop.is_set():
                k = choice.randrange(len(self._events))
                begin = time.monotonic()
                try:
                    tracks = client.reconstruct(self._events[k])
                except TracccError as error:
                    self.errors.append((begin, str(error)))
                    self._stop.wait(0.1)
                    continue
                end = time.monotonic()
                self._note((k, kind.get("compact", False)), tracks.columns(), begin, end)
                self._stop.wait(end - begin)

    def _note(self, key: tuple[int, bool], columns: dict[str, np.ndarray], begin: float, end: float) -> None:
        digest = hashlib.sha256(b"".join(values.tobytes() for values in columns.values())).hexdigest()
        with self._lock:
            self.n_wrong += self._first.setdefault(key, digest) != digest
            self.milliseconds[len(self._events[key[0]])].append((end - begin) * 1e3)
            self.answered.append(end)


def watch(service: Service, minutes: float, period: float, load: Load) -> list[dict[str, Any]]:
    """Look at the memory from time to time; return what was seen."""
    begin, rows = time.monotonic(), []
    while True:
        seconds = time.monotonic() - begin
        rows.append({"seconds": round(seconds, 1), "requests": len(load.answered), "memory_mb": service.memory()})
        print(rows[-1], flush=True)
        left = minutes * 60 - seconds
        if left <= 0:
            return rows
        time.sleep(min(period, left) + 0.01)


def kill_instances(service: Service, load: Load, n: int) -> list[dict[str, float]]:
    """Kill an instance `n` times; return how long each was noticed after, and the service answered again."""
    found = []
    for _ in range(n):
        victims = [pid for pid, name in service.processes().items() if name == "instance"]
        size = service.log.stat().st_size
        killed = time.monotonic()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        noticed = None
        while time.monotonic() < killed + SECONDS_AFTER_A_KILL:
            time.sleep(0.02)
            if noticed is None and "instances ended" in service.log.read_text()[size:]:
                noticed = time.monotonic() - killed
        after = [t - killed for t in load.answered if t > killed + (noticed or 0)]
        errors = [begin for begin, _ in load.errors if begin > killed - 60]
        found.append({"noticed": noticed, "answered": min(after, default=None), "errors": len(errors)})
        print(found[-1], flush=True)
    return found


def growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return by how much each process grew since it had settled; nothing if the load ended before."""
    settled = next((row["memory_mb"] for row in rows if row["seconds"] >= SETTLED_SECONDS), {})
    return {name: mb / settled[name] - 1 for name, mb in rows[-1]["memory_mb"].items() if name in settled}


def summary(service: Service, load: Load, n_errors: int, rows: list[dict[str, Any]], kills: Any) -> dict[str, Any]:
    """Return the numbers that matter, and all that was seen."""
    times = {n: np.array(values) for n, values in sorted(load.milliseconds.items())}
    everything = np.concatenate(list(times.values()))
    return {
        "ready_seconds": service.ready_seconds,
        "requests": len(everything),
        "errors": [text for _, text in load.errors[:n_errors]],
        "wrong_answers": load.n_wrong,
        "p50_ms": float(np.percentile(everything, 50)),
        "p99_ms": float(np.percentile(everything, 99)),
        "by_cells": {
            n: {"requests": len(t), **{f"p{q}_ms": float(np.percentile(t, q)) for q in (50, 99)}}
            for n, t in times.items()
        },
        "growth": growth(rows),
        "kills": kills,
        "samples": rows,
    }


def main(
    minutes: Annotated[float, typer.Option(help="Time of the load.")] = 30.0,
    clients: Annotated[int, typer.Option(min=1)] = 2,
    muons: Annotated[list[int] | None, typer.Option(min=0, help="In an event; may be given again.")] = None,
    instances: Annotated[int, typer.Option(min=1)] = 1,
    kills: Annotated[int, typer.Option(help="Instances killed at the end, one after the other.")] = 0,
    period: Annotated[float, typer.Option(help="Seconds between looks at the memory.")] = 30.0,
    device: Device = "cpu",
    seed: Seed = 7,
    output: Output = OUTPUT,
) -> None:
    """Run the load and say what came of it."""
    options = {"minutes": minutes, "clients": clients, "muons": muons or list(MUONS), "instances": instances}
    events = make_events(options["muons"], seed)
    output.mkdir(parents=True, exist_ok=True)
    service = Service(device, instances, output / "service_load.log")
    try:
        load = Load(service.ports, events, clients)
        rows = watch(service, minutes, period, load)
        n_errors = len(load.errors)
        killed = kill_instances(service, load, kills)
        load.stop()
    finally:
        service.close()
    found = summary(service, load, n_errors, rows, killed)
    print(json.dumps({name: value for name, value in found.items() if name != "samples"}, indent=2))
    write_results(output, "service_load", {"options": {**options, "device": device, "seed": seed}, **found})
    grew = [name for name, share in found["growth"].items() if share > ALLOWED_GROWTH]
    print(f"memory that grew by more than {ALLOWED_GROWTH:.0%}: {', '.join(grew) or 'none'}")
    if grew or n_errors or load.n_wrong:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
