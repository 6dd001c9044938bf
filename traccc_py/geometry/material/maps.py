"""Material that varies over a surface: maps of slabs in two coordinates, and their arrays for kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from traccc_py.geometry.material.material import VACUUM_SLAB, Slab
from traccc_py.geometry.records import MATERIAL_MAP, SLAB, MapKind

__all__ = ["MaterialMap", "mean_slab", "pack_maps"]


@dataclass(frozen=True, slots=True)
class MaterialMap:
    """Slabs in equal bins of two coordinates; outside of the range the nearest bin is used.

    The coordinates (see `MapKind`) are, on a planar surface, loc0 and loc1, or r and the angle atan2(loc0, loc1 +
    focal); on a passive disc r and phi; on a cylinder phi and z. Angles are in rad, lengths in mm.
    """

    kind: MapKind
    n_bins: tuple[int, int]
    low: tuple[float, float]
    high: tuple[float, float]
    slabs: np.ndarray  # (n0 * n1, 4) float64, columns of Slab, row i0 + n0 i1

    @property
    def angle_axis(self) -> int | None:
        """Which axis is an angle."""
        return {MapKind.POLAR: 1, MapKind.CYLINDER: 0}.get(self.kind)

    def turned(self, angle: float, *, is_mirrored: bool = False) -> MaterialMap:
        """Return the map for the coordinate angle + phi, or angle - phi if it is mirrored, where this one has phi."""
        k = self.angle_axis
        if k is None or (angle == 0 and not is_mirrored):
            return self
        low, high, slabs = list(self.low), list(self.high), self.slabs
        if is_mirrored:
            low[k], high[k] = angle - self.high[k], angle - self.low[k]
            grid = slabs.reshape(self.n_bins[1], self.n_bins[0], -1)
            slabs = np.flip(grid, axis=1 - k).reshape(slabs.shape)
        else:
            low[k], high[k] = angle + self.low[k], angle + self.high[k]
        return replace(self, low=(low[0], low[1]), high=(high[0], high[1]), slabs=slabs)

    @property
    def mean(self) -> Slab:
        """The slab at a random point."""
        return mean_slab(self.slabs)


def mean_slab(slabs: np.ndarray) -> Slab:
    """Return the mean of slabs (n, 4); that of energies is taken of their logarithms, weighted by `bethe_xi`."""
    thickness, xi = slabs[:, 0].mean(), slabs[:, 1].mean()
    filled = slabs[slabs[:, 1] > 0]
    if not len(filled):
        return VACUUM_SLAB._replace(thickness_in_x0=float(thickness))
    excitation, plasma = np.exp(np.average(np.log(filled[:, 2:]), axis=0, weights=filled[:, 1])).tolist()
    return Slab(float(thickness), float(xi), excitation, plasma)


def pack_maps(maps: Sequence[MaterialMap]) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps as kernels read them.

    Parameters
    ----------
    maps : sequence of MaterialMap
        Numbered from 1.

    Returns
    -------
    (ndarray of shape (n_maps + 1,), MATERIAL_MAP), (ndarray, SLAB)
        Maps by number, and the slabs of all of them.
    """
    records = np.zeros(len(maps) + 1, MATERIAL_MAP)
    slabs = np.zeros(max(1, sum(len(m.slabs) for m in maps)), SLAB)
    first = 0
    for record, m in zip(records[1:], maps, strict=True):
        record["kind"], record["first_slab"] = m.kind, first
        for k in (0, 1):
            record[f"n{k}"], record[f"low{k}"] = m.n_bins[k], m.low[k]
            record[f"scale{k}"] = m.n_bins[k] / (m.high[k] - m.low[k])
        if (angle := m.angle_axis) is not None:
            record["middle"] = (m.low[angle] + m.high[angle]) / 2
        for column, name in enumerate(SLAB.names or ()):
            slabs[name][first : first + len(m.slabs)] = m.slabs[:, column]
        first += len(m.slabs)
    return records, slabs
