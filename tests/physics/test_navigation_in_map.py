"""Navigation and transport in the field of a solenoid against the simulation, which looks at every sensor."""

import numba
import numpy as np
import pytest

from tests.batches import stack_ranges
from tests.physics.surface_visits import AHEAD, BAND, EDGE, MOST_LAYERS, MOST_VISITS, Detector, reachable
from traccc_py.geometry import build_detector
from traccc_py.geometry.field import solenoid_field_map
from traccc_py.kernels.tracking.helix import curvilinear_axes, direction_of
from traccc_py.kernels.tracking.magnetic_field import curvature_ahead, position_ahead
from traccc_py.kernels.tracking.navigation import (
    NONE,
    first_gaps,
    inside_margin,
    intersect_surface,
    is_on_new_leg,
    next_layer,
)
from traccc_py.kernels.tracking.propagation import (
    track_curvature,
    track_direction,
    transport_to_curvilinear,
    transport_to_surface,
)
from traccc_py.kernels.tracking.state import BoundParameters, Covariance, Track, Vector
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.transport.transport import TransportConfig, transport

WORLD_RADIUS = 1187.0  # [mm]


@numba.njit
def visit_all(p, stacks, track, out_surface, out_local):
    """Follow a track from surface to surface as track finding does; returns the number of surfaces crossed."""
    at_hand = np.empty(MOST_VISITS, np.int32)
    gaps = first_gaps(p.layers, stacks, np.int32(-1), track.position, track_direction(track))
    n = 0
    for _ in range(MOST_LAYERS):
        direction = track_direction(track)
        curvature = track_curvature(p.field, track, direction)
        layer, path, crossing, gaps = next_layer(p.layers, stacks, gaps, track.position, direction, curvature)
        if layer == NONE:
            break
        if p.layers[layer].is_sensitive == 0:
            track, _ = transport_to_curvilinear(track, direction, curvature, path, p.field)
            continue
        least = np.float32(AHEAD)
        if is_on_new_leg(track.position, direction, curvature, path, crossing):
            track, direction = transport_to_curvilinear(track, direction, curvature, path, p.field)
            curvature = track_curvature(p.field, track, direction)
            least = np.float32(AHEAD) - path
            path = np.float32(0)
        curvature = curvature_ahead(p.field, track.position, direction, curvature, path, track.params.qop)
        crossing = position_ahead(p.field, track.position, direction, curvature, path, crossing)
        for k in range(reachable(p, layer, crossing, track.position, direction, curvature, least, at_hand)):
            direction = track_direction(track)
            curvature = track_curvature(p.field, track, direction)
            i = at_hand[k]
            path, _, _ = intersect_surface(p.surfaces, i, track.position, direction, curvature, np.float32(0))
            there, _ = transport_to_surface(track, direction, curvature, path, p.field, p.surfaces, i)
            margin0, margin1 = inside_margin(p.surfaces, i, there.params.loc0, there.params.loc1)
            if n < MOST_VISITS and min(margin0, margin1) > -np.float32(BAND):
                track = there
                out_surface[n], out_local[n, 0], out_local[n, 1] = i, there.params.loc0, there.params.loc1
                n += 1
    return n


@numba.njit
def visit_tracks(p, stacks, origin, angles, covariance, out_surface, out_local, out_n):
    zero = np.float32(0)
    for t in range(len(origin)):
        phi, theta, qop = angles[t]
        u, v = curvilinear_axes(direction_of(phi, theta))
        position = Vector(origin[t, 0], origin[t, 1], origin[t, 2])
        track = Track(position, BoundParameters(zero, zero, phi, theta, qop), covariance, u, v)
        out_n[t] = visit_all(p, stacks, track, out_surface[t], out_local[t])


def navigate(detector, particles):
    """Visits (track, surface, local position) of all particles, in order along each."""
    arrays = detector.arrays()
    p = Detector.of(arrays)
    n = len(particles)
    momentum = np.linalg.norm(particles.momentum, axis=1)
    x, y, z = particles.momentum.T
    angles = np.column_stack([np.arctan2(y, x), np.arctan2(np.hypot(x, y), z), particles.charge / momentum])
    surface, local = np.zeros((n, MOST_VISITS), np.int32), np.zeros((n, MOST_VISITS, 2), np.float32)
    count = np.zeros(n, np.int64)
    covariance = Covariance(*np.float32([1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1]))
    columns = [particles.vertex.astype(np.float32), angles.astype(np.float32)]
    visit_tracks(p, stack_ranges(arrays.stacks), *columns, covariance, surface, local, count)
    filled = np.arange(MOST_VISITS) < count[:, None]
    return np.repeat(np.arange(n), count), surface[filled], local[filled].astype(float)


def margins(detector, surface, local):
    """How far inside its sensor's edges each point is [mm]."""
    s = detector.surfaces
    share = (local[:, 1] + s.hy[surface]) / (2 * s.hy[surface])
    half_width = s.hx_min[surface] + (s.hx_max - s.hx_min)[surface] * share
    return np.minimum(half_width - np.abs(local[:, 0]), s.hy[surface] - np.abs(local[:, 1]))


def compare(detector, particles):
    """Compare with the simulation: hits, those missed, visits that are no hits, largest difference of positions."""
    truth = transport(
        detector, particles, np.uint64(1), TransportConfig(scattering=False, energy_loss=False, max_turns=1)
    )
    n = len(detector.surfaces)
    key = truth.particle_index * n + truth.module_index
    track, surface, local = navigate(detector, particles)
    seen = track * n + surface
    _, a, b = np.intersect1d(key, seen, return_indices=True)
    radius = np.hypot(*truth.hits.position[:, :2].T)
    within = (radius < WORLD_RADIUS) & (margins(detector, truth.module_index, truth.local_position) > EDGE)
    wrong = ~np.isin(seen, key) & (margins(detector, surface, local) > EDGE)
    return {
        "hits": int(within.sum()),
        "missed": int((within & ~np.isin(key, seen)).sum()),
        "not hit": int(wrong.sum()),
        "largest difference": float(np.abs(truth.local_position[a] - local[b]).max()),
    }


def as_float32(particles):
    """The same particles with starts and momenta that float32 holds exactly."""
    for name in ("vertex", "momentum"):
        setattr(particles, name, getattr(particles, name).astype(np.float32).astype(float))
    return particles


# Number, pT range [GeV], shares of hits that may be missed and of visits that may be no hits.
SAMPLES = {
    "prompt": (3000, (0.5, 10.0), 2e-4, 2e-4),
    "stiff": (1000, (10.0, 1000.0), 0.0, 0.0),
    "soft": (500, (0.2, 0.5), 2e-2, 0.0),
}


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd").with_field_map(solenoid_field_map())


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_navigation_visits_what_particles_hit(odd, sample):
    n, pt, may_miss, may_err = SAMPLES[sample]
    gun = ParticleGunConfig(n_particles=n, momentum=pt, eta=(-3.2, 3.2), vertex_sigma=(0.0125, 0.0125, 55.0))
    found = compare(odd, as_float32(generate_particles(gun, 7)))
    print(sample, found)
    assert found["hits"] > 10 * n
    assert found["missed"] <= may_miss * found["hits"]
    if sample != "soft":  # the simulation ends after one turn
        assert found["not hit"] <= may_err * found["hits"]
