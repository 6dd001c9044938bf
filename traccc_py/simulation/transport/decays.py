"""Decays of charged pions and kaons in flight.

Lifetimes, masses and branching ratios are the PDG's; rare channels are left out. Two-body decays are
exact; in those into three the momenta fill the phase space uniformly, without the form factors.

References
----------
PDG 2024, Summary Tables; section 49.4, Kinematics (eq. 49.17 to 49.20).
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled, compiled_entry
from traccc_py.simulation.random_numbers import uniform_pair
from traccc_py.simulation.transport.kinematics import (
    FIRST_PRODUCTS,
    NEUTRAL_PION,
    NEUTRAL_PION_MASS,
    add_product,
    momentum_in_rest,
    two_bodies,
)
from traccc_py.units import electron_mass, muon_mass, pion_mass

__all__ = ["DECAYING", "decay_products_of", "mean_paths", "proper_path"]

_PION, _KAON, _MUON, _ELECTRON, _NEUTRINO = 211, 321, 13, 11, 12
_KAON_MASS = 0.493677  # [GeV]
#: Mean proper path c tau of the particles that decay [mm], by PDG number.
DECAYING = {_PION: 7804.5, _KAON: 3711.4}
_STREAM_LIFE = 11
_STREAM_DECAY = 12
_TRIES = 200
# Channels of K+: share of all decays up to it; codes, masses of the products. The third is none in two-body decays.
_KAON_SHARES = np.cumsum([0.6356, 0.2067, 0.0558, 0.0507, 0.0335, 0.0176])
_KAON_SHARES /= _KAON_SHARES[-1]
_KAON_CODES = np.array(
    [
        (-_MUON, _NEUTRINO, 0),
        (_PION, NEUTRAL_PION, 0),
        (_PION, _PION, -_PION),
        (-_ELECTRON, NEUTRAL_PION, _NEUTRINO),
        (-_MUON, NEUTRAL_PION, _NEUTRINO),
        (_PION, NEUTRAL_PION, NEUTRAL_PION),
    ]
)
_KAON_MASSES = np.array(
    [
        (muon_mass, 0.0, 0.0),
        (pion_mass, NEUTRAL_PION_MASS, 0.0),
        (pion_mass, pion_mass, pion_mass),
        (electron_mass, NEUTRAL_PION_MASS, 0.0),
        (muon_mass, NEUTRAL_PION_MASS, 0.0),
        (pion_mass, NEUTRAL_PION_MASS, NEUTRAL_PION_MASS),
    ]
)


def mean_paths(codes: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return the mean path to the decay per momentum.

    Parameters
    ----------
    codes : ndarray of shape (n,), int32
        PDG numbers.
    masses : ndarray of shape (n,)
        Masses [GeV].

    Returns
    -------
    ndarray of shape (n,), float64
        c tau / m [mm / GeV]; inf for particles that do not decay here.
    """
    paths = np.full(len(codes), np.inf)
    for code, proper in DECAYING.items():
        is_code = np.abs(codes) == code
        paths[is_code] = proper / masses[is_code]
    return paths


@compiled
def proper_path(mean, key, identity):
    """Return the path to the decay per momentum of one particle."""
    chance, _ = uniform_pair(key, identity, 0, _STREAM_LIFE)
    return -mean * math.log(chance)


@compiled
def _pair_mass(mass, masses, key, identity):
    """Return the mass of the second and third of three products; its density is that of phase space."""
    low, high = masses[1] + masses[2], mass - masses[0]
    largest = momentum_in_rest(mass, masses[0], low) * momentum_in_rest(high, masses[1], masses[2])
    pair = 0.5 * (low + high)
    for k in range(_TRIES):
        place, chance = uniform_pair(key, identity, 8 + k, _STREAM_DECAY)
        pair = low + place * (high - low)
        weight = momentum_in_rest(mass, masses[0], pair) * momentum_in_rest(pair, masses[1], masses[2])
        if chance * largest < weight:
            break
    return pair


@compiled
def _decay(rows, n, vertex, code, frame, key, identity):
    sign = 1 if code > 0 else -1
    if abs(code) == _PION:
        muon, _ = two_bodies(frame, pion_mass, muon_mass, 0.0, _STREAM_DECAY, key, identity, 0)
        return add_product(rows, n, vertex, -sign * _MUON, muon, _STREAM_DECAY, key, identity, 0)
    chance, _ = uniform_pair(key, identity, 1, _STREAM_DECAY)
    channel = min(np.searchsorted(_KAON_SHARES, chance), len(_KAON_SHARES) - 1)
    codes, masses = _KAON_CODES[channel], _KAON_MASSES[channel]
    pair = masses[1]
    if codes[2] != 0:
        pair = _pair_mass(_KAON_MASS, masses, key, identity)
    first, second = two_bodies(frame, _KAON_MASS, masses[0], pair, _STREAM_DECAY, key, identity, 2)
    third = second
    if codes[2] != 0:
        second, third = two_bodies(second, pair, masses[1], masses[2], _STREAM_DECAY, key, identity, 3)
    for k, momentum in enumerate((first, second, third)):
        if codes[k] != 0 and codes[k] != _NEUTRINO:
            of_sign = codes[k] if codes[k] == NEUTRAL_PION else sign * codes[k]
            rows, n = add_product(rows, n, vertex, of_sign, momentum, _STREAM_DECAY, key, identity, 4 + k)
    return rows, n


@compiled_entry
def decay_products_of(codes, momenta, key, identities):
    """Return rows (PRODUCT_COLUMNS) of the visible products of pions and kaons that decay, ordered by vertex.

    Each has a PDG number, a momentum (3) [GeV], and its identity. Products are charged particles and photons.
    """
    rows = np.empty((FIRST_PRODUCTS, 5))
    n = 0
    for i in range(len(codes)):
        frame = (momenta[i, 0], momenta[i, 1], momenta[i, 2])
        rows, n = _decay(rows, n, i, codes[i], frame, key, identities[i])
    return rows[:n].copy()
