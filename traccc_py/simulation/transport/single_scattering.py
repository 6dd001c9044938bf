"""The tail of multiple scattering: single Coulomb scatters at angles beyond the Gaussian core.

Highland's formula gives the core. What it leaves out are the rare large angles of Rutherford's cross-section, whose
number above an angle theta is chi_c^2 / theta^2. Scatters below a limit make up a Gaussian of variance
chi_c^2 / 2 (ln(limit^2 / chi_a^2) - 1); the limit is where this is Highland's, so core and tail complement each other
and together are a Moliere distribution. Above an angle of hbar / (p R) the nucleus is not pointlike: there are none.

References
----------
G. R. Lynch, O. I. Dahl, Nucl. Instrum. Methods B 58 (1991) 6, eq. 2 to 5: chi_c and chi_a. H. A. Bethe, Phys. Rev. 89
(1953) 1256: single scattering as the limit of Moliere's theory. Core and tail as a mixture: R. Fruehwirth, M. Regler,
Nucl. Instrum. Methods A 456 (2001) 369.
"""

from __future__ import annotations

import math

from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.random_numbers import uniform_pair
from traccc_py.simulation.transport.elements import HALF_K, atomic_number
from traccc_py.units import MeV

__all__ = ["single_scatter", "tail_limits"]

_STREAM_TAIL = 7
_CHARACTERISTIC = 0.157 * MeV * MeV  # chi_c^2 = this (Z (Z + 1) / A) x / (p beta)^2, x in g / cm^2
_SCREENING = 2.007e-5 * MeV * MeV  # chi_a^2 = this Z^(2/3) (1 + 3.34 (Z alpha / beta)^2) / p^2
_SCREENING_CHARGE = 3.34
_FINE_STRUCTURE = 1.0 / 137.036
_NUCLEUS = 0.19733 / 1.2  # hbar c / r_0, the nucleus' radius being 1.2 fm A^(1/3) [GeV]
_A_PER_Z = 2.1
_LARGEST_LOG = 200.0


@compiled
def tail_limits(p, mass, charge, thickness_in_x0, xi, theta0):
    """Return (mean number, smallest, largest angle [rad]) of single scatters in the tail of a core of rms theta0."""
    bg = p / mass
    beta2 = bg * bg / (1.0 + bg * bg)
    z = atomic_number(thickness_in_x0, xi)
    characteristic = _CHARACTERISTIC * (z + 1.0) * xi / HALF_K * charge * charge / (p * p * beta2)
    screening = _SCREENING * z ** (2.0 / 3.0) * (1.0 + _SCREENING_CHARGE * (z * _FINE_STRUCTURE) ** 2 / beta2) / (p * p)
    limit2 = screening * math.exp(min(1.0 + 2.0 * theta0 * theta0 / characteristic, _LARGEST_LOG))
    largest = _NUCLEUS / ((_A_PER_Z * z) ** (1.0 / 3.0) * p)
    if limit2 >= largest * largest:
        return 0.0, largest, largest
    return characteristic * (1.0 / limit2 - 1.0 / (largest * largest)), math.sqrt(limit2), largest


@compiled
def single_scatter(p, mass, charge, thickness_in_x0, xi, theta0, key, identity, draw):
    """Return (angle, azimuth) [rad] of a single scatter in the tail, at most one in a slab; angle 0: there is none."""
    mean, smallest, largest = tail_limits(p, mass, charge, thickness_in_x0, xi, theta0)
    chance, azimuth = uniform_pair(key, identity, draw, _STREAM_TAIL)
    missed = math.exp(-mean)
    if chance <= missed:
        return 0.0, 0.0
    share = (chance - missed) / (1.0 - missed)
    inverse2 = 1.0 / (largest * largest) + share * (1.0 / (smallest * smallest) - 1.0 / (largest * largest))
    return math.sqrt(1.0 / inverse2), 2.0 * math.pi * azimuth
