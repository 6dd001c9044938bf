"""Scattering and energy loss in thin slabs.

Sources: Highland's formula and the Bethe formula as in PDG 2024, sections 34.2 and 34.3; widths of the energy loss as
traccc v1.6.0 / detray take them (Landau full width at half maximum 4 xi, read as a Gaussian).
"""

from __future__ import annotations

import math

from traccc_py.device.kernel import device_function, scalar
from traccc_py.units import MeV, electron_mass

__all__ = ["energy_loss", "interact", "scattering_variance"]

_ZERO = scalar(0)
_HALF = scalar(0.5)
_ONE = scalar(1)
_TWO = scalar(2)
_HIGHLAND_SCALE = scalar(13.6 * MeV)  # [GeV]
_HIGHLAND_LOG = scalar(0.038)
_ELECTRON_MASS = scalar(electron_mass)
_TWICE_ELECTRON_MASS = scalar(2 * electron_mass)
_DENSITY_EFFECT_FROM = scalar(10)  # beta gamma
_FWHM_TO_SIGMA = scalar(4 * _HALF / math.sqrt(2 * math.log(2)))  # 4 xi is the full width of a Landau distribution


@device_function
def scattering_variance(thickness_in_x0, p, beta2):
    """Return the variance [rad^2] of the projected scattering angle."""
    t = thickness_in_x0 / beta2
    if not t > _ZERO:
        return _ZERO * p
    theta0 = _HIGHLAND_SCALE / p * math.sqrt(t) * (_ONE + _HIGHLAND_LOG * math.log(t))
    return theta0 * theta0


@device_function
def energy_loss(xi, excitation, plasma, p, mass):
    """Return the mean energy loss [GeV] of a heavy particle; xi is that of the traversed path at beta = 1 [GeV]."""
    bg = p / mass
    bg2 = bg * bg
    beta2 = bg2 / (_ONE + bg2)
    ratio = _ELECTRON_MASS / mass
    gamma = math.sqrt(_ONE + bg2)
    most = _TWICE_ELECTRON_MASS * bg2 / (_ONE + _TWO * gamma * ratio + ratio * ratio)
    log = _HALF * (math.log(_TWICE_ELECTRON_MASS * bg2 / excitation) + math.log(most / excitation))
    if bg > _DENSITY_EFFECT_FROM:
        log = log - (math.log(bg * plasma / excitation) - _HALF)
    return _TWO * xi / beta2 * (log - beta2)


@device_function
def interact(x, c, slab, inverse_cosine, sin_theta, mass, sign):
    """Return parameters and covariance after a slab, and whether the particle survives.

    `slab` = (thickness / X0, xi, excitation energy, plasma energy) for perpendicular passage. `sign` is +1 along the
    direction of flight (energy is lost) and -1 against it (regained); noise is added either way.
    """
    if not slab[0] > _ZERO:
        return x, c, True
    p = _ONE / abs(x[4])
    beta2 = p * p / (p * p + mass * mass)
    variance = scattering_variance(slab[0] * inverse_cosine, p, beta2)
    xi = slab[1] * inverse_cosine
    energy = math.sqrt(p * p + mass * mass) - sign * energy_loss(xi, slab[2], slab[3], p, mass)
    if not energy > mass:
        return x, c, False
    p_after = math.sqrt((energy - mass) * (energy + mass))
    sigma_energy = _FWHM_TO_SIGMA * xi / beta2
    sigma_qop = sigma_energy / (math.sqrt(beta2) * p * p)
    qop = _ONE / p_after if x[4] > _ZERO else -_ONE / p_after
    c = (
        c[0], c[1], c[2], c[3], c[4], c[5] + variance / (sin_theta * sin_theta), c[6], c[7], c[8], c[9] + variance,
        c[10], c[11], c[12], c[13], c[14] + sigma_qop * sigma_qop,
    )  # fmt: skip
    return (x[0], x[1], x[2], x[3], qop), c, True
