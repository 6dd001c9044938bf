"""The score of the TrackML challenge: the weight of the hits that are on tracks of their particles, 0 to 1.

A track counts if more than half of its hits are of one particle, and more than half of this particle's hits are on the
track; then the weights of these common hits are added. The weights are those of `data.trackml_weights`.

References
----------
S. Amrouche et al., The Tracking Machine Learning challenge: Accuracy phase, arXiv:1904.06778, section 4.
"""

from __future__ import annotations

import numpy as np

from traccc_py.data.trackml_weights import hit_weights
from traccc_py.performance.tracks import TrackSet
from traccc_py.performance.truth import EventTruth, MeasurementTruth

__all__ = ["event_score", "hits_on_tracks"]


def hits_on_tracks(tracks: TrackSet, links: MeasurementTruth, n_hits: int) -> np.ndarray:
    """Return the track of each hit, (n_hits,) int64; -1: none.

    Of several tracks of a measurement the one with most measurements counts, then the first: in the challenge each hit
    is on one track.
    """
    n_measurements = len(links.offsets) - 1
    length = tracks.n_measurements
    track = np.repeat(np.arange(len(tracks)), np.diff(tracks.offsets))
    used = tracks.measurement_index >= 0
    track, measurement = track[used], tracks.measurement_index[used]
    order = np.lexsort((-track, length[track]))  # the last one stays
    of_measurement = np.full(n_measurements, -1)
    of_measurement[measurement[order]] = track[order]
    found = np.full(n_hits, -1)
    np.maximum.at(found, links.hits[:, 1], of_measurement[links.hits[:, 0]])
    return found


def event_score(event: EventTruth, tracks: TrackSet, links: MeasurementTruth) -> float:
    """Return the score of an event.

    Parameters
    ----------
    event : EventTruth
        Truth; its `hit_weights`, or those that follow from it.
    tracks : TrackSet
        Tracks.
    links : MeasurementTruth
        Hits of the measurements; hits that made none don't count.

    Returns
    -------
    float
        0 to 1; NaN if no hit has a weight.
    """
    there = np.unique(links.hits[:, 1])
    particle = event.particle_of_hit[there]
    weights = event.hit_weights
    weights = hit_weights(event.hits[there], event.particles, particle) if weights is None else weights[there]
    total = weights.sum()
    if not total > 0:
        return float("nan")
    track = hits_on_tracks(tracks, links, len(event.hits))[there]
    is_on = track >= 0
    n = len(tracks)
    n_on_track = np.bincount(track[is_on], minlength=n) + _without_hits(tracks, links)
    is_of = is_on & (particle >= 0)
    pairs, common = np.unique(np.stack([track[is_of], particle[is_of]], axis=1), axis=0, return_counts=True)
    n_of_particle = np.bincount(particle[particle >= 0], minlength=len(event.particles))
    is_good = (2 * common > n_on_track[pairs[:, 0]]) & (2 * common > n_of_particle[pairs[:, 1]])
    particle_of_track = np.full(n, -1)
    particle_of_track[pairs[is_good, 0]] = pairs[is_good, 1]
    counts = is_of & (particle_of_track[np.where(is_on, track, 0)] == particle) if n else is_of
    return float(weights[counts].sum() / total)


def _without_hits(tracks: TrackSet, links: MeasurementTruth) -> np.ndarray:
    """Return the measurements of each track that no hit made: noise, which is a hit of no particle there."""
    has_hit = np.zeros(len(links.offsets) - 1, bool)
    has_hit[links.hits[:, 0]] = True
    track = np.repeat(np.arange(len(tracks)), np.diff(tracks.offsets))
    used = tracks.measurement_index >= 0
    is_noise = ~has_hit[tracks.measurement_index[used]]
    return np.bincount(track[used][is_noise], minlength=len(tracks))
