"""Numbers that kernels and the host share: components of track parameters, packed covariances, outcomes of fits."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = [
    "FEWEST_SPACEPOINTS",
    "LOC0",
    "LOC1",
    "N_COVARIANCE",
    "N_PARAMETERS",
    "PHI",
    "QOP",
    "THETA",
    "FitOutcome",
    "packed_index",
    "unpack_covariance",
]

# Components of bound track parameters.
LOC0, LOC1, PHI, THETA, QOP = range(5)
N_PARAMETERS = 5
FEWEST_SPACEPOINTS = 3  #: of a track candidate
N_COVARIANCE = 15  #: stored elements of a symmetric 5 x 5 matrix: the lower triangle, row by row


def packed_index(row: int, column: int) -> int:
    """Return where element (row, column) of a symmetric matrix stands among its stored elements."""
    low, high = sorted((row, column))
    return high * (high + 1) // 2 + low


def unpack_covariance(packed: np.ndarray) -> np.ndarray:
    """Return full covariance matrices.

    Parameters
    ----------
    packed : ndarray of shape (n, 15)
        Lower triangles, row by row.

    Returns
    -------
    ndarray of shape (n, 5, 5)
        Symmetric matrices.
    """
    index = [[packed_index(r, c) for c in range(N_PARAMETERS)] for r in range(N_PARAMETERS)]
    return packed[:, np.array(index)]


class FitOutcome(IntEnum):
    """How a track fit ended (numbers as in traccc)."""

    UNKNOWN = 0
    SUCCESS = 1
    NON_POSITIVE_NDF = 2
    NOT_ALL_FITTED = 3
    NOT_ALL_SMOOTHED = 4
    FITTER = 5
    SMOOTHER = 6
    FORWARD_PROPAGATION = 7
    BACKWARD_PROPAGATION = 8
