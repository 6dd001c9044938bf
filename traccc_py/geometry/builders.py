"""Detectors by name or geometry file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from traccc_py.errors import GeometryError
from traccc_py.geometry.detector import Detector, assemble_detector
from traccc_py.geometry.detectors import odd
from traccc_py.geometry.detectors.telescope import build_telescope
from traccc_py.geometry.detectors.toy import build_toy
from traccc_py.geometry.detray.read import read_detray
from traccc_py.geometry.trackml import read_trackml_detector

__all__ = ["build_detector", "detector_names"]


def _build_odd(*, digitization: str | Path = "odd-2024", b_field_z: float | None = None) -> Detector:
    field = odd.DEFAULT_FIELD if b_field_z is None else b_field_z
    passive = odd.odd_passive_surfaces()
    return assemble_detector("odd", odd.odd_surfaces(), passive, digitization, field, volume_names=odd.VOLUME_NAMES)


def _build_colliderml(*, digitization: str | Path = "odd-current", b_field_z: float | None = None) -> Detector:
    return _build_odd(digitization=digitization, b_field_z=odd.COLLIDERML_FIELD if b_field_z is None else b_field_z)


_BUILDERS: dict[str, Callable[..., Detector]] = {
    "odd": _build_odd,
    "colliderml": _build_colliderml,
    "toy": build_toy,
    "telescope": build_telescope,
}


def detector_names() -> list[str]:
    """Return the names of built-in detectors."""
    return sorted(_BUILDERS)


def build_detector(name: str | Path, **options: Any) -> Detector:
    """Build a detector.

    Parameters
    ----------
    name : str or Path
        "odd", "colliderml" (the ODD with readout and field of that data set), "toy", "telescope", a detray geometry
        file (``.json`` or ``.json.gz``), or a ``detectors.csv`` of TrackML (``.csv`` or ``.csv.gz``).
    **options
        For all: `digitization` (name or path of an Acts JSON file), `b_field_z` [T]. "toy" and
        "telescope": see `build_toy` and `build_telescope` in `traccc_py.geometry.detectors`; geometry files: see
        `read_detray` and `read_trackml_detector`.

    Returns
    -------
    Detector
        The detector.

    Raises
    ------
    GeometryError
        If the name is unknown, or an option has an impossible value.

    Examples
    --------
    >>> from traccc_py.geometry import build_detector
    >>> len(build_detector("odd").geometry_ids)
    18824
    """
    builder = _BUILDERS.get(str(name))
    if builder is None and str(name).endswith((".json", ".json.gz")):
        builder = partial(read_detray, name)
    if builder is None and str(name).endswith((".csv", ".csv.gz")):
        builder = partial(read_trackml_detector, name)
    if builder is None:
        names = ", ".join(detector_names())
        msg = f"detector {str(name)!r} is unknown; known are {names}, and files of detray (.json) and TrackML (.csv)"
        raise GeometryError(msg)
    unknown = sorted(set(options) - set(inspect.signature(builder).parameters))
    if unknown:
        known = sorted(inspect.signature(builder).parameters)
        msg = f"detector {str(name)!r} has no option {', '.join(unknown)}; it has {', '.join(known)}"
        raise GeometryError(msg)
    return builder(**options)
