"""Nuclear interactions, decays, bremsstrahlung and conversions against their formulas."""

import numpy as np
import pytest

from traccc_py.data.truth import Particles
from traccc_py.geometry import build_detector
from traccc_py.geometry.material.material import ALUMINIUM, BERYLLIUM, CARBON_FIBRE, SILICON, TITANIUM
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.elements import nuclei_of
from traccc_py.simulation.transport.nuclear import hadron_kinds, nuclear_strengths
from traccc_py.simulation.transport.radiation import electron_fractions
from traccc_py.simulation.transport.secondaries import transport_all
from traccc_py.simulation.transport.transport import TransportConfig, find_conversions, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry

N = 20_000
THICK = 0.05  # radiation lengths of a module in these tests
# nuclear interaction lengths [g / cm^2], PDG 2024
LENGTHS = [(SILICON, 108.4), (ALUMINIUM, 107.2), (TITANIUM, 126.2), (BERYLLIUM, 77.8)]
PION, PROTON, ELECTRON, PHOTON = (211, 0.13957, 1), (2212, 0.93827, 1), (11, 0.000511, -1), (22, 0.0, 0)
NOTHING_ELSE = {"scattering": False, "energy_loss": False}


def beam(kind, n=N, p=10.0):
    """Return particles that start at 0 along x."""
    code, mass, charge = kind
    return Particles(
        particle_id=np.arange(1, n + 1, dtype=np.uint64) << np.uint64(24),
        particle_type=np.full(n, code, np.int32),
        process=np.zeros(n, np.int32),
        vertex=np.zeros((n, 3)),
        time=np.zeros(n),
        momentum=np.tile([p, 0.0, 0.0], (n, 1)),
        mass=np.full(n, mass),
        charge=np.full(n, float(charge)),
    )


@pytest.fixture(scope="module")
def telescope():
    return build_detector("telescope")


@pytest.fixture(scope="module")
def geometry(telescope):
    """The telescope with modules of silicon, `THICK` radiation lengths each."""
    made = truth_geometry(telescope)
    slab = SILICON.slab(THICK * SILICON.radiation_length)
    for name in slab._fields:
        made.modules[name] = getattr(slab, name)
    return made._replace(b_z=0.0)


@pytest.mark.parametrize(("material", "length"), LENGTHS, ids=lambda v: getattr(v, "name", ""))
def test_depth_in_elements_is_thickness_over_interaction_length(material, length):
    slab = material.slab(10.0)
    assert nuclei_of(slab.thickness_in_x0, slab.bethe_xi).depth == pytest.approx(material.density / length, rel=0.01)


def test_depth_in_a_mixture_lies_between_its_parts_and_vacuum_has_none():
    slab = CARBON_FIBRE.slab(10.0)
    length = CARBON_FIBRE.density / nuclei_of(slab.thickness_in_x0, slab.bethe_xi).depth
    assert 77.8 < length < 86  # epoxy has hydrogen: shorter than carbon's 85.8
    assert nuclei_of(0.0, 0.0).depth == 0.0


def test_only_hadrons_interact_and_fast_pions_have_the_published_length():
    kinds = hadron_kinds(np.array([2212, -3112, 211, -321, 11, -13, 22])).tolist()
    assert kinds[4:] == [-1, -1, -1]
    proton, antibaryon, pion, kaon = (nuclear_strengths(kind, 100.0)[0] for kind in kinds[:4])
    assert proton == pytest.approx(1.0, abs=0.02)
    # PDG 2024: pion interaction lengths are 1.27 (Si) to 1.41 (Be) times the nuclear ones
    assert 1 / 1.41 < pion < 1 / 1.27
    assert kaon < pion
    assert antibaryon > proton
    # near the Delta resonance more than twice as much, and slow antiprotons annihilate
    assert nuclear_strengths(kinds[2], 0.3)[0] > 2 * pion
    assert nuclear_strengths(kinds[1], 0.3)[0] > 1.5 * nuclear_strengths(kinds[0], 1.0)[0]


@pytest.mark.parametrize(("kind", "strength"), [(PROTON, 1.01), (PION, 1 / 1.265)], ids=["proton", "pion"])
def test_hadrons_that_are_left_fall_exponentially(telescope, geometry, kind, strength):
    config = TransportConfig(nuclear_interactions=True, **NOTHING_ELSE)
    hits = transport(telescope, beam(kind), event_key(1, 0), config, geometry=geometry)
    n_hits = np.bincount(hits.particle_index, minlength=N)
    depth = THICK * SILICON.radiation_length / 10 * SILICON.density / 108.4 * strength
    n_modules = n_hits.max()
    assert n_modules >= 5
    for k in range(1, n_modules):  # a hadron is lost behind the hit of the module in which it interacts
        expected = np.exp(-k * depth)
        assert np.mean(n_hits > k) == pytest.approx(expected, abs=4.5 * np.sqrt(expected * (1 - expected) / N))


def test_electrons_lose_the_mean_energy_of_radiation(telescope, geometry):
    config = TransportConfig(bremsstrahlung=True, **NOTHING_ELSE)
    hits = transport(telescope, beam(ELECTRON), event_key(2, 0), config, geometry=geometry)
    first = hits.hits.index == 0
    kept = np.linalg.norm(hits.outgoing_momentum[first], axis=1) / 10.0
    # the mean loss is one radiation length's share, but for the second hard photon of a slab
    assert 1 - kept.mean() == pytest.approx(THICK, rel=0.2)
    assert np.mean(kept < 0.5) == pytest.approx(THICK * (4 / 3 * np.log(2) - 4 / 6 + 3 / 8), rel=0.2)
    muons = transport(telescope, beam((13, 0.10566, -1), 10), event_key(2, 0), config, geometry=geometry)
    assert (muons.hits.delta_energy == 0).all()


def test_photons_convert_with_seven_ninths_of_the_radiation_length(telescope, geometry):
    photons = beam(PHOTON)
    rows, place = find_conversions(photons, event_key(3, 0), TransportConfig(), geometry)
    planes = np.unique(geometry.modules["cx"])
    expected = 1 - np.exp(-7 / 9 * THICK * len(planes))
    assert len(rows) / N == pytest.approx(expected, abs=4.5 * np.sqrt(expected * (1 - expected) / N))
    assert np.isin(place[:, 0].round(3), planes.round(3)).all()
    assert place[:, 3] == pytest.approx(place[:, 0] / 299.792458)


def test_share_of_the_electron_has_the_shape_of_bethe_and_heitler():
    share = electron_fractions(event_key(4, 0), np.arange(200_000, dtype=np.uint64))
    # density 9/7 (1 - 4/3 x (1 - x)): variance (1/12 - 4/3 (1/80)) ... by integration
    x = (np.arange(1000) + 0.5) / 1000
    density = 9 / 7 * (1 - 4 / 3 * x * (1 - x))
    counts = np.histogram(share, 20, (0, 1))[0] / len(share)
    assert counts == pytest.approx(density.reshape(20, 50).mean(axis=1) / 20, abs=0.0025)


def test_pairs_have_their_photons_energy_direction_and_a_later_generation(telescope, geometry):
    config = TransportConfig(conversions=True, **NOTHING_ELSE)
    particles, hits = transport_all(telescope, beam(PHOTON, 500), event_key(5, 0), config, geometry=geometry)
    assert (np.diff(particles.particle_id.astype(np.int64)) > 0).all()
    assert set(np.abs(particles.particle_type)) == {11}
    assert (particles.process == 2).all()
    photon, generation = (
        particles.particle_id >> np.uint64(24),
        (particles.particle_id >> np.uint64(16)) & np.uint64(255),
    )
    assert (generation == 1).all()
    _, first, n = np.unique(photon, return_index=True, return_counts=True)
    both = first[n == 2]
    momentum = np.linalg.norm(particles.momentum, axis=1)
    assert momentum[both] + momentum[both + 1] == pytest.approx(10.0, abs=1e-4)
    assert particles.charge[both] + particles.charge[both + 1] == pytest.approx(0)
    # no hit in the module where the pair was made
    start = particles.vertex[hits.particle_index, 0]
    assert (hits.hits.position[:, 0] > start + 1).all()


def test_particles_end_where_they_decay(telescope, geometry):
    limit = np.where(np.arange(10) < 5, 100.0, np.inf)
    config = TransportConfig(**NOTHING_ELSE)
    hits = transport(telescope, beam(PION, 10), event_key(6, 0), config, geometry=geometry, path_limit=limit)
    x = hits.hits.position[:, 0]
    assert x[hits.particle_index < 5].max() <= 100
    assert x[hits.particle_index >= 5].max() == geometry.modules["cx"].max()


def test_particles_are_dropped_after_the_readout(telescope, geometry):
    config = TransportConfig(max_time=0.5, **NOTHING_ELSE)
    hits = transport(telescope, beam(PION, 1), event_key(6, 0), config, geometry=geometry)
    spacing = np.diff(np.unique(geometry.modules["cx"])).max() / 299.792458
    assert hits.hits.time.max() <= 0.5 + 1.01 * spacing
    assert len(hits) < len(geometry.modules)
