"""Counter-based random numbers: each is a pure function of seed and purpose, so threads and order don't matter.

Philox 4x32-10: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11, doi:10.1145/2063384.2063405.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled, compiled_entry

__all__ = ["event_key", "normal_pair", "normal_pairs", "philox4x32", "uniform_pair"]

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_DROPPED = np.uint64(11)  # a float64 holds 53 of 64 random bits
_UNIT = 2.0**-53
_ROUNDS = 10


def event_key(seed: int, event: int) -> np.uint64:
    """Return the key of one event's random numbers.

    Parameters
    ----------
    seed : int
        Seed of the sample, >= 0.
    event : int
        Event number, >= 0.

    Returns
    -------
    uint64
        Key, different for each (seed, event).
    """
    return np.random.SeedSequence((seed, event)).generate_state(1, np.uint64)[0]


@compiled
def philox4x32(c0, c1, c2, c3, key):
    """Return four random words [uint64 holding 32 bits] for a counter of four 32-bit words and a 64-bit key."""
    k0 = key & _MASK
    k1 = key >> _WORD
    for _ in range(_ROUNDS):
        product_0 = _MULTIPLIER_0 * c0
        product_1 = _MULTIPLIER_1 * c2
        c0 = (product_1 >> _WORD) ^ c1 ^ k0
        c1 = product_1 & _MASK
        c2 = (product_0 >> _WORD) ^ c3 ^ k1
        c3 = product_0 & _MASK
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


@compiled
def uniform_pair(key, identity, draw, stream):
    """Return two numbers in (0, 1) for draw number `draw` of object `identity` in `stream`."""
    name = np.uint64(identity)
    w0, w1, w2, w3 = philox4x32(name & _MASK, name >> _WORD, np.uint64(draw) & _MASK, np.uint64(stream) & _MASK, key)
    first = np.float64(((w0 << _WORD) | w1) >> _DROPPED) * _UNIT
    second = np.float64(((w2 << _WORD) | w3) >> _DROPPED) * _UNIT
    return first + 0.5 * _UNIT, second + 0.5 * _UNIT


@compiled
def normal_pair(key, identity, draw, stream):
    """Return two independent standard normal numbers (Box and Muller)."""
    first, second = uniform_pair(key, identity, draw, stream)
    radius = math.sqrt(-2.0 * math.log(first))
    angle = 2.0 * math.pi * second
    return radius * math.cos(angle), radius * math.sin(angle)


@compiled_entry
def normal_pairs(key, identities, draws, stream):
    """Return standard normal numbers, shape (n, 2): `normal_pair` for each of n identities and draws."""
    out = np.empty((len(identities), 2))
    for i in range(len(identities)):
        out[i, 0], out[i, 1] = normal_pair(key, identities[i], draws[i], stream)
    return out
