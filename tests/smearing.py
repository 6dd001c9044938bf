"""Measurements straight from hits, with Gaussian errors: input for tests of finding and fitting without clusters."""

from __future__ import annotations

from typing import Any

import numpy as np

from traccc_py.edm import Measurements
from traccc_py.errors import ConfigError, GeometryError
from traccc_py.geometry.records import Shape
from traccc_py.simulation.random_numbers import normal_pairs
from traccc_py.simulation.transport.transport import SimulatedHits

__all__ = ["smear_hits"]

_STREAM_SMEARING = 8


def smear_hits(
    detector: Any, simulated: SimulatedHits, key: np.uint64, sigma0: float | np.ndarray, sigma1: float | np.ndarray
) -> tuple[Measurements, np.ndarray]:
    """Make one measurement of each hit.

    Parameters
    ----------
    detector : Detector
        With `arrays()` and `geometry_ids`.
    simulated : SimulatedHits
        Hits of one event.
    key : uint64
        Key of the event's random numbers (`random_numbers.event_key`).
    sigma0, sigma1 : float or ndarray of shape (n_modules,)
        Gaussian widths along loc0 and loc1 [mm], > 0.

    Returns
    -------
    measurements : Measurements
        Ordered by module, then hit; measurement_id is the row. Where the design is one-dimensional, loc1 is the middle
        of the sensor and its variance that of a uniform distribution over it.
    hit_of_measurement : ndarray of shape (n,), int64
        Row of each measurement's hit.

    Raises
    ------
    ConfigError
        If a width is not positive.
    GeometryError
        If a hit lies on an annulus or ring.
    """
    arrays = detector.arrays()
    order = np.argsort(simulated.module_index, kind="stable")
    module = simulated.module_index[order]
    sigma = np.stack([np.broadcast_to(s, len(arrays.surfaces))[module] for s in (sigma0, sigma1)], axis=1).astype(float)
    if (arrays.surfaces["shape"][module] >= Shape.ANNULUS).any():
        msg = "hits on annuli or rings can't be smeared along loc0 and loc1; make cells of them (`digitize`)"
        raise GeometryError(msg)
    if not (sigma > 0).all():
        msg = f"sigma0, sigma1 are {sigma0}, {sigma1}; expected widths > 0 mm"
        raise ConfigError(msg)
    identities = simulated.hits.particle_id[order].astype(np.uint64)
    noise = normal_pairs(np.uint64(key), identities, simulated.hits.index[order].astype(np.int64), _STREAM_SMEARING)
    position = simulated.local_position[order] + sigma * noise
    variance = sigma**2
    dimensions = arrays.designs["dimensions"][arrays.surfaces["design"][module]]
    is_strip = dimensions == 1
    position[is_strip, 1] = 0.0
    variance[is_strip, 1] = (2.0 * arrays.surfaces["hy"][module][is_strip].astype(float)) ** 2 / 12.0
    n = len(order)
    measurements = Measurements(
        geometry_id=np.asarray(detector.geometry_ids)[module].astype(np.uint64),
        local_position=position.astype(np.float32),
        local_variance=variance.astype(np.float32),
        dimensions=dimensions.astype(np.int32),
        time=simulated.hits.time[order].astype(np.float32),
        module_index=module.astype(np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        measurement_id=np.arange(n, dtype=np.int64),
        cell_offsets=np.zeros(n + 1, np.int64),
    )
    return measurements, order
