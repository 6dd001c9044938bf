"""Prepare track candidates of one event: checked, in canonical order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from traccc_py.data.source import Source, prefix
from traccc_py.edm import FEWEST_SPACEPOINTS, Candidates
from traccc_py.errors import InputDataError

__all__ = ["PreparedCandidates", "prepare_candidates", "renumbered"]


class PreparedCandidates(NamedTuple):
    """Lists of spacepoints, each from the inside out, ordered by the first spacepoint of each."""

    offsets: np.ndarray  # (n + 1,) int32
    spacepoint: np.ndarray  # (n_points,) int32, row of the prepared spacepoints


def prepare_candidates(
    candidates: Candidates, row: np.ndarray, position: np.ndarray, source: Source | str | None
) -> PreparedCandidates:
    """Check candidates and bring them into an order that does not depend on theirs.

    Parameters
    ----------
    candidates : Candidates
        Candidates of one event.
    row : ndarray of shape (n_spacepoints,), int
        Row of each spacepoint after its preparation.
    position : ndarray of shape (n_spacepoints, 3)
        Global positions in the new order [mm].
    source : Source or str or None
        File of the event, for errors.

    Returns
    -------
    PreparedCandidates
        By new rows.

    Raises
    ------
    InputDataError
        If the offsets are no offsets, a row does not exist, a spacepoint is in two candidates, or one has fewer than
        three; the message names candidate and row.
    """
    offsets, points = _checked_columns(candidates, source)
    n = len(row)
    size = np.diff(offsets)
    of = np.repeat(np.arange(len(size)), size)
    for is_bad, problem in (
        ((points < 0) | (points >= n), f"has spacepoint {{}}; expected 0 to {n - 1}: a row of the spacepoints"),
        (_is_repeated(points), "has spacepoint {}, which is in a candidate already; expected each in one at most"),
    ):
        if is_bad.any():
            k = int(np.argmax(is_bad))
            msg = f"{prefix(source)}candidate {of[k]} (counted from 0) {problem.format(points[k])}"
            raise InputDataError(msg)
    if (size < FEWEST_SPACEPOINTS).any():
        k = int(np.argmax(size < FEWEST_SPACEPOINTS))
        msg = (
            f"{prefix(source)}candidate {k} (counted from 0) has {size[k]} spacepoints; "
            f"expected at least {FEWEST_SPACEPOINTS}"
        )
        raise InputDataError(msg)
    return _ordered(row[points], of, position)


def _checked_columns(candidates: Candidates, source: Source | str | None) -> tuple[np.ndarray, np.ndarray]:
    offsets, points = (np.asarray(a) for a in (candidates.offsets, candidates.spacepoint_index))
    is_list = (
        offsets.ndim == 1
        and points.ndim == 1
        and len(offsets) > 0
        and (offsets.dtype.kind in "iu")
        and (points.dtype.kind in "iu" or not len(points))
        and offsets[0] == 0
        and offsets[-1] == len(points)
        and bool((np.diff(offsets.astype(np.int64)) >= 0).all())
    )
    if not is_list:
        msg = (
            f"{prefix(source)}candidates.offsets of shape {offsets.shape} and type {offsets.dtype} don't cut "
            f"spacepoint_index of shape {points.shape} and type {points.dtype}; expected integers that rise from 0 to "
            "its length"
        )
        raise InputDataError(msg)
    return offsets.astype(np.int64), points.astype(np.int64)


def _is_repeated(points: np.ndarray) -> np.ndarray:
    """Return whether a value was there before."""
    first = np.unique(points, return_index=True)[1]
    repeated = np.ones(len(points), bool)
    repeated[first] = False
    return repeated


def _ordered(points: np.ndarray, of: np.ndarray, position: np.ndarray) -> PreparedCandidates:
    """Return lists in canonical order: points by their distance from the origin, lists by their first point."""
    if not len(points):
        return PreparedCandidates(np.zeros(1, np.int32), np.zeros(0, np.int32))
    distance = np.linalg.norm(position[points].astype(np.float64), axis=1)
    order = np.lexsort((points, distance, of))
    first = np.flatnonzero(np.diff(of[order], prepend=-1))
    rank = np.empty(int(of.max()) + 1, np.int64)
    rank[of[order][first][np.argsort(points[order][first], kind="stable")]] = np.arange(len(first))
    by_list = order[np.argsort(rank[of[order]], kind="stable")]
    size = np.bincount(rank[of], minlength=len(first))
    return PreparedCandidates(np.concatenate(([0], np.cumsum(size))).astype(np.int32), points[by_list].astype(np.int32))


def renumbered(candidates: PreparedCandidates, is_kept: np.ndarray) -> tuple[PreparedCandidates, int]:
    """Return candidates without some of the spacepoints, and how many candidates became too short.

    Parameters
    ----------
    candidates : PreparedCandidates
        Candidates.
    is_kept : ndarray of shape (n_spacepoints,), bool
        The spacepoints that stay; their rows are counted anew.
    """
    row = np.where(is_kept, np.cumsum(is_kept) - 1, -1)[candidates.spacepoint]
    size = np.diff(candidates.offsets)
    of = np.repeat(np.arange(len(size)), size)
    left = np.bincount(of[row >= 0], minlength=len(size))
    is_long = left >= FEWEST_SPACEPOINTS
    taken = (row >= 0) & is_long[of]
    offsets = np.concatenate(([0], np.cumsum(left[is_long]))).astype(np.int32)
    return PreparedCandidates(offsets, row[taken].astype(np.int32)), int(np.count_nonzero(~is_long))
