"""Counters for Prometheus, on the server's metrics port."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from traccc_py.backend.service import BatchReport
from traccc_py.edm import STAGES

__all__ = ["ServiceMetrics"]

_COUNTERS = {
    "traccc_py_calls": "Calls of execute; requests / calls is the mean batch size",
    "traccc_py_requests": "Requests received",
    "traccc_py_refused": "Requests refused: client errors",
    "traccc_py_failed": "Requests failed: server errors",
    "traccc_py_cells": "Cells reconstructed",
    "traccc_py_tracks": "Tracks sent",
    "traccc_py_execute_milliseconds": "Time in execute",
}
_STAGE = "traccc_py_stage_milliseconds"
_RECOVERIES = {
    "traccc_py_reloads": "Times the launcher has replaced dead instances since it started",
    "traccc_py_restarts": "Times the launcher has restarted the server since it started",
}
_PERIOD = 0.2  # [s]


class ServiceMetrics:
    """The counters of one model instance; none if the server has no custom metrics.

    Each increment is a round trip to the server, which took 0.4 ms per request on an idle machine and 10 ms on a busy
    one. So a thread sends sums every few tenths of a second, and no request waits for it.

    Parameters
    ----------
    pb_utils : module
        The server's `triton_python_backend_utils`.
    labels : dict of str to str
        Labels of all counters; "model" is one of them.
    recoveries : mapping of str to int
        Values of the gauges of `traccc_py_reloads` and `traccc_py_restarts`.
    """

    def __init__(self, pb_utils: Any, labels: dict[str, str], recoveries: Mapping[str, int]) -> None:
        self._families: list[Any] = []  # a family that is garbage collected takes its metrics with it
        self._counters: dict[str, Any] = {}
        self._gauges: list[Any] = []
        self._pending: dict[str, float] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._send_now_and_then, name="traccc_py-metrics", daemon=True)
        if not hasattr(pb_utils, "MetricFamily"):
            return
        for name, meaning in _COUNTERS.items():
            self._counters[name] = self._family(pb_utils, name, meaning, "COUNTER").Metric(labels=labels)
        family = self._family(pb_utils, _STAGE, "Time in each stage of the chain", "COUNTER")
        for stage in STAGES:
            self._counters[stage] = family.Metric(labels={**labels, "stage": stage})
        for name, meaning in _RECOVERIES.items():
            gauge = self._family(pb_utils, name, meaning, "GAUGE").Metric(labels={"model": labels["model"]})
            gauge.set(recoveries.get(name, 0))
            self._gauges.append(gauge)
        self._thread.start()

    def _family(self, pb_utils: Any, name: str, meaning: str, kind: str) -> Any:
        family = pb_utils.MetricFamily(name=name, description=meaning, kind=getattr(pb_utils.MetricFamily, kind))
        self._families.append(family)
        return family

    def count(self, report: BatchReport, milliseconds: float) -> None:
        """Add what was done in one call, which took `milliseconds`."""
        counts = {
            "traccc_py_calls": 1,
            "traccc_py_requests": report.n_requests,
            "traccc_py_refused": report.n_refused,
            "traccc_py_failed": report.n_failed,
            "traccc_py_cells": report.n_cells,
            "traccc_py_tracks": report.n_tracks,
            "traccc_py_execute_milliseconds": milliseconds,
            **report.stage_milliseconds,
        }
        with self._lock:
            for name, value in counts.items():
                self._pending[name] = self._pending.get(name, 0.0) + value

    def close(self) -> None:
        """Send the remaining counts."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._send()

    def _send_now_and_then(self) -> None:
        while not self._stop.wait(_PERIOD):
            self._send()

    def _send(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
        for name, value in pending.items():
            if value and name in self._counters:
                self._counters[name].increment(value)
