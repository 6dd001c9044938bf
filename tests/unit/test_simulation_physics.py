import math

import numpy as np
import pytest

from tests.reference.helix_crossings import integrate
from tests.reference.material_formulas import bethe_stopping_power, highland
from traccc_py.simulation.random_numbers import event_key, normal_pair, normal_pairs, philox4x32, uniform_pair
from traccc_py.simulation.transport.interactions import highland_angle, mean_energy_loss
from traccc_py.simulation.transport.truth_helix import (
    CYLINDER_SURFACE,
    PLANE_SURFACE,
    helix_direction,
    helix_position,
    next_crossing,
)
from traccc_py.units import T, muon_mass

POSITION_TOLERANCE = 1e-8  # [mm], RK4 with 4000 steps
CROSSING_TOLERANCE = 1e-9  # [mm]
SILICON = {"z": 14, "a": 28.0855, "density": 2.329, "excitation": 173.0}  # mean excitation energy in eV


def slab(thickness_cm, z, a, density, excitation):
    xi = 0.5 * 0.307075e-3 * z / a * density * thickness_cm
    return xi, excitation * 1e-9, 28.816e-9 * math.sqrt(density * z / a)


def test_helix_turns_as_in_a_known_field():
    # p = (1, 0, 1) GeV, q = -1, 1 T: half and full turn (detray's numbers)
    p = math.sqrt(2.0)
    kappa = 1.0 * T / p
    helix = (0.0, 0.0, 0.0, 1 / p, 0.0, 1 / p, kappa)
    np.testing.assert_allclose(helix_position(helix, math.pi / kappa), (0, 6671.2819, 10479.2251), rtol=1e-6, atol=1e-5)
    full = helix_position(helix, 2 * math.pi / kappa)
    np.testing.assert_allclose(full, (0, 0, 20958.4502), rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(helix_direction(helix, math.pi / kappa), (-1 / p, 0, 1 / p), atol=1e-12)


def test_helix_agrees_with_integration():
    rng = np.random.default_rng(1)
    for kappa in (6e-4, -3e-5, 4e-3, 1e-7):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        start = rng.normal(size=3) * 50
        steps = integrate(start, direction, kappa, 900.0)
        helix = (*start, *direction, kappa)
        np.testing.assert_allclose(helix_position(helix, 900.0), steps[-1, :3], atol=POSITION_TOLERANCE)
        np.testing.assert_allclose(helix_direction(helix, 900.0), steps[-1, 3:], atol=1e-10)


@pytest.mark.parametrize("kappa", [5e-3, -5e-3, 1e-4, -1e-9, 0.0])
def test_next_crossing_finds_every_crossing_of_a_plane(kappa):
    rng = np.random.default_rng(2)
    path = 3000.0
    s = np.linspace(0.0, path, 20_001)
    for _ in range(20):
        direction, normal = rng.normal(size=(2, 3))
        direction, normal = direction / np.linalg.norm(direction), normal / np.linalg.norm(normal)
        helix = (*(rng.normal(size=3) * 30), *direction, kappa)
        surface = (PLANE_SURFACE, *normal, rng.normal() * 100)
        x, y, z = np.vectorize(lambda t, h=helix: helix_position(h, t))(s)
        value = normal[0] * x + normal[1] * y + normal[2] * z - surface[4]
        scanned = s[np.flatnonzero((value[:-1] > 0) != (value[1:] > 0))]
        found, low = [], 0.0
        while (crossing := next_crossing(helix, surface, low, path)) <= path:
            found.append(crossing)
            low = crossing + 1e-6
        assert len(found) == len(scanned)
        np.testing.assert_allclose(found, scanned, atol=0.16)
        for crossing in found:
            assert abs(np.dot(normal, helix_position(helix, crossing)) - surface[4]) < CROSSING_TOLERANCE


def test_next_crossing_finds_every_crossing_of_a_cylinder():
    # a loop of radius 100 mm that leaves and enters a cylinder of radius 150 mm in every turn
    helix = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.01)
    surface = (CYLINDER_SURFACE, 150.0**2, 0.0, 0.0, 0.0)
    first = 200 * math.asin(0.75)
    expected = [first, 200 * math.pi - first, 200 * math.pi + first, 400 * math.pi - first]
    found, low = [], 0.0
    while (crossing := next_crossing(helix, surface, low, 400 * math.pi)) < math.inf:
        found.append(crossing)
        low = crossing + 1e-6
    np.testing.assert_allclose(found, expected, atol=CROSSING_TOLERANCE)
    assert next_crossing(helix, (CYLINDER_SURFACE, 201.0**2, 0.0, 0.0, 0.0), 0.0, 1e4) == math.inf


def test_mean_energy_loss_agrees_with_tables():
    # muons in silicon, tolerance of the table's own test
    xi, excitation, plasma = slab(1.0, **SILICON)
    for p, expected in ((0.1003, 2.608), (1.101, 1.803), (10.11, 2.177), (100.1, 2.451)):
        loss = mean_energy_loss(p, muon_mass, 1.0, xi, excitation, plasma) * 1e3 / SILICON["density"]
        assert loss == pytest.approx(expected, rel=0.05)
        formula = bethe_stopping_power(p * 1e3, 105.6583755, 14, 28.0855, 2.329, 173.0)
        assert loss == pytest.approx(formula, rel=1e-9)


def test_mean_energy_loss_is_proportional_to_charge_squared_and_zero_in_vacuum():
    xi, excitation, plasma = slab(0.03, **SILICON)
    single = mean_energy_loss(1.0, muon_mass, 1.0, xi, excitation, plasma)
    assert mean_energy_loss(1.0, muon_mass, -2.0, xi, excitation, plasma) == pytest.approx(4 * single)
    assert mean_energy_loss(1.0, muon_mass, 1.0, 0.0, excitation, plasma) == 0.0


def test_highland_angle_agrees_with_known_numbers():
    # 0.5 mm of silicon (X0 95.7 mm): 1 and 10 GeV muons
    x = 0.5 / 95.7
    assert highland_angle(1.0, muon_mass, -1.0, x) == pytest.approx(7.9155e-4, rel=1e-4)
    assert highland_angle(10.0, muon_mass, -1.0, x) == pytest.approx(7.8680e-5, rel=1e-4)
    assert highland_angle(0.4, muon_mass, 1.0, 0.02) == pytest.approx(highland(400, 105.6583755, 0.02), rel=1e-9)
    assert highland_angle(1.0, muon_mass, 1.0, 0.0) == 0.0


def test_philox_gives_the_published_words():
    zero, ones = np.uint64(0), np.uint64(0xFFFFFFFF)
    assert [int(w) for w in philox4x32(zero, zero, zero, zero, zero)] == [
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    ]
    words = philox4x32(ones, ones, ones, ones, np.uint64(0xFFFFFFFFFFFFFFFF))
    assert [int(w) for w in words] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_random_numbers_have_the_right_moments_and_depend_on_every_argument():
    identities = np.arange(100_000, dtype=np.uint64)
    numbers = normal_pairs(event_key(1, 2), identities, np.zeros(len(identities), np.int64), 3)
    assert np.abs(numbers.mean(axis=0)).max() < 0.015
    assert np.abs(numbers.std(axis=0) - 1).max() < 0.01
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.015
    first = normal_pair(event_key(1, 2), np.uint64(7), 0, 3)
    np.testing.assert_array_equal(numbers[7], first)
    others = [(event_key(1, 3), 7, 0, 3), (event_key(2, 2), 7, 0, 3), (event_key(1, 2), 8, 0, 3)]
    others += [(event_key(1, 2), 7, 1, 3), (event_key(1, 2), 7, 0, 4), (event_key(1, 2), 7 + 2**32, 0, 3)]
    seen = {normal_pair(key, np.uint64(identity), draw, stream) for key, identity, draw, stream in others}
    assert len(seen | {first}) == len(others) + 1
    assert 0.0 < min(uniform_pair(event_key(0, 0), np.uint64(0), 0, 0)) < 1.0
