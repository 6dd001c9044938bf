"""Particles through sensors that lie in one plane and overlap, or stand at the same place: each is crossed once."""

import numpy as np
import pytest

from tests.reference.helix_crossings import crossed_modules
from tests.unit.detray_documents import barrel, disc, geometry, homogeneous, load, slab
from tests.unit.test_runge_kutta import homogeneous_map
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.transport.transport import TransportConfig, find_conversions, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry

KEY = np.uint64(9)
FIELDS = ("helix", "rz", "xyz")


def in_field(detector, kind):
    return detector if kind == "helix" else detector.with_field_map(homogeneous_map(kind))


def muons(n, **options):
    return generate_particles(ParticleGunConfig(n_particles=n, **options), 5)


def overlapping(folder):
    """Two barrels that overlap along z in one plane, one that stands there twice, and a disc that does three times."""
    halves = [{**s, "transform": {**s["transform"]}} for s in barrel(80.0)]
    for s in halves:
        x, y, _ = s["transform"]["translation"]
        s["transform"]["translation"] = [x, y, 25.0]
    return load(folder, geometry([*barrel(50.0), *barrel(50.0), *barrel(80.0), *halves, *(3 * disc(150.0, 40.0))]))


@pytest.mark.parametrize("kind", FIELDS)
def test_overlapping_sensors_of_a_plane_are_crossed_once_each(tmp_path, kind):
    detector = overlapping(tmp_path)
    modules = truth_geometry(detector).modules
    centre, u, v = (np.stack([modules[f"{a}{b}"] for b in "xyz"], axis=1) for a in "cuv")
    half = np.stack([modules[name] for name in ("hx_min", "hx_max", "hy")], axis=1)
    config = TransportConfig(scattering=False, energy_loss=False, max_turns=0.8, r_max=120.0, z_max=200.0)
    particles = muons(60, momentum=(0.3, 5.0), eta=(-0.2, 2.5))
    found = transport(in_field(detector, kind), particles, KEY, config)
    assert (np.diff(found.hits.time)[np.diff(found.particle_index) == 0] >= 0).all()
    n_shared = 0
    for i in range(len(particles)):
        p = np.linalg.norm(particles.momentum[i])
        kappa = -particles.charge[i] * truth_geometry(detector).b_z / p
        expected = crossed_modules(
            particles.vertex[i], particles.momentum[i] / p, kappa, min(0.8 * 2 * np.pi / abs(kappa), 1000.0),
            centre, u, v, half, config.r_max, config.z_max,
        )  # fmt: skip
        modules_of_i = found.module_index[found.particle_index == i].tolist()
        assert sorted(modules_of_i) == sorted(module for _, module, _, _ in expected)
        paths = np.array([path for path, _, _, _ in expected])
        n_shared += np.count_nonzero(np.diff(np.sort(paths)) < 1e-6)
    assert n_shared > 60


@pytest.mark.parametrize("kind", FIELDS)
def test_scattering_between_surfaces_of_a_plane_loses_none(tmp_path, kind):
    """Slow particles and thick sensors: all 20 at one place, of each of 16 sensors, are hit by whatever hits one."""
    detector = load(
        tmp_path, geometry(20 * barrel(50.0, half_z=200.0)), homogeneous({0: [slab(k, 0.2) for k in range(320)]})
    )
    config = TransportConfig(max_turns=0.8, r_max=100.0)
    found = transport(in_field(detector, kind), muons(200, momentum=(0.2, 1.0), eta=(-1.0, 1.0)), KEY, config)
    place = np.round(np.arctan2(detector.surfaces.centre[:, 1], detector.surfaces.centre[:, 0]), 6)
    _, place = np.unique(place, return_inverse=True)
    at = np.stack([found.particle_index, place[found.module_index]], axis=1)
    crossings, counts = np.unique(at, axis=0, return_counts=True)
    assert len(crossings) >= 200
    assert (counts == 20).mean() > 0.97  # fewer at a sensor's edge, from which the scattered track runs out
    each = np.column_stack([at, found.module_index])
    assert len(np.unique(each, axis=0)) == len(each)


def test_photons_see_the_material_of_each_surface_of_a_plane(tmp_path):
    """The share that converts in ten sensors at one place is that in one sensor ten times as thick."""
    shares = []
    for copies in (10, 1):
        slabs = homogeneous({0: [slab(k, 30.0 / copies) for k in range(16 * copies)]})
        detector = load(tmp_path, geometry(copies * barrel(50.0, half_z=200.0)), slabs)
        photons = muons(2000, momentum=(1.0, 1.0), eta=(-0.5, 0.5))
        photons.charge[:], photons.particle_type[:] = 0, 22
        found, _ = find_conversions(photons, KEY, TransportConfig(), truth_geometry(detector))
        shares.append(len(found) / len(photons))
    assert shares[0] == pytest.approx(shares[1], abs=1e-3)
    assert 0.1 < shares[1] < 0.5
