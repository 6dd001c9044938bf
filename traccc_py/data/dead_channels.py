"""Files that list dead modules and channels; `docs/file_formats.md` describes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.csv_table import Column, format_table, read_table
from traccc_py.errors import GeometryError, InputDataError
from traccc_py.files import write_files
from traccc_py.geometry.dead_channels import ALL, DeadChannels
from traccc_py.geometry.json_node import JsonNode, read_json

__all__ = ["DEAD_CHANNEL_COLUMNS", "read_dead_channels", "write_dead_channels"]

_MAX_CHANNEL = 2**31 - 1
_RANGES = ("channel0", "channel1")
_ENDS = ("first", "last")
_LIST = "dead_channels"
_MODULE = "geometry_id"

#: Columns of the CSV file.
DEAD_CHANNEL_COLUMNS = (
    Column(_MODULE, "uint64"),
    *(
        Column(f"{name}_{end}", "int64", default=ALL, minimum=ALL, maximum=_MAX_CHANNEL)
        for name in _RANGES
        for end in _ENDS
    ),
)


def read_dead_channels(path: Path | str) -> DeadChannels:
    """Read a list of dead modules and channels.

    Parameters
    ----------
    path : path
        CSV or JSON file, may be gzipped (``.gz``).

    Returns
    -------
    DeadChannels
        Its rows, for `Detector.with_dead_channels`. Modules and channels are checked there.

    Raises
    ------
    InputDataError
        If the file can't be used; the message names file, line or key path, and value.
    """
    name = Path(path).name.removesuffix(".gz")
    if name.endswith(".json"):
        return _read_json(path)
    if name.endswith(".csv"):
        return _read_csv(path)
    msg = f"{path}: a list of dead channels is a file that ends in .csv, .json, .csv.gz or .json.gz"
    raise InputDataError(msg)


def _read_csv(path: Path | str) -> DeadChannels:
    table = read_table(path, DEAD_CHANNEL_COLUMNS, allow_others=False)
    first, second = (np.stack([table[f"{name}_{end}"] for end in _ENDS], axis=1) for name in _RANGES)
    return DeadChannels(table[_MODULE], first, second, places=(f"{path}, line ", str(FIRST_DATA_LINE)))


def _read_json(path: Path | str) -> DeadChannels:
    try:
        rows = [_read_entry(entry) for entry in _entries(read_json(path))]
    except GeometryError as error:
        raise InputDataError(str(error)) from error
    ids = np.array([row[0] for row in rows], np.uint64)
    ranges = np.array([row[1:] for row in rows], np.int64).reshape(-1, len(_RANGES), 2)
    return DeadChannels(ids, ranges[:, 0], ranges[:, 1], places=(f"{path}: entry (counted from 0) ", "0"))


def _entries(top: JsonNode) -> list[JsonNode]:
    _refuse_others(top, (_LIST,))
    return top.at(_LIST).items()


def _read_entry(entry: JsonNode) -> tuple[int, list[int], list[int]]:
    _refuse_others(entry, (_MODULE, *_RANGES))
    first, second = (_read_range(entry.get(name)) for name in _RANGES)
    return entry.at(_MODULE).integer(0, 2**64 - 1), first, second


def _read_range(node: JsonNode | None) -> list[int]:
    if node is None:
        return [ALL, ALL]
    ends = [item.integer(0, _MAX_CHANNEL) for item in node.items()]
    if len(ends) != len(_ENDS):
        node.fail(f"has {len(ends)} numbers; expected the first and the last channel")
    return ends


def _refuse_others(node: JsonNode, names: tuple[str, ...]) -> None:
    """Raise for a key that is not among `names`: misspelt, it would make a whole module dead."""
    if isinstance(node.value, dict):
        unknown = [key for key in node.value if key not in names]
        if unknown:
            node.fail(f"has {unknown[0]!r}; expected {', '.join(names)}")


def write_dead_channels(path: Path, dead: DeadChannels) -> Path:
    """Write a list of dead channels as CSV.

    Parameters
    ----------
    path : Path
        File, replaced if it is there.
    dead : DeadChannels
        The list.

    Returns
    -------
    Path
        The file.
    """
    values = (dead.geometry_id, *dead.channel0.T, *dead.channel1.T)
    table = format_table({c.name: column for c, column in zip(DEAD_CHANNEL_COLUMNS, values, strict=True)})
    write_files({path: table})
    return path
