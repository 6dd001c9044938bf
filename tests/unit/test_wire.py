"""The tensors of the service: packing against plain loops, round trips, and what is refused."""

import dataclasses
import struct

import numpy as np
import pytest

from tests.columns import zeros
from traccc_py import wire
from traccc_py.edm import (
    STAGES,
    Cells,
    EventResult,
    FitOutcome,
    Measurements,
    ModuleCells,
    Seeds,
    Spacepoints,
    Tracks,
    TrackStates,
    columns_of,
)
from traccc_py.errors import WireError

# Tracks: (outcome, ndf, number of states).
TRACKS = [
    (FitOutcome.SUCCESS, 5, 4),
    (FitOutcome.SMOOTHER, 5, 3),
    (FitOutcome.SUCCESS, -1, 3),
    (FitOutcome.SUCCESS, 1, 2),
    (FitOutcome.SUCCESS, 0, 3),
]
KEPT = [0, 4]


def make_result(tracks=TRACKS, seed=1):
    """Return a result of random numbers; module ids use the highest bit, as real ones do not, but may."""
    random = np.random.default_rng(seed)
    n_states = [n for _, _, n in tracks]
    total = sum(n_states)
    n_measurements = total + 5

    def real(*shape):
        return random.normal(size=shape).astype(np.float32)

    def integer(n, end):
        return random.integers(0, end, n)

    measurements = Measurements(
        geometry_id=integer(n_measurements, 2**60).astype(np.uint64),
        local_position=real(n_measurements, 2),
        local_variance=real(n_measurements, 2),
        dimensions=np.full(n_measurements, 2, np.int32),
        time=real(n_measurements),
        module_index=np.zeros(n_measurements, np.int32),
        cluster_size=np.ones((n_measurements, 2), np.int32),
        n_cells=np.ones(n_measurements, np.int32),
        measurement_id=np.arange(n_measurements),
    )
    link = random.permutation(n_measurements)[:total].astype(np.int32)
    n = len(tracks)
    return EventResult(
        measurements=measurements,
        spacepoints=Spacepoints(real(0, 3), np.zeros(0, np.int32)),
        seeds=Seeds(*(np.zeros(0, np.int32) for _ in range(3)), real(0)),
        tracks=zeros(
            Tracks,
            n,
            fit_outcome=np.array([outcome for outcome, _, _ in tracks], np.int32),
            geometry_id=integer(n, 2**60).astype(np.uint64),
            params=real(n, 5),
            covariance=real(n, 15),
            time=real(n),
            chi2=real(n),
            ndf=np.array([ndf for _, ndf, _ in tracks], np.float32),
            pval=real(n),
            n_measurements=np.array(n_states, np.int32),
            n_holes=np.arange(n, dtype=np.int32),
            perigee=real(n, 5),
            perigee_covariance=real(n, 15),
            state_offsets=np.concatenate(([0], np.cumsum(n_states))).astype(np.int64),
        ),
        track_states=zeros(
            TrackStates,
            total,
            track_index=np.repeat(np.arange(n, dtype=np.int32), n_states),
            global_position=real(total, 3),
            measurement_index=link,
            geometry_id=measurements.geometry_id[link] | np.uint64(1 << 63),
            params=real(total, 5),
            covariance=real(total, 15),
            chi2=real(total),
        ),
        n_cells=7,
        n_candidates=9,
        stage_milliseconds={name: float(k) for k, name in enumerate(STAGES)},
    )


def make_cells(n=50, seed=2, with_times=True):
    random = np.random.default_rng(seed)
    return Cells(
        geometry_id=np.sort(random.integers(1, 6, n)).astype(np.uint64) | np.uint64(1 << 63),
        channel0=random.integers(0, 65536, n),
        channel1=random.integers(0, 65536, n),
        activation=random.random(n, np.float32),
        time=random.random(n, np.float32) if with_times else np.zeros(n, np.float32),
        measurement_id=random.integers(-1, 1000, n),
    )


def assert_same_cells(found, expected, but=()):
    if isinstance(found, ModuleCells):
        ids = np.repeat(found.geometry_id, found.n_cells)
        no_link = np.full(len(found), -1)
        found = Cells(ids, found.channel0, found.channel1, found.activation, found.time, no_link)
    for name in Cells.__slots__:
        if name not in but:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


def test_shapes_and_types():
    tensors = wire.pack_result(make_result())
    assert list(tensors) == [spec.name for spec in wire.OUTPUTS]
    for spec in wire.OUTPUTS:
        assert spec.check(tensors[spec.name]) is tensors[spec.name]
        assert tensors[spec.name].flags.c_contiguous


def test_only_wanted_tensors_are_packed():
    assert set(wire.pack_result(make_result(), {"TRK_PARAMS", "STAGE_TIMES"})) == {"TRK_PARAMS", "STAGE_TIMES"}


def test_tracks_that_are_kept():
    result = make_result()
    np.testing.assert_array_equal(np.flatnonzero(wire.kept_tracks(result)), KEPT)
    tensors = wire.pack_result(result)
    np.testing.assert_array_equal(tensors["TRK_PARAMS"][:, 0], result.tracks.chi2[KEPT])
    np.testing.assert_array_equal(tensors["TRK_PERIGEE"], result.tracks.perigee[KEPT])
    np.testing.assert_array_equal(tensors["TRK_SUMMARY"], [[4, 0], [3, 4]])


def test_states_against_plain_loops():
    result = make_result()
    tensors = wire.pack_result(result)
    row, ids = 0, list(tensors["GEOMETRY_IDS"].view(np.uint64))
    for k, track in enumerate(KEPT):
        if k:
            assert ids.pop(0) == 0
        for state in range(*result.tracks.state_offsets[track : track + 2]):
            link = result.track_states.measurement_index[state]
            assert ids.pop(0) == result.track_states.geometry_id[state]
            expected = [
                *result.measurements.local_position[link],
                *result.track_states.params[state, 2:],
                result.tracks.time[track],
            ]
            assert tensors["MEASUREMENTS"][row].tolist() == expected
            matrix = tensors["COVARIANCES"][row].reshape(5, 5)
            packed = iter(result.track_states.covariance[state])
            for i in range(5):
                for j in range(i + 1):
                    assert matrix[i, j] == matrix[j, i] == next(packed)
            row += 1
    assert ids == []
    assert row == len(tensors["MEASUREMENTS"])


def test_impossible_covariances_become_zero():
    result = make_result()
    values = [np.nan, np.inf, -np.inf, 1.1e8, -1.1e8, 1e8, -3.0]
    result.track_states.covariance[0, : len(values)] = values
    result.tracks.covariance[0, : len(values)] = values
    tensors = wire.pack_result(result)
    np.testing.assert_array_equal(tensors["TRK_COVARIANCES"][0, : len(values)], [0, 0, 0, 0, 0, 1e8, -3])
    assert tensors["COVARIANCES"][0, 0] == 0
    assert np.isfinite(tensors["COVARIANCES"]).all()


@pytest.mark.parametrize("tracks", [[], [(FitOutcome.FITTER, 5, 4)]], ids=["no tracks", "none kept"])
def test_no_tracks_give_empty_tensors(tracks):
    tensors = wire.pack_result(make_result(tracks))
    for spec in wire.OUTPUTS:
        if spec is not wire.STAGE_TIMES:
            assert tensors[spec.name].shape == spec.empty().shape
    tracks = wire.unpack_tracks(tensors)
    assert len(tracks) == 0
    np.testing.assert_array_equal(tracks.state_offsets, [0])


def test_one_track_has_no_separator():
    tensors = wire.pack_result(make_result([(FitOutcome.SUCCESS, 2, 3)]))
    assert len(tensors["GEOMETRY_IDS"]) == 3
    assert wire.unpack_tracks(tensors).state_offsets.tolist() == [0, 3]


def test_unpacked_tracks_are_those_packed():
    result = make_result()
    tracks = wire.unpack_tracks(wire.pack_result(result))
    assert len(tracks) == len(KEPT)
    np.testing.assert_array_equal(tracks.params, result.tracks.params[KEPT])
    np.testing.assert_array_equal(tracks.time, result.tracks.time[KEPT])
    np.testing.assert_array_equal(tracks.ndf, result.tracks.ndf[KEPT])
    np.testing.assert_array_equal(tracks.covariance, result.tracks.covariance[KEPT])
    np.testing.assert_array_equal(tracks.n_holes, result.tracks.n_holes[KEPT])
    np.testing.assert_array_equal(tracks.state_offsets, [0, 4, 7])
    states = [*range(4), *range(12, 15)]
    np.testing.assert_array_equal(tracks.state_geometry_id, result.track_states.geometry_id[states])
    np.testing.assert_array_equal(tracks.state_direction, result.track_states.params[states, 2:])
    assert tracks.state_covariance.shape == (7, 5, 5)
    assert tracks.stage_milliseconds == result.stage_milliseconds


def test_unpacking_what_is_there():
    tensors = wire.pack_result(make_result(), {"TRK_PARAMS"})
    tracks = wire.unpack_tracks(tensors)
    assert len(tracks) == 2
    assert tracks.state_offsets is None
    assert tracks.perigee is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("TRK_PARAMS", lambda a: a[:1], "GEOMETRY_IDS has 2 tracks, TRK_PARAMS has 1 rows"),
        ("TRK_PARAMS", lambda a: a[:, :7], r"TRK_PARAMS has shape \(2, 7\); expected \(n, 8\): chi2, ndf"),
        ("MEASUREMENTS", lambda a: a[:-1], "track states differ in length"),
        ("TRK_PERIGEE", lambda a: a[:1], "tensors of tracks differ in length"),
        ("COVARIANCES", lambda a: a.astype(np.float64), r"COVARIANCES has type float64; expected float32 \(FP32\)"),
    ],
)
def test_contradicting_answers_are_refused(name, change, message):
    tensors = wire.pack_result(make_result())
    tensors[name] = change(tensors[name])
    with pytest.raises(WireError, match=message):
        wire.unpack_tracks(tensors)


def test_tracks_need_their_parameters():
    with pytest.raises(WireError, match="TRK_PARAMS is missing; got nothing"):
        wire.unpack_tracks({})


@pytest.mark.parametrize("n", [0, 1, 50])
def test_cells_survive_the_standard_tensors(n):
    cells = make_cells(n)
    tensors = wire.pack_cells(cells)
    assert sum(t.nbytes for t in tensors.values()) == 40 * n
    for spec in wire.STANDARD_INPUTS:
        spec.check(tensors[spec.name])
    assert_same_cells(wire.unpack_cells(tensors), cells)


def with_narrow_channels(cells):
    cells.channel0, cells.channel1 = cells.channel0 % 4096, cells.channel1 % 4096
    return cells


@pytest.mark.parametrize("is_wide", [True, False])
@pytest.mark.parametrize("with_times", [True, False])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_cells_survive_the_compact_tensor(n, with_times, is_wide):
    cells = make_cells(n, with_times=with_times)
    cells = cells if is_wide else with_narrow_channels(cells)
    tensors = wire.pack_compact_cells(cells)
    n_modules = len(np.unique(cells.geometry_id))
    a_cell = 7 + 4 * with_times + is_wide
    assert [len(t) for t in tensors.values()] == [16 + a_cell * n + 10 * n_modules]
    for spec in wire.COMPACT_INPUTS:
        spec.check(tensors[spec.name])
    assert_same_cells(wire.unpack_compact_cells(tensors), cells, but=["measurement_id"])


@pytest.mark.parametrize("channels", [(0, 4095), (4095, 0), (4095, 4095), (1, 4096), (4096, 1), (65535, 65535)])
def test_largest_channels_survive_the_compact_tensor(channels):
    cells = with_narrow_channels(make_cells())
    cells.channel0[3], cells.channel1[3] = channels
    tensors = wire.pack_compact_cells(cells)
    assert len(tensors["CELLS"]) == 16 + (11 + (max(channels) > 4095)) * len(cells) + 10 * 5
    assert_same_cells(wire.unpack_compact_cells(tensors), cells, but=["measurement_id"])


def test_layout_of_the_compact_tensor():
    """As docs/protocol.md has it, byte by byte."""
    cells = Cells(
        geometry_id=np.array([7, 7, 1 << 63], np.uint64),
        channel0=np.array([0xABC, 1, 2]),
        channel1=np.array([0xDEF, 0x10, 0xF]),
        activation=np.array([0.5, 1.0, 2.0], np.float32),
        time=np.array([0, 3, 4], np.float32),
        measurement_id=np.zeros(3, np.int64),
    )
    expected = struct.pack("<4I", 2, 1, 2, 3) + struct.pack("<2Q", 7, 1 << 63) + struct.pack("<6f", 0.5, 1, 2, 0, 3, 4)
    expected += struct.pack("<3H", 0xFABC, 0x0001, 0xF002) + struct.pack("<2H", 2, 1) + bytes([0xDE, 0x01, 0x00])
    assert wire.pack_compact_cells(cells)["CELLS"].tobytes() == expected
    cells.channel0[1] = 0x1000
    wide = struct.pack("<3H", 0xABC, 0x1000, 2) + struct.pack("<2H", 2, 1) + struct.pack("<3H", 0xDEF, 0x10, 0xF)
    packed = wire.pack_compact_cells(cells)["CELLS"].tobytes()
    assert packed == struct.pack("<4I", 2, 3, 2, 3) + expected[16:56] + wide


@pytest.mark.parametrize("pack", [wire.pack_cells, wire.pack_compact_cells])
def test_cells_are_packed_into_given_memory(pack):
    given = {}

    def allocate(rows):
        given.update(wire.new_tensors(rows))
        return dict(given)

    cells = make_cells()
    for name, values in pack(cells, allocate).items():
        assert values is given[name]
        np.testing.assert_array_equal(values, pack(cells)[name])


def test_cells_of_a_module_need_not_stand_together():
    cells = make_cells()
    order = np.random.default_rng(3).permutation(len(cells))
    mixed = Cells(*(getattr(cells, name)[order] for name in Cells.__slots__))
    assert_same_cells(wire.unpack_compact_cells(wire.pack_compact_cells(mixed)), mixed, but=["measurement_id"])


@pytest.mark.parametrize("n", [65535, 65536, 200_000])
def test_long_runs_of_one_module_are_cut(n):
    cells = make_cells(n + 10)
    cells.geometry_id = np.concatenate((np.full(4, 3), np.full(n, 7), np.full(6, 9))).astype(np.uint64)
    tensors = wire.pack_compact_cells(cells)
    assert tensors["CELLS"][8:16].view(np.uint32).tolist() == [2 + -(-n // 65535), n + 10]
    assert_same_cells(wire.unpack_compact_cells(tensors), cells, but=["measurement_id"])


@pytest.mark.parametrize("channel", [-1, 65536, -65536])
def test_channels_beyond_16_bits_need_the_standard_tensors(channel):
    cells = make_cells()
    cells.channel1[7] = channel
    with pytest.raises(WireError, match=f"cells.channel1 has {channel}; expected 0 to 65535: use the standard"):
        wire.pack_compact_cells(cells)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("CELL_POSITIONS", lambda a: a.astype(np.int32), r"CELL_POSITIONS has type int32; expected int64 \(INT64\)"),
        ("CELL_POSITIONS", lambda a: a[:, :3], r"CELL_POSITIONS has shape \(50, 3\); expected \(n, 4\): geometry_id"),
        ("CELL_PROPERTIES", lambda a: a.ravel(), r"CELL_PROPERTIES has shape \(100,\); expected \(n, 2\)"),
        ("CELL_PROPERTIES", lambda a: a[:-1], "CELL_PROPERTIES has 49 rows, CELL_POSITIONS has 50"),
    ],
)
def test_bad_standard_tensors_are_refused(name, change, message):
    tensors = wire.pack_cells(make_cells())
    tensors[name] = change(tensors[name])
    with pytest.raises(WireError, match=message):
        wire.unpack_cells(tensors)


def changed(place, value):
    """Return a function that sets one of the 32-bit numbers of the header."""

    def change(tensor):
        tensor[:16].view(np.uint32)[place] = value
        return tensor

    return change


def with_one_more_cell(tensor):
    n_modules, n_cells = tensor[8:16].view(np.uint32)
    begin = 16 + 8 * n_modules + 10 * n_cells
    tensor[begin : begin + 2].view(np.uint16)[0] += 1
    return tensor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:15], "CELLS has 15 bytes; expected at least 16: version, flags, n_modules, n_cells"),
        (lambda a: a[:-1], "CELLS has 665 bytes; expected 666 for 5 modules and 50 cells with the flags 3"),
        (changed(0, 1), "CELLS is of version 1; expected 2"),
        (changed(1, 4), r"CELLS has the flags 4; expected a sum of 1 \(HAS_TIMES\), 2 \(WIDE\)"),
        (changed(1, 1), "CELLS has 666 bytes; expected 616 for 5 modules and 50 cells with the flags 1"),
        (changed(2, 2**32 - 1), "CELLS has 666 bytes; expected 42949673566 for 4294967295 modules"),
        (with_one_more_cell, "CELLS has 51 cells in its modules; expected 50, as its header says"),
        (lambda a: a.view(np.int8), r"CELLS has type int8; expected uint8 \(UINT8\)"),
    ],
)
def test_bad_compact_tensors_are_refused(change, message):
    tensor = wire.pack_compact_cells(make_cells())["CELLS"]
    with pytest.raises(WireError, match=message):
        wire.unpack_compact_cells({"CELLS": change(tensor)})


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.int64, np.uint64])
def test_channels_of_any_whole_numbers(dtype):
    cells = with_narrow_channels(make_cells())
    cells.channel0, cells.channel1 = cells.channel0.astype(dtype), np.repeat(cells.channel1, 2).astype(dtype)[::2]
    assert_same_cells(wire.unpack_compact_cells(wire.pack_compact_cells(cells)), cells, but=["measurement_id"])


def test_missing_tensors_are_named():
    with pytest.raises(WireError, match="CELL_PROPERTIES is missing; got CELL_POSITIONS"):
        wire.unpack_cells({"CELL_POSITIONS": np.zeros((0, 4), np.int64)})


def test_served_tracks_name_their_columns():
    columns = wire.unpack_tracks(wire.pack_result(make_result())).columns()
    names = {f.name for f in dataclasses.fields(wire.ServedTracks)}
    not_sent = {name for name, column in columns_of(Tracks).items() if column.tensor is None} - {"state_offsets"}
    assert not_sent == {"fit_outcome", "geometry_id", "pval", "perigee_covariance"}
    assert set(columns) == names - not_sent - {"stage_milliseconds", "states"}


def test_outputs_of_a_request_are_those_it_names_twice():
    """Once as outputs, which an ensemble always names all, and once in the parameter."""
    requested = ["TRK_PARAMS", "STAGE_TIMES"]
    assert wire.wanted_outputs(requested, None) == set(requested)
    assert wire.wanted_outputs(requested, "TRK_PARAMS, GEOMETRY_IDS") == {"TRK_PARAMS"}


@pytest.mark.parametrize(
    ("parameter", "name"), [("TRK_PARAM", "TRK_PARAM"), ("TRK_PARAMS,trk_perigee", "trk_perigee"), ("", "")]
)
def test_unknown_outputs_of_a_request_are_refused(parameter, name):
    with pytest.raises(WireError, match=f"'outputs' names '{name}'; expected some of TRK_PARAMS, MEASUREMENTS, "):
        wire.wanted_outputs(["TRK_PARAMS"], parameter)
