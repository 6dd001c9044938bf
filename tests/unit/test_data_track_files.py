"""Files of reconstructed events."""

import gzip

import numpy as np
import pytest

from tests.columns import zeros
from traccc_py.data.csv_events import read_measurements
from traccc_py.data.track_files import read_track_states, read_tracks, write_event_result
from traccc_py.edm import LOC0, LOC1, EventResult, Measurements, Seeds, Spacepoints, Tracks, TrackStates, packed_index


def make_result(n_states_of_track=(3, 2), n_measurements=6, seed=1):
    rng = np.random.default_rng(seed)
    n, n_states = len(n_states_of_track), sum(n_states_of_track)

    def floats(*shape):
        return rng.normal(size=shape).astype(np.float32)

    measurements = Measurements(
        geometry_id=np.arange(n_measurements, dtype=np.uint64) + 2**63,
        local_position=floats(n_measurements, 2),
        local_variance=np.abs(floats(n_measurements, 2)),
        dimensions=np.where(np.arange(n_measurements) % 2, 2, 1).astype(np.int32),
        time=floats(n_measurements),
        module_index=np.arange(n_measurements, dtype=np.int32),
        cluster_size=np.ones((n_measurements, 2), np.int32),
        n_cells=np.ones(n_measurements, np.int32),
        measurement_id=np.arange(n_measurements) * 10,
    )
    link = rng.integers(0, max(n_measurements, 1), n_states).astype(np.int32)
    tracks = zeros(
        Tracks,
        n,
        fit_outcome=np.ones(n, np.int32),
        geometry_id=np.arange(n, dtype=np.uint64) + 2**63 + 1,
        params=floats(n, 5),
        covariance=floats(n, 15),
        time=floats(n),
        chi2=np.abs(floats(n)),
        ndf=np.full(n, 4, np.float32),
        pval=np.full(n, 0.5, np.float32),
        n_measurements=np.array(n_states_of_track, np.int32),
        perigee=floats(n, 5),
        perigee_covariance=floats(n, 15),
        state_offsets=np.concatenate(([0], np.cumsum(n_states_of_track, dtype=np.int64))),
    )
    states = zeros(
        TrackStates,
        n_states,
        track_index=np.repeat(np.arange(n, dtype=np.int32), n_states_of_track),
        global_position=floats(n_states, 3),
        measurement_index=link,
        geometry_id=measurements.geometry_id[link] if n_measurements else np.zeros(n_states, np.uint64),
        params=floats(n_states, 5),
        covariance=floats(n_states, 15),
        chi2=np.abs(floats(n_states)),
    )
    none = np.zeros(0, np.int32)
    return EventResult(
        measurements=measurements,
        spacepoints=Spacepoints(np.zeros((0, 3), np.float32), none),
        seeds=Seeds(none, none, none, np.zeros(0, np.float32)),
        tracks=tracks,
        track_states=states,
        n_cells=n_measurements,
        n_candidates=n,
        stage_milliseconds={"seeding": 1.0, "finding": 2.0},
    )


@pytest.mark.parametrize("compress", [False, True])
def test_write_event_result_survives_a_round_trip(tmp_path, compress):
    result = make_result()
    paths = write_event_result(tmp_path, 5, result, compress=compress)
    suffix = ".csv.gz" if compress else ".csv"
    assert [p.name for p in paths] == [
        f"event000000005-{k}{suffix}" for k in ("tracks", "track_states", "measurements")
    ]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    tracks = read_tracks(tmp_path, 5)
    np.testing.assert_array_equal(tracks["geometry_id"], result.tracks.geometry_id)
    np.testing.assert_array_equal(tracks["loc1"], result.tracks.params[:, LOC1])
    np.testing.assert_array_equal(tracks["qop"], result.tracks.params[:, 4])
    np.testing.assert_array_equal(tracks["var_theta"], result.tracks.covariance[:, packed_index(3, 3)])
    np.testing.assert_array_equal(tracks["z0"], result.tracks.perigee[:, 1])
    np.testing.assert_array_equal(tracks["var_z0"], result.tracks.perigee_covariance[:, packed_index(1, 1)])
    np.testing.assert_array_equal(
        tracks["cov_z0_perigee_theta"], result.tracks.perigee_covariance[:, packed_index(1, 3)]
    )
    measurements = read_measurements(paths[2])
    np.testing.assert_array_equal(measurements.local_position, result.measurements.local_position)
    np.testing.assert_array_equal(measurements.measurement_id, result.measurements.measurement_id)


def test_tracks_of_an_older_version_are_read(tmp_path):
    """Columns that came later are -1, which no file has, where the file lacks them."""
    result = make_result()
    result.tracks.n_shared_measurements[:] = 1, 2
    path = write_event_result(tmp_path, 0, result)[0]
    lines = path.read_text().splitlines()
    later = ["n_shared_measurements", "n_outliers", "n_kinks"]
    assert lines[0].endswith("," + ",".join(later))
    assert read_tracks(tmp_path, 0)["n_shared_measurements"].tolist() == [1, 2]
    path.write_text("".join(",".join(line.split(",")[: -len(later)]) + "\n" for line in lines))
    found = read_tracks(tmp_path, 0)
    assert [found[name].tolist() for name in later] == [[-1, -1]] * len(later)


def test_track_states_hold_measured_and_smoothed_positions(tmp_path):
    result = make_result()
    write_event_result(tmp_path, 0, result)
    states = read_track_states(tmp_path, 0)
    assert states["track_id"].tolist() == [0, 0, 0, 1, 1]
    assert states["state_index"].tolist() == [0, 1, 2, 0, 1]
    link = result.track_states.measurement_index
    np.testing.assert_array_equal(states["measurement_id"], link * 10)
    np.testing.assert_array_equal(states["geometry_id"], result.measurements.geometry_id[link])
    np.testing.assert_array_equal(states["smoothed_loc1"], result.track_states.params[:, LOC1])
    measured = result.measurements.local_position[link]
    np.testing.assert_array_equal(states["measured_loc0"], measured[:, LOC0])
    np.testing.assert_array_equal(states["residual_loc0"], measured[:, LOC0] - result.track_states.params[:, LOC0])
    is_strip = result.measurements.dimensions[link] == 1
    assert is_strip.any()
    assert not is_strip.all()
    np.testing.assert_array_equal(np.isnan(states["measured_loc1"]), is_strip)
    np.testing.assert_array_equal(np.isnan(states["residual_loc1"]), is_strip)


def test_tracks_file_has_the_documented_columns(tmp_path):
    header = write_event_result(tmp_path, 0, make_result())[0].read_text().splitlines()[0].split(",")
    assert header[:14] == [
        *("track_id", "fit_outcome", "geometry_id", "loc0", "loc1", "phi", "theta", "qop", "time"),
        *("var_loc0", "var_loc1", "var_phi", "var_theta", "var_qop"),
    ]
    assert header[14:19] == ["chi2", "ndf", "pval", "n_measurements", "n_holes"]
    assert header[19:24] == ["d0", "z0", "perigee_phi", "perigee_theta", "perigee_qop"]
    assert header[39:] == ["n_shared_measurements", "n_outliers", "n_kinks"]
    assert len(header) == len(set(header)) == 42


@pytest.mark.parametrize("n_measurements", [0, 4])
def test_write_event_result_without_tracks(tmp_path, n_measurements):
    paths = write_event_result(tmp_path, 0, make_result((), n_measurements))
    assert [len(p.read_text().splitlines()) for p in paths] == [1, 1, 1 + n_measurements]
    assert len(read_tracks(tmp_path, 0)["track_id"]) == 0
    assert len(read_track_states(tmp_path, 0)["track_id"]) == 0


def test_write_event_result_replaces_those_of_an_earlier_run(tmp_path):
    write_event_result(tmp_path, 0, make_result(seed=1), compress=True)
    write_event_result(tmp_path, 0, make_result(seed=2))
    assert len(list(tmp_path.iterdir())) == 3
    np.testing.assert_array_equal(read_tracks(tmp_path, 0)["phi"], make_result(seed=2).tracks.params[:, 2])


def test_compressed_and_plain_files_have_the_same_content(tmp_path):
    plain = write_event_result(tmp_path / "a", 0, make_result())
    compressed = write_event_result(tmp_path / "b", 0, make_result(), compress=True)
    assert [p.read_bytes() for p in plain] == [gzip.decompress(p.read_bytes()) for p in compressed]


def test_failed_fits_can_be_written_and_read(tmp_path):
    result = make_result()
    result.tracks.fit_outcome[0] = 5
    result.tracks.params[0] = np.nan
    result.tracks.chi2[0] = np.nan
    write_event_result(tmp_path, 0, result)
    tracks = read_tracks(tmp_path, 0)
    assert tracks["fit_outcome"].tolist() == [5, 1]
    assert np.isnan(tracks["phi"][0])
