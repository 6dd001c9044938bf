"""Spacepoints: the peers' telescope case, compaction of two-dimensional measurements, batches."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.detectors import make_design, make_detector
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.seeding.spacepoint_formation import form_spacepoints
from traccc_py.kernels.tracking.batch import MeasurementBatch

TOLERANCE = 1e-5  # mm, float32 near 180


def telescope():
    """Nine planes along x; local axes are global y and z."""
    centres = [(20.0 * (k + 1), 0, 0) for k in range(9)]
    design = make_design(20000, 20000, -1e4, -1e4, 1.0, 1.0)
    return make_detector(centres, (0, 1.0, 0), (0, 0, 1.0), [design])


def run(rows, detector, device=None):
    """Spacepoints of rows (event_module, loc0, loc1, dimensions)."""
    rows = np.asarray(rows, float).reshape(-1, 4)
    n = len(rows)
    ws = Workspace(device or CpuDevice(1))
    unused = np.zeros(n, np.int32)
    measurements = MeasurementBatch(
        event_module=rows[:, 0].astype(np.int32),
        local_position=rows[:, 1:3].astype(np.float32),
        local_variance=np.ones((n, 2), np.float32),
        dimensions=rows[:, 3].astype(np.int32),
        time=np.zeros(n, np.float32),
        cluster_size=np.ones((n, 2), np.int32),
        n_cells=unused,
        offsets=unused,
        cell_measurement=unused,
    )
    ws.set_size(ws.extent("measurements"), n)
    out = form_spacepoints(ws, measurements, detector, len(detector.surfaces))
    while ws.overflowed():
        out = form_spacepoints(ws, measurements, detector, len(detector.surfaces))
    size = ws.size(ws.extent("spacepoints"))
    return out.__class__(*(column[:size].copy() for column in out))


def test_peer_case_telescope():
    out = run([(0, 7, 2, 2), (8, 10, 15, 2)], telescope())
    np.testing.assert_allclose(out.global_position, [(20, 7, 2), (180, 10, 15)], atol=TOLERANCE)
    assert out.measurement_index.tolist() == [0, 1]


def test_one_dimensional_measurements_are_left_out_and_order_is_kept():
    rows = [(0, 1, 1, 2), (1, 2, 2, 1), (3, 3, 3, 2), (9, 4, 4, 1), (9 + 2, 5, 5, 2), (2 * 9, 6, 6, 2)]
    out = run(rows, telescope())
    assert out.measurement_index.tolist() == [0, 2, 4, 5]
    assert out.event.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(out.global_position[:, 0], [20, 80, 60, 20], atol=TOLERANCE)


@pytest.mark.parametrize("device", [CpuDevice(1), DeferredDevice(1)], ids=["cpu", "deferred"])
def test_empty_input_and_one_element(device):
    assert len(run([], telescope(), device).event) == 0
    assert len(run([(4, 0, 0, 1)], telescope(), device).event) == 0
    assert run([(4, 0, 0, 2)], telescope(), device).global_position.tolist() == [[100, 0, 0]]


def test_rotated_surface_agrees_with_float64():
    rng = np.random.default_rng(2)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    centre = rng.uniform(-500, 500, 3)
    design = make_design(100, 100, -10, -10, 0.2, 0.2)
    detector = make_detector([centre], rotation[:, 0], rotation[:, 1], [design])
    local = rng.uniform(-30, 30, (200, 2))
    out = run(np.column_stack([np.zeros(200), local, np.full(200, 2)]), detector)
    np.testing.assert_allclose(out.global_position, centre + local @ rotation[:, :2].T, atol=1e-4)


@pytest.mark.parametrize("device", [CpuDevice(2), DeferredDevice(2)], ids=["two threads", "overflow"])
def test_same_bits_with_two_threads_and_after_overflow(device):
    rng = np.random.default_rng(4)
    n = 30_000
    rows = np.column_stack([np.sort(rng.integers(0, 18, n)), rng.normal(0, 10, (n, 2)), rng.integers(1, 3, n)])
    for a, b in zip(run(rows, telescope()), run(rows, telescope(), device), strict=True):
        np.testing.assert_array_equal(a, b)
