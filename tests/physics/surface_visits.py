"""What tests of the navigation share: the surfaces at hand when a layer is met, in the order in which they are met."""

from typing import Any, NamedTuple

import numba
import numpy as np

from traccc_py.kernels.tracking.navigation import grid_bin, inside_margin, intersect_surface

MOST_LAYERS = 300
MOST_VISITS = 64
BAND = 0.1  # [mm], a surface is tried this far outside its edges; track finding adds three standard deviations
AHEAD = 0.01  # [mm], the next surface is at least this far ahead
EDGE = 0.01  # [mm], closer to an edge than this float32 need not agree on which side a crossing lies


class Detector(NamedTuple):
    surfaces: Any
    layers: Any
    bin_offsets: Any
    bin_surfaces: Any
    field: Any

    @classmethod
    def of(cls, arrays):
        """The arrays of a detector that are needed here."""
        return cls(*(getattr(arrays, name) for name in cls._fields))


@numba.njit
def reachable(p, layer, crossing, position, direction, curvature, least, out):
    """Surfaces of the crossing's bin crossed after `least` within the band, ordered by path; returns how many."""
    grid = grid_bin(p.layers, layer, crossing)
    n = 0
    paths = np.empty(len(out), np.float32)
    for k in range(p.bin_offsets[grid], p.bin_offsets[grid + 1]):
        i = p.bin_surfaces[k]
        path, loc0, loc1 = intersect_surface(p.surfaces, i, position, direction, curvature, np.float32(0))
        margin0, margin1 = inside_margin(p.surfaces, i, loc0, loc1)
        if path > least and min(margin0, margin1) > -np.float32(BAND):
            out[n], paths[n] = i, path
            n += 1
    order = np.argsort(paths[:n])
    out[:n] = out[:n][order]
    return n
