"""Counters for Prometheus, on the server's metrics port."""

from __future__ import annotations

from typing import Any

from traccc_py.backend.service import BatchReport
from traccc_py.wire import STAGE_NAMES

__all__ = ["ServiceMetrics"]

_COUNTERS = {
    "traccc_py_calls": "Calls of execute; requests / calls is the mean batch",
    "traccc_py_requests": "Requests received",
    "traccc_py_refused": "Requests refused, faults of clients",
    "traccc_py_failed": "Requests failed, faults of the server",
    "traccc_py_cells": "Cells reconstructed",
    "traccc_py_tracks": "Tracks sent",
    "traccc_py_execute_milliseconds": "Time in execute",
}
_STAGE = "traccc_py_stage_milliseconds"


class ServiceMetrics:
    """The counters of one model instance; none where the server has no custom metrics.

    Parameters
    ----------
    pb_utils : module
        The server's `triton_python_backend_utils`.
    labels : dict of str to str
        Labels of all counters.
    """

    def __init__(self, pb_utils: Any, labels: dict[str, str]) -> None:
        self._families: list[Any] = []  # a family that is not kept takes its metrics with it
        self._counters: dict[str, Any] = {}
        if not hasattr(pb_utils, "MetricFamily"):
            return
        counter = pb_utils.MetricFamily.COUNTER
        for name, meaning in _COUNTERS.items():
            family = pb_utils.MetricFamily(name=name, description=meaning, kind=counter)
            self._families.append(family)
            self._counters[name] = family.Metric(labels=labels)
        family = pb_utils.MetricFamily(name=_STAGE, description="Time in each stage of the chain", kind=counter)
        self._families.append(family)
        for stage in STAGE_NAMES:
            self._counters[stage] = family.Metric(labels={**labels, "stage": stage})

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
        for name, value in counts.items():
            if value and name in self._counters:  # each increment is a message to the server
                self._counters[name].increment(value)
