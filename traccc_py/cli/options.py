"""Options of commands, made from dataclasses of settings; and what all commands do: tell errors, have consoles.

A command names a parameter for an object of settings; `command` puts an option for each of its fields in its place.
Name, type, range, default and help of an option follow from the field; `Option` says what does not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TextIO, cast, get_args, get_origin

import typer

from traccc_py.errors import ConfigError, TracccError
from traccc_py.settings import Choice, Count, PositiveCount, Range, Setting, Settings, settings_of, shown

__all__ = [
    "Compress",
    "Device",
    "Events",
    "Group",
    "Option",
    "Skip",
    "Threads",
    "command",
    "consoles",
    "naming_options",
    "options_of",
]

_BAD_INPUT = 2
_FAILURE = 1
_WIDTH_OF_FILES = 120
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")
_SAME: Any = object()


class Option:
    """How a setting is given on the command line, as far as that does not follow from its field.

    Parameters
    ----------
    *names : str
        Its names. Without a long one among them it is that of the field.
    metavar : str, optional
        Word for its value.
    default : object, optional
        Value of the command in the place of the field's; None: whatever the field's is.
    meaning : str, optional
        Help in the place of the field's comment.
    of : str, optional
        What the help begins with, such as "Gun".
    is_argument : bool, optional
        It is a positional argument.
    is_hidden : bool, optional
        The help does not show it.
    is_negated : bool, optional
        It switches off what the field switches on.
    kind : type, optional
        Type of its value, where `convert` makes another one of it.
    convert : callable, optional
        Makes the field's value of the option's.
    """

    def __init__(
        self,
        *names: str,
        metavar: str | None = None,
        default: Any = _SAME,
        meaning: str | None = None,
        of: str | None = None,
        is_argument: bool = False,
        is_hidden: bool = False,
        is_negated: bool = False,
        kind: Any = None,
        convert: Callable[[Any], Any] | None = None,
    ) -> None:
        self.names = names
        self.metavar = metavar
        self.default = default
        self.meaning = meaning
        self.of = of
        self.is_argument = is_argument
        self.is_hidden = is_hidden
        self.is_negated = is_negated
        self.kind = kind
        self.convert = convert

    def all_names(self, setting: Setting) -> tuple[str, ...]:
        """Return its names, the one by which errors call it first."""
        if any(name.startswith("--") for name in self.names):
            return self.names
        return (f"--{setting.name.replace('_', '-')}", *self.names)

    def default_of(self, setting: Setting) -> Any:
        """Return its default value."""
        default = setting.default if self.default is _SAME else self.default
        if self.is_negated:
            return not default
        return None if default in ((), {}) else default

    def help_of(self, setting: Setting) -> str:
        """Return its help."""
        text = self.meaning or setting.meaning
        if isinstance(setting.allowed, Choice) and self.kind is None:
            *names, last = setting.allowed.names
            text += f": {', '.join(names)} or {last}"
        elif isinstance(setting.allowed, Range) and str(setting.allowed):
            text += f" ({str(setting.allowed).strip()})"
        if self.default is None and setting.default not in (None, (), dataclasses.MISSING):
            text += f"; by default {shown(setting.default)}"
        text = f"{self.of}: {text}" if self.of else text[:1].upper() + text[1:]
        return text if text.endswith(".") else f"{text}."

    def parameter(self, setting: Setting) -> inspect.Parameter:
        """Return it as a parameter of a command."""
        default = self.default_of(setting)
        about: dict[str, Any] = {"help": self.help_of(setting), "metavar": self.metavar, "hidden": self.is_hidden}
        kind = self.kind or (list[get_args(setting.kind)[0]] if _is_list(setting.kind) else setting.kind)  # type: ignore[misc]
        if default is None:
            kind = kind | None
        info = typer.Argument(**about) if self.is_argument else typer.Option(*self.all_names(setting), **about)
        place = {} if default is dataclasses.MISSING else {"default": default}
        return inspect.Parameter(
            setting.name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], **place
        )

    def value(self, setting: Setting, given: Any) -> Any:
        """Return the field's value."""
        if self.is_negated:
            return not given
        if _is_list(setting.kind) and self.kind is None:
            given = tuple(given or ())
        return given if self.convert is None or given is None else self.convert(given)


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis


class Group(NamedTuple):
    """Options that a command gets as one object."""

    parameters: Sequence[inspect.Parameter]
    gather: Callable[..., Any]  #: makes the object of the values by name
    names: Mapping[str, str]  #: of the options, by field
    paths: Mapping[str, str]  #: the same by how errors name the field


def options_of(
    settings: type,
    make: Callable[..., Any] | None = None,
    *,
    leave_out: Sequence[str] = (),
    otherwise: Option | None = None,
    **options: Option,
) -> Group:
    """Return an option for each field of settings.

    Parameters
    ----------
    settings : type
        A dataclass. Its fields may have an `Option` among the metadata of their annotation.
    make : callable, optional
        Makes the object of the fields' values; by default the dataclass. Values None of fields that may not be None are
        left out.
    leave_out : sequence of str, optional
        Fields without an option.
    otherwise : Option, optional
        How fields are given that say nothing about it.
    **options
        How fields are given.
    """
    fields = {
        s.name: (s, options.get(s.name) or _own_option(s) or otherwise or Option())
        for s in settings_of(settings)
        if s.name not in leave_out
    }
    names = {name: _name(option, setting) for name, (setting, option) in fields.items()}
    paths = _paths(settings, names)

    def gather(**given: Any) -> Any:
        values = {name: option.value(setting, given[name]) for name, (setting, option) in fields.items()}
        chosen = {name: value for name, value in values.items() if value is not None or fields[name][0].is_optional}
        with naming_options(paths, given={names[name]: value for name, value in given.items()}):
            return (make or settings)(**chosen)

    return Group([option.parameter(setting) for setting, option in fields.values()], gather, names, paths)


def _own_option(setting: Setting) -> Option | None:
    return next((entry for entry in setting.metadata if isinstance(entry, Option)), None)


def _name(option: Option, setting: Setting) -> str:
    return setting.name if option.is_argument else option.all_names(setting)[0]


def _paths(settings: type, names: Mapping[str, str]) -> dict[str, str]:
    """Return the names of options by those that errors give their fields."""
    return {settings.path_of(field): name for field, name in names.items()} if issubclass(settings, Settings) else {}


@contextlib.contextmanager
def naming_options(options: Mapping[str, str], given: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Raise errors of settings again under the names of the options that gave the values.

    Parameters
    ----------
    options : mapping of str to str
        Names of options by the names of settings.
    given : mapping of str to object, optional
        Values that options were given, where those of the settings may be others.
    """
    try:
        yield
    except ConfigError as error:
        name = options.get(error.field or "")
        if name is None:
            raise
        problem = error.problem
        if given is not None and given.get(name) is not None:
            problem = problem.replace(shown(error.value), shown(given[name]), 1)
        raise ConfigError(problem, field=name, value=error.value) from error


def command(**groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a command of a function.

    Errors made on purpose become one paragraph on stderr and exit code 2, those of the system exit code 1.

    Parameters
    ----------
    **groups
        Options in the place of the function's parameters of these names.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        shown_parameters: list[inspect.Parameter] = []
        for own in inspect.signature(function, eval_str=True).parameters.values():
            if own.name in groups:
                group = groups[own.name].parameters
                shown_parameters += [p.replace(name=f"{own.name}_{p.name}") for p in group]
            else:
                shown_parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        shown_parameters.append(_DEBUG)

        @functools.wraps(function)
        def wrapper(*, debug: bool = False, **values: Any) -> None:
            try:
                for name, group in groups.items():
                    given = {p.name: values.pop(f"{name}_{p.name}") for p in group.parameters}
                    values[name] = group.gather(**given)
                function(**values)
            except (TracccError, OSError) as error:
                if debug:
                    raise
                typer.echo(f"traccc-py: error: {' '.join(str(error).split())}", err=True)
                raise typer.Exit(_BAD_INPUT if isinstance(error, TracccError) else _FAILURE) from error

        wrapper.__signature__ = inspect.Signature(shown_parameters)  # type: ignore[attr-defined]
        return wrapper

    return decorate


_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")],
)


def _device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        msg = f"--device is {name!r}; expected auto, cpu, cuda or cuda:N"
        raise ConfigError(msg)
    return name


# Types of fields that several commands have.
Device = Annotated[str, Option(meaning="device: auto (a GPU if any), cpu, cuda or cuda:N", convert=_device)]
Threads = Annotated[PositiveCount | None, Option(meaning="CPU threads; by default all cores")]
Events = Annotated[PositiveCount | None, Option("--events", "-n", meaning="number of events at most")]
Skip = Annotated[Count, Option(meaning="events to leave out at the start")]
Compress = Annotated[bool, Option(meaning="write .csv.gz")]


def consoles() -> tuple[Any, Any]:
    """Return the consoles for results (stdout) and for progress and warnings (stderr)."""
    import logging

    from rich.console import Console

    plain: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
    log = Console(stderr=True, **plain)

    class Handler(logging.Handler):  # rich's own breaks lines within paths
        def emit(self, record: logging.LogRecord) -> None:
            log.print(f"traccc-py: {record.levelname.lower()}: {record.getMessage()}")

    logging.getLogger("traccc_py").handlers = [Handler()]
    is_redirected = not sys.stdout.isatty()  # tables in files and pipes need not be narrow
    return Console(width=_WIDTH_OF_FILES if is_redirected else None, file=cast("TextIO", _Output()), **plain), log


class _Output:
    """Standard output, as long as someone reads it: `| head` must not keep files from being written."""

    encoding = "utf-8"
    _is_read = True

    def write(self, text: str) -> int:
        """Write text, or nothing once the reader is gone."""
        if self._is_read:
            with self._unless_gone():
                sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        if self._is_read:
            with self._unless_gone():
                sys.stdout.flush()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return sys.stdout.isatty()

    def fileno(self) -> int:
        """Return its file descriptor."""
        return sys.stdout.fileno()

    @contextlib.contextmanager
    def _unless_gone(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._is_read = False
            null = os.open(os.devnull, os.O_WRONLY)  # for what Python flushes at the end
            os.dup2(null, sys.stdout.fileno())
