"""The graph neural network's kernels against plain definitions, its weights, its training's labels."""

import itertools
from typing import NamedTuple

import numba
import numpy as np
import pytest

from tests.reference.best_paths import best_paths
from tests.reference.interaction_network import filter_logits, network_logits
from traccc_py import ConfigError, GeometryError, build_detector
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.cpu.products import BLOCK_ROWS, COLUMNS_TOGETHER, ROWS_TOGETHER, add_columns, add_products
from traccc_py.device.workspace import Workspace
from traccc_py.edm import Spacepoints
from traccc_py.gnn.weights import (
    embedding_shapes,
    finder_arrays,
    read_weights,
    untrained_weights,
    weight_shapes,
    write_weights,
)
from traccc_py.kernels.gnn.candidate_seeds import PointLists, find_candidate_seeds
from traccc_py.kernels.gnn.graph_points import GraphPoints
from traccc_py.kernels.gnn.networks import FilteredGraph, ScoredEdges, filter_edges, score_edges
from traccc_py.kernels.gnn.segmentation import find_paths
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch
from traccc_py.simulation.events import simulate_event, truth_measurements
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.training.graphs import GraphMaker, doublet_values
from traccc_py.training.truth_edges import true_edges


class Event(NamedTuple):
    measurements: object
    spacepoints: object


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def weights(detector):
    return untrained_weights(detector.arrays())


def gun_event(detector, n_particles, **options):
    """Return particles as measurements and spacepoints, with clusters of made-up sizes."""
    gun = ParticleGunConfig(n_particles=n_particles, momentum=(0.5, 20.0), vertex_sigma=(0.01, 0.01, 55.0), **options)
    m = truth_measurements(detector, simulate_event(detector, gun, seed=5))
    m = m[np.argsort(detector.module_index(m.geometry_id), kind="stable")]
    m.module_index = detector.module_index(m.geometry_id).astype(np.int32)
    m.cluster_size = np.random.default_rng(2).integers(1, 5, (len(m), 2)).astype(np.int32)
    rows = np.flatnonzero(m.dimensions == 2)
    position = detector.surfaces.global_positions(m.module_index[rows], m.local_position[rows].astype(float))
    return Event(m, Spacepoints(position.astype(np.float32), rows.astype(np.int32)))


@pytest.fixture(scope="module")
def event(detector):
    return gun_event(detector, 60)


@pytest.fixture(scope="module")
def made(detector, weights, event):
    """Return a maker of graphs, and the graph of the event."""
    maker = GraphMaker(detector, finder_arrays(weights, detector.arrays()).graph_map)
    return maker, maker.graph(*event)


def assert_edges_are_doublets(weights, graph):
    p = graph.points
    pairs = {tuple(pair): window for pair, window in zip(weights.pairs.tolist(), weights.windows, strict=True)}
    found = set(zip(graph.inner.tolist(), graph.outer.tolist(), strict=True))
    assert len(found) == len(graph.inner) > 500
    wrong = 0
    for (a, b), window in pairs.items():
        inner, outer = (x.ravel() for x in np.meshgrid(np.flatnonzero(p.layer == a), np.flatnonzero(p.layer == b)))
        if not len(inner):
            continue
        values = doublet_values(p, inner, outer)
        room = np.abs(window).max(axis=1) * 1e-4
        outward = np.hypot(p.r[outer], p.z[outer]) - np.hypot(p.r[inner], p.z[inner])
        for slack, is_expected in ((-1, True), (1, False)):
            low, high = window[:, 0] - slack * room, window[:, 1] + slack * room
            inside = ((values >= low) & (values <= high) | np.isnan(values)).all(axis=1) & (outward > -slack * 1e-3)
            for i, j in zip(inner[inside == is_expected], outer[inside == is_expected], strict=True):
                wrong += ((i, j) in found) != is_expected
    assert wrong == 0


def test_edges_are_the_doublets_within_the_windows(weights, made):
    assert_edges_are_doublets(weights, made[1])


def test_points_with_more_edges_than_are_noted_have_all_of_them(detector, weights):
    outward = weights._replace(windows=weights.windows.copy())
    outward.windows[:, 0, 0] = 0  # what comes back to smaller r is no edge of a window in z0
    maker = GraphMaker(detector, finder_arrays(outward, detector.arrays()).graph_map)
    graph = maker.graph(*gun_event(detector, 400, phi=(0.0, 0.2)), has_clusters=False)
    n = np.bincount(graph.outer)
    assert np.median(n[graph.outer]) > 64 > np.median(n)
    assert_edges_are_doublets(outward, graph)


def test_edges_are_ordered_by_their_outer_point(made):
    _, graph = made
    assert (np.diff(graph.outer) >= 0).all()
    assert (np.diff(graph.points.layer[graph.outer]) != 0).any()


def test_unknown_clusters_have_no_features(made, event):
    maker, graph = made
    without = maker.graph(*event, has_clusters=False)
    assert (without.features[:, 6:] == 0).all()
    assert (without.points.features[:, 5:9] == 0).all()
    assert len(without.inner) > len(graph.inner)


def test_networks_give_what_their_equations_say(detector, weights, made, event):
    maker, _ = made
    graph = maker.graph(*event)
    arrays = finder_arrays(weights, detector.arrays())
    ws, (points, edges) = maker.workspace, maker.last
    expected = filter_logits(weights.arrays, graph.points.features, graph.inner, graph.outer, graph.features)
    kept = filter_edges(ws, points, edges, arrays.edge_filter, 0.5)
    n = ws.size(ws.extent("kept_edges"))
    is_kept = ws.array("network.is_kept", ws.extent("graph_edges"), np.int32)[: len(expected)]
    sure = np.abs(expected) > 1e-4
    assert np.array_equal(is_kept[sure] == 1, expected[sure] > 0)
    assert 0 < n < len(expected)
    scored = score_edges(ws, kept, arrays.network)
    n_nodes = ws.size(ws.extent("graph_nodes"))
    logits = network_logits(
        weights.arrays, kept.node_features[:n_nodes], kept.inner[:n], kept.outer[:n], kept.edge_features[:n]
    )
    assert np.abs(scored.logit[:n] - logits).max() < 1e-4
    assert np.ptp(logits) > 0.2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_in_registers_have_the_bits_of_plain_sums(dtype):
    random = np.random.default_rng(4)
    x, weights = random.standard_normal((9, 13)).astype(dtype), random.standard_normal((13, 40)).astype(dtype)
    sums = random.standard_normal((8, 48)).astype(dtype)
    expected = sums.copy()
    for k in range(13):
        expected[2:, 16:32] += x[3:, k : k + 1] * weights[k, 24:]

    @numba.njit
    def multiply(x, weights, sums):
        add_products(x, 3 * 13, 13, 13, weights, 24, 40, sums, 2 * 48 + 16, 48)
        add_columns(sums, 0, weights, 40, sums, 48)

    multiply(x, weights, sums)
    expected[1, :32] = expected[0, :32] + weights[1, :32]
    assert sums.tobytes() == expected.tobytes()
    assert (ROWS_TOGETHER, COLUMNS_TOGETHER) == (6, 16)


def test_blocks_of_rows_have_the_bits_of_the_same_rows_elsewhere(detector, weights, made, event):
    maker, _ = made
    maker.graph(*event)
    arrays = finder_arrays(weights, detector.arrays())
    graph = filter_edges(maker.workspace, *maker.last, arrays.edge_filter, 0.5)
    n_edges, n_nodes = (maker.workspace.size(maker.workspace.extent(name)) for name in ("kept_edges", "graph_nodes"))
    assert n_edges > 2 * BLOCK_ROWS
    expected = score_edges(maker.workspace, graph, arrays.network).logit[:n_edges].copy()

    def logits(graph, n_nodes, device):
        ws = Workspace(device)
        ws.set_sizes(graph_nodes=n_nodes, kept_edges=len(graph.inner))
        room = [(0, BLOCK_ROWS), (0, 0)]
        padded = {name: np.pad(getattr(graph, name), room) for name in ("node_features", "edge_features")}
        return score_edges(ws, graph._replace(**padded), arrays.network).logit[: len(graph.inner)].copy()

    alone = graph._replace(
        inner=graph.inner[:n_edges],
        outer=graph.outer[:n_edges],
        node_features=graph.node_features[:n_nodes],
        edge_features=graph.edge_features[:n_edges],
    )
    for threads in (1, 2):
        assert logits(alone, n_nodes, CpuDevice(threads)).tobytes() == expected.tobytes()
    for before in (1, 17, BLOCK_ROWS):  # nodes and edges of another event
        other = {
            name: np.concatenate([getattr(alone, name)[:before], getattr(alone, name)])
            for name in ("node_features", "edge_features")
        }
        first = np.arange(before, dtype=np.int32)
        moved = alone._replace(
            inner=np.concatenate([first, alone.inner + before]),
            outer=np.concatenate([first, alone.outer + before]),
            **other,
        )
        assert logits(moved, n_nodes + before, CpuDevice(1))[before:].tobytes() == expected.tobytes()


def paths_of(links, n_nodes, *, only_best=False, cut=0.3, threads=1):
    """Return the paths that the kernels find: `links` has the logit above the cut for each (inner, outer)."""
    ws = Workspace(CpuDevice(threads))
    ws.set_sizes(events=1, graph_nodes=n_nodes, kept_edges=len(links))
    pairs = sorted(links, key=lambda link: (link[1], link[0]))
    inner, outer = np.array(pairs, np.int32).reshape(-1, 2).T.copy()
    threshold = np.float32(np.log(cut / (1 - cut)))
    logit = np.array([links[pair] for pair in pairs], np.float32) + threshold
    numbers = np.arange(n_nodes, dtype=np.int32)
    columns = dict.fromkeys(GraphPoints._fields, np.zeros(n_nodes, np.float32))
    columns |= {"spacepoint": numbers, "event": np.zeros(n_nodes, np.int32), "layer": numbers, "cell_offsets": numbers}
    columns["features"] = np.zeros((n_nodes, 1), np.float32)
    from traccc_py.device.grouping import group_rows

    nodes, kept = ws.extent("graph_nodes"), ws.extent("kept_edges")
    groups = [
        group_rows(ws, name, key, kept, nodes, ws.extent(name))
        for name, key in (("by_outer", outer), ("by_inner", inner))
    ]
    none = np.zeros((max(len(links), n_nodes), 1), np.float32)
    graph = FilteredGraph(numbers, none, inner, outer, none)
    lists = find_paths(ws, GraphPoints(**columns), graph, ScoredEdges(logit, *groups), cut, only_best=only_best)
    n = ws.size(ws.extent("point_lists"))
    return [tuple(lists.spacepoint[a:b].tolist()) for a, b in itertools.pairwise(lists.offsets[: n + 1])] if n else []


@pytest.mark.parametrize("seed", range(40))
def test_paths_are_those_of_a_search_over_all(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(3, 11))
    possible = list(itertools.combinations(range(n), 2))
    chosen = random.permutation(len(possible))[: int(random.integers(1, 2 * n))]
    links = {possible[k]: float(np.float32(random.uniform(0.01, 3))) for k in chosen}
    expected = best_paths({pair: weight + 1e-3 for pair, weight in links.items()}, n)
    assert sorted(paths_of(links, n)) == sorted(expected)


def test_components_come_in_the_order_of_their_nodes_and_their_best_path_first():
    chains = {(0, 2): 1.0, (2, 4): 1.0, (1, 3): 5.0, (3, 5): 5.0, (5, 6): 1.0, (3, 7): 0.1, (7, 8): 0.1, (8, 9): 0.1}
    assert paths_of(chains, 10) == [(0, 2, 4), (1, 3, 5, 6), (7, 8, 9)]
    assert paths_of(chains, 10, threads=2) == paths_of(chains, 10)


def test_without_junctions_only_the_best_edges_of_both_ends_stay():
    links = {(0, 1): 2.0, (1, 2): 1.0, (1, 3): 3.0, (3, 4): 1.0, (2, 4): 2.0, (4, 5): 1.0}
    assert paths_of(links, 6, only_best=True) == [(2, 4, 5)] or paths_of(links, 6, only_best=True) == [
        (0, 1, 3),
        (2, 4, 5),
    ]
    assert paths_of({}, 6) == []
    assert paths_of({(0, 1): 1.0}, 2) == []


def test_a_long_ladder_is_walked_in_time_that_grows_with_its_edges():
    n = 4000
    links = {(k, k + step): 1.0 / step for k in range(n) for step in (1, 2, 3) if k + step < n}
    (path,) = paths_of(links, n)
    assert path == tuple(range(n))


def test_seeds_are_of_points_apart_across_the_beam(detector):
    """Of a path that comes back to where it was, farther along the beam, a circle can't be drawn."""
    arrays, ws = detector.arrays(), Workspace(CpuDevice(1))
    layer = arrays.surfaces["layer"]
    modules = [np.flatnonzero(layer == k)[0] for k in np.unique(layer)[:4]]
    position = np.array([[30, 5, 0], [60, 9, 10], [30, 5, 40], [90, 14, 60]], np.float32)
    n = len(position)
    ws.set_sizes(events=1, spacepoints=n, measurements=n, point_lists=1, listed_points=n)
    rows, event = np.arange(n, dtype=np.int32), np.zeros(n, np.int32)
    of_measurements = dict.fromkeys(MeasurementBatch._fields) | {"event_module": np.array(modules, np.int32)}
    seeds = find_candidate_seeds(
        ws,
        PointLists(np.array([0, n], np.int32), rows, event[:1]),
        SpacepointBatch(position, rows, event),
        MeasurementBatch(**of_measurements),
        arrays,
        len(layer),
    )
    assert ws.size(ws.extent("seeds")) == 1
    assert [int(index[0]) for index in (seeds.bottom_index, seeds.middle_index, seeds.top_index)] == [0, 1, 3]


def test_weights_come_back_from_their_file(tmp_path, weights):
    path = tmp_path / "w.npz"
    write_weights(path, weights)
    read = read_weights(path)
    assert {k: v.tobytes() for k, v in read.arrays.items()} == {k: v.tobytes() for k, v in weights.arrays.items()}
    assert read.windows.tobytes() == weights.windows.tobytes()
    assert set(read.arrays) == {*weight_shapes(), *embedding_shapes()}


def damaged(weights, tmp_path, change):
    path = tmp_path / "w.npz"
    write_weights(path, weights)
    with np.load(path) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    change(arrays)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("windows"), "lacks windows"),
        (lambda a: a.update({"filter.out": np.zeros(3, np.float32)}), r"filter.out is float32 of shape \(3,\)"),
        (lambda a: a.pop("network.out2"), "network.out2 is nothing"),
        (lambda a: a["network.node1"].fill(np.nan), "network.node1 has values that are no finite numbers"),
        (lambda a: a["windows"].fill(1), "its SHA-256 is another one"),
        (lambda a: a["pairs"].fill(1000), "other shapes"),
        (lambda a: a.update(facts=np.frombuffer(b"{}", np.uint8)), "has no facts"),
        (
            lambda a: a.update(facts=np.frombuffer(b'{"format": 9, "features": "x", "sha256": ""}', np.uint8)),
            "format 9",
        ),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path, weights, change, message):
    with pytest.raises(ConfigError, match=message):
        read_weights(damaged(weights, tmp_path, change))


def test_files_that_are_no_weights_are_refused(tmp_path, weights):
    path = tmp_path / "w.npz"
    write_weights(path, weights)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="is no archive of arrays"):
        read_weights(path)
    np.save(tmp_path / "object.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match=r"finder\.weights"):
        read_weights(tmp_path / "object.npy")
    with pytest.raises(ConfigError, match=r"can't be read .*; expected a file, or one of odd"):
        read_weights("wibble")


def test_weights_of_another_detector_are_refused(weights):
    with pytest.raises(GeometryError, match=r"the network was trained for a detector with a .* at r = "):
        finder_arrays(weights, build_detector("toy").arrays())


def test_true_edges_link_layers_in_the_order_of_time():
    point = np.array([7, 3, 5, 1, 9, 2])
    particle = np.array([0, 0, 0, 0, 1, 1])
    time = np.array([3.0, 1.0, 2.0, 2.1, 1.0, 2.0])
    layer = np.array([4, 1, 2, 2, 1, -1])  # two modules of layer 2 overlap
    found = true_edges(point, particle, time, layer)
    assert list(zip(found.inner.tolist(), found.outer.tolist(), strict=True)) == [(3, 5), (3, 1), (5, 7), (1, 7)]
    assert found.particle.tolist() == [0, 0, 0, 0]
    assert len(true_edges(point[:0], particle[:0], time[:0], layer[:0]).inner) == 0


def test_exported_networks_give_the_same_scores(detector, weights, made, event):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from traccc_py.gnn.onnx_export import filter_model, network_model

    _, graph = made
    inputs = {
        "NODES": graph.points.features,
        "EDGES": np.stack([graph.inner, graph.outer]).astype(np.int64),
        "EDGE_FEATURES": graph.features,
    }
    for model, logits in ((filter_model(weights), filter_logits), (network_model(weights), network_logits)):
        scatters = [node for node in model.graph.node if node.op_type == "ScatterElements"]
        assert all({a.name: a for a in node.attribute}["reduction"].s == b"add" for node in scatters)
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (scores,) = session.run(["SCORES"], inputs)
        plain = logits(weights.arrays, graph.points.features, graph.inner, graph.outer, graph.features)
        assert np.abs(scores - 1 / (1 + np.exp(-plain))).max() < 1e-5
    assert len(scatters) == 8
    assert onnx.defs.onnx_opset_version() >= 18


def test_torch_networks_have_the_same_weights(weights, made):
    torch = pytest.importorskip("torch")
    from traccc_py.training.networks import arrays_of, load_arrays

    _, graph = made
    networks = load_arrays(weights.arrays)
    again = arrays_of(*networks, 0.0)
    own = {k: v for k, v in weights.arrays.items() if not k.startswith(("embedding.", "metric_filter."))}
    assert {k: v.tobytes() for k, v in again.items()} == {k: v.tobytes() for k, v in own.items()}
    ends = np.stack([graph.inner, graph.outer]).astype(np.int64)
    for network, logits in zip(networks, (filter_logits, network_logits), strict=True):
        with torch.no_grad():
            found = network(*(torch.from_numpy(a) for a in (graph.points.features, ends, graph.features))).numpy()
        plain = logits(weights.arrays, graph.points.features, graph.inner, graph.outer, graph.features)
        assert np.abs(found - plain).max() < 1e-4
