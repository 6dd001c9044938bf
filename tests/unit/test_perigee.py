"""Parameters at the beam line against closed formulas, numerical derivatives and simulated energy loss."""

from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from tests.batches import stack_ranges
from tests.reference.geometry import random_helices, sensor_hits
from tests.reference.kalman import packed, unpacked
from tests.reference.perigee import perigee_jacobian, perigee_parameters
from traccc_py.geometry import build_detector
from traccc_py.kernels.fitting.perigee import track_at_beam_line
from traccc_py.kernels.tracking.detector import detector_payload
from traccc_py.kernels.tracking.propagation import on_surface
from traccc_py.kernels.tracking.state import load_covariance, load_parameters, store_covariance, store_parameters
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.units import muon_mass, um

POSITION_TOLERANCE = 3 * um
ANGLE_TOLERANCE = 1e-5  # [rad]
COVARIANCE_TOLERANCE = 0.01  # relative to the standard deviations
N_TRACKS = 400
SLAB = ("thickness_in_x0", "bethe_xi")


class Payload(NamedTuple):
    detector: Any
    mass: Any


@numba.njit
def at_beam_line(p, surface, params, covariance, out_params, out_covariance, out_alive):
    for t in range(len(surface)):
        x, c = load_parameters(params, t, 0), load_covariance(covariance, t, 0)
        x, c, out_alive[t] = track_at_beam_line(p, on_surface(p.detector.surfaces, surface[t], x, c), surface[t])
        store_parameters(out_params, t, 0, x)
        store_covariance(out_covariance, t, 0, c)


@cache
def odd():
    return build_detector("odd")


def to_beam_line(surface, params, covariance=None, has_material=True):
    """Perigee parameters, full covariances and survival of tracks (n, 5) on surfaces of the ODD, in float32."""
    arrays = odd().arrays()
    surfaces, layers = arrays.surfaces.copy(), arrays.layers.copy()
    if not has_material:
        for name in SLAB:
            surfaces[name] = layers[name] = 0
    detector = detector_payload(
        arrays._replace(surfaces=surfaces, layers=layers), stack_ranges(arrays.stacks), np.float32
    )
    p = Payload(detector, np.float32(muon_mass))
    n = len(surface)
    covariance = np.tile(np.diag([1e-4, 1e-4, 1e-6, 1e-6, 1e-4]), (n, 1, 1)) if covariance is None else covariance
    out = np.empty((n, 5), np.float32), np.empty((n, 15), np.float32), np.empty(n, np.bool_)
    columns = params.astype(np.float32), packed(covariance).astype(np.float32)
    at_beam_line(p, surface.astype(np.int32), *columns, *out)
    return out[0].astype(float), unpacked(out[1]), out[2]


@cache
def tracks():
    """Exact helices with |d0| up to 20 mm: perigee parameters, first sensor, bound parameters there."""
    b_field = odd().b_field_z
    helices = random_helices(np.random.default_rng(1), N_TRACKS, (0.5, 100.0), 2.5, b_field=b_field)
    d0 = np.random.default_rng(2).uniform(-20, 20, N_TRACKS)
    origin = np.stack([-d0 * np.sin(helices.phi), d0 * np.cos(helices.phi), helices.origin[:, 2]], axis=1)
    helices = helices._replace(origin=origin)
    track, sensor, s = sensor_hits(helices, odd().surfaces)
    order = np.lexsort([s, track])
    track, first = np.unique(track[order], return_index=True)
    sensor, s = sensor[order][first], s[order][first]
    theta = np.arctan2(1.0, helices.cot_theta[track])
    qop = -helices.curvature[track] * np.sin(theta) / odd().arrays().b_z
    perigee = np.column_stack([d0[track], helices.origin[track, 2], helices.phi[track], theta, qop])
    surfaces = odd().surfaces
    offset = helices.at(track, s) - surfaces.centre[sensor]
    local = [np.sum(offset * axis[sensor], axis=1) for axis in (surfaces.u, surfaces.v)]
    phi = np.mod(helices.phi[track] + helices.curvature[track] * s + np.pi, 2 * np.pi) - np.pi
    return perigee, sensor, np.column_stack([*local, phi, theta, qop])


def difference(a, b):
    out = a - b
    out[:, 2] = np.mod(out[:, 2] + np.pi, 2 * np.pi) - np.pi
    return out


def test_perigee_of_exact_helices():
    expected, sensor, params = tracks()
    assert len(sensor) > 0.95 * N_TRACKS
    assert set(np.sign(params[:, 4])) == {-1, 1}
    found, _, alive = to_beam_line(sensor, params, has_material=False)
    assert alive.all()
    miss = np.abs(difference(found, expected))
    assert miss[:, 0].max() < POSITION_TOLERANCE
    # z0 is as uncertain as float32 leaves the polar angle: one rounding of theta moves it by r / sin^2(theta).
    rounding = np.spacing(np.float32(expected[:, 3])) * 150 / np.sin(expected[:, 3]) ** 2
    assert (miss[:, 1] < POSITION_TOLERANCE + rounding).all()
    assert miss[:, 2:4].max() < ANGLE_TOLERANCE
    assert found[:, 4] == pytest.approx(params[:, 4], rel=1e-6)


def test_reference_returns_the_perigee_of_its_helices():
    expected, sensor, params = tracks()
    surfaces = odd().surfaces
    for k in range(50):
        start = (surfaces.centre[sensor[k]], surfaces.u[sensor[k]], surfaces.v[sensor[k]])
        found = perigee_parameters(params[k], start, float(odd().arrays().b_z))
        assert difference(found[None], expected[k : k + 1]) == pytest.approx(0, abs=1e-9)


def random_covariances(params, rng):
    """Covariances of the size a fit gives, with random correlations."""
    scale = np.column_stack([np.tile([0.02, 0.05, 1e-3, 1e-3], (len(params), 1)), 0.02 * np.abs(params[:, 4])])
    root = rng.normal(size=(len(params), 5, 8))
    return root @ root.transpose(0, 2, 1) / 8 * scale[:, :, None] * scale[:, None, :]


def test_perigee_covariance_equals_numerical_propagation():
    _, sensor, params = tracks()
    surfaces = odd().surfaces
    covariance = random_covariances(params, np.random.default_rng(3))
    _, found, _ = to_beam_line(sensor, params, covariance, has_material=False)
    for k in range(len(sensor)):
        start = (surfaces.centre[sensor[k]], surfaces.u[sensor[k]], surfaces.v[sensor[k]])
        jacobian = perigee_jacobian(params[k], start, float(odd().arrays().b_z))
        expected = jacobian @ covariance[k] @ jacobian.T
        sigma = np.sqrt(np.diag(expected))
        assert np.abs((found[k] - expected) / np.outer(sigma, sigma)).max() < COVARIANCE_TOLERANCE


def test_covariance_of_d0_and_z0_stays_positive_for_correlated_parameters():
    """A position that is known well and angles that are not: rows of the Jacobian nearly cancel."""
    _, sensor, params = tracks()
    covariance = np.tile(np.diag([1e-4, 1e-4, 1e-4, 1e-4, 1e-4]), (len(sensor), 1, 1))
    _, found, _ = to_beam_line(sensor, params, covariance, has_material=False)
    assert (np.diagonal(found, axis1=1, axis2=2) > 0).all()


@cache
def simulated(pt):
    """Muons from the beam line that lose energy but do not scatter: hits and true perigee momenta."""
    gun = ParticleGunConfig(n_particles=450, momentum=(pt, pt), eta=(-2, 2), vertex_sigma=(0, 0, 30))
    particles = generate_particles(gun, 4)
    hits = transport(odd(), particles, event_key(4, 0), TransportConfig(scattering=False, straggling=False))
    return particles, hits


def outgoing(particles, hits, rows):
    """Surfaces and bound parameters of hits, after the surfaces' material."""
    momentum = hits.outgoing_momentum[rows]
    p = np.linalg.norm(momentum, axis=1)
    angles = np.arctan2(momentum[:, 1], momentum[:, 0]), np.arccos(momentum[:, 2] / p)
    charge = particles.charge[hits.particle_index[rows]]
    return hits.module_index[rows], np.column_stack([hits.local_position[rows], *angles, charge / p])


@pytest.mark.parametrize("pt", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("i_hit", [0, 4])
def test_energy_lost_on_the_way_is_regained(pt, i_hit):
    """From the first sensor the way leads through the beam pipe; from the fifth also through sensors and supports."""
    particles, hits = simulated(pt)
    layer = odd().layer_of_surface[hits.module_index]
    first = np.searchsorted(hits.particle_index, np.arange(len(particles)))
    # One sensor of each layer: where two overlap only the one met first is passed again.
    has_overlap = np.array([len(set(layer[k : k + i_hit + 1])) <= i_hit for k in first])
    particle = np.flatnonzero(~has_overlap)
    surface, params = outgoing(particles, hits, first[particle] + i_hit)
    found, _, alive = to_beam_line(surface, params)
    assert alive.all()
    assert len(particle) > 100
    p_true = np.linalg.norm(particles.momentum[particle], axis=1)
    lost = p_true - 1 / np.abs(params[:, 4])
    left = p_true - 1 / np.abs(found[:, 4])
    assert (lost > 1e-4).all()
    assert (np.abs(left) < 0.02 * lost + 1e-6 * p_true).mean() > 0.97
    assert np.abs(np.median(left / lost)) < 0.005
    direction = np.arctan2(particles.momentum[particle, 1], particles.momentum[particle, 0])
    turned = np.mod(found[:, 2] - direction + np.pi, 2 * np.pi) - np.pi
    assert np.median(np.abs(turned)) < ANGLE_TOLERANCE
    assert np.median(np.abs(found[:, 0])) < POSITION_TOLERANCE
    assert np.median(np.abs(found[:, 1] - particles.vertex[particle, 2])) < 2 * POSITION_TOLERANCE


def test_material_widens_the_covariance():
    particles, hits = simulated(1.0)
    first = np.searchsorted(hits.particle_index, np.arange(len(particles)))
    surface, params = outgoing(particles, hits, first)
    _, with_material, _ = to_beam_line(surface, params)
    _, without, _ = to_beam_line(surface, params, has_material=False)
    more = np.diagonal(with_material - without, axis1=1, axis2=2)
    assert (more > 0).all()
    # Scattering in the first sensor alone: Highland's 0.5 mrad at 1 GeV for about 1.3 % of a radiation length.
    assert np.sqrt(np.median(more[:, 3])) == pytest.approx(6e-4, rel=0.5)
