"""The simulation in field maps: its field, its steps, and the hits of helices in a map that is the same everywhere."""

import numpy as np
import pytest

from tests.reference.field_tracks import TESLA, direction_of, integrate
from tests.unit.detray_documents import (
    ANNULUS,
    PASSIVE,
    SENSITIVE,
    axis,
    barrel,
    disc_sensor,
    geometry,
    grid,
    homogeneous,
    load,
    maps,
    slab,
    surface,
)
from tests.unit.test_runge_kutta import cartesian, homogeneous_map
from traccc_py.geometry import build_detector
from traccc_py.geometry.field import solenoid_field_map
from traccc_py.geometry.records import Shape
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.transport.field_loop import field_vector, runge_kutta_step, truth_field
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry


@pytest.fixture(scope="module", params=["rz", "xyz"])
def field(request):
    solenoid = solenoid_field_map(spacing=100)
    return solenoid if request.param == "rz" else cartesian(solenoid, 100.0)


def test_the_field_is_that_of_the_map(field):
    found = truth_field(field.record())
    rng = np.random.default_rng(3)
    points = rng.uniform([-1300, -1300, -3400], [1300, 1300, 3400], (300, 3))
    points[0] = 0
    values = np.array([field_vector(found, *point) for point in points]) / TESLA
    assert np.abs(values - field.at(points)).max() < 2e-6


def test_steps_agree_with_scipy(field):
    found = truth_field(field.record())
    rng = np.random.default_rng(4)
    for _ in range(20):
        position, qop = rng.uniform([-500, -500, -2500], [500, 500, 2500]), rng.choice([-1, 1]) / rng.uniform(0.3, 10)
        direction = direction_of(rng.uniform(-np.pi, np.pi), rng.uniform(0.1, 3))
        state = (*position, *direction)
        for _ in range(20):
            state = runge_kutta_step(found, qop, state, 10.0)
        end, there = integrate(field.at, position, direction, qop, 200.0)
        assert np.abs(np.array(state) - [*end, *there]).max() < 2e-4


@pytest.mark.parametrize("kind", ["rz", "xyz"])
def test_a_map_that_is_the_same_everywhere_gives_the_hits_of_helices(kind):
    odd = build_detector("odd")
    gun = ParticleGunConfig(n_particles=150, momentum=(0.3, 10.0), eta=(-3, 3), vertex_sigma=(0.0125, 0.0125, 55.0))
    particles = generate_particles(gun, 5)
    helices = transport(odd, particles, np.uint64(9))
    stepped = transport(odd.with_field_map(homogeneous_map(kind)), particles, np.uint64(9))
    assert len(helices) > 10 * len(particles)
    np.testing.assert_array_equal(stepped.module_index, helices.module_index)
    np.testing.assert_array_equal(stepped.particle_index, helices.particle_index)
    for name in ("position", "time", "momentum", "delta_momentum", "delta_energy"):
        np.testing.assert_allclose(getattr(stepped.hits, name), getattr(helices.hits, name), atol=2e-5, rtol=1e-6)
    np.testing.assert_allclose(stepped.local_position, helices.local_position, atol=2e-5)


def test_outlines_readout_and_material_maps_count_in_a_field_map_too(tmp_path):
    """Sensors with maps, annuli, and plates without readout: the hits of helices again."""
    axes = [[[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in 2 * np.pi * np.arange(12) / 12]
    annuli = [surface(SENSITIVE, ANNULUS, [50, 300, -0.2, 0.2, 0, 2, 1], (0, 0, 800), rotation) for rotation in axes]
    plates = [disc_sensor(170.0, k, 803.0, (60, 90), kind=PASSIVE) for k in range(6)]
    table = np.array([[0.1, 5.0], [1.0, 20.0]])
    uneven = maps({0: [grid(k, 1, [axis(0, 2, -11, 11), axis(1, 2, -60, 60)], table) for k in range(16)]})
    surfaces = [*barrel(50.0, half_z=60.0), *annuli, *plates]
    slabs = homogeneous({0: [slab(k, 3.0) for k in range(28, 34)]})
    detector = load(tmp_path, geometry(surfaces), slabs, uneven)
    particles = generate_particles(ParticleGunConfig(n_particles=600, momentum=(0.5, 5.0), eta=(-3, 3)), 5)
    helices = transport(detector, particles, np.uint64(9))
    stepped = transport(detector.with_field_map(homogeneous_map("rz")), particles, np.uint64(9))
    on_annuli = detector.surfaces.shape[helices.module_index] == Shape.ANNULUS
    assert 20 < np.count_nonzero(on_annuli) < len(helices) - 20
    assert detector.surfaces.is_sensitive[stepped.module_index].all()
    np.testing.assert_array_equal(stepped.module_index, helices.module_index)
    np.testing.assert_allclose(stepped.hits.delta_energy, helices.hits.delta_energy, rtol=1e-6)
    np.testing.assert_allclose(stepped.hits.momentum, helices.hits.momentum, atol=2e-5)


def test_results_do_not_depend_on_threads_and_loopers_end():
    odd = build_detector("odd").with_field_map(solenoid_field_map())
    assert truth_geometry(odd).field is not None
    gun = ParticleGunConfig(n_particles=130, momentum=(0.1, 0.2), eta=(-0.5, 0.5))
    particles = generate_particles(gun, 6)
    config = TransportConfig(max_turns=1.5)
    one, two = (transport(odd, particles, np.uint64(9), config, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.hits.position, two.hits.position)
    assert 0 < len(one) < 100 * len(particles)
