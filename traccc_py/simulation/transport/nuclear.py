"""Interactions of hadrons with nuclei: whether a hadron scatters or breaks up in a slab, and how it scatters.

Cross-sections are the PDG's nuclear lengths, for nucleons of some 100 GeV, times a ratio that follows from the hadron's
cross-section on nucleons: Grichine's form of Glauber's theory, total ~ ln(1 + x), absorption ~ ln(1 + 2.4 x) / 2.4 with
x = A sigma / (2 pi R^2). What is not absorption is elastic scattering off the nucleus, ~ exp(-b t) with b = 14.5 A^0.66
GeV^-2, or, for a fifth, off a single nucleon of it, b = 10 GeV^-2.

References
----------
PDG 2024, Atomic and Nuclear Properties of Materials, and Plots of Cross Sections: total ones of pi, K, p, pbar on p and
n, averaged, read to about 10 %. V. M. Grichine, Eur. Phys. J. C 62 (2009) 399; Nucl. Instrum. Methods B 267 (2009)
2460. Slopes: H. Fesefeldt, PITHA 85/02 (GHEISHA); coherent and incoherent scattering: G. Bellettini et al., Nucl. Phys.
79 (1966) 609.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.random_numbers import uniform_pair

__all__ = ["ABSORBED", "PASSED", "SCATTERED", "fate_in_nuclei", "hadron_kinds", "nuclear_strengths", "scatter"]

PASSED, SCATTERED, ABSORBED = 0, 1, 2  #: what happens in a slab

_STREAM_NUCLEAR = 3
_STREAM_SCATTER = 9
_FIRST_BARYON_CODE = 1000
_LAST_LEPTON_CODE = 22  # and the photon's
_KAON = 321
_NO_HADRON, _BARYON, _ANTIBARYON, _MESON, _KAON_PLUS, _KAON_MINUS = -1, 0, 1, 2, 3, 4
# Total cross-section on a nucleon [mb] by momentum [GeV]: p, pbar, pi, K+, K-
_MOMENTUM = np.array([0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 200.0])
_SIGMA = np.array(
    [
        (200.0, 120.0, 60.0, 43.0, 31.0, 30.0, 42.0, 43.0, 43.0, 41.5, 40.0, 39.0, 38.5, 39.0),
        (300.0, 220.0, 190.0, 165.0, 140.0, 115.0, 98.0, 89.0, 76.0, 64.0, 53.0, 48.0, 43.5, 41.5),
        (50.0, 135.0, 65.0, 34.0, 30.0, 42.0, 37.0, 33.0, 31.0, 27.5, 25.4, 24.2, 23.6, 24.0),
        (12.0, 12.0, 12.5, 13.0, 13.5, 17.5, 18.3, 17.8, 17.6, 17.4, 17.4, 17.6, 18.3, 20.0),
        (80.0, 65.0, 75.0, 45.0, 38.0, 45.0, 31.0, 28.0, 25.0, 22.5, 21.0, 20.2, 19.9, 20.8),
    ]
)
_LOG_MOMENTUM = np.log(_MOMENTUM)
_SIGMA_OF_LENGTHS = 38.5  # [mb], that of the nucleons for which the PDG's lengths are
_SHADOW = 0.035  # A / (2 pi R^2) [1 / mb] between carbon and silicon: the ratios hardly depend on it
_INELASTIC = 2.4
_COHERENT_SLOPE, _COHERENT_POWER = 14.5, 0.66  # [GeV^-2]
_NUCLEON_SLOPE = 10.0  # [GeV^-2]
_INCOHERENT = 0.2  # share of scatters off single nucleons
_ATOMIC_MASS = 0.9315  # [GeV]
_SMALLEST_P2 = 1e-12  # [GeV^2]


def hadron_kinds(codes: np.ndarray) -> np.ndarray:
    """Return which cross-section applies to particles.

    Parameters
    ----------
    codes : ndarray of shape (n,), int32
        PDG numbers.

    Returns
    -------
    ndarray of shape (n,), int64
        -1 for leptons and photons, which have none.
    """
    size = np.abs(codes)
    kaon = np.where(codes > 0, _KAON_PLUS, _KAON_MINUS)
    meson = np.where(size == _KAON, kaon, _MESON)
    baryon = np.where(codes > 0, _BARYON, _ANTIBARYON)
    hadron = np.where(size < _FIRST_BARYON_CODE, meson, baryon)
    return np.where(size <= _LAST_LEPTON_CODE, _NO_HADRON, hadron).astype(np.int64)


@compiled
def _total(sigma):
    return math.log(1.0 + _SHADOW * sigma)


@compiled
def _absorption(sigma):
    return math.log(1.0 + _INELASTIC * _SHADOW * sigma) / _INELASTIC


@compiled
def nuclear_strengths(kind, p):
    """Return the cross-sections of absorption and of scattering of a hadron relative to those of a fast nucleon."""
    sigma = np.interp(math.log(p), _LOG_MOMENTUM, _SIGMA[kind])
    absorption, of_nucleon = _absorption(sigma), _absorption(_SIGMA_OF_LENGTHS)
    return absorption / of_nucleon, (_total(sigma) - absorption) / (_total(_SIGMA_OF_LENGTHS) - of_nucleon)


@compiled
def fate_in_nuclei(kind, p, nuclei, cosine, does_scatter, key, identity, draw):
    """Return whether a hadron that crosses a slab has PASSED, SCATTERED or is ABSORBED."""
    absorption, scattering = nuclear_strengths(kind, p)
    absorbed = absorption * nuclei.depth / cosine
    scattered = scattering * nuclei.depth * nuclei.not_absorbed / cosine if does_scatter else 0.0
    chance, choice = uniform_pair(key, identity, draw, _STREAM_NUCLEAR)
    if chance <= math.exp(-absorbed - scattered):
        return PASSED
    return ABSORBED if choice * (absorbed + scattered) < absorbed else SCATTERED


@compiled
def scatter(p, mass, mass_number, key, identity, draw):
    """Return (momentum after, cosine of the angle, azimuth) of a hadron that scatters off a nucleus at rest."""
    which, azimuth = uniform_pair(key, identity, 2 * draw, _STREAM_SCATTER)
    chance, _ = uniform_pair(key, identity, 2 * draw + 1, _STREAM_SCATTER)
    slope, target = _COHERENT_SLOPE * mass_number**_COHERENT_POWER, mass_number * _ATOMIC_MASS
    if which < _INCOHERENT:
        slope, target = _NUCLEON_SLOPE, _ATOMIC_MASS
    energy = math.sqrt(p * p + mass * mass)
    p_star2 = (p * target) ** 2 / (target * target + mass * mass + 2.0 * energy * target)
    t = -math.log(1.0 - chance * (1.0 - math.exp(-4.0 * slope * p_star2))) / slope
    after = energy - 0.5 * t / target
    p_after = math.sqrt(max(after * after - mass * mass, _SMALLEST_P2))
    cosine = (energy * after - mass * mass - 0.5 * t) / (p * p_after)
    return p_after, min(1.0, max(-1.0, cosine)), 2.0 * math.pi * azimuth
