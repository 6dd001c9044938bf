"""Bremsstrahlung of electrons and conversion of photons in thin slabs, in the limit of complete screening.

References
----------
PDG 2024, sections 34.4.2 (spectrum of photons, eq. 34.30) and 34.4.3 (pair production, eq. 34.32).
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled, compiled_entry
from traccc_py.simulation.random_numbers import uniform_pair

__all__ = ["conversion_depth", "electron_fractions", "radiated_fractions"]

_STREAM_EMISSION = 4
_STREAM_CONVERSION = 5
_STREAM_SHARE = 6
_SOFTEST = 0.01  # photons below this fraction of the energy only add to the mean loss
_TRIES = 16  # of the rejection, which accepts 0.75 or more each time
_FOUR_THIRDS = 4.0 / 3.0
# photons above _SOFTEST per radiation length, and energy lost to those below it
_RATE = _FOUR_THIRDS * (-math.log(_SOFTEST) - 1.0 + _SOFTEST) + 0.5 * (1.0 - _SOFTEST**2)
_SOFT_LOSS = _FOUR_THIRDS * _SOFTEST
_PER_RADIATION_LENGTH = 7.0 / 9.0
_FLAT_PART = 6.0 / 7.0  # of 1 - 4/3 x (1 - x) = 2/3 + 1/3 (1 - 2x)^2


@compiled
def radiated_fractions(path_in_x0, key, identity, draw):
    """Return the fractions of its energy that an electron keeps in a slab and that its hard photon has, if any.

    At most one is emitted in a slab.
    """
    kept = 1.0 - _SOFT_LOSS * path_in_x0
    chance, _ = uniform_pair(key, identity, draw, _STREAM_EMISSION)
    if chance > 1.0 - math.exp(-_RATE * path_in_x0):
        return kept, 0.0
    for k in range(1, _TRIES):
        first, second = uniform_pair(key, identity, draw * _TRIES + k, _STREAM_EMISSION + (1 << 16))
        photon = _SOFTEST ** (1.0 - first)
        if second <= 1.0 - photon + 0.75 * photon * photon:
            return kept * (1.0 - photon), kept * photon
    return kept, 0.0


@compiled
def conversion_depth(key, identity):
    """Return the depth [radiation lengths] at which a photon converts."""
    chance, _ = uniform_pair(key, identity, 0, _STREAM_CONVERSION)
    return -math.log(chance) / _PER_RADIATION_LENGTH


@compiled_entry
def electron_fractions(key, identities):
    """Return the fraction of each converted photon's energy carried by its electron, shape (n,)."""
    out = np.empty(len(identities))
    for i in range(len(identities)):
        choice, chance = uniform_pair(key, identities[i], 0, _STREAM_SHARE)
        out[i] = chance
        if choice > _FLAT_PART:
            out[i] = 0.5 * (1.0 + math.copysign(abs(2.0 * chance - 1.0) ** (1.0 / 3.0), 2.0 * chance - 1.0))
    return out
