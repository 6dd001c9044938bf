"""Seeds of track candidates: triplets of the innermost spacepoints of each, on layers of their own.

A candidate has one wrong or scattered spacepoint in a while, so it makes up to five seeds, of its first five
spacepoints; one seed alone loses a twentieth of the tracks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import Scratch, device_function, kernel
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.seeding.seeding import make_seed_batch
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SpacepointBatch

__all__ = ["PointLists", "find_candidate_seeds"]

_N_PICKED = 5  # points on layers of their own, from the inside out
_SHORT, _LONGER = 3, 4  # candidates of so many such points have one seed, and four; longer ones five


class PointLists(NamedTuple):
    """Track candidates: spacepoints from the inside out. Extents: "point_lists" and "listed_points"."""

    offsets: Any  # (n_lists + 1,) int32
    spacepoint: Any  # (n_points,) int32
    event: Any  # (n_lists,) int32, ascending


class _Payload(NamedTuple):
    lists: PointLists
    links: Any  # (n_spacepoints,) int32, their measurements
    event_module: Any  # (n_measurements,) int32
    surfaces: Any  # (n_modules,) SURFACE
    n_modules: Any  # int32
    offsets: Any  # (n_lists + 1,) int32, first seed
    out_n: Any  # (n_lists,) int32
    out: SeedBatch


@device_function(inlined=True)
def _pick(i, p, picked):
    """Write the first points of list i on layers of their own; return how many."""
    n, layer = 0, np.int32(-1)
    for k in range(p.lists.offsets[i], p.lists.offsets[i + 1]):
        point = p.lists.spacepoint[k]
        here = p.surfaces[p.event_module[p.links[point]] % p.n_modules].layer
        if n < _N_PICKED and here != layer:
            picked[n] = point
            n += 1
            layer = here
    return n


@device_function(inlined=True)
def _n_seeds(n):
    if n < _SHORT:
        return np.int32(0)
    if n == _SHORT:
        return np.int32(1)
    return np.int32(4 if n == _LONGER else 5)


@kernel(grain=1024, scratch=(Scratch(_N_PICKED, np.int32),))
def _count_seeds(i, p, picked):
    """One candidate: the number of its seeds."""
    p.out_n[i] = _n_seeds(_pick(i, p, picked))


@device_function(inlined=True)
def _write(p, row, event, bottom, middle, top):
    p.out.bottom_index[row] = bottom
    p.out.middle_index[row] = middle
    p.out.top_index[row] = top
    p.out.quality[row] = ZERO
    p.out.event[row] = event


@kernel(grain=512, scratch=(Scratch(_N_PICKED, np.int32),))
def _fill_seeds(i, p, picked):
    """One candidate: write its seeds."""
    first, last = p.offsets[i], p.offsets[i + 1]
    if last > p.out.event.shape[0] or first == last:
        return
    _pick(i, p, picked)
    event = p.lists.event[i]
    _write(p, first, event, picked[0], picked[1], picked[2])
    if last - first > 1:
        _write(p, first + 1, event, picked[0], picked[1], picked[3])
        _write(p, first + 2, event, picked[0], picked[2], picked[3])
        _write(p, first + 3, event, picked[1], picked[2], picked[3])
    if last - first > _LONGER:
        _write(p, first + 4, event, picked[0], picked[2], picked[4])


def find_candidate_seeds(
    ws: Workspace,
    lists: PointLists,
    spacepoints: SpacepointBatch,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    n_modules: int,
) -> SeedBatch:
    """Make seeds of track candidates.

    Parameters
    ----------
    ws : Workspace
        Buffers. The sizes of "point_lists" and "spacepoints" must be set; that of "seeds" is set here.
    lists : PointLists
        Candidates; those with fewer than three layers make no seeds.
    spacepoints : SpacepointBatch
        Their measurements.
    measurements : MeasurementBatch
        The modules of these.
    detector : DetectorArrays
        Tells the layers of modules.
    n_modules : int
        Number of surfaces [1].

    Returns
    -------
    SeedBatch
        In the order of the candidates; their quality is 0.
    """
    extent, seeds = ws.extent("point_lists"), ws.extent("seeds")
    dtype = spacepoints.global_position.dtype
    n = ws.array("candidate_seeds.n", extent, np.int32)
    offsets = ws.array("candidate_seeds.offsets", extent, np.int32, extra=1)

    def payload() -> _Payload:
        return _Payload(
            lists=lists,
            links=spacepoints.measurement_index,
            event_module=measurements.event_module,
            surfaces=detector.surfaces,
            n_modules=np.int32(n_modules),
            offsets=offsets,
            out_n=n,
            out=make_seed_batch(ws, "seeds", dtype),
        )

    ws.launch(_count_seeds, extent, payload())
    ws.scan(n, extent, offsets, seeds)
    filled = payload()
    ws.launch(_fill_seeds, extent, filled)
    return filled.out
