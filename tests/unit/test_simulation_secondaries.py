"""What hadrons, pions and kaons in flight and electrons make, against published formulas; its ids."""

from dataclasses import replace

import numba
import numpy as np
import pytest

from tests.unit.test_simulation_interactions_with_matter import ELECTRON, PION, PROTON, beam
from traccc_py.data.particle_ids import pack_particle_id, unpack_particle_id
from traccc_py.geometry import build_detector
from traccc_py.geometry.material.material import SILICON
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.decays import decay_products_of
from traccc_py.simulation.transport.elements import nuclei_of
from traccc_py.simulation.transport.nuclear import scatter
from traccc_py.simulation.transport.nuclear_products import products_of
from traccc_py.simulation.transport.secondaries import secondary_ids, transport_all
from traccc_py.simulation.transport.transport import TransportConfig, transport_with_vertices
from traccc_py.simulation.transport.truth_geometry import truth_geometry
from traccc_py.units import muon_mass, pion_mass

N = 50_000
KEY = event_key(6, 0)
NOTHING = TransportConfig.without_material()
MASSES = {211: pion_mass, 321: 0.493677, 13: muon_mass, 11: 0.000511, 22: 0.0, 2212: 0.938272, 0: 0.0}


@pytest.fixture(scope="module")
def telescope():
    return build_detector("telescope")


@pytest.fixture(scope="module")
def thick(telescope):
    """The telescope without field, its modules 0.1 radiation lengths of silicon."""
    made = truth_geometry(telescope)
    slab = SILICON.slab(0.1 * SILICON.radiation_length)
    for name in slab._fields:
        made.modules[name] = getattr(slab, name)
    return made._replace(b_z=0.0)


def energies(rows):
    mass = np.array([MASSES[abs(int(code))] for code in rows[:, 1]])
    return np.sqrt(np.sum(rows[:, 2:] ** 2, axis=1) + mass**2)


def sums(rows, values):
    return np.bincount(rows[:, 0].astype(int), values, N)


def break_up(code, p, mass_number):
    return products_of(
        np.full(N, code),
        np.full(N, MASSES[abs(code)]),
        np.tile([0.0, 0.0, p], (N, 1)),
        np.full(N, float(mass_number)),
        KEY,
        np.arange(N, dtype=np.uint64),
    )


@numba.njit
def _scatters(p, mass, mass_number, key, n):
    out = np.empty((n, 3))
    for i in range(n):
        out[i] = scatter(p, mass, mass_number, key, np.uint64(i), 0)
    return out


def test_kinks_have_the_published_slopes_and_exact_kinematics():
    p, mass = 2.0, pion_mass
    after, cosine, azimuth = _scatters(p, mass, 28.09, KEY, N).T
    energy, energy_after = np.hypot(p, mass), np.hypot(after, mass)
    t = -((energy - energy_after) ** 2) + p**2 + after**2 - 2 * p * after * cosine
    recoil = energy - energy_after
    # recoil t / 2 M, of the nucleus for four fifths
    of_nucleus = np.isclose(recoil, t / (2 * 28.09 * 0.9315), rtol=1e-3, atol=1e-9)
    assert of_nucleus.mean() == pytest.approx(0.8, abs=0.01)
    assert recoil[~of_nucleus] == pytest.approx(t[~of_nucleus] / (2 * 0.9315), rel=1e-3)
    coherent, incoherent = 14.5 * 28.09**0.66, 10.0
    assert 1 / t[of_nucleus].mean() == pytest.approx(coherent, rel=0.03)
    assert 1 / t[~of_nucleus].mean() == pytest.approx(incoherent, rel=0.05)
    assert np.median(np.arccos(cosine)) == pytest.approx(np.sqrt(np.log(2) / coherent) / p, rel=0.2)
    assert azimuth.mean() == pytest.approx(np.pi, abs=0.05)


def test_share_of_scattering_is_that_of_the_collision_length(telescope, thick):
    config = replace(NOTHING, nuclear_interactions=True, nuclear_scattering=True)
    simulated, vertices = transport_with_vertices(telescope, beam(PROTON, N, 100.0), KEY, config, geometry=thick)
    first = simulated.hits.index == 0
    change = np.linalg.norm(simulated.hits.delta_momentum[first], axis=1) / 100.0
    absorbed, scattered = np.mean(change > 0.99), np.mean((change > 0) & (change < 0.99))
    # PDG 2024: silicon 108.4 and 70.2 g / cm^2
    grams = 0.1 * SILICON.radiation_length / 10 * SILICON.density
    assert absorbed == pytest.approx(grams / 108.4, rel=0.08)
    assert scattered == pytest.approx(grams * (1 / 70.2 - 1 / 108.4), rel=0.12)
    assert (vertices.process == 4).all()
    assert vertices.number == pytest.approx(28.09, rel=1e-3)
    assert nuclei_of(0.0, 0.0).depth == 0.0


@pytest.mark.parametrize("p", [3.0, 10.0, 30.0, 100.0])
def test_multiplicity_on_hydrogen_is_that_of_proton_collisions(p):
    rows = break_up(2212, p, 1)
    n_charged = np.count_nonzero(rows[:, 1] != 22) / N
    log = np.log(2 * 0.938272**2 + 2 * 0.938272 * np.hypot(p, 0.938272))
    # W. Thome et al., Nucl. Phys. B 129 (1977) 365
    assert n_charged == pytest.approx(0.88 + 0.44 * log + 0.118 * log**2, rel=0.2)


@pytest.mark.parametrize(("code", "p"), [(211, 0.3), (-211, 1.0), (211, 20.0), (2212, 1.0), (2212, 50.0), (321, 2.0)])
@pytest.mark.parametrize("mass_number", [12, 28])
def test_energy_is_conserved_but_for_what_is_not_seen(code, p, mass_number):
    rows = break_up(code, p, mass_number)
    kinetic = np.hypot(p, MASSES[abs(code)]) - MASSES[abs(code)]
    mass = np.where(np.isin(np.abs(rows[:, 1]), [2212, 321]), [MASSES[abs(int(c))] for c in rows[:, 1]], 0)
    made = sums(rows, energies(rows) - mass)
    available = kinetic + (MASSES[211] if abs(code) == 211 else 0)
    assert made.max() <= available * (1 + 1e-9)
    # neutrons, neutral kaons and the nucleus take the rest
    assert 0.4 < made.mean() / available < 1.0
    # pions of a cascade: as many of each charge but for the leading one, transverse momenta of 0.33 GeV at most
    transverse = np.hypot(rows[:, 2], rows[:, 3])[np.abs(rows[:, 1]) == 211]
    assert 0.05 < transverse.mean() < 0.34


def test_leading_particle_and_knocked_out_protons():
    rows = break_up(211, 50.0, 28)
    n_protons = sums(rows, (rows[:, 1] == 2212).astype(float))
    assert n_protons.mean() == pytest.approx(0.16 * 28 ** (2 / 3), rel=0.1)
    assert n_protons.var() == pytest.approx(n_protons.mean(), rel=0.15)  # Poisson
    protons = rows[rows[:, 1] == 2212, 2:]
    p = np.linalg.norm(protons, axis=1)
    kinetic = np.hypot(p, 0.938272) - 0.938272
    assert kinetic.min() > 0.03 - 1e-6
    assert kinetic.mean() == pytest.approx(0.13, rel=0.05)
    # mean of the cosine of exp(0.96 cos): coth(0.96) - 1 / 0.96
    assert (protons[:, 2] / p).mean() == pytest.approx(1 / np.tanh(0.96) - 1 / 0.96, abs=0.01)
    # the fastest pion carries far more than its share
    fastest = np.zeros(N)
    np.maximum.at(fastest, rows[:, 0].astype(int), np.linalg.norm(rows[:, 2:], axis=1))
    assert fastest.mean() / 50.0 > 0.35
    assert np.mean(fastest > 25.0) > 0.2


def test_pions_decay_into_muons_of_a_flat_energy_spectrum():
    frame = np.array([0.6, -0.8, 2.0])
    rows = decay_products_of(np.full(N, 211), np.tile(frame, (N, 1)), KEY, np.arange(N, dtype=np.uint64))
    assert (rows[:, 1] == -13).all()
    energy = np.sqrt(frame @ frame + pion_mass**2)
    missing = (energy - energies(rows)) ** 2 - np.sum((frame - rows[:, 2:]) ** 2, axis=1)
    assert missing == pytest.approx(0, abs=1e-9)  # the neutrino's mass
    star_energy, star_p = (pion_mass**2 + muon_mass**2) / 2 / pion_mass, (pion_mass**2 - muon_mass**2) / 2 / pion_mass
    gamma, gamma_beta = energy / pion_mass, np.linalg.norm(frame) / pion_mass
    low, high = gamma * star_energy - gamma_beta * star_p, gamma * star_energy + gamma_beta * star_p
    share = (energies(rows) - low) / (high - low)
    counts = np.histogram(share, 10, (0, 1))[0]
    assert counts.sum() == N
    assert counts == pytest.approx(N / 10, abs=4.5 * np.sqrt(N / 10))


@pytest.mark.parametrize("sign", [1, -1])
def test_kaons_have_the_published_branching_ratios_and_conserve_what_they_must(sign):
    frame = np.array([0.0, 0.0, 3.0])
    rows = decay_products_of(np.full(N, sign * 321), np.tile(frame, (N, 1)), KEY, np.arange(N, dtype=np.uint64))
    code = np.where(rows[:, 1] == 22, 22, rows[:, 1] * sign)
    # PDG 2024: mu nu 63.56, pi pi0 20.67, three pions 5.58 and 1.76, pi0 e nu 5.07, pi0 mu nu 3.35 %
    for name, expected in {-13: 0.669, -11: 0.0507, 211: 0.336, -211: 0.0558, 22: 0.651}.items():
        assert np.count_nonzero(code == name) / N == pytest.approx(expected, abs=0.012)
    charge = sums(rows, np.where(rows[:, 1] == 22, 0, np.where(np.abs(rows[:, 1]) < 20, -1, 1) * np.sign(rows[:, 1])))
    assert (charge == sign).all()
    lost = np.stack([frame[k] - sums(rows, rows[:, 2 + k]) for k in range(3)], axis=1)
    missing = (np.hypot(3.0, 0.493677) - sums(rows, energies(rows))) ** 2 - np.sum(lost**2, axis=1)
    assert missing == pytest.approx(0, abs=1e-8)  # nothing, or a neutrino


def test_pions_in_flight_live_as_long_as_published_and_end_in_a_kink(telescope):
    geometry = truth_geometry(telescope)
    config = replace(NOTHING, decays=True)
    pions = beam(PION, N, 0.2)
    _, vertices = transport_with_vertices(telescope, pions, KEY, config, geometry=geometry)
    assert (vertices.process == 1).all()
    path = vertices.time * 299.792458 * 0.2 / np.hypot(0.2, pion_mass)
    mean = 7804.5 * 0.2 / pion_mass
    for length in (50.0, 200.0, 350.0):  # as long as all are inside
        expected = 1 - np.exp(-length / mean)
        assert np.mean(path < length) * len(path) / N == pytest.approx(expected, abs=4.5 * np.sqrt(expected / N))
    particles, hits = transport_all(telescope, pions, KEY, config, geometry=geometry)
    muons = np.flatnonzero(np.abs(particles.particle_type) == 13)
    assert len(muons) > 0.9 * len(vertices.time)  # some have less than 0.1 GeV
    mother = np.searchsorted(pions.particle_id, (particles.particle_id[muons] >> np.uint64(24)) << np.uint64(24))
    place = dict(zip(vertices.particle_index.tolist(), vertices.position, strict=True))
    start = np.array([place[m] for m in mother.tolist()])
    assert np.linalg.norm(particles.vertex[muons] - start, axis=1) == pytest.approx(0.01, abs=1e-4)
    last = np.full(N, -1.0)
    is_pion = hits.particle_index < N
    np.maximum.at(last, hits.particle_index[is_pion], hits.hits.time[is_pion])
    assert (last[mother] <= particles.time[muons] + 1e-6).all()


def test_radiated_photons_make_pairs(telescope, thick):
    config = replace(NOTHING, bremsstrahlung=True, conversions=True)
    particles, _ = transport_all(telescope, beam(ELECTRON, 2000), KEY, config, geometry=thick)
    generation = unpack_particle_id(particles.particle_id)["particle_id_gen"]
    assert set(generation.tolist()) >= {0, 2, 4}  # electron, pair of its photon, pair of that one's photon
    assert (np.abs(particles.particle_type) == 11).all()
    assert len(np.unique(particles.particle_id)) == len(particles)
    # energy of the electrons that are left and of all pairs stays below the beam's
    root = (particles.particle_id >> np.uint64(24)).astype(int)
    start = np.linalg.norm(particles.momentum, axis=1)
    assert np.bincount(root, np.where(generation == 2, start, 0)).max() < 10.0
    nothing, _ = transport_all(telescope, beam(ELECTRON, 100), KEY, replace(config, conversions=False), geometry=thick)
    assert len(nothing) == 100


def test_ids_of_secondaries_are_barcodes_numbered_by_root():
    one = pack_particle_id(np.array([1, 1, 2]), 0, np.array([5, 6, 5]), 0, 0)
    made = secondary_ids(one[[0, 0, 2, 1, 0]])
    fields = unpack_particle_id(made)
    assert fields["particle_id_pv"].tolist() == [1, 1, 2, 1, 1]
    assert fields["particle_id_part"].tolist() == [5, 5, 5, 6, 5]
    assert set(fields["particle_id_gen"].tolist()) == {1}
    assert fields["particle_id_subpart"].tolist() == [1, 2, 1, 1, 3]
    again = secondary_ids(made[[0, 1, 1]])
    assert unpack_particle_id(again)["particle_id_subpart"].tolist() == [1, 2, 3]
    assert set(unpack_particle_id(again)["particle_id_gen"].tolist()) == {2}
    # a gun's plain numbers
    assert unpack_particle_id(secondary_ids(np.array([7, 7], np.uint64)))["particle_id_part"].tolist() == [7, 7]


def test_events_with_all_interactions_depend_on_nothing_else_and_name_each_particle_once():
    odd = build_detector("odd")
    gun = ParticleGunConfig(60, "pion", momentum=(0.3, 5.0), vertex_sigma=(0.01, 0.01, 55.0))
    config = TransportConfig.of_collisions()
    event, again = (simulate_event(odd, gun, 3, 1, config=config, threads=k) for k in (1, 2))
    assert len(event.particles) > 60
    for name in ("particle_id", "momentum", "vertex", "process"):
        np.testing.assert_array_equal(getattr(event.particles, name), getattr(again.particles, name))
    np.testing.assert_array_equal(event.cells.activation, again.cells.activation)
    assert len(np.unique(event.particles.particle_id)) == len(event.particles)
    assert set(event.particles.process.tolist()) >= {0, 4}
    np.testing.assert_array_equal(
        event.particles.particle_id[event.simulated.particle_index], event.simulated.hits.particle_id
    )
    # primary particles fly as without the others
    alone = simulate_event(odd, gun, 3, 1, config=config.without("nuclear_products"))
    n_primary = np.count_nonzero(event.simulated.particle_index < 60)
    np.testing.assert_array_equal(
        event.simulated.hits.position[:n_primary], alone.simulated.hits.position[alone.simulated.particle_index < 60]
    )
