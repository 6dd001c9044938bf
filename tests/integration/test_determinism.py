"""Same bits whatever the order of rows, the number of threads, and the batch an event rides in."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.edm import Cells
from traccc_py.geometry import build_detector
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

N_EVENTS = 8


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def events(detector):
    sizes = [30, 0, 200, 1, 60, 5, 100, 10]
    guns = [ParticleGunConfig(n_particles=n, momentum=(0.5, 20.0), vertex_sigma=(0.01, 0.01, 55.0)) for n in sizes]
    return [simulate_event(detector, gun, seed=11, event=k).cells for k, gun in enumerate(guns)]


@pytest.fixture(scope="module")
def chain(detector):
    return TrackingChain(detector, device="cpu", threads=2)


@pytest.fixture(scope="module")
def alone(chain, events):
    return [chain.run(cells) for cells in events]


def shuffled(cells, seed):
    order = np.random.default_rng(seed).permutation(len(cells.channel0))
    return Cells(**{f.name: getattr(cells, f.name)[order] for f in fields(Cells)}), order


def assert_same_bits(a, b, skip=()):
    for f in fields(a):
        if f.name in skip:
            continue
        x, y = getattr(a, f.name), getattr(b, f.name)
        if is_dataclass(x):
            assert_same_bits(x, y, skip)
        elif isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, f.name
            assert x.tobytes() == y.tobytes(), f.name
        elif f.name != "stage_milliseconds":
            assert x == y, f.name


def test_events_have_tracks(alone):
    assert [len(r.tracks) > 0 for r in alone] == [True, False, True, True, True, True, True, True]


def test_same_bits_for_shuffled_rows(chain, events, alone):
    for k, cells in enumerate(events):
        other, order = shuffled(cells, k)
        result = chain.run(other)
        assert_same_bits(alone[k], result, skip=("cell_indices",))
        rows = order[result.measurements.cell_indices]
        assert np.array_equal(rows, alone[k].measurements.cell_indices)


def test_same_bits_alone_or_in_a_batch_of_eight(chain, events, alone):
    assert len(events) == N_EVENTS
    for single, together in zip(alone, chain.run_batch(events), strict=True):
        assert_same_bits(single, together)
    for single, together in zip(alone[::-1], chain.run_batch(events[::-1]), strict=True):
        assert_same_bits(single, together)


def test_same_bits_with_one_and_two_threads(detector, events, alone):
    one = TrackingChain(detector, device="cpu", threads=1)
    for cells, two in zip(events, alone, strict=True):
        assert_same_bits(one.run(cells), two)


def test_same_bits_with_seeds_by_triplets(detector, events):
    config = ChainConfig().with_settings({"seeding.method": "grid"})
    one, two = (TrackingChain(detector, config, device="cpu", threads=n) for n in (1, 2))
    alone = [one.run(cells) for cells in events]
    assert [len(r.tracks) > 0 for r in alone] == [True, False, True, True, True, True, True, True]
    for k, together in enumerate(two.run_batch(events)):
        assert_same_bits(alone[k], together)
        assert_same_bits(alone[k], two.run(shuffled(events[k], k)[0]), skip=("cell_indices",))
