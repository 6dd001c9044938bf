"""Tracks through sensors that lie in one plane and overlap, or stand at one place: they take the hits of all."""

import copy

import numpy as np
import pytest

from tests.unit.detray_documents import barrel, geometry, homogeneous, load, slab
from traccc_py import TrackingChain, build_detector
from traccc_py.simulation.events import simulate_event, simulate_events, truth_measurements
from traccc_py.simulation.generators.gun import ParticleGunConfig

N = 100
LAYERS = ((35.0, 12), (70.0, 16), (110.0, 24), (150.0, 32), (200.0, 40), (260.0, 52))
GUN = ParticleGunConfig(n_particles=N, momentum=(0.7, 5.0), eta=(-1.0, 1.0), vertex_sigma=(0.01, 0.01, 30.0))


def halves(radius, n):
    """Sensors in one plane that overlap by 80 mm along z."""
    made = []
    for z in (-180.0, 180.0):
        for s in barrel(radius, n, half_z=220.0):
            moved = copy.deepcopy(s)
            moved["transform"]["translation"][2] = z
            made.append(moved)
    return made


@pytest.mark.parametrize("kind", ["twice", "halves"])
def test_tracks_take_the_hits_of_all_sensors_of_a_plane(tmp_path, kind):
    sensors = [s for r, n in LAYERS for s in (halves(r, n) if kind == "halves" else 2 * barrel(r, n, half_z=400.0))]
    slabs = homogeneous({0: [slab(k, 0.3) for k in range(len(sensors))]})
    detector = load(tmp_path, geometry(sensors), slabs)
    event = simulate_event(detector, GUN, 3)
    tracks = TrackingChain(detector, device="cpu", threads=2).run(event.cells).tracks
    n_hits = np.bincount(event.simulated.particle_index, minlength=N)
    assert (n_hits % 2 == 0).all() if kind == "twice" else 6 * N < n_hits.sum() < 12 * N
    assert len(tracks) == N
    assert (tracks.fit_outcome == 1).all()
    assert not tracks.n_holes.any()
    assert tracks.n_measurements.max() <= n_hits.max()
    assert tracks.n_measurements.sum() > (0.99 if kind == "twice" else 0.95) * n_hits.sum()


def test_tracks_start_on_the_first_of_two_sensors_that_overlap():
    """A seed may hold the measurement of the outer one; without going back 19 in 100 tracks would start there."""
    detector = build_detector("odd")
    gun = ParticleGunConfig(momentum=(1.0, 1.0), eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0))
    events = list(simulate_events(detector, gun, 4, 500))
    results = TrackingChain(detector, device="cpu", threads=2).run_batch([event.cells for event in events])
    hits = [event.simulated.hits for event in events]
    first = [h.geometry_id[np.argmin(h.time)] for h, r in zip(hits, results, strict=True) if len(r.tracks) == 1]
    found = [r.tracks.geometry_id[0] for r in results if len(r.tracks) == 1]
    assert len(found) > 480
    assert np.mean(np.array(found) == np.array(first)) > 0.97


def test_seeds_do_not_start_on_strips(tmp_path):
    """In modules of strips within pixels the measurement behind has no second coordinate to start with."""
    sensors = [s for r, n in LAYERS for radius in (r, r + 3) for s in barrel(radius, n, half_z=400.0)]
    slabs = homogeneous({0: [slab(k, 0.3) for k in range(len(sensors))]})
    detector = load(tmp_path, geometry(sensors), slabs)
    measurements = truth_measurements(detector, simulate_event(detector, GUN, 3))
    place = detector.arrays().surfaces[measurements.module_index]
    radius = np.hypot(place["cx"], place["cy"])
    is_inner = np.isclose(radius[:, None], [r for r, _ in LAYERS], atol=1.0).any(axis=1)
    assert 0.4 < is_inner.mean() < 0.6
    measurements.dimensions[is_inner] = 1
    measurements.local_position[is_inner, 1] = 0.0
    tracks = TrackingChain(detector, device="cpu", threads=2).run(measurements).tracks
    assert len(tracks) > 0.95 * N
