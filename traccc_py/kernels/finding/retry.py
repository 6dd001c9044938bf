"""Which of the seeds that thinning dropped are followed after all: those that no track accounts for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.kernel import kernel
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.finding.branches import Branches
from traccc_py.kernels.finding.candidates import Acceptance, acceptance, is_accepted
from traccc_py.kernels.tracking.batch import SeedBatch
from traccc_py.kernels.tracking.selection import list_flagged

__all__ = ["find_used", "list_retried", "mark_retried"]


class _UsePayload(NamedTuple):
    branches: Branches
    branches_per_seed: Any
    cuts: Acceptance
    out_is_used: Any  # (n_measurements,) int32


@kernel(grain=1024)
def mark_used(i, p):
    """Mark the measurements on branches of seed i that went through; all who write the same place write the same."""
    branches = p.branches
    for slot in range(i * p.branches_per_seed, (i + 1) * p.branches_per_seed):
        if is_accepted(branches, p.cuts, slot) and branches.is_stopped[slot] == 0:
            for k in range(branches.n_entries[slot]):
                if branches.code[slot, k] >= 0:
                    p.out_is_used[branches.code[slot, k]] = np.int32(1)


class _RetryPayload(NamedTuple):
    is_kept: Any  # (n_seeds,) int32, 1: was followed in the first pass
    seeds: SeedBatch
    spacepoint_measurement: Any  # (n_spacepoints,)
    is_used: Any  # (n_measurements,)
    out_is_retried: Any  # (n_seeds,) int32


@kernel(grain=2048)
def choose_retried(i, p):
    """Choose seed i if thinning dropped it, its middle spacepoint is on no track, and at most one of the others is."""
    bottom = p.is_used[p.spacepoint_measurement[p.seeds.bottom_index[i]]]
    middle = p.is_used[p.spacepoint_measurement[p.seeds.middle_index[i]]]
    top = p.is_used[p.spacepoint_measurement[p.seeds.top_index[i]]]
    is_free = middle == 0 and bottom + top <= 1
    p.out_is_retried[i] = np.int32(1) if p.is_kept[i] == 0 and is_free else np.int32(0)


class _MarkPayload(NamedTuple):
    listed: Any  # (n_listed,) int32, seeds
    seeds: SeedBatch
    spacepoint_measurement: Any  # (n_spacepoints,)
    out_is_used: Any  # (n_measurements,)


@kernel(grain=4096)
def mark_points(k, p):
    """Mark the measurements of listed seed k; all who write the same place write the same."""
    i = p.listed[k]
    p.out_is_used[p.spacepoint_measurement[p.seeds.bottom_index[i]]] = np.int32(1)
    p.out_is_used[p.spacepoint_measurement[p.seeds.middle_index[i]]] = np.int32(1)
    p.out_is_used[p.spacepoint_measurement[p.seeds.top_index[i]]] = np.int32(1)


def find_used(ws: Workspace, found: Branches, branches_per_seed: int, config: FindingConfig) -> Any:
    """Return an array of shape (n_measurements,), int32: 1 for those on tracks through the detector."""
    is_used = ws.array("finding.is_used", ws.extent("measurements"), np.int32)
    used = _UsePayload(
        branches=found,
        branches_per_seed=np.int32(branches_per_seed),
        cuts=acceptance(config, found.chi2.dtype.type),
        out_is_used=is_used,
    )
    ws.clear(is_used)
    ws.launch(mark_used, ws.extent("seeds"), used)
    return is_used


def list_retried(ws: Workspace, seeds: SeedBatch, is_kept: Any, spacepoint_measurement: Any, is_used: Any) -> Any:
    """List the seeds for a second pass of track finding.

    Parameters
    ----------
    ws : Workspace
        Buffers; the size of "retried_seeds" is set here.
    seeds : SeedBatch
        All seeds.
    is_kept : array of shape (n_seeds,), int32
        Which of them thinning kept: these have been followed.
    spacepoint_measurement : array of shape (n_spacepoints,), int32
        Measurement of each spacepoint.
    is_used : array of shape (n_measurements,), int32
        1 for those on tracks of the first pass, of `find_used`.

    Returns
    -------
    array of shape (n_retried,), int32
        Seeds that were dropped, with at most one spacepoint on a track, not the middle one. Extent: "retried_seeds".
    """
    all_seeds = ws.extent("seeds")
    is_retried = ws.array("finding.is_retried", all_seeds, np.int32)
    payload = _RetryPayload(
        is_kept=is_kept,
        seeds=seeds,
        spacepoint_measurement=spacepoint_measurement,
        is_used=is_used,
        out_is_retried=is_retried,
    )
    ws.launch(choose_retried, all_seeds, payload)
    return list_flagged(ws, is_retried, all_seeds, "retried_seeds")


def mark_retried(ws: Workspace, listed: Any, seeds: SeedBatch, spacepoint_measurement: Any, is_used: Any) -> None:
    """Mark the measurements of listed seeds as used, too: late seeds of the same particles are not needed.

    Parameters
    ----------
    ws : Workspace
        Buffers; the size of "retried_seeds" is set.
    listed : array of shape (n_retried,), int32
        What `list_retried` returned, for the same `seeds`, `spacepoint_measurement` and `is_used`.
    seeds, spacepoint_measurement : SeedBatch, array of shape (n_spacepoints,), int32
        As for `list_retried`.
    is_used : array of shape (n_measurements,), int32
        Changed here.
    """
    payload = _MarkPayload(listed, seeds, spacepoint_measurement, is_used)
    ws.launch(mark_points, ws.extent("retried_seeds"), payload)
