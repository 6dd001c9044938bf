"""Read and write files of magnetic field maps."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from traccc_py.errors import GeometryError
from traccc_py.files import write_files
from traccc_py.geometry.field.formats import cvf_content, parse_cvf, parse_table, table_content
from traccc_py.geometry.field.map import FieldMap

__all__ = ["FIELD_MAP_FORMATS", "read_field_map", "write_field_map"]

FIELD_MAP_FORMATS = {"cvf": (parse_cvf, cvf_content), "csv": (parse_table, table_content)}  #: by name: reader, writer


def _format_of(path: Path, name: str | None) -> str:
    """Return the requested format, or that of the file's extension."""
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
        If the file can't be read or is not such a map; the message names the byte or the line.
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
    """Write a magnetic field map atomically.

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
    write_files({path: write(field)})
