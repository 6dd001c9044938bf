"""Counters for Prometheus, on the server's metrics port."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from typing import Any, Protocol

from traccc_py.backend.service import BatchReport
from traccc_py.edm import STAGES

__all__ = ["ServiceMetrics", "Waiting"]

#: Upper bounds of latencies that are counted [s].
LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_COUNTERS = {
    "traccc_py_batches_total": "Batches; requests / batches is their mean size",
    "traccc_py_requests_total": "Requests received",
    "traccc_py_refused_total": "Requests refused: client errors",
    "traccc_py_failed_total": "Requests failed: server errors",
    "traccc_py_withdrawn_total": "Requests not worked on: cancelled by the client, or out of its time",
    "traccc_py_rejected_total": "Requests refused because too many waited",
    "traccc_py_cells_total": "Cells reconstructed",
    "traccc_py_tracks_total": "Tracks sent",
    "traccc_py_busy_seconds_total": "Time spent with batches; its rate is the busy fraction",
}
_STAGE = "traccc_py_stage_seconds_total"
_WITHIN = "traccc_py_answered_within_total"
_ANSWERED = "traccc_py_answered_total"
_LATENCY = "traccc_py_latency_seconds_total"
_RESTARTS = "traccc_py_restarts_total"
_GAUGES = {
    "traccc_py_waiting_events": "Events that wait for reconstruction",
    "traccc_py_waiting_cells": "Their cells",
}
# Names up to version 0.1, and the counters whose thousandfold they are; they will go with the next release.
_OLD = {
    "traccc_py_calls": ("traccc_py_batches_total", 1),
    "traccc_py_requests": ("traccc_py_requests_total", 1),
    "traccc_py_refused": ("traccc_py_refused_total", 1),
    "traccc_py_failed": ("traccc_py_failed_total", 1),
    "traccc_py_cells": ("traccc_py_cells_total", 1),
    "traccc_py_tracks": ("traccc_py_tracks_total", 1),
    "traccc_py_execute_milliseconds": ("traccc_py_busy_seconds_total", 1000),
}
_PERIOD = 0.2  # [s]


class Waiting(Protocol):
    """What is asked of the queue."""

    def __len__(self) -> int:
        """Return the number of events."""

    @property
    def n_cells(self) -> int:
        """Number of cells [1]."""


class ServiceMetrics:
    """The counters of one model instance; none if the server has no custom metrics.

    Each increment is a round trip to the server, which took 0.4 ms per request on an idle machine and 10 ms on a busy
    one. So a thread sends sums every few tenths of a second, and no request waits for it.

    Parameters
    ----------
    pb_utils : module
        The server's `triton_python_backend_utils`.
    model : str
        Name of the model, a label of all counters.
    instance : str
        Name of the instance, the label "model_instance"; Prometheus itself uses "instance" for the server.
    restarts : int
        Restarts of the server so far [1].
    waiting : Waiting
        The queue.
    """

    def __init__(self, pb_utils: Any, model: str, instance: str, restarts: int, waiting: Waiting) -> None:
        self._pb_utils, self._waiting = pb_utils, waiting
        self._families: list[Any] = []  # a family that is garbage collected takes its metrics with it
        self._counters: dict[str, list[tuple[Any, int]]] = {}  # by name: metrics, and what counts are multiplied by
        self._gauges: dict[str, Any] = {}
        self._shown: dict[str, int] = {}  # values of gauges
        self._pending: defaultdict[str, float] = defaultdict(float)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._send_now_and_then, name="traccc_py-metrics", daemon=True)
        if not hasattr(pb_utils, "MetricFamily"):
            return
        labels = {"model": model, "model_instance": instance}
        for name, meaning in _COUNTERS.items():
            self._add(name, self._family(name, meaning), labels)
        self._add(_LATENCY, self._family(_LATENCY, "Sum of times from arrival to answer of these"), labels)
        self._add(_ANSWERED, self._family(_ANSWERED, "Requests with tracks in the answer"), labels)
        within = self._family(_WITHIN, "Requests answered within so many seconds of their arrival")
        for bound in LATENCY_BOUNDS:
            self._add(f"within {bound:g}", within, {**labels, "seconds": f"{bound:g}"})
        stages = self._family(_STAGE, "Time in each stage of the chain")
        for stage in STAGES:
            self._add(stage, stages, {**labels, "stage": stage})
        meaning = "Times the launcher has restarted the server since it started"
        self._add(_RESTARTS, self._family(_RESTARTS, meaning), labels)
        self._pending[_RESTARTS] = restarts
        for name, meaning in _GAUGES.items():
            self._gauges[name] = self._family(name, meaning, "GAUGE").Metric(labels=labels)
        self._add_old_names({"model": model, "instance": instance}, restarts)
        self._thread.start()

    def _add_old_names(self, labels: dict[str, str], restarts: int) -> None:
        for name, (new, factor) in _OLD.items():
            self._add(new, self._family(name, f"Old name of {new}"), labels, factor)
        family = self._family("traccc_py_stage_milliseconds", f"Old name of {_STAGE}")
        for stage in STAGES:
            self._add(stage, family, {**labels, "stage": stage}, 1000)
        family = self._family("traccc_py_restarts", f"Old name of {_RESTARTS}", "GAUGE")
        self._gauges[_RESTARTS] = family.Metric(labels={"model": labels["model"]})
        self._gauges[_RESTARTS].set(restarts)

    def _family(self, name: str, meaning: str, kind: str = "COUNTER") -> Any:
        maker = self._pb_utils.MetricFamily
        family = maker(name=name, description=meaning, kind=getattr(maker, kind))
        self._families.append(family)
        return family

    def _add(self, name: str, family: Any, labels: dict[str, str], factor: int = 1) -> None:
        self._counters.setdefault(name, []).append((family.Metric(labels=labels), factor))

    def count(self, report: BatchReport, seconds: float) -> None:
        """Add what was done in one batch, which took `seconds`."""
        counts = {
            "traccc_py_batches_total": 1 if seconds else 0,
            "traccc_py_requests_total": report.n_requests,
            "traccc_py_refused_total": report.n_refused,
            "traccc_py_failed_total": report.n_failed,
            "traccc_py_withdrawn_total": report.n_withdrawn,
            "traccc_py_rejected_total": report.n_busy,
            "traccc_py_cells_total": report.n_cells,
            "traccc_py_tracks_total": report.n_tracks,
            "traccc_py_busy_seconds_total": seconds,
            _ANSWERED: len(report.latencies),
            _LATENCY: sum(report.latencies),
            **{stage: milliseconds * 1e-3 for stage, milliseconds in report.stage_milliseconds.items()},
        }
        with self._lock:
            for name, value in counts.items():
                self._pending[name] += value
            for latency in report.latencies:
                for bound in LATENCY_BOUNDS[bisect_left(LATENCY_BOUNDS, latency) :]:
                    self._pending[f"within {bound:g}"] += 1

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
            pending, self._pending = self._pending, defaultdict(float)
        for name, value in pending.items():
            for counter, factor in self._counters.get(name, ()) if value else ():
                counter.increment(value * factor)
        for name, value in zip(_GAUGES, (len(self._waiting), self._waiting.n_cells), strict=True):
            if self._shown.get(name) != value and name in self._gauges:
                self._gauges[name].set(value)
                self._shown[name] = value
