"""The queue of a model instance and its worker: order, limits, and what is not worked on."""

import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traccc_py.backend.queue import EventQueue, Job
from traccc_py.backend.service import BusyError, DecodedEvent, WithdrawnError
from traccc_py.backend.settings import QueueSettings
from traccc_py.backend.worker import Worker

SETTINGS = QueueSettings(max_batch=4, batch_cells=100, queue_cells=1000, queue_events=50)
SMALL, LARGE = 10, 11  # cells; small events have up to a tenth of a batch


def job(n_cells, **options):
    return Job(DecodedEvent(np.zeros(n_cells)), options.pop("answer", lambda _: None), **options)


def batches(queue, n):
    return [[j.n_cells for j in queue.take()] for _ in range(n)]


def test_small_and_large_events_take_turns():
    queue = EventQueue(SETTINGS)
    for n in (90, 80, 1, 2, 70):
        queue.put(job(n))
    assert batches(queue, 1) == [[1, 2]]
    for n in (3, 4):  # came later, but wait for one batch of large events only
        queue.put(job(n))
    assert batches(queue, 4) == [[90], [3, 4], [80], [70]]
    assert len(queue) == queue.n_cells == 0


def test_each_kind_may_have_a_worker_of_its_own():
    """A small event then waits for no large one."""
    queue = EventQueue(SETTINGS)
    for n in (90, 1, 80, 2):
        queue.put(job(n))
    assert [j.n_cells for j in queue.take("small")] == [1, 2]
    assert [j.n_cells for j in queue.take("large")] == [90]
    queue.put(job(3))
    assert [j.n_cells for j in queue.take("small")] == [3]
    queue.close()
    assert queue.take("small") == []  # though a large one waits
    assert [j.n_cells for j in queue.take("large")] == [80]
    assert queue.take("large") == []


def test_a_small_event_is_answered_while_a_large_one_is_worked_on():
    queue, answered, slow = EventQueue(SETTINGS), [], FakeService()
    quick = FakeService()
    quick.go.set()
    workers = [Worker(lambda s=s: s, queue, lambda *_: None, kind) for s, kind in ((slow, "large"), (quick, "small"))]
    queue.put(job(90, answer=lambda _: answered.append("large")))
    queue.put(job(1, answer=lambda _: answered.append("small")))
    deadline = time.monotonic() + 10
    while not answered:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    slow.go.set()
    for worker in workers:
        worker.close()
    assert answered == ["small", "large"]


def test_batches_are_limited_by_cells_and_by_events():
    queue = EventQueue(SETTINGS)
    for n in (50, 50, 20, 200, 90, *[LARGE] * 5):
        queue.put(job(n))
    assert batches(queue, 6) == [[50, 50], [20], [200], [90], [LARGE] * 4, [LARGE]]


@given(st.lists(st.integers(0, 150), max_size=40))
def test_no_event_is_lost_or_starves(sizes):
    """Whatever waits: all come, in the order of their kind, and no kind has two batches while the other waits."""
    queue = EventQueue(QueueSettings(max_batch=4, batch_cells=100, queue_cells=10_000))
    for n in sizes:
        queue.put(job(n))
    given_out, kinds = [], []
    while len(queue):
        batch = [j.n_cells for j in queue.take()]
        assert len(batch) == 1 or (sum(batch) <= 100 and len(batch) <= 4)
        (kind,) = {n <= SMALL for n in batch}
        given_out += batch
        kinds.append(kind)
    for is_small in (True, False):
        assert [n for n in given_out if (n <= SMALL) == is_small] == [n for n in sizes if (n <= SMALL) == is_small]
    while_both_wait = kinds[: 2 * min(kinds.count(True), kinds.count(False))]
    assert all(a != b for a, b in pairwise(while_both_wait))


@pytest.mark.parametrize(
    ("sizes", "refused", "message"), [([600, 300], 200, "900 cells wait"), ([1] * 50, 1, "50 events wait")]
)
def test_full_queue_refuses_with_a_reason(sizes, refused, message):
    queue = EventQueue(SETTINGS)
    for n in sizes:
        queue.put(job(n))
    with pytest.raises(BusyError, match=rf"busy: {message}, expected at most .*send .* again later"):
        queue.put(job(refused))
    queue.put(job(0))  # a monitor's test
    queue.take(), queue.take()
    queue.put(job(refused))


def test_event_larger_than_the_queue_is_taken_when_nothing_waits():
    queue = EventQueue(SETTINGS)
    queue.put(job(5000))
    assert batches(queue, 1) == [[5000]]


def test_batches_have_no_more_cells_than_there_is_memory_for():
    queue = EventQueue(SETTINGS)
    queue.limit_batches(1000)  # above the setting
    queue.limit_batches(30)
    for n in (20, 20, 90, 10, 10, 10, 10):
        queue.put(job(n))
    assert batches(queue, 5) == [[10, 10, 10], [20], [10], [20], [90]]


def test_closed_queue_gives_out_what_waits():
    queue = EventQueue(SETTINGS)
    queue.put(job(1))
    queue.close()
    with pytest.raises(BusyError, match="ends"):
        queue.put(job(1))
    assert batches(queue, 2) == [[1], []]


class FakeService:
    """Answers with the number of cells; notes batches."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def process(self, events, report, why_withdrawn):
        self.go.wait(10)
        self.batches.append([len(e.cells) for e in events])
        if any(len(e.cells) == 13 for e in events):
            raise RuntimeError
        return [{"n": len(e.cells)} for e in events]


def run_worker(jobs, meanwhile=lambda: None):
    """Give jobs to a worker that is busy with a first event until all wait; return service and sum of reports."""
    service, reports, queue = FakeService(), [], EventQueue(SETTINGS)
    worker = Worker(lambda: service, queue, lambda report, seconds: reports.append(report))
    assert worker.wait_until_ready() is service
    queue.put(job(100))
    while len(queue):
        time.sleep(0.001)
    for one in jobs:
        queue.put(one)
    meanwhile()
    service.go.set()
    worker.close()
    return service, SimpleNamespace(
        **{n: sum(getattr(r, n) for r in reports) for n in ("n_requests", "n_withdrawn", "n_failed", "n_refused")}
    )


def test_cancelled_and_late_events_are_not_worked_on():
    answers = {}
    jobs = [
        job(20, answer=lambda a: answers.__setitem__("cancelled", a), is_cancelled=lambda: True),
        job(21, answer=lambda a: answers.__setitem__("late", a), timeout=0.01),
        job(22, answer=lambda a: answers.__setitem__("good", a), timeout=60.0),
    ]
    service, report = run_worker(jobs, lambda: time.sleep(0.1))
    assert service.batches == [[100], [22]]
    assert answers["good"] == {"n": 22}
    assert isinstance(answers["cancelled"], WithdrawnError)
    assert "its sender allows 0.01 s" in str(answers["late"])
    assert (report.n_requests, report.n_withdrawn, report.n_failed) == (4, 2, 0)


def test_worker_outlives_a_failing_batch():
    answers = []
    service, report = run_worker([job(13, answer=answers.append), job(5, answer=answers.append)])
    assert service.batches == [[100], [5], [13]]
    assert answers[0] == {"n": 5}
    assert isinstance(answers[1], RuntimeError)
    assert report.n_failed == 1


def test_worker_hands_on_why_there_is_no_service():
    def fail():
        raise OSError("no such file")

    worker = Worker(fail, EventQueue(SETTINGS), lambda *_: None)
    with pytest.raises(OSError, match="no such file"):
        worker.wait_until_ready()
    worker.close()
