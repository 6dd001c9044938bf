"""Variances of measurements at a track's direction, against a NumPy reference in float64."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.unit.detectors import make_design, make_detector
from traccc_py.config import ClusterizationConfig
from traccc_py.geometry.records import MAX_CLUSTER_SIZE, N_END_PATHS
from traccc_py.geometry.variance_table import path_sigmas, with_largest
from traccc_py.kernels.tracking.helix import direction_of
from traccc_py.kernels.tracking.measurement_variance import (
    channel_paths,
    loc0_bound,
    loc0_variance,
    measurement_variance,
    most_loc0_variance,
)

PITCH = (0.05, 0.4)
THICKNESS = 0.25
GIVEN = (0.123, 0.456)
SMEARING = 0.09


class Measurements(NamedTuple):
    local_variance: Any
    cluster_size: Any


class Payload(NamedTuple):
    detector: Any
    measurements: Any


def tilted_detector(rng, *, is_digital=False):
    """One module with random axes and a table of random sigmas for its only design."""
    u, v = np.linalg.qr(rng.normal(size=(3, 3)))[0][:2]
    design = make_design(400, 300, -10.0, -9.0, *PITCH)
    design["thickness"], design["charge_smearing"], design["is_digital"] = THICKNESS, SMEARING, is_digital
    table = rng.uniform(0.001, 0.1, (1, 2, MAX_CLUSTER_SIZE + 1, N_END_PATHS)).astype(np.float32)
    return make_detector(np.zeros((1, 3)), u, v, [design])._replace(path_sigmas=table), np.stack([u, v])


def payload(detector, size, dtype=np.float32):
    return Payload(detector, Measurements(np.array([GIVEN], dtype), np.array([size], np.int32)))


def looked_up(detector, size, phi, theta, dtype=np.float32):
    p = payload(detector, size, dtype)
    paths = channel_paths(p.detector, 0, direction_of(dtype(phi), dtype(theta)))
    return paths, measurement_variance(p, 0, paths, 0)


def reference(table, axes, size, phi, theta, is_digital):
    """Interpolate between the sigmas; outside of them add half a pitch for each channel; then the channels' noise."""
    direction = np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
    across = abs(direction @ np.cross(axes[0], axes[1]))
    found = []
    for axis in (0, 1):
        path = THICKNESS * abs(direction @ axes[axis]) / across / PITCH[axis]
        ends = path - (size[axis] - 2)
        nodes = np.arange(N_END_PATHS) / 4
        sigma = np.interp(ends, nodes, table[0, axis, min(size[axis], MAX_CLUSTER_SIZE)].astype(float))
        sigma += 0.5 * PITCH[axis] * (max(ends - nodes[-1], 0) + max(-ends, 0))
        further = 0 if is_digital else max(size[axis] - MAX_CLUSTER_SIZE, 0)
        found.append((path, sigma**2 + further * SMEARING**2 / 12))
    return np.transpose(found)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_variances_are_interpolated_between_end_paths(dtype):
    rng = np.random.default_rng(8)
    regions = set()
    for trial in range(400):
        is_digital = trial % 4 == 0
        detector, axes = tilted_detector(rng, is_digital=is_digital)
        phi, theta = rng.uniform(-3, 3), rng.uniform(0.1, 3)
        size = rng.integers(1, 24, 2).tolist()
        paths, variances = looked_up(detector, size, phi, theta, dtype)
        expected = reference(detector.path_sigmas, axes, size, phi, theta, is_digital)
        if expected[0].max() > 25:  # nearly along the sensor
            continue
        np.testing.assert_allclose(paths, expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variances, expected[1], rtol=1e-3)
        regions |= {int(np.clip(np.floor(e), -1, 4)) for e in expected[0] - np.array(size) + 2}
    assert regions == set(range(-1, 5))  # below, inside and above the table


def test_no_variance_is_above_the_bound():
    rng = np.random.default_rng(9)
    for trial in range(400):
        detector, _ = tilted_detector(rng, is_digital=trial % 4 == 0)
        detector = detector._replace(path_sigmas=with_largest(detector.path_sigmas))
        direction = direction_of(np.float32(rng.uniform(-3, 3)), np.float32(rng.uniform(0.1, 3)))
        p = payload(detector, rng.integers(-5, 24, 2).tolist())
        paths = channel_paths(p.detector, 0, direction)
        given, size = p.measurements.local_variance[0, 0], p.measurements.cluster_size[0, 0]
        assert loc0_variance(p, 0, paths, 0) <= most_loc0_variance(loc0_bound(p, 0, paths), given, size)


def test_variances_are_continuous_in_the_direction():
    detector, _ = tilted_detector(np.random.default_rng(3))
    theta = np.linspace(0.4, 2.7, 20_000)
    for size in ((1, 1), (2, 3), (9, 2)):
        sigma = np.sqrt([looked_up(detector, size, 0.3, angle, np.float64)[1] for angle in theta[::10]])
        jump = np.abs(np.diff(sigma, axis=0)).max(axis=0)
        paths = np.array([looked_up(detector, size, 0.3, angle, np.float64)[0] for angle in theta[::10]])
        slope = 4 * 0.1 + 0.5 * np.array(PITCH)  # the steepest that the table allows, per channel
        assert (jump <= slope * np.abs(np.diff(paths, axis=0)).max(axis=0) * 1.01).all()


def test_measurements_with_given_variances_keep_them():
    detector, _ = tilted_detector(np.random.default_rng(1))
    assert looked_up(detector, (0, 0), 0.3, 1.0)[1] == tuple(np.float32(GIVEN))
    assert looked_up(detector, (0, 2), 0.3, 1.0)[1][0] == np.float32(GIVEN[0])
    assert looked_up(detector, (0, 2), 0.3, 1.0)[1][1] != np.float32(GIVEN[1])


def test_sizes_that_are_not_in_the_table_keep_the_measurements_variance():
    detector, _ = tilted_detector(np.random.default_rng(1))
    detector.path_sigmas[0, 0, 3] = 0
    assert looked_up(detector, (3, 3), 0.3, 1.0)[1][0] == np.float32(GIVEN[0])
    assert looked_up(detector, (3, 3), 0.3, 1.0)[1][1] != np.float32(GIVEN[1])


def test_a_direction_that_is_no_number_reads_inside_the_table():
    detector, _ = tilted_detector(np.random.default_rng(1))
    assert np.isnan(looked_up(detector, (2, 2), np.nan, 1.0)[1]).all()


def test_table_of_a_configuration():
    pixel, short_strip, strip = (make_design(400, n1, -10, -9, 0.05, 0.06) for n1 in (300, 300, 1))
    short_strip["is_digital"] = strip["is_digital"] = 1
    detector = make_detector(np.zeros((1, 3)), (1.0, 0, 0), (0, 1.0, 0), [pixel, short_strip, strip])
    detector.path_sigmas[:, :, 1] = 0.002
    detector.path_sigmas[:, :, 4, :] = 0.006
    detector.designs["charge_smearing"] = 0.015
    table = path_sigmas(detector, ClusterizationConfig(pixel_sigma_floor=0.005))
    assert table.dtype == np.float32
    assert (table[:, :, 0, 0] == table[:, :, 1:].max((2, 3))).all()  # the largest
    assert not table[:, :, 0, 1:].any()
    assert (table[0, :, 1] == np.float32(0.005)).all()
    assert (table[1:, :, 1] == np.float32(0.002)).all()
    # sizes without entry: as the next smaller one, and each channel of charge adds its noise
    assert (table[1:, :, 1:4] == np.float32(0.002)).all()
    assert (table[1:, :, 4:] == np.float32(0.006)).all()
    assert (table[0, :, 2] == np.float32(0.005)).all()  # the floor: 0.0048 without it
    np.testing.assert_allclose(table[0, :, 3] ** 2, 0.002**2 + 2 * 0.015**2 / 12, rtol=1e-5)
    np.testing.assert_allclose(table[0, :, 5:, 3] ** 2, [0.006**2 + np.arange(1, 13) * 0.015**2 / 12] * 2, rtol=1e-5)
    assert not path_sigmas(detector, ClusterizationConfig(variance="traccc")).any()


def test_what_dead_channels_hide_of_a_path_widens_the_error():
    rng = np.random.default_rng(4)
    is_hidden = []
    for _ in range(100):
        detector, _ = tilted_detector(rng)
        phi, theta = rng.uniform(-3, 3), rng.uniform(0.4, 2.7)
        n = rng.integers(1, 6, 2)
        paths, variances = looked_up(detector, (-n).tolist(), phi, theta)
        hidden = np.maximum(np.array(paths) + 0.5 - n, 0)
        np.testing.assert_allclose(variances, np.array(GIVEN) + (hidden * np.array(PITCH) / 2) ** 2, rtol=1e-5)
        is_hidden += (hidden > 0).tolist()
        half_cut = looked_up(detector, (int(-n[0]), int(n[1])), phi, theta)[1]
        assert half_cut.loc0 == variances.loc0
        assert half_cut.loc1 == looked_up(detector, n.tolist(), phi, theta)[1].loc1
    assert 0.1 < np.mean(is_hidden) < 0.9
