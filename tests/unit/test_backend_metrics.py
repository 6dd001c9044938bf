"""The counters of a model instance: sums are sent by a thread, and nothing is lost at the end."""

import time
from types import SimpleNamespace

import pytest

from traccc_py.backend.metrics import ServiceMetrics
from traccc_py.backend.queue import EventQueue
from traccc_py.backend.service import BatchReport
from traccc_py.backend.settings import QueueSettings

OLD_NAMES = {
    *(f"traccc_py_{n}" for n in ("calls", "requests", "refused", "failed", "cells", "tracks")),
    *(f"traccc_py_{n}_milliseconds" for n in ("execute", "stage")),
}


class FakeFamily:
    """Keeps what its metrics were told, by name and labels."""

    COUNTER, GAUGE = "counter", "gauge"
    values = {}  # noqa: RUF012

    def __init__(self, name, description, kind):
        assert (kind == self.COUNTER) == name.endswith("_total") or description.startswith("Old name of")
        assert "milliseconds" not in name or name in OLD_NAMES
        self.name, self.kind = name, kind

    def Metric(self, labels):
        key = (self.name, labels.get("stage") or labels.get("seconds"))
        assert ("instance" in labels) == (self.name in OLD_NAMES) or self.kind == self.GAUGE
        self.values[key] = 0.0

        def increment(value):
            assert self.kind == self.COUNTER
            self.values[key] += value

        def put(value):
            assert self.kind == self.GAUGE
            self.values[key] = value

        return SimpleNamespace(increment=increment, set=put)


def test_sums_arrive_soon_and_at_the_end():
    FakeFamily.values.clear()
    server = SimpleNamespace(MetricFamily=FakeFamily)
    metrics = ServiceMetrics(server, "m", "m_0", 3, EventQueue(QueueSettings()))
    values = FakeFamily.values
    assert values["traccc_py_restarts", None] == 3
    assert values["traccc_py_waiting_cells", None] == 0
    for _ in range(4):
        metrics.count(
            BatchReport(2, n_refused=1, n_cells=10, stage_milliseconds={"fitting": 1.5}, latencies=[0.03]), 0.002
        )
    deadline = time.monotonic() + 10
    while not values["traccc_py_stage_milliseconds", "fitting"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    metrics.count(BatchReport(1, n_failed=1, latencies=[0.2]), 0.001)
    metrics.close()
    assert values["traccc_py_batches_total", None] == 5
    assert values["traccc_py_requests_total", None] == 9
    assert values["traccc_py_busy_seconds_total", None] == pytest.approx(0.009)
    assert values["traccc_py_stage_seconds_total", "fitting"] == pytest.approx(0.006)
    assert values["traccc_py_restarts_total", None] == 3
    within = {name[1]: value for name, value in values.items() if name[0] == "traccc_py_answered_within_total"}
    assert [within[s] for s in ("0.025", "0.05", "0.1", "0.25", "60")] == [0, 4, 4, 5, 5]
    assert values["traccc_py_answered_total", None] == 5
    assert values["traccc_py_latency_seconds_total", None] == pytest.approx(0.32)
    assert values["traccc_py_calls", None] == 5  # the old names, for one release
    assert values["traccc_py_requests", None] == 9
    assert values["traccc_py_refused", None] == 4
    assert values["traccc_py_failed", None] == 1
    assert values["traccc_py_cells", None] == 40
    assert values["traccc_py_execute_milliseconds", None] == pytest.approx(9.0)
    assert values["traccc_py_stage_milliseconds", "fitting"] == pytest.approx(6.0)


def test_servers_without_metrics():
    metrics = ServiceMetrics(SimpleNamespace(), "m", "m_0", 0, EventQueue(QueueSettings()))
    metrics.count(BatchReport(1), 1.0)
    metrics.close()
