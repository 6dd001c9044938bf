"""Tiny events for comparisons of devices: a few tracks through a telescope, one pixel a plane."""

import numpy as np

from traccc_py.edm import Cells, columns_of
from traccc_py.geometry import build_detector

PITCH = 0.05  # [mm]
HALF_LENGTH = 100.0  # [mm]
SPACING = 20.0  # [mm]; also the position of the first plane
RADIUS = 8000.0  # of the tracks' circles, about 5 GeV at 2 T [mm]


def telescope():
    """Return the detector of these events: nine planes at x = 20, 40, ... mm."""
    return build_detector("telescope")


def telescope_cells(n_tracks, seed, detector):
    """Return the cells of `n_tracks` from the origin, with both charges, in random order, and some noise."""
    random = np.random.default_rng(seed)
    slope, tangent = random.uniform(-0.3, 0.3, (2, n_tracks))
    sign = random.choice([-1, 1], n_tracks)
    n_planes = len(detector.geometry_ids)
    x = SPACING * np.arange(1, n_planes + 1)[:, None]
    y = slope * x + sign * x**2 / (2 * RADIUS)
    z = tangent * x
    plane = np.repeat(np.arange(n_planes), n_tracks)
    channels = [np.floor((position.ravel() + HALF_LENGTH) / PITCH).astype(np.int64) for position in (y, z)]
    noise = random.integers(0, int(2 * HALF_LENGTH / PITCH), (2, 10))
    plane = np.concatenate((plane, random.integers(0, n_planes, 10)))
    channel0, channel1 = (np.concatenate(pair) for pair in zip(channels, noise, strict=True))
    order = random.permutation(len(plane))
    return Cells(
        geometry_id=np.asarray(detector.geometry_ids)[plane][order],
        channel0=channel0[order],
        channel1=channel1[order],
        activation=np.full(len(order), 0.15, np.float32),
        time=np.zeros(len(order), np.float32),
        measurement_id=np.arange(len(order)),
    )


def columns(result):
    """Return the arrays of an event's result by name, for comparisons."""
    found = {}
    for part in ("measurements", "spacepoints", "seeds", "tracks", "track_states"):
        collection = getattr(result, part)
        for name in columns_of(type(collection)):
            found[f"{part}.{name}"] = np.asarray(getattr(collection, name))
    return found
