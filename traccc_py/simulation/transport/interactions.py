"""Energy loss and multiple scattering in a thin slab, in float64.

Bethe's mean loss and Highland's angle with the formulas and constants of detray (as vendored by traccc v1.6.0):
Review of Particle Physics 2022, sections 34.2.3 and 34.3.
"""

from __future__ import annotations

import math

from traccc_py.simulation.compiled import compiled
from traccc_py.units import MeV, electron_mass, highland_energy, highland_log

__all__ = ["highland_angle", "mean_energy_loss", "straggling_sigma"]

_ROSSI_GREISEN_ENERGY = 17.5 * MeV  # electrons
_ROSSI_GREISEN_LOG = 0.125
_DENSITY_EFFECT_FROM = 10.0  # beta * gamma above which the asymptotic density effect is used
_FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


@compiled
def mean_energy_loss(p, mass, charge, xi, excitation_energy, plasma_energy):
    """Return the mean energy [GeV] lost in a slab; `xi` [GeV] is 0.5 K (Z/A) rho path."""
    if xi <= 0.0:
        return 0.0
    bg = p / mass
    gamma2 = 1.0 + bg * bg
    beta2 = bg * bg / gamma2
    ratio = electron_mass / mass
    w_max = 2.0 * electron_mass * bg * bg / (1.0 + 2.0 * math.sqrt(gamma2) * ratio + ratio * ratio)
    half_delta = 0.0
    if bg >= _DENSITY_EFFECT_FROM:
        half_delta = math.log(bg * plasma_energy / excitation_energy) - 0.5
    bracket = 0.5 * math.log(2.0 * electron_mass * bg * bg * w_max / (excitation_energy * excitation_energy))
    return max(0.0, 2.0 * xi * charge * charge / beta2 * (bracket - beta2 - half_delta))


@compiled
def straggling_sigma(p, mass, charge, xi):
    """Return the width [GeV] of the energy loss: a Gaussian of Landau's full width at half maximum, 4 xi / beta^2."""
    bg = p / mass
    beta2 = bg * bg / (1.0 + bg * bg)
    return 4.0 * xi * charge * charge / beta2 / _FWHM_PER_SIGMA


@compiled
def highland_angle(p, mass, charge, path_in_x0, is_electron):
    """Return the rms [rad] of the scattering angle projected on a plane."""
    if path_in_x0 <= 0.0:
        return 0.0
    bg = p / mass
    beta2 = bg * bg / (1.0 + bg * bg)
    t2 = path_in_x0 * charge * charge / beta2
    if is_electron:
        return _ROSSI_GREISEN_ENERGY / p * math.sqrt(t2) * (1.0 + _ROSSI_GREISEN_LOG * math.log10(10.0 * path_in_x0))
    return max(0.0, highland_energy / p * math.sqrt(t2) * (1.0 + highland_log * math.log(t2)))
