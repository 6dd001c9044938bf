"""Start, query and stop a Triton server with the models of this package."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from traccc_py import wire
from traccc_py.backend.ending import EndingFile
from traccc_py.backend.installation import Installation, check_shell, find_installation
from traccc_py.backend.leftovers import (
    CLIENT_PREFIX,
    FOLDER_PREFIX,
    SHARED_MEMORY,
    Janitor,
    SharedMemoryFiles,
    free_shared_memory,
    lock_against_cleaning,
    remove_leftovers,
)
from traccc_py.backend.ports import PortClaim, Ports, wait_for_port
from traccc_py.backend.processes import (
    Progress,
    allow_many_descriptors,
    cpu_seconds,
    living_instances,
    living_members,
    wait_for_an_end,
)
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.settings import ServerSettings
from traccc_py.errors import ServiceError

__all__ = ["TritonServer"]

_log = logging.getLogger(__name__)

# Nobody may use these: no header can have this name and this value, with spaces and two lines, in HTTP or in gRPC. So
# there is no word that must be kept secret, as a command line, which every user of a machine can read, could not.
_CLOSED_APIS = ("model-repository", "logging", "trace")  # the latter two name files for the server to write
_SHARED_MEMORY_API = "shared-memory"
_KEY_OF_NOBODY = "closed to all=no\none"
_MORE_MEMORY = "enlarge it (docker run --shm-size=1g; in Kubernetes an emptyDir of medium Memory)"
_MEGABYTE = 1_048_576
_BYTES_PER_CELL = 40  # of the standard tensors
_QUEUE_SHARE = 0.5  # of the shared memory; the rest is for events that are worked on, and for answers
_LARGEST_GROWTH = 64  # [MB]
_GROWTH_SHARE = 1 / 32  # of the free shared memory: of 64 MB, two instances grow by 1 MB, as Triton has it
_POLL = 0.1  # [s]
_LAST_LINES = 15  # of the log, in errors
_IDLE_SECONDS = 3.0  # at the end: when all instances used less than the next for so long, nothing is in flight
_IDLE_CPU_SECONDS = 0.3  # more than refusing what still comes takes, and much less than a batch
_PATIENCE = 5.0  # [s]
_HTTP_OK = 200
_STALL_SECONDS = 20.0  # a server that is loading and uses less than the next for this long is hanging
_STALL_CPU_SECONDS = 0.3


class TritonServer:
    """One server process and its working folder.

    Parameters
    ----------
    repository : ModelRepository
        The models.
    settings : ServerSettings, optional
        How it is run.
    installation : Installation, optional
        Which server; by default the one that is found.

    Raises
    ------
    ServiceError
        If there is no server on this machine, it could not start its processes, or a port is in use.
    """

    def __init__(
        self,
        repository: ModelRepository,
        settings: ServerSettings | None = None,
        installation: Installation | None = None,
    ) -> None:
        self._repository = repository
        self.settings = settings = ServerSettings() if settings is None else settings
        self._installation = find_installation() if installation is None else installation
        check_shell()
        self._claims, self.ports = _claim_ports(settings)
        for name in remove_leftovers():
            _log.warning("%s, which a service that was killed has left behind, was removed", name)
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX)
        self._lock = lock_against_cleaning(Path(self._folder.name))
        self._models = Path(self._folder.name) / "models"
        self._ending = EndingFile(self._models)
        self._process: subprocess.Popen | None = None
        self._shared_memory = SharedMemoryFiles()
        self._janitor = Janitor(f"/dev/shm/{self._shared_memory.prefix}*", self._folder.name)
        self._write_files()

    def start_until_ready(self, timeout: float, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Start the process and wait for it; retry once if it hangs, as was seen once with two instances.

        Parameters and errors as `wait_until_ready`.
        """
        self.start()
        try:
            self.wait_until_ready(timeout, is_stopping)
        except ServiceError as error:
            if not self.is_running():
                raise
            _log.warning("%s; starting it again", str(error).partition(";")[0])
            self.kill()
            self.start()
            self.wait_until_ready(timeout, is_stopping)

    def start(self) -> None:
        """Start the process; `wait_until_ready` waits for it.

        Raises
        ------
        ServiceError
            If a port is taken, or the program can't be run.
        """
        patience = 0.0 if self._process is None else _PATIENCE  # what its predecessor held is free in a moment
        for name, port in self.ports._asdict().items():
            wait_for_port(self.settings.address, name, port, patience)
        if not os.access(self._installation.binary, os.X_OK):
            msg = f"{self._installation.binary} can't be run: it is not there, or not executable"
            raise ServiceError(msg)
        self._check_shared_memory()
        self._write_files()
        self._ending.remove()
        allow_many_descriptors()
        output = self.settings.open_log()
        try:
            self._process = subprocess.Popen(
                self.command(),
                umask=0o077,  # shared memory is for this user alone
                env=self._installation.environment(os.environ),
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                pass_fds=(self._lock,),  # the folder is locked as long as the server lives, if it outlives this process
                start_new_session=True,  # a Ctrl-C is for the launcher, which lets requests finish
            )
        except OSError as error:
            msg = f"{self._installation.binary} can't be run: {error}"
            raise ServiceError(msg) from error
        finally:
            if output is not None:
                output.close()
        self._janitor.watch_group(self._process.pid)

    def _write_files(self) -> None:
        """Write what the server reads."""
        repository = self._repository
        if self.settings.shared_memory != "off":
            repository = replace(repository, settings=replace(repository.settings, hide_values=True))
        repository.write(self._models)
        self._backends = self._installation.prepare_backend(Path(self._folder.name) / "backends")

    def _check_shared_memory(self) -> None:
        """Raise if it does not suffice to start; let no more cells wait than it has room for."""
        n, free = self._repository.scheduling.instances, free_shared_memory() // _MEGABYTE
        n_all = n * self._repository.n_models()
        least = n_all * self.settings.shm_mb + 1
        if free < least:
            msg = (
                f"/dev/shm has {free} MB free; expected at least {least} MB for {n_all} model instances: {_MORE_MEMORY}"
            )
            raise ServiceError(msg)
        queue = self._repository.queue
        room = int(_QUEUE_SHARE * free * _MEGABYTE / n / _BYTES_PER_CELL)
        if room < queue.queue_cells:
            _log.warning("/dev/shm has %d MB free: at most %d cells may wait; for more, %s", free, room, _MORE_MEMORY)
            self._repository = replace(self._repository, queue=replace(queue, queue_cells=max(1, room)))

    def _growth(self) -> int:
        """Return by how much the shared memory of an instance grows [MB].

        Each time both processes map all of it anew, and touch its pages again.
        """
        n_all = self._repository.scheduling.instances * self._repository.n_models()
        return min(_LARGEST_GROWTH, max(1, int(_GROWTH_SHARE * free_shared_memory() / n_all / _MEGABYTE)))

    def command(self) -> list[str]:
        """Return the command line of the server."""
        settings, address, ports = self.settings, self.settings.address, self.ports
        apis = _CLOSED_APIS if settings.shared_memory != "off" else (*_CLOSED_APIS, _SHARED_MEMORY_API)
        closed = f"{','.join(apis)}:{_KEY_OF_NOBODY}"
        backend = {
            "shm-default-byte-size": settings.shm_mb * _MEGABYTE,
            "shm-growth-byte-size": self._growth() * _MEGABYTE,
            "shm-region-prefix-name": self._shared_memory.prefix,
        }
        arguments = {
            "model-repository": str(self._models),
            "http-address": address,
            "grpc-address": address,
            "metrics-address": address,
            "http-port": ports.http,
            "grpc-port": ports.grpc,
            "metrics-port": ports.metrics,
            "exit-timeout-secs": settings.exit_timeout,
            "model-control-mode": "none",
            "http-restricted-api": closed,
            "grpc-restricted-protocol": closed,
        }
        if self._backends is not None:
            arguments["backend-directory"] = str(self._backends)
        command = [str(self._installation.binary), *(f"--{name}={value}" for name, value in arguments.items())]
        command += [f"--backend-config=python,{name}={value}" for name, value in backend.items()]
        # There is nothing to complete, and trying costs the start of a Python process.
        return [*command, "--disable-auto-complete-config", *settings.extra_arguments]

    def wait_until_ready(self, timeout: float, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Wait until every model answers.

        Parameters
        ----------
        timeout : float
            How long to wait [s].
        is_stopping : callable, optional
            Called repeatedly; the wait ends when it returns True.

        Raises
        ------
        ServiceError
            If the server exits, hangs or is not ready in time; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout
        progress = Progress(self._cpu_seconds, _STALL_SECONDS, _STALL_CPU_SECONDS)
        while not is_stopping() and not self.is_ready():
            if progress.has_stalled():
                msg = f"the server hangs while it loads the models{self._end_of_log()}"
                raise ServiceError(msg)
            if not self.is_running():
                msg = f"the server exited with code {self.exit_code()}{self._end_of_log()}"
                raise ServiceError(msg)
            if time.monotonic() > deadline:
                msg = f"the server is not ready after {timeout:g} s{self._end_of_log()}"
                raise ServiceError(msg)
            time.sleep(_POLL)

    def is_running(self) -> bool:
        """Return whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """Return the exit code of the process, None while it is running."""
        return None if self._process is None else self._process.poll()

    def is_ready(self) -> bool:
        """Return whether the server reports that it is ready, which it does even with a dead instance."""
        try:
            return self._ask("/v2/health/ready", timeout=1.0)[0] == _HTTP_OK
        except OSError:
            return False

    def version(self) -> str:
        """Return the version of the server, "" if it does not say."""
        try:
            status, body = self._ask("/v2", timeout=_PATIENCE)
            return str(json.loads(body).get("version", "")) if status == _HTTP_OK else ""
        except (OSError, ValueError):
            return ""

    def probe(self, timeout: float) -> str | None:
        """Send an event without cells through the chain.

        Parameters
        ----------
        timeout : float
            How long to wait [s].

        Returns
        -------
        str or None
            What is wrong, or None.

        Raises
        ------
        TimeoutError
            If no answer came in time.
        """
        try:
            status, body = self._ask(f"/v2/models/{wire.MODEL}/infer", timeout, _probe_request())
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            return f"the server does not answer: {error}"
        return None if status == _HTTP_OK else f"status {status}: {body.decode(errors='replace')}"

    def instance_processes(self) -> set[int]:
        """Return the process ids of the live model instances."""
        return set() if self._process is None else living_instances(self._process.pid)

    def wait_for_an_end(self, instances: Collection[int], seconds: float) -> None:
        """Wait until the process or one of some model instances has ended, or for so long [s]."""
        wait_for_an_end([*instances, *([] if self._process is None else [self._process.pid])], seconds)

    def forget_dead_clients(self) -> int:
        """Release shared memory of clients of this package that were killed; return how many regions.

        The file of such a region is gone, as Python removes it then, but the server would keep its memory.
        """
        if self.settings.shared_memory == "off":
            return 0
        n_forgotten = 0
        try:
            _, body = self._ask("/v2/systemsharedmemory/status", _PATIENCE)
            for region in json.loads(body):
                name, key = region["name"], region["key"].lstrip("/")
                if key.startswith(CLIENT_PREFIX) and not (SHARED_MEMORY / key).exists():
                    self._ask(f"/v2/systemsharedmemory/region/{name}/unregister", _PATIENCE, {})
                    n_forgotten += 1
        except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException):
            return n_forgotten  # it is busy, or ends; there is a next time
        return n_forgotten

    def cpu_seconds(self, pid: int) -> float:
        """Return the processor time that an instance has used [s]."""
        return cpu_seconds(pid)

    def record(self, restarts: int) -> None:
        """Set the number of restarts that the metrics show from the next start on."""
        self._repository = replace(self._repository, restarts=restarts)

    def stop(self) -> None:
        """Stop the server; further requests are refused, those in flight finish as far as the exit timeout allows."""
        if self._process is None:
            return
        if not self.is_running():
            self.kill()  # instances, which may have outlived it
            return
        self._ending.write()
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.settings.exit_timeout
        progress = Progress(self._cpu_seconds_of_instances, _IDLE_SECONDS, _IDLE_CPU_SECONDS)
        while self.is_running() and time.monotonic() < deadline:
            # Triton waits for the whole timeout if an idle client keeps its connection or an instance has died.
            if progress.has_stalled():
                break
            time.sleep(_POLL)
        self.kill()

    def kill(self) -> None:
        """Kill the server and its instances, also those that have outlived it, and remove their shared memory."""
        if self._process is None:
            return
        group, deadline = self._process.pid, time.monotonic() + _PATIENCE  # a session of its own
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        # An instance holds its shared memory until its end, and the next one may need it to start.
        while (left := living_members(group)) and time.monotonic() < deadline:
            wait_for_an_end(left, _POLL)
        self._shared_memory.remove_all()

    def close(self) -> None:
        """Stop the server; remove its folder and all shared memory."""
        self.stop()
        self._shared_memory.close()
        os.close(self._lock)
        with contextlib.suppress(FileNotFoundError):
            self._folder.cleanup()
        self._janitor.close()
        self._claims.close()

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cpu_seconds(self) -> float:
        """Return the processor time of what loads: the instances, and before there are any the server.

        A server with an instance that hangs goes on to answer that it is not ready, which is no progress: on a slow
        machine that takes enough time to hide it.
        """
        if self._process is None:
            return 0.0
        instances = self.instance_processes()
        return sum(map(cpu_seconds, instances)) if instances else cpu_seconds(self._process.pid)

    def _cpu_seconds_of_instances(self) -> float:
        return sum(map(cpu_seconds, self.instance_processes()))

    def _ask(self, path: str, timeout: float, content: Any = None) -> tuple[int, bytes]:
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = everywhere.get(self.settings.address, self.settings.address)
        host = f"[{host}]" if ":" in host else host
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://{host}:{self.ports.http}{path}", body)
        try:
            with _OPENER.open(request, timeout=timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def _end_of_log(self) -> str:
        if self.settings.log_file is None or not self.settings.log_file.is_file():
            return "; its log is above"
        lines = self.settings.log_file.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return f"; the last lines of {self.settings.log_file}:\n" + "\n".join(lines)


def _claim_ports(settings: ServerSettings) -> tuple[contextlib.ExitStack, Ports]:
    """Return what closes the claims of all ports, and the ports."""
    chosen, ports = Ports(settings.http_port, settings.grpc_port, settings.metrics_port), []
    with contextlib.ExitStack() as claims:
        for name, port in chosen._asdict().items():
            claim = PortClaim(settings.address, name, port)
            claims.callback(claim.close)
            ports.append(claim.port)
        return claims.pop_all(), Ports(*ports)


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy


def _probe_request() -> dict[str, Any]:
    def tensor(spec: wire.TensorSpec) -> dict[str, Any]:
        return {"name": spec.name, "shape": [0, *spec.dims[1:]], "datatype": spec.triton_dtype, "data": []}

    return {
        "inputs": [tensor(spec) for spec in wire.STANDARD_INPUTS],
        "outputs": [{"name": wire.TRK_PARAMS.name}],
    }
