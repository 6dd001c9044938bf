"""Settings: dataclasses in which each field says, once, all that is to be said about it.

    chi2_max: Positive = 25.0  #: largest chi2 of a measurement against the prediction

Name and default are the field's, type and range are its annotation's; the comment, beside or above it, has the meaning
and the unit. Checks, TOML, options of the command line and tables of the documentation are made of these.
"""

from __future__ import annotations

import dataclasses
import json
import linecache
import math
import re
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

from traccc_py.errors import ConfigError

__all__ = [
    "AUTO",
    "AboveOne",
    "AnyName",
    "Automatic",
    "Bounds",
    "Choice",
    "Count",
    "Fraction",
    "NonNegative",
    "Number",
    "Positive",
    "PositiveCount",
    "Range",
    "Setting",
    "Settings",
    "settings_of",
    "shown",
]


class Automatic(StrEnum):
    """The value of a setting that is not set; in an annotation it says that a setting may be left so."""

    AUTO = "auto"


#: A setting that is derived from what it has to fit before it is used. Typed as the number that then takes its place.
AUTO: Any = Automatic.AUTO


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers allowed, also in each place of a tuple: from `low` (above it, if `is_open`) to `high`, below `below`."""

    low: float = -math.inf
    high: float = math.inf
    is_open: bool = False
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        is_above = value > self.low if self.is_open else value >= self.low
        return math.isfinite(value) and is_above and value <= self.high and value < self.below

    def __str__(self) -> str:
        if self.low == -math.inf:
            return ""
        if self.high < math.inf:
            return (
                f" above {self.low:g}, up to {self.high:g}" if self.is_open else f" from {self.low:g} to {self.high:g}"
            )
        below = "" if self.below == math.inf else f" and < {self.below:g}"
        return f" {'>' if self.is_open else '>='} {self.low:g}{below}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Pairs allowed: finite, the lower one first, both above `low`."""

    low: float = -math.inf

    def __contains__(self, pair: Sequence[float]) -> bool:
        low, high = pair
        return math.isfinite(low) and math.isfinite(high) and self.low < low <= high

    def __str__(self) -> str:
        return "finite bounds, low <= high" + (f", low > {self.low:g}" if self.low > -math.inf else "")


@dataclass(frozen=True, slots=True)
class Choice:
    """Texts allowed."""

    names: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return "one of " + ", ".join(f'"{name}"' for name in self.names)


@dataclass(frozen=True, slots=True)
class AnyName:
    """Texts that are not empty; `meaning` says of what."""

    meaning: str

    def __contains__(self, value: str) -> bool:
        return bool(value)

    def __str__(self) -> str:
        return self.meaning


Number = Annotated[float, Range()]
Positive = Annotated[float, Range(0, is_open=True)]
NonNegative = Annotated[float, Range(0)]
AboveOne = Annotated[float, Range(1, is_open=True)]
Fraction = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(0)]
PositiveCount = Annotated[int, Range(1)]


_LARGEST_WHOLE = 2**31 - 1
_SMALLEST, _LARGEST = 1e-12, 1e12
_WORKABLE = f"at most {_LARGEST_WHOLE} if it is whole, else 0 or of a size from {_SMALLEST:g} to {_LARGEST:g}"


class Setting(NamedTuple):
    """A field of settings."""

    name: str
    kind: Any  #: its type, without None
    metadata: tuple[Any, ...]  #: of the annotation
    is_optional: bool  #: whether None is allowed
    default: Any  #: `dataclasses.MISSING` if it has none
    meaning: str  #: with the unit; "" without a comment

    @property
    def allowed(self) -> Range | Bounds | Choice | AnyName | None:
        """Values allowed; None: all that the type has."""
        return next((entry for entry in self.metadata if isinstance(entry, (Range, Bounds, Choice, AnyName))), None)

    @property
    def can_be_auto(self) -> bool:
        """Whether it may be left to be derived."""
        return Automatic in self.metadata

    @property
    def expected(self) -> str:
        """What is allowed, in words."""
        if self.kind is bool:
            return "true or false"
        if isinstance(self.allowed, (Bounds, Choice, AnyName)):
            return str(self.allowed)
        if get_origin(self.kind) is tuple:
            return f"{len(get_args(self.kind))} finite numbers{self.allowed}"
        return f"{'an integer' if self.kind is int else 'a finite number'}{self.allowed}"

    def accepts(self, value: object) -> bool:
        """Return whether a value is allowed."""
        if (value is None and self.is_optional) or (value is AUTO and self.can_be_auto):
            return True
        if self.kind is bool:
            return isinstance(value, bool)
        if self.allowed is None:
            return True
        if get_origin(self.kind) is tuple:
            return self._accepts_each(value)
        if self.kind is str:
            return isinstance(value, str) and value in self.allowed  # type: ignore[operator]
        return _is_number(value, Integral if self.kind is int else Real) and value in self.allowed  # type: ignore[operator]

    def _accepts_each(self, values: object) -> bool:
        if not isinstance(values, (tuple, list)) or len(values) != len(get_args(self.kind)):
            return False
        if not all(_is_number(value, Real) for value in values):
            return False
        return values in self.allowed if isinstance(self.allowed, Bounds) else all(v in self.allowed for v in values)  # type: ignore[operator]


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_workable(value: object) -> bool:
    """Return whether 32 bits hold a number, and its square if it is no whole one."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_workable, value))
    if not isinstance(value, (int, float, Real)) or isinstance(value, bool) or not math.isfinite(value):
        return True
    size = abs(float(value))
    return size <= _LARGEST_WHOLE if isinstance(value, Integral) else size == 0 or _SMALLEST <= size <= _LARGEST


def shown(value: object) -> str:
    """Return a value as errors show it."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value) if isinstance(value, (str, bool)) else str(value)


class Settings:
    """Base of settings: checks every field when they are made."""

    __slots__ = ()

    @classmethod
    def path_of(cls, name: str) -> str:
        """Return how errors name a field."""
        return f"{cls.__name__}.{name}"

    def __post_init__(self) -> None:
        for setting in settings_of(type(self)):  # type: ignore[arg-type] # mypy: a class with slots has no hash
            value = getattr(self, setting.name)
            if not setting.accepts(value):
                self._reject(setting.name, self._expected(setting))
            elif setting.allowed is not None and not _is_workable(value):
                self._reject(setting.name, f"{self._expected(setting)}, {_WORKABLE}")
        self._check_together()

    def _expected(self, setting: Setting) -> str:
        return setting.expected

    def _check_together(self) -> None:
        """Check what concerns several fields."""

    def _reject(self, name: str, expected: str) -> NoReturn:
        value = getattr(self, name)
        msg = f"is {shown(value)}; expected {expected}"
        raise ConfigError(msg, field=self.path_of(name), value=value)


@cache
def settings_of(owner: type) -> tuple[Setting, ...]:
    """Return the fields of a dataclass as settings."""
    hints = get_type_hints(owner, include_extras=True)
    comments = _comments(owner)
    found = []
    for f in dataclasses.fields(owner):
        kind, metadata, is_optional = _taken_apart(hints[f.name])
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        found.append(Setting(f.name, kind, metadata, is_optional, default, comments.get(f.name, "")))
    return tuple(found)


def _taken_apart(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Return the type in an annotation, its metadata, and whether None is allowed."""
    if get_origin(hint) is Annotated:
        inner, *metadata = get_args(hint)
        kind, more, is_optional = _taken_apart(inner)
        return kind, (*more, *metadata), is_optional
    if get_origin(hint) in (Union, types.UnionType):
        others = [argument for argument in get_args(hint) if argument is not types.NoneType]
        if len(others) == 1:
            kind, of_other, _ = _taken_apart(others[0])
            return kind, of_other, True
    return hint, (), False


_BESIDE = re.compile(r"^    (\w+): [^#\n]*#: (.*)$", re.MULTILINE)
_ABOVE = re.compile(r"((?:^    #: .*\n)+)    (\w+): ", re.MULTILINE)


def _comments(owner: type) -> dict[str, str]:
    """Return the ``#:`` comments of a class, by field; none where it is installed without sources."""
    inherited = {name: text for base in owner.__mro__[-2:0:-1] for name, text in _comments(base).items()}
    text = "".join(linecache.getlines(getattr(sys.modules[owner.__module__], "__file__", None) or ""))
    found = re.search(rf"^class {owner.__name__}\b.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        return inherited
    above = {name: re.sub(r"\s*#: ", " ", lines).strip() for lines, name in _ABOVE.findall(found[0])}
    return inherited | above | dict(_BESIDE.findall(found[0]))
