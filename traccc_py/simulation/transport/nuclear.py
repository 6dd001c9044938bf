"""Inelastic nuclear interactions of hadrons: where they happen in a slab; the hadron is lost there.

The slabs of a detector store a thickness in radiation lengths and the energy scale xi of Bethe's formula. Their ratio,
0.5 K (Z/A) X0, distinguishes light from heavy materials, so the nuclear interaction length follows from it by
interpolation in a table of elements, exactly for these and within a few per cent for mixtures.

References
----------
PDG 2024, Atomic and Nuclear Properties of Materials: nuclear and pion interaction lengths, radiation lengths.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.random_numbers import uniform_pair

__all__ = ["hadron_strength", "is_absorbed"]

_STREAM_NUCLEAR = 3
_MESON_STRENGTH = 1.0 / 1.3  # pions: interaction lengths longer by 1.27 (Si) to 1.41 (Be)
_FIRST_BARYON_CODE = 1000
_LAST_LEPTON_CODE = 22  # and the photon's


def hadron_strength(codes: np.ndarray) -> np.ndarray:
    """Return the frequency of interactions of particles relative to a nucleon's.

    Parameters
    ----------
    codes : ndarray of shape (n,), int32
        PDG numbers.

    Returns
    -------
    ndarray of shape (n,), float64
        1 for baryons, 1 / 1.3 for mesons, 0 for leptons and photons.
    """
    size = np.abs(codes)
    return np.where(size <= _LAST_LEPTON_CODE, 0.0, np.where(size < _FIRST_BARYON_CODE, _MESON_STRENGTH, 1.0))


@compiled
def is_absorbed(depth, key, identity, draw):
    """Return whether a hadron interacts within `depth` interaction lengths."""
    chance, _ = uniform_pair(key, identity, draw, _STREAM_NUCLEAR)
    return chance > math.exp(-depth)
