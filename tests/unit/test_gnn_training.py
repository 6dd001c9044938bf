"""The training of the graph neural network: labels, windows, learning, going on from a checkpoint."""

import numpy as np
import pytest

from tests.reference.interaction_network import filter_logits
from traccc_py import build_detector
from traccc_py.edm import Spacepoints
from traccc_py.gnn.weights import finder_arrays, untrained_weights
from traccc_py.kernels.gnn.graph_map import N_VALUES, layer_places, make_graph_map
from traccc_py.simulation.events import simulate_event, truth_measurements
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.training.graphs import GraphMaker, doublet_values
from traccc_py.training.samples import LabelledEvent
from traccc_py.training.training_graphs import (
    augmented,
    cropped,
    filtered,
    label_graph,
    point_edges,
    prompt,
    thinned,
)
from traccc_py.training.windows import WindowExample, learn_windows


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


def labelled(detector, number):
    """Return an event of 150 particles whose measurements are the hits themselves, without clusters."""
    gun = ParticleGunConfig(n_particles=150, momentum=(0.7, 10.0), vertex_sigma=(0.01, 0.01, 55.0))
    event = simulate_event(detector, gun, seed=7, event=number)
    measurements = truth_measurements(detector, event)
    module = detector.module_index(measurements.geometry_id).astype(np.int32)
    order = np.argsort(module, kind="stable")
    measurements, module = measurements[order], module[order]
    measurements.module_index = module
    measurements.cluster_size = np.zeros((len(module), 2), np.int32)
    rows = np.flatnonzero(measurements.dimensions == 2)
    position = detector.surfaces.global_positions(module[rows], measurements.local_position[rows].astype(float))
    hit = event.digitization.measurement_hit[order[rows]]
    momentum = np.asarray(event.particles.momentum, float)
    pt = np.hypot(momentum[:, 0], momentum[:, 1])
    return LabelledEvent(
        measurements=measurements,
        spacepoints=Spacepoints(position.astype(np.float32), rows.astype(np.int32)),
        link_spacepoint=np.arange(len(rows)),
        link_particle=event.simulated.particle_index[hit],
        link_time=np.asarray(event.simulated.hits.time, float)[hit],
        pt=pt,
        eta=np.arcsinh(momentum[:, 2] / pt),
        radius=np.hypot(*np.asarray(event.particles.vertex, float)[:, :2].T),
    )


@pytest.fixture(scope="module")
def events(detector):
    return [labelled(detector, k) for k in range(3)]


@pytest.fixture(scope="module")
def learned(detector, events):
    arrays = detector.arrays()
    none = np.zeros((0, 2), np.int32), np.zeros((0, N_VALUES, 2), np.float32)
    maker = GraphMaker(detector, make_graph_map(arrays, layer_places(arrays)[1], *none))
    parts = []
    for event in events:
        points = maker.points(event.measurements, event.spacepoints)
        edges = point_edges(event, points)
        parts.append(WindowExample(points, edges, prompt(event, edges, 0.9)))
    return parts, learn_windows(parts)


@pytest.fixture(scope="module")
def graphs(detector, events, learned):
    arrays, (_, pairs) = detector.arrays(), learned
    graph_map = make_graph_map(arrays, layer_places(arrays)[1], pairs.pairs, pairs.windows)
    maker = GraphMaker(detector, graph_map)
    made = []
    for event in events:
        graph = maker.graph(event.measurements, event.spacepoints)
        made.append(label_graph(event, graph, point_edges(event, graph.points)))
    return made


def test_true_edges_join_points_of_one_particle_on_two_layers(events, learned):
    for event, (points, edges, *_) in zip(events, learned[0], strict=True):
        owner = np.empty(len(event.spacepoints), np.int64)
        owner[event.link_spacepoint] = event.link_particle
        for end in (edges.inner, edges.outer):
            assert np.array_equal(owner[points.spacepoint[end]], edges.particle)
        assert (points.layer[edges.inner] != points.layer[edges.outer]).all()
        assert len(edges.inner) > 3 * len(event.pt)


def test_windows_hold_what_they_were_learned_from(learned):
    parts, found = learned
    assert len(found.pairs) > 30
    assert (np.diff(found.n_edges) <= 0).all()
    for points, edges, is_used, _ in parts:
        values = doublet_values(points, edges.inner[is_used], edges.outer[is_used])[:, :6]
        layers = np.stack([points.layer[edges.inner[is_used]], points.layer[edges.outer[is_used]]], axis=1)
        for pair, window in zip(found.pairs, found.windows, strict=True):
            of_pair = values[(layers == pair).all(axis=1)]
            inside = (of_pair >= window[:6, 0]) & (of_pair <= window[:6, 1])
            assert inside.mean() > 0.99 if len(of_pair) else True


def test_windows_of_z0_are_learned_from_the_usual_collisions(learned):
    # Moved sideways in z, so that lines meet the beam line 400 mm farther out.
    usual, expected = learned
    far = [
        part._replace(points=part.points._replace(z=part.points.z + np.float32(400)), is_wide=True) for part in usual
    ]
    enough = {tuple(pair) for pair, n in zip(expected.pairs.tolist(), expected.n_edges, strict=True) if n >= 300}
    assert enough

    def of_z0(found):
        windows = zip(found.pairs.tolist(), found.windows[:, 3].tolist(), strict=True)
        return {tuple(pair): window for pair, window in windows if tuple(pair) in enough}

    assert of_z0(learn_windows([*usual, *far])) == of_z0(expected)
    widened = of_z0(learn_windows([*usual, *(part._replace(is_wide=False) for part in far)]))
    assert all(window[1] > of_z0(expected)[pair][1] + 100 for pair, window in widened.items())
    assert (np.abs(learn_windows(far).windows[:, 3]) == 250).all()


def test_graphs_have_the_true_edges(graphs):
    for graph in graphs:
        assert graph.is_wanted.sum() > 0.97 * graph.n_wanted > 200
        assert (graph.is_true | ~graph.is_wanted).all()
        assert 0.05 < graph.is_true.mean() < 0.95


def test_parts_of_a_graph_keep_ends_and_labels_together(graphs):
    graph, random = graphs[0], np.random.default_rng(1)
    kept = random.random(len(graph.is_true)) < 0.5
    part = filtered(graph, kept)
    assert np.array_equal(part.nodes[part.ends], graph.nodes[graph.ends[:, kept]])
    assert np.array_equal(part.is_true, graph.is_true[kept])
    sector = cropped(graph, len(graph.is_true) // 4, random)
    assert 0 < sector.ends.shape[1] < len(graph.is_true) // 2
    away = sector.phi[sector.ends[0]] - sector.phi[sector.ends[1]]
    assert np.abs((away + np.pi) % (2 * np.pi) - np.pi).max() < 1
    assert cropped(graph, len(graph.is_true), random) is graph
    few = thinned(graph, 100, random)
    rows = [np.flatnonzero((graph.features == values).all(axis=1))[0] for values in few.features]
    assert len(set(rows)) == 100
    assert np.array_equal(few.nodes[few.ends], graph.nodes[graph.ends[:, rows]])
    assert np.array_equal(few.is_true, graph.is_true[rows])
    assert thinned(graph, len(graph.is_true), random) is graph


def test_augmented_features_are_those_of_turned_and_mirrored_events(graphs):
    graph = graphs[0]
    nodes, features = augmented(graph.nodes, graph.features, np.random.default_rng(3))
    assert np.allclose(np.hypot(nodes[:, 1], nodes[:, 2]), 1, atol=1e-5)
    assert np.array_equal(nodes[:, 0], graph.nodes[:, 0])
    assert np.allclose(np.abs(features), np.abs(graph.features))
    assert not np.allclose(nodes[:, 1], graph.nodes[:, 1])


def test_training_learns_and_goes_on_from_its_checkpoint(tmp_path, graphs):
    torch = pytest.importorskip("torch")
    from traccc_py.training.train import Trainer, TrainingOptions

    torch.set_num_threads(1)
    lines = []
    checkpoint = tmp_path / "state"
    options = TrainingOptions(minutes=0.12, filter_batch=2000, most_edges=4000)
    weights = Trainer(graphs[:2], graphs[2:], options, checkpoint, lines.append).run()
    again = Trainer(graphs[:2], graphs[2:], options, checkpoint, lines.append)
    done = again.progress
    assert done.filter_steps > 3
    assert done.network_steps > 3
    assert done.filter_facts["filter_efficiency"] > 0.9
    last = done.curve[-1]
    assert last.efficiency[0] > 0.5
    assert last.purity[0] > 1.2 * graphs[2].is_true.mean()
    assert {k: v.tobytes() for k, v in again.run().items()} == {k: v.tobytes() for k, v in weights.items()}
    assert any(line.startswith("goes on from") for line in lines)


def test_training_that_starts_with_weights_keeps_their_filter(tmp_path, graphs):
    torch = pytest.importorskip("torch")
    from traccc_py.training.networks import EdgeFilter, InteractionNetwork, arrays_of
    from traccc_py.training.train import Trainer, TrainingOptions

    torch.set_num_threads(1)
    start = arrays_of(EdgeFilter(), InteractionNetwork(), 0.0)
    options = TrainingOptions(minutes=0.03, most_edges=4000)
    trainer = Trainer(graphs[:2], graphs[2:], options, tmp_path / "state", lambda line: None, start)
    weights = trainer.run()
    same = {name for name in start if np.array_equal(start[name], weights[name])}
    assert {name for name in start if name.startswith("filter.")} <= same
    assert "network.message" not in same
    assert trainer.progress.filter_steps == 0 < trainer.progress.network_steps


def test_graphs_that_a_filter_has_been_through_have_the_edges_it_keeps(detector, events):
    weights = untrained_weights(detector.arrays())
    arrays = finder_arrays(weights, detector.arrays())
    maker = GraphMaker(detector, arrays.graph_map)
    found = events[0].measurements, events[0].spacepoints
    whole, kept = maker.graph(*found), maker.graph(*found, edge_filter=arrays.edge_filter)
    expected = filter_logits(weights.arrays, whole.points.features, whole.inner, whole.outer, whole.features) > 0
    assert 0 < len(kept.inner) < len(whole.inner)
    for name in ("inner", "outer", "features"):
        assert np.array_equal(getattr(kept, name), getattr(whole, name)[expected])


@pytest.fixture(scope="module")
def examples(events, learned):
    pytest.importorskip("torch")
    from traccc_py.training.embedding import embedding_example

    return [embedding_example(e, points, edges) for e, (points, edges, *_) in zip(events, learned[0], strict=True)]


def test_the_embedding_learns_and_goes_on_from_its_checkpoint(tmp_path, examples):
    import torch

    from traccc_py.training.embedding import EmbeddingOptions, EmbeddingTrainer

    torch.set_num_threads(1)
    lines = []

    def trained(seconds, name):
        options = EmbeddingOptions(seconds, points=2000, anchors=500)
        trainer = EmbeddingTrainer(examples[:2], examples[2:], options, tmp_path / name, lines.append)
        return trainer, trainer.run()

    first, _ = trained(0.01, "short")
    trainer, arrays = trained(5.0, "state")
    assert trainer.steps > 20
    assert trainer.curve[-1]["edges"] < 0.5 * first.curve[-1]["edges"]
    again, same = trained(5.0, "state")
    assert again.steps == trainer.steps
    assert {k: v.tobytes() for k, v in same.items()} == {k: v.tobytes() for k, v in arrays.items()}
    assert any(line.startswith("goes on from") for line in lines)


def test_graphs_of_a_learned_embedding_have_the_true_edges(tmp_path, detector, examples, events, learned):
    from traccc_py.gnn.weights import embedding_shapes
    from traccc_py.training.metric import train_embedding
    from traccc_py.training.train import TrainingOptions

    arrays = detector.arrays()
    graph_map = make_graph_map(arrays, layer_places(arrays)[1], learned[1].pairs, learned[1].windows)
    options = TrainingOptions(minutes=0.15, filter_batch=2000)
    lines = []
    found, facts = train_embedding(
        detector, graph_map, events[:2], events[2:], options, tmp_path / "checkpoint", lines.append
    )
    assert {name: values.shape for name, values in found.items()} == embedding_shapes()
    assert all(values.dtype == np.float32 for values in found.values())
    assert facts["graph_efficiency"] > 0.9
    assert facts["filter_steps"] > 3
    assert facts["curve"][-1]["edges"] > 0


def test_an_embedding_alone_needs_weights_to_add_it_to(tmp_path, detector):
    pytest.importorskip("torch")
    from traccc_py import ConfigError
    from traccc_py.training.session import train_weights
    from traccc_py.training.train import TrainingOptions

    with pytest.raises(ConfigError, match="--learn embedding needs weights with a network: name them with --start"):
        train_weights(
            detector, tmp_path, 1, TrainingOptions(minutes=1, learn="embedding"), tmp_path / "checkpoint", print
        )
