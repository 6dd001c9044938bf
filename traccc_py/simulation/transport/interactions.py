"""Energy loss and multiple scattering in a thin slab, in float64.

Bethe's mean loss with the formula and constants of detray (as vendored by traccc v1.6.0), Highland's angle for all
particles: Review of Particle Physics 2022, sections 34.2.3 and 34.3. Electrons scatter off nuclei as muons of the same
p beta do; the larger width of Rossi and Greisen that detray and Acts give them is that of the whole distribution, tail
included.
"""

from __future__ import annotations

import math

from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.transport.straggling import largest_transfer
from traccc_py.units import electron_mass, highland_energy, highland_log

__all__ = ["highland_angle", "mean_energy_loss"]

_DENSITY_EFFECT_FROM = 10.0  # beta * gamma above which the asymptotic density effect is used


@compiled
def mean_energy_loss(p, mass, charge, xi, excitation_energy, plasma_energy):
    """Return the mean energy [GeV] lost in a slab; `xi` [GeV] is 0.5 K (Z/A) rho path."""
    if xi <= 0.0:
        return 0.0
    bg = p / mass
    gamma2 = 1.0 + bg * bg
    beta2 = bg * bg / gamma2
    w_max = largest_transfer(p, mass)
    half_delta = 0.0
    if bg >= _DENSITY_EFFECT_FROM:
        half_delta = math.log(bg * plasma_energy / excitation_energy) - 0.5
    bracket = 0.5 * math.log(2.0 * electron_mass * bg * bg * w_max / (excitation_energy * excitation_energy))
    return max(0.0, 2.0 * xi * charge * charge / beta2 * (bracket - beta2 - half_delta))


@compiled
def highland_angle(p, mass, charge, path_in_x0):
    """Return the rms [rad] of the scattering angle projected on a plane."""
    if path_in_x0 <= 0.0:
        return 0.0
    bg = p / mass
    beta2 = bg * bg / (1.0 + bg * bg)
    t2 = path_in_x0 * charge * charge / beta2
    return max(0.0, highland_energy / p * math.sqrt(t2) * (1.0 + highland_log * math.log(t2)))
