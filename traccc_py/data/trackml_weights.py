"""Weights of hits in the score of the TrackML challenge.

A hit weighs more on particles of higher pT, and at the ends of a track, above all at its beginning.

References
----------
S. Amrouche et al., The Tracking Machine Learning challenge: Accuracy phase, arXiv:1904.06778, section 4. The numbers
are those of the organisers' program, LAL/trackml-library.
"""

from __future__ import annotations

import numpy as np

from traccc_py.data.truth import Hits, Particles

__all__ = ["hit_weights"]

_ORDER = (10.0, 8.0, 6.0, 5.0, 3.0, 3.0, 3.0, 5.0, 6.0)  #: weights along a track, from its first to its last hit
_FEWEST_HITS, _MOST_HITS = 4, 20  #: particles with less weigh nothing, and nothing does what comes behind the last
_PT_EDGES, _PT_WEIGHTS = (0.5, 3.0), (0.2, 1.0)  #: [GeV], linear between
_SMALLEST_PT = 0.05  #: below it a hit weighs nothing [GeV]


def _order_weights(n_hits: int) -> np.ndarray:
    """Return the weights of a particle's hits in their order, which add up to 1."""
    n = min(n_hits, _MOST_HITS)
    support = np.arange(len(_ORDER)) * (n - 1) / (len(_ORDER) - 1)
    weights = np.zeros(n_hits)
    weights[:n] = np.interp(np.arange(n), support, _ORDER)
    return weights / weights.sum()


def hit_weights(hits: Hits, particles: Particles, particle_of_hit: np.ndarray) -> np.ndarray:
    """Return the weights of all hits of an event.

    Parameters
    ----------
    hits : Hits
        n hits, those that made measurements.
    particles : Particles
        Particles of the event.
    particle_of_hit : ndarray of shape (n,), int64
        Row of the particle; -1: none.

    Returns
    -------
    ndarray of shape (n,), float64
        Weights, which add up to 1; all 0 if no particle has hits enough.
    """
    weights = np.zeros(len(hits))
    rows = np.flatnonzero(particle_of_hit >= 0)
    particle = particle_of_hit[rows]
    distance = np.abs(hits.position[rows, 2].astype(np.float64) - particles.vertex[particle, 2])
    order = np.lexsort((rows, distance, particle))
    rows, particle = rows[order], particle[order]
    _, first, counts = np.unique(particle, return_index=True, return_counts=True)
    of_pt = np.interp(particles.pt[particle], _PT_EDGES, _PT_WEIGHTS) * (particles.pt[particle] >= _SMALLEST_PT)
    by_count = {n: _order_weights(n) for n in np.unique(counts).tolist() if n >= _FEWEST_HITS}
    for start, n in zip(first.tolist(), counts.tolist(), strict=True):
        if n in by_count:
            weights[rows[start : start + n]] = of_pt[start] * by_count[n]
    total = weights.sum()
    return weights / total if total > 0 else weights
