"""Tails of scattering and fluctuations of the energy loss against their theories."""

import numba
import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.special import k1
from scipy.stats import landau

from traccc_py.geometry.material.material import BERYLLIUM, CARBON_FIBRE, SILICON
from traccc_py.simulation.random_numbers import event_key, normal_pairs
from traccc_py.simulation.transport.interactions import highland_angle, mean_energy_loss
from traccc_py.simulation.transport.single_scattering import single_scatter, tail_limits
from traccc_py.simulation.transport.straggling import straggled_loss
from traccc_py.units import MeV, cm, electron_mass, keV, muon_mass

N = 400_000
KEY = event_key(9, 0)


@numba.njit
def _losses(mean, p, mass, xi, key, n):
    out = np.empty(n)
    for i in range(n):
        out[i] = straggled_loss(mean, p, mass, 1.0, xi, key, np.uint64(i), 0)
    return out


@numba.njit
def _tails(p, mass, x0, xi, theta0, key, n):
    out = np.empty(n)
    for i in range(n):
        angle, azimuth = single_scatter(p, mass, 1.0, x0, xi, theta0, key, np.uint64(i), 0)
        out[i] = angle * np.cos(azimuth)
    return out


def _beyond(characteristic2, screening2, angles):
    """Return Moliere's chance of a larger projected angle: the exact sum over screened Rutherford scatters.

    H. A. Bethe, Phys. Rev. 89 (1953) 1256, eq. 10: the transform of the single-scattering law, here for one projection.
    """
    screening = np.sqrt(screening2)
    wave = np.linspace(0, 14 / np.sqrt(characteristic2), 40_001)[1:]
    transform = np.exp(-characteristic2 / screening2 * (1 - screening * wave * k1(screening * wave)))
    within = [simpson(np.sin(wave * a) / wave * transform, x=wave) + transform[0] * a * wave[0] for a in angles]
    return 1 - 2 / np.pi * np.array(within)


@pytest.mark.parametrize(
    ("material", "z", "x0", "p"),
    [(SILICON, 14, 0.015, 1.0), (SILICON, 14, 0.04, 0.3), (BERYLLIUM, 4, 0.0023, 1.0), (CARBON_FIBRE, 6, 0.01, 5.0)],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_core_and_tail_are_molieres_distribution(material, z, x0, p):
    slab = material.slab(x0 * material.radiation_length)
    theta0 = highland_angle(p, muon_mass, 1.0, x0)
    core = theta0 * normal_pairs(KEY, np.arange(N, dtype=np.uint64), np.zeros(N, np.int64), 1)[:, 0]
    angle = core + _tails(p, muon_mass, x0, slab.bethe_xi, theta0, KEY, N)
    # Highland's width is the rms of the central 98 % (PDG 2024, section 34.3)
    central = np.sort(np.abs(angle))[: int(0.98 * N)]
    assert np.sqrt(np.mean(central**2)) == pytest.approx(theta0, rel=0.03)
    beta2 = p**2 / (p**2 + muon_mass**2)
    characteristic2 = 0.157 * MeV**2 * (z + 1) * slab.bethe_xi / 0.1535375e-3 / (p**2 * beta2)
    screening2 = 2.007e-5 * MeV**2 * z ** (2 / 3) * (1 + 3.34 * (z / 137) ** 2 / beta2) / p**2
    widths = np.array([0.5, 1.0, 2.0, 3.0, 5.0, 10.0])
    expected = _beyond(characteristic2, screening2, widths * theta0)
    found = np.array([np.mean(np.abs(angle) > w * theta0) for w in widths])
    # the nucleus' size takes away the largest angles, which Moliere's pointlike one has
    assert found[:5] == pytest.approx(expected[:5], rel=0.23)
    assert found[:2] == pytest.approx(expected[:2], rel=0.09)  # Highland is good to 11 %
    assert 0.4 * expected[5] < found[5] < 1.1 * expected[5]


def test_tail_is_rutherfords_and_ends_at_the_size_of_the_nucleus():
    slab = SILICON.slab(0.02 * SILICON.radiation_length)
    theta0 = highland_angle(1.0, muon_mass, 1.0, 0.02)
    mean, smallest, largest = tail_limits(1.0, muon_mass, 1.0, 0.02, slab.bethe_xi, theta0)
    assert 0.03 < mean < 0.06
    assert 1.8 < smallest / theta0 < 2.5
    assert largest == pytest.approx(0.197 / (1.2 * 28.1 ** (1 / 3)), rel=0.03)  # hbar / (p R)
    # dN / dOmega = (2 Z alpha / (p beta theta^2))^2 nuclei per area: that of 2 sin(theta / 2) for small angles
    beta2 = 1 / (1 + muon_mass**2)
    nuclei = 6.02214e23 / 28.0855 * 2.329 * 0.02 * SILICON.radiation_length / cm
    area = np.pi * (2 * 14 * 15**0.5 / 14**0.5 / 137.036 * 0.19733e-13 / np.sqrt(beta2)) ** 2
    above = nuclei * area * (1 / smallest**2 - 1 / largest**2)
    assert mean == pytest.approx(above, rel=0.02)


@pytest.mark.parametrize(("p", "thickness"), [(0.3, 0.125), (1.0, 0.125), (10.0, 1.7), (100.0, 0.3)])
def test_losses_in_silicon_are_landaus(p, thickness):
    slab = SILICON.slab(thickness)
    mean = mean_energy_loss(p, muon_mass, 1.0, *slab[1:])
    loss = _losses(mean, p, muon_mass, slab.bethe_xi, KEY, N)
    bg = p / muon_mass
    beta2 = bg**2 / (1 + bg**2)
    xi = slab.bethe_xi / beta2
    delta = 2 * np.log(bg * slab.plasma_energy / slab.excitation_energy) - 1 if bg > 10 else 0
    # PDG 2024, eq. 34.12
    excitation = slab.excitation_energy
    most_probable = xi * (
        np.log(2 * electron_mass * bg**2 / excitation) + np.log(xi / excitation) + 0.2 - beta2 - delta
    )
    counts, edges = np.histogram(loss / xi, np.arange(0, 80, 0.5))
    assert 0.5 * (edges[counts.argmax()] + edges[counts.argmax() + 1]) == pytest.approx(most_probable / xi, abs=0.5)
    quantiles = [0.02, 0.1, 0.25, 0.5, 0.75, 0.9]
    unit = np.pi / 2  # of SciPy's variable
    grid = np.linspace(-5, 5, 20_001)
    expected = landau.ppf(quantiles, scale=unit) - grid[landau.pdf(grid, scale=unit).argmax()]
    assert np.quantile((loss - most_probable) / xi, quantiles) == pytest.approx(expected, abs=0.25, rel=0.03)


def test_loss_of_slow_particles_is_gaussian_with_bethes_mean_and_bohrs_width():
    # protons of 0.3 GeV in 1 mm: xi is above the largest transfer, the regime of Vavilov and Gauss
    p, mass = 0.3, 0.938272
    slab = SILICON.slab(1.0)
    mean = mean_energy_loss(p, mass, 1.0, *slab[1:])
    loss = _losses(mean, p, mass, slab.bethe_xi, KEY, N)
    beta2 = p**2 / (p**2 + mass**2)
    largest = 2 * electron_mass * (p / mass) ** 2
    width = np.sqrt(slab.bethe_xi / beta2 * largest * (1 - beta2 / 2))  # PDG 2024, section 34.2.9: N. Bohr
    assert loss.mean() == pytest.approx(mean, rel=0.002)
    assert loss.std() == pytest.approx(width, rel=0.02)
    third = slab.bethe_xi / beta2 * largest**2 / 2 * (1 - 2 * beta2 / 3)  # its third moment, integrated
    assert np.mean((loss - loss.mean()) ** 3) == pytest.approx(third, rel=0.06)


def test_number_of_delta_rays_is_that_of_the_formula():
    # 0.3 mm of silicon, 5 GeV muons: transfers above 1 MeV show as losses far above the rest
    slab = SILICON.slab(0.3)
    mean = mean_energy_loss(5.0, muon_mass, 1.0, *slab[1:])
    loss = _losses(mean, 5.0, muon_mass, slab.bethe_xi, KEY, N)
    above = 1000 * keV
    assert np.mean(loss > above + 100 * keV) == pytest.approx(slab.bethe_xi / above, rel=0.12)
