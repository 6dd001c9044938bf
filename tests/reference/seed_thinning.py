"""Seed thinning as the greedy choice in the order of ranks, and what it did to the particles of a toy event."""

from __future__ import annotations

import numpy as np


def greedy(rank, agrees):
    """Kept seeds: in the order of rank, a seed is kept unless it `agrees` (symmetric matrix) with a kept one."""
    kept = np.zeros(len(rank), bool)
    for k in np.argsort(rank, kind="stable"):
        kept[k] = not np.any(agrees[k] & kept)
    return kept


def toy_modules(points, layer):
    """A module number for each hit of the toy detector: tiles of about 17 mm x 72 mm."""
    r, phi = np.hypot(points[:, 0], points[:, 1]), np.arctan2(points[:, 1], points[:, 0]) + np.pi
    n_phi = np.array([16, 32, 52, 78] + [40] * 20)[layer]
    tile = np.minimum(np.floor(phi / (2 * np.pi) * n_phi), n_phi - 1)
    other = np.floor(np.where(layer < 4, (points[:, 2] + 504) / 72, r / 53))
    return ((layer * 100 + tile) * 20 + other).astype(np.int32)


def purity(triplets, particle):
    """Particle of each seed, -1 if its three hits are not of one particle."""
    owners = particle[triplets]
    pure = (owners[:, 0] == owners[:, 1]) & (owners[:, 1] == owners[:, 2])
    return np.where(pure, owners[:, 0], -1)


def innermost(triplets, owner, radius):
    """Dictionary particle -> smallest radius of a bottom among its pure seeds."""
    found = {}
    for bottom, particle in zip(triplets[:, 0], owner, strict=True):
        if particle >= 0:
            found[int(particle)] = min(found.get(int(particle), np.inf), radius[bottom])
    return found
