"""What all collections can: select rows, show themselves, become tables of pandas, Arrow and awkward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import numpy as np

from traccc_py.edm.columns import column, columns_of
from traccc_py.edm.html import row_table
from traccc_py.extras import optional_module

__all__ = ["Collection", "collection", "data_frame", "row_numbers"]

_C = TypeVar("_C", bound=type)


@dataclass_transform(field_specifiers=(column, field))
def collection(cls: _C) -> _C:
    """Make a dataclass of a collection, whose documentation lists its columns.

    It is another class than the one that is decorated, so its methods can't use `super()` without arguments.
    """
    made: Any = dataclass(slots=True, repr=False)(cls)
    if made.__doc__ is not None:  # it is under python -OO
        listed = "\n".join(c.described for c in columns_of(made).values()).replace("\n", "\n    ")
        made.__doc__ = f"{made.__doc__.rstrip()}\n\n    Attributes\n    ----------\n    {listed}\n    "
    return made


class Collection:
    """Columns of one length."""

    __slots__ = ()
    #: Fields that hold the lists which a column of offsets cuts, by its name.
    _LISTS: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]

    def __repr__(self) -> str:
        """Return name, number of rows and columns; the columns themselves would fill screens."""
        return f"{type(self).__name__}({len(self)} rows of {', '.join(columns_of(type(self)))})"

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        """Refuse to become one array, which NumPy would try row by row."""
        msg = f"{type(self).__name__} has columns of several types; take one of them, or to_pandas()"
        raise TypeError(msg)

    def _repr_html_(self) -> str:
        """Return the first rows, for notebooks."""
        return row_table(f"{type(self).__name__}: {len(self)} rows", self.table())

    def __getitem__(self, rows: Any) -> Self:
        """Return selected rows, and the lists that belong to them.

        Links into other collections, such as `measurement_index`, keep their meaning: those collections are not cut.

        Parameters
        ----------
        rows : slice, ndarray of bool or int, or int
            A mask of the length of the collection, or row numbers; a single number gives a collection of one row.

        Raises
        ------
        IndexError
            If a mask has another length, or there is no such row.
        TypeError
            If rows are given by something else, or the collection can't be cut.
        """
        taken = row_numbers(rows, len(self), type(self).__name__)
        columns: dict[str, Any] = {}
        for name, about in columns_of(type(self)).items():
            values = getattr(self, name)
            if name in self._LISTS:
                columns |= self._cut_lists(name, values, taken)
            elif name not in columns:
                if about.rows != "n":
                    msg = f"rows of {type(self).__name__} can't be selected: {name} has {about.rows} rows, not n"
                    raise TypeError(msg)
                columns[name] = None if values is None else values[taken]
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in columns}  # type: ignore[arg-type]
        return type(self)(**(rest | columns))

    def _cut_lists(self, name: str, offsets: np.ndarray | None, taken: np.ndarray) -> dict[str, Any]:
        """Return the offsets of selected rows, and their lists."""
        lists = self._lists_of(name)
        if offsets is None:
            if lists:
                msg = f"rows can't be selected: {', '.join(lists)} can't be cut without {name}"
                raise TypeError(msg)
            return {name: None}
        first, lengths = offsets[:-1][taken], np.diff(offsets)[taken]
        cut = np.concatenate(([0], np.cumsum(lengths))).astype(offsets.dtype)
        places = np.repeat(first - cut[:-1], lengths) + np.arange(cut[-1])
        return {name: cut, **{of: values[places] for of, values in lists.items()}}

    def table(self) -> dict[str, np.ndarray]:
        """Return the columns as those of a flat table, one for each number of a row, by name.

        Lists, and covariance matrices, are in none.
        """
        found: dict[str, np.ndarray] = {}
        for name, about in columns_of(type(self)).items():
            values = getattr(self, name)
            if about.in_tables and about.rows == "n" and values is not None:
                found |= about.in_table(values)
        return found

    def to_pandas(self) -> Any:
        """Return the columns of `table` as a pandas.DataFrame."""
        return data_frame(self.table())

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table with all columns; vectors and matrices are lists of fixed length, and lists are lists.

        Raises
        ------
        ConfigError
            If pyarrow is not installed.
        """
        pa = optional_module("pyarrow", "parquet", "to_arrow")
        found: dict[str, Any] = {}
        for name, about in columns_of(type(self)).items():
            values = getattr(self, name)
            if name in self._LISTS and values is not None:
                found |= {of: _arrow_lists(pa, values, inner) for of, inner in self._lists_of(name).items()}
            elif about.rows == "n" and values is not None:
                found[name] = _arrow_column(pa, values)
        return pa.table(found)

    def _lists_of(self, name: str) -> dict[str, Any]:
        return {of: values for of in self._LISTS[name] if (values := getattr(self, of)) is not None}

    def to_awkward(self) -> Any:
        """Return an awkward.Array of records with all columns, and lists in lists.

        Raises
        ------
        ConfigError
            If awkward or pyarrow is not installed.
        """
        ak = optional_module("awkward", "awkward", "to_awkward")
        return ak.from_arrow(self.to_arrow().combine_chunks())


def data_frame(table: Mapping[str, np.ndarray]) -> Any:
    """Return columns by name as a pandas.DataFrame."""
    import pandas as pd  # takes a while

    return pd.DataFrame(table)


def row_numbers(rows: Any, n: int, what: str) -> np.ndarray:
    """Return the rows that a slice, mask, row numbers or a single one select, (k,) int64.

    Raises
    ------
    IndexError, TypeError
        As `Collection.__getitem__`.
    """
    if isinstance(rows, slice):
        return np.arange(n)[rows]
    chosen = np.atleast_1d(np.asarray(rows))
    if chosen.size == 0 and chosen.dtype.kind == "f":  # an empty list
        chosen = chosen.astype(np.int64)
    if chosen.dtype.kind not in "biu" or chosen.ndim != 1:
        msg = f"rows of {what} are selected by {rows!r:.60}; expected a slice, a mask or numbers of rows"
        raise TypeError(msg)
    if chosen.dtype.kind == "b":
        if len(chosen) != n:
            msg = f"the mask has {len(chosen)} values; {what} has {n} rows"
            raise IndexError(msg)
        return np.flatnonzero(chosen)
    is_bad = (chosen < -n) | (chosen >= n)
    if is_bad.any():
        msg = f"there is no row {chosen[np.argmax(is_bad)]}; {what} has {n} rows"
        raise IndexError(msg)
    return np.where(chosen < 0, chosen + n, chosen).astype(np.int64)


def _arrow_column(pa: Any, values: np.ndarray) -> Any:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    size = int(np.prod(values.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(flat, size) if values.ndim > 1 else flat


def _arrow_lists(pa: Any, offsets: np.ndarray, values: Any) -> Any:
    if isinstance(values, Collection):
        inner = values.to_arrow().combine_chunks().to_struct_array().combine_chunks()
    else:
        inner = _arrow_column(pa, values)
    return pa.LargeListArray.from_arrays(pa.array(np.asarray(offsets, np.int64)), inner)
