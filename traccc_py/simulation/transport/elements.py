"""What a slab is made of, as far as its two numbers tell.

The slabs of a detector store a thickness in radiation lengths and the energy scale xi of Bethe's formula. Their ratio,
0.5 K (Z/A) X0, distinguishes light from heavy materials, so atomic and nuclear properties follow from it by
interpolation in a table of elements, exactly for these and within a few per cent for mixtures.

References
----------
PDG 2024, Atomic and Nuclear Properties of Materials: Z, A, nuclear collision, nuclear interaction and radiation
lengths.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from traccc_py.simulation.compiled import compiled

__all__ = ["HALF_K", "Nuclei", "atomic_number", "nuclei_of"]

HALF_K = 0.5 * 0.307075e-3  #: K / 2 of Bethe's formula [GeV cm^2 / mol]
# Z, A, Z/A, and X0, nuclear collision and nuclear interaction length [g / cm^2]: W, Cu, Ti, Si, Al, Kapton, C, Be. The
# heaviest first. Kapton's Z is weighted by charge, which is what scattering depends on, its A by mass.
_ELEMENTS = np.array(
    [
        (74.0, 183.84, 0.40252, 6.76, 110.4, 191.9),
        (29.0, 63.55, 0.45636, 12.86, 84.2, 137.3),
        (22.0, 47.87, 0.45961, 16.16, 78.8, 126.2),
        (14.0, 28.09, 0.49848, 21.82, 70.2, 108.4),
        (13.0, 26.98, 0.48181, 24.01, 69.7, 107.2),
        (6.2, 12.70, 0.51264, 40.58, 59.2, 85.5),
        (6.0, 12.01, 0.49955, 42.70, 59.2, 85.8),
        (4.0, 9.01, 0.44384, 65.19, 55.3, 77.8),
    ]
)
_LOG_RATIO = np.log(_ELEMENTS[:, 2] * _ELEMENTS[:, 3])  # of (Z/A) X0 [mol / cm^2]
_Z = _ELEMENTS[:, 0].copy()
_A = _ELEMENTS[:, 1].copy()
_LOG_LENGTH = np.log(_ELEMENTS[:, 2] * _ELEMENTS[:, 5])  # of (Z/A) lambda [mol / cm^2]
_NOT_ABSORBED = _ELEMENTS[:, 5] / _ELEMENTS[:, 4] - 1.0  # (total - absorption) / absorption


class Nuclei(NamedTuple):
    """Nuclei of a slab."""

    depth: float  # thickness in nuclear interaction lengths
    mass_number: float
    not_absorbed: float  # cross-section of elastic and quasi-elastic scattering over that of absorption, for nucleons


@compiled
def _log_ratio(thickness_in_x0, xi):
    return math.log(xi / (HALF_K * thickness_in_x0))


@compiled
def atomic_number(thickness_in_x0, xi):
    """Return the effective Z of a slab with Bethe's `xi` [GeV]; both arguments above 0."""
    return np.interp(_log_ratio(thickness_in_x0, xi), _LOG_RATIO, _Z)


@compiled
def nuclei_of(thickness_in_x0, xi):
    """Return the `Nuclei` of a slab with Bethe's `xi` [GeV]; depth 0 where there is no material."""
    if thickness_in_x0 <= 0.0 or xi <= 0.0:
        return Nuclei(0.0, 1.0, 0.0)
    ratio = _log_ratio(thickness_in_x0, xi)
    depth = xi / (HALF_K * math.exp(np.interp(ratio, _LOG_RATIO, _LOG_LENGTH)))
    return Nuclei(depth, np.interp(ratio, _LOG_RATIO, _A), np.interp(ratio, _LOG_RATIO, _NOT_ABSORBED))
