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
CONSTRUCTORS = ("layer_map", "metric")  # each with one of these


def chain_on(device, segmentation):
    constructor = CONSTRUCTORS[SEGMENTATIONS.index(segmentation)]
    settings = {"finder.method": "gnn", "graph.segmentation": segmentation, "graph.constructor": constructor}
    config = ChainConfig().with_settings(settings)
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


def ours(segmentation):
    """Return the names of the finder's kernels, but for those of the other constructor."""
    is_metric = CONSTRUCTORS[SEGMENTATIONS.index(segmentation)] == "metric"
    others = ("graph_construction",) if is_metric else ("metric_graph", "embedding")
    left_out = tuple(f"traccc_py.kernels.gnn.{name}" for name in others)
    modules = {name: one.body.py_func.__module__ for name, one in registered_kernels().items()}
    found = {name for name, module in modules.items() if module.startswith("traccc_py.kernels.gnn")}
    return {name for name in found if not modules[name].startswith(left_out)}


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
def test_ptx_finds_what_the_cpu_finds_in_any_order_and_memory_is_used_well(segmentation):
    cells = read_cells(sample_event_path())
    expected = lists_of_measurements(chain_on("cpu", segmentation).run(cells))
    (found, kernels), (shuffled, _) = (run(segmentation, seed) for seed in (0, 1))
    assert lists_of_measurements(found) == expected
    assert len(expected) > 15
    assert len(ours(segmentation)) > 20
    assert ours(segmentation) <= kernels
    for name, column in columns(found).items():
        assert columns(shuffled)[name].tobytes() == column.tobytes(), name
