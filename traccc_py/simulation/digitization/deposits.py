"""Charge that a particle leaves along its path in a sensor: fluctuations in each channel, and delta rays.

Collisions with electrons are those of `transport.straggling`; the small ones have a width that the binding of silicon's
electrons adds. An electron of less than 50 keV stays in its channel. A faster one, a delta ray, flies straight, at the
angle of a collision with a free electron, until it has used up its range, and leaves its energy evenly on the way, as
far as that is in the sensor. Where delta rays are off, it leaves no more in its channel than an electron whose range is
the sensor's thickness.

Charges are kept as lengths: the most probable one of a minimum-ionising particle at normal incidence is the thickness.
Without fluctuations the charge of a delta ray, too, is its path length.

References
----------
PDG 2024, sections 34.2.7 to 34.2.9. Binding: P. Shulek et al., Sov. J. Nucl. Phys. 4 (1967) 400, with the shells of
silicon; S. Hancock et al., Nucl. Instrum. Methods B 1 (1984) 16, show that it is needed. Ranges of electrons: L. Katz,
A. S. Penfold, Rev. Mod. Phys. 24 (1952) 28: R = 0.412 T^(1.265 - 0.0954 ln T) g / cm^2, T in MeV.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from traccc_py.geometry.material.material import SILICON
from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.random_numbers import normal_pair, uniform_pair
from traccc_py.simulation.transport.straggling import LIMIT_PER_XI, largest_transfer, single_transfer, transfers_below
from traccc_py.units import MeV, electron_mass, keV

__all__ = [
    "DELTA_RAY",
    "SensorCharge",
    "Transfers",
    "core_charge",
    "delta_direction_cosine",
    "density_effect",
    "electron_range",
    "next_transfer",
    "sensor_charge",
    "transfers_in_silicon",
]

DELTA_RAY = 50.0 * keV  #: electrons from here on leave their channel
_SLAB = SILICON.slab(1.0)  # of a millimetre
_XI, _EXCITATION = _SLAB.bethe_xi, _SLAB.excitation_energy
_DENSITY = SILICON.density
_MM_PER_CM = 10.0
_SHELL_ENERGY = np.array([1839.0, 150.0, 99.0, 8.0]) * 1e-9  # 1s, 2s, 2p, 3s and 3p [GeV]
_SHELL_SHARE = np.array([2.0, 2.0, 6.0, 4.0]) / 14.0
_BINDING_FACTOR = 8.0 / 3.0
_MINIMUM_IONISING = 3.5  # beta gamma
_LANDAU_MODE = 0.2
_MODE_SHIFT = 0.4  # by which a Gaussian of a width of 1 to 2.5 xi moves Landau's mode, in its widths
# Density effect of silicon: R. M. Sternheimer, M. J. Berger, S. M. Seltzer, At. Data Nucl. Data Tables 30 (1984) 261
_C, _A, _K, _X0, _X1, _DELTA0 = 4.4351, 0.14921, 3.2546, 0.2014, 2.8715, 0.14
_RANGE, _RANGE_POWER, _RANGE_LOG = 0.412, 1.265, 0.0954
_MOST_ENERGETIC = 2.5 * MeV  # the formula's end; beyond, the range grows by as much per energy
_STREAM_CORE = 1 << 24
_STREAM_TRANSFERS = 1 << 25
_STREAM_SIZES = 1 << 26
_MAX_CORE = 3.0


class SensorCharge(NamedTuple):
    """How energy becomes charge in a design."""

    scale: Any  # (n_designs,) charge per energy [mm / GeV]
    escape: Any  # (n_designs,) energy of an electron whose range is the thickness [GeV]


class Transfers(NamedTuple):
    """Collisions with electrons in a path of silicon."""

    core: float  # mean loss in those below the limit [GeV / mm]
    variance: float  # of this loss [GeV^2 / mm]
    rate: float  # mean number of those above it [1 / mm]
    limit: float  # [GeV]
    largest: float  # [GeV]
    beta2: float


@compiled
def electron_range(energy):
    """Return the practical range [mm] of an electron in silicon."""
    mev = min(energy, _MOST_ENERGETIC) / MeV
    reach = _RANGE * mev ** (_RANGE_POWER - _RANGE_LOG * math.log(mev)) / _DENSITY * _MM_PER_CM
    return reach * max(1.0, energy / _MOST_ENERGETIC)


@compiled
def delta_direction_cosine(energy):
    """Return the cosine of the angle at which an electron leaves a collision with a fast particle."""
    return math.sqrt(energy / (energy + 2.0 * electron_mass))


@compiled
def density_effect(bg):
    """Return delta of silicon at beta gamma."""
    x = math.log10(bg)
    if x < _X0:
        return _DELTA0 * 10.0 ** (2.0 * (x - _X0))
    delta = 2.0 * math.log(bg) - _C
    return delta + _A * (_X1 - x) ** _K if x < _X1 else delta


@compiled
def _binding_variance(beta2):
    """Return the variance that the binding of electrons adds, per xi / beta^2 [GeV]."""
    total = 0.0
    for k in range(len(_SHELL_ENERGY)):
        log = math.log(2.0 * electron_mass * beta2 / _SHELL_ENERGY[k])
        total += _BINDING_FACTOR * _SHELL_SHARE[k] * _SHELL_ENERGY[k] * max(0.0, log)
    return total


def sensor_charge(thickness: np.ndarray) -> SensorCharge:
    """Return how energy becomes charge.

    Parameters
    ----------
    thickness : ndarray of shape (n_designs,)
        Of the sensors [mm].

    Returns
    -------
    SensorCharge
        Its scale follows from the most probable loss of PDG 2024, eq. 34.12, moved by the binding.
    """
    bg = _MINIMUM_IONISING
    beta2 = bg**2 / (1 + bg**2)
    xi = _XI * thickness / beta2
    log = np.log(2 * electron_mass * bg**2 / _EXCITATION) + np.log(xi / _EXCITATION)
    most_probable = xi * (log + _LANDAU_MODE - beta2 - density_effect(bg))
    most_probable += _MODE_SHIFT * np.sqrt(xi * _binding_variance(beta2))
    energy = np.geomspace(keV, _MOST_ENERGETIC, 400)
    ranges = np.array([electron_range(e) for e in energy])
    return SensorCharge(thickness / most_probable, np.interp(thickness, ranges, energy))


@compiled
def transfers_in_silicon(p, mass, path, are_small_counted):
    """Return the `Transfers` of a particle of charge 1 on a path [mm]; if not all, those of `DELTA_RAY` and more."""
    bg = p / mass
    beta2 = bg * bg / (1.0 + bg * bg)
    scale, largest = _XI / beta2, largest_transfer(p, mass)
    limit = min(LIMIT_PER_XI * scale * path if are_small_counted else DELTA_RAY, largest)
    bracket = 0.5 * math.log(2.0 * electron_mass * bg * bg * largest / (_EXCITATION * _EXCITATION))
    mean = max(0.0, 2.0 * scale * (bracket - beta2 - 0.5 * density_effect(bg)))
    core, variance = transfers_below(mean, scale, limit, largest, beta2)
    variance += scale * _binding_variance(beta2)
    return Transfers(core, variance, scale * (1.0 / limit - 1.0 / largest), limit, largest, beta2)


@compiled
def core_charge(transfers, path, key, identity, ordinal, channel):
    """Return the energy [GeV] of the small collisions on a path [mm] in one channel."""
    normal, _ = normal_pair(key, identity, channel, _STREAM_CORE + ordinal)
    normal = min(max(normal, -_MAX_CORE), _MAX_CORE)
    return max(0.0, transfers.core * path + normal * math.sqrt(transfers.variance * path))


@compiled
def next_transfer(transfers, key, identity, ordinal, number):
    """Return (path to it [mm], energy [GeV], azimuth) of the collision of a number; energy 0: it does not count."""
    step, kept = uniform_pair(key, identity, number, _STREAM_TRANSFERS + ordinal)
    chance, azimuth = uniform_pair(key, identity, number, _STREAM_SIZES + ordinal)
    path = -math.log(step) / transfers.rate if transfers.rate > 0.0 else np.inf
    energy = single_transfer(chance, transfers.limit, transfers.largest)
    if kept < transfers.beta2 * energy / transfers.largest:
        energy = 0.0
    return path, energy, 2.0 * math.pi * azimuth
