"""Strict reading, and writing, of tables of numbers in CSV files, plain or gzipped.

One header line with the column names, comma separated, no quotes. Columns are found by name, in any order; unknown
ones are ignored. Errors are reported with file, line, column, value and what was expected. Checks run on whole columns;
only if one fails is the text searched for the place.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.words import counted
from traccc_py.errors import InputDataError

__all__ = ["Column", "check_header", "format_table", "input_error", "read_table"]

_log = logging.getLogger(__name__)

_GZIP_MAGIC = b"\x1f\x8b"
_COMMA, _NEWLINE, _RETURN = (ord(c) for c in ",\n\r")
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_LONGEST_QUOTED_VALUE = 40
_ROWS_AT_ONCE = 16_384  #: that are written, for less memory
_LONGEST_HEADER = 65_536  #: [bytes]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name : str
        Name in the header line.
    dtype : str
        NumPy type the column is returned in.
    default : float, optional
        Value if the file lacks the column; None if the column is required.
    minimum : float, optional
        Smallest value allowed; by default that of the type.
    maximum : float, optional
        Largest value allowed; by default that of the type.
    allow_nan : bool, optional
        Accept NaN, for quantities that may not exist.
    is_text : bool, optional
        Return strings, for the caller to decode.
    aliases : tuple of str, optional
        Other names it may have in the header line.
    parts : tuple of (str, int), optional
        Names and widths [bits] of the columns that may hold it in pieces, highest bits first.
    """

    name: str
    dtype: str
    default: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allow_nan: bool = False
    is_text: bool = False
    aliases: tuple[str, ...] = ()
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def is_integer(self) -> bool:
        """Whether values are integers."""
        return np.dtype(self.dtype).kind in "iu" and not self.is_text

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value allowed; Python integers for integer columns."""
        low: float
        high: float
        if self.is_integer:
            info = np.iinfo(self.dtype)
            low, high = int(info.min), int(info.max)
        else:
            high = float(np.finfo(self.dtype).max)
            low = -high
        return (low if self.minimum is None else self.minimum), (high if self.maximum is None else self.maximum)

    def expected(self) -> str:
        """Return a description of the allowed values."""
        low, high = self.limits
        if self.is_integer:
            return f"an integer from {low} to {high}"
        if self.minimum is not None:
            return f"a finite number >= {self.minimum:g}"
        return "a finite number or nan" if self.allow_nan else "a finite number"


def input_error(path: Path | str, line: int, column: str, value: object, expected: str) -> InputDataError:
    """Return the error for a value that can't be used, with its file and line."""
    text = str(value)
    if len(text) > _LONGEST_QUOTED_VALUE:
        text = text[:_LONGEST_QUOTED_VALUE] + "..."
    return InputDataError(f"{path}, line {line}: column {column} is {text!r}; expected {expected}")


def read_table(path: Path | str, columns: Sequence[Column], *, allow_others: bool = True) -> dict[str, np.ndarray]:
    """Read the given columns of a CSV file.

    Parameters
    ----------
    path : path
        File; gzipped if its name ends in ``.gz``.
    columns : sequence of Column
        What to read.
    allow_others : bool, optional
        The file may have other columns, which are ignored.

    Returns
    -------
    dict of str to ndarray of shape (n_rows,)
        The columns, in the order of `columns`, each in its type.

    Raises
    ------
    InputDataError
        If the file is missing, empty or broken, lacks a column or has one, or a value, that is not allowed.
    """
    path = Path(path)
    raw = _read_bytes(path)
    is_cut = bool(raw) and not raw.endswith((b"\n", b"\r"))
    raw = _strip_blank_end(raw)
    header = _read_header(path, raw)
    found = _found_columns(path, header, columns)
    known = {c.name for there in found.values() for c in there}
    unknown = [name for name in header if name not in known]
    if unknown and not allow_others:
        msg = f"{path}, line 1: column {unknown[0]!r}; expected {', '.join(map(_names_of, columns))}"
        raise InputDataError(msg)
    if is_cut and raw.count(b"\n") > 1:
        _warn_of_cut_line(path, raw, raw.count(b"\n"))
    values = _plain_values(raw, header, found)
    if values is None:
        values = _checked_values(path, raw, header, found)
    n_rows = raw.count(b"\n") - 1
    return {
        column.name: _joined(column, values[column.name])
        if values[column.name]
        else np.full(n_rows, column.default, column.dtype)
        for column in columns
    }


def _has_loops() -> bool:
    """Return whether to use compiled loops: clients of the service, which have no use for Numba, are faster without."""
    return "numba" in sys.modules


def _plain_values(
    raw: bytes, header: Sequence[str], found: Mapping[str, Sequence[Column]]
) -> dict[str, list[np.ndarray]] | None:
    """Return columns, or their pieces, by name; None if anything is not as it should be, or not plain."""
    wanted = [column for there in found.values() for column in there]
    if not _has_loops() or any(column.is_text for column in wanted):
        return None
    from traccc_py.data.csv_loops import REAL, SKIPPED, UNSIGNED, parse_rows

    n_rows = raw.count(b"\n") - 1
    kinds, places = np.full(len(header), SKIPPED), np.zeros(len(header), np.int64)
    counts = {UNSIGNED: 0, REAL: 0}
    for column in wanted:
        field, kind = header.index(column.name), UNSIGNED if column.is_integer else REAL
        kinds[field], places[field] = kind, counts[kind]
        counts[kind] += 1
    whole, real = np.empty((counts[UNSIGNED], n_rows), np.uint64), np.empty((counts[REAL], n_rows))
    n_negative = np.zeros(counts[UNSIGNED], np.int64)
    if not wanted or not parse_rows(
        np.frombuffer(raw, np.uint8), raw.find(b"\n") + 1, kinds, places, n_negative, whole, real
    ):
        return None
    values = {}
    for name, there in found.items():
        pieces = []
        for column in there:
            place = places[header.index(column.name)]
            numbers = _signed(whole[place], n_negative[place]) if column.is_integer else real[place]
            if numbers is None or not _good(column, numbers).all():
                return None
            pieces.append(numbers.astype(column.dtype))
        values[name] = pieces
    return values


def _signed(bits: np.ndarray, n_negative: int) -> np.ndarray | None:
    """Return integers of which so many are negative; None if others are so large that they look like it."""
    if n_negative == 0:
        return bits
    numbers = bits.view(np.int64)
    return numbers if np.count_nonzero(numbers < 0) == n_negative else None


def _checked_values(
    path: Path, raw: bytes, header: list[str], found: Mapping[str, Sequence[Column]]
) -> dict[str, list[np.ndarray]]:
    """Return columns, or their pieces, by name.

    Raises
    ------
    InputDataError
        If a line or a value is not allowed.
    """
    n_rows = _check_lines(path, raw, len(header))
    frame = _parse(path, raw, header, [column for there in found.values() for column in there], n_rows)
    return {
        name: [_convert(path, raw, header, column, frame[column.name]) for column in there]
        for name, there in found.items()
    }


def _joined(column: Column, values: Sequence[np.ndarray]) -> np.ndarray:
    """Return a column from its pieces: one as it is, several as bits of a number."""
    joined = values[0]
    for (_, n_bits), piece in zip(column.parts[1:], values[1:], strict=False):
        joined = (joined << np.uint64(n_bits)) | piece
    return joined


def _warn_of_cut_line(path: Path, raw: bytes, line: int) -> None:
    """Warn that the last line has no line break: if the file was truncated there, digits are missing unnoticed."""
    value = raw[raw.rfind(b",") + 1 :].strip().decode(errors="replace")[:_LONGEST_QUOTED_VALUE]
    _log.warning(
        "%s, line %d: the last line has no line break, so digits of its last value %r may be missing: "
        "is the file complete?",
        path,
        line,
        value,
    )


def check_header(path: Path | str, columns: Sequence[Column]) -> None:
    """Check that a file can be opened and has the given columns; only its first line is read.

    Parameters
    ----------
    path : path
        File; gzipped if its name ends in ``.gz``.
    columns : sequence of Column
        The columns to be read later.

    Raises
    ------
    InputDataError
        If the file is missing, empty or not text, or lacks a column: as `read_table`.
    """
    path = Path(path)
    with _named_problems(path), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        first_line = file.readline(_LONGEST_HEADER)
    _found_columns(path, _read_header(path, _strip_blank_end(first_line)), columns)


def _found_columns(path: Path, header: Sequence[str], columns: Sequence[Column]) -> dict[str, list[Column]]:
    """Return, by name, the columns as in the header: the column, its parts, or none if an optional one is missing."""
    found = {c.name: _found_in(header, c) for c in columns}
    missing = [_names_of(c) for c in columns if c.default is None and not found[c.name]]
    if missing:
        msg = f"{path}, line 1: no column {', '.join(missing)}; the header has {', '.join(header)}"
        raise InputDataError(msg)
    return found


def _names_of(column: Column) -> str:
    """Return the names that a column may have, for messages."""
    parts = [f"({', '.join(name for name, _ in column.parts)})"] if column.parts else []
    return " or ".join((column.name, *column.aliases, *parts))


def _found_in(header: Sequence[str], column: Column) -> list[Column]:
    """Return the column by its name in the header, or its parts; nothing if it is not there."""
    for name in (column.name, *column.aliases):
        if name in header:
            return [replace(column, name=name)]
    if column.parts and all(name in header for name, _ in column.parts):
        return [Column(name, column.dtype, minimum=0, maximum=(1 << n_bits) - 1) for name, n_bits in column.parts]
    return []


def _read_bytes(path: Path) -> bytes:
    with _named_problems(path):
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw


@contextmanager
def _named_problems(path: Path) -> Iterator[None]:
    """Turn failures of opening and reading a file into errors that name it."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"{path}: there is no such file"
        raise InputDataError(msg) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"{path}: not a complete gzip file ({error}); make or copy it again"
        raise InputDataError(msg) from error
    except OSError as error:
        msg = f"{path}: can't be read ({error.strerror})"
        raise InputDataError(msg) from error


def _strip_blank_end(raw: bytes) -> bytes:
    """Return `raw` with exactly one line break after the last line that is not empty."""
    content = raw.rstrip(b"\r\n")
    return content + b"\n" if content else b""


def _read_header(path: Path, raw: bytes) -> list[str]:
    first_line = raw[: raw.find(b"\n")] if raw else b""
    text = first_line.decode("utf-8-sig", errors="replace")
    if not _is_text(first_line):
        hint = "it is gzipped: name it .csv.gz" if raw.startswith(_GZIP_MAGIC) else "expected a CSV file"
        msg = f"{path}: is not text; {hint}"
        raise InputDataError(msg)
    header = [name.strip() for name in text.split(",")]
    if not text.strip():
        msg = f"{path}: is empty; expected a header line with column names (an event without entries has only that)"
        raise InputDataError(msg)
    if "\r" in first_line.decode("utf-8-sig", errors="replace").rstrip("\r"):
        msg = f"{path}, line 1: lines end with a carriage return alone; expected line feeds"
        raise InputDataError(msg)
    repeated = sorted(name for name, n in Counter(header).items() if n > 1)
    if repeated:
        msg = f"{path}, line 1: column {', '.join(repeated)} appears more than once; expected each name once"
        raise InputDataError(msg)
    return header


def _is_text(raw: bytes) -> bool:
    try:
        return raw.decode("utf-8-sig").replace("\r", "").replace("\t", "").isprintable()
    except UnicodeDecodeError:
        return False


def _check_lines(path: Path, raw: bytes, n_fields: int) -> int:
    """Check that each line has `n_fields` fields; return the number of data lines."""
    characters = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    commas = np.flatnonzero(characters == _COMMA)
    fields = np.diff(np.searchsorted(commas, ends), prepend=0) + 1
    lengths = np.diff(ends, prepend=-1) - 1
    lengths -= (lengths > 0) & (characters[ends - 1] == _RETURN)
    bad = (fields != n_fields) | (lengths == 0)
    if bad.any():
        row = int(np.argmax(bad))
        found = "a blank line" if lengths[row] == 0 else counted(fields[row], "value")
        msg = f"{path}, line {row + 1}: {found}; expected {n_fields} values, as in the header (is the file truncated?)"
        raise InputDataError(msg)
    return len(ends) - 1


def _parse(path: Path, raw: bytes, header: list[str], columns: Sequence[Column], n_rows: int) -> Any:
    """Return a data frame of the columns. Types are inferred: a request for integers would accept 1.0."""
    import pandas as pd  # takes a while, and plain files do without

    if n_rows == 0:
        return pd.DataFrame({c.name: np.zeros(0, str if c.is_text else c.dtype) for c in columns})
    try:
        return pd.read_csv(
            io.BytesIO(raw),
            header=None,
            skiprows=1,
            names=header,
            usecols=[c.name for c in columns],
            dtype={c.name: str for c in columns if c.is_text},
            index_col=False,
            quoting=3,  # csv.QUOTE_NONE
            skip_blank_lines=False,
            low_memory=False,  # otherwise types are inferred chunk by chunk
            true_values=[],
            na_values=[],
        )
    except (ValueError, OverflowError) as error:  # pandas' parser errors are ValueErrors
        for column in columns:
            _raise_for_text(path, raw, header, column)
        msg = f"{path}: can't be parsed as CSV ({error})"
        raise InputDataError(msg) from error


def _convert(path: Path, raw: bytes, header: list[str], column: Column, values: Any) -> Any:
    """Check a parsed column and return it in its type."""
    if column.is_text:
        return values.to_numpy(dtype=object)
    kind = getattr(values.dtype, "kind", "O")
    if kind not in ("iu" if column.is_integer else "iuf"):
        _raise_for_text(path, raw, header, column)
        values = values.astype(np.float64)  # integers beyond 64 bits are kept as text
    numbers = values.to_numpy()
    good = _good(column, numbers)
    if not good.all():
        row = int(np.argmin(good))
        text = _lines(raw)[row + 1].split(",")[header.index(column.name)].strip()
        raise input_error(path, row + FIRST_DATA_LINE, column.name, text, column.expected())
    return numbers.astype(column.dtype)


def _good(column: Column, numbers: np.ndarray) -> np.ndarray:
    """Return which numbers a column may have."""
    low, high = column.limits
    good: np.ndarray = (numbers >= low) & (numbers <= high)
    return good | np.isnan(numbers) if column.allow_nan else good


def _lines(raw: bytes) -> list[str]:
    return raw.decode("utf-8", errors="replace").split("\n")


def _raise_for_text(path: Path, raw: bytes, header: list[str], column: Column) -> None:
    """Raise for the first value of `column` that is not a number of its type; return if there is none."""
    position = header.index(column.name)
    for line, text in enumerate(_lines(raw)[1:-1], start=FIRST_DATA_LINE):
        value = text.split(",")[position].strip()
        if not _is_number(value, column):
            raise input_error(path, line, column.name, value, column.expected())


def _is_number(text: str, column: Column) -> bool:
    if column.is_text:
        return True
    low, high = column.limits
    if column.allow_nan and text.lower() == "nan":
        return True
    if column.is_integer:
        return bool(_INTEGER.match(text)) and low <= int(text) <= high
    return bool(_NUMBER.match(text)) and low <= float(text) <= high


def format_table(columns: Mapping[str, np.ndarray]) -> bytes:
    """Return a table as CSV.

    Parameters
    ----------
    columns : mapping of str to ndarray of shape (n_rows,)
        Columns by name. Floats are written with nine digits, which reproduce a float32 exactly.

    Returns
    -------
    bytes
        Header line and one line per row.
    """
    table = [np.asarray(values) for values in columns.values()]
    starts = range(0, len(table[0]), _ROWS_AT_ONCE)
    blocks = [[values[start : start + _ROWS_AT_ONCE] for values in table] for start in starts]
    return b"".join([",".join(columns).encode() + b"\n", *map(_lines_of, blocks)])


def _lines_of(block: Sequence[np.ndarray]) -> bytes:
    """Return rows as lines."""
    return (_compiled_lines(block) if _has_loops() else None) or _plain_lines(block)


def _plain_lines(block: Sequence[np.ndarray]) -> bytes:
    line = b",".join(b"%.9g" if values.dtype.kind == "f" else b"%d" for values in block) + b"\n"
    return b"".join([line % row for row in zip(*(values.tolist() for values in block), strict=True)])


def _compiled_lines(block: Sequence[np.ndarray]) -> bytes | None:
    """Return rows as lines, None if there is a value that the loop does not write."""
    from traccc_py.data.csv_loops import REAL, SIGNED, UNSIGNED, WIDEST, write_rows

    kinds = [{"f": REAL, "i": SIGNED}.get(values.dtype.kind, UNSIGNED) for values in block]
    whole = [v.astype(np.int64 if k == SIGNED else np.uint64) for v, k in zip(block, kinds, strict=True) if k != REAL]
    real = [values for values, kind in zip(block, kinds, strict=True) if kind == REAL]
    places = [kinds[:k].count(REAL) if kind == REAL else k - kinds[:k].count(REAL) for k, kind in enumerate(kinds)]
    n_rows = len(block[0])
    out = np.empty(n_rows * len(block) * WIDEST, np.uint8)
    bits = np.array([values.view(np.uint64) for values in whole], np.uint64).reshape(len(whole), n_rows)
    with np.errstate(invalid="ignore"):  # of signalling NaN
        numbers = np.array(real, np.float64).reshape(len(real), n_rows)
    n_bytes = write_rows(np.array(kinds), np.array(places), bits, numbers, out)
    return out[:n_bytes].tobytes() if n_bytes >= 0 else None
