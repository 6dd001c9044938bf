"""Clusters and measurements: peers' cases, random maps against SciPy, batches, threads."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from tests.reference.clusterization import find_clusters, measure
from tests.unit.detectors import make_design, make_detector, pad_module
from traccc_py.config import ClusterizationConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import MAX_CLUSTER_SIZE
from traccc_py.kernels.clusterization.clusterization import form_measurements
from traccc_py.kernels.tracking.batch import CellBatch

POSITION_TOLERANCE = 2e-6  # mm, float32 near 10
LINEAR_SECONDS = 3.0  # 0.4 are needed; a quadratic search would take more than 10
TRACCC = ClusterizationConfig(variance="traccc", pixel_sigma_floor=0.0)
CALIBRATED = ClusterizationConfig(variance="calibrated", pixel_sigma_floor=0.005)


def run(rows, detector, config=TRACCC, n_events=1, device=None):
    """Measurements, as a dictionary of host arrays, of rows (event_module, channel0, channel1, activation[, time])."""
    rows = np.asarray(rows, float).reshape(len(rows), -1) if len(rows) else np.zeros((0, 5))
    rows = rows[np.lexsort((rows[:, 1], rows[:, 2], rows[:, 0]))]
    times = rows[:, 4] if rows.shape[1] > 4 else np.zeros(len(rows))
    ws = Workspace(device or CpuDevice(1))
    ws.set_size(ws.extent("cells"), len(rows))
    ws.set_size(ws.extent("event_modules"), n_events * len(detector.surfaces))
    integers = (rows[:, k].astype(np.int32) for k in range(3))
    cells = CellBatch(*integers, rows[:, 3].astype(np.float32), times.astype(np.float32))
    out = form_measurements(ws, cells, detector, config)
    while ws.overflowed():
        ws.set_size(ws.extent("cells"), len(rows))
        out = form_measurements(ws, cells, detector, config)
    n = ws.size(ws.extent("measurements"))
    found = {name: column[:n].copy() for name, column in out._asdict().items()}
    found["offsets"] = out.offsets[: n_events * len(detector.surfaces) + 1].copy()
    found["cell_measurement"] = out.cell_measurement[: len(rows)].copy()
    return found


def test_peer_case_single_module():
    cells = [(1, 0, 1), (8, 4, 2), (10, 4, 3), (9, 5, 4), (10, 5, 5), (12, 12, 6), (3, 13, 7), (11, 13, 8), (4, 14, 9)]
    out = run([(0, *cell) for cell in cells], pad_module(1))
    np.testing.assert_allclose(
        out["local_position"],
        [(1, 0), (9.428571, 4.642857), (11.428571, 12.571429), (3.5625, 13.5625)],
        atol=POSITION_TOLERANCE,
    )
    variances = [(0.0833333, 0.0833333), (0.613946, 0.312925), (0.328231, 0.328231), (0.329427, 0.329427)]
    np.testing.assert_allclose(out["local_variance"], variances, atol=2e-6)
    assert out["cell_measurement"].tolist() == [0, 1, 1, 1, 1, 2, 3, 2, 3]
    assert out["n_cells"].tolist() == [1, 4, 2, 2]
    assert out["cluster_size"].tolist() == [[1, 1], [3, 2], [2, 2], [2, 2]]


@pytest.mark.parametrize("order", [range(8), (6, 2, 4, 5, 1, 0, 7, 3)])
def test_peer_case_device(order):
    cells = np.array([(1, 2), (2, 2), (3, 2), (6, 4), (5, 5), (6, 5), (7, 5), (6, 6)])[list(order)]
    out = run([(0, *cell, 1) for cell in cells], pad_module(1, low_edge=0.0, n_channels=8))
    np.testing.assert_allclose(out["local_position"], [(2.5, 2.5), (6.5, 5.5)], atol=POSITION_TOLERANCE)
    np.testing.assert_allclose(out["local_variance"], [(0.75, 1 / 12), (0.483333, 0.483333)], atol=1e-6)


@pytest.mark.parametrize("activation", [1e29, 1e-38, 1e-45])
def test_extreme_activations_weigh_like_others(activation):
    n = 100  # channels along each side: one cluster
    cells = [(0, i, k, activation) for i in range(n) for k in range(n)]
    ones = [(*cell[:3], 1.0) for cell in cells]
    detector = pad_module(1, n_channels=n)
    found, expected = run(cells, detector), run(ones, detector)
    assert found["n_cells"].tolist() == [n * n]
    for name in ("local_position", "local_variance"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)


def test_smallest_activations_are_weights():
    out = run([(0, 0, 0, 1e-45), (0, 1, 0, 4e-45)], pad_module(1))  # 1 and 3 of the smallest float32 numbers
    np.testing.assert_allclose(out["local_position"], [(0.75, 0)], atol=POSITION_TOLERANCE)


def test_peer_case_merged_duplicates():
    merged = 0.00868905429 + 0.00886478275
    cells = [(1, 0, 0.0041470062), (0, 1, 0.00306466641), (1, 1, merged), (2, 1, 0.0016894876)]
    cells += [(1, 2, 0.00580428448), (2, 2, 0.00199076766)]
    far = [(5, 5, 0.00632160669), (5, 6, 0.00911649223), (5, 7, 0.00518329488)]
    out = run([(0, *cell) for cell in cells + far], pad_module(1))
    assert out["n_cells"].tolist() == [6, 3]


@pytest.mark.parametrize("density", [0.02, 0.2, 0.4, 0.8])
def test_random_maps_have_the_components_scipy_finds(density):
    rng = np.random.default_rng(int(100 * density))
    rows, expected = [], 0
    for module in range(12):
        fired = rng.random((rng.integers(1, 60), rng.integers(1, 60))) < density
        labels, n = ndimage.label(fired, structure=np.ones((3, 3)))
        expected += n
        rows += [
            (module, c0, c1, rng.uniform(0.1, 1), labels[c1, c0]) for c1, c0 in zip(*np.nonzero(fired), strict=True)
        ]
    out = run(rows, pad_module(12))
    assert len(out["n_cells"]) == expected
    ordered = np.array(sorted(rows, key=lambda row: (row[0], row[2], row[1])))
    pairs = np.unique(np.column_stack([ordered[:, 0], ordered[:, 4], out["cell_measurement"]]), axis=0)
    assert len(pairs) == expected  # one measurement for each of SciPy's components, and the reverse
    assert out["n_cells"].sum() == len(rows)


def test_positions_and_variances_follow_the_weighted_formulas():
    rng = np.random.default_rng(3)
    design = make_design(400, 300, -10.0, -9.0, 0.05, 0.06)
    detector = make_detector(np.zeros((1, 3)), (1.0, 0, 0), (0, 1.0, 0), [design], translations=[(0.013, -0.02)])
    fired = np.argwhere(rng.random((40, 40)) < 0.25)
    rows = [(0, 300 + c0, 200 + c1, rng.uniform(0.1, 1)) for c1, c0 in fired]
    out = run(rows, detector)
    cells = np.array(rows)
    clusters = find_clusters(cells[:, 1], cells[:, 2])
    assert len(clusters) == len(out["n_cells"])
    for k, members in enumerate(clusters):
        for axis, (low, pitch, shift) in enumerate(((-10, 0.05, 0.013), (-9, 0.06, -0.02))):
            mean, spread, size = measure(cells[members, 1 + axis], cells[members, 3], low, pitch)
            assert out["local_position"][k, axis] == pytest.approx(mean + shift, abs=POSITION_TOLERANCE)
            assert out["local_variance"][k, axis] == pytest.approx(spread + pitch**2 / 12, rel=1e-4)
            assert out["cluster_size"][k, axis] == size


def test_digital_clusters_stand_in_the_middle_of_their_channels():
    pixel, strip = (make_design(400, 300, -10.0, -9.0, 0.05, 0.5) for _ in range(2))
    strip["is_digital"] = 1
    detector = make_detector(np.zeros((2, 3)), (1.0, 0, 0), (0, 1.0, 0), [pixel, strip], [0, 1])
    corner = [(10, 20), (11, 20), (11, 21)]
    out = run([(module, *cell, 1) for module in (0, 1) for cell in corner], detector)
    mean, middle = (-10 + 0.05 * (11 + 1 / 6), -9 + 0.5 * (21 - 1 / 6)), (-10 + 0.05 * 11, -9 + 0.5 * 21)
    np.testing.assert_allclose(out["local_position"], [mean, middle], atol=POSITION_TOLERANCE)


def test_calibrated_variances_come_from_the_table_with_a_floor():
    table = np.zeros((2, 2, MAX_CLUSTER_SIZE + 1))
    table[0, 0, 1], table[0, 0, 2], table[0, 0, MAX_CLUSTER_SIZE] = 1e-4, 1e-6, 4e-4
    table[1, 0, 1] = 1e-6
    pixel, strip = make_design(400, 400, -10, -10, 0.05, 0.05), make_design(400, 1, -10, -20, 0.05, 40.0)
    detector = make_detector(np.zeros((2, 3)), (1.0, 0, 0), (0, 1.0, 0), [pixel, strip], [0, 1], table)
    rows = [(0, 10, 10, 1), (0, 20, 20, 1), (0, 21, 20, 1), (1, 5, 0, 1)]
    rows += [(0, 100 + k, 40, 1) for k in range(MAX_CLUSTER_SIZE + 3)]
    out = run(rows, detector, CALIBRATED)
    formula = 0.05**2 / 12
    expected = [(1e-4, formula), (2.5e-5, formula), (4e-4, formula), (1e-6, 40**2 / 12)]
    np.testing.assert_allclose(out["local_variance"], expected, rtol=1e-5)
    assert out["dimensions"].tolist() == [2, 2, 2, 1]
    assert out["local_position"][3, 1] == pytest.approx(0, abs=1e-6)


def test_time_is_that_of_the_first_cell_and_zero_activations_take_the_middle():
    out = run([(0, 3, 3, 0, 7.0), (0, 4, 3, 0, 5.0)], pad_module(1))
    assert out["time"].tolist() == [7.0]
    np.testing.assert_allclose(out["local_position"], [(3.5, 3)], atol=POSITION_TOLERANCE)
    np.testing.assert_allclose(out["local_variance"], [(1 / 12, 1 / 12)], rtol=1e-6)


@pytest.mark.parametrize("device", [CpuDevice(1), DeferredDevice(1)], ids=["cpu", "deferred"])
def test_empty_input_and_one_cell(device):
    out = run([], pad_module(3), device=device)
    assert len(out["n_cells"]) == 0
    assert out["offsets"].tolist() == [0, 0, 0, 0]
    out = run([(1, 4, 2, 0.5)], pad_module(3), device=device)
    assert out["offsets"].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(out["local_position"], [(4, 2)])


def _random_events(n_events, n_modules):
    rng = np.random.default_rng(9)
    rows = []
    for event_module in rng.choice(n_events * n_modules, n_events * n_modules // 2, replace=False):
        fired = np.argwhere(rng.random((30, 30)) < rng.uniform(0, 0.5))
        rows += [(event_module, c0, c1, rng.uniform(0.1, 1)) for c1, c0 in fired]
    return np.array(rows)


def test_an_event_in_a_batch_is_the_event_alone():
    n_modules, n_events = 7, 4
    detector, rows = pad_module(n_modules), _random_events(4, 7)
    batch = run(rows, detector, n_events=n_events)
    for event in range(n_events):
        mine = rows[rows[:, 0] // n_modules == event] - (event * n_modules, 0, 0, 0)
        alone = run(mine, detector)
        first, last = batch["offsets"][event * n_modules], batch["offsets"][(event + 1) * n_modules]
        assert len(alone["n_cells"]) == last - first
        for name in ("local_position", "local_variance", "cluster_size", "n_cells"):
            np.testing.assert_array_equal(batch[name][first:last], alone[name])


@pytest.mark.parametrize("device", [CpuDevice(2), DeferredDevice(2)], ids=["two threads", "overflow"])
def test_same_bits_with_two_threads_and_after_overflow(device):
    detector, rows = pad_module(40), _random_events(2, 40)
    one = run(rows, detector, n_events=2)
    other = run(rows[np.random.default_rng(1).permutation(len(rows))], detector, n_events=2, device=device)
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name], err_msg=name)


def test_time_grows_linearly_with_the_cells_of_a_module():
    """A module with one full row and one full column is where a naive moving start becomes quadratic."""
    n = 100_000
    run([(0, 1, 1, 1.0)], pad_module(1))  # compiled now
    rows = [(0, k, 0, 1.0) for k in range(0, 2 * n, 2)] + [(0, k, 1, 1.0) for k in range(1, 2 * n, 2)]
    start = time.perf_counter()
    out = run(rows, pad_module(1, n_channels=2 * n))
    assert time.perf_counter() - start < LINEAR_SECONDS
    assert out["n_cells"].tolist() == [2 * n]
