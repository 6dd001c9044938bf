"""The graph from an embedding, against plain NumPy and SciPy's search."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from traccc_py import build_detector
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.cpu.products import BLOCK_ROWS
from traccc_py.device.workspace import Workspace
from traccc_py.gnn.weights import finder_arrays, untrained_weights
from traccc_py.kernels.gnn.embedding import N_DIMENSIONS, embed_points
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES
from traccc_py.kernels.gnn.metric_graph import LIMITED_POINTS, EmbeddedPoints, find_pairs

RADIUS = 0.7


def places_of(n, seed=3, spread=1.0):
    random = np.random.default_rng(seed)
    # Most of the spread is in the first dimensions, as in an embedding that has been turned.
    return (random.standard_normal((n, N_DIMENSIONS)) * spread * np.linspace(4, 0.05, N_DIMENSIONS)).astype(np.float32)


def pairs_of(place, *, event=None, layer=None, outward=None, radius=RADIUS, most=1000, threads=1):
    """Return the pairs as rows of (outer, inner), and how many points have more neighbours than allowed."""
    n = len(place)
    ws = Workspace(CpuDevice(threads))
    ws.set_sizes(graph_points=n)
    event = np.zeros(n, np.int32) if event is None else event
    layer = np.arange(n, dtype=np.int32) if layer is None else layer
    outward = np.arange(n, dtype=np.float32) if outward is None else outward
    points = EmbeddedPoints(place, event, layer, outward)
    n_events = int(event.max(initial=0)) + 1
    found = find_pairs(ws, points, ws.extent("graph_points"), n_events, radius, most)
    m = ws.size(ws.extent("graph_edges"))
    return np.stack([found.outer[:m], found.inner[:m]], axis=1), ws.size(ws.extent(LIMITED_POINTS))


def expected_pairs(place, radius=RADIUS):
    found = cKDTree(place.astype(np.float64)).query_pairs(radius, output_type="ndarray")
    found = np.sort(found, axis=1)[:, ::-1]
    return found[np.lexsort((found[:, 1], found[:, 0]))]


@pytest.mark.parametrize("spread", [0.1, 0.5, 40.0])
@pytest.mark.parametrize("n", [0, 1, 2, 3000])
def test_pairs_are_those_of_a_tree(n, spread):
    place = places_of(n, spread=spread)
    found, n_limited = pairs_of(place, most=10**6)
    assert np.array_equal(found, expected_pairs(place) if n else np.zeros((0, 2)))
    assert n_limited == 0
    assert len(found) > 100 or n < 3000 or spread > 1


def test_pairs_join_different_layers_of_one_event_from_the_inside_out():
    place, random = places_of(2000, spread=0.15), np.random.default_rng(1)
    event, layer = (random.integers(0, high, 2000).astype(np.int32) for high in (3, 5))
    outward = random.integers(0, 500, 2000).astype(np.float32)
    found, _ = pairs_of(place, event=event, layer=layer, outward=outward)
    pairs = expected_pairs(place)
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    a, b = pairs.T
    pairs = pairs[(event[a] == event[b]) & (layer[a] != layer[b]) & (outward[b] < outward[a])]
    assert np.array_equal(found, pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])
    assert len(found) > 500


@pytest.mark.parametrize("most", [1, 7, 64, 127, 128, 129, 200])
def test_only_the_nearest_count_where_there_are_more_neighbours_than_allowed(most):
    place = places_of(1500, spread=0.1)
    found, n_limited = pairs_of(place, most=most)
    away = ((place[:, None] - place[None]).astype(np.float64) ** 2).sum(axis=2)
    step = np.floor(away * 4096 / RADIUS**2)
    np.fill_diagonal(step, 1e9)
    near = step < 4096
    n_near = near.sum(axis=1)
    assert n_limited == np.count_nonzero(n_near > most) > 100
    counts = np.zeros_like(near)
    for i in range(len(place)):
        by_step = np.cumsum(np.bincount(step[i, near[i]].astype(int), minlength=4096))
        limit = 4096 if n_near[i] <= most else int(np.searchsorted(by_step, most, side="right"))
        counts[i] = step[i] < limit
    assert counts.sum(axis=1).max() <= most
    outer, inner = np.nonzero(np.tril(counts & counts.T))
    # Rounding moves a few across the edge of a step.
    same = set(zip(outer.tolist(), inner.tolist(), strict=True)) ^ set(map(tuple, found.tolist()))
    assert len(same) <= 0.01 * len(outer) + 2
    assert np.bincount(found.ravel()).max() <= most


def test_pairs_do_not_depend_on_the_order_of_points_or_threads():
    place = places_of(2000, spread=0.12)
    expected, n_limited = pairs_of(place, most=50)
    order = np.random.default_rng(2).permutation(2000)
    found, n_limited_too = pairs_of(place[order], outward=order.astype(np.float32), most=50, threads=2)
    found = order[found]
    assert np.array_equal(found[np.lexsort((found[:, 1], found[:, 0]))], expected)
    assert n_limited == n_limited_too > 0


def test_places_that_are_no_numbers_have_no_neighbours():
    place = places_of(500, spread=0.3)
    expected = expected_pairs(place)
    place[[3, 77]] = np.nan
    place[200, 5] = np.inf
    found, _ = pairs_of(place)
    assert np.array_equal(found, expected[~np.isin(expected, [3, 77, 200]).any(axis=1)])


def embedded(features, weights, threads=1):
    ws = Workspace(CpuDevice(threads))
    ws.set_sizes(graph_points=len(features))
    padded = np.pad(features, [(0, BLOCK_ROWS), (0, 0)])
    return embed_points(ws, padded, ws.extent("graph_points"), weights)[: len(features)].copy()


def test_the_embedding_is_what_its_equations_say_whatever_the_order_of_rows():
    arrays = untrained_weights(build_detector("odd").arrays())
    weights = finder_arrays(arrays, build_detector("odd").arrays()).embedding
    random = np.random.default_rng(8)
    features = random.standard_normal((1000, N_NODE_FEATURES)).astype(np.float32)
    x = features.astype(np.float64)
    for name in ("first", "second", "third"):
        layer = (arrays.arrays[f"embedding.{name}{end}"].astype(np.float64) for end in ("", "_bias"))
        x = np.maximum(x @ next(layer) + next(layer), 0)
    x = x @ arrays.arrays["embedding.out"] + arrays.arrays["embedding.out_bias"]
    found = embedded(features, weights)
    assert np.abs(found - x).max() < 1e-4 * np.abs(x).max()
    order = random.permutation(1000)
    assert embedded(features[order], weights, 2).tobytes() == found[order].tobytes()
