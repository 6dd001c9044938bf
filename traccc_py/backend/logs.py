"""The package's log as the server's log, without floods."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

__all__ = ["OncePerMinute", "TritonHandler"]

_PERIOD = 60.0  # [s]
_MAX_KINDS = 1000  # remembered


class OncePerMinute(logging.Filter):
    """Lets one warning of each kind through in a minute; the next one says how many were left out.

    A kind is the text of a warning without what is put into it, and the exception that was put into it, if any. Clients
    can cause any number of warnings.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[tuple[str, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record, with the number of those left out in its text."""
        if record.levelno != logging.WARNING:
            return True
        arguments = record.args if isinstance(record.args, tuple) else ()
        kind = (str(record.msg), *(type(value).__name__ for value in arguments if isinstance(value, Exception)))
        now = self._clock()
        when, n_left_out = self._last.get(kind, (now - _PERIOD, 0))
        if now - when < _PERIOD:
            self._last[kind] = when, n_left_out + 1
            return False
        if len(self._last) > _MAX_KINDS:
            self._last.clear()
        self._last[kind] = now, 0
        if n_left_out:
            record.msg, record.args = f"{record.getMessage()} ({n_left_out} more such warnings before)", ()
        return True


class TritonHandler(logging.Handler):
    """Forwards the log to the server's.

    Parameters
    ----------
    logger : object
        The server's `triton_python_backend_utils.Logger`.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger
        self.addFilter(OncePerMinute())

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        message = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.log_error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.log_warn(message)
        elif record.levelno >= logging.INFO:
            self._logger.log_info(message)
        else:
            self._logger.log_verbose(message)
