"""What is known of a column: name, type, unit, meaning, its names in CSV files, its tensor of the service.

Each column is declared once, in its collection, by `column`. Readers and writers of files, tensors and the tables of
the documentation are made from what `columns_of` returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from traccc_py.edm.parameters import N_PARAMETERS, packed_index

__all__ = ["Column", "Component", "Csv", "column", "columns_of", "covariances", "packed", "variances"]

_COLUMN = "column"  # key of the metadata of a dataclass's field
_MOST_NAMES = 8  # of components that are listed one by one


class Component(NamedTuple):
    """One of the numbers in a row of a column."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Csv:
    """How a column stands in CSV files.

    Parameters
    ----------
    names : mapping of str to int, optional
        Component by name in the header line; by default all, by their own names.
    default : float, optional
        Value where a file lacks it; None if it must be there. Columns that are added later need one: files written
        before must stay readable.
    minimum, maximum : float, optional
        Smallest and largest value allowed; by default those of the type.
    allow_nan : bool, optional
        Accept NaN, for quantities that may not exist.
    is_text : bool, optional
        Read as text, for the reader to decode.
    is_read : bool, optional
        False for what is written as 0 and not read, because another program's reader wants it.
    aliases : mapping of str to str, optional
        Another name that a column of the file may have, by name.
    parts : tuple of (str, int), optional
        Columns of the file that may hold it in pieces instead, and their numbers of bits, from the highest ones.
    meaning : str, optional
        What files hold, where that is not all of the column.
    """

    names: Mapping[str, int] | None = None
    default: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    allow_nan: bool = False
    is_text: bool = False
    is_read: bool = True
    aliases: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[tuple[str, int], ...] = ()
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a collection, file or tensor.

    Parameters
    ----------
    name : str
        Name of the field of the collection.
    dtype : str
        NumPy type.
    meaning : str
        What it is, for the documentation.
    unit : str, optional
        Unit of a number without components.
    components : tuple of Component, optional
        The numbers of a row; none if it is a single one.
    rows : str, optional
        Number of rows.
    csv : Csv, optional
        Its place in files; None if it is in none.
    tensor : str, optional
        Tensor of the service that it is in.
    since : int, optional
        Version of the service's outputs that it came with [1].
    prefix : str, optional
        What the names of its components begin with in tables (`Collection.table`).
    in_tables : bool, optional
        False for what tables hold in another form, or not at all.
    """

    name: str
    dtype: str
    meaning: str
    unit: str = "1"
    components: tuple[Component, ...] = ()
    rows: str = "n"
    csv: Csv | None = None
    tensor: str | None = None
    since: int = 1
    prefix: str = ""
    in_tables: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return (len(self.components),) if self.components else ()

    @property
    def csv_names(self) -> dict[str, int]:
        """Component by name in the header line of a file; in the order of the file."""
        if self.csv is None:
            return {}
        if self.csv.names is not None:
            return dict(self.csv.names)
        return {c.name: k for k, c in enumerate(self.components)} or {self.name: 0}

    @property
    def numbers(self) -> tuple[Component, ...]:
        """The numbers of a row, as tensors name them; a single one has its name of files."""
        return self.components or (Component(next(iter(self.csv_names), self.name), self.unit, self.meaning),)

    @property
    def described(self) -> str:
        """Name, type, shape, unit and meaning, for `help`."""
        shape = ", ".join((self.rows, *map(str, self.shape))) + ("" if self.shape else ",")
        units = list(dict.fromkeys(number.unit for number in self.numbers if number.unit != "1"))
        names = ", ".join(c.name for c in self.components) if len(self.components) <= _MOST_NAMES else ""
        unit = f" [{', '.join(units)}]" if units else ""
        return (
            f"{self.name} : ndarray of shape ({shape}), {self.dtype}\n    {self.meaning}{unit}{names and ': '}{names}"
        )

    def in_table(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the column as those of a table, one for each number of a row, by name."""
        if not self.components:
            return {self.prefix + self.name: values}
        return {self.prefix + c.name: values[:, k] for k, c in enumerate(self.components)}

    def to_csv(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return the column as those of a file, by name."""
        return {name: values[:, k] if self.components else values for name, k in self.csv_names.items()}

    def from_csv(self, table: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the column from those of a file; components that are in none are NaN."""
        names = self.csv_names
        first = table[next(iter(names))]
        if not self.components:
            return first
        values = np.full((len(first), *self.shape), np.nan, first.dtype)
        for name, k in names.items():
            values[:, k] = table[name]
        return values


def column(dtype: str, meaning: str, *, default_factory: Any = None, **facts: Any) -> Any:
    """Declare a column of a collection: the field of a dataclass.

    Parameters
    ----------
    dtype, meaning
        As of `Column`.
    default_factory : callable, optional
        Makes the column where none is given.
    **facts
        Other fields of `Column`.
    """
    options = {} if default_factory is None else {"default_factory": default_factory}
    return field(metadata={_COLUMN: Column("", dtype, meaning, **facts)}, **options)


def columns_of(collection: type) -> dict[str, Column]:
    """Return the columns of a collection by name, in order."""
    return {f.name: replace(f.metadata[_COLUMN], name=f.name) for f in fields(collection) if _COLUMN in f.metadata}


def packed(parameters: Sequence[Component]) -> tuple[Component, ...]:
    """Return the components of the packed covariance matrix of some parameters."""
    pairs = ((a, b) for i, a in enumerate(parameters) for b in parameters[: i + 1])
    return tuple(Component(f"{a.name}_{b.name}", "product of both", "covariance") for a, b in pairs)


def variances(names: Sequence[str]) -> dict[str, int]:
    """Return the names that files have for the diagonal of a packed covariance matrix, with its elements."""
    return {f"var_{name}": packed_index(k, k) for k, name in enumerate(names)}


def covariances(names: Sequence[str]) -> dict[str, int]:
    """Return the names that files have for the elements of a packed covariance matrix off the diagonal."""
    pairs = ((row, column) for row in range(N_PARAMETERS) for column in range(row))
    return {f"cov_{names[column]}_{names[row]}": packed_index(row, column) for row, column in pairs}
