"""Dead modules and channels: their files, what they do to cells, clusters, holes and tracks."""

import gzip
import json

import numpy as np
import pytest

from tests.integration.small_events import columns, telescope_cells
from tests.unit.detectors import make_design, make_detector
from tests.unit.test_clusterization import run
from traccc_py import TrackingChain, build_detector
from traccc_py.data.dead_channels import read_dead_channels, write_dead_channels
from traccc_py.detector_options import DetectorOptions
from traccc_py.edm import Cells, Measurements, Spacepoints
from traccc_py.errors import InputDataError
from traccc_py.geometry.dead_channels import ALL, DeadChannels
from traccc_py.geometry.records import DEAD_RANGE
from traccc_py.kernels.tracking.dead_channels import may_cross_dead_channels
from traccc_py.kernels.tracking.detector import detector_payload
from traccc_py.kernels.tracking.state import Local
from traccc_py.pipeline.prepare_cells import prepare_cells
from traccc_py.pipeline.prepare_measurements import prepare_measurements, prepare_spacepoints

N_CHANNELS = 4000  # of the telescope, along both axes
PITCH = 0.05  # [mm]
HEADER = "geometry_id,channel0_first,channel0_last,channel1_first,channel1_last"


@pytest.fixture(scope="module")
def telescope():
    return build_detector("telescope")


def rows(*values):
    """Return a list of (id, first0, last0, first1, last1)."""
    ranges = np.array([row[1:] for row in values], np.int64).reshape(-1, 4)
    return DeadChannels(np.array([row[0] for row in values], np.uint64), ranges[:, :2], ranges[:, 2:])


# --- files


def same(first, second):
    return all(np.array_equal(getattr(first, c), getattr(second, c)) for c in ("geometry_id", "channel0", "channel1"))


def test_both_formats_say_the_same(tmp_path):
    expected = rows((2**63 + 7, 3, 5, -1, -1), (9, -1, -1, -1, -1), (9, 0, 0, 2, 2))
    table = write_dead_channels(tmp_path / "dead.csv", expected)
    entries = [
        {"geometry_id": 2**63 + 7, "channel0": [3, 5]},
        {"geometry_id": 9},
        {"geometry_id": 9, "channel0": [0, 0], "channel1": [2, 2]},
    ]
    text = json.dumps({"dead_channels": entries})
    (tmp_path / "dead.json").write_text(text)
    (tmp_path / "dead.json.gz").write_bytes(gzip.compress(text.encode()))
    for path in (table, tmp_path / "dead.json", tmp_path / "dead.json.gz"):
        assert same(read_dead_channels(path), expected)


@pytest.mark.parametrize(
    "text", ["geometry_id\n7\n5\n7\n", "\ufeffgeometry_id\n7\n5\n7\n", "geometry_id\r\n7\r\n5\r\n7\r\n"]
)
def test_a_list_of_modules_needs_one_column(tmp_path, text):
    path = tmp_path / "dead.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = read_dead_channels(path)
    assert found.geometry_id.tolist() == [7, 5, 7]
    assert (found.channel0 == ALL).all()
    assert (found.channel1 == ALL).all()


@pytest.mark.parametrize(("name", "text"), [("d.csv", f"{HEADER}\n"), ("d.json", '\ufeff{"dead_channels": []}')])
def test_a_list_may_be_empty(tmp_path, telescope, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    detector = telescope.with_dead_channels(read_dead_channels(tmp_path / name))
    assert detector.dead_ranges is None
    assert detector.fingerprint == telescope.fingerprint


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("d.csv", "", "is empty; expected a header line"),
        ("d.csv", "module\n1\n", "no column geometry_id; the header has module"),
        (
            "d.csv",
            "geometry_id,chanel0_first\n1,2\n",
            "line 1: column 'chanel0_first'; expected geometry_id, channel0_f",
        ),
        ("d.csv", "geometry_id\nnan\n", "line 2: column geometry_id is 'nan'; expected an integer from 0"),
        ("d.csv", "geometry_id\n-3\n", "line 2: column geometry_id is '-3'"),
        ("d.csv", "geometry_id\n1\n36893488147419103232\n", "line 3: column geometry_id is '36893488147419103232'"),
        ("d.csv", f"{HEADER}\n1,0,0,0,0\n1,0,4294967296,0,0\n", "line 3: column channel0_last is '4294967296'"),
        ("d.csv", f"{HEADER}\n1,-2,0,0,0\n", "line 2: column channel0_first is '-2'; expected an integer from -1"),
        ("d.csv", f"{HEADER}\n1,0,0\n", "line 2: 3 values; expected 5"),
        ("d.json", "[]", "top level: is an array; expected an object with 'dead_channels'"),
        ("d.json", '{"modules": [1]}', "top level: has 'modules'; expected dead_channels"),
        ("d.json", '{"dead_channels": {"geometry_id": 1}}', "dead_channels: is an object; expected an array"),
        ("d.json", '{"dead_channels": [7]}', "dead_channels[0]: is a number; expected an object"),
        ("d.json", '{"dead_channels": [{"geometry_id": 1}, {}]}', "dead_channels[1]: has no 'geometry_id'"),
        ("d.json", '{"dead_channels": [{"geometry_id": NaN}]}', "geometry_id: is nan; expected an integer from 0"),
        ("d.json", '{"dead_channels": [{"geometry_id": -1}]}', "geometry_id: is -1; expected an integer from 0"),
        (
            "d.json",
            '{"dead_channels": [{"geometry_id": 1, "channel0": [1]}]}',
            "channel0: has 1 numbers; expected the f",
        ),
        (
            "d.json",
            '{"dead_channels": [{"geometry_id": 1, "channel0": 1}]}',
            "channel0: is a number; expected an array",
        ),
        (
            "d.json",
            '{"dead_channels": [{"geometry_id": 1, "channels": []}]}',
            "has 'channels'; expected geometry_id, ch",
        ),
        ("d.json", '{"dead_channels": [', "can't be read as JSON"),
        ("d.txt", "1\n", "ends in .csv, .json"),
        ("none.csv", None, "there is no such file"),
        ("none.json", None, "there is no such file"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(tmp_path, name, text, problem):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputDataError) as caught:
        read_dead_channels(tmp_path / name)
    assert problem in str(caught.value)
    assert name in str(caught.value)


def test_a_list_of_another_detector_counts_what_is_unknown(tmp_path, telescope):
    ids = telescope.geometry_ids
    path = write_dead_channels(tmp_path / "d.csv", DeadChannels.of_modules([ids[0], 5, 6, 6, 7]))
    with pytest.raises(
        InputDataError, match=r"line 3: geometry_id 5 .* nor are 2 others of the 4 modules listed; is it"
    ):
        DetectorOptions("telescope", dead_channels_file=path).load()


@pytest.mark.parametrize("first_last", [(0, N_CHANNELS), (N_CHANNELS, N_CHANNELS), (5, 4), (-1, 3), (3, -1)])
@pytest.mark.parametrize("axis", [0, 1])
def test_channels_outside_of_the_module_are_refused(telescope, axis, first_last):
    bounds = [(-1, -1), first_last] if axis else [first_last, (-1, -1)]
    dead = rows((telescope.geometry_ids[0], 0, 1, 0, 1), (telescope.geometry_ids[1], *bounds[0], *bounds[1]))
    expected = (
        f"row 1: channels {first_last[0]} to {first_last[1]} along axis {axis} of module {telescope.geometry_ids[1]}"
    )
    with pytest.raises(InputDataError, match=rf"{expected}; expected 0 <= first <= last <= 3999"):
        telescope.with_dead_channels(dead)


def test_lists_are_checked_against_another_readout_too():
    odd = build_detector("odd")
    strips = odd.geometry_ids[np.flatnonzero(odd.designs["n_channels0"][odd.design_of_surface] == 320)[0]]
    dead = rows((strips, 0, 0, 100, 100))
    with pytest.raises(InputDataError, match="channels 100 to 100 along axis 1"):
        odd.with_dead_channels(dead)
    current = odd.with_digitization("odd-current").with_dead_channels(dead)
    with pytest.raises(InputDataError, match="channels 100 to 100 along axis 1"):
        current.with_digitization("odd-2024")


# --- which channels are dead


def test_order_repeats_and_pieces_do_not_matter(telescope):
    a, b = telescope.geometry_ids[:2]
    whole = telescope.with_dead_channels(rows((a, 3, 8, 2, 4), (b, -1, -1, -1, -1))).dead_ranges
    pieces = telescope.with_dead_channels(
        rows((b, 100, 3999, 0, 3999), (a, 6, 8, 2, 4), (a, 3, 5, 2, 4), (b, 0, 99, -1, -1), (a, 3, 5, 2, 4))
    ).dead_ranges
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.is_dead.tolist() == [False, True] + [False] * 7


def test_channels_in_ranges_are_dead(telescope):
    random = np.random.default_rng(3)
    ids = telescope.geometry_ids
    corners = np.sort(random.integers(0, 40, (60, 2, 2)), axis=2)
    module = random.integers(0, 5, 60)
    dead = DeadChannels(ids[module], corners[:, 0], corners[:, 1])
    is_dead = np.zeros((9, 40, 40), bool)
    for m, ((low0, high0), (low1, high1)) in zip(module, corners, strict=True):
        is_dead[m, low0 : high0 + 1, low1 : high1 + 1] = True
    assert 0.1 < is_dead[:5].mean() < 0.99
    every = [index.ravel() for index in np.indices(is_dead.shape)]
    found = telescope.with_dead_channels(dead).dead_ranges.contain(*every)
    np.testing.assert_array_equal(found, is_dead.ravel())


def test_cells_of_dead_channels_are_left_out(telescope, caplog):
    cells = telescope_cells(4, 1, telescope)
    ids = telescope.geometry_ids
    dead = DeadChannels.of_modules(ids[2:4]).and_also(rows((ids[5], 0, 2000, -1, -1)))
    is_dead = np.isin(cells.geometry_id, ids[2:4]) | ((cells.geometry_id == ids[5]) & (cells.channel0 <= 2000))
    told = prepare_cells(cells, telescope.with_dead_channels(dead), "a.csv")
    live = Cells(*(getattr(cells, name)[~is_dead] for name in Cells.__slots__))
    expected = prepare_cells(live, telescope)
    for name in ("module_index", "channel0", "channel1", "activation", "time"):
        np.testing.assert_array_equal(getattr(told, name), getattr(expected, name))
    np.testing.assert_array_equal(told.input_row, np.flatnonzero(~is_dead)[expected.input_row])
    assert f"a.csv: {is_dead.sum()} of {len(cells)} cells are of dead channels; left out" in caplog.text
    again = prepare_cells(live, telescope.with_dead_channels(dead))
    np.testing.assert_array_equal(again.input_row, expected.input_row)


def test_measurements_on_dead_modules_are_left_out_with_their_spacepoints(telescope, caplog):
    n = 9
    measurements = Measurements(
        geometry_id=telescope.geometry_ids[::-1].copy(),
        local_position=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        local_variance=np.ones((n, 2), np.float32),
        dimensions=np.full(n, 2, np.int32),
        time=np.zeros(n, np.float32),
        module_index=np.zeros(n, np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        measurement_id=np.arange(n),
        cell_offsets=np.zeros(n + 1, np.int64),
    )
    told = telescope.with_dead_channels(DeadChannels.of_modules(telescope.geometry_ids[[0, 4]]))
    found = prepare_measurements(measurements, told, "m.csv")
    assert found.module_index.tolist() == [1, 2, 3, 5, 6, 7, 8]
    assert "m.csv: 2 of 9 measurements are on dead modules; left out" in caplog.text
    surfaces = telescope.arrays().surfaces[::-1]
    u, v, centre = (np.stack([surfaces[a + b] for b in "xyz"], axis=1) for a in "uvc")
    position = centre + measurements.local_position[:, :1] * u + measurements.local_position[:, 1:] * v
    points = Spacepoints(position.astype(np.float32), np.arange(n, dtype=np.int32))
    found = prepare_spacepoints(measurements, points, told)
    assert found.spacepoints.measurement_index.tolist() == list(range(7))
    np.testing.assert_array_equal(found.spacepoints.global_position, position[::-1][[1, 2, 3, 5, 6, 7, 8]])


# --- clusters


def dead_pad(*ranges, channels=20):
    """A module with square channels of 1 mm, some of them dead, in the form that kernels have."""
    detector = make_detector([(0, 0, 0)], (1, 0, 0), (0, 1, 0), [make_design(channels, channels, -0.5, -0.5, 1.0, 1.0)])
    records = np.zeros(len(ranges), DEAD_RANGE)
    for record, values in zip(records, ranges, strict=True):
        for name, value in zip(("first0", "last0", "first1", "last1"), values, strict=True):
            record[name] = value
        for axis in "01":
            record[f"min{axis}"], record[f"max{axis}"] = record[f"first{axis}"] - 0.5, record[f"last{axis}"] + 0.5
    return detector._replace(dead_offsets=np.array([0, len(ranges)], np.int32), dead_ranges=records)


@pytest.mark.parametrize(
    ("dead", "size"),
    [
        ((7, 9, 0, 19), (-2, 1)),  # above along axis 0
        ((0, 4, 5, 5), (-2, 1)),  # below
        ((5, 5, 6, 6), (2, -1)),  # above along axis 1
        ((6, 19, 0, 4), (2, -1)),  # below, one of two channels
        ((8, 9, 0, 19), (2, 1)),  # one channel between
        ((7, 9, 6, 19), (2, 1)),  # over the corner
    ],
)
def test_a_cluster_that_ends_at_dead_channels_has_a_wider_error(dead, size):
    cluster = [(0, 5, 5, 1), (0, 6, 5, 1)]
    plain = run(cluster, dead_pad((0, 0, 0, 0)))
    found = run(cluster, dead_pad(dead, (0, 0, 0, 0)))
    np.testing.assert_array_equal(found["local_position"], plain["local_position"])
    added = np.where(np.array(size) < 0, 1 / 12, 0)
    np.testing.assert_allclose(found["local_variance"], plain["local_variance"] + added, rtol=1e-6)
    assert found["cluster_size"].tolist() == [list(size)]


def test_results_show_how_many_channels_a_cut_off_cluster_has(telescope):
    cells = telescope_cells(1, 1, telescope)
    dead = rows(*((i, c + 1, c + 1, -1, -1) for i, c in zip(cells.geometry_id, cells.channel0, strict=True)))
    result = TrackingChain(telescope.with_dead_channels(dead), device="cpu", threads=1).run(cells)
    assert (result.measurements.cluster_size == 1).all()


# --- holes


@pytest.mark.parametrize(
    ("place", "band", "is_near"),
    [
        ((5.0, 5.0), 0.0, True),
        ((3.4, 5.0), 0.0, False),
        ((3.4, 5.0), 0.2, True),
        ((6.6, 5.0), 0.2, True),
        ((6.8, 5.0), 0.2, False),
        ((5.0, 9.8), 0.2, False),
        ((5.0, 9.6), 0.2, True),
        ((float("nan"), 5.0), 0.2, False),
    ],
)
def test_a_place_near_dead_channels_is_known(place, band, is_near):
    detector = detector_payload(dead_pad((4, 6, 1, 9)), None, np.float32)
    local, bands = Local(*map(np.float32, place)), Local(np.float32(band), np.float32(band))
    assert may_cross_dead_channels(detector, 0, local, bands) == is_near
    assert not may_cross_dead_channels(detector_payload(dead_pad(), None, np.float32), 0, local, bands)


def line_cells(detector, planes, channel=2000):
    """Return cells of a straight track along x through some planes, 20 channels off the middle."""
    n = len(planes)
    return Cells(
        geometry_id=detector.geometry_ids[np.asarray(planes, int)],
        channel0=np.full(n, channel),
        channel1=np.full(n, channel),
        activation=np.full(n, 0.15, np.float32),
        time=np.zeros(n, np.float32),
        measurement_id=np.arange(n),
    )


def reconstruct(detector, cells):
    return TrackingChain(detector, device="cpu", threads=1).run(cells)


MISSED = [0, 1, 2, 6, 7, 8]  # planes with cells: three in a row are missed


@pytest.mark.parametrize(
    ("dead", "n_tracks"),
    [
        (None, 0),  # too many holes one after another
        ((-1, -1, -1, -1), 1),  # dead modules
        ((1990, 2010, 0, 3999), 1),  # dead channels where the track crosses
        ((1900, 1998, 0, 3999), 1),  # beside it, within the uncertainty
        ((0, 1000, 0, 3999), 0),  # elsewhere
    ],
)
def test_a_track_has_no_hole_where_nothing_is_read_out(telescope, dead, n_tracks):
    cells = line_cells(telescope, MISSED)
    if dead is not None:
        telescope = telescope.with_dead_channels(rows(*((i, *dead) for i in telescope.geometry_ids[3:6])))
    tracks = reconstruct(telescope, cells).tracks
    whole = [t for t in range(len(tracks)) if tracks.n_measurements[t] == len(MISSED)] if len(tracks) else []
    assert len(whole) == n_tracks
    assert all(tracks.n_holes[t] == 0 for t in whole)


# --- whole events


def test_an_empty_list_changes_no_bit(telescope):
    cells = telescope_cells(6, 2, telescope)
    plain = columns(reconstruct(telescope, cells))
    empty = columns(reconstruct(telescope.with_dead_channels(rows()), cells))
    for name, column in plain.items():
        assert column.tobytes() == empty[name].tobytes(), name


def test_events_with_dead_channels_are_the_same_alone_and_in_a_batch(telescope):
    random = np.random.default_rng(5)
    first = random.integers(1000, 3000, (9, 2))
    dead = DeadChannels(telescope.geometry_ids, first[:, :1] + [0, 300], first[:, 1:] + [0, 300])
    dead = dead.and_also(DeadChannels.of_modules(telescope.geometry_ids[4:5]))
    chain = TrackingChain(telescope.with_dead_channels(dead), device="cpu", threads=2)
    events = [telescope_cells(n, n, telescope) for n in (12, 0, 30)]
    alone = [columns(chain.run(event)) for event in events]
    assert sum(len(one["tracks.n_holes"]) for one in alone) > 10
    for one, together in zip(alone, map(columns, chain.run_batch(events)), strict=True):
        for name, column in one.items():
            assert column.tobytes() == together[name].tobytes(), name


def test_a_detector_that_is_all_dead_finds_nothing(telescope, caplog):
    cells = telescope_cells(3, 1, telescope)
    result = reconstruct(telescope.with_dead_channels(DeadChannels.of_modules(telescope.geometry_ids)), cells)
    assert len(result.measurements) == len(result.tracks) == 0
    assert f"{len(cells)} of {len(cells)} cells are of dead channels" in caplog.text
