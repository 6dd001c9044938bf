"""Seeds of track candidates: triplets of the innermost spacepoints of each, on layers of their own.

A candidate has one wrong or scattered spacepoint in a while, so it makes up to five seeds, of its first five
spacepoints; one seed alone loses a twentieth of the tracks. Where particles are close together, or share a spacepoint,
the outer part of one may begin with several spacepoints of another: up to three more seeds lie farther out, and are
followed only if no track has their spacepoints by then.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import Scratch, device_function, kernel
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.constants import ZERO, X, Y
from traccc_py.kernels.seeding.seeding import make_seed_batch
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SpacepointBatch

__all__ = ["PointLists", "find_candidate_seeds", "put_off_outer_seeds"]

_N_PICKED = 7  # points on layers of their own, from the inside out
_SHORT, _LONGER = 3, 4  # candidates of so many such points have one seed, and four; those of n have n + 1
_N_FIRST = 5  # seeds that are followed first


class PointLists(NamedTuple):
    """Track candidates: spacepoints from the inside out. Extents: "point_lists" and "listed_points"."""

    offsets: Any  # (n_lists + 1,) int32
    spacepoint: Any  # (n_points,) int32
    event: Any  # (n_lists,) int32, ascending


class _PutOffPayload(NamedTuple):
    offsets: Any  # (n_lists + 1,) int32, first seed
    out_is_kept: Any  # (n_seeds,) int32


class _Payload(NamedTuple):
    lists: PointLists
    links: Any  # (n_spacepoints,) int32, their measurements
    position: Any  # (n_spacepoints, 3) scalar [mm]
    event_module: Any  # (n_measurements,) int32
    surfaces: Any  # (n_modules,) SURFACE
    n_modules: Any  # int32
    offsets: Any  # (n_lists + 1,) int32, first seed
    out_n: Any  # (n_lists,) int32
    out: SeedBatch


@device_function(inlined=True)
def _is_apart(position, point, picked, n):
    """Return whether a point has another place across the beam than those picked: a circle goes through all of them."""
    for k in range(n):
        if position[point, X] == position[picked[k], X] and position[point, Y] == position[picked[k], Y]:
            return False
    return True


@device_function(inlined=True)
def _pick(i, p, picked):
    """Write the first points of list i on layers of their own; return how many."""
    n, layer = 0, np.int32(-1)
    for k in range(p.lists.offsets[i], p.lists.offsets[i + 1]):
        point = p.lists.spacepoint[k]
        here = p.surfaces[p.event_module[p.links[point]] % p.n_modules].layer
        if n < _N_PICKED and here != layer and _is_apart(p.position, point, picked, n):
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
    return np.int32(4 if n == _LONGER else n + 1)


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
    for k in range(_N_FIRST, last - first):
        _write(p, first + k, event, picked[k - 3], picked[k - 2], picked[k - 1])


@kernel(grain=2048)
def _put_off(i, p):
    """One candidate: if an inner seed is followed first, its outer ones are not."""
    first, last = p.offsets[i], p.offsets[i + 1]
    if last > p.out_is_kept.shape[0] or last - first <= _N_FIRST:
        return
    has_inner = False
    for k in range(first, first + _N_FIRST):
        has_inner = has_inner or p.out_is_kept[k] == 1
    if has_inner:
        for k in range(first + _N_FIRST, last):
            p.out_is_kept[k] = np.int32(0)


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
            position=spacepoints.global_position,
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


def put_off_outer_seeds(ws: Workspace, is_kept: Any) -> None:
    """Put the outer seeds of candidates off until after the others, where an inner one is followed first.

    Parameters
    ----------
    ws : Workspace
        Buffers, after `find_candidate_seeds`.
    is_kept : array of shape (n_seeds,), int32
        1 for seeds that are followed first; changed for those that lie outside the first five spacepoints only.
    """
    extent = ws.extent("point_lists")
    offsets = ws.array("candidate_seeds.offsets", extent, np.int32, extra=1)
    ws.launch(_put_off, extent, _PutOffPayload(offsets=offsets, out_is_kept=is_kept))
