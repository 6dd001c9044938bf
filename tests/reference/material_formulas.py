"""Energy loss and scattering written out from the Review of Particle Physics, in MeV and cm. Slow, float64."""

from __future__ import annotations

import numpy as np

ELECTRON_MASS = 0.51099895069  # [MeV]
K = 0.307075  # [MeV cm^2 / mol]


def bethe_stopping_power(p, mass, z, a, density, excitation_energy_ev):
    """Return -dE/dx / density [MeV cm^2 / g] for unit charge; p, mass in MeV. Asymptotic density effect above bg 10."""
    bg = p / mass
    gamma = np.sqrt(1 + bg**2)
    beta2 = bg**2 / gamma**2
    excitation = excitation_energy_ev * 1e-6
    w_max = 2 * ELECTRON_MASS * bg**2 / (1 + 2 * gamma * ELECTRON_MASS / mass + (ELECTRON_MASS / mass) ** 2)
    plasma = 28.816e-6 * np.sqrt(density * z / a)
    half_delta = np.where(bg < 10, 0.0, np.log(plasma / excitation) + np.log(bg) - 0.5)
    logarithm = 0.5 * np.log(2 * ELECTRON_MASS * bg**2 * w_max / excitation**2)
    return K * z / a / beta2 * (logarithm - beta2 - half_delta)


def highland(p, mass, x_over_x0):
    """Return theta0 [rad] for unit charge; p, mass in MeV."""
    beta = p / np.hypot(p, mass)
    return 13.6 / (beta * p) * np.sqrt(x_over_x0) * (1 + 0.038 * np.log(x_over_x0 / beta**2))
