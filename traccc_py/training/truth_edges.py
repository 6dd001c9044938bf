"""True edges: spacepoints of a particle on consecutive layers, in the order in which it crossed them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["TrueEdges", "true_edges"]


class TrueEdges(NamedTuple):
    """Pairs of spacepoints of one particle, without a layer between; an overlap's spacepoints are all linked."""

    inner: np.ndarray  # (n,) int64, spacepoint
    outer: np.ndarray  # (n,) int64
    particle: np.ndarray  # (n,) int64


def true_edges(spacepoint: np.ndarray, particle: np.ndarray, time: np.ndarray, layer: np.ndarray) -> TrueEdges:
    """Link the spacepoints of particles.

    Parameters
    ----------
    spacepoint : ndarray of shape (n,), int64
        A spacepoint of each link between spacepoints and particles.
    particle : ndarray of shape (n,), int64
        The particle.
    time : ndarray of shape (n,)
        When the particle was there [ns].
    layer : ndarray of shape (n,), int64
        Where; links with a negative one are left out.

    Returns
    -------
    TrueEdges
        Ordered by particle, then by time.
    """
    used = np.flatnonzero(layer >= 0)
    order = used[np.lexsort((spacepoint[used], time[used], particle[used]))]
    point, of, on = spacepoint[order], particle[order], layer[order]
    if len(order) == 0:
        none = np.zeros(0, np.int64)
        return TrueEdges(none, none, none)
    is_new = np.concatenate(([True], (of[1:] != of[:-1]) | (on[1:] != on[:-1])))
    first = np.flatnonzero(is_new)  # of each crossing of a layer
    size = np.diff(np.append(first, len(order)))
    has_next = np.append(of[first[1:]] == of[first[:-1]], False)
    here = np.flatnonzero(has_next)
    n_links = size[here] * size[here + 1]
    group = np.repeat(here, n_links)
    rank = np.arange(len(group)) - np.repeat(np.cumsum(n_links) - n_links, n_links)
    inner = point[first[group] + rank // size[group + 1]]
    outer = point[first[group + 1] + rank % size[group + 1]]
    return TrueEdges(inner, outer, of[first[group]])
