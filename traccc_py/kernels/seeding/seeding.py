"""Triplet seeding: spacepoints -> doublets -> triplets -> seeds.

The cuts, weights and selection are traccc's, but for the errors of the spacepoints (`cuts`). The search is our own:
partners of a middle spacepoint are looked up in windows derived from the cuts, so no pair that the cuts allow is lost
at a bin edge, and of each middle's tops only those in a window of cot(theta) are tried. Where traccc depends on the
order of its containers, an order is fixed here: the radii of compatible tops are counted from the inside out, and seeds
of equal weight and size go by their indices.

References
----------
traccc v1.6.0, `core/include/traccc/seeding`: doublet, triplet and seed selection rules.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedingConfig
from traccc_py.device.kernel import kernel
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.seeding.cuts import seeding_cuts
from traccc_py.kernels.seeding.doublets import find_tops
from traccc_py.kernels.seeding.grid import SortedSpacepoints, make_grid, sort_spacepoints
from traccc_py.kernels.seeding.triplets import BestTriplets, find_best_triplets
from traccc_py.kernels.tracking.batch import SeedBatch, SpacepointBatch

__all__ = ["find_seeds", "make_seed_batch"]


class _Payload(NamedTuple):
    sp: SortedSpacepoints
    best: BestTriplets
    offsets: Any  # (n_middles + 1,) int32, first seed
    out: SeedBatch


@kernel(grain=512)
def _fill_seeds(i, p):
    """One middle: write its seeds."""
    first, last = p.offsets[i], p.offsets[i + 1]
    if last > p.out.event.shape[0]:
        return
    for seed in range(first, last):
        p.out.bottom_index[seed] = p.sp.spacepoint[p.best.bottom[i, seed - first]]
        p.out.middle_index[seed] = p.sp.spacepoint[i]
        p.out.top_index[seed] = p.sp.spacepoint[p.best.top[i, seed - first]]
        p.out.quality[seed] = p.best.weight[i, seed - first]
        p.out.event[seed] = p.sp.event[i]


def make_seed_batch(ws: Workspace, name: str, dtype: Any) -> SeedBatch:
    """Return the buffers of the seeds whose extent is called `name`.

    Parameters
    ----------
    ws : Workspace
        Buffers.
    name : str
        Extent.
    dtype : data-type
        Type of the quality.

    Returns
    -------
    SeedBatch
        Uninitialised columns.
    """
    extent = ws.extent(name)
    return SeedBatch(
        bottom_index=ws.array(f"{name}.bottom_index", extent, np.int32),
        middle_index=ws.array(f"{name}.middle_index", extent, np.int32),
        top_index=ws.array(f"{name}.top_index", extent, np.int32),
        quality=ws.array(f"{name}.quality", extent, dtype),
        event=ws.array(f"{name}.event", extent, np.int32),
    )


def find_seeds(
    ws: Workspace,
    spacepoints: SpacepointBatch,
    variances: Any,
    slopes: Any,
    config: SeedingConfig,
    b_z: float,
    n_events: int,
) -> SeedBatch:
    """Find triplets of spacepoints that charged particles from the beam region may have left.

    Parameters
    ----------
    ws : Workspace
        Buffers. The size of "spacepoints" must be set; that of "seeds" is set here.
    spacepoints : SpacepointBatch
        Global positions [mm].
    variances : array of shape (n_spacepoints, 2), scalar
        Of their radii and z [mm^2], from `find_spacepoint_variances`.
    slopes : array of shape (n_spacepoints, 4), scalar
        Slopes that fit their clusters, from `find_cluster_slopes`.
    config : SeedingConfig
        Cuts and weights.
    b_z : float
        Field along z at the beam line, used where the configuration names none [GeV / (e mm)].
    n_events : int
        Number of events in the batch [1].

    Returns
    -------
    SeedBatch
        Seeds, ordered by event, then by the cell of the middle spacepoint, then best first. Extent: "seeds".
    """
    cuts, grid = seeding_cuts(config, b_z), make_grid(config)
    sp = sort_spacepoints(ws, spacepoints, slopes, cuts, grid, n_events)
    tops = find_tops(ws, sp, variances, cuts, grid)
    best = find_best_triplets(ws, sp, variances, tops, cuts, grid, config)
    middles, seeds = ws.extent("seeding_spacepoints"), ws.extent("seeds")
    offsets = ws.array("seeding.seed_offsets", middles, np.int32, extra=1)
    ws.scan(best.n, middles, offsets, seeds)
    out = make_seed_batch(ws, "seeds", sp.x.dtype)
    ws.launch(_fill_seeds, middles, _Payload(sp=sp, best=best, offsets=offsets, out=out))
    return out
