"""What commands share: types of options, how errors are told, the consoles."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from traccc_py.errors import TracccError

__all__ = [
    "Compress",
    "ConfigFile",
    "Debug",
    "Device",
    "Seed",
    "Threads",
    "consoles",
    "reports_errors",
]

_BAD_INPUT = 2
_FAILURE = 1
_WIDTH_OF_FILES = 120
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def _check_device(name: str) -> str:
    if not _DEVICE.fullmatch(name):
        msg = f"{name!r}; expected auto, cpu, cuda or cuda:N"
        raise typer.BadParameter(msg)
    return name


ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="TOML", help="Settings; see 'traccc-py config'.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", callback=_check_device)]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. (default: all cores)")]
Compress = Annotated[bool, typer.Option("--compress", help="Write .csv.gz.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random numbers.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")]


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors made on purpose into one paragraph on stderr and exit code 2, those of the system into 1."""

    @functools.wraps(command)
    def wrapper(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (TracccError, OSError) as error:
            if debug:
                raise
            typer.echo(f"traccc-py: error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(_BAD_INPUT if isinstance(error, TracccError) else _FAILURE) from error

    return wrapper


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
    return Console(width=_WIDTH_OF_FILES if is_redirected else None, **plain), log
