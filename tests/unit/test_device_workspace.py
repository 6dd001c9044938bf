"""Buffers and sizes: on the host, and left on the device as on CUDA."""

import numpy as np
import pytest

from tests.unit.device_kernels import make_tables, run_on, run_stages
from traccc_py.device.cpu import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.workspace import Workspace
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


def test_argsort_is_stable_and_leaves_stale_rows_out(workspace):
    rows = workspace.extent("rows")
    workspace.reserve(rows, 8)
    keys = workspace.array("keys", rows, np.int64)
    order = workspace.array("order", rows, np.int32)
    keys[:] = -(2**60)
    workspace.set_size(rows, 5)
    keys[:5] = [4, 2**40, -1, 4, np.iinfo(np.int64).max]
    workspace.argsort(keys, rows, order)
    np.testing.assert_array_equal(order[:5], [2, 0, 3, 1, 4])


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
