"""Windows of a layer map, learned from the true edges of simulated particles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from traccc_py.training.graphs import EventPoints, doublet_values
from traccc_py.training.truth_edges import TrueEdges

__all__ = ["LearnedPairs", "WindowExample", "learn_windows"]

_FEWEST_EDGES = 4  # of a pair of layers: fewer are chance
_ENOUGH_EDGES = 300  # for quantiles
_QUANTILE = 0.001
_Z0, _COLLISION_REGION = 3, 250.0  # collisions may lie farther out than those that windows are learned from [mm]
_ANY = 1e6  # a value beyond all others: no limit
_WIDENED = 0.1  # part of its width, on either side
#: ... and at least this: dr [mm], dphi, dz [mm], z0 [mm], dphi / dr [1/mm], cot(theta), channels, channels
_LEAST = np.array([2.0, 0.001, 2.0, 2.0, 1e-5, 0.03, 0.05, 0.05])


class WindowExample(NamedTuple):
    """An event to learn from."""

    points: EventPoints
    edges: TrueEdges  # by row of the points
    is_used: np.ndarray  # (n_edges,) bool, which of them to learn from
    is_wide: bool = False  # its collisions are spread out farther than usual, so they don't tell the usual z0


class LearnedPairs(NamedTuple):
    """Pairs of layers, those with most edges first."""

    pairs: np.ndarray  # (n, 2) int32, inner and outer layer
    windows: np.ndarray  # (n, N_VALUES, 2) float32
    n_edges: np.ndarray  # (n,) int64


def learn_windows(events: Sequence[WindowExample]) -> LearnedPairs:
    """Find which pairs of layers particles cross in a row, and what their doublets measure.

    Parameters
    ----------
    events : sequence of WindowExample
        Events.

    Returns
    -------
    LearnedPairs
        With windows that hold 99.8 % of the edges, widened by a tenth on either side; those of z at the beam line hold
        the collision region.
    """
    layers, values = [], []
    for points, edges, is_used, is_wide in events:
        inner, outer = edges.inner[is_used], edges.outer[is_used]
        layers.append(np.stack([points.layer[inner], points.layer[outer]], axis=1))
        found = doublet_values(points, inner, outer)
        if is_wide:
            found[:, _Z0] = np.nan
        values.append(found)
    pairs, of_pair, n_edges = np.unique(np.concatenate(layers), axis=0, return_inverse=True, return_counts=True)
    all_values, of_pair = np.concatenate(values), of_pair.ravel()
    kept = np.flatnonzero(n_edges >= _FEWEST_EDGES)
    kept = kept[np.argsort(-n_edges[kept], kind="stable")]
    windows = np.array([_window(all_values[of_pair == pair]) for pair in kept], np.float32)
    return LearnedPairs(pairs[kept].astype(np.int32), windows, n_edges[kept])


def _window(values: np.ndarray) -> np.ndarray:
    """Return the least and the largest of each value, (N_VALUES, 2); what is not a number is not known."""
    window = np.tile([-_ANY, _ANY], (values.shape[1], 1))
    is_known = ~np.isnan(values).all(axis=0)
    known = values[:, is_known]
    if len(values) >= _ENOUGH_EDGES:
        low, high = np.nanquantile(known, (_QUANTILE, 1 - _QUANTILE), axis=0)
    else:
        low, high = np.nanmin(known, axis=0), np.nanmax(known, axis=0)
    margin = _WIDENED * (high - low) + _LEAST[is_known]
    window[is_known] = np.stack([low - margin, high + margin], axis=1)
    known_z0 = window[_Z0] if is_known[_Z0] else (0.0, 0.0)
    window[_Z0] = min(known_z0[0], -_COLLISION_REGION), max(known_z0[1], _COLLISION_REGION)
    return window
