"""The PTX of the graph neural network's finder, executed with all checks of memory, against the CPU device."""

import pytest

from tests.integration.small_events import columns
from tests.ptx.device import ptx_device
from tests.ptx.library import WHY_NOT
from tests.ptx.wanted import lists_of_measurements, unwanted
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.data.csv_events import read_cells
from traccc_py.data.sample import sample_event_path
from traccc_py.device.kernel import registered_kernels
from traccc_py.geometry import build_detector

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

SEGMENTATIONS = ("walkthrough", "junction_removal")


def chain_on(device, segmentation):
    config = ChainConfig().with_settings({"finder.method": "gnn", "graph.segmentation": segmentation})
    return TrackingChain(build_detector("odd"), config, device=device)


def run(segmentation, seed):
    """Return the result of the bundled event, where what an event before left in memory must not be read."""
    cells, device = read_cells(sample_event_path()), ptx_device("check", seed=seed)
    chain = chain_on(device, segmentation)
    chain.run(cells)  # buffers grow
    for name, array in chain._schedule.workspace._store.arrays.items():
        if not name.startswith("input"):
            device.ptx.memory.forget(getattr(array, "storage", array).host)
    found = chain.run(cells)
    assert device.ptx.statuses == {}
    assert unwanted(device.ptx.problems) == []
    return found, device.ptx.kernels


def ours():
    """Return the names of the finder's kernels."""
    modules = ("traccc_py.kernels.gnn",)
    return {name for name, one in registered_kernels().items() if one.body.py_func.__module__.startswith(modules)}


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_ptx_finds_what_the_cpu_finds_in_any_order_and_memory_is_used_well(segmentation):
    cells = read_cells(sample_event_path())
    expected = lists_of_measurements(chain_on("cpu", segmentation).run(cells))
    (found, kernels), (shuffled, _) = (run(segmentation, seed) for seed in (0, 1))
    assert lists_of_measurements(found) == expected
    assert len(expected) > 15
    assert len(ours()) > 20
    assert ours() <= kernels
    for name, column in columns(found).items():
        assert columns(shuffled)[name].tobytes() == column.tobytes(), name
