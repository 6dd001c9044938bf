"""Device-side collections that stages hand to each other for a batch of events.

Each is a NamedTuple of device arrays with room for at least the size of its extent; only the first ``size`` rows have
a meaning. `event_module` = event * n_modules + module index: the key that keeps the events of a batch apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.workspace import Extent, Workspace
from traccc_py.edm.parameters import N_PARAMETERS

__all__ = [
    "CellBatch",
    "MeasurementBatch",
    "SeedBatch",
    "SeedParameters",
    "SpacepointBatch",
    "make_seed_parameters",
]


class CellBatch(NamedTuple):
    """Cells, ordered by (event_module, channel1, channel0), without duplicates. Extent: "cells"."""

    event_module: Any  # (n_cells,) int32
    channel0: Any  # (n_cells,) int32
    channel1: Any  # (n_cells,) int32
    activation: Any  # (n_cells,) scalar
    time: Any  # (n_cells,) scalar [ns]


class MeasurementBatch(NamedTuple):
    """Measurements, ordered by event_module, then by their first cell. Extent: "measurements"."""

    event_module: Any  # (n_measurements,) int32
    local_position: Any  # (n_measurements, 2) scalar [mm]
    local_variance: Any  # (n_measurements, 2) scalar [mm^2]
    dimensions: Any  # (n_measurements,) int32
    time: Any  # (n_measurements,) scalar [ns], of the first cell
    cluster_size: Any  # (n_measurements, 2) int32, channels spanned along each axis; negative: cut off by dead ones
    n_cells: Any  # (n_measurements,) int32
    offsets: Any  # (n_events * n_modules + 1,) int32, first measurement of each event_module
    cell_measurement: Any  # (n_cells,) int32, measurement of each cell


class SpacepointBatch(NamedTuple):
    """Spacepoints, in the order of their measurements. Extent: "spacepoints"."""

    global_position: Any  # (n_spacepoints, 3) scalar [mm]
    measurement_index: Any  # (n_spacepoints,) int32
    event: Any  # (n_spacepoints,) int32


class SeedBatch(NamedTuple):
    """Seeds, ordered by (event, ...) in a way that depends on the events' content only. Extent: "seeds"."""

    bottom_index: Any  # (n_seeds,) int32, spacepoint
    middle_index: Any  # (n_seeds,) int32
    top_index: Any  # (n_seeds,) int32
    quality: Any  # (n_seeds,) scalar
    event: Any  # (n_seeds,) int32


class SeedParameters(NamedTuple):
    """Bound track parameters of seeds at the surface of their first measurement. Extent: "seeds"."""

    module: Any  # (n_seeds,) int32, surface
    measurement: Any  # (n_seeds,) int32
    event: Any  # (n_seeds,) int32
    params: Any  # (n_seeds, 5) scalar: loc0, loc1 [mm], phi, theta [rad], q/p [e/GeV]
    variance: Any  # (n_seeds, 5) scalar, diagonal of the covariance


def make_seed_parameters(ws: Workspace, extent: Extent, dtype: Any, name: str) -> SeedParameters:
    """Return arrays for the parameters of a collection, with names that begin with `name`."""
    return SeedParameters(
        module=ws.array(f"{name}.module", extent, np.int32),
        measurement=ws.array(f"{name}.measurement", extent, np.int32),
        event=ws.array(f"{name}.event", extent, np.int32),
        params=ws.array(f"{name}.params", extent, dtype, N_PARAMETERS),
        variance=ws.array(f"{name}.variance", extent, dtype, N_PARAMETERS),
    )
