"""Translate failures of requests into errors of this package, and tell which requests may be retried."""

from __future__ import annotations

import re

from traccc_py.client.options import ClientOptions
from traccc_py.errors import InputDataError, ServiceError, TracccError

__all__ = ["explained", "is_worth_repeating", "lost_shared_memory", "needs_larger_outputs"]

_REFUSED = ("StatusCode.INVALID_ARGUMENT", "400")
_TOO_LATE = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED", "499", "504")
# Of the service itself; Triton 2.51 has no HTTP status for CANCELLED and sends 400, as for a wrong event.
_WITHDRAWN = re.compile(r"^the event waited for .*its sender allows|^the request was cancelled", re.DOTALL)
_UNREACHABLE = ("StatusCode.UNAVAILABLE", "502", "503")
_DEAD_INSTANCE = re.compile(r"[Ss]tub process .*not healthy|is not healthy|failed to send .*stub", re.DOTALL)
_LOST_CONNECTION = re.compile("^connection closed")  # of geventhttpclient, whose error is not an OSError
_NO_MODEL = re.compile(r"unknown model|has no available versions|not ready", re.IGNORECASE)
_BUSY = re.compile("the service is busy|increase the shared memory pool")
_CLOSED = re.compile("(API|protocol) is restricted")
_NO_TRITON = ("HTTPParseError", "JSONDecodeError")  # of geventhttpclient and rapidjson
_PREFIX = re.compile(r"^in ensemble '[^']*', ")


def _status(error: Exception) -> str:
    status = getattr(error, "status", None)
    return str(status()) if callable(status) else ""


def _message(error: Exception) -> str:
    message = getattr(error, "message", None)
    text = str(message()) if callable(message) else str(error)
    return _PREFIX.sub("", text or type(error).__name__)


def _is_timeout(error: Exception) -> bool:
    message = _message(error)
    if _status(error) in _TOO_LATE or _WITHDRAWN.search(message):
        return True
    return isinstance(error, TimeoutError) or "timed out" in message


def is_worth_repeating(error: Exception) -> bool:
    """Return whether a retry may succeed: the server was unavailable, or its model instance died."""
    message = _message(error)
    if _is_timeout(error) or _CLOSED.search(message):
        return False
    if _DEAD_INSTANCE.search(message) or _NO_MODEL.search(message) or _BUSY.search(message):
        return True
    return _is_unreachable(error)


def _is_unreachable(error: Exception) -> bool:
    is_lost = _LOST_CONNECTION.search(_message(error)) is not None
    return _status(error) in _UNREACHABLE or isinstance(error, OSError) or is_lost


def _is_of_something_else(error: Exception) -> bool:
    """Return whether what answers at the port speaks no HTTP, or no JSON as the port of metrics."""
    return type(error).__name__ in _NO_TRITON


def needs_larger_outputs(error: Exception) -> bool:
    """Return whether an output did not fit into shared memory of the client."""
    message = _message(error)
    return "shared memory" in message and "size" in message and not _BUSY.search(message)


def lost_shared_memory(error: Exception) -> bool:
    """Return whether the server does not know the region because it was restarted."""
    return "Unable to find" in _message(error) and "shared memory region" in _message(error)


def explained(error: Exception, options: ClientOptions) -> TracccError:
    """Return the error that describes what happened to an event.

    Parameters
    ----------
    error : Exception
        Of tritonclient or the network.
    options : ClientOptions
        Names the server and the model.

    Returns
    -------
    TracccError
        `InputDataError` if the server refused the event, else `ServiceError`.
    """
    where = f"{options.model} at {options.url}"
    message = _message(error)
    if _is_timeout(error):
        return ServiceError(f"{where} did not answer within {options.timeout:g} s: {message}")
    if _DEAD_INSTANCE.search(message):
        return ServiceError(
            f"the model instance that worked on the event died, of {where}: the event was not reconstructed and may "
            f"be sent again ({message})"
        )
    if _CLOSED.search(message):
        return ServiceError(
            f"the server at {options.url} does not share memory with clients: start it with --shared-memory local, or "
            f"leave shared_memory out here ({message})"
        )
    if _BUSY.search(message):
        return ServiceError(f"{where} has too much to do at the moment: {message}")
    if _NO_MODEL.search(message):
        return ServiceError(f"{where} is not loaded at the moment: {message}")
    if _status(error) in _REFUSED:
        return InputDataError(f"{where} refused the event: {message}")
    if _is_unreachable(error) or _is_of_something_else(error):
        port = {"grpc": "gRPC port (8001 by default)", "http": "HTTP port (8000 by default)"}[options.protocol]
        return ServiceError(f"{where} can't be reached: {message}; is the server running, and is this its {port}?")
    return ServiceError(f"{where} failed: {message}")
