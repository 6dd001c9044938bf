"""Files of magnetic field maps: covfie's binary format (``.cvf``) and text tables."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.field.map import FieldMap
from traccc_py.geometry.field.strength import check_strength
from traccc_py.units import T

__all__ = ["cvf_content", "parse_cvf", "parse_table", "table_content"]

# covfie's blocks begin with a mark and the backend's number, and end with another mark and the number + 0x20000000.
_HEADER_MARK, _FOOTER_MARK, _FOOTER = 0xC04F1EAB, 0xC04F1E70, 0x20000000
_FIELD, _AFFINE, _STRIDED, _ARRAY = 0xAB000000, 0xAB020000, 0xAB020010, 0xAB010000
_NAMES = {_FIELD: "field", _AFFINE: "affine", _STRIDED: "strided", _ARRAY: "array"}
_FLOATS = {4: "<f4", 8: "<f8"}
_MAX_NODES = 2**31 - 1
_OFF_DIAGONAL = 1e-6  # of the largest element: what rounding leaves of an axis-aligned transformation

_COLUMNS = {6: ("x", "y", "z", "Bx", "By", "Bz"), 4: ("r", "z", "Br", "Bz")}
_MAX_PREAMBLE = 10  # lines of text before the table
_UNEVEN = 1e-3  # of the distance between nodes


class _Reader:
    """Parses the blocks of a covfie file; every error names the file and the byte."""

    def __init__(self, content: bytes, source: str) -> None:
        self._content, self._source, self._at = content, source, 0

    def reject(self, offset: int, found: str, expected: str) -> NoReturn:
        msg = f"{self._source}: byte {offset}: {found}; expected {expected} of a covfie field map (float, 3D)"
        raise GeometryError(msg)

    def take(self, dtype: str, count: int, what: str) -> np.ndarray:
        size = np.dtype(dtype).itemsize * count
        if self._at + size > len(self._content):
            left = len(self._content) - self._at
            self.reject(self._at, f"{left} bytes are left", f"{size} bytes with {what}")
        found = np.frombuffer(self._content, dtype, count, self._at)
        self._at += size
        return found

    def mark(self, mark: int, number: int, kind: str) -> None:
        start = self._at
        found = self.take("<u4", 2, f"the {kind}")
        if tuple(found.tolist()) != (mark, number):
            self.reject(start, f"{found[0]:08X} {found[1]:08X}", f"{mark:08X} {number:08X}, the {kind}")

    def header(self, backend: int) -> None:
        self.mark(_HEADER_MARK, backend, f"header of the {_NAMES[backend]} block")

    def footer(self, backend: int) -> None:
        self.mark(_FOOTER_MARK, backend + _FOOTER, f"footer of the {_NAMES[backend]} block")

    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (scale, shift) of grid coordinates = scale * position + shift."""
        start = self._at
        matrix = self.take("<f4", 12, "an affine matrix").reshape(3, 4).astype(np.float64)
        scale = np.diagonal(matrix)
        rest = matrix[:, :3] - np.diag(scale)
        if not np.isfinite(matrix).all() or (scale <= 0).any() or np.abs(rest).max() > _OFF_DIAGONAL * scale.max():
            self.reject(start, f"matrix {matrix.tolist()}", "finite numbers, a positive diagonal and zeros off it")
        return scale, matrix[:, 3]

    def sizes(self) -> tuple[int, ...]:
        start = self._at
        sizes = tuple(int(n) for n in self.take("<u8", 3, "three grid sizes"))
        if min(sizes) < 2 or np.prod(sizes, dtype=float) > _MAX_NODES:  # noqa: PLR2004
            self.reject(start, f"grid sizes {sizes}", f"numbers >= 2 with a product up to {_MAX_NODES}")
        return sizes

    def array(self, sizes: tuple[int, ...]) -> np.ndarray:
        start = self._at
        width = int(self.take("<u4", 1, "the width of a number")[0])
        if width not in _FLOATS:
            self.reject(start, f"numbers of {width} bytes", "4 or 8")
        start = self._at
        count = int(self.take("<u8", 1, "the number of nodes")[0])
        if count != np.prod(sizes):
            self.reject(start, f"{count} nodes", f"{np.prod(sizes)} for the sizes {sizes}")
        start = self._at
        values = self.take(_FLOATS[width], 3 * count, f"{count} field vectors").reshape(*sizes, 3)
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            self.reject(start + first * width, f"field value {values.flat[first]}", "a finite number")
        return values

    def end(self) -> None:
        if self._at != len(self._content):
            self.reject(self._at, f"{len(self._content) - self._at} more bytes", "the end of the file")


def parse_cvf(content: bytes, source: str) -> FieldMap:
    """Return the map of a covfie file.

    Parameters
    ----------
    content : bytes
        The file: linear interpolation in an array of three components, after an affine transformation.
    source : str
        Its name, for errors.

    Raises
    ------
    GeometryError
        If a block is not what it should be; the message names file, byte and what was expected.
    """
    reader = _Reader(content, source)
    reader.header(_FIELD)
    reader.header(_AFFINE)
    scale, shift = reader.affine()
    reader.header(_STRIDED)
    sizes = reader.sizes()
    reader.header(_ARRAY)
    values = reader.array(sizes)
    for backend in (_ARRAY, _STRIDED, _AFFINE, _FIELD):
        reader.footer(backend)
    reader.end()
    with np.errstate(over="ignore"):
        strongest = float(np.sqrt(np.square(values, dtype=np.float64).sum(axis=-1).max())) / T
    check_strength(strongest, f"{source}: the largest field of the map", is_covfie=True)
    return FieldMap((values / T).astype(np.float32), tuple(-shift / scale), tuple(1 / scale))


def cvf_content(field: FieldMap) -> bytes:
    """Return a covfie file with 4-byte numbers; an (r, z) map has none (GeometryError)."""
    if field.axes[0] != "x":
        msg = f"{field!r} can't be written as a covfie file: it has no (r, z) maps; write it as csv"
        raise GeometryError(msg)
    scale = 1 / np.array(field.spacing)
    matrix = np.column_stack([np.diag(scale), -np.array(field.origin) * scale])
    sizes = np.array(field.values.shape[:3], "<u8")

    def mark(first: int, second: int) -> bytes:
        return np.array([first, second], "<u4").tobytes()

    parts = [
        mark(_HEADER_MARK, _FIELD),
        mark(_HEADER_MARK, _AFFINE),
        matrix.astype("<f4").tobytes(),
        mark(_HEADER_MARK, _STRIDED),
        sizes.tobytes(),
        mark(_HEADER_MARK, _ARRAY),
        np.array([4], "<u4").tobytes(),
        np.array([sizes.prod()], "<u8").tobytes(),
        (field.values * T).astype("<f4").tobytes(),
        *(mark(_FOOTER_MARK, backend + _FOOTER) for backend in (_ARRAY, _STRIDED, _AFFINE, _FIELD)),
    ]
    return b"".join(parts)


def _numbers(line: str) -> list[float] | None:
    """Return the numbers of a line separated by commas, semicolons or blanks; None if it is not such a line."""
    try:
        return [float(word) for word in re.split(r"[,;\s]+", line.strip()) if word]
    except ValueError:
        return None


def _table(text: str, source: str) -> tuple[np.ndarray, int]:
    """Return the rows of a table and the line number of its first row."""
    lines = text.splitlines()
    first = 0
    while first < min(len(lines), _MAX_PREAMBLE) and len(_numbers(lines[first]) or ()) not in _COLUMNS:
        first += 1
    width = len(_numbers(lines[first]) or ()) if first < len(lines) else 0
    if width not in _COLUMNS:
        msg = f"{source}: no table within {_MAX_PREAMBLE} lines; expected rows of x y z Bx By Bz or r z Br Bz [mm, T]"
        raise GeometryError(msg)
    body = [re.sub(r"[,;]", " ", line) for line in lines[first:]]
    while body and not body[-1].strip():
        body.pop()
    try:
        rows = np.array(" ".join(body).split(), np.float64)
    except ValueError:
        rows = np.zeros(0)
    if len(rows) != width * len(body):
        for k, line in enumerate(body):
            if len(_numbers(line) or ()) != width:
                msg = f"{source}: line {first + 1 + k}: {line.strip()!r}; expected {width} numbers"
                raise GeometryError(msg)
    return rows.reshape(-1, width), first + 1


def _axis(values: np.ndarray, name: str, source: str) -> tuple[np.ndarray, float, float]:
    """Return (index of each row along an axis, first node, spacing)."""
    distinct = np.unique(values)
    span = distinct[-1] - distinct[0]
    nodes = distinct[np.concatenate(([True], np.diff(distinct) > _UNEVEN * span / len(distinct)))]
    if len(nodes) < 2:  # noqa: PLR2004
        msg = f"{source}: {name} is {nodes[0]} in all rows; expected at least two values"
        raise GeometryError(msg)
    spacing = (nodes[-1] - nodes[0]) / (len(nodes) - 1)
    even = nodes[0] + spacing * np.arange(len(nodes))
    if np.abs(nodes - even).max() > _UNEVEN * spacing:
        k = int(np.abs(nodes - even).argmax())
        msg = f"{source}: {name} takes the value {nodes[k]}; expected {even[k]} on a regular grid of {len(nodes)} nodes"
        raise GeometryError(msg)
    return np.rint((values - nodes[0]) / spacing).astype(np.int64), float(nodes[0]), float(spacing)


def _fault(node: np.ndarray, axes: list[Any], shape: tuple[int, ...], names: tuple[str, ...]) -> str:
    """Return what is wrong with rows that don't list each node once."""
    missing = np.setdiff1d(np.arange(np.prod(shape)), node)
    if not len(missing):
        return "some of them for the same node"
    index = np.unravel_index(missing[0], shape)
    places = [f"{names[k]} = {low + spacing * index[k]:g}" for k, (_, low, spacing) in enumerate(axes)]
    return f"none at {', '.join(places)}"


def parse_table(content: bytes, source: str) -> FieldMap:
    """Return the map of a text table.

    Parameters
    ----------
    content : bytes
        Up to ten other lines, then rows x y z Bx By Bz or r z Br Bz [mm, T], in any order, separated by
        commas, semicolons or blanks.
    source : str
        Name of the file, for errors.

    Raises
    ------
    GeometryError
        If a row is broken, or the rows are not a complete regular grid.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        msg = f"{source}: byte {error.start} is not text; expected a table of a field map"
        raise GeometryError(msg) from error
    rows, first_line = _table(text, source)
    if not np.isfinite(rows).all():
        k = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        msg = f"{source}: line {first_line + k}: {rows[k].tolist()}; expected finite numbers"
        raise GeometryError(msg)
    names = _COLUMNS[rows.shape[1]]
    n_axes = len(names) // 2
    axes = [_axis(rows[:, k], names[k], source) for k in range(n_axes)]
    shape = tuple(int(index.max()) + 1 for index, _, _ in axes)
    n_nodes = int(np.prod(shape))
    node = np.ravel_multi_index(tuple(index for index, _, _ in axes), shape)
    if len(rows) != n_nodes or len(np.unique(node)) != n_nodes:
        fault = _fault(node, axes, shape, names)
        msg = f"{source}: {len(rows)} rows, {fault}; expected each node of a grid of {shape} once"
        raise GeometryError(msg)
    values = np.empty((n_nodes, n_axes))
    values[node] = rows[:, n_axes:]
    try:
        return FieldMap(values.reshape(*shape, n_axes), tuple(a[1] for a in axes), tuple(a[2] for a in axes))
    except GeometryError as error:
        msg = f"{source}: {error}"
        raise GeometryError(msg) from error


def table_content(field: FieldMap) -> bytes:
    """Return a text table with a header line, comma separated."""
    n_axes = len(field.axes)
    positions = np.stack(np.meshgrid(*field.nodes, indexing="ij"), axis=-1).reshape(-1, n_axes)
    names = _COLUMNS[2 * n_axes]
    rows = zip(positions.tolist(), field.values.reshape(-1, n_axes).tolist(), strict=True)
    lines = [",".join(f"{v:.9g}" for v in (*position, *vector)) for position, vector in rows]
    return "\n".join([",".join(names), *lines, ""]).encode()
