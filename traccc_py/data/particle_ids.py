"""Ids of particles: Acts barcodes in one number, as in older files, or in five columns, as in newer ones."""

from __future__ import annotations

import numpy as np

__all__ = ["BARCODE_BITS", "BARCODE_COLUMNS", "pack_particle_id", "unpack_particle_id"]

#: Fields of an Acts barcode in a file with five columns, highest bits of the packed number first.
BARCODE_COLUMNS = (
    "particle_id_pv",
    "particle_id_sv",
    "particle_id_part",
    "particle_id_gen",
    "particle_id_subpart",
)
BARCODE_BITS = (12, 12, 16, 8, 16)  #: of each field in the packed number
_SHIFTS = (52, 40, 24, 16, 0)


def pack_particle_id(
    primary: np.ndarray, secondary: np.ndarray, particle: np.ndarray, generation: np.ndarray, sub: np.ndarray
) -> np.ndarray:
    """Return the Acts barcode of particles, (n,) uint64.

    Parameters
    ----------
    primary : ndarray of shape (n,)
        Collision, from 1 (the hard one); 12 bits.
    secondary : ndarray of shape (n,)
        Vertex of a decay, 0 if there is none; 12 bits.
    particle : ndarray of shape (n,)
        Number in the collision; 16 bits.
    generation : ndarray of shape (n,)
        Interactions with material since the collision; 8 bits.
    sub : ndarray of shape (n,)
        Number in the interaction; 16 bits.
    """
    fields = np.broadcast_arrays(primary, secondary, particle, generation, sub)
    packed = np.zeros(fields[0].shape, np.uint64)
    for values, shift in zip(fields, _SHIFTS, strict=True):
        packed |= values.astype(np.uint64) << np.uint64(shift)
    return packed


def unpack_particle_id(packed: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fields of Acts barcodes, (n,) uint64 each, by the names of their columns."""
    ids = np.asarray(packed, np.uint64)
    return {
        name: (ids >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
        for name, bits, shift in zip(BARCODE_COLUMNS, BARCODE_BITS, _SHIFTS, strict=True)
    }
