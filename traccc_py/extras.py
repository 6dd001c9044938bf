"""Optional dependencies: imported where they are needed; where they are missing, an error names their extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from traccc_py.errors import ConfigError

__all__ = ["optional_module"]


def optional_module(name: str, extra: str, purpose: str) -> Any:
    """Return a module of an optional dependency.

    Parameters
    ----------
    name : str
        The module.
    extra : str
        The extra of this package that has it.
    purpose : str
        What needs it, as a message begins.

    Raises
    ------
    ConfigError
        If it is not installed; the message names the extra that has it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != name.split(".", maxsplit=1)[0]:
            raise
        msg = f'{purpose} needs {name.split(".")[0]}; install it with: pip install "traccc-py[{extra}]"'
        raise ConfigError(msg) from error
