"""JSON files whose errors name the file and the key path."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from traccc_py.errors import GeometryError
from traccc_py.files import write_files

__all__ = ["JsonNode", "paused_collector", "read_json", "write_json"]

_LONGEST_VALUE = 60  #: characters of a value that are shown in an error


class JsonNode:
    """A value in a JSON file with its key path."""

    __slots__ = ("file", "key", "parent", "value")

    def __init__(self, file: Path, value: Any, parent: JsonNode | None = None, key: str | int = "") -> None:
        self.file, self.value, self.parent, self.key = file, value, parent, key

    @property
    def path(self) -> str:
        """Keys and indices from the top level to here, as in ``data.volumes[3].name``."""
        if self.parent is None:
            return ""
        above = self.parent.path
        if isinstance(self.key, int):
            return f"{above}[{self.key}]"
        return f"{above}.{self.key}" if above else self.key

    def fail(self, text: str) -> NoReturn:
        """Raise an error with file and key path."""
        msg = f"{self.file}: {self.path or 'top level'}: {text}"
        raise GeometryError(msg)

    def shown(self) -> str:
        """Return the value as shown in errors."""
        if isinstance(self.value, dict | list) or self.value is None:
            return _kind(self.value)
        text = repr(self.value) if not isinstance(self.value, int) or abs(self.value) < 2**80 else "a huge integer"
        return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."

    def get(self, key: str) -> JsonNode | None:
        """Return the value of `key`, None if there is none."""
        values = self.value
        if type(values) is not dict:
            self.fail(f"is {_kind(values)}; expected an object with {key!r}")
        return JsonNode(self.file, values[key], self, key) if key in values else None

    def at(self, path: str) -> JsonNode:
        """Return the value under keys joined by dots."""
        if "." in path:
            node = self
            for key in path.split("."):
                node = node.at(key)
            return node
        child = self.get(path)
        if child is None:
            self.fail(f"has no {path!r}")
        return child

    def items(self) -> list[JsonNode]:
        """Return the elements of an array."""
        if not isinstance(self.value, list):
            self.fail(f"is {_kind(self.value)}; expected an array")
        return [JsonNode(self.file, v, self, i) for i, v in enumerate(self.value)]

    def text(self) -> str:
        """Return a string."""
        if not isinstance(self.value, str):
            self.fail(f"is {self.shown()}; expected a string")
        return str(self.value)

    def number(self, limit: float = math.inf) -> float:
        """Return a finite number between -`limit` and `limit`."""
        value = self.value
        if type(value) is not float and type(value) is not int:
            self.fail(f"is {self.shown()}; expected a finite number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fail(f"is {self.shown()}; expected a finite number")
        if not -limit <= number <= limit:
            self.fail(f"is {self.shown()}; expected a number from {-limit:g} to {limit:g}")
        return number

    def integer(self, low: int, high: int) -> int:
        """Return an integer in low ... high."""
        value = self.value
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            self.fail(f"is {self.shown()}; expected an integer from {low} to {high}")
        return value

    def numbers(self, count: int, limit: float = math.inf) -> list[float]:
        """Return the `count` finite numbers of an array, each between -`limit` and `limit`."""
        values = self.value
        if not isinstance(values, list) or len(values) != count:
            found = f"an array of {len(values)}" if isinstance(values, list) else _kind(values)
            self.fail(f"is {found}; expected an array of {count} numbers")
        for value in values:
            # one test for the common case; a comparison with NaN is false
            if type(value) is not float or not -limit <= value <= limit or value - value != 0.0:
                return [item.number(limit) for item in self.items()]
        return values


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def read_json(path: str | Path) -> JsonNode:
    """Read a JSON file, gzipped if its name ends in ``.gz``.

    Parameters
    ----------
    path : str or Path
        File.

    Returns
    -------
    JsonNode
        Its top level.

    Raises
    ------
    GeometryError
        If the file is missing, damaged or not JSON.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
        text = gzip.decompress(raw) if file.suffix == ".gz" else raw
        return JsonNode(file, json.loads(text))
    except FileNotFoundError as error:
        msg = f"{file}: there is no such file"
        raise GeometryError(msg) from error
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        msg = f"{file}: can't be read as JSON: {error}"
        raise GeometryError(msg) from error


@contextlib.contextmanager
def paused_collector() -> Iterator[None]:
    """Pause Python's cyclic garbage collector, which would traverse repeatedly what only grows, such as a document."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def write_json(path: Path, content: Any, *, compress: bool = False) -> Path:
    """Write a JSON file without blanks, atomically; return its path, which ends in ``.gz`` if it is compressed."""
    raw = json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    file = path.with_name(f"{path.name}.gz") if compress else path
    write_files({file: raw})
    return file
