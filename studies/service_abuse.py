"""Abuse the service, and see whether good clients notice: garbage, cancelled and broken calls, kills.

Usage: python -m studies.service_abuse [--minutes 1] [--good 8] [--bad 8] [--kill-instance 0] [--kill-server 0]
In a container's shared memory:
       unshare -m sh -c "mount -t tmpfs -o size=64m tmpfs /dev/shm && python -m studies.service_abuse ..."

Starts `traccc-py serve` on free ports of this machine. Good clients of each protocol and kind of tensors send the
event that comes with the package and compare each answer, bit for bit, with the first. Bad clients send garbage in each
field, cancel, let calls time out and close connections. Instances and servers are killed evenly over the time, if that
is asked for. Exits with 1 if a good request failed or changed, or the service was restarted without a kill; with kills,
if it did not answer for more than ten seconds, or if memory, descriptors, processes or shared memory grew; and always
if something is left behind at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.common import OUTPUT, Output, Seed, write_results
from studies.service_load import Service
from traccc_py import read_cells, wire
from traccc_py.backend.leftovers import SHARED_MEMORY, is_in_use
from traccc_py.client import TrackingClient
from traccc_py.data.sample import sample_event_path
from traccc_py.errors import TracccError
from traccc_py.studies.programs import descendants

KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"protocol": "http"},
    {"compact": True},
    {"protocol": "http", "compact": True},
)
LONGEST_OUTAGE = 10.0  # [s]
ALLOWED_GROWTH = 1.1
SETTLED_SHARE = 0.2  # of the time; growth is counted from then
TIMES_KEPT = 100_000
STATES_STEP = 4  # that are written


class GoodClients:
    """Clients that compare what they get."""

    def __init__(self, ports: dict[str, int], n: int, retries: int) -> None:
        self._ports, self._retries = ports, retries
        self._cells = read_cells(sample_event_path())
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._first: dict[bool, dict[str, bytes]] = {}
        self.n_answers, self.n_wrong = 0, 0
        self.errors: list[str] = []
        self.answered: list[float] = []
        self._threads = [threading.Thread(target=self._run, args=(KINDS[k % len(KINDS)],)) for k in range(n)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let requests finish."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def outages(self) -> list[float]:
        """Return the times without an answer of more than a second [s], the longest first."""
        gaps = np.diff(sorted(self.answered))
        return [round(float(gap), 2) for gap in np.sort(gaps[gaps > 1.0])[::-1]]

    def _run(self, kind: dict[str, Any]) -> None:
        url = f"127.0.0.1:{self._ports[kind.get('protocol', 'grpc')]}"
        with TrackingClient(url, **kind, retries=self._retries, timeout=60) as client:
            while not self._stop.is_set():
                try:
                    columns = client.reconstruct(self._cells).columns()
                except TracccError as error:
                    self.errors.append(str(error))
                    self._stop.wait(0.1)
                    continue
                self._compare(kind.get("compact", False), {n: v.tobytes() for n, v in columns.items()})

    def _compare(self, is_compact: bool, found: dict[str, bytes]) -> None:
        with self._lock:
            self.n_answers += 1
            self.n_wrong += self._first.setdefault(is_compact, found) != found
            if len(self.answered) < TIMES_KEPT:
                self.answered.append(time.monotonic())


class BadClients:
    """Clients that do what they should not."""

    def __init__(self, ports: dict[str, int], n: int, seed: int) -> None:
        self._ports = ports
        self._tensors = wire.pack_cells(read_cells(sample_event_path()))
        self._stop = threading.Event()
        self.done: Counter[str] = Counter()
        self.last_error: Exception | None = None
        self._threads = [threading.Thread(target=self._run, args=(random.Random(seed + k),)) for k in range(n)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, choice: random.Random) -> None:
        deeds = (self.garbage_body, self.garbage_tensors, self.mistyped, self.cancel, self.time_out, self.disconnect)
        while not self._stop.is_set():
            deed = choice.choice(deeds)
            try:
                deed(choice)
            except ConnectionRefusedError:
                self._stop.wait(0.05)
            except Exception as error:  # whatever comes of it
                self.last_error = error
            self.done[deed.__name__] += 1

    def garbage_body(self, choice: random.Random) -> None:
        """Send a JSON body of random fields."""
        values = (None, True, -1, 7, 2**63, 1.5, "x", [], {}, [[0, 1]], {"a": 1})
        tensor = {
            "name": choice.choice(["CELL_POSITIONS", "CELLS", "WIBBLE", 7]),
            "shape": choice.choice([[1, 4], [0, 4], [-1, 4], [2, 3], [], "x", [1, 2, 4]]),
            "datatype": choice.choice(["INT64", "FP32", "UINT8", "BYTES", 3]),
            "data": choice.choice(values),
        }
        body = {
            "inputs": choice.choice([[tensor], [tensor] * 3, tensor, None]),
            "outputs": choice.choice([[{"name": "TRK_PARAMS"}], [{"name": "WIBBLE"}], 7, []]),
            "parameters": {choice.choice(["outputs", "timeout", "x"]): choice.choice(values)},
            "id": choice.choice(values),
        }
        self._post(json.dumps(body).encode(), choice)

    def garbage_tensors(self, choice: random.Random) -> None:
        """Send bytes as the compact tensor, often with a header that announces much."""
        content = choice.randbytes(choice.choice([0, 3, 16, 100]))
        if choice.random() < 0.5:
            header = [2, choice.randrange(5), choice.choice([0, 1, 2**32 - 1]), choice.choice([0, 1, 2**32 - 1])]
            content = np.array(header, "<u4").tobytes() + content
        inputs = [{"name": "CELLS", "shape": [len(content)], "datatype": "UINT8", "data": list(content)}]
        self._post(json.dumps({"inputs": inputs}).encode(), choice)

    def mistyped(self, choice: random.Random) -> None:
        """Send a good event with a parameter of the wrong type."""
        name = choice.choice([wire.OUTPUTS_PARAMETER, wire.FINGERPRINT_PARAMETER])
        self._infer(parameters={name: choice.choice([7, True])})

    def cancel(self, choice: random.Random) -> None:
        """Cancel a call."""
        import tritonclient.grpc as grpc

        with grpc.InferenceServerClient(f"127.0.0.1:{self._ports['grpc']}") as client:
            call = client.async_infer(wire.MODEL, self._inputs(grpc), lambda result, error: None)
            time.sleep(choice.random() * 0.01)
            call.cancel()

    def time_out(self, choice: random.Random) -> None:
        """Do not wait for the answer."""
        self._infer(client_timeout=choice.choice([0.0005, 0.002, 0.01]))

    def disconnect(self, choice: random.Random) -> None:
        """Close the connection in the middle of a request, or before its answer."""
        body = json.dumps({"inputs": [], "id": "x" * choice.randrange(1000)}).encode()
        head = f"POST /v2/models/{wire.MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self._ports["http"]), timeout=5) as connection:
            connection.sendall((head + body)[: choice.randrange(len(head) + len(body))])

    def _post(self, body: bytes, choice: random.Random) -> None:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self._ports["http"], timeout=5)
        headers = {"Inference-Header-Content-Length": choice.choice(["1", "x", "-5"])} if choice.random() < 0.1 else {}
        model = choice.choice([wire.MODEL, wire.COMPACT_MODEL, "wibble"])
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        connection.getresponse().read()
        connection.close()

    def _inputs(self, grpc: Any) -> list[Any]:
        inputs = []
        for spec in wire.STANDARD_INPUTS:
            values = self._tensors[spec.name]
            inputs.append(grpc.InferInput(spec.name, list(values.shape), spec.triton_dtype))
            inputs[-1].set_data_from_numpy(values)
        return inputs

    def _infer(self, **options: Any) -> None:
        import tritonclient.grpc as grpc

        with grpc.InferenceServerClient(f"127.0.0.1:{self._ports['grpc']}") as client:
            client.infer(wire.MODEL, self._inputs(grpc), **options)


def state(service: Service) -> dict[str, float]:
    """Return what must not grow: of the launcher memory and descriptors, of all processes and shared memory."""
    launcher = service.process.pid
    files = [path.stat().st_size for path in SHARED_MEMORY.glob("traccc_py_*")]
    found = descendants(launcher)
    status = {pid: Path(f"/proc/{pid}/status").read_text() for pid in found}
    memory = {
        pid: int(text.partition("VmRSS:")[2].split()[0]) / 1000 for pid, text in status.items() if "VmRSS" in text
    }
    return {
        "launcher_mb": memory[launcher],
        "all_mb": sum(memory.values()),
        "launcher_descriptors": len(list(Path(f"/proc/{launcher}/fd").iterdir())),
        "processes": len(found),
        "shared_files": len(files),
        "shared_mb": sum(files) / 1e6,
    }


def kill(service: Service, what: str) -> None:
    """Kill an instance or the server."""
    pids = [pid for pid, name in service.processes().items() if name == what]
    os.kill(random.choice(pids), signal.SIGKILL)


def schedule(seconds: float, instances: int, servers: int) -> list[tuple[float, str]]:
    """Return when to kill what, spread over the time."""
    n = instances + servers
    kinds = ["server" if servers and k % max(1, n // servers) == n // servers - 1 else "instance" for k in range(n)]
    return [((k + 0.5) * seconds / n, kind) for k, kind in enumerate(kinds)]


def main(
    minutes: Annotated[float, typer.Option(help="Time of the load.")] = 1.0,
    good: Annotated[int, typer.Option(min=1, help="Good clients.")] = 8,
    bad: Annotated[int, typer.Option(min=0, help="Bad clients.")] = 8,
    kill_instance: Annotated[int, typer.Option(min=0, help="Instances to kill.")] = 0,
    kill_server: Annotated[int, typer.Option(min=0, help="Servers to kill.")] = 0,
    instances: Annotated[int, typer.Option(min=1)] = 1,
    seed: Seed = 7,
    output: Output = OUTPUT,
) -> None:
    """Abuse the service."""
    output.mkdir(parents=True, exist_ok=True)
    before = set(SHARED_MEMORY.glob("traccc_py_*"))
    service = Service("cpu", instances, output / "service_abuse.log")
    kills, states = schedule(minutes * 60, kill_instance, kill_server), []
    try:
        clients = GoodClients(service.ports, good, retries=100 if kills else 0), BadClients(service.ports, bad, seed)
        begin = time.monotonic()
        while (now := time.monotonic() - begin) < minutes * 60:
            if kills and now >= kills[0][0]:
                with contextlib.suppress(ValueError, IndexError, ProcessLookupError):  # it is being started
                    kill(service, kills[0][1])
                    kills = kills[1:]
            with contextlib.suppress(OSError, KeyError, IndexError):  # of a process that has ended meanwhile
                states.append({"seconds": now, **state(service)})
            time.sleep(0.5)
        for one in clients:
            one.stop()
    finally:
        service.process.terminate()
        code = service.process.wait(60)
    outages = clients[0].outages()
    n_restarts = service.log.read_text().count("the server is restarted")
    new = set(SHARED_MEMORY.glob("traccc_py_*")) - before
    left = sorted(path.name for path in new if not is_in_use(path))  # other servers may run here
    is_killed = kill_instance + kill_server > 0
    settled = [s for s in states if s["seconds"] > SETTLED_SHARE * minutes * 60]
    middle = len(settled) // 2
    growth = {
        name: float(np.median([s[name] for s in settled[middle:]]) / np.median([s[name] for s in settled[:middle]]))
        for name in (settled[0] if middle else {})
        if name != "seconds"
    }
    found = {
        "answers": clients[0].n_answers,
        "wrong": clients[0].n_wrong,
        "errors": clients[0].errors,
        "bad_deeds": dict(clients[1].done),
        "longest_outage_s": max(outages, default=0.0),
        "outages_s": outages,
        "restarts": n_restarts,
        "exit_code": code,
        "left_behind": left,
        "growth_second_half": growth,
    }
    print(json.dumps(found, indent=2))
    write_results(output, "service_abuse", {"minutes": minutes, **found, "states": states[::STATES_STEP]})
    is_bad = clients[0].errors or clients[0].n_wrong or left or code != 0
    if is_killed:
        is_bad = (
            is_bad or found["longest_outage_s"] > LONGEST_OUTAGE or max(growth.values(), default=0) > ALLOWED_GROWTH
        )
    if is_bad or (n_restarts and not is_killed):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
