"""The surfaces that a particle has just crossed: each is crossed once, even if several are in one plane."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.simulation.compiled import compiled

__all__ = ["LEAVE", "CrossedSurfaces", "crossed_surfaces", "forget", "remember", "search_from"]

LEAVE = 1e-3  #: a surface just crossed is ignored within this path [mm]


class CrossedSurfaces(NamedTuple):
    """Surfaces crossed within the last `LEAVE` of a particle's path, and how far back they are."""

    n: Any  # (1,) int64, number of entries
    surface: Any  # (n_surfaces,) int64
    behind: Any  # (n_surfaces,) path since the crossing [mm]


@compiled
def crossed_surfaces(n_surfaces):
    """Return an empty memory for a detector of `n_surfaces`."""
    return CrossedSurfaces(np.zeros(1, np.int64), np.empty(n_surfaces, np.int64), np.empty(n_surfaces))


@compiled
def forget(crossed, path):
    """Move on by `path`: surfaces more than `LEAVE` behind are dropped."""
    n = 0
    for i in range(crossed.n[0]):
        behind = crossed.behind[i] + path
        if behind < LEAVE:
            crossed.surface[n], crossed.behind[n] = crossed.surface[i], behind
            n += 1
    crossed.n[0] = n


@compiled
def remember(crossed, surface):
    """Add the surface that the particle is on."""
    n = crossed.n[0]
    crossed.surface[n], crossed.behind[n] = surface, 0.0
    crossed.n[0] = n + 1


@compiled
def search_from(crossed, surface):
    """Return the path beyond which crossings of a surface count [mm].

    It is negative if the particle is on another surface: rounding may have put it just behind one in the same plane.
    """
    for i in range(crossed.n[0]):
        if crossed.surface[i] == surface:
            return LEAVE - crossed.behind[i]
    return -LEAVE if crossed.n[0] > 0 else 0.0
