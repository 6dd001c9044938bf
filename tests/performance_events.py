"""Hand-made events for tests of the performance code."""

import numpy as np

from traccc_py.data.truth import Hits, Particles
from traccc_py.performance.tracks import TrackSet
from traccc_py.performance.truth import EventTruth, MeasurementTruth


def links_of(lists):
    """Truth of measurements from one list of particles per measurement."""
    offsets = np.concatenate(([0], np.cumsum([len(x) for x in lists]))).astype(np.int64)
    particles = np.array([p for x in lists for p in x], np.int64)
    n_hits = np.arange(len(particles))
    hits = np.stack([np.repeat(np.arange(len(lists)), np.diff(offsets)), n_hits], axis=1)
    return MeasurementTruth(offsets, particles, np.ones(len(particles), np.int64), n_hits, hits)


def tracks_of(lists):
    """Tracks from one list of measurements per track."""
    offsets = np.concatenate(([0], np.cumsum([len(t) for t in lists]))).astype(np.int64)
    return TrackSet.without_fit(offsets, np.array([m for t in lists for m in t], np.int64))


def particles_at(pt, eta, z, charge=-1.0, code=13):
    n = len(pt)
    pt, eta, z = (np.asarray(v, float) for v in (pt, eta, z))
    momentum = np.stack([pt, np.zeros(n), pt * np.sinh(eta)], axis=1)
    vertex = np.stack([np.zeros(n), np.zeros(n), z], axis=1)
    return Particles(
        np.arange(n, dtype=np.uint64), np.full(n, code), np.zeros(n, np.int32), vertex, np.zeros(n), momentum,
        np.full(n, 0.1), np.full(n, charge),
    )  # fmt: skip


def event_of(particles, particle_of_hit, geometry_id=None):
    """Truth of an event with hits at the origin."""
    n = len(particle_of_hit)
    zero, vector = np.zeros(n), np.zeros((n, 3))
    ids = np.zeros(n, np.uint64) if geometry_id is None else np.asarray(geometry_id, np.uint64)
    particle_of_hit = np.asarray(particle_of_hit, np.int64)
    hits = Hits(particle_of_hit.astype(np.uint64), ids, vector, zero, vector, zero, vector, zero, np.zeros(n, np.int64))
    return EventTruth(0, particles, hits, particle_of_hit)
