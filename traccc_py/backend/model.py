"""The Triton model: converts requests and responses; `traccc_py.backend.worker` does the work between.

Requests are answered through their senders, when their events are done: Triton hands over the next ones meanwhile. The
model has no batch axis and is no ensemble, so Triton tells it when a client has cancelled a request (ADR 49).
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import re
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from traccc_py import wire
from traccc_py.backend.ending import EndingFile
from traccc_py.backend.logs import TritonHandler
from traccc_py.backend.metrics import ServiceMetrics
from traccc_py.backend.processes import (
    free_memory,
    keep_freed_memory,
    limit_memory,
    make_region_private,
    use_small_stacks,
)
from traccc_py.backend.queue import EventQueue, Job
from traccc_py.backend.service import Answer, BatchReport, BusyError, Request, TrackingService, WithdrawnError
from traccc_py.backend.settings import SETTINGS_FILE, ModelSettings, QueueSettings
from traccc_py.backend.triton_tensors import from_triton, to_triton
from traccc_py.backend.worker import Worker
from traccc_py.device.cpu.executor import without_numba_extensions
from traccc_py.errors import TracccError, WireError

__all__ = ["TritonPythonModel"]

_log = logging.getLogger(__name__)

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
# Numbers, names of numbers and quoted texts; the row of a cell says little, and is needed.
_VALUES = re.compile(
    r"(?<!\brow )(?<!counted from )(?<![\w.])([-+]?(0x[0-9a-f]+|\d[\w.+]*)|[-+]?(nan|inf)\b|'[^']*')", re.IGNORECASE
)
_BYTES_PER_CELL = 1200  # of a batch: twice what events of pile-up take, for there are two chains
_LEAST_MEMORY = 1_000_000_000  # [bytes]: that others use much at the start need not last
_MEMORY_SHARE = 0.9  # of the free memory, for all instances
_LONGEST_MESSAGE = 2000  # gRPC sends errors in headers, of 8 kB at most


class TritonPythonModel:
    """One model instance; the server creates it and calls the three methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Put the detector on the device and compile the kernels; afterwards the server is ready.

        Parameters
        ----------
        args : dict
            Kind, device, folder and configuration of this instance.

        Raises
        ------
        TritonModelException
            If a setting can't be used; the server then reports it and exits.
        """
        begin = time.perf_counter()
        make_region_private()
        use_small_stacks()
        keep_freed_memory()
        without_numba_extensions()
        self._log = logging.getLogger("traccc_py")
        self._log.handlers = [TritonHandler(pb_utils.Logger)]
        self._log.setLevel(logging.INFO)
        self._name, self._ending = args["model_instance_name"], EndingFile.of_model(args["model_repository"])
        device = f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
        try:
            values = json.loads(Path(args["model_repository"], args["model_version"], SETTINGS_FILE).read_text())
            settings = ModelSettings.from_parameters(values)
            self._log_calls, self._hide_values = settings.log_calls, settings.hide_values
            self._queue = EventQueue(QueueSettings.from_parameters(values))
            self._metrics: ServiceMetrics | None = None
            self._workers = [
                Worker(partial(_ready_service, settings, device), self._queue, self._count, _large(device))
            ]
            self._service = self._workers[0].wait_until_ready()
            if device == "cpu":
                self._workers.append(Worker(self._service.beside, self._queue, self._count, "small"))
                self._workers[1].wait_until_ready()
                memory = _memory_for_events(settings, args["model_config"])
                self._service.set_memory(memory)
                self._queue.limit_batches(memory // _BYTES_PER_CELL)
                limit_memory(memory)
                self._log.info("%s: events may use %.1f GB of memory", self._name, memory * 1e-9)
            gc.freeze()  # collecting the compiler's objects too would add 70 ms to some request
        except (TracccError, OSError, ValueError) as error:
            msg = f"{self._name}: {error}"
            raise pb_utils.TritonModelException(msg) from error
        restarts = int(values.get("restarts", 0))
        self._metrics = ServiceMetrics(pb_utils, args["model_name"], self._name, restarts, self._queue)
        self._log.info(
            "%s: detector %s on %s, ready in %.1f s",
            self._name,
            self._service.chain.detector,
            device,
            time.perf_counter() - begin,
        )

    def execute(self, requests: list[Any]) -> None:
        """Let the events of requests wait for reconstruction; each is answered on its own."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._ending.check()
                decoded, timeout = self._service.decode(_decode(request)), _timeout(request)
                answer = partial(self._send, sender, request)  # the request holds the memory of its tensors
                self._queue.put(Job(decoded, answer, sender.is_cancelled, timeout))
            except Exception as error:  # whatever a client sent, others are not affected
                self._refuse(sender, error)

    def _refuse(self, sender: Any, error: Exception) -> None:
        report = BatchReport()
        report.add_answer(error)
        self._count(report, 0.0)
        self._send(sender, None, error)

    def _send(self, sender: Any, _request: Any, answer: Answer) -> None:
        """Answer a request, which is given only to be kept until then."""
        try:
            sender.send(_response(answer, hide_values=self._hide_values), flags=_FINAL)
        except Exception as error:
            _log.exception("an answer could not be sent")
            with contextlib.suppress(Exception):  # the sender may have sent it
                sender.send(_response(error, hide_values=self._hide_values), flags=_FINAL)

    def _count(self, report: BatchReport, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.count(report, seconds)
        if self._log_calls and report.stage_milliseconds:
            self._log.info(
                "%s: %d requests (%d refused, %d failed), %d cells, %d tracks, %.1f ms: %s",
                self._name,
                report.n_requests,
                report.n_refused,
                report.n_failed,
                report.n_cells,
                report.n_tracks,
                seconds * 1e3,
                ", ".join(f"{stage} {t:.1f}" for stage, t in report.stage_milliseconds.items()),
            )

    def finalize(self) -> None:
        """Answer what waits and send the last metrics; the process exits next and frees the device."""
        for worker in self._workers:
            worker.close()
        assert self._metrics is not None
        self._metrics.close()
        self._log.info("%s: exits", self._name)


def _large(device: str) -> str | None:
    """Return what the first worker of an instance works on.

    On a CPU a small event would wait for a second behind a large one, and threads of two chains share the cores. A GPU
    has one context, and a large event takes some milliseconds.
    """
    return "large" if device == "cpu" else None


def _ready_service(settings: ModelSettings, device: str) -> TrackingService:
    service = TrackingService(settings, device)
    service.initialize()
    return service


def _memory_for_events(settings: ModelSettings, config: str) -> int:
    """Return how much memory this instance may use for events [bytes]."""
    if settings.memory_mb is not None:
        return settings.memory_mb * 1_000_000
    groups = json.loads(config).get("instance_group", [])
    n_instances = max(1, sum(group.get("count", 1) for group in groups))
    return max(_LEAST_MEMORY, int(_MEMORY_SHARE * free_memory() / n_instances))


def _decode(request: Any) -> Request:
    parameters = json.loads(request.parameters() or "{}")
    return Request(
        tensors={tensor.name(): from_triton(tensor) for tensor in request.inputs()},
        outputs=wire.wanted_outputs(request.requested_output_names(), _text(parameters, wire.OUTPUTS_PARAMETER)),
        fingerprint=_text(parameters, wire.FINGERPRINT_PARAMETER),
    )


def _text(parameters: Any, name: str) -> str | None:
    """Return a parameter of a request, None if it has none.

    Raises
    ------
    WireError
        If it is no text.
    """
    value = parameters.get(name)
    if value is not None and not isinstance(value, str):
        msg = f"the request parameter {name!r} is {value!r}; expected a text"
        raise WireError(msg)
    return value


def _timeout(request: Any) -> float | None:
    """Return how long the sender of a request waits [s], None if it did not say."""
    microseconds = request.timeout()
    return microseconds * 1e-6 if microseconds else None


def _response(answer: Answer, *, hide_values: bool) -> Any:
    if isinstance(answer, Exception):
        return pb_utils.InferenceResponse(error=_error(answer, hide_values=hide_values))
    return pb_utils.InferenceResponse([to_triton(name, array) for name, array in answer.items()])


def _without_values(text: str) -> str:
    """Return a message about a request without the values it quotes, but with the row."""
    return _VALUES.sub("...", text)


def _error(error: Exception, *, hide_values: bool) -> Any:
    """Return what the client is told; what only the operator may know stays in the log."""
    text = _without_values(str(error)) if hide_values else str(error)
    text = text[:_LONGEST_MESSAGE]
    if isinstance(error, WithdrawnError):
        return pb_utils.TritonError(text, pb_utils.TritonError.CANCELLED)
    if isinstance(error, BusyError):
        _log.warning("refused: %s", error)
        return pb_utils.TritonError(text, pb_utils.TritonError.UNAVAILABLE)
    if isinstance(error, TracccError):
        _log.warning("refused: %s", error)
        return pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG)
    number = uuid.uuid4().hex[:8]
    _log.error("failure %s: %r", number, error)
    text = f"the reconstruction failed; the server's log says why, at failure {number}"
    return pb_utils.TritonError(text, pb_utils.TritonError.INTERNAL)
