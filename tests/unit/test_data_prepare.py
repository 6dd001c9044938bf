"""Checks and canonical order of cells."""

import dataclasses
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traccc_py.device.cpu.host_loop import HostLoop
from traccc_py.edm import Cells, ModuleCells
from traccc_py.errors import InputDataError
from traccc_py.geometry.records import DESIGN, SURFACE
from traccc_py.pipeline.cell_loop import MAX_ACTIVATION, check_and_convert, order_cells
from traccc_py.pipeline.prepare_cells import _columns, prepare_cells
from traccc_py.wire.cells import pack_cells, unpack_cells
from traccc_py.wire.compact import pack_compact_cells, unpack_compact_cells

CHANNELS = [(336, 1344), (1344, 1), (20, 30)]


class StubDetector:
    """As much of a detector as the checks look at: `n` modules with the designs of `CHANNELS` in turn."""

    def __init__(self, n, channels=CHANNELS):
        self.geometry_ids = (np.arange(n, dtype=np.uint64) + 1) * np.uint64(2**40) + np.uint64(2**63)
        surfaces = np.zeros(n, SURFACE)
        surfaces["design"] = np.arange(n) % len(channels)
        designs = np.zeros(len(channels), DESIGN)
        designs["n_channels0"], designs["n_channels1"] = np.transpose(channels)
        self._arrays = type("Arrays", (), {"surfaces": surfaces, "designs": designs})
        self.dead_ranges = None

    def arrays(self):
        return self._arrays

    def module_index(self, geometry_ids):
        index = np.minimum(np.searchsorted(self.geometry_ids, geometry_ids), len(self.geometry_ids) - 1)
        if (self.geometry_ids[index] != geometry_ids).any():
            raise InputDataError("unknown")
        return index.astype(np.int32)


def make_cells(detector, n, seed=1):
    rng = np.random.default_rng(seed)
    module = rng.integers(0, len(detector.geometry_ids), n)
    design = detector.arrays().surfaces["design"][module]
    return Cells(
        geometry_id=detector.geometry_ids[module],
        channel0=rng.integers(0, detector.arrays().designs["n_channels0"][design]),
        channel1=rng.integers(0, detector.arrays().designs["n_channels1"][design]),
        activation=rng.random(n).astype(np.float32),
        time=rng.normal(size=n).astype(np.float32),
        measurement_id=np.zeros(n, np.int64),
    )


def take(cells, rows):
    return Cells(*(getattr(cells, f.name)[rows] for f in dataclasses.fields(Cells)))


def assert_equal(first, second, *, but=()):
    for name in first._fields:
        if name not in but:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@pytest.fixture
def detector():
    return StubDetector(10)


def test_prepare_cells_orders_and_casts(detector):
    cells = make_cells(detector, 300)
    prepared = prepare_cells(cells, detector)
    key = np.stack([prepared.module_index, prepared.channel1, prepared.channel0], axis=1).tolist()
    assert key == sorted(key)
    assert [column.dtype for column in prepared] == [np.int32] * 3 + [np.float32] * 2 + [np.int64]
    rows = prepared.input_row
    np.testing.assert_array_equal(detector.geometry_ids[prepared.module_index], cells.geometry_id[rows])
    np.testing.assert_array_equal(prepared.channel0, cells.channel0[rows])
    np.testing.assert_array_equal(prepared.channel1, cells.channel1[rows])


def test_prepare_cells_does_not_depend_on_the_order_of_rows(detector, caplog):
    cells = make_cells(detector, 4000)  # many repeated channels in the small design
    expected = prepare_cells(cells, detector)
    assert expected.n_cells < 4000
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(4000)
        assert_equal(prepare_cells(take(cells, rows), detector), expected, but=["input_row"])


def test_columns_of_rows_are_read_without_copies(detector):
    """Standard tensors are rows; no loop may take other values from them, with or without the right to write."""
    cells = make_cells(detector, 500)
    tensors = pack_cells(cells)
    expected = prepare_cells(cells, detector)
    assert_equal(prepare_cells(unpack_cells(tensors), detector), expected)
    for tensor in tensors.values():
        tensor.flags.writeable = False
    of_rows = unpack_cells(tensors)
    assert_equal(prepare_cells(of_rows, detector), expected)
    received = of_rows.channel0, of_rows.channel1, of_rows.activation, of_rows.time
    assert all(map(np.shares_memory, received, _columns(of_rows)))


def test_bad_values_in_columns_of_rows_are_named(detector):
    cells = make_cells(detector, 50)
    cells.channel0[33] = -1
    with pytest.raises(InputDataError, match=r"row 33 .*channel0 is -1"):
        prepare_cells(unpack_cells(pack_cells(cells)), detector)


def test_prepare_cells_of_ordered_cells_is_the_identity(detector):
    cells = make_cells(detector, 300)
    once = prepare_cells(cells, detector)
    unique = take(cells, once.input_row)
    twice = prepare_cells(unique, detector)
    assert twice.input_row is None  # the rows as they came
    assert_equal(twice, once, but=["time", "activation", "input_row"])
    np.testing.assert_array_equal(twice.activation, unique.activation)
    np.testing.assert_array_equal(twice.time, unique.time)
    assert not any(np.shares_memory(a, getattr(unique, b)) for a in twice[:-1] for b in Cells.__slots__)


def test_prepare_cells_merges_repeated_channels(detector, caplog):
    module = detector.geometry_ids[[2, 0, 2, 2, 2]]
    cells = Cells(
        geometry_id=module,
        channel0=np.array([5, 1, 5, 6, 5]),
        channel1=np.array([7, 0, 7, 7, 7]),
        activation=np.array([1.0, 2.0, 2.0**-25, 3.0, 2.0**-25], np.float32),
        time=np.array([3.0, 0.0, 2.0, 0.0, 4.0], np.float32),
        measurement_id=np.zeros(5, np.int64),
    )
    with caplog.at_level(logging.WARNING):
        prepared = prepare_cells(cells, detector)
    assert prepared.module_index.tolist() == [0, 2, 2]
    assert prepared.channel0.tolist() == [1, 5, 6]
    assert prepared.activation.tolist() == [2.0, np.float32(1 + 2.0**-24), 3.0]
    assert prepared.time.tolist() == [0.0, 2.0, 0.0]
    assert prepared.input_row.tolist() == [1, 0, 3]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "2 of 5 cells repeat a channel of their module; merged: activations summed, earliest time kept"
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 2.0**93, width=32), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_prepare_cells_sums_activations_independently_of_order(activations, random):
    detector = StubDetector(1)

    def merged(values):
        n = len(values)
        zero = np.zeros(n, np.int64)
        ids = np.full(n, detector.geometry_ids[0])
        cells = Cells(ids, zero, zero, np.array(values, np.float32), np.zeros(n, np.float32), zero)
        return prepare_cells(cells, detector).activation[0]

    shuffled = list(activations)
    random.shuffle(shuffled)
    assert merged(activations) == merged(shuffled)
    assert merged(activations) == pytest.approx(sum(activations), rel=1e-6, abs=1e-44)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_prepare_cells_takes_extreme_activations_and_times(detector, dtype):
    cells = make_cells(detector, 4)
    cells = take(cells, np.lexsort((cells.channel0, cells.channel1, cells.geometry_id)))
    values = [0, 2**62, 1, 7] if dtype is np.int64 else [1e29, 1e-45, 0.0, 1e-38]
    extreme = dataclasses.replace(
        cells, activation=np.array(values, dtype), time=np.array([3e38, -3e38, 1e-45, 0], np.float32)
    )
    prepared = prepare_cells(extreme, detector)
    np.testing.assert_array_equal(prepared.activation, np.array(values, np.float32))
    np.testing.assert_array_equal(prepared.time, extreme.time)


def test_prepare_cells_refuses_wide_activations_that_are_too_large(detector):
    cells = make_cells(detector, 4)
    for value in (1e30, 1e39, 1e300):  # the last two are no float32 numbers
        wide = dataclasses.replace(cells, activation=np.array([1, 2, value, 3.0]))
        with pytest.raises(InputDataError, match=r"^cells row 2 .* is 1e\+3\d+; expected a number from 0 to 1e\+29$"):
            prepare_cells(wide, detector)


def test_prepare_cells_refuses_merged_activations_that_are_too_large(detector):
    cells = make_cells(detector, 12)
    for column in (cells.geometry_id, cells.channel0, cells.channel1):
        column[[3, 7, 11]] = column[3]
    cells.activation[[3, 7, 11]] = 4e28
    problem = r"the activations of 3 cells of this channel sum up to 1\.2e\+29; expected at most 1e\+29$"
    with pytest.raises(InputDataError, match=rf"^cells row 3 \(counted from 0\): {problem}"):
        prepare_cells(cells, detector)
    with pytest.raises(InputDataError, match=rf"^f\.csv, line 5: {problem}"):
        prepare_cells(cells, detector, source="f.csv")
    cells.activation[11] = 1e28
    assert prepare_cells(cells, detector).activation.max() == pytest.approx(9e28)


def test_sum_of_the_largest_activations_of_a_batch_is_a_float32_number():
    assert 2.0**31 * float(MAX_ACTIVATION) < np.finfo(np.float32).max


def test_prepare_cells_of_no_cells(detector):
    prepared = prepare_cells(make_cells(detector, 0), detector)
    assert [len(column) for column in prepared[:-1]] == [0] * 5
    assert [column.dtype for column in prepared[:-1]] == [np.int32] * 3 + [np.float32] * 2


def test_prepare_cells_orders_enormous_sensors():
    detector = StubDetector(4, [(2**31 - 1, 2**31 - 1)])
    cells = make_cells(detector, 50)
    prepared = prepare_cells(cells, detector)
    key = np.stack([prepared.module_index, prepared.channel1, prepared.channel0], axis=1).tolist()
    assert key == sorted(key)
    assert prepared.n_cells == 50


def test_prepare_cells_reads_signed_ids_as_unsigned(detector):
    cells = make_cells(detector, 20)
    signed = dataclasses.replace(cells, geometry_id=cells.geometry_id.view(np.int64))
    assert (signed.geometry_id < 0).all()
    assert_equal(prepare_cells(signed, detector), prepare_cells(cells, detector))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        (
            "geometry_id",
            5,
            "geometry_id is 5, which is not a sensitive module of this detector; expected one of its 10 ids",
        ),
        ("channel0", 336, "channel0 is 336, outside module .*; expected 0 to 335"),
        ("channel0", -1, "channel0 is -1, outside module .*; expected 0 to 335"),
        ("channel1", 1344, "channel1 is 1344, outside module .*; expected 0 to 1343"),
        ("channel1", -1, "channel1 is -1, outside module"),
        ("activation", np.nan, r"value \(activation\) is nan; expected a number from 0 to 1e\+29"),
        ("activation", -0.5, r"value \(activation\) is -0\.5; expected a number from 0 to 1e\+29"),
        ("activation", np.inf, r"value \(activation\) is inf; expected a number from 0 to 1e\+29"),
        ("activation", np.float32(1.1e29), r"value \(activation\) is 1\.\d+e\+29; expected a number from 0 to 1e\+29"),
        ("activation", np.float32(3e38), r"value \(activation\) is .*e\+38; expected a number from 0 to 1e\+29"),
        ("time", np.nan, "timestamp is nan; expected a finite number"),
        ("time", -np.inf, "timestamp is -inf; expected a finite number"),
    ],
)
@pytest.mark.parametrize("row", [0, 3, 19])
def test_prepare_cells_names_the_bad_row(detector, column, value, problem, row):
    cells = make_cells(detector, 20)
    cells.geometry_id[:] = detector.geometry_ids[0]
    cells.channel0[:], cells.channel1[:] = np.arange(20), np.arange(20)
    getattr(cells, column)[row] = value
    with pytest.raises(InputDataError, match=rf"^cells row {row} \(counted from 0\): {problem}"):
        prepare_cells(cells, detector)
    with pytest.raises(InputDataError, match=rf"^f\.csv, line {row + 2}: {problem}"):
        prepare_cells(cells, detector, source="f.csv")


def test_prepare_cells_checks_channels_against_each_modules_design(detector):
    cells = make_cells(detector, 1)
    for module, (n0, n1) in enumerate(CHANNELS):
        cells.geometry_id[0] = detector.geometry_ids[module]
        cells.channel0[0], cells.channel1[0] = n0 - 1, n1 - 1
        assert prepare_cells(cells, detector).n_cells == 1
        cells.channel1[0] = n1
        with pytest.raises(InputDataError, match=f"expected 0 to {n1 - 1}"):
            prepare_cells(cells, detector)


def test_prepare_cells_names_columns_of_wrong_shape_or_type(detector):
    cells = make_cells(detector, 4)
    with pytest.raises(InputDataError, match=r"cells\.time has shape \(3,\); expected \(4,\)"):
        prepare_cells(dataclasses.replace(cells, time=cells.time[:3]), detector)
    with pytest.raises(InputDataError, match=r"cells\.channel0 has type float64; expected integers"):
        prepare_cells(dataclasses.replace(cells, channel0=cells.channel0.astype(float)), detector)
    with pytest.raises(InputDataError, match=r"cells\.geometry_id has type float64; expected integers"):
        prepare_cells(dataclasses.replace(cells, geometry_id=cells.geometry_id.astype(float)), detector)


def test_prepare_cells_refuses_annuli_without_polar_readout(detector):
    detector.arrays().surfaces["shape"][7] = 2
    cells = make_cells(detector, 4)
    cells.geometry_id[:] = detector.geometry_ids[[1, 2, 7, 7]]
    cells.channel0[:] = cells.channel1[:] = 0
    with pytest.raises(InputDataError, match=r"^f\.csv, line 4: module \d+ is an annulus or ring, whose"):
        prepare_cells(cells, detector, source="f.csv")


def test_prepare_cells_accepts_all_integer_types(detector):
    cells = make_cells(detector, 200)
    expected = prepare_cells(cells, detector)
    for dtype in (np.int16, np.uint16, np.int32, np.uint32, np.uint64):
        other = dataclasses.replace(cells, channel0=cells.channel0.astype(dtype), channel1=cells.channel1.astype(dtype))
        assert_equal(prepare_cells(other, detector), expected)


def by_module(cells):
    """Return the same rows as `ModuleCells`, with an empty module before each run."""
    starts = np.flatnonzero(np.concatenate(([True], cells.geometry_id[1:] != cells.geometry_id[:-1])))
    lengths = np.diff(starts, append=len(cells))
    ids = np.repeat(cells.geometry_id[starts], 2)
    n_cells = np.stack([np.zeros_like(lengths), lengths], axis=1).ravel().astype(np.uint16)
    return ModuleCells(ids, n_cells, cells.channel0, cells.channel1, cells.activation, cells.time)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_prepare_cells_takes_cells_by_module(detector, is_ordered):
    cells = make_cells(detector, 300)
    if is_ordered:
        cells = take(cells, np.lexsort((cells.channel0, cells.channel1, cells.geometry_id)))
    assert_equal(prepare_cells(by_module(cells), detector), prepare_cells(cells, detector))


@pytest.mark.parametrize(("column", "value", "name"), [("activation", 3e38, "value"), ("time", np.inf, "timestamp")])
def test_compact_tensor_with_a_value_out_of_range_is_refused_like_cells(detector, column, value, name):
    cells = make_cells(detector, 20)
    getattr(cells, column)[13] = value
    unpacked = unpack_compact_cells(pack_compact_cells(cells))
    for one in (cells, unpacked):
        with pytest.raises(InputDataError, match=rf"^cells row 13 \(counted from 0\): {name}.* is .*; expected a"):
            prepare_cells(one, detector)


def test_prepare_cells_names_bad_rows_and_columns_of_cells_by_module(detector):
    cells = by_module(make_cells(detector, 40))
    cells.channel1[17] = 5000
    module = np.repeat(cells.geometry_id, cells.n_cells)[17]
    with pytest.raises(InputDataError, match=rf"^f\.csv, line 19: channel1 is 5000, outside module {module}; expected"):
        prepare_cells(cells, detector, source="f.csv")
    for bad, problem in (
        ({"n_cells": cells.n_cells[:-1]}, r"cells\.n_cells has shape \(\d+,\); .* as cells\.geometry_id"),
        (
            {"n_cells": cells.n_cells + 1},
            r"cells\.n_cells has numbers from 0 to \d with the sum \d+; expected the sum 40",
        ),
        ({"n_cells": cells.n_cells.astype(int) - 1}, r"has numbers from -1 to"),
        (
            {"n_cells": np.array([2**62] * 4 + [40] + [0] * (len(cells.n_cells) - 5))},
            r"to 4611686018427387904 with the sum 40",
        ),
        ({"time": cells.time[:-1]}, r"cells\.time has shape \(39,\); expected \(40,\), as cells\.channel0"),
    ):
        with pytest.raises(InputDataError, match=problem):
            prepare_cells(dataclasses.replace(cells, **bad), detector)


@pytest.mark.parametrize("n", [0, 1, 300])
def test_prepare_cells_writes_into_given_memory(detector, n):
    cells = make_cells(detector, n)
    expected = prepare_cells(cells, detector)
    out = [np.zeros(400, column.dtype) for column in expected[:-1]]
    prepared = prepare_cells(cells, detector, out=out)
    assert_equal(prepared, expected)
    assert n == 0 or all(np.shares_memory(a, b) for a, b in zip(prepared[:-1], out, strict=True))


def test_loops_over_cells_are_compiled_once(detector):
    """Arrays that can't be written or have gaps must not make a request of the service wait for the compiler."""
    cells = make_cells(detector, 100)
    prepare_cells(cells, detector)
    n_compiled = [len(loop._compiled.overloads) for loop in (check_and_convert, order_cells)]
    gaps = np.zeros((100, 3), np.int64)
    gaps[:, 1], gaps[:, 2] = cells.channel0, cells.channel1
    other = dataclasses.replace(cells, channel0=gaps[:, 1], channel1=gaps[:, 2], time=cells.time.copy())
    other.time.flags.writeable = False
    assert_equal(prepare_cells(other, detector), prepare_cells(cells, detector))
    assert [len(loop._compiled.overloads) for loop in (check_and_convert, order_cells)] == n_compiled
    with pytest.raises(TypeError):
        order_cells(*[np.zeros(3)] * 6)


def test_first_calls_from_several_threads_at_once(detector):
    loop = HostLoop(order_cells._python_function, [(*[np.empty(0, np.int32)] * 3, *[np.empty(0, np.int64)] * 3)])
    barrier = threading.Barrier(4)

    def first_call(_):
        columns = [np.zeros(5, np.int32)] * 3
        order = np.zeros(5, np.int64)
        barrier.wait()
        loop(*columns, np.zeros(1, np.int64), np.zeros(5, np.int64), order)
        return sorted(order.tolist())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(first_call, range(4))) == [[0, 1, 2, 3, 4]] * 4


@pytest.mark.parametrize("n", [1, 2, 30, 5000])
def test_cells_of_one_module_are_ordered(n):
    channels = np.random.default_rng(n).integers(0, 40, (2, n)).astype(np.int32)
    order, keys, ends = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(3, np.int64)
    order_cells(np.ones(n, np.int32), *channels, ends, keys, order)
    assert ends.tolist() == [0, n, n]
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(channels[:, order], channels[:, np.lexsort(channels)])


def test_prepare_cells_is_fast():
    """125,000 unordered cells, by module, take 11 ms on one core; the limit leaves room for a busy machine."""
    detector = StubDetector(18_824)
    cells = make_cells(detector, 125_000)
    cells = take(cells, np.argsort(cells.geometry_id, kind="stable"))
    times = []
    for _ in range(5):
        start = time.process_time()
        prepare_cells(cells, detector)
        times.append(time.process_time() - start)
    assert min(times) < 0.06
