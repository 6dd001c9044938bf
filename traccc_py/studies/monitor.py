"""What services use while they are measured: processor time, memory, GPUs by NVML; and their own counters."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from traccc_py.studies.programs import Service

__all__ = ["Monitor", "gpu_reader", "latency_split", "number_of_gpus"]

_PERIOD = 0.5  # [s]; a look costs the generator's process some milliseconds
_MEBIBYTE = 1 << 20
_INPUT_STAGE, _OUTPUT_STAGE = "stage preparation", "stage output"
_GAUGES = ("memory_mb", "gpu_percent", "gpu_memory_mb", "gpu_watts")


def _nvml_handles() -> tuple[Any, list[Any]]:
    """Return NVML's module and its GPUs; none where it can't be used."""
    try:
        nvml: Any = import_module("pynvml")
        nvml.nvmlInit()
        return nvml, [nvml.nvmlDeviceGetHandleByIndex(k) for k in range(nvml.nvmlDeviceGetCount())]
    except Exception:  # not installed, no driver, no GPU
        return None, []


def number_of_gpus() -> int:
    """Return how many GPUs NVML knows; 0 without it."""
    return len(_nvml_handles()[1])


def gpu_reader() -> Callable[[], dict[str, float]]:
    """Return a function that reads use [%], memory [MB] and power [W] of all GPUs; nothing without NVML or GPUs."""
    nvml, handles = _nvml_handles()
    if not handles:
        return dict

    def read() -> dict[str, float]:
        used = [nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
        memory = [nvml.nvmlDeviceGetMemoryInfo(handle).used / _MEBIBYTE for handle in handles]
        found = {"gpu_percent": sum(used) / len(used), "gpu_memory_mb": sum(memory)}
        with contextlib.suppress(Exception):  # some GPUs do not tell their power
            found["gpu_watts"] = sum(nvml.nvmlDeviceGetPowerUsage(handle) for handle in handles) / 1000
        return found

    return read


class Monitor:
    """Looks at services a few times a second, in a thread of its own, between entering and leaving it."""

    def __init__(self, services: Sequence[Service], read_gpus: Callable[[], dict[str, float]] = dict) -> None:
        self._services, self._read_gpus = services, read_gpus
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traccc_py-monitor", daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # a server is being restarted, or has ended: the study finds out itself
                self._samples.append((time.monotonic(), self._sample()))
            if self._stop.wait(_PERIOD):
                return

    def _sample(self) -> dict[str, float]:
        found: dict[str, float] = dict(self._read_gpus())
        for service in self._services:
            for name, value in {**service.use(), **service.metrics()}.items():
                found[name] = found.get(name, 0.0) + value
        return found

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Return how much counters grew from begin to end [s, monotonic], and means of memory and GPUs."""
        samples = [(t, found) for t, found in self._samples if begin - 2 * _PERIOD <= t <= end + 2 * _PERIOD]
        if len(samples) < 2:  # noqa: PLR2004 (a difference needs two)
            return {}
        times = [t for t, _ in samples]
        grown = {}
        for name in samples[0][1]:
            values = [found.get(name, math.nan) for _, found in samples]
            low, high = np.interp([begin, end], times, values)
            grown[name] = float(np.mean(values)) if name in _GAUGES else float(high - low)
        return grown


def latency_split(grown: Mapping[str, float], mean_ms: float) -> dict[str, float]:
    """Return where the mean latency of a request goes [ms].

    Parameters
    ----------
    grown : mapping
        Growth of the service's counters while it was measured.
    mean_ms : float
        Mean latency that clients saw [ms].

    Returns
    -------
    dict of str to float
        `transfer_ms`: between client and model, both ways; `queue_ms`: waiting for the batch before; `input_ms`,
        `compute_ms`, `output_ms`: of its batch, as all its events wait for the whole of it. Empty without counters.
    """
    answered, batches = grown.get("traccc_py_answered_total", 0.0), grown.get("traccc_py_batches_total", 0.0)
    if answered <= 0 or batches <= 0:
        return {}
    in_server = 1e3 * grown["traccc_py_latency_seconds_total"] / answered
    batch = 1e3 * grown["traccc_py_busy_seconds_total"] / batches
    stages = sum(value for name, value in grown.items() if name.startswith("stage "))
    share = {name: grown.get(name, 0.0) / stages if stages else 0.0 for name in (_INPUT_STAGE, _OUTPUT_STAGE)}
    return {
        "transfer_ms": max(0.0, mean_ms - in_server),
        "queue_ms": max(0.0, in_server - batch),
        "input_ms": batch * share[_INPUT_STAGE],
        "compute_ms": batch * (1 - sum(share.values())),
        "output_ms": batch * share[_OUTPUT_STAGE],
        "mean_batch": grown["traccc_py_requests_total"] / batches,
    }
