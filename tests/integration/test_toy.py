"""The toy detector through the chain, with the settings that come with it."""

import numpy as np

from traccc_py.chain import TrackingChain
from traccc_py.geometry import build_detector
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

N_MUONS = 200
MIN_HITS = 4


def test_muons_are_found():
    """All but a few with a hit in each of four layers, once each; 487 and 477 of 2 x 487 in a larger sample."""
    detector = build_detector("toy")
    event = simulate_event(detector, ParticleGunConfig(n_particles=N_MUONS, momentum=(1.0, 10.0)), seed=3, event=0)
    result = TrackingChain(detector, device="cpu", threads=2).run(event.cells)
    _, n_hits = np.unique(event.simulated.hits.particle_id, return_counts=True)
    n_expected = np.count_nonzero(n_hits >= MIN_HITS)
    assert n_expected > 0.9 * N_MUONS
    assert 0.98 * n_expected < len(result.tracks) <= len(n_hits)
