"""The detector of the TrackML challenge: one row a module in a CSV file, with centre, rotation, sizes and pitches.

The file has neither material nor a field. The material is that of Acts's generic detector, from which the challenge's
was made: silicon per module, beam pipe and support tube of the pixels.

References
----------
S. Amrouche et al., The Tracking Machine Learning challenge: Accuracy phase, arXiv:1904.06778 (columns of the file).
Acts, Examples/Detectors/GenericDetector (material).
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.files import content_digest
from traccc_py.geometry.detector import Detector, assemble_detector
from traccc_py.geometry.digitization import Design, Digitization, symmetric_axes
from traccc_py.geometry.material.material import BERYLLIUM_TML, SILICON_TML
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.geometry.surfaces import PassiveSurface, Surfaces, encode_geometry_id

__all__ = ["MODULE_COLUMNS", "read_trackml_detector"]

_IDS = {"volume_id": 255, "layer_id": 4095, "module_id": 1_048_575}  #: and the largest that an Acts id holds
_ROTATION = tuple(f"rot_{x}{u}" for x in "xyz" for u in "uvw")
_LENGTHS = ("module_t", "module_minhu", "module_maxhu", "module_hv", "pitch_u", "pitch_v")
#: Columns of the file: centre and half sizes in mm, module_t is half of the thickness.
MODULE_COLUMNS = (*_IDS, "cx", "cy", "cz", *_ROTATION, *_LENGTHS)
_NO_WIDTH = -1.0  #: module_minhu of rectangles
_AXES_TOLERANCE = 1e-3  #: of the rotation, which the file has with six digits
_MAX_CHANNELS = 10**6  #: of a sensor along an axis: more is a pitch in other units
_SAME_CHANNEL = 1e-4  #: part of a channel that rounding leaves
#: Volume: silicon of a module [mm]; in others it is as many times as thick as the sensor as in the pixels.
_SILICON = {7: 1.5, 8: 1.5, 9: 1.5, 12: 2.5, 13: 2.0, 14: 2.5, 16: 3.5, 17: 2.5, 18: 3.5}
_SILICON_PER_SENSOR = 5.0
_TUBES = (("beam pipe", 19.0, 2980.0, 0.8), ("pixel support tube", 200.0, 2800.0, 1.8))  #: radius, half length, wall
_NAMES = {
    7: "pixel endcap -",
    8: "pixel barrel",
    9: "pixel endcap +",
    12: "short strip endcap -",
    13: "short strip barrel",
    14: "short strip endcap +",
    16: "long strip endcap -",
    17: "long strip barrel",
    18: "long strip endcap +",
}
_LONGEST_PIXEL = 0.2  #: channels longer than this are strips, of which no charges are read [mm]
_THRESHOLD, _CHARGE_SMEARING = 0.01, 0.01  #: of activations, as of the Open Data Detector [mm]


def read_trackml_detector(
    path: str | Path, *, digitization: str | Path | Digitization | None = None, b_field_z: float = 2.0
) -> Detector:
    """Read a detector from a ``detectors.csv`` of TrackML (``.csv`` or ``.csv.gz``).

    Parameters
    ----------
    path : str or Path
        File with the columns `MODULE_COLUMNS`; rows in any order, other columns are ignored.
    digitization : str, Path or Digitization, optional
        Readout designs by name or file; None: channels of the file's pitches, from edge to edge of the sensors.
    b_field_z : float, optional
        Homogeneous field along z [T].

    Returns
    -------
    Detector
        Named "trackml"; ids are Acts geometry ids of volume, layer and module number.

    Raises
    ------
    GeometryError
        With file and line, if the file breaks the format; if modules can't be laid out in layers.

    Notes
    -----
    Sensors with a pitch of at most 0.2 mm along both axes have analogue readout, others binary. Without `digitization`
    the designs are numbered within each volume, in the order of their widths: they are looked up by (volume, number).
    """
    columns = _read_columns(Path(path))
    try:
        surfaces, order = _surfaces(columns)
        acts_ids, chosen = None, digitization
        if chosen is None:
            acts_ids, chosen = _readout({name: values[order] for name, values in columns.items()})
        return assemble_detector(
            "trackml",
            surfaces,
            _passive(surfaces),
            chosen,
            b_field_z,
            volume_names={int(v): _NAMES.get(int(v), "volume") for v in np.unique(columns["volume_id"])},
            acts_ids=acts_ids,
        )
    except GeometryError as error:
        msg = f"{path}: {error}"
        raise GeometryError(msg) from error


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of the file as float64."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = raw.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        msg = f"{path}: can't be read as CSV ({error})"
        raise GeometryError(msg) from error
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    missing = [name for name in MODULE_COLUMNS if name not in header]
    if missing:
        msg = f"{path}, line 1: there is no column {', '.join(missing)}; expected those of TrackML's detectors.csv"
        raise GeometryError(msg)
    places = [header.index(name) for name in MODULE_COLUMNS]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")
        if len(cells) != len(header):
            msg = f"{path}, line {number}: {len(cells)} values; expected {len(header)}, as in the header"
            raise GeometryError(msg)
        rows.append([_number(path, number, MODULE_COLUMNS[k], cells[place]) for k, place in enumerate(places)])
    if not rows:
        msg = f"{path}: has no modules; expected a row for each"
        raise GeometryError(msg)
    columns = dict(zip(MODULE_COLUMNS, np.array(rows).T, strict=True))
    _check(path, columns)
    return columns


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        msg = f"{path}, line {line}: column {column} is {text.strip()!r}; expected a finite number"
        raise GeometryError(msg)
    return value


def _check(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Raise for numbers that no module has."""

    def require(good: np.ndarray, name: str, expected: str) -> None:
        if not good.all():
            row = int(np.argmin(good))
            msg = f"{path}, line {row + 2}: column {name} is {columns[name][row]:g}; expected {expected}"
            raise GeometryError(msg)

    for name, largest in _IDS.items():
        values = columns[name]
        good = (values == np.floor(values)) & (values >= 1) & (values <= largest)
        require(good, name, f"an integer from 1 to {largest}")
    for name in _LENGTHS:
        is_unused = (columns[name] == _NO_WIDTH) & (name == "module_minhu")
        require((columns[name] > 0) | is_unused, name, "a length > 0 mm")
    for length, pitch in (("module_maxhu", "pitch_u"), ("module_hv", "pitch_v")):
        good = 2 * columns[length] / columns[pitch] < _MAX_CHANNELS
        require(good, pitch, f"a pitch that leaves less than {_MAX_CHANNELS} channels (lengths are in mm)")
    axes = np.stack([columns[name] for name in _ROTATION], axis=1).reshape(-1, 3, 3)
    off = np.abs(axes.transpose(0, 2, 1) @ axes - np.eye(3)).max((1, 2)) + np.abs(np.linalg.det(axes) - 1)
    require(off < _AXES_TOLERANCE, "rot_xu", "a rotation with the other eight: right-handed and orthonormal")


def _surfaces(columns: Mapping[str, np.ndarray]) -> tuple[Surfaces, np.ndarray]:
    """Return the modules in the order of their ids, and their rows."""
    rotation = np.stack([columns[name] for name in _ROTATION], axis=1).reshape(-1, 3, 3)
    w = rotation[:, :, 2] / np.linalg.norm(rotation[:, :, 2], axis=1, keepdims=True)
    u = rotation[:, :, 0] - np.sum(rotation[:, :, 0] * w, axis=1, keepdims=True) * w
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    ids = encode_geometry_id(*(columns[name] for name in _IDS))
    low = np.where(columns["module_minhu"] == _NO_WIDTH, columns["module_maxhu"], columns["module_minhu"])
    kinds = np.stack([columns["volume_id"], low, columns["module_maxhu"], columns["module_hv"], columns["module_t"]], 1)
    parts = []
    for kind in np.unique(kinds, axis=0):
        rows = np.flatnonzero((kinds == kind).all(axis=1))
        volume, narrow, wide, half_length, half_thickness = kind.tolist()
        silicon = _SILICON.get(int(volume), _SILICON_PER_SENSOR * 2 * half_thickness)
        parts.append(
            Surfaces.planes(
                ids[rows],
                np.stack([columns[name][rows] for name in ("cx", "cy", "cz")], axis=1),
                u[rows],
                np.cross(w[rows], u[rows]),
                shape=Shape.RECTANGLE if narrow == wide else Shape.TRAPEZOID,
                hx_min=narrow,
                hx_max=wide,
                hy=half_length,
                thickness=2 * half_thickness,
                slab=tuple(SILICON_TML.slab(silicon)),
            )
        )
    return Surfaces.concatenate(parts), np.argsort(ids, kind="stable")


def _readout(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Digitization]:
    """Return the ids that designs are looked up by, and the designs: one for each kind of sensor of a volume."""
    names = ("volume_id", "module_maxhu", "module_minhu", "module_hv", "pitch_u", "pitch_v", "module_t")
    kinds, kind_of = np.unique(np.stack([columns[name] for name in names], axis=1), axis=0, return_inverse=True)
    volume = kinds[:, 0].astype(np.int64)
    number = np.array([np.count_nonzero(volume[:k] == v) + 1 for k, v in enumerate(volume)])
    designs = []
    for v, k, (_, half_u, low_u, half_v, pitch_u, pitch_v, half_t) in zip(volume, number, kinds.tolist(), strict=True):
        is_strip = max(pitch_u, pitch_v) > _LONGEST_PIXEL
        designs.append(
            Design(
                int(v),
                int(k),
                0,
                symmetric_axes(*_channels(max(half_u, low_u), pitch_u), *_channels(half_v, pitch_v)),
                2 * half_t,
                _THRESHOLD,
                0.0 if is_strip else _CHARGE_SMEARING,
                is_digital=is_strip,
            )
        )
    ids = encode_geometry_id(volume, number, 0)[kind_of.ravel()]
    # Named by what it is: a variance table is found by the names of detector and readout.
    return ids, Digitization(f"pitch-{content_digest(repr(designs))[:8]}", tuple(designs))


def _channels(half_length: float, pitch: float) -> tuple[float, int]:
    """Return half of the length of the channels of a sensor, and their number: the last may stand out."""
    n = max(1, math.ceil(2 * half_length / pitch - _SAME_CHANNEL))
    return n * pitch / 2, n


def _passive(surfaces: Surfaces) -> list[PassiveSurface]:
    """Return the tubes that have room between the modules."""
    points = surfaces.points(3, 3)
    r, z = np.hypot(points[..., 0], points[..., 1]), points[..., 2]
    low, high = r.min(1), r.max(1)
    found = []
    for name, radius, half_length, wall in _TUBES:
        is_crossed = (low <= radius + wall) & (high >= radius - wall) & (np.abs(z).min(1) <= half_length)
        if not is_crossed.any():
            slab = BERYLLIUM_TML.slab(wall)
            found.append(PassiveSurface(name, LayerKind.CYLINDER, radius, -half_length, half_length, wall, slab))
    return found
