"""ColliderML's display events, stored as measurements, rewritten in ColliderML's own form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from traccc_py.data.csv_events import read_measurements
from traccc_py.data.parquet_files import ParquetTables
from traccc_py.geometry.surfaces import decode_geometry_id

EVENTS = (0, 1)
EVENTS_PER_FILE = 1000


def hit_columns(path, detector):
    """Return the columns of tracker_hits of a file of measurements."""
    measurements = read_measurements(path, detector)
    ids = decode_geometry_id(measurements.geometry_id)
    xyz = detector.surfaces.global_positions(measurements.module_index, measurements.local_position.astype(np.float64))
    position = dict(zip("xyz", xyz.astype(np.float32).T, strict=True))
    n = len(measurements)
    return {
        **position,
        **{f"true_{axis}": values for axis, values in position.items()},
        "time": np.zeros(n, np.float32),
        "particle_id": pd.read_csv(path)["particle_id"].to_numpy().astype(np.uint64),
        "detector": np.zeros(n, np.uint8),
        "volume_id": ids.volume.astype(np.uint8),
        "layer_id": ids.layer.astype(np.uint16),
        "surface_id": ids.sensitive.astype(np.uint32),
    }


def particle_columns(path):
    """Return the columns of particles of a file of truth; their azimuth is not known there, and 0 here."""
    truth = pd.read_csv(path)
    n = len(truth)
    theta = 2 * np.arctan(np.exp(-truth["eta"].to_numpy()))
    zero = np.zeros(n, np.float32)
    return {
        "particle_id": truth["particle_id"].to_numpy().astype(np.uint64),
        "pdg_id": truth["pdg"].to_numpy().astype(np.int64),
        "mass": zero + np.float32(0.13957),
        "energy": zero,
        "charge": np.sign(truth["pdg"].to_numpy()).astype(np.float32),
        **dict.fromkeys(("vx", "vy", "vz", "time"), zero),
        "px": truth["pt"].to_numpy().astype(np.float32),
        "py": zero,
        "pz": (truth["pt"].to_numpy() / np.tan(theta)).astype(np.float32),
        "perigee_d0": zero,
        "perigee_z0": zero,
        "vertex_primary": np.ones(n, np.uint16),
        "parent_id": np.full(n, -1, np.int64),
        "primary": np.ones(n, bool),
    }


def write_sample(source: Path, folder: Path, detector) -> Path:
    """Write the display events in `source` to `folder`."""
    tables = ParquetTables(folder, EVENTS_PER_FILE)
    for event in EVENTS:
        name = f"event{event:09d}"
        tables.add(
            event,
            {
                "tracker_hits": hit_columns(source / f"{name}-measurements.csv", detector),
                "particles": particle_columns(source / f"{name}-truth.csv"),
            },
        )
    tables.close()
    return folder
