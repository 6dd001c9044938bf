"""Parquet files with one row an event and a list for each column, as Acts and ColliderML write them.

A sample is a folder for each kind of table with one file or several, each of a range of event numbers:
``tracks/tracks_000000-000100.parquet`` has events 0 to 99. The column ``event_id`` has the number of the event; files
without it count from 0. Needs pyarrow (extra ``parquet``).

References
----------
Acts 48, Examples/Io/Parquet (ParquetWriter): names of files, event_id.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traccc_py.data.csv_table import Column
from traccc_py.data.shards import kind_file
from traccc_py.errors import InputDataError
from traccc_py.extras import optional_module

__all__ = ["EVENT_COLUMN", "ParquetEvents", "ParquetTables", "event_row_error", "use_plain_memory"]

EVENT_COLUMN = "event_id"
#: Of the columns in memory, after which a group of events is written: more stay in no cache, and cost pages.
_ROW_GROUP_BYTES = 4_000_000
#: By whether Acts has the kind: its wheel has no LZ4, which takes half the time of Zstandard for a sixth more. Columns
#: have no dictionaries: those take twice the time and more space here.
_COMPRESSION = {True: "zstd", False: "lz4"}
_FEWEST_BITS = 32  #: of integers that are written as differences
_KINDS_OF_ACTS = {
    "tracks",
    "tracker_hits",
    "particles",
    "calo_hits",
}  #: whose schema is Acts's, missing numbers included


def _pyarrow(purpose: str) -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet."""
    return optional_module("pyarrow", "parquet", purpose), optional_module("pyarrow.parquet", "parquet", purpose)


def _to_numpy(values: Any) -> np.ndarray:
    """Return an array of numbers, none of them missing. Arrow's own way imports pandas, which takes half a second."""
    return np.from_dlpack(values)


def _to_arrow(pa: Any, values: np.ndarray) -> Any:
    """Return an array of numbers or truth values, again without pandas."""
    content = np.packbits(values, bitorder="little") if values.dtype == bool else np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(content)])


def use_plain_memory() -> None:
    """Let pyarrow take memory of this process as everything else does.

    Its own allocator gives it back between two events, and to take it again costs a millisecond of one of mu = 20.
    """
    pa, _ = _pyarrow("reading and writing Parquet")
    pa.set_memory_pool(pa.system_memory_pool())


def event_row_error(
    path: Path | str, event: int, row: int, column: str, value: object, expected: str
) -> InputDataError:
    """Return the error for a value of an event that can't be used."""
    return InputDataError(f"{path}, event {event}, row {row}: column {column} is {value}; expected {expected}")


class ParquetEvents:
    """The events of a file; they are decoded one by one, fastest in their order.

    Parameters
    ----------
    path : path
        File.

    Raises
    ------
    InputDataError
        If it can't be read, or its event numbers are not those of different events.
    ConfigError
        If pyarrow is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._pa, pq = _pyarrow(f"reading {path}")
        try:
            self._file = pq.ParquetFile(self.path)
        except FileNotFoundError as error:
            msg = f"{path}: there is no such file"
            raise InputDataError(msg) from error
        except (self._pa.ArrowException, OSError) as error:
            msg = f"{path}: not a complete Parquet file ({_first_line(error)}); make or copy it again"
            raise InputDataError(msg) from error
        self.names = frozenset(self._file.schema_arrow.names)
        self.numbers = self._event_numbers()
        sizes = [self._file.metadata.row_group(k).num_rows for k in range(self._file.num_row_groups)]
        self._first_rows = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))  # of the groups
        self._batches: Any = iter(())
        self._next = 0
        self._columns: list[str] = []

    def _event_numbers(self) -> np.ndarray:
        n = self._file.metadata.num_rows
        if EVENT_COLUMN not in self.names:
            return np.arange(n)
        kind = self._file.schema_arrow.field(EVENT_COLUMN).type
        if not self._pa.types.is_integer(kind):
            msg = f"{self.path}: column {EVENT_COLUMN} has the type {kind}; expected integers"
            raise InputDataError(msg)
        with self._named_problems():
            column = self._file.read(columns=[EVENT_COLUMN]).column(0)
        if column.null_count:
            msg = f"{self.path}: column {EVENT_COLUMN} has rows without a number"
            raise InputDataError(msg)
        numbers = _to_numpy(column.combine_chunks()).astype(np.int64)
        unique, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            msg = f"{self.path}: event {unique[counts > 1][0]} is there more than once"
            raise InputDataError(msg)
        return np.asarray(numbers)

    def _named_problems(self) -> Any:
        return _Named(self.path, self._pa.ArrowException)

    def check_columns(self, rules: Sequence[Column]) -> None:
        """Raise InputDataError if a column that is needed is missing, or is no list of numbers of its kind."""
        missing = [rule.name for rule in rules if rule.default is None and self._name_of(rule) is None]
        if missing:
            there = ", ".join(self._file.schema_arrow.names)
            msg = f"{self.path}: no column {', '.join(missing)}; the file has {there}"
            raise InputDataError(msg)
        for rule in rules:
            if (name := self._name_of(rule)) is not None:
                self._check_type(name, rule)

    def _name_of(self, rule: Column) -> str | None:
        return next((name for name in (rule.name, *rule.aliases) if name in self.names), None)

    def _check_type(self, name: str, rule: Column) -> None:
        types, kind = self._pa.types, self._file.schema_arrow.field(name).type
        is_list = types.is_list(kind) or types.is_large_list(kind)
        of = kind.value_type if is_list else kind
        wants_integers = rule.is_integer or rule.is_text
        is_good = types.is_integer(of) or (not wants_integers and types.is_floating(of))
        if not (is_list and is_good):
            expected = f"a list of {'integers' if wants_integers else 'numbers'} for each event"
            msg = f"{self.path}: column {name} has the type {kind}; expected {expected}"
            raise InputDataError(msg)

    def read(self, row: int, rules: Sequence[Column]) -> dict[str, np.ndarray]:
        """Return columns of an event.

        Parameters
        ----------
        row : int
            Row of the file.
        rules : sequence of Column
            Their names, types and limits.

        Returns
        -------
        dict of str to ndarray
            Columns of one length, by name.

        Raises
        ------
        InputDataError
            If a value can't be used, lists differ in length, or the file is damaged.
        """
        names = [name for rule in rules if (name := self._name_of(rule)) is not None]
        batch = self._row(row, names)
        event = int(self.numbers[row])
        lists = {name: batch.column(name) for name in names}
        lengths = {name: len(values) for name, values in lists.items()}
        if len(set(lengths.values())) > 1:
            msg = f"{self.path}, event {event}: lists differ in length: {lengths}"
            raise InputDataError(msg)
        n = next(iter(lengths.values()))
        found = {}
        for rule in rules:
            name = self._name_of(rule)
            if name is None:
                found[rule.name] = np.full(n, rule.default, rule.dtype)
            else:
                found[rule.name] = self._checked(rule, name, lists[name], event)
        return found

    def _row(self, row: int, names: list[str]) -> _Row:
        """Return the lists of a row; rows before it in its group are passed over."""
        group = int(np.searchsorted(self._first_rows, row, "right")) - 1
        if names != self._columns or row < self._next or self._next < self._first_rows[group]:
            self._columns, self._next = names, int(self._first_rows[group])
            groups = list(range(group, self._file.num_row_groups))
            self._batches = iter(self._file.iter_batches(1, groups, names, use_threads=False))
        with self._named_problems():
            while True:
                batch = next(self._batches)
                self._next += 1
                if self._next > row:
                    return _Row(self.path, int(self.numbers[row]), batch)

    def _checked(self, rule: Column, name: str, values: Any, event: int) -> np.ndarray:
        if values.null_count:
            row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            raise event_row_error(self.path, event, row, name, "missing", rule.expected())
        numbers = _to_numpy(values)
        if rule.is_text:
            return np.asarray(numbers.astype(str).astype(object))
        low, high = rule.limits
        # Extremes take a fifth of the time; where one is nan, all are looked at.
        if len(numbers) and not (numbers.min() >= low and numbers.max() <= high):
            good = (numbers >= low) & (numbers <= high)
            if rule.allow_nan:
                good |= np.isnan(numbers)
            if not good.all():
                row = int(np.argmin(good))
                raise event_row_error(self.path, event, row, name, numbers[row], rule.expected())
        return np.asarray(numbers.astype(rule.dtype))


class _Row(NamedTuple):
    """A row of a file."""

    path: Path
    event: int
    batch: Any

    def column(self, name: str) -> Any:
        """Return the values of a list."""
        lists = self.batch.column(self.batch.schema.get_field_index(name))
        if lists.null_count:
            msg = f"{self.path}, event {self.event}: column {name} has no list"
            raise InputDataError(msg)
        first, end = (lists.offsets[k].as_py() for k in (0, -1))
        return lists.values[first:end]  # `flatten` imports a library of functions for it


class _Named:
    """Turns failures of reading into errors that name the file."""

    def __init__(self, path: Path, kind: type[Exception]) -> None:
        self._path, self._kind = path, kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, (self._kind, OSError, StopIteration)):
            msg = f"{self._path}: can't be read ({_first_line(error)}); make or copy it again"
            raise InputDataError(msg) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


class ParquetTables:
    """Writes the tables of events to files of a range of event numbers; a file appears when it is complete.

    Parameters
    ----------
    folder : Path
        Folder of the sample.
    events_per_file : int
        Size of a range [1].
    """

    def __init__(self, folder: Path, events_per_file: int) -> None:
        self._pa, self._pq = _pyarrow("writing Parquet")
        self._folder, self._events_per_file = folder, events_per_file
        self._first: int | None = None  # of the range
        self._open: dict[str, _OpenTable] = {}

    def paths_of(self, event: int, kinds: Sequence[str]) -> list[Path]:
        """Return the files that an event goes to."""
        return [kind_file(self._folder, kind, event, self._events_per_file, ".parquet") for kind in kinds]

    def add(self, event: int, tables: Mapping[str, Mapping[str, Any]]) -> None:
        """Add an event: for each kind the columns by name, as arrays or lists of arrays. Event numbers must ascend.

        Raises
        ------
        OSError
            If a file can't be written.
        """
        first = event - event % self._events_per_file
        if self._first is not None and first != self._first:
            self.close()
        self._first = first
        for kind, path in zip(tables, self.paths_of(event, list(tables)), strict=True):
            if kind not in self._open:
                self._open[kind] = _OpenTable(self._pq, self._pa, path, _schema(self._pa, kind, tables[kind]))
            self._open[kind].add(event, tables[kind])

    def close(self) -> None:
        """Complete the files; none of a range appears before all are written."""
        try:
            for table in self._open.values():
                table.finish()
            for table in self._open.values():
                table.publish()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove what is not complete."""
        for table in self._open.values():
            table.discard()
        self._open = {}


def _schema(pa: Any, kind: str, columns: Mapping[str, Any]) -> Any:
    """Return the schema of a table. In our own no number may be missing: that costs readers and writers a sixth."""
    fields = [pa.field(EVENT_COLUMN, pa.uint64())]
    for name, values in columns.items():
        is_ragged = isinstance(values, tuple)
        number = pa.from_numpy_dtype(np.asarray(values[1] if is_ragged else values).dtype)
        of = pa.list_(pa.field("element", number, nullable=kind in _KINDS_OF_ACTS))
        fields.append(pa.field(name, pa.list_(of) if is_ragged else of))
    return pa.schema(fields)


def _number_of(pa: Any, kind: Any) -> Any:
    """Return what lists of a type, or lists of such lists, are made of."""
    return _number_of(pa, kind.value_type) if pa.types.is_list(kind) else kind


def _encodings(pa: Any, schema: Any) -> dict[str, str]:
    """Return how columns are written that are not plain: differences of integers, most of which ascend."""
    found = {}
    for field in schema:
        number = _number_of(pa, field.type)
        if number is not field.type and pa.types.is_integer(number) and number.bit_width >= _FEWEST_BITS:
            depth = 2 if pa.types.is_list(field.type.value_type) else 1
            found[f"{field.name}{depth * '.list.element'}"] = "DELTA_BINARY_PACKED"
    return found


def _lists_of(pa: Any, lengths: Any, values: Any, kind: Any) -> Any:
    """Return values cut into lists of these lengths."""
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pa.ListArray.from_arrays(_to_arrow(pa, offsets), values, type=kind)


def _as_lists(pa: Any, events: Sequence[Any], kind: Any) -> Any:
    """Return the list array of some events; ragged values, offsets and what they cut, are lists of lists."""
    if not isinstance(events[0], tuple):
        values = np.concatenate([np.asarray(values) for values in events])
        return _lists_of(pa, [len(values) for values in events], _to_arrow(pa, values), kind)
    lengths = np.concatenate([np.diff(offsets) for offsets, _ in events])
    inner = np.concatenate([values for _, values in events])
    lists = _lists_of(pa, lengths, _to_arrow(pa, inner), kind.value_type)
    return _lists_of(pa, [len(offsets) - 1 for offsets, _ in events], lists, kind)


class _OpenTable:
    """A file that is being written."""

    def __init__(self, pq: Any, pa: Any, path: Path, schema: Any) -> None:
        self._pa, self._path = pa, path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._names_path():
            self._writer = pq.ParquetWriter(
                self._temporary,
                schema,
                compression=_COMPRESSION[path.parent.name in _KINDS_OF_ACTS],
                use_dictionary=False,
                write_statistics=[EVENT_COLUMN],  # of numbers in lists they help no reader
                column_encoding=_encodings(pa, schema),
            )
        self._schema = schema
        self._events: dict[int, Mapping[str, Any]] = {}
        self._n_bytes = 0
        self._is_open = True

    def _names_path(self) -> Any:
        return _Writing(self._path)

    def add(self, event: int, columns: Mapping[str, Any]) -> None:
        self._events[event] = columns
        self._n_bytes += sum(
            values[1].nbytes if isinstance(values, tuple) else values.nbytes for values in columns.values()
        )
        if self._n_bytes >= _ROW_GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        if self._events:
            numbers = _to_arrow(self._pa, np.array(list(self._events), np.uint64))
            lists = (
                _as_lists(self._pa, [columns[field.name] for columns in self._events.values()], field.type)
                for field in self._schema
                if field.name != EVENT_COLUMN
            )
            with self._names_path():
                self._writer.write_table(self._pa.table([numbers, *lists], schema=self._schema))
            self._events, self._n_bytes = {}, 0

    def finish(self) -> None:
        self._write()
        with self._names_path():
            self._is_open = False
            self._writer.close()

    def publish(self) -> None:
        with self._names_path():
            self._temporary.replace(self._path)

    def discard(self) -> None:
        with suppress(OSError, self._pa.ArrowException):
            if self._is_open:
                self._is_open = False
                self._writer.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class _Writing:
    """Names the file in errors of the system."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else _first_line(error)
            raise OSError(error.errno, reason, str(self._path)) from error
