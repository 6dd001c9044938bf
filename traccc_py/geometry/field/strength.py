"""How strong a field may be, and in which unit a number that can't be right is likely to be."""

from __future__ import annotations

import logging

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.units import T

__all__ = ["MAX_FIELD", "check_strength", "likely_units", "warn_of_strength"]

_log = logging.getLogger(__name__)

MAX_FIELD = 20.0  #: fields from here are mistakes [T]; the 2 T of a solenoid are 20 kG
_ROUNDING = 1e-5  # of 4-byte numbers that were converted
_PLAUSIBLE = (0.2, 6.0)  #: fields of trackers, built or proposed [T]
_UNITS = {"kilogauss": 0.1, "millitesla": 1e-3, "gauss": 1e-4, "GeV / (e mm)": 1 / T}  #: by name [T]
_UNCONVERTED = {
    f"{name} instead of GeV / (e mm)": unit * T
    for name, unit in (("tesla", 1.0), ("kilogauss", 0.1), ("millitesla", 1e-3), ("gauss", 1e-4))
}  #: of a covfie file, whose numbers were taken as GeV / (e mm)


def likely_units(strength: float, *, is_covfie: bool = False) -> str:
    """Return in which units the numbers of a field would make that of a tracker; empty if in none.

    Parameters
    ----------
    strength : float
        The field as it was understood [T].
    is_covfie : bool, optional
        It comes from a covfie file, whose numbers were taken as GeV / (e mm).
    """
    units = _UNCONVERTED | _UNITS if is_covfie else _UNITS
    found = [(name, strength * unit) for name, unit in units.items()]
    low, high = _PLAUSIBLE
    return ", ".join(f"{value:.3g} T if in {name}" for name, value in found if low <= value <= high)


def check_strength(strength: float, what: str, *, is_covfie: bool = False) -> None:
    """Raise for a field that no magnet around a detector has.

    Parameters
    ----------
    strength : float
        Largest field [T].
    what : str
        What it is, for the error.
    is_covfie : bool, optional
        See `likely_units`.

    Raises
    ------
    GeometryError
        If it is not finite, or 20 T or more; the message names the units that would make it possible.
    """
    if not np.isfinite(strength):
        msg = f"{what} is {strength}; expected a finite field in T"
        raise GeometryError(msg)
    if abs(strength) >= MAX_FIELD * (1 - _ROUNDING):
        hint = likely_units(abs(strength), is_covfie=is_covfie)
        likely = f": its numbers would make {hint}; convert them" if hint else ""
        msg = f"{what} is {strength:,.5g} T; expected less than {MAX_FIELD:g} T{likely}"
        raise GeometryError(msg)


def warn_of_strength(strength: float) -> None:
    """Log a warning for a field [T] that is possible, but stronger than that of any tracker."""
    if abs(strength) > _PLAUSIBLE[1]:
        hint = likely_units(abs(strength))
        likely = f": its numbers would make {hint}" if hint else ""
        _log.warning("a field of %.4g T is stronger than that of any tracker%s", strength, likely)
