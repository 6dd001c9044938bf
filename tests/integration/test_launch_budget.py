"""What a batch asks of a GPU: launches, scans, waits, copies; batches one after the other; CUDA graphs. No GPU."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.devices.cuda_fakes import STREAMS, fake_cuda_device
from tests.integration.small_events import columns, telescope, telescope_cells
from traccc_py.chain import TrackingChain
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.errors import CapacityError, InputDataError, TracccError
from traccc_py.pipeline import schedule
from traccc_py.pipeline.results import split_batch

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

MAX_LAUNCHES = 46  # of kernels of the stages and of groupings
MAX_SCANS = 12  # besides one in each grouping
MAX_GROUPINGS = 4  # counting sorts
MAX_WAITS = 3
MAX_CLEARS = 7
MAX_COPIES_IN = 6  # five columns of cells, and the sizes
BATCHES = ((4, 0, 30), (1, 7, 2), (12, 12, 12), (3, 5, 1))  # tracks of the events of each batch


@pytest.fixture(scope="module")
def detector():
    return telescope()


@pytest.fixture(scope="module")
def batches(detector):
    return [[telescope_cells(n, 10 * k + n, detector) for n in batch] for k, batch in enumerate(BATCHES)]


@pytest.fixture(scope="module")
def expected(detector, batches):
    chain = TrackingChain(detector, device=CpuDevice(1))
    return [[columns(result) for result in chain.run_batch(events)] for events in batches]


def assert_same(results, expected):
    assert len(results) == len(expected)
    for result, right in zip(results, expected, strict=True):
        found = columns(result)
        for name, column in right.items():
            np.testing.assert_array_equal(found[name], column, err_msg=name)


@pytest.fixture
def grown(detector, batches, monkeypatch):
    """Return a chain on the stand-ins whose buffers have room for all batches."""
    device = fake_cuda_device(monkeypatch)
    chain = TrackingChain(detector, device=device)
    for events in batches:
        chain.run_batch(events)
    return chain


def asked_of(streams):
    """Return numbers of waits, clears and copies to the device so far."""
    return [sum(getattr(stream, what) for stream in streams) for what in ("n_waits", "clears", "copies")]


def test_a_batch_keeps_to_its_budget(grown, batches, expected):
    device = grown.device
    launches, streams = device._launcher._driver.launches, (device.stream, device._copy_stream)
    launches.clear()
    before = asked_of(streams)
    assert_same(grown.run_batch(batches[0]), expected[0])
    waits, clears, copies = (b - a for a, b in zip(before, asked_of(streams), strict=True))
    names = Counter(name for name, _, _ in launches)
    n_groupings = names["grouping_order_members"]
    n_scans = names["scan_chunks"] - n_groupings
    n_launches = len(launches) - names["scan_chunks"]
    print(f"{n_launches} launches, {n_scans} scans, {n_groupings} groupings, {clears} clears, {copies} copies in")
    assert 20 < n_launches <= MAX_LAUNCHES
    assert 5 < n_scans <= MAX_SCANS
    assert 0 < n_groupings <= MAX_GROUPINGS
    assert 0 < waits <= MAX_WAITS
    assert 0 < clears <= MAX_CLEARS
    assert 0 < copies <= MAX_COPIES_IN


def test_batches_one_after_the_other_give_what_each_gives_alone(detector, batches, expected, monkeypatch):
    chain = TrackingChain(detector, device=fake_cuda_device(monkeypatch))
    for results, right in zip(chain.run_batches(batches), expected, strict=True):
        assert_same(results, right)


def test_batches_of_the_cpu_and_empty_ones(detector, batches, expected):
    chain = TrackingChain(detector, device=CpuDevice(1))
    found = list(chain.run_batches([[], batches[1], [], batches[0]]))
    assert (found[0], found[2]) == ([], [])
    assert_same(found[1], expected[1])
    assert_same(found[3], expected[0])
    assert list(chain.run_batches([])) == []


def test_next_batch_is_copied_while_one_is_worked_on(grown, batches):
    """Copies of a batch come after the launches of the one before and before its results are waited for."""
    device = grown.device
    order = []
    for name in ("upload_ahead", "join_uploads", "synchronize", "recorded"):
        original = getattr(device, name)

        def noting(*arguments, name=name, original=original):
            order.append(name)
            return original(*arguments)

        setattr(device, name, noting)
    list(grown.run_batches(batches[:3]))
    short = [name for k, name in enumerate(order) if k == 0 or name != order[k - 1]]
    first, again = (
        ["upload_ahead", "join_uploads", "recorded"],
        ["upload_ahead", "synchronize", "join_uploads", "recorded"],
    )
    assert short == [*first, *again, *again, "synchronize"]


def test_copies_made_ahead_go_to_the_buffer_that_is_not_in_use(grown, batches):
    device = grown.device
    addresses = []
    original = device.upload_ahead

    def noting(values, out):
        addresses.append((values.ctypes.data, out.data.ptr))
        original(values, out)

    device.upload_ahead = noting
    list(grown.run_batches([*batches, batches[0]]))
    per_batch = [set(addresses[k : k + 5]) for k in range(0, len(addresses), 5)]
    for one, other in pairwise(per_batch):
        assert not one & other
    assert per_batch[0] == per_batch[2] == per_batch[4]
    assert device.stream.waiting_for[-1] is device._copy_stream


def test_results_are_cut_into_events_while_the_next_batch_runs(grown, batches, monkeypatch):
    order = []
    monkeypatch.setattr(schedule, "split_batch", lambda *a: (order.append("split"), split_batch(*a))[1])
    original = grown.device.recorded
    grown.device.recorded = lambda *a: (order.append("start"), original(*a))[1]
    list(grown.run_batches(batches[:3]))
    assert order == ["start", "start", "split", "start", "split", "split"]


def test_a_refused_batch_leaves_the_buffer_in_use_alone(grown, batches):
    """The device may still read the cells of the batch before it."""
    device = grown.device
    addresses = []
    original = device.upload_ahead
    device.upload_ahead = lambda values, out: (addresses.append(out.data.ptr), original(values, out))
    bad = replace(batches[1][0], channel0=batches[1][0].channel0 + 1_000_000)
    with pytest.raises(InputDataError, match="channel0 is"):
        list(grown.run_batches([batches[0], [bad]]))
    list(grown.run_batches([batches[1]]))
    assert len(addresses) == 10
    assert not set(addresses[:5]) & set(addresses[5:])


def test_batches_where_sizes_stay_on_the_device(detector, batches, expected):
    chain = TrackingChain(detector, device=DeferredDevice(1))
    for results, right in zip(chain.run_batches(batches), expected, strict=True):
        assert_same(results, right)


def test_other_events_between_batches_are_refused(detector, batches):
    """They would take the place of the batch in progress."""
    chain = TrackingChain(detector, device=CpuDevice(1))
    results = chain.run_batches(batches[:3])
    next(results)
    chain.run_batch(batches[3])
    with pytest.raises(TracccError, match="another event while batches were in progress"):
        next(results)


class SmallDevice(DeferredDevice):
    """Has no memory for arrays of more than `limit` bytes."""

    limit = np.inf

    def empty(self, shape, dtype):
        if np.prod(shape) * np.dtype(dtype).itemsize > self.limit:
            msg = "no memory"
            raise CapacityError(msg)
        return super().empty(shape, dtype)


def test_a_batch_too_large_for_memory_does_not_stay(detector, batches, expected):
    device = SmallDevice(1)
    chain = TrackingChain(detector, device=device)
    assert_same(chain.run_batch(batches[0]), expected[0])
    device.limit = 2 * max(array.nbytes for array in chain._schedule.workspace._store.arrays.values())
    with pytest.raises(CapacityError, match="no memory"):
        chain.run_batch(batches[0] * 20)
    assert_same(chain.run_batch(batches[0]), expected[0])
    with pytest.raises(CapacityError, match="no memory"):
        list(chain.run_batches([batches[1], batches[0] * 20]))
    assert_same(chain.run_batch(batches[1]), expected[1])


def test_memory_beyond_the_limit_is_refused(detector, monkeypatch):
    device = fake_cuda_device(monkeypatch, options={"memory_limit": 1000})
    assert device._pool.limit == 1000
    with pytest.raises(CapacityError, match="has no memory"):
        device.empty(2000, np.uint8)


def test_graph_is_recorded_once_and_replayed(detector, batches, expected, monkeypatch):
    device = fake_cuda_device(monkeypatch, options={"uses_graphs": True})
    chain = TrackingChain(detector, device=device)
    launches = device._launcher._driver.launches
    n_launched = []
    for _ in range(6):
        for events, right in zip(batches, expected, strict=True):
            launches.clear()
            assert_same(chain.run_batch(events), right)
            n_launched.append(len(launches))
    assert n_launched[-8:] == [0] * 8  # replayed, not launched one by one
    graphs = [r.graph for r in device._recordings.values() if r.graph is not None]
    assert len(graphs) == 2  # one for each buffer of the input
    assert all(30 < len(graph.nodes) < 90 and graph.n_launches > 2 for graph in graphs)


def test_graph_is_recorded_again_after_buffers_grew(detector, batches, expected, monkeypatch):
    device = fake_cuda_device(monkeypatch, options={"uses_graphs": True})
    chain = TrackingChain(detector, device=device)
    small = [1, 3, 1, 3, 1, 3, 1, 3, 1, 3]  # indices of batches; then the large one, then small ones again
    for k in [*small, 0, *small, 0, 0]:
        assert_same(chain.run_batch(batches[k]), expected[k])
    results = list(chain.run_batches([batches[k] for k in (0, 1, 2, 3, 0)]))
    for result, k in zip(results, (0, 1, 2, 3, 0), strict=True):
        assert_same(result, expected[k])


LAUNCHES_OF_LATE_SEEDS = (  # besides those that sort points, search chains, scan and list
    "finding_starts_move_start",
    "finding_follow_seeds",
    "finding_candidates_count_candidates",
    "finding_candidates_fill_candidates",
)


def test_page_on_the_gpu_lists_the_launches_of_a_batch(grown, batches):
    """`studies/launch_list.py` writes it: run that again where kernels of a batch, or how often they run, changed."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "gpu.md").read_text()
    _, _, table = page.partition("<!-- launches: begin -->")
    listed = Counter({name: int(n) for name, n in re.findall(r"^\| `(\w+)` \| (\d+) \|", table, re.MULTILINE)})
    launches = grown.device._launcher._driver.launches
    launches.clear()
    grown.run_batch(batches[0])
    # The page's event has seeds by layer pairs, late ones, and tracks that may kink; a telescope has none of these.
    elsewhere = ("seeding_", "finding_kinks_", "finding_retry_mark_points", "scan_", "grouping_", "tracking_selection_")
    listed.subtract({"finding_follow_seeds": 1})
    listed.subtract(LAUNCHES_OF_LATE_SEEDS)
    of_stages = {name: n for name, n in listed.items() if not name.startswith(elsewhere)}
    launched = Counter(name for name, _, _ in launches)
    assert of_stages == {name: n for name, n in launched.items() if not name.startswith(elsewhere)}


@pytest.fixture(autouse=True)
def _forget_streams():
    STREAMS.clear()
