"""Checks and canonical order of measurements and spacepoints."""

import dataclasses
import types

import numpy as np
import pytest

from traccc_py.data.source import Source
from traccc_py.edm import Measurements, Spacepoints
from traccc_py.errors import InputDataError
from traccc_py.geometry import build_detector
from traccc_py.pipeline.prepare_measurements import prepare_measurements, prepare_spacepoints

N = 40


@pytest.fixture(scope="module")
def detector():
    return build_detector("toy")


def make_measurements(detector, n=N, seed=1):
    rng = np.random.default_rng(seed)
    module = rng.integers(0, len(detector.geometry_ids), n)
    return Measurements(
        geometry_id=detector.geometry_ids[module],
        local_position=rng.uniform(-3, 3, (n, 2)).astype(np.float32),
        local_variance=rng.uniform(1e-4, 1e-2, (n, 2)).astype(np.float32),
        dimensions=rng.integers(1, 3, n).astype(np.int32),
        time=rng.normal(size=n).astype(np.float32),
        module_index=np.full(n, -1, np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        measurement_id=rng.permutation(n) + 7,
        cell_offsets=np.zeros(n + 1, np.int64),
    )


def take(m, rows):
    columns = {f.name: getattr(m, f.name) for f in dataclasses.fields(m) if not f.name.startswith("cell_")}
    return Measurements(**{name: column[rows] for name, column in columns.items()})


def assert_equal(first, second):
    for name in first._fields:
        if name == "spacepoints":
            assert (first.spacepoints is None) == (second.spacepoints is None)
            if first.spacepoints is not None:
                assert_equal(first.spacepoints, second.spacepoints)
        else:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def global_position(detector, m):
    s = detector.surfaces[detector.module_index(m.geometry_id)]
    return s.centre + m.local_position[:, :1] * s.u + m.local_position[:, 1:] * s.v


def make_spacepoints(detector, m):
    rows = np.random.default_rng(3).permutation(np.flatnonzero(m.dimensions == 2))
    return Spacepoints(global_position(detector, m)[rows].astype(np.float32), rows.astype(np.int32))


def test_measurements_are_ordered_and_not_changed(detector):
    m = make_measurements(detector)
    prepared = prepare_measurements(m, detector)
    module = detector.module_index(m.geometry_id)
    order = sorted(range(N), key=lambda k: (module[k], m.measurement_id[k]))
    assert prepared.module_index.tolist() == module[order].tolist()
    for name in ("local_position", "local_variance", "dimensions", "time", "measurement_id"):
        column = getattr(prepared, name)
        np.testing.assert_array_equal(column, getattr(m, name)[order])
        assert not np.shares_memory(column, getattr(m, name))
    dtypes = [column.dtype for column in prepared[:6]]
    assert dtypes == [np.int32, np.float32, np.float32, np.int32, np.float32, np.int64]
    assert prepared.spacepoints is None
    assert prepared.n_cells == 0


@pytest.mark.parametrize("ids", ["unique", "equal"])
def test_measurements_do_not_depend_on_the_order_of_rows(detector, ids):
    m = make_measurements(detector)
    if ids == "equal":
        m.measurement_id[:] = 0
        m.geometry_id[:] = m.geometry_id[0]
        m.local_position[:, 0] = np.arange(N) % 3  # the order goes on with the next column
    expected = prepare_measurements(m, detector)
    for seed in range(4):
        rows = np.random.default_rng(seed).permutation(N)
        assert_equal(prepare_measurements(take(m, rows), detector), expected)


def test_equal_rows_are_all_kept(detector):
    m = make_measurements(detector)
    prepared = prepare_measurements(take(m, np.repeat(np.arange(N), 2)), detector)
    assert len(prepared.module_index) == 2 * N
    np.testing.assert_array_equal(prepared.local_position[::2], prepared.local_position[1::2])


@pytest.mark.parametrize(
    ("variance", "dimensions", "problem"),
    [
        (
            1e4,
            2,
            "a.csv: 1 of 40 measurements have errors larger than their sensors, the first of them var_local1",
        ),
        (1e-12, 2, "a.csv: 1 of 40 measurements have errors below 0.0001 mm, the first of them var_local1 = 1e-12"),
        (1e4, 1, ""),
        (2500.0, 2, ""),  # 50 mm on a sensor of 72 mm
        (1e-6, 2, ""),
    ],
)
def test_errors_that_no_sensor_has_are_told_and_used(detector, variance, dimensions, problem, caplog):
    m = make_measurements(detector)
    m.geometry_id[:], m.dimensions[5], m.local_variance[5, 1] = detector.geometry_ids[0], dimensions, variance
    prepared = prepare_measurements(m, detector, Source("a.csv"))
    assert problem in caplog.text
    assert bool(caplog.records) == bool(problem)
    assert np.float32(variance) in prepared.local_variance


def test_no_measurements(detector):
    m = make_measurements(detector, 0)
    prepared = prepare_spacepoints(m, Spacepoints(np.zeros((0, 3), np.float32), np.zeros(0, np.int32)), detector)
    assert [len(column) for column in prepared[:6]] == [0] * 6
    assert [column.shape for column in prepared.spacepoints] == [(0, 3), (0,)]


def test_signed_ids_are_read_as_unsigned(detector):
    m = make_measurements(detector)
    signed = dataclasses.replace(m, geometry_id=m.geometry_id.view(np.int64))
    assert_equal(prepare_measurements(signed, detector), prepare_measurements(m, detector))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("geometry_id", 5, "geometry_id is 5, which is not a sensitive module of this detector"),
        ("dimensions", 0, "dimensions is 0; expected 1"),
        ("dimensions", 3, "dimensions is 3; expected 1"),
        ("time", np.nan, "time is nan; expected a finite number"),
        (("local_position", 0), np.nan, "local0 is nan; expected a finite number"),
        (("local_position", 1), np.inf, "local1 is inf; expected a finite number"),
        (("local_variance", 0), np.nan, r"var_local0 is nan; expected a number from 1e-18 to 1e\+18 \(mm\^2\)"),
        (("local_variance", 0), 0, r"var_local0 is 0\.0; expected a number from 1e-18 to 1e\+18"),
        (("local_variance", 1), 0, r"var_local1 is 0\.0; expected a number from 1e-18 to 1e\+18"),
        (("local_variance", 0), 1e-45, r"var_local0 is 1\.\d+e-45; expected a number from 1e-18"),
        (("local_variance", 0), 3e38, r"var_local0 is [\d.]+e\+38; expected a number from 1e-18"),
        (("local_variance", 1), 1e19, r"var_local1 is [\d.]+e\+1[89]; expected a number from 1e-18"),
        (("local_position", 0), 3e38, r"local0 is 3e\+38 mm on module"),
        ("time", np.inf, "time is inf; expected a finite number"),
        (("local_variance", 1), -1, r"var_local1 is -1\.0; expected a number from 1e-18 to 1e\+18"),
        (("local_position", 0), 18.5, r"local0 is 18\.5 mm on module \d+, which is 16\.8 mm long there"),
        (("local_position", 1), -46.5, r"local1 is -46\.5 mm on module \d+, which is 72 mm long there"),
    ],
)
@pytest.mark.parametrize("row", [0, 17, N - 1])
def test_bad_rows_are_named(detector, column, value, problem, row):
    m = make_measurements(detector)
    barrel = int(np.argmax(detector.surfaces.shape == 0))
    m.geometry_id[:], m.dimensions[:] = detector.geometry_ids[barrel], 2
    if isinstance(column, tuple):
        getattr(m, column[0])[row, column[1]] = value
    else:
        getattr(m, column)[row] = value
    with pytest.raises(InputDataError, match=rf"^measurements row {row} \(counted from 0\): {problem}"):
        prepare_measurements(m, detector)
    with pytest.raises(InputDataError, match=rf"^f\.csv, line {row + 2}: {problem}"):
        prepare_measurements(m, detector, "f.csv")
    with pytest.raises(InputDataError, match=rf"^f\.csv, line {row + 102}: {problem}"):
        prepare_measurements(m, detector, Source("f.csv", np.arange(N) + 102))


def test_positions_at_the_edge_and_what_is_not_measured_pass(detector):
    m = make_measurements(detector)
    barrel = int(np.argmax(detector.surfaces.shape == 0))
    m.geometry_id[:], m.dimensions[:] = detector.geometry_ids[barrel], 2
    m.local_position[0] = 18.0, -45.0  # less than 10 mm outside
    m.dimensions[1], m.local_position[1, 1], m.local_variance[1, 1] = 1, 1000.0, 0.0
    assert len(prepare_measurements(m, detector).time) == N


def test_modules_with_polar_coordinates_are_refused(detector):
    m = make_measurements(detector)
    surfaces = detector.arrays().surfaces.copy()
    surfaces["shape"][detector.module_index(m.geometry_id[5:6])] = 2
    arrays = detector.arrays()._replace(surfaces=surfaces)
    annuli = types.SimpleNamespace(
        arrays=lambda: arrays, module_index=detector.module_index, geometry_ids=detector.geometry_ids
    )
    with pytest.raises(InputDataError, match=r"^measurements row 5 .*has polar local coordinates"):
        prepare_measurements(m, annuli)


def test_columns_of_wrong_shape_or_type_are_named(detector):
    m = make_measurements(detector)
    for name, value, problem in (
        ("local_position", m.local_position[:, 0], r"measurements\.local_position has shape \(40,\); expected \(40, 2"),
        ("time", m.time[:3], r"measurements\.time has shape \(3,\); expected \(40,\)"),
        ("dimensions", m.dimensions * 1.0, r"measurements\.dimensions has type float64; expected integers"),
        ("local_variance", m.local_variance.astype(str), r"measurements\.local_variance has type .*expected numbers"),
    ):
        with pytest.raises(InputDataError, match=problem):
            prepare_measurements(dataclasses.replace(m, **{name: value}), detector)


def test_spacepoints_follow_their_measurements(detector):
    m = make_measurements(detector)
    spacepoints = make_spacepoints(detector, m)
    prepared = prepare_spacepoints(m, spacepoints, detector)
    found = prepared.spacepoints
    assert np.all(np.diff(found.measurement_index) > 0)
    position = {m.measurement_id[k]: p for k, p in zip(*reversed(dataclasses.astuple(spacepoints)), strict=True)}
    for index, p in zip(found.measurement_index, found.global_position, strict=True):
        np.testing.assert_array_equal(p, position[prepared.measurement_id[index]])
    rows, again = np.random.default_rng(5).permutation(N), np.random.default_rng(6).permutation(len(found[1]))
    new_row = np.argsort(rows)
    other = Spacepoints(spacepoints.global_position[again], new_row[spacepoints.measurement_index[again]])
    assert_equal(prepare_spacepoints(take(m, rows), other, detector), prepared)


def test_bad_spacepoints_are_named(detector):
    m = make_measurements(detector)
    good = make_spacepoints(detector, m)
    strip = int(np.argmax(m.dimensions == 1))

    def refused(problem, *, link=None, position=None):
        points = Spacepoints(good.global_position.copy(), good.measurement_index.copy())
        if link is not None:
            points.measurement_index[3] = link
        if position is not None:
            points.global_position = points.global_position.astype(float)
            points.global_position[3] += position
        with pytest.raises(InputDataError, match=rf"^s\.csv, line 5: {problem}"):
            prepare_spacepoints(m, points, detector, "s.csv")

    refused("its measurement is 40; expected 0 to 39", link=N)
    refused("its measurement is -1; expected 0 to 39", link=-1)
    refused("its measurement has one coordinate", link=strip)
    refused(r"position is \(.*nan.*\); expected finite", position=(0, np.nan, 0))
    refused(r"position .* is inf mm from that of its measurement; expected at most 10 mm", position=(1e300, 0, 0))
    refused(r"position .* is 3e\+38 mm from that of its measurement", position=(0, 3e38, 0))
    refused(r"position .* is 11 mm from that of its measurement; expected at most 10 mm", position=(0, 0, 11))
    with pytest.raises(InputDataError, match=r"spacepoints\.global_position has shape"):
        prepare_spacepoints(m, Spacepoints(good.global_position[:2], good.measurement_index), detector)
