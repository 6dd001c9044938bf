"""Clusters and measurements of one module, by the plain definitions, in float64."""

from __future__ import annotations

import numpy as np


def find_clusters(channel0, channel1):
    """Return lists of cell indices: connected components of cells whose channels differ by at most one on both axes."""
    near = (np.abs(np.subtract.outer(channel0, channel0)) <= 1) & (np.abs(np.subtract.outer(channel1, channel1)) <= 1)
    unseen, clusters = set(range(len(channel0))), []
    while unseen:
        todo, members = [min(unseen)], []
        unseen.discard(todo[0])
        while todo:
            cell = todo.pop()
            members.append(cell)
            reached = [other for other in np.flatnonzero(near[cell]) if other in unseen]
            unseen.difference_update(reached)
            todo.extend(reached)
        clusters.append(sorted(members))
    return sorted(clusters)


def measure(channel, activation, low_edge, pitch):
    """Return (position, activation-weighted variance, number of channels) along one axis."""
    centre = low_edge + (channel + 0.5) * pitch
    mean = np.sum(activation * centre) / np.sum(activation)
    spread = np.sum(activation * (centre - mean) ** 2) / np.sum(activation)
    return mean, spread, channel.max() - channel.min() + 1
