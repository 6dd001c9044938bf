"""The chain with candidates of the graph neural network: weights of the package, bits, bad input."""

import re

import numpy as np
import pytest

from tests.integration.test_determinism import assert_same_bits, shuffled
from traccc_py import ConfigError, GeometryError, TrackingChain, build_detector, match
from traccc_py.config import ChainConfig
from traccc_py.device.deferred import DeferredDevice
from traccc_py.edm import Measurements, Spacepoints
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

CONFIG = ChainConfig().with_settings({"finder.method": "gnn"})


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def events(detector):
    guns = [ParticleGunConfig(n_particles=n, momentum=(1.0, 20.0), vertex_sigma=(0.01, 0.01, 55.0)) for n in (60, 0, 8)]
    return [simulate_event(detector, gun, seed=21, event=k) for k, gun in enumerate(guns)]


@pytest.fixture(scope="module")
def chain(detector):
    return TrackingChain(detector, CONFIG, device="cpu", threads=2)


@pytest.fixture(scope="module")
def alone(chain, events):
    return [chain.run(event.cells) for event in events]


def test_particles_are_found(alone, events):
    found = match(alone[0], events[0])
    counts = found.counts(min_pt=1.0, max_eta=2.5)
    assert counts.n_found >= 0.9 * counts.n_particles > 40
    assert len(alone[1].tracks) == 0
    assert {"graph", "edge_filter", "edge_scores", "segmentation"} <= set(alone[0].stage_milliseconds)


def test_same_bits_in_any_order_batch_and_number_of_threads(detector, chain, alone, events):
    for result, expected in zip(chain.run_batch([e.cells for e in events]), alone, strict=True):
        assert_same_bits(result, expected)
    skip = ("cell_indices",)
    cells, _ = shuffled(events[0].cells, 3)
    assert_same_bits(chain.run(cells), alone[0], skip)
    assert_same_bits(TrackingChain(detector, CONFIG, device="cpu", threads=1).run(events[0].cells), alone[0])


def test_same_bits_where_sizes_stay_on_the_device(detector, alone, events):
    chain = TrackingChain(detector, CONFIG, DeferredDevice(2))
    assert_same_bits(chain.run(events[0].cells), alone[0])


def test_spacepoints_without_clusters_are_found_too(chain, alone):
    without = chain.run((alone[0].measurements, alone[0].spacepoints))
    assert len(without.tracks) >= 0.9 * len(alone[0].tracks)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_spacepoints_give_no_tracks(chain, alone, n):
    some = alone[0]
    points = Spacepoints(some.spacepoints.global_position[:n], some.spacepoints.measurement_index[:n])
    assert isinstance(some.measurements, Measurements)
    assert len(chain.run((some.measurements, points)).tracks) == 0


def test_spacepoints_of_one_layer_give_no_tracks(chain, alone, detector):
    some = alone[0]
    layer = detector.arrays().surfaces["layer"][some.measurements.module_index[some.spacepoints.measurement_index]]
    rows = np.flatnonzero(layer == np.bincount(layer).argmax())
    assert len(rows) > 20
    assert len(chain.run((some.measurements, some.spacepoints[rows])).tracks) == 0


def test_weights_of_another_detector_are_refused():
    with pytest.raises(GeometryError, match="the network was trained for a detector with"):
        TrackingChain("toy", CONFIG).initialize()


def test_missing_weights_are_refused(tmp_path):
    config = CONFIG.with_settings({"finder.weights": str(tmp_path / "none.npz")})
    with pytest.raises(ConfigError, match=r"finder\.weights .*none\.npz: can't be read"):
        TrackingChain("odd", config).initialize()


def test_graphs_by_metric_learning_find_particles_with_the_same_bits_anywhere(detector, events):
    config = CONFIG.with_settings({"graph.constructor": "metric"})
    chain = TrackingChain(detector, config, device="cpu", threads=2)
    alone = [chain.run(event.cells) for event in events]
    counts = match(alone[0], events[0]).counts(min_pt=1.0, max_eta=2.5)
    assert counts.n_found >= 0.9 * counts.n_particles > 40
    assert len(alone[1].tracks) == 0
    for result, expected in zip(chain.run_batch([e.cells for e in events]), alone, strict=True):
        assert_same_bits(result, expected)
    cells, _ = shuffled(events[0].cells, 3)
    assert_same_bits(chain.run(cells), alone[0], ("cell_indices",))
    deferred = TrackingChain(detector, config, DeferredDevice(2))
    assert_same_bits(deferred.run(events[0].cells), alone[0])


def test_a_limit_that_many_spacepoints_reach_is_told(detector, alone, caplog):
    config = CONFIG.with_settings({"graph.constructor": "metric", "graph.max_neighbours": 1})
    chain = TrackingChain(detector, config, device="cpu", threads=1)
    chain.run((alone[0].measurements, alone[0].spacepoints))
    assert re.search(r"\d+ of \d+ spacepoints have more than graph\.max_neighbours = 1 neighbours", caplog.text)
