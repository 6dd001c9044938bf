"""The networks' bodies for CUDA in Numba's simulator, against the plain bodies: the same bits."""

import pytest

from tests.integration.test_simulator import simulate

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

NETWORKS = """
import numpy as np
from tests.devices.checking_device import CheckingDevice
from tests.unit.test_gnn import gun_event
from traccc_py.device.workspace import Workspace
from traccc_py.geometry import build_detector
from traccc_py.gnn.weights import finder_arrays, untrained_weights
from traccc_py.kernels.gnn.embedding import embed_points
from traccc_py.kernels.gnn.networks import filter_edges, score_edges
from traccc_py.training.graphs import GraphMaker

KERNELS = ("prepare_points", "filter_edges", "encode_nodes", "encode_edges", "tell_edges", "tell_nodes", "score_edges")
detector = build_detector("odd")
arrays = finder_arrays(untrained_weights(detector.arrays()), detector.arrays())
maker = GraphMaker(detector, arrays.graph_map)
device = CheckingDevice("gnn_embedding_embed", *(f"gnn_networks_{name}" for name in KERNELS))
maker.workspace = maker._ws = Workspace(device)
while True:
    maker.graph(*gun_event(detector, 8))
    kept = filter_edges(maker.workspace, *maker.last, arrays.edge_filter, 0.5)
    score_edges(maker.workspace, kept, arrays.network)
    points = maker.workspace.extent("graph_points")
    embed_points(maker.workspace, maker.last[0].features, points, arrays.embedding)
    if not maker.workspace.overflowed():
        break
    device.checked.clear()
expected = {f"gnn_networks_{name}": 4 if name.startswith("tell") else 1 for name in KERNELS}
assert device.checked == expected | {"gnn_embedding_embed": 1}
print(maker.workspace.size(maker.workspace.extent("kept_edges")))
"""


def test_networks_on_cuda_have_the_bits_of_the_plain_bodies():
    (n_edges,) = simulate(NETWORKS)
    assert int(n_edges) > 20
