"""Buffers and sizes: on the host, and left on the device as on CUDA."""

import numpy as np
import pytest

from tests.unit.device_kernels import make_tables, run_on, run_stages
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.grouping import group_rows
from traccc_py.device.workspace import ScanColumn, Workspace
from traccc_py.errors import CapacityError


@pytest.fixture(params=[CpuDevice, DeferredDevice], ids=["host", "deferred"])
def workspace(request):
    return Workspace(request.param(threads=1))


def scanned(workspace, values, room=0):
    rows, total = workspace.extent("rows"), workspace.extent("total")
    workspace.reserve(total, room)
    workspace.set_size(rows, len(values))
    counts = workspace.put("counts", rows, np.asarray(values, np.int32))
    offsets = workspace.array("offsets", rows, np.int32, extra=1)
    workspace.scan(counts, rows, offsets, total)
    return offsets[: len(values) + 1], total


def overflowing_scan(workspace, values):
    scanned(workspace, values)
    return workspace.overflowed()


def test_scan_writes_exclusive_sums_and_their_total(workspace):
    offsets, total = scanned(workspace, [3, 0, 2, 5], room=10)
    np.testing.assert_array_equal(offsets, [0, 3, 3, 5, 10])
    assert workspace.size(total) == 10
    assert not workspace.overflowed()


def test_scan_of_nothing_is_zero(workspace):
    offsets, total = scanned(workspace, [])
    assert offsets[0] == 0
    assert workspace.size(total) == 0


def test_scan_beyond_32_bits_is_an_error(workspace):
    with pytest.raises(CapacityError, match="total in one batch"):
        overflowing_scan(workspace, [2**30] * 3)


def test_scan_beyond_64_bits_of_wrapping_is_an_error(workspace):
    with pytest.raises(CapacityError, match="total in one batch"):
        overflowing_scan(workspace, [2**30] * 9)


def test_error_of_one_batch_does_not_stay(workspace):
    with pytest.raises(CapacityError):
        overflowing_scan(workspace, [2**30] * 3)
    _, total = scanned(workspace, [1, 2], room=3)
    assert not workspace.overflowed()
    assert workspace.size(total) == 3


def test_columns_are_summed_together(workspace):
    rows, a, b = (workspace.extent(name) for name in ("rows", "a", "b"))
    workspace.set_size(rows, 10_000)
    workspace.reserve(a, 100_000)
    workspace.reserve(b, 10_000)
    columns = []
    for name, total in (("a", a), ("b", b)):
        values = workspace.array(f"{name}.n", rows, np.int32)
        values[:10_000] = np.random.default_rng(1).integers(0, 10 if name == "a" else 2, 10_000)
        columns.append(ScanColumn(values, workspace.array(f"{name}.offsets", rows, np.int32, extra=1), total))
    workspace.scan_together(rows, *columns)
    for values, offsets, total, _ in columns:
        expected = np.concatenate([[0], np.cumsum(values[:10_000])])
        np.testing.assert_array_equal(offsets[:10_001], expected)
        assert workspace.size(total) == expected[-1]


def test_columns_that_do_not_all_fit_become_zero_together():
    workspace = Workspace(DeferredDevice(threads=1))
    rows, a, b = (workspace.extent(name) for name in ("rows", "a", "b"))
    workspace.set_size(rows, 3)
    workspace.reserve(a, 10)
    ones = np.ones(rows.capacity, np.int32)
    offsets = [np.zeros(rows.capacity + 1, np.int32) for _ in range(2)]
    columns = [ScanColumn(ones, o, total) for o, total in zip(offsets, (a, b), strict=True)]
    workspace.scan_together(rows, *columns)
    assert (workspace.size(a), workspace.size(b)) == (0, 0)
    assert workspace.overflowed()
    workspace.scan_together(rows, *columns)
    assert (workspace.size(a), workspace.size(b)) == (3, 3)
    assert not workspace.overflowed()


def test_more_columns_than_a_launch_can_take_are_refused():
    workspace = Workspace(DeferredDevice(threads=1))
    rows = workspace.extent("rows")
    workspace.set_size(rows, 3)
    column = ScanColumn(np.ones(99, np.int32), np.ones(99, np.int32), rows)
    with pytest.raises(ValueError, match="4 columns are summed together"):
        workspace.scan_together(rows, *[column] * 4)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("n_keys", [1, 7, 5000])
def test_rows_are_grouped_in_their_order_and_some_left_out(workspace, width, n_keys):
    rows = workspace.extent("rows")
    workspace.set_size(rows, 600)
    key = workspace.array("key", rows, np.int32, width).reshape(-1)
    key[:] = 3  # stale
    key[: 600 * width] = np.random.default_rng(n_keys).integers(-1, n_keys, 600 * width)
    grouped = workspace.extent("grouped")
    groups = group_rows(workspace, "g", key, rows, workspace.fixed("keys", n_keys), grouped, width=width)
    key = key[: 600 * width]
    n = workspace.size(grouped)
    assert n == np.count_nonzero(key >= 0)
    order = np.argsort(key, kind="stable")
    np.testing.assert_array_equal(groups.order[:n], order[len(key) - n :])
    np.testing.assert_array_equal(groups.offsets, np.searchsorted(np.sort(key[key >= 0]), np.arange(n_keys + 1)))
    assert not workspace.overflowed()


def test_sizes_are_set_one_by_one_or_together(workspace):
    a, b, c = (workspace.extent(name) for name in "abc")
    workspace.set_sizes(c=3, b=2)
    workspace.set_sizes(a=1, c=4)
    assert [workspace.size(e) for e in (a, b, c)] == [1, 2, 4]
    assert min(e.capacity for e in (a, b, c)) >= 1


def test_fixed_extent_beyond_32_bits_is_refused(workspace):
    assert workspace.fixed("few", 3).capacity == 3
    with pytest.raises(CapacityError, match="2147483648 cells in one batch"):
        workspace.fixed("cells", 2**31)


def test_deferred_sizes_beyond_the_room_become_zero_and_are_made_room_for():
    workspace = Workspace(DeferredDevice(threads=1))
    _, total = scanned(workspace, [3, 4])
    assert workspace.size(total) == 0
    assert workspace.overflowed()
    assert total.capacity >= 7
    _, total = scanned(workspace, [3, 4])
    assert not workspace.overflowed()
    assert workspace.size(total) == 7


def test_host_sizes_never_overflow():
    workspace = Workspace(CpuDevice(threads=1))
    _, total = scanned(workspace, [3, 4])
    assert workspace.size(total) == 7
    assert not workspace.overflowed()


def test_deferred_run_gives_the_results_of_the_cpu():
    item = np.random.default_rng(2).integers(0, 7, 1000).astype(np.int32)
    for got, expected in zip(run_on(DeferredDevice(), item), run_on(CpuDevice(), item), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_reserved_room_saves_the_second_pass():
    item = np.full(100, 3, np.int32)
    passes = []
    for room in (0, 1000):
        device = DeferredDevice(threads=1)
        workspace = Workspace(device)
        workspace.reserve(workspace.extent("out"), room)
        passes.append(run_stages(workspace, make_tables(device), item)[2])
    assert passes == [2, 1]


def test_array_is_kept_until_it_is_too_small(workspace):
    rows = workspace.extent("rows")
    workspace.set_size(rows, 10)
    first = workspace.array("a", rows, np.float32, 3)
    workspace.set_size(rows, 5)
    assert workspace.array("a", rows, np.float32, 3) is first
    workspace.set_size(rows, 1000)
    grown = workspace.array("a", rows, np.float32, 3, extra=1)
    assert grown.shape[0] >= 1001
    assert workspace.array("a", rows, np.float64, 3, extra=1).dtype == np.float64


def test_too_many_extents_are_refused(workspace):
    for k in range(64):
        workspace.extent(f"e{k}")
    with pytest.raises(ValueError, match="raise MAX_EXTENTS"):
        workspace.extent("one more")
