"""Small files of TrackML, made from detectors of this package."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from traccc_py.geometry import build_detector
from traccc_py.geometry.surfaces import decode_geometry_id
from traccc_py.geometry.trackml import MODULE_COLUMNS

__all__ = ["detector_rows", "toy_rows", "write_rows"]

PITCH = 0.05


def detector_rows(detector, pitch=(PITCH, PITCH)):
    """Return the modules of a detector of rectangles and trapezoids as rows of detectors.csv, all of one pitch."""
    s, ids = detector.surfaces, decode_geometry_id(detector.geometry_ids)
    rotation = np.stack([s.u, s.v, s.w], axis=2).reshape(-1, 9)  # x of u, v, w, then y, then z
    sizes = [s.thickness / 2, s.hx_min, s.hx_max, s.hy]
    pitches = [np.full(len(s), value) for value in pitch]
    return np.column_stack([ids.volume, ids.layer, ids.sensitive, s.centre, rotation, *sizes, *pitches])


def toy_rows():
    """Return rows of the toy detector's barrel, without discs: 2,492 modules."""
    return detector_rows(build_detector("toy", n_endcap_layers=0))


def write_rows(path: Path, rows, columns=MODULE_COLUMNS) -> Path:
    """Write rows as detectors.csv; gzipped if the name ends in .gz."""
    lines = [",".join(columns), *(",".join(f"{x:.9g}" for x in row) for row in np.asarray(rows).tolist()), ""]
    content = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
