"""Does a field map reach as far as a detector."""

from __future__ import annotations

import logging

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.field.map import FieldMap

__all__ = ["check_coverage"]

_log = logging.getLogger(__name__)

_MAX_MARGIN = 50.0  #: a surface may reach this far beyond the last node, or half a distance between nodes if less [mm]
_LENGTHS = {"cm": 10.0, "m": 1000.0}  #: units that maps come in, by name [mm]
_PARTIAL = "allow_partial=True (bfield_partial) takes the map as it is, outside of it the field of its edge"


def check_coverage(field: FieldMap, centres: np.ndarray, points: np.ndarray, *, allow_partial: bool) -> None:
    """Raise, or warn, if a map does not reach the surfaces of a detector and the origin, or has no field there.

    Parameters
    ----------
    field : FieldMap
        The map.
    centres : ndarray of shape (n_surfaces, 3)
        Centres of the surfaces [mm].
    points : ndarray of shape (n_surfaces, n_points, 3)
        Points on each surface, its corners among them [mm].
    allow_partial : bool
        Log a warning instead of raising.

    Raises
    ------
    GeometryError
        If it does not cover the detector; the message names axes and numbers and says what can be done.
    """
    for fault, advice in (_outside(field, points), _without_field(field, centres)):
        if fault and not allow_partial:
            msg = f"{fault}; expected a map of the whole detector. {advice}{_PARTIAL}"
            raise GeometryError(msg)
        if fault:
            _log.warning("%s", fault)


def _outside(field: FieldMap, points: np.ndarray) -> tuple[str, str]:
    """Return which surfaces lie outside of a map, and what can be done."""
    x, y, z = np.moveaxis(points, -1, 0)
    places = {"x": x, "y": y, "z": z, "r": np.hypot(x, y)}
    faults, mirrored, is_out = [], "", np.zeros(len(points), bool)
    for axis, nodes, spacing in zip(field.axes, field.nodes, field.spacing, strict=True):
        margin = min(spacing / 2, _MAX_MARGIN)
        first, last = (-np.inf if axis == "r" else nodes[0] - margin), nodes[-1] + margin
        low, high = float(places[axis].min(initial=0)), float(places[axis].max(initial=0))  # with the origin
        if first <= low and high <= last:
            continue
        is_out |= ((places[axis] < first) | (places[axis] > last)).any(axis=1)
        ranges = f"from {nodes[0]:g} to {nodes[-1]:g} mm, the detector from {low:.0f} to {high:.0f} mm"
        faults.append(f"{axis}: the field map reaches {ranges}")
        if axis != "r" and field.is_mirrorable(axis):
            mirrored += axis
    if not faults:
        return "", ""
    advice = ""
    if mirrored:
        advice = f"FieldMap.mirrored({mirrored!r}) (bfield_symmetry={mirrored!r}) makes the rest of a symmetric field. "
    unit = _likely_length(field, {axis: float(np.abs(found).max()) for axis, found in places.items()})
    if unit:
        advice += f"It would cover the detector if its lengths are in {unit}: convert them to mm. "
    return f"{'; '.join(faults)}: {int(is_out.sum())} of {len(points)} surfaces are outside", advice


def _likely_length(field: FieldMap, reach: dict[str, float]) -> str | None:
    """Return the unit of length in which a map is as large as the detector, which it is not in mm."""
    largest = {axis: float(np.abs(nodes).max()) for axis, nodes in zip(field.axes, field.nodes, strict=True)}
    if any(length >= reach[axis] for axis, length in largest.items()):
        return None
    return next(
        (unit for unit, mm in _LENGTHS.items() if all(v * mm >= reach[axis] for axis, v in largest.items())), None
    )


def _without_field(field: FieldMap, centres: np.ndarray) -> tuple[str, str]:
    """Return at which surfaces a map that has a field elsewhere has none, as if it were filled up with zeros."""
    has_none = ~field.at(centres).any(axis=-1)
    if not has_none.any() or not field.values.any():
        return "", ""
    z = centres[has_none, 2]
    where = f"at {int(has_none.sum())} of {len(centres)} surfaces, z from {z.min():.0f} to {z.max():.0f} mm"
    return f"the field map is zero {where}", "Zeros may stand where it was not measured. "
