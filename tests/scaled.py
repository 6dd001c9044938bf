"""Detectors of another size: every length times a factor, but for the thickness of sensors and material."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from traccc_py.geometry import Detector
from traccc_py.geometry.detector import assemble_detector
from traccc_py.geometry.digitization import Axis, Digitization

__all__ = ["scaled"]


def _scaled_axis(axis: Axis, factor: float) -> Axis:
    """An axis as much longer, with channels of the same width, one more at most."""
    n = axis.n_channels if axis.n_channels == 1 else math.ceil(round(factor * axis.n_channels, 6))
    middle, half = factor * (axis.minimum + axis.maximum) / 2, n * axis.pitch / 2
    return Axis(n, middle - half, middle + half)


def scaled(detector: Detector, factor: float) -> Detector:
    """Return a detector of rectangles and trapezoids `factor` times as large, in its field at the origin."""
    surfaces, layers = detector.surfaces, detector.layer_of_surface.astype(np.int64)
    lengths = {name: factor * getattr(surfaces, name) for name in ("centre", "hx_min", "hx_max", "hy")}
    passive = [
        p._replace(position=factor * p.position, extent_min=factor * p.extent_min, extent_max=factor * p.extent_max)
        for p in detector.passive
    ]
    designs = tuple(
        replace(d, axes=tuple(_scaled_axis(axis, factor) for axis in d.axes)) for d in detector.digitization.designs
    )
    return assemble_detector(
        f"{detector.name}-scaled",
        replace(surfaces, **lengths),
        passive,
        Digitization(f"{detector.digitization.name}-scaled", designs),
        detector.b_field_z,
        acts_ids=detector.acts_ids,
        detray_ids=detector.detray_ids,
        layer_keys=np.column_stack([np.ones_like(layers), layers]),
    )
