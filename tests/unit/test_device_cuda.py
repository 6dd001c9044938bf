"""`CudaDevice` on stand-ins for CuPy and the driver: what it asks of them, and that launches decode to the payload."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from tests.devices.cuda_fakes import fake_cuda_device
from tests.unit.device_kernels import ITEM, make_tables, run_on, run_stages
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.cuda import launch as cuda_launch
from traccc_py.device.cuda.launch import grid_of
from traccc_py.device.kernel import CudaBody, Kernel
from traccc_py.device.workspace import Workspace
from traccc_py.errors import CapacityError, DeviceUnavailableError

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

SHORT = Kernel("a_kernel", None, "", (), 1024)


@pytest.fixture
def cuda(monkeypatch):
    """Return a function that makes a `CudaDevice` of the stand-ins."""
    return lambda index=0, **cupy: fake_cuda_device(monkeypatch, index, **cupy)


def test_cuda_device_gives_the_results_of_the_cpu(cuda):
    item = np.random.default_rng(1).integers(0, 7, 300).astype(np.int32)
    for got, expected in zip(run_on(cuda(), item), run_on(CpuDevice(), item), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert len(got) > 300


def test_cuda_device_redoes_a_batch_that_outgrows_its_buffers_and_keeps_the_room(cuda):
    device = cuda()
    workspace, tables = Workspace(device), make_tables(device)
    passes = [run_stages(workspace, tables, np.full(n, 3, np.int32))[2] for n in (10, 10, 500, 20)]
    assert passes == [2, 1, 2, 1]


def test_cuda_device_waits_once_for_sizes_and_once_for_the_output(cuda):
    device = cuda()
    workspace, tables = Workspace(device), make_tables(device)
    item = np.arange(30, dtype=np.int32) % 7
    run_stages(workspace, tables, item)
    before = device.stream.n_waits
    run_stages(workspace, tables, item)
    assert device.stream.n_waits - before == 2


def test_functions_side_by_side_have_a_stream_each_which_meet(cuda):
    """Both wait for what comes before, and what comes behind waits for both, also after an error."""
    device = cuda()
    main, side, used = device.stream, device._side_stream, []

    def fail():
        raise CapacityError("too much")

    assert device.side_by_side(lambda: used.append(device.stream), lambda: used.append(device.stream) or 7) == 7
    assert used == [side, main]
    assert (side.waiting_for, main.waiting_for) == ([main], [side])
    for functions in ((fail, print), (print, fail)):
        with pytest.raises(CapacityError, match="too much"):
            device.side_by_side(*functions)
        assert device.stream is main
        assert main.waiting_for.pop() is side


def test_a_graph_has_the_launches_of_both_streams(cuda):
    device = cuda(options={"uses_graphs": True})
    first, second = device.zeros(3, np.int32), device.zeros(3, np.int32)
    for _ in ("done", "recorded and replayed", "replayed"):
        first.host[:] = second.host[:] = 1
        device.recorded("key", lambda: device.side_by_side(lambda: device.clear(first), lambda: device.clear(second)))
        assert not first.host.any()
        assert not second.host.any()


def test_cuda_device_accepts_no_rows(cuda):
    values, in_order = run_on(cuda(), np.zeros(0, np.int32))
    assert values.shape == in_order.shape == (0,)


def test_empty_launches_compile_and_launch_nothing(cuda):
    device = cuda()
    launched = len(device._launcher._driver.launches)
    run_stages(Workspace(device), make_tables(device), np.zeros(0, np.int32))
    compiled = {name for name, *_ in device._launcher._functions}
    assert {"device_kernels_count", "device_kernels_fill", "device_kernels_gather"} <= compiled
    names = [name for name, *_ in device._launcher._driver.launches[launched:]]
    assert not any("count" in name for name in names)


def test_cuda_device_launches_from_a_thread_that_never_saw_the_gpu(cuda):
    device = cuda(index=1, n_gpus=2)
    found = []
    item = np.arange(9, dtype=np.int32) % 7
    thread = threading.Thread(target=lambda: found.append(run_on(device, item)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0][0], run_on(CpuDevice(), item)[0])
    assert device.name == "cuda:1"


def test_records_keep_their_type_through_device_memory(cuda):
    device = cuda()
    items = np.zeros((3, 2), ITEM)
    items["group"] = np.arange(6).reshape(3, 2)
    on_device = device.to_device(items)
    assert (on_device.ndim, on_device.size, on_device.strides) == (2, 6, (24, 12))
    np.testing.assert_array_equal(device.to_host(on_device), items)
    np.testing.assert_array_equal(device.to_host(on_device[1:]), items[1:])
    with pytest.raises(IndexError, match="contiguous"):
        on_device[::2]


def test_upload_fills_the_first_rows_only(cuda):
    device = cuda()
    out = device.zeros(5, np.float32)
    device.upload(np.array([1, 2]), out)
    np.testing.assert_array_equal(device.to_host(out), [1, 2, 0, 0, 0])
    device.upload(np.zeros(0, np.float32), out)


def test_too_large_array_is_a_capacity_error(cuda):
    with pytest.raises(CapacityError, match=r"cuda:0 has no memory for an array of shape \(1000,\)"):
        cuda(memory=3000).empty(1000, np.float32)


def test_a_gpu_that_is_taken_is_named(cuda):
    """A GPU in exclusive mode or without free memory: "auto" takes the CPU then, which needs this error."""
    with pytest.raises(DeviceUnavailableError, match=r"cuda:0 is there but can't be used: cuda:0 has no memory"):
        cuda(memory=0)


@pytest.mark.parametrize(("n_gpus", "text"), [(-1, "cudaErrorNoDevice"), (0, "finds no GPU"), (1, "found 1")])
def test_missing_gpu_is_named(cuda, n_gpus, text):
    with pytest.raises(DeviceUnavailableError, match=text):
        cuda(index=1, n_gpus=n_gpus)


def test_same_payload_is_packed_once(cuda, monkeypatch):
    device = cuda()
    workspace, tables = Workspace(device), make_tables(device)
    item = np.arange(30, dtype=np.int32) % 7
    for _ in range(2):
        run_stages(workspace, tables, item)
    packed = []
    original = cuda_launch.Launcher._packed

    def packing(self, kernel, *arguments):
        packed.append(kernel.name)
        return original(self, kernel, *arguments)

    monkeypatch.setattr(cuda_launch.Launcher, "_packed", packing)
    run_stages(workspace, tables, item)
    assert packed == []


@pytest.mark.parametrize(
    ("capacity", "n_multiprocessors", "expected"),
    [(1, 132, (1, 32)), (132 * 64, 132, (132, 64)), (10**6, 132, (132 * 32, 128)), (5000, 2, (40, 128))],
)
def test_grid_covers_the_range_or_strides(capacity, n_multiprocessors, expected):
    assert grid_of(SHORT, capacity, n_multiprocessors) == expected


@pytest.mark.parametrize(
    ("grain", "capacity", "expected"),
    [
        *((8, n, grid) for n, grid in ((1, (1, 1)), (1300, (1300, 1)), (7000, (3500, 2)), (60000, (3750, 16)))),
        *((64, n, grid) for n, grid in ((1, (1, 1)), (7000, (7000, 1)), (60000, (7500, 8)), (10**6, (31250, 32)))),
    ],
)
def test_indices_that_take_long_get_small_warps_while_there_is_room(grain, capacity, expected):
    assert grid_of(replace(SHORT, grain=grain), capacity, 132) == expected


def test_blocks_that_work_on_an_index_have_the_threads_they_ask_for():
    assert grid_of(replace(SHORT, cuda=CudaBody("module:body", 512)), 3, 132) == (3, 512)
