"""Cells from noise of the readout above its threshold, uniform over all channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.edm import Cells

__all__ = ["NoiseOccupancy", "noise_cells"]

NoiseOccupancy = tuple[float, float]  #: chance of a channel to fire in an event: of 2D designs, of 1D designs

_STREAM = 0x6E6F697365  # of the event's random numbers
_ONE_DIMENSION = 1


def noise_cells(detector_arrays: Any, geometry_ids: np.ndarray, key: np.uint64, occupancy: NoiseOccupancy) -> Cells:
    """Return the noise cells of an event, ordered by (module, channel1, channel0).

    Parameters
    ----------
    detector_arrays : DetectorArrays
        Surfaces and readout designs.
    geometry_ids : ndarray of shape (n_modules,), uint64
        Ids of the modules.
    key : uint64
        Key of the event's random numbers.
    occupancy : tuple of float
        Chance of a channel of 2D and of 1D designs to fire.

    Returns
    -------
    Cells
        Activations are the threshold and an exponential excess with the threshold as its mean [mm], 1 in digital
        designs; times are 0; `measurement_id` is -1. A channel whose centre is outside of its sensor does not fire.
    """
    surfaces, designs = detector_arrays.surfaces, detector_arrays.designs
    design = surfaces["design"].astype(np.int64)
    n0, n1 = (designs[f"n_channels{axis}"][design].astype(np.int64) for axis in (0, 1))
    chance = np.where(designs["dimensions"][design] == _ONE_DIMENSION, occupancy[1], occupancy[0])
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((int(key), _STREAM))))
    module = np.repeat(np.arange(len(design)), random.poisson(chance * n0 * n1))
    channel = random.integers(0, (n0 * n1)[module])
    module, channel = np.unique(np.stack([module, channel], axis=1), axis=0).T
    channel0, channel1 = channel % n0[module], channel // n0[module]
    is_inside = _is_inside(detector_arrays, module, channel0, channel1)
    module, channel0, channel1 = module[is_inside], channel0[is_inside], channel1[is_inside]
    threshold = designs["threshold"][design[module]].astype(np.float64)
    activation = threshold * (1.0 + random.standard_exponential(len(module)))
    return Cells(
        geometry_id=np.asarray(geometry_ids)[module].astype(np.uint64),
        channel0=channel0,
        channel1=channel1,
        activation=np.where(designs["is_digital"][design[module]] == 1, 1.0, activation).astype(np.float32),
        time=np.zeros(len(module), np.float32),
        measurement_id=np.full(len(module), -1, np.int64),
    )


def _is_inside(detector_arrays: Any, module: np.ndarray, channel0: np.ndarray, channel1: np.ndarray) -> np.ndarray:
    """Return which channels have their centre within the outline of their sensor."""
    surfaces = detector_arrays.surfaces[module]
    designs = detector_arrays.designs[surfaces["design"]]
    x, y = (
        designs[f"min{axis}"] + (channel + 0.5) * designs[f"pitch{axis}"] + detector_arrays.translations[module, axis]
        for axis, channel in enumerate((channel0, channel1))
    )
    share = 0.5 * (1.0 + y / surfaces["hy"])
    half = surfaces["hx_min"] + share * (surfaces["hx_max"] - surfaces["hx_min"])
    return (np.abs(x) <= half) & (np.abs(y) <= surfaces["hy"])
