"""The Triton model: converts requests and responses; `traccc_py.backend.service` does the work between."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from traccc_py import wire
from traccc_py.backend.metrics import ServiceMetrics
from traccc_py.backend.processes import keep_freed_memory
from traccc_py.backend.service import Answer, BatchReport, Request, TrackingService
from traccc_py.backend.settings import ModelSettings
from traccc_py.errors import TracccError

__all__ = ["TritonPythonModel"]


class _TritonHandler(logging.Handler):
    """Forwards the package's log to the server's."""

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            pb_utils.Logger.log_error(message)
        elif record.levelno >= logging.WARNING:
            pb_utils.Logger.log_warn(message)
        elif record.levelno >= logging.INFO:
            pb_utils.Logger.log_info(message)
        else:
            pb_utils.Logger.log_verbose(message)


class TritonPythonModel:
    """One model instance; the server creates it and calls the three methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Put the detector on the device and compile the kernels; afterwards the server is ready.

        Parameters
        ----------
        args : dict
            Kind, device and configuration of this instance.

        Raises
        ------
        TritonModelException
            If a setting can't be used; the server then reports it and exits.
        """
        begin = time.perf_counter()
        keep_freed_memory()
        self._log = logging.getLogger("traccc_py")
        self._log.handlers = [_TritonHandler()]
        self._log.setLevel(logging.INFO)
        self._name = args["model_instance_name"]
        parameters = json.loads(args["model_config"]).get("parameters", {})
        device = f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
        values = {name: entry["string_value"] for name, entry in parameters.items()}
        try:
            settings = ModelSettings.from_parameters(values)
            self._log_calls = settings.log_calls
            self._service = TrackingService(settings, device)
            self._service.initialize()
            gc.freeze()  # collecting the compiler's objects too would add 70 ms to some request
        except (TracccError, OSError, ValueError) as error:
            msg = f"{self._name}: {error}"
            raise pb_utils.TritonModelException(msg) from error
        recoveries = {f"traccc_py_{kind}": int(values.get(kind, 0)) for kind in ("reloads", "restarts")}
        self._metrics = ServiceMetrics(pb_utils, {"model": args["model_name"], "instance": self._name}, recoveries)
        self._log.info(
            "%s: detector %s on %s, ready in %.1f s",
            self._name,
            self._service.chain.detector,
            device,
            time.perf_counter() - begin,
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests of a call, whose events are reconstructed in one batch."""
        begin = time.perf_counter()
        answers, report = self._service.process([_decode(request) for request in requests])
        responses = [_response(answer) for answer in answers]
        milliseconds = (time.perf_counter() - begin) * 1e3
        self._metrics.count(report, milliseconds)
        if self._log_calls or report.n_refused or report.n_failed:
            self._log_report(report, milliseconds)
        return responses

    def _log_report(self, report: BatchReport, milliseconds: float) -> None:
        self._log.info(
            "%s: %d requests (%d refused, %d failed), %d cells, %d tracks, %.1f ms: %s",
            self._name,
            report.n_requests,
            report.n_refused,
            report.n_failed,
            report.n_cells,
            report.n_tracks,
            milliseconds,
            ", ".join(f"{stage} {t:.1f}" for stage, t in report.stage_milliseconds.items()),
        )

    def finalize(self) -> None:
        """Send the last metrics; the process exits next and frees the device."""
        self._metrics.close()
        self._log.info("%s: exits", self._name)


def _decode(request: Any) -> Request:
    parameters = json.loads(request.parameters() or "{}")
    outputs = set(request.requested_output_names())  # an ensemble always requests all
    if wire.OUTPUTS_PARAMETER in parameters:
        outputs &= set(parameters[wire.OUTPUTS_PARAMETER].split(","))
    return Request(
        tensors={tensor.name(): _from_triton(tensor) for tensor in request.inputs()},
        outputs=outputs,
        fingerprint=parameters.get(wire.FINGERPRINT_PARAMETER),
    )


# Tensor.as_numpy() and Tensor(name, array) of servers up to at least 2.51 were built for NumPy 1: with NumPy 2 they
# silently give zeros and empty buffers. DLPack works with both. Each tensor has a batch axis of one event.
def _from_triton(tensor: Any) -> np.ndarray:
    return np.from_dlpack(tensor)[0]


def _to_triton(name: str, array: np.ndarray) -> Any:
    batch = array[np.newaxis]
    if batch.size == 0:  # from_dlpack refuses it: its check of strides does not handle empty arrays
        return pb_utils.Tensor(name, batch)
    return pb_utils.Tensor.from_dlpack(name, _Exported(batch))


class _Exported:
    """An array as DLPack.

    The server takes over the memory and renames the capsule, but not to the name that NumPy's destructor expects, which
    then complains on stderr for each tensor. The destructor has nothing left to do, so the capsule has none.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **_: Any) -> Any:
        capsule = self._array.__dlpack__()
        _set_destructor(capsule, None)
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = (ctypes.py_object, ctypes.c_void_p)
_set_destructor.restype = ctypes.c_int


def _response(answer: Answer) -> Any:
    if isinstance(answer, Exception):
        kind = pb_utils.TritonError.INVALID_ARG if isinstance(answer, TracccError) else pb_utils.TritonError.INTERNAL
        message = str(answer) if isinstance(answer, TracccError) else f"the reconstruction failed: {answer!r}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, kind))
    return pb_utils.InferenceResponse([_to_triton(name, array) for name, array in answer.items()])
