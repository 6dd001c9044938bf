"""Scattering and energy loss in thin slabs.

Sources: Highland's formula and the Bethe formula as in PDG 2024, sections 34.2 and 34.3; widths of the energy loss as
traccc v1.6.0 / detray take them (Landau full width at half maximum 4 xi, read as a Gaussian).
"""

from __future__ import annotations

import math

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import HALF, ONE, TWO, ZERO
from traccc_py.kernels.tracking.state import BoundParameters, Covariance
from traccc_py.units import electron_mass, highland_energy, highland_log

__all__ = ["energy_loss", "interact", "scattering_variance"]

_HIGHLAND_SCALE = scalar(highland_energy)
_HIGHLAND_LOG = scalar(highland_log)
_ELECTRON_MASS = scalar(electron_mass)
_TWICE_ELECTRON_MASS = scalar(2 * electron_mass)
_DENSITY_EFFECT_FROM = scalar(10)  # beta gamma
_FWHM_TO_SIGMA = scalar(4 * HALF / math.sqrt(2 * math.log(2)))  # 4 xi is the full width of a Landau distribution


@device_function
def scattering_variance(thickness_in_x0, p, beta2):
    """Return the variance [rad^2] of the projected scattering angle."""
    t = thickness_in_x0 / beta2
    if not t > ZERO:
        return ZERO * p
    theta0 = _HIGHLAND_SCALE / p * math.sqrt(t) * (ONE + _HIGHLAND_LOG * math.log(t))
    return theta0 * theta0


@device_function
def energy_loss(xi, excitation, plasma, p, mass):
    """Return the mean energy loss [GeV] of a heavy particle; xi is that of the traversed path at beta = 1 [GeV]."""
    bg = p / mass
    bg2 = bg * bg
    beta2 = bg2 / (ONE + bg2)
    ratio = _ELECTRON_MASS / mass
    gamma = math.sqrt(ONE + bg2)
    most = _TWICE_ELECTRON_MASS * bg2 / (ONE + TWO * gamma * ratio + ratio * ratio)
    log = HALF * (math.log(_TWICE_ELECTRON_MASS * bg2 / excitation) + math.log(most / excitation))
    if bg > _DENSITY_EFFECT_FROM:
        log = log - (math.log(bg * plasma / excitation) - HALF)
    return TWO * xi / beta2 * (log - beta2)


@device_function
def _with_noise(c, scattering, sin_theta, sigma_qop):
    """Return a covariance with the variance of the scattering angle and of q/p added."""
    return Covariance(
        loc0_loc0=c.loc0_loc0,
        loc1_loc0=c.loc1_loc0,
        loc1_loc1=c.loc1_loc1,
        phi_loc0=c.phi_loc0,
        phi_loc1=c.phi_loc1,
        phi_phi=c.phi_phi + scattering / (sin_theta * sin_theta),
        theta_loc0=c.theta_loc0,
        theta_loc1=c.theta_loc1,
        theta_phi=c.theta_phi,
        theta_theta=c.theta_theta + scattering,
        qop_loc0=c.qop_loc0,
        qop_loc1=c.qop_loc1,
        qop_phi=c.qop_phi,
        qop_theta=c.qop_theta,
        qop_qop=c.qop_qop + sigma_qop * sigma_qop,
    )


@device_function
def interact(x, c, slab, inverse_cosine, sin_theta, mass, sign):
    """Return parameters and covariance after a slab, and whether the particle survives.

    `sign` is +1 along the direction of flight (energy is lost) and -1 against it (regained); noise is added either way.
    """
    if not slab.thickness_in_x0 > ZERO:
        return x, c, True
    p = ONE / abs(x.qop)
    beta2 = p * p / (p * p + mass * mass)
    scattering = scattering_variance(slab.thickness_in_x0 * inverse_cosine, p, beta2)
    xi = slab.bethe_xi * inverse_cosine
    loss = energy_loss(xi, slab.excitation_energy, slab.plasma_energy, p, mass)
    energy = math.sqrt(p * p + mass * mass) - sign * loss
    if not energy > mass:
        return x, c, False
    p_after = math.sqrt((energy - mass) * (energy + mass))
    sigma_energy = _FWHM_TO_SIGMA * xi / beta2
    sigma_qop = sigma_energy / (math.sqrt(beta2) * p * p)
    qop = ONE / p_after if x.qop > ZERO else -ONE / p_after
    c = _with_noise(c, scattering, sin_theta, sigma_qop)
    return BoundParameters(x.loc0, x.loc1, x.phi, x.theta, qop), c, True
