"""The finder in the six steps of exatrkx-service: the labels of the finder in one, and what each step refuses."""

import numpy as np
import pytest

from tests.unit.test_labelling import detector, features  # noqa: F401 (fixtures)
from traccc_py import ConfigError, InputDataError
from traccc_py.config import ChainConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.gnn.weights import embedding_shapes, untrained_weights, write_weights
from traccc_py.pipeline.features import features_of
from traccc_py.pipeline.label_steps import LabelSteps
from traccc_py.pipeline.labelling import SpacepointLabeller
from traccc_py.studies.labels import bytes_by_step

METRIC = {"finder.method": "gnn", "graph.constructor": "metric", "graph.radius": 0.5, "graph.max_neighbours": 60}


@pytest.fixture(scope="module")
def config(detector, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("weights") / "untrained.npz"
    write_weights(path, untrained_weights(detector.arrays(), seed=3))
    return ChainConfig().with_settings(METRIC | {"finder.weights": str(path)})


@pytest.fixture(scope="module")
def steps(detector, config):  # noqa: F811
    return LabelSteps(detector, config, CpuDevice(1))


@pytest.fixture(scope="module")
def labeller(detector, config):  # noqa: F811
    return SpacepointLabeller(detector, config, CpuDevice(2))


def run(steps, table):
    """Return what each step gives."""
    places = steps.embed(table)
    edges = steps.neighbours(places)
    scores = steps.filter_scores(table, edges)
    kept = steps.kept_edges(scores, edges)
    judged = steps.edge_scores(table, kept)
    return places, edges, scores, kept, judged, steps.labels(kept, judged, table)


def test_the_steps_give_the_labels_of_the_whole(steps, labeller, features):  # noqa: F811
    places, edges, scores, kept, judged, labels = run(steps, features)
    assert places.shape == (len(features), 8)
    assert edges.shape[1] == len(scores) > kept.shape[1] == len(judged) > 100
    assert np.isfinite(judged).all()
    expected = labeller.label(features)
    assert np.count_nonzero(np.bincount(expected) > 2) > 3
    assert labels.tobytes() == expected.tobytes()


def test_edges_may_come_in_any_order_and_direction(steps, features):  # noqa: F811
    _, edges, scores, kept, judged, labels = run(steps, features)
    random = np.random.default_rng(2)

    def mixed(given):
        order = random.permutation(given.shape[1])
        turned = random.random(given.shape[1]) < 0.5
        return order, np.where(turned, given[::-1], given)[:, order]

    order, other = mixed(edges)
    assert steps.filter_scores(features, other).tobytes() == scores[order].tobytes()
    order, other = mixed(kept)
    assert steps.edge_scores(features, other).tobytes() == judged[order].tobytes()
    assert steps.labels(other, judged[order], features).tobytes() == labels.tobytes()


def test_the_steps_give_the_same_where_sizes_stay_on_the_device(detector, config, steps, features):  # noqa: F811
    for found, expected in zip(
        run(LabelSteps(detector, config, DeferredDevice(1)), features), run(steps, features), strict=True
    ):
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_spacepoints_have_labels_of_their_own(steps, labeller, features, n):  # noqa: F811
    assert run(steps, features[:n])[-1].tolist() == list(range(n)) == labeller.label(features[:n]).tolist()


def test_spacepoints_without_edges_have_labels_too(steps, features):  # noqa: F811
    none, no_scores = np.zeros((2, 0), np.int64), np.zeros(0, np.float32)
    assert steps.labels(none, no_scores, features).tolist() == list(range(len(features)))
    labels = steps.labels(np.array([[0], [1]]), np.ones(1, np.float32), features)
    assert len(labels) == len(features) == len(np.unique(labels))


def test_pairs_of_one_layer_are_no_edges(steps, features):  # noqa: F811
    same = np.array([[4], [4]])
    assert steps.filter_scores(features, same).tolist() == [[-np.inf]]
    assert steps.edge_scores(features, same).tolist() == [-np.inf]


def test_what_can_not_be_used_is_named(steps, features):  # noqa: F811
    edges, scores = np.array([[0, 1, 2], [3, 4, 5]]), np.ones((3, 1), np.float32)
    table = features[:6]
    bad = table.copy()
    bad[2, 0] = np.nan
    for step in (steps.embed, lambda t: steps.filter_scores(t, edges), lambda t: steps.edge_scores(t, edges)):
        with pytest.raises(InputDataError, match=r"FEATURES row 2 \(counted from 0\)"):
            step(bad)
    outside = edges.copy()
    outside[1, 2] = 6
    for step in (steps.filter_scores, steps.edge_scores):
        with pytest.raises(
            InputDataError, match=r"edge 2 \(counted from 0\) joins rows \[2, 6\]; expected rows below 6"
        ):
            step(table, outside)
        with pytest.raises(InputDataError, match=r"expected whole numbers \(2, n\)"):
            step(table, edges.astype(float))
    with pytest.raises(InputDataError, match="there are 2 scores of 3 edges"):
        steps.kept_edges(scores[:2], edges)
    with pytest.raises(InputDataError, match=r"the score of edge 1 \(counted from 0\) is not a number"):
        steps.labels(edges, np.array([1, np.nan, 1], np.float32), table)
    with pytest.raises(InputDataError, match=r"the embedding has shape \(4, 3\); expected \(n, 8\)"):
        steps.neighbours(np.zeros((4, 3), np.float32))


def test_weights_without_an_embedding_are_refused(detector, tmp_path):  # noqa: F811
    weights = untrained_weights(detector.arrays())
    for name in embedding_shapes():
        del weights.arrays[name]
    path = tmp_path / "plain.npz"
    write_weights(path, weights)
    config = ChainConfig().with_settings({"finder.weights": str(path)})
    SpacepointLabeller(detector, config, CpuDevice(1))
    with pytest.raises(ConfigError, match=r'graph.constructor is "metric", but finder.weights .* has no embedding'):
        LabelSteps(detector, config, CpuDevice(1))


def test_bytes_of_steps_are_those_of_their_arrays(steps, features):  # noqa: F811
    table, (places, edges, scores, kept, judged, labels) = features, run(steps, features)
    n = {name: array.nbytes for name, array in locals().items() if hasattr(array, "nbytes")}
    assert bytes_by_step(steps, table) == {
        "embed": n["table"] + n["places"],
        "frnn": n["places"] + n["edges"],
        "filter": n["table"] + n["edges"] + n["scores"],
        "applyfilter": n["scores"] + n["edges"] + n["kept"],
        "gnn": n["table"] + n["kept"] + n["judged"],
        "wcc": n["kept"] + n["judged"] + n["table"] + n["labels"],
    }


def test_positions_become_features():
    table = features_of(np.array([[0.0, 30.0, -5.0], [-3.0, 4.0, 100.0]]))
    assert table.dtype == np.float32
    assert np.allclose(table, [[0.03, 0.5, -0.005], [0.005, np.arctan2(4, -3) / np.pi, 0.1]])
