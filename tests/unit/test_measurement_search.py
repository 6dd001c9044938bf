"""The measurements of a surface in the order of their chi2, where there are more than are tested at a time."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from traccc_py.device.kernel import device_function
from traccc_py.geometry import build_detector
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.finding.measurement_search import best_measurement
from traccc_py.kernels.tracking.batch import MeasurementBatch
from traccc_py.kernels.tracking.detector import detector_payload
from traccc_py.kernels.tracking.kalman import diagonal
from traccc_py.kernels.tracking.propagation import on_surface
from traccc_py.kernels.tracking.state import BoundParameters, Direction

SURFACE, CHI2_MAX = np.int32(3), np.float32(20)
NONE = -1, -1.0


class _Cuts(NamedTuple):
    chi2_max: Any


class _Payload(NamedTuple):
    detector: Any
    measurements: MeasurementBatch
    cuts: _Cuts


@pytest.fixture(scope="module")
def detector():
    return build_detector("telescope").arrays()


def measurements_at(positions, sizes, n_modules):
    """Return measurements of one surface."""
    n = len(positions)
    offsets = np.zeros(n_modules + 1, np.int32)
    offsets[SURFACE + 1 :] = n
    ones = np.ones(n, np.int32)
    variance = np.full((n, 2), 1e-3, np.float32)
    event_module = np.full(n, SURFACE, np.int32)
    return MeasurementBatch(
        event_module, positions, variance, 2 * ones, np.zeros(n, np.float32), sizes, ones, offsets, ones
    )


@device_function
def search(p, x, variances, direction, after_chi2, after):
    """Return the best measurement after another one, for a track on the surface."""
    track = on_surface(p.detector.surfaces, SURFACE, x, diagonal(variances, ZERO))
    return best_measurement(p, np.int32(0), SURFACE, track, direction, after_chi2, after)


def searched(detector, positions, sizes, after):
    """Return (measurement, chi2) that comes after another one."""
    batch = measurements_at(positions, sizes, len(detector.surfaces))
    p = _Payload(detector_payload(detector, None, np.float32), batch, _Cuts(CHI2_MAX))
    x = BoundParameters(*np.array([0.1, -0.2, 0.3, 0.4, 0.5], np.float32))
    variances = BoundParameters(*np.array([0.2, 0.1, 1e-4, 1e-4, 1e-4], np.float32))
    direction = Direction(*np.array([0.6, 0.8, 0.28, 0.96], np.float32))
    return search(p, x, variances, direction, np.float32(after[1]), np.int32(after[0]))


@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_all_within_reach_come_in_the_order_of_their_chi2(detector, n):
    rng = np.random.default_rng(n)
    positions = rng.normal(0, 1.5, (n, 2)).astype(np.float32)
    positions[0], positions[n // 2] = (0.1, -0.2), (0.1, -0.2)  # two alike: the first one comes first
    sizes = rng.integers(-2, 9, (n, 2), np.int32)
    sizes[0] = sizes[n // 2] = 1
    alone = [searched(detector, positions[k : k + 1], sizes[k : k + 1], NONE) for k in range(n)]
    expected = sorted((chi2, k) for k, (m, chi2) in enumerate(alone) if m == 0)
    assert len(expected) == 1 or 1 < len(expected) < n
    found, after = [], NONE
    while (after := searched(detector, positions, sizes, after))[0] >= 0:
        found.append((after[1], after[0]))
    assert found == expected
