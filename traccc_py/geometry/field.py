"""Magnetic fields that change from place to place: maps, their files, and the field of a solenoid.

References
----------
covfie v0.15 for the binary format. N. Derby, S. Olbert, Am. J. Phys. 78 (2010) 229: field of a finite solenoid.
R. Bulirsch, Numer. Math. 13 (1969) 305: the complete elliptic integral `cel`.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.field_files import cvf_content, parse_cvf, parse_table, table_content
from traccc_py.geometry.field_map import FieldMap

__all__ = ["FIELD_MAP_FORMATS", "FieldMap", "read_field_map", "solenoid_field_map", "write_field_map"]

FIELD_MAP_FORMATS = {"cvf": (parse_cvf, cvf_content), "csv": (parse_table, table_content)}  #: by name: reader, writer
_GZIP_LEVEL = 6
_CEL_PRECISION = 1e-12
_MAX_CEL_STEPS = 30


def _format_of(path: Path, name: str | None) -> str:
    """Return the format asked for, or that of the file's ending."""
    chosen = name or (path.name.removesuffix(".gz").rpartition(".")[2].lower())
    if chosen == "txt" and name is None:
        chosen = "csv"
    if chosen not in FIELD_MAP_FORMATS:
        known = ", ".join(FIELD_MAP_FORMATS)
        msg = f"{path}: format {chosen!r} of a field map is not known; name one of {known}"
        raise GeometryError(msg)
    return chosen


def read_field_map(path: str | Path, format: str | None = None) -> FieldMap:
    """Read a magnetic field map.

    Parameters
    ----------
    path : str or Path
        The file; ``.gz`` is unpacked.
    format : str, optional
        "cvf" (covfie, as traccc reads it) or "csv" (rows x y z Bx By Bz, or r z Br Bz [mm, T]); by default told by the
        file's ending.

    Returns
    -------
    FieldMap
        The map.

    Raises
    ------
    GeometryError
        If the file can't be read or is no such map; the message names the byte or the line.
    """
    path = Path(path)
    parse, _ = FIELD_MAP_FORMATS[_format_of(path, format)]
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{path}: the field map can't be read: {error}"
        raise GeometryError(msg) from error
    return parse(content, str(path))


def write_field_map(path: str | Path, field: FieldMap, format: str | None = None) -> None:
    """Write a magnetic field map; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
        The file; with ``.gz`` it is packed.
    field : FieldMap
        The map.
    format : str, optional
        "cvf" (maps in x, y, z only) or "csv"; by default told by the file's ending.

    Raises
    ------
    GeometryError
        If the format is unknown or can't hold the map.
    OSError
        If the file can't be written.
    """
    path = Path(path)
    _, write = FIELD_MAP_FORMATS[_format_of(path, format)]
    content = write(field)
    if path.suffix == ".gz":
        content = gzip.compress(content, _GZIP_LEVEL, mtime=0)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    finally:
        with suppress(FileNotFoundError):
            Path(partial).unlink()


def _cel(kc: np.ndarray, p: np.ndarray | float, c: float, s: np.ndarray | float) -> np.ndarray:
    """Return Bulirsch's integral of (c cos^2 + s sin^2) / (cos^2 + p sin^2) / sqrt(cos^2 + kc^2 sin^2), for p > 0."""
    root = np.sqrt(p)
    low = s / root
    high, low, root = c + low / root, 2 * (low + c * kc / root), root + kc / root
    mean, product, last = 1 + kc, kc, np.ones_like(kc)
    for _ in range(_MAX_CEL_STEPS):
        if (np.abs(last - kc) <= last * _CEL_PRECISION).all():
            break
        kc = 2 * np.sqrt(product)
        product = kc * mean
        step = product / root
        high, low, root = high + low / root, 2 * (low + high * step), root + step
        last, mean = mean, mean + kc
    return np.asarray(np.pi / 2 * (low + high * mean) / (mean * (mean + root)))


def solenoid_field_map(
    b_z: float = 2.0,
    *,
    radius: float = 1200.0,
    half_length: float = 3000.0,
    r_max: float = 1150.0,
    z_max: float = 3150.0,
    spacing: float = 50.0,
) -> FieldMap:
    """Return the field of a finite solenoid (a cylindrical current sheet around the z axis) as an (r, z) map.

    Parameters
    ----------
    b_z : float, optional
        Field along z at the centre [T].
    radius, half_length : float, optional
        Of the sheet [mm].
    r_max, z_max : float, optional
        Extent of the map; r_max below the radius of the sheet [mm].
    spacing : float, optional
        Largest distance between nodes [mm].

    Returns
    -------
    FieldMap
        The map; it fulfils Maxwell's equations but for the interpolation.

    Raises
    ------
    GeometryError
        If a length is not positive or the map reaches the sheet.
    """
    lengths = (radius, half_length, r_max, z_max, spacing)
    if not (np.isfinite([b_z, *lengths]).all() and min(lengths) > 0 and r_max < radius):
        msg = (
            f"a solenoid of {b_z} T with (radius, half_length, r_max, z_max, spacing) = {lengths}; expected a finite "
            "field, lengths > 0 and r_max < radius"
        )
        raise GeometryError(msg)
    r = np.linspace(0, r_max, int(np.ceil(r_max / spacing)) + 1)
    z = np.linspace(-z_max, z_max, 2 * int(np.ceil(z_max / spacing)) + 1)
    rho, along = np.meshgrid(r, z, indexing="ij")
    gamma = (radius - rho) / (radius + rho)
    b_r, b_along = np.zeros_like(rho), np.zeros_like(rho)
    for sign in (1, -1):
        end = along + sign * half_length
        to_far = np.hypot(end, rho + radius)
        kc = np.hypot(end, radius - rho) / to_far
        b_r += sign * radius / to_far * _cel(kc, 1.0, 1.0, -1.0)
        b_along += sign * radius / (radius + rho) * end / to_far * _cel(kc, gamma**2, 1.0, gamma)
    values = np.stack([b_r, b_along], axis=-1)
    values[0, :, 0] = 0
    at_centre = np.pi * half_length / np.hypot(half_length, radius)
    return FieldMap((values * b_z / at_centre).astype(np.float32), (0.0, -z_max), (r[1] - r[0], z[1] - z[0]))
