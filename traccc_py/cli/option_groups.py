"""Options that several commands share: given to a command as one object, declared once.

A command names a parameter for the object; `takes` puts the group's options in its place.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

__all__ = ["argument", "option", "takes"]


def option(name: str, kind: Any, default: Any, *declarations: str, **info: Any) -> inspect.Parameter:
    """Return an option of a group.

    Parameters
    ----------
    name : str
        Key of its value.
    kind : type
        Type of its value.
    default : object
        Value where it is not given.
    *declarations : str
        Its names on the command line.
    **info
        As for `typer.Option`.
    """
    annotation = Annotated[kind, typer.Option(*declarations, **info)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def argument(name: str, kind: Any, default: Any, **info: Any) -> inspect.Parameter:
    """Return a positional argument of a group; parameters as for `option`."""
    annotation = Annotated[kind, typer.Argument(**info)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def takes(
    parameter: str, options: Sequence[inspect.Parameter], gather: Callable[..., Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces a parameter of a command by the options of a group.

    Parameters
    ----------
    parameter : str
        Parameter that receives the object.
    options : sequence of inspect.Parameter
        Options, as `option` makes them.
    gather : callable
        Makes the object of the options' values, given by name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        place = [p.name for p in own].index(parameter)
        shown = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        shown[place : place + 1] = options

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            group = gather(**{o.name: values.pop(o.name) for o in options})
            command(**{parameter: group}, **values)

        wrapper.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        return wrapper

    return decorate
