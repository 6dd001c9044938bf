"""Energy loss and scattering against tables, formulas in other units, and sums along a telescope."""

import math

import numba
import numpy as np
import pytest

from tests.reference import kalman as reference
from tests.reference.material_formulas import bethe_stopping_power, highland
from traccc_py.geometry.material.material import SILICON, SILICON_TML
from traccc_py.kernels.tracking.material import energy_loss, interact, scattering_variance
from traccc_py.kernels.tracking.state import BoundParameters, Covariance, Slab
from traccc_py.units import MeV, cm, muon_mass

# Mean stopping power of muons in silicon [MeV cm^2 / g] (PDG tables; tolerance of detray's own test).
STOPPING_POWERS = [(0.1003, 2.608), (1.101, 1.803), (10.11, 2.177), (100.1, 2.451)]
TABLE_TOLERANCE = 0.05
THETA0 = [(1.0, 7.9155e-4), (10.0, 7.868e-5)]  # 0.5 mm of silicon_tml, muons
FLOAT32 = 2e-5  # relative rounding of formulas with logarithms
MUON_MEV = muon_mass * 1e3


@numba.njit
def loss(xi, excitation, plasma, p, mass):
    return energy_loss(xi, excitation, plasma, p, mass)


@numba.njit
def variance(thickness_in_x0, p, beta2):
    return scattering_variance(thickness_in_x0, p, beta2)


@numba.njit
def run_interact(x, c, slab, inverse_cosine, sin_theta, mass, sign):
    return interact(x, c, slab, inverse_cosine, sin_theta, mass, sign)


def f32(*values):
    return tuple(np.float32(v) for v in values)


def slab_of(material, thickness):
    return Slab(*f32(*material.slab(thickness)))


def muon_loss(p, slab):
    """Mean loss [GeV] of a muon."""
    return loss(*slab[1:], *f32(p, muon_mass))


def muon_theta0(p, thickness_in_x0):
    return math.sqrt(variance(*f32(thickness_in_x0, p, p**2 / (p**2 + muon_mass**2))))


def passage(x, c, slab, theta=math.pi / 2, inverse_cosine=1.0, mass=muon_mass, sign=1.0):
    return run_interact(
        BoundParameters(*f32(*x)), Covariance(*f32(*c)), slab, *f32(inverse_cosine, math.sin(theta), mass, sign)
    )


def state(p, theta=math.pi / 2, charge=-1.0):
    return np.array([0.1, -0.2, 0.3, theta, charge / p]), np.zeros(15)


@pytest.mark.parametrize(("p", "expected"), STOPPING_POWERS)
def test_energy_loss_of_muons_in_silicon_agrees_with_tables(p, expected):
    per_areal_density = muon_loss(p, slab_of(SILICON, 1 * cm)) / MeV / SILICON.density
    assert per_areal_density == pytest.approx(expected, rel=TABLE_TOLERANCE)


@pytest.mark.parametrize("p", [0.05, 0.3, 1.0, 1.2, 5.0, 50.0, 500.0])
@pytest.mark.parametrize("mass", [muon_mass, 0.13957039])
def test_energy_loss_is_the_bethe_formula(p, mass):
    found = loss(*slab_of(SILICON, 0.3)[1:], *f32(p, mass)) / MeV
    expected = bethe_stopping_power(p * 1e3, mass * 1e3, SILICON.z_over_a, 1.0, SILICON.density, 173.0)
    assert found == pytest.approx(expected * SILICON.density * 0.03, rel=FLOAT32)


def test_energy_loss_hardly_jumps_where_the_density_effect_sets_in():
    slab = slab_of(SILICON, 0.3)
    below, above = (muon_loss(10 * muon_mass * f, slab) for f in (0.9999, 1.0001))
    assert below == pytest.approx(above, rel=0.06)
    assert below != pytest.approx(above, rel=1e-4)


@pytest.mark.parametrize(("p", "expected"), THETA0)
def test_scattering_angle_has_known_values(p, expected):
    assert muon_theta0(p, SILICON_TML.slab(0.5).thickness_in_x0) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("p", [0.1, 0.4, 3.0, 200.0])
@pytest.mark.parametrize("thickness", [1e-3, 0.02, 0.3])
def test_scattering_angle_is_highlands(p, thickness):
    assert muon_theta0(p, thickness) == pytest.approx(highland(p * 1e3, MUON_MEV, thickness), rel=FLOAT32)


def test_nothing_does_not_scatter():
    assert variance(*f32(0.0, 1.0, 1.0)) == 0.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_vacuum_changes_nothing(sign):
    x, c = state(2.0)
    found = passage(x, c + 1, Slab(*f32(0, 0, 0, 0)), sign=sign)
    assert found == (f32(*x), f32(*(c + 1)), True)


@pytest.mark.parametrize("charge", [-1.0, 1.0])
@pytest.mark.parametrize("p", [0.3, 1.0, 20.0])
def test_passage_takes_the_mean_loss_and_adds_noise(p, charge):
    theta, inverse_cosine, thickness = 1.0, 1.3, 0.4
    slab = slab_of(SILICON, thickness)
    x, c = state(p, theta, charge)
    c[:] = np.arange(1, 16) * 1e-6
    found_x, found_c, survives = passage(x, c, slab, theta, inverse_cosine)
    stopping = bethe_stopping_power(p * 1e3, MUON_MEV, SILICON.z_over_a, 1.0, SILICON.density, 173.0)
    lost = stopping * MeV * SILICON.density * (thickness / cm) * inverse_cosine
    energy = math.hypot(p, muon_mass) - lost
    assert survives
    assert found_x[:4] == f32(*x[:4])
    assert math.copysign(1, found_x[4]) == charge
    assert 1 / abs(found_x[4]) == pytest.approx(math.sqrt(energy**2 - muon_mass**2), rel=1e-6)
    theta0 = highland(p * 1e3, MUON_MEV, slab[0] * inverse_cosine)
    beta = p / math.hypot(p, muon_mass)
    # Half the full width 4 xi / beta^2 of a Landau distribution, read as a Gaussian; d(1/p) = dE / (beta p^2).
    sigma_energy = 4 * slab[1] * inverse_cosine / beta**2 / (2 * math.sqrt(2 * math.log(2)))
    noise = np.zeros(15)
    noise[5], noise[9] = (theta0 / math.sin(theta)) ** 2, theta0**2
    noise[14] = (sigma_energy / (beta * p**2)) ** 2
    assert np.array(found_c) == pytest.approx(c + noise, rel=1e-4)


def test_going_backwards_regains_the_loss_and_adds_noise():
    x, c = state(1.0)
    slab = slab_of(SILICON, 0.5)
    after, _, _ = passage(x, c, slab)
    before, noisy, _ = passage(after, c, slab, sign=-1.0)
    assert abs(after[4]) > abs(x[4])
    # The loss is taken at the lower momentum: a difference of second order.
    assert before[4] == pytest.approx(x[4], rel=2e-6)
    assert min(noisy[5], noisy[9], noisy[14]) > 0


def test_a_slow_particle_does_not_survive():
    x, c = state(0.02)
    assert not passage(x, c, slab_of(SILICON, 2.0))[2]
    assert passage(x, c, slab_of(SILICON, 2.0), sign=-1.0)[2]


def test_losses_and_noise_add_up_along_a_telescope():
    """11 planes of 1.7 mm silicon, 10 GeV: the case of detray's test."""
    n, p = 11, 10.0
    slab = slab_of(SILICON_TML, 1.7)
    x, c = state(p)
    for _ in range(n):
        x, c, _ = passage(x, c, slab)
    stopping = bethe_stopping_power(p * 1e3, MUON_MEV, 14, 28.03, 2.32, 173.0) * MeV * 2.32 * 0.17
    energy = math.hypot(p, muon_mass) - n * stopping
    assert math.hypot(1 / x[4], muon_mass) == pytest.approx(energy, abs=1e-5)
    variances = np.diag(reference.unpacked(np.array(c)))
    assert variances[3] == pytest.approx(n * highland(p * 1e3, MUON_MEV, 1.7 / 95.7) ** 2, rel=1e-2)
    assert variances[2] == pytest.approx(variances[3], rel=1e-6)
    xi = 0.5 * 0.307075 * MeV * 14 / 28.03 * 2.32 * 0.17
    sigma = 4 * xi / (2 * math.sqrt(2 * math.log(2))) / p**2
    assert variances[4] == pytest.approx(n * sigma**2, rel=1e-2)
    assert variances[:2] == pytest.approx([0, 0])
