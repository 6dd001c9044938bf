"""Materials and material slabs, reduced to the four numbers that scattering and energy loss need.

References
----------
Elements and Kapton: PDG 2024, Atomic and Nuclear Properties of Materials. Densities, carbon fibre and foam (65 %
carbon, 35 % epoxy by mass): OpenDataDetector b2e95fc, xml/OpenDataMaterials.xml. `silicon_tml`, `beryllium_tml`:
detray 7c3f18e, predefined_materials.hpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from traccc_py.units import bethe_constant, cm, eV

__all__ = [
    "ALUMINIUM",
    "BERYLLIUM",
    "BERYLLIUM_TML",
    "CARBON_FIBRE",
    "CARBON_FOAM",
    "KAPTON",
    "PLASMA_CONSTANT",
    "SILICON",
    "SILICON_TML",
    "TITANIUM",
    "VACUUM_SLAB",
    "Material",
    "Slab",
    "combine_slabs",
]

PLASMA_CONSTANT = 28.816 * eV  #: plasma energy at an electron density of 1 mol / cm^3, PDG 2024 eq. 34.6
_GRAM_PER_CM3 = 1 / cm**3  #: in g / mm^3


class Slab(NamedTuple):
    """Material crossed at normal incidence; the fields of the detector records."""

    thickness_in_x0: float  # [1]
    bethe_xi: float  # 0.5 K (Z/A) rho thickness [GeV]
    excitation_energy: float  # [GeV]
    plasma_energy: float  # [GeV]

    def scaled(self, factor: float) -> Slab:
        """Return the slab with its thickness multiplied by `factor`."""
        return self._replace(thickness_in_x0=self.thickness_in_x0 * factor, bethe_xi=self.bethe_xi * factor)


VACUUM_SLAB = Slab(0.0, 0.0, 0.0, 0.0)  #: no material at all


@dataclass(frozen=True, slots=True)
class Material:
    """A homogeneous material.

    Parameters
    ----------
    name : str
        Name.
    radiation_length : float
        X0 [mm].
    z_over_a : float
        Mean atomic number / relative atomic mass [mol / g].
    density : float
        [g / cm^3]
    excitation_energy : float
        Mean excitation energy I [eV].
    """

    name: str
    radiation_length: float
    z_over_a: float
    density: float
    excitation_energy: float

    @property
    def plasma_energy(self) -> float:
        """Plasma energy [GeV]."""
        return PLASMA_CONSTANT * math.sqrt(self.density * self.z_over_a)

    def slab(self, thickness: float) -> Slab:
        """Return a slab of this material, `thickness` in mm."""
        if thickness == 0:
            return VACUUM_SLAB
        mass_per_area = self.density * _GRAM_PER_CM3 * thickness
        xi = 0.5 * bethe_constant * self.z_over_a * mass_per_area
        return Slab(thickness / self.radiation_length, xi, self.excitation_energy * eV, self.plasma_energy)


SILICON = Material("silicon", 93.7, 0.49848, 2.329, 173.0)
KAPTON = Material("Kapton", 284.0, 0.51264, 1.43, 79.6)
ALUMINIUM = Material("aluminium", 89.0, 0.48181, 2.699, 166.0)
TITANIUM = Material("titanium", 35.6, 0.45961, 4.540, 233.0)
BERYLLIUM = Material("beryllium", 352.8, 0.44384, 1.848, 63.7)
# Z/A and I of the two carbon mixtures: Bragg's rule for C (78 eV) and epoxy C15 H44 O7 (62.8 eV, Z/A 0.5647).
CARBON_FIBRE = Material("carbon fibre", 281.0, 0.5223, 1.5, 71.9)
CARBON_FOAM = Material("carbon foam", 1720.0, 0.5223, 0.245, 71.9)
SILICON_TML = Material("silicon_tml", 95.7, 14 / 28.03, 2.32, 173.0)
BERYLLIUM_TML = Material("beryllium_tml", 352.8, 4 / 9.012, 1.848, 63.7)


def combine_slabs(slabs: Iterable[Slab]) -> Slab:
    """Return one slab that replaces several, crossed one after another.

    Parameters
    ----------
    slabs : iterable of Slab
        Slabs; those without material are allowed.

    Returns
    -------
    Slab
        Thicknesses and `bethe_xi` (proportional to electron density times thickness) are summed. Both energies are
        averaged in their logarithm with `bethe_xi` as weight: Bethe's formula is linear in these logarithms, so the
        mean energy loss is that of the slabs, exactly where the density effect has reached its asymptotic form.
    """
    parts = [s for s in slabs if s.bethe_xi > 0]
    if not parts:
        return VACUUM_SLAB
    xi = sum(s.bethe_xi for s in parts)

    def mean(values: list[float]) -> float:
        return math.exp(sum(s.bethe_xi * math.log(v) for s, v in zip(parts, values, strict=True)) / xi)

    return Slab(
        sum(s.thickness_in_x0 for s in parts),
        xi,
        mean([s.excitation_energy for s in parts]),
        mean([s.plasma_energy for s in parts]),
    )
