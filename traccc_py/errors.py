"""Exceptions of traccc_py. Messages say what was found, what was expected and what to do."""

from __future__ import annotations

__all__ = [
    "CapacityError",
    "ConfigError",
    "DeviceUnavailableError",
    "GeometryError",
    "InputDataError",
    "ServiceError",
    "TracccError",
    "WireError",
]


class TracccError(Exception):
    """Base of all errors that traccc_py raises deliberately."""


class InputDataError(TracccError, ValueError):
    """Event data that can't be reconstructed: unknown ids, channels out of range, broken files."""


class GeometryError(TracccError, ValueError):
    """A detector description that can't be used."""


class ConfigError(TracccError, ValueError):
    """A configuration value that is unknown, of the wrong type or out of range.

    Parameters
    ----------
    problem : str
        What is wrong; follows the name of the setting in the message.
    field : str, optional
        The setting, such as "finding.chi2_max"; None if it is no single one.
    value : object, optional
        Its value.
    """

    def __init__(self, problem: str, *, field: str | None = None, value: object = None) -> None:
        super().__init__(problem if field is None else f"{field} {problem}")
        self.problem, self.field, self.value = problem, field, value


class DeviceUnavailableError(TracccError, RuntimeError):
    """The device asked for does not exist on this machine, or its packages are not installed."""


class CapacityError(TracccError, MemoryError):
    """A batch is larger than memory, 32-bit indices, 10,000 events or the limits that were set allow."""


class ServiceError(TracccError, RuntimeError):
    """The service can't be started, does not answer or failed; the request was not at fault."""


class WireError(TracccError, ValueError):
    """A request or response tensor that does not follow the wire format."""
