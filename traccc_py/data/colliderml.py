"""Events in ColliderML's format: hits of the Open Data Detector's sensors, particles, and tracks.

A hit is a digitised global position with volume, layer and surface number; there are no cells and no variances. Its
position is projected to its sensor. Along each axis it lies in the middle of a channel, or between channels, which
tells whether its cluster had one channel (or an odd number) or two (or more): the variances are those of the detector's
table for one and two channels, else pitch^2 / 12.

References
----------
ColliderML release 1 (OpenDataDetector/ColliderML): field 3 T, digitisation of the Open Data Detector 5.
"""

from __future__ import annotations

import numpy as np

from traccc_py.data.csv_table import Column
from traccc_py.data.parquet_files import ParquetEvents
from traccc_py.data.source import Source, bad_row
from traccc_py.data.truth import Hits, Particles
from traccc_py.edm import EventResult, Measurements
from traccc_py.geometry.detector import Detector
from traccc_py.geometry.surfaces import decode_geometry_id, encode_geometry_id

__all__ = [
    "HIT_RULES",
    "PARTICLE_RULES",
    "collider_hits",
    "hit_measurements",
    "majority_particles",
    "read_collider_particles",
]

HIT_RULES = [
    *(Column(name, "f4") for name in ("x", "y", "z")),
    *(Column(name, "f4", default=np.nan, allow_nan=True) for name in ("true_x", "true_y", "true_z")),
    Column("time", "f4", default=0.0),
    Column("particle_id", "u8", default=0),
    Column("volume_id", "u4"),
    Column("layer_id", "u4"),
    Column("surface_id", "u4"),
]
PARTICLE_RULES = [
    Column("particle_id", "u8"),
    Column("pdg_id", "i4"),
    Column("mass", "f4", default=0.0),
    Column("charge", "f4"),
    *(Column(name, "f4") for name in ("vx", "vy", "vz")),
    Column("time", "f4", default=0.0),
    *(Column(name, "f4") for name in ("px", "py", "pz")),
]
_OFF_PLANE = 0.1  #: largest distance of a hit from its sensor [mm]; those of release 1 are within 0.1 um
_OFF_CENTRE = 0.02  #: distance from the middle of a channel that is rounding, in channels
_NO_PARTICLE = np.uint64(2**64 - 1)


def hit_measurements(table: dict[str, np.ndarray], detector: Detector, source: Source) -> Measurements:
    """Return hits as measurements.

    Parameters
    ----------
    table : dict of str to ndarray
        Columns of `HIT_RULES`.
    detector : Detector
        The detector, with the readout and field of the sample.
    source : Source
        Where they are from, for errors.

    Returns
    -------
    Measurements
        Rows, and `measurement_id`, as those of the hits.

    Raises
    ------
    InputDataError
        If a hit's surface is unknown, or the hit is not on it.
    """
    module = _modules(table, detector, source)
    surfaces = detector.surfaces
    relative = np.stack([table[axis] for axis in "xyz"], axis=1).astype(np.float64) - surfaces.centre[module]
    u, v, w = (np.sum(axis[module] * relative, axis=1) for axis in (surfaces.u, surfaces.v, surfaces.w))
    off = np.abs(w) > _OFF_PLANE
    if off.any():
        row = int(np.argmax(off))
        problem = f"the hit is {w[row]:.3g} mm off its sensor; is it the right detector?"
        raise bad_row(source, "tracker_hits", row, problem)
    local = np.stack([u, v], axis=1)
    variance, dimensions = _variances(local, module, detector)
    n = len(module)
    return Measurements(
        geometry_id=detector.geometry_ids[module],
        local_position=local.astype(np.float32),
        local_variance=variance.astype(np.float32),
        dimensions=dimensions,
        time=table["time"],
        module_index=module.astype(np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        measurement_id=np.arange(n),
        cell_offsets=np.zeros(n + 1, np.int64),
    )


def _modules(table: dict[str, np.ndarray], detector: Detector, source: Source) -> np.ndarray:
    ids = decode_geometry_id(detector.geometry_ids)
    known = encode_geometry_id(ids.volume, ids.layer, ids.sensitive)  # without the extra number, which hits don't have
    order = np.argsort(known, kind="stable")
    wanted = encode_geometry_id(*(table[name] for name in ("volume_id", "layer_id", "surface_id")))
    place = np.minimum(np.searchsorted(known[order], wanted), len(known) - 1)
    module = order[place]
    is_bad = (known[module] != wanted) | ~detector.surfaces.is_sensitive[module]
    if is_bad.any():
        row = int(np.argmax(is_bad))
        volume, layer, surface = (table[name][row] for name in ("volume_id", "layer_id", "surface_id"))
        problem = (
            f"volume {volume}, layer {layer}, surface {surface} is no sensor of detector {detector.name!r}; "
            "is it the right detector?"
        )
        raise bad_row(source, "tracker_hits", row, problem)
    return module


def _variances(local: np.ndarray, module: np.ndarray, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Return variances and number of dimensions of positions on sensors."""
    index = detector.design_of_surface[module]
    design, table = detector.designs[index], detector.variance_table.variances
    variance = np.zeros((len(module), 2))
    for axis in range(2):
        pitch = design[f"pitch{axis}"].astype(np.float64)
        channel = (local[:, axis] - design[f"min{axis}"]) / pitch
        is_single = np.abs(channel - np.floor(channel) - 0.5) < _OFF_CENTRE
        known = table[index, axis, np.where(is_single, 1, 2)].astype(np.float64)
        variance[:, axis] = np.where(known > 0, known, pitch**2 / 12.0)
    dimensions = design["dimensions"].astype(np.int32)
    variance[dimensions == 1, 1] = 0.0
    return variance, dimensions


def collider_hits(table: dict[str, np.ndarray], measurements: Measurements) -> Hits:
    """Return hits as truth: their true positions, without momenta, which the format does not have."""
    n = len(measurements)
    return Hits(
        particle_id=table["particle_id"],
        geometry_id=measurements.geometry_id,
        position=np.stack([table[f"true_{axis}"] for axis in "xyz"], axis=1),
        time=table["time"],
        momentum=np.full((n, 3), np.nan, np.float32),
        energy=np.full(n, np.nan, np.float32),
        delta_momentum=np.zeros((n, 3), np.float32),
        delta_energy=np.zeros(n, np.float32),
        index=np.full(n, -1),
    )


def read_collider_particles(events: ParquetEvents, row: int) -> Particles:
    """Return the particles of an event.

    Raises
    ------
    InputDataError
        If the file can't be used.
    """
    events.check_columns(PARTICLE_RULES)
    table = events.read(row, PARTICLE_RULES)
    return Particles(
        particle_id=table["particle_id"],
        particle_type=table["pdg_id"],
        process=np.zeros(len(table["pdg_id"]), np.int32),
        vertex=np.stack([table[f"v{axis}"] for axis in "xyz"], axis=1),
        time=table["time"],
        momentum=np.stack([table[f"p{axis}"] for axis in "xyz"], axis=1),
        mass=table["mass"],
        charge=table["charge"],
    )


def majority_particles(result: EventResult, particle_of_measurement: np.ndarray) -> np.ndarray:
    """Return the particle with most measurements on each track, (n_tracks,) uint64.

    Parameters
    ----------
    result : EventResult
        An event.
    particle_of_measurement : ndarray of shape (n,), uint64
        Particles by `measurement_id`.

    Returns
    -------
    ndarray of shape (n_tracks,), uint64
        Of equal numbers the smallest id; 2^64 - 1 where a track has no measurements.
    """
    states = result.track_states
    particle = particle_of_measurement[result.measurements.measurement_id[states.measurement_index]]
    ids, dense = np.unique(particle, return_inverse=True)
    pairs, counts = np.unique(states.track_index.astype(np.int64) * max(len(ids), 1) + dense, return_counts=True)
    track, place = np.divmod(pairs, max(len(ids), 1))
    order = np.lexsort((-place, counts, track))  # the last of a track has most measurements, then the smallest id
    found = np.full(len(result.tracks), _NO_PARTICLE)
    found[track[order]] = ids[place[order]]
    return found
