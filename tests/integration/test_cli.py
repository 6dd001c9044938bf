"""The command line with the real chain, on the event that comes with the package."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from traccc_py.cli.app import app
from traccc_py.data.csv_events import read_cells, write_cells
from traccc_py.data.sample import sample_event_path
from traccc_py.data.track_files import read_track_states, read_tracks
from traccc_py.edm import Cells

N_MUONS = 20


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    result = call("run", "--sample", "--particle", "muon", "--output", folder, "--json", folder / "run.json")
    assert result.exit_code == 0, result.output
    return folder


def test_run_reconstructs_the_sample(output):
    event = json.loads((output / "run.json").read_text())["events"][0]
    assert event["n_cells"] == len(read_cells(sample_event_path()).geometry_id)
    assert event["n_measurements"] >= event["n_spacepoints"] > 0
    assert event["n_seeds"] >= event["n_tracks"]
    assert event["n_candidates"] >= event["n_tracks"]
    assert 18 <= event["n_tracks"] <= N_MUONS
    assert sum(event["stage_milliseconds"].values()) <= event["total_milliseconds"] * 1.01


def test_output_files_are_consistent(output):
    tracks, states = read_tracks(output, 0), read_track_states(output, 0)
    np.testing.assert_array_equal(np.bincount(states["track_id"]), tracks["n_measurements"])
    assert set(tracks["fit_outcome"].tolist()) == {1}
    first = np.flatnonzero(states["state_index"] == 0)
    np.testing.assert_array_equal(states["geometry_id"][first], tracks["geometry_id"])
    np.testing.assert_array_equal(states["smoothed_loc0"][first], tracks["loc0"])
    for name in ("loc0", "loc1", "phi", "theta", "qop", "d0", "z0", "perigee_qop"):
        assert (tracks[f"var_{name}"] > 0).all(), name


def test_files_do_not_depend_on_the_order_of_rows_or_threads(output, tmp_path):
    cells = read_cells(sample_event_path())
    rows = np.random.default_rng(1).permutation(len(cells.geometry_id))
    shuffled = Cells(*(getattr(cells, name)[rows] for name in Cells.__slots__))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "event000000000-cells.csv"
    write_cells(path, shuffled)
    result = call("run", path, "--particle", "muon", "--threads", 1, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for name in ("tracks", "track_states", "measurements"):
        file = f"event000000000-{name}.csv"
        assert (tmp_path / "out" / file).read_bytes() == (output / file).read_bytes(), name


def test_files_are_the_same_from_the_measurements_that_a_run_wrote(tmp_path):
    settings = ["--particle", "muon", "--set", "clusterization.variance=traccc"]  # the same with and without clusters
    result = call("run", "--sample", *settings, "--output", tmp_path / "in")
    assert result.exit_code == 0, result.output
    arguments = ["--output", tmp_path / "out", "--json", tmp_path / "run.json"]
    result = call("run", tmp_path / "in", *settings, *arguments)
    assert result.exit_code == 0, result.output
    event = json.loads((tmp_path / "run.json").read_text())["events"][0]
    assert (event["kind"], event["n_cells"]) == ("measurements", 0)
    assert "clusterization" not in event["stage_milliseconds"]
    for name in ("tracks", "track_states", "measurements"):
        file = f"event000000000-{name}.csv"
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "in" / file).read_bytes(), name


def test_run_with_the_cuts_of_traccc(tmp_path):
    result = call("run", "--sample", "--config", "traccc", "--particle", "muon", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    tracks = read_tracks(tmp_path, 0)
    assert N_MUONS - 3 <= len(tracks["track_id"]) <= N_MUONS + 3
    assert (tracks["fit_outcome"] == 1).all()


def test_run_names_the_line_of_a_channel_outside_its_module(tmp_path):
    cells = read_cells(sample_event_path())
    cells.channel0[100] = 99_999
    path = tmp_path / "event000000000-cells.csv"
    write_cells(path, cells)
    result = call("run", path, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "event000000000-cells.csv, line 102: channel0 is 99999, outside module" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_run_says_why_an_event_has_no_seeds(output, tmp_path):
    result = call("run", "--sample", "--set", "seeding.r_max=40", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    told = " ".join(result.stderr.split())
    assert "3 of 4 barrel layers and 28 of 28 discs or rings lie or reach beyond seeding.r_max = 40 mm" in told
    assert "event000000000-cells.csv.gz: 0 seeds from" in told
    settings = json.loads((output / "run.json").read_text())["config"]
    assert settings["seeding"]["r_max"] == 180  # what was derived, not "auto"


def test_printed_settings_of_a_detector_are_read_back(tmp_path):
    printed = call("config", "--detector", "toy")
    assert "r_max = 190.0  # largest radius of spacepoints used [mm]; of toy: and at r =" in printed.stdout
    path = tmp_path / "toy.toml"
    path.write_text(printed.stdout)
    again = call("config", path)
    assert "auto" not in again.stdout
    assert call("config", path, "--detector", "odd").stdout == again.stdout
    assert 'r_max = "auto"' in call("config").stdout
    given = call("config", "--detector", "toy", "--set", "seeding.r_max=150").stdout
    assert "r_max = 150.0  # largest radius of spacepoints used [mm]\n" in given


def test_run_of_an_event_without_cells_or_without_seeds(tmp_path):
    cells = read_cells(sample_event_path())
    (tmp_path / "in").mkdir()
    for event, n in enumerate((0, 5)):
        few = Cells(*(getattr(cells, name)[:n] for name in Cells.__slots__))
        write_cells(tmp_path / "in" / f"event{event:09d}-cells.csv", few)
    result = call("run", tmp_path / "in", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for event in range(2):
        assert len(read_tracks(tmp_path / "out", event)["track_id"]) == 0


def test_performance_of_a_few_muons(tmp_path):
    path = tmp_path / "performance.json"
    result = call("performance", "--events", 1, "--particles", 50, "--json", path)
    assert result.exit_code == 0, result.output
    assert "definition traccc" in result.stdout
    numbers = json.loads(path.read_text())["results"]["traccc_py"]
    tracks = numbers["tracks"]["reconstructable"]
    assert tracks["n_particles"] >= 45
    assert tracks["efficiency"] > 0.95
    assert tracks["duplicate_rate"] < 0.05
    assert 0.5 < numbers["perigee_pulls"]["d0"]["sigma"] < 1.5
