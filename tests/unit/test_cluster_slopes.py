"""Slopes that fit a cluster, against the plain definition tried slope by slope in float64."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import DESIGN, SURFACE
from traccc_py.kernels.seeding.cluster_slopes import ANY_SLOPE, find_cluster_slopes
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

PITCH, THICKNESS = 0.05, 0.125  # mm
N_CHANNELS, EDGE = 800, 20.0  # channels along loc1, from -20 mm to 20 mm
LARGE = ANY_SLOPE[1]
NO_BOUND = 1e5  # slopes above this are beyond any cut
SLOPES = np.concatenate([np.linspace(0, 40, 8001), np.geomspace(40.01, 1e5, 2000)])


def surface(v, w):
    """A sensor whose second axis is v and whose normal is w."""
    out = np.zeros(1, SURFACE)
    for name, vector in (("u", np.cross(v, w)), ("v", v), ("w", w)):
        for axis, value in zip("xyz", vector, strict=True):
            out[f"{name}{axis}"] = value
    return out


def turned(angle_in_rz, tilt=0.0):
    """(v, w) of a sensor at y = 0, turned from the barrel's (0) to a disc's (90 degrees), and about z."""
    c, s = np.cos(angle_in_rz), np.sin(angle_in_rz)
    v, w = np.array([-s, 0, c]), np.array([c, 0, s])
    t, u = np.cos(tilt), np.sin(tilt)
    turn = np.array([[t, -u, 0], [u, t, 0], [0, 0, 1]])
    return turn @ v, turn @ w


def slopes_of(sensor, sizes, positions, tolerance=1.0, thickness=THICKNESS, **options):
    """Slopes (n, 4) of spacepoints at (100, 0, 0) mm with clusters of `sizes` at local `positions` on one sensor."""
    n = len(sizes)
    sizes, positions = np.asarray(sizes, np.int32), np.asarray(positions, np.float32)
    design = np.zeros(1, DESIGN)
    design["pitch0"] = design["pitch1"] = PITCH
    design["thickness"] = thickness
    design["n_channels1"], design["min1"] = N_CHANNELS, -EDGE
    unused = np.zeros(n, np.int32)
    measurements = MeasurementBatch(
        unused, positions, unused, unused, unused, sizes, unused, np.array([0, n], np.int32), unused
    )
    points = np.tile(np.array([100, 0, 0], np.float32), (n, 1))
    ws = Workspace(CpuDevice(1))
    ws.set_size(ws.extent("spacepoints"), n)
    spacepoints = SpacepointBatch(points, np.arange(n, dtype=np.int32), unused)
    detector = SimpleNamespace(surfaces=sensor, designs=design)
    return find_cluster_slopes(ws, spacepoints, measurements, detector, 1, tolerance, **options)[:n]


def fits(v, w, size, slope, tolerance=1.0, slack=0.0):
    """Whether a path of a slope (dz / dr, an array) may leave a cluster of `size` channels."""
    direction = np.column_stack([np.ones_like(slope), 0 * slope, slope])
    through = np.abs(direction @ w)
    crossed = np.abs(direction @ v) * THICKNESS / PITCH
    most, least = (size + tolerance) / 0.9, max((size - 2 - tolerance) / 1.1, 0)
    return (crossed <= (most + slack) * through) & (crossed >= (least - slack) * through)


@pytest.mark.parametrize("tilt", [0.0, 0.25])
@pytest.mark.parametrize("angle", [0.0, 0.2, 0.9, -0.7, 1.3, np.pi / 2])
def test_the_range_holds_every_slope_that_fits_and_ends_where_none_does(angle, tilt):
    v, w = turned(angle, tilt)
    for size in (1, 2, 3, 4, 7, 20):
        found = slopes_of(surface(v, w), [[1, size]], [[0, 0]])[0].astype(float)
        for side, sign in ((0, 1), (2, -1)):
            low, high = found[side : side + 2]
            inside = SLOPES[fits(v, w, size, sign * SLOPES, slack=-1e-4)]
            assert (inside >= low * (1 - 1e-4) - 1e-5).all()
            assert (inside <= high * (1 + 1e-4)).all()
            loose = SLOPES[fits(v, w, size, sign * SLOPES, slack=1e-3)]
            if len(loose) == 0:
                assert low > high or high - low < 0.02
            elif high > low:
                assert low >= loose[0] - 0.01
                assert high <= loose[-1] * 1.05 + 0.01 or high == LARGE


def test_long_clusters_in_the_barrel_are_steep_and_in_discs_flat():
    barrel = slopes_of(surface(*turned(0.0)), [[1, 1], [1, 12]], [[0, 0], [5, 0]])
    assert barrel[0, 0] == 0
    assert barrel[0, 1] == pytest.approx(2 / 0.9 * PITCH / THICKNESS, rel=1e-5)
    assert barrel[1, 0] == pytest.approx(9 / 1.1 * PITCH / THICKNESS, rel=1e-5)
    np.testing.assert_array_equal(barrel[:, :2], barrel[:, 2:])
    disc = slopes_of(surface(*turned(np.pi / 2)), [[1, 1], [1, 12]], [[0, 0], [5, 0]])
    assert disc[0, 1] == pytest.approx(LARGE)
    assert disc[1, 1] == pytest.approx(1.1 / 9 * THICKNESS / PITCH, rel=1e-3)


def test_a_cluster_without_cells_fits_any_slope():
    np.testing.assert_array_equal(slopes_of(surface(*turned(0.0)), [[0, 0]], [[0, 0]])[0], np.float32(ANY_SLOPE))


def test_in_a_noisy_module_no_slope_fits():
    sensor, sizes, positions = surface(*turned(0.0)), [[1, 1], [1, 0], [1, 3]], [[0, 0], [0, 2], [0, 4]]
    plain = slopes_of(sensor, sizes, positions)
    assert (plain[:, [0, 2]] <= plain[:, [1, 3]]).all()
    np.testing.assert_array_equal(slopes_of(sensor, sizes, positions, most_in_module=3), plain)
    noisy = slopes_of(sensor, sizes, positions, most_in_module=2)
    assert (noisy[:, [0, 2]] > noisy[:, [1, 3]]).all()


def test_pieces_are_found_among_many_clusters_in_between():
    """Clusters are ordered by their first channel; others of the same rows stand between the pieces."""
    aside = [[2.0 + 0.2 * k, (3 + 0.01 * k) * PITCH] for k in range(40)]
    positions = [[0, 0], *aside, [0, (2.5 + 1 + 4) * PITCH]]
    found = slopes_of(surface(*turned(0.0)), [[1, 5], *[[1, 1]] * 40, [1, 8]], positions)
    assert found[[0, -1], 1] == pytest.approx(15 / 0.9 * PITCH / THICKNESS, rel=1e-4)


def test_pieces_of_a_split_cluster_count_together():
    """Pieces of 5 and 8 channels with one between them are 14 channels; farther apart they are two clusters."""
    sensor = surface(*turned(0.0))
    for gap, aside, joined in ((1, 0.0, 14), (1, 0.1, 14), (5, 0.0, None), (1, 0.2, None)):
        positions = [[0, 0], [aside, (2.5 + gap + 4) * PITCH]]
        found = slopes_of(sensor, [[1, 5], [1, 8]], positions)
        for row, alone in zip(found, (5, 8), strict=True):
            assert row[1] == pytest.approx(((joined or alone) + 1) / 0.9 * PITCH / THICKNESS, rel=1e-4)
        assert found[0, 0] == pytest.approx(2 / 1.1 * PITCH / THICKNESS, rel=1e-4)  # a piece is no longer than itself


def test_a_cluster_at_the_edge_may_have_lost_a_part_of_its_path():
    """Particles leave through the side of the sensor: such a cluster may be shorter than the path, but not longer."""
    for size, gap in ((1, 0), (6, 0), (12, 0), (6, 1), (6, 2), (6, 20)):
        for sign in (1, -1):
            place = sign * (EDGE - (0.5 * size + gap) * PITCH)
            row = slopes_of(surface(*turned(0.0)), [[1, size]], [[0, place]])[0]
            alone = slopes_of(surface(*turned(0.0)), [[1, size]], [[0, 0]])[0]
            if gap < 1:
                assert row[1] > NO_BOUND
                assert row[3] > NO_BOUND
            elif gap > 1:
                np.testing.assert_array_equal(row, alone)
            assert row[0] == alone[0]  # a long one is steep all the same


def test_a_piece_beside_one_that_ends_at_the_edge_may_have_lost_a_part_of_its_path():
    """Pieces of 8 and 6 channels with one between them; the latter ends at the edge."""
    positions = [[0, EDGE - 11 * PITCH], [0, EDGE - 3 * PITCH]]
    found = slopes_of(surface(*turned(0.0)), [[1, 8], [1, 6]], positions)
    assert found[0, 1] > NO_BOUND
    assert found[1, 1] > NO_BOUND


def test_any_slope_fits_a_sensor_without_thickness():
    found = slopes_of(surface(*turned(0.0)), [[1, 1], [1, 9]], [[0, 0], [5, 0]], thickness=0.0)
    np.testing.assert_array_equal(found, np.float32([ANY_SLOPE, ANY_SLOPE]))
