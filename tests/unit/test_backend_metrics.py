"""The counters of a model instance: sums are sent by a thread, and nothing is lost at the end."""

import time
from types import SimpleNamespace

from traccc_py.backend.metrics import ServiceMetrics
from traccc_py.backend.service import BatchReport


class FakeFamily:
    """Keeps what its metrics were told, by name and labels."""

    COUNTER, GAUGE = "counter", "gauge"
    values = {}  # noqa: RUF012

    def __init__(self, name, description, kind):
        self.name, self.kind = name, kind

    def Metric(self, labels):
        key = (self.name, labels.get("stage"))
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
    metrics = ServiceMetrics(server, {"model": "m", "instance": "m_0"}, {"traccc_py_reloads": 3})
    values = FakeFamily.values
    assert values["traccc_py_reloads", None] == 3
    assert values["traccc_py_restarts", None] == 0
    for _ in range(4):
        metrics.count(BatchReport(2, n_refused=1, n_cells=10, stage_milliseconds={"fitting": 1.5}), 2.0)
    deadline = time.monotonic() + 10
    while not values["traccc_py_stage_milliseconds", "fitting"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    metrics.count(BatchReport(1, n_failed=1), 1.0)
    metrics.close()
    assert values["traccc_py_calls", None] == 5
    assert values["traccc_py_requests", None] == 9
    assert values["traccc_py_refused", None] == 4
    assert values["traccc_py_failed", None] == 1
    assert values["traccc_py_cells", None] == 40
    assert values["traccc_py_execute_milliseconds", None] == 9.0
    assert values["traccc_py_stage_milliseconds", "fitting"] == 6.0


def test_servers_without_metrics():
    metrics = ServiceMetrics(SimpleNamespace(), {"model": "m"}, {})
    metrics.count(BatchReport(1), 1.0)
    metrics.close()
