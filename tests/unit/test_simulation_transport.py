import numpy as np
import pytest

from tests.reference.helix_crossings import crossed_modules
from tests.reference.material_formulas import highland
from tests.smearing import smear_hits
from traccc_py.errors import ConfigError
from traccc_py.geometry import build_detector
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.simulation.transport.truth_geometry import local_vectors, truth_geometry
from traccc_py.units import T, muon_mass

KEY = event_key(5, 0)
SCAN_TOLERANCE = 2e-3  # [mm] of the scan's linear interpolation in 0.5 mm steps


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


@pytest.fixture(scope="module")
def odd_truth(odd):
    return truth_geometry(odd)


def muons(seed=1, **options):
    return generate_particles(ParticleGunConfig(**{"vertex_sigma": (0.01, 0.01, 55.0), **options}), seed)


def test_gun_is_reproducible_and_keeps_its_ranges():
    gun = ParticleGunConfig(n_particles=2000, momentum=(2.0, 5.0), eta=(-1.0, 2.0), phi=(0.5, 1.0))
    first, again, other = (generate_particles(gun, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.momentum, again.momentum)
    assert not np.array_equal(first.momentum, other.momentum)
    pt = np.hypot(first.momentum[:, 0], first.momentum[:, 1])
    eta = np.arcsinh(first.momentum[:, 2] / pt)
    phi = np.arctan2(first.momentum[:, 1], first.momentum[:, 0])
    assert 2.0 <= pt.min() < 2.05
    assert 4.95 < pt.max() <= 5.0
    assert -1.0 <= eta.min() < -0.95
    assert 1.95 < eta.max() <= 2.0
    assert phi.min() >= 0.5
    assert phi.max() <= 1.0
    assert abs(first.charge.mean()) < 0.1
    np.testing.assert_array_equal(first.particle_type, np.where(first.charge < 0, 13, -13))
    assert len(np.unique(first.particle_id)) == 2000


def test_gun_shoots_total_momenta_and_log_spectra():
    gun = ParticleGunConfig(n_particles=5000, momentum=(1.0, 100.0), momentum_is_transverse=False)
    p = np.linalg.norm(generate_particles(gun, 1).momentum, axis=1)
    assert p.min() >= 1.0 - 1e-12
    assert p.max() <= 100.0 + 1e-9
    log = ParticleGunConfig(n_particles=5000, momentum=(1.0, 100.0), momentum_distribution="log", particle="pion")
    particles = generate_particles(log, 1)
    assert np.mean(np.hypot(*particles.momentum[:, :2].T) < 10.0) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(particles.particle_type, np.where(particles.charge > 0, 211, -211))


@pytest.mark.parametrize(
    "bad", [{"momentum": (0.0, 1.0)}, {"particle": "tau"}, {"eta": (1.0, -1.0)}, {"n_particles": -1}]
)
def test_gun_refuses_impossible_settings(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ParticleGunConfig(**bad)


@pytest.mark.parametrize(("momentum", "n"), [((0.15, 0.3), 4), ((0.5, 10.0), 4)])
def test_transport_finds_the_crossings_of_a_full_scan(odd, odd_truth, momentum, n):
    config = TransportConfig(scattering=False, energy_loss=False, max_turns=0.8)
    particles = muons(n_particles=n, momentum=momentum, eta=(-2.5, 2.5))
    simulated = transport(odd, particles, KEY, config)
    modules = odd_truth.modules
    centre, u, v = (np.stack([modules[f"{a}{b}"] for b in "xyz"], axis=1) for a in "cuv")
    half = np.stack([modules[name] for name in ("hx_min", "hx_max", "hy")], axis=1)
    for i in range(n):
        p = np.linalg.norm(particles.momentum[i])
        kappa = -particles.charge[i] * odd_truth.b_z / p
        expected = crossed_modules(
            particles.vertex[i], particles.momentum[i] / p, kappa, 0.8 * 2 * np.pi / abs(kappa), centre, u, v, half,
            config.r_max, config.z_max,
        )  # fmt: skip
        mine = simulated.particle_index == i
        assert simulated.module_index[mine].tolist() == [module for _, module, _, _ in expected]
        np.testing.assert_allclose(
            simulated.local_position[mine], [[a, b] for _, _, a, b in expected], atol=SCAN_TOLERANCE
        )


def test_transport_does_not_depend_on_threads_nor_on_other_particles(odd, odd_truth):
    particles = muons(n_particles=200, momentum=(0.3, 5.0))
    single = transport(odd, particles, KEY, geometry=odd_truth)
    double = transport(odd, particles, KEY, threads=2, geometry=odd_truth)
    for name in ("position", "momentum", "delta_momentum", "time"):
        np.testing.assert_array_equal(getattr(single.hits, name), getattr(double.hits, name))
    rows = np.arange(150, 160)
    few = type(particles)(**{f: getattr(particles, f)[rows] for f in particles.__dataclass_fields__})
    alone = transport(odd, few, KEY, geometry=odd_truth)
    among_others = np.isin(single.particle_index, rows)
    np.testing.assert_array_equal(alone.hits.momentum, single.hits.momentum[among_others])
    assert not np.array_equal(alone.hits.momentum, transport(odd, few, event_key(5, 1)).hits.momentum)


def test_transport_orders_hits_and_keeps_time_and_energy(odd, odd_truth):
    particles = muons(n_particles=50, momentum=(0.5, 2.0))
    simulated = transport(odd, particles, KEY, geometry=odd_truth)
    hits = simulated.hits
    same = np.diff(simulated.particle_index) == 0
    assert (np.diff(simulated.particle_index) >= 0).all()
    assert (np.diff(hits.time)[same] > 0).all()
    assert (np.diff(hits.index)[same] == 1).all()
    assert (hits.delta_energy < 0).all()
    np.testing.assert_allclose(hits.energy**2 - np.sum(hits.momentum**2, axis=1), muon_mass**2, rtol=1e-6)
    np.testing.assert_array_equal(hits.geometry_id, odd.geometry_ids[simulated.module_index])
    offset = hits.position - np.stack([odd_truth.modules[simulated.module_index][f"c{a}"] for a in "xyz"], axis=1)
    local = local_vectors(odd_truth, simulated.module_index, offset)
    np.testing.assert_allclose(local[:, :2], simulated.local_position, atol=1e-9)
    np.testing.assert_allclose(local[:, 2], 0.0, atol=1e-8)


def test_options_switch_the_material_off(odd, odd_truth):
    particles = muons(n_particles=20, momentum=(1.0, 1.0))
    no_scattering = transport(odd, particles, KEY, TransportConfig(scattering=False), geometry=odd_truth)
    p = np.linalg.norm(no_scattering.hits.momentum, axis=1)
    cosine = np.sum(no_scattering.hits.momentum * no_scattering.outgoing_momentum, axis=1)
    np.testing.assert_allclose(cosine, p * np.linalg.norm(no_scattering.outgoing_momentum, axis=1), rtol=1e-12)
    no_loss = transport(odd, particles, KEY, TransportConfig(energy_loss=False), geometry=odd_truth)
    np.testing.assert_allclose(
        np.linalg.norm(no_loss.hits.momentum, axis=1),
        np.linalg.norm(particles.momentum, axis=1)[no_loss.particle_index],
        rtol=1e-12,
    )
    nothing = transport(odd, particles, KEY, TransportConfig.without_material(), geometry=odd_truth)
    assert not nothing.hits.delta_momentum.any()


def test_scattering_angles_have_highlands_width():
    telescope = build_detector("telescope")
    truth = truth_geometry(telescope)
    gun = ParticleGunConfig(n_particles=4000, momentum=(1.0, 1.0), eta=(0.0, 0.0), phi=(0.0, 0.0))
    simulated = transport(telescope, generate_particles(gun, 1), KEY, geometry=truth)
    first = simulated.hits.index == 0
    before, after = simulated.hits.momentum[first], simulated.outgoing_momentum[first]
    phi = np.arctan2(after[:, 1], after[:, 0]) - np.arctan2(before[:, 1], before[:, 0])
    theta = np.arctan2(after[:, 2], after[:, 0]) - np.arctan2(before[:, 2], before[:, 0])
    slab = truth.modules[simulated.module_index[first][0]]["thickness_in_x0"]
    expected = highland(1000.0, muon_mass * 1e3, slab)
    error = 4.0 / np.sqrt(2 * first.sum())
    assert phi.std() / expected == pytest.approx(1.0, abs=error)
    assert theta.std() / expected == pytest.approx(1.0, abs=error)
    assert abs(phi.mean()) < 4 * expected / np.sqrt(first.sum())


def test_particles_stop_and_neutral_ones_make_no_hits(odd, odd_truth):
    slow = muons(n_particles=30, momentum=(0.02, 0.03), eta=(-0.5, 0.5))
    simulated = transport(odd, slow, KEY, geometry=odd_truth)
    last = np.flatnonzero(np.diff(np.append(simulated.particle_index, -1)))
    assert (
        np.linalg.norm(simulated.outgoing_momentum[last], axis=1)
        < np.linalg.norm(simulated.hits.momentum[last], axis=1)
    ).all()
    assert (np.linalg.norm(simulated.outgoing_momentum, axis=1)[last] == 0.0).any()
    slow.charge[:] = 0.0
    assert len(transport(odd, slow, KEY, geometry=odd_truth)) == 0


def test_no_particles_make_no_hits(odd, odd_truth):
    assert len(transport(odd, muons(n_particles=0), KEY, geometry=odd_truth)) == 0


def test_particles_without_a_field_fly_straight():
    telescope = build_detector("telescope").with_field(0.0)
    gun = ParticleGunConfig(n_particles=10, eta=(-0.01, 0.01), phi=(-0.01, 0.01))
    particles = generate_particles(gun, 1)
    simulated = transport(telescope, particles, KEY, TransportConfig.without_material())
    assert len(simulated) > 10
    direction = particles.momentum[simulated.particle_index]
    np.testing.assert_allclose(np.cross(simulated.hits.position, direction), 0.0, atol=1e-6)


def test_mean_hits_and_field(odd):
    # 13.5 modules a muon is what a scan without scattering gave
    particles = muons(n_particles=500, momentum=(1.0, 10.0))
    simulated = transport(odd, particles, KEY, TransportConfig.without_material())
    assert len(simulated) / 500 == pytest.approx(13.5, abs=0.3)
    assert odd.arrays().b_z == pytest.approx(2 * T)


def test_smeared_measurements_have_the_widths_asked_for(odd, odd_truth):
    simulated = transport(odd, muons(n_particles=500), KEY, geometry=odd_truth)
    measurements, hit = smear_hits(odd, simulated, KEY, 0.05, 0.1)
    residual = measurements.local_position - simulated.local_position[hit]
    two = measurements.dimensions == 2
    for axis, sigma in enumerate((0.05, 0.1)):
        assert residual[two, axis].std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * two.sum()))
    np.testing.assert_allclose(measurements.local_variance[two], [[0.0025, 0.01]] * two.sum(), rtol=1e-6)
    assert (measurements.local_position[~two, 1] == 0).all()
    assert (np.diff(measurements.module_index) >= 0).all()
    np.testing.assert_array_equal(measurements.module_index, simulated.module_index[hit])
    with pytest.raises(ConfigError, match="sigma"):
        smear_hits(odd, simulated, KEY, 0.0, 0.1)
