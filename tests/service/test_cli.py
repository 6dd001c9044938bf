"""`traccc-py client` and `perf-data`, as the user runs them."""

import csv
import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from traccc_py import wire
from traccc_py.cli.app import app
from traccc_py.data.sample import sample_event_path

pytest.importorskip("tritonclient")


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("options", [(), ("--http",), ("--shared-memory", "system")], ids=["gRPC", "HTTP", "shm"])
def test_client_writes_tracks_and_states(request, chain, sample_result, tmp_path, options):
    server = request.getfixturevalue("sharing_server" if "--shared-memory" in options else "server")
    port = server.ports.http if "--http" in options else server.ports.grpc
    done = run("client", sample_event_path(), "-u", f"127.0.0.1:{port}", "-o", tmp_path, "--repeat", 3, *options)
    assert done.exit_code == 0, done.output
    assert "3 events, 60 tracks, 0 errors" in done.output
    tracks, states = (rows(tmp_path / f"event000000000-served_{kind}.csv") for kind in ("tracks", "track_states"))
    tensors = wire.pack_result(sample_result)
    found = np.array([[t[name] for name in ("chi2", "ndf", "loc0", "phi")] for t in tracks], np.float32)
    np.testing.assert_array_equal(found, tensors["TRK_PARAMS"][:, [0, 1, 2, 4]])
    assert len(states) == len(tensors["MEASUREMENTS"])
    assert [int(s["geometry_id"]) for s in states] == [i for i in tensors["GEOMETRY_IDS"].tolist() if i]
    np.testing.assert_array_equal(
        np.array([s["measured_loc1"] for s in states], np.float32), tensors["MEASUREMENTS"][:, 1]
    )


def test_client_with_compact_tensors_and_plots(server, sample_result, tmp_path):
    url, plot = f"127.0.0.1:{server.ports.grpc}", tmp_path / "tracks.png"
    done = run("client", sample_event_path(), "-u", url, "--compact", "--plots", plot, "-o", tmp_path, "--compress")
    assert done.exit_code == 0, done.output
    assert plot.stat().st_size > 10_000
    assert not (tmp_path / "event000000000-served_track_states.csv.gz").exists()
    assert (tmp_path / "event000000000-served_tracks.csv.gz").exists()


def test_client_reports_refused_events_and_goes_on(server, tmp_path):
    bad = tmp_path / "event000000001-cells.csv"
    shutil.copy(sample_event_path(), tmp_path / "event000000000-cells.csv.gz")
    bad.write_text("geometry_id,measurement_id,channel0,channel1,timestamp,value\n77,0,1,1,0,0.1\n")
    done = run("client", tmp_path, "-u", f"127.0.0.1:{server.ports.grpc}", "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "geometry_id is 77" in done.output
    assert "2 events, 20 tracks, 1 error in" in done.output
    assert [p.name for p in (tmp_path / "out").glob("*tracks.csv")] == ["event000000000-served_tracks.csv"]


def test_client_without_a_server():
    done = run("client", sample_event_path(), "-u", "127.0.0.1:9", "--timeout", 1)
    assert done.exit_code == 2
    assert "can't be reached" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plots", "tracks.xyz"], "--plots tracks.xyz: unknown format '.xyz'"),
        (["--output", sample_event_path()], "can't be written"),
        (["--header", "x=y", "--skip", 1], "no event is left"),
        (["--header", "foo"], '--header is "foo"; expected NAME=VALUE'),
        (["--header", "bad name=x"], "--header has the name 'bad name'; expected small letters, digits"),
        (["-u", "127.0.0.1:99999"], '--url is "127.0.0.1:99999"; expected host:port with a port from 1 to 65535'),
        (["-u", "127.0.0.1", "--http"], '--url is "127.0.0.1"; expected host:port'),
    ],
)
def test_client_checks_before_it_sends(options, message):
    done = run("client", sample_event_path(), "-u", "127.0.0.1:9", *options)
    assert done.exit_code != 0
    assert message in done.output


@pytest.mark.parametrize("command", [("client", "-u", "127.0.0.1:9"), ("perf-data", "-o", "events.json")])
def test_other_kinds_of_input_are_refused(tmp_path, command):
    (tmp_path / "event000000000-measurements.csv").write_text("")
    done = run(*command, tmp_path)
    assert done.exit_code == 2
    assert "has no file that ends in -cells.csv" in done.output


@pytest.mark.parametrize("options", [(), ("--compact",)], ids=["standard", "compact"])
def test_perf_data_holds_the_tensors(sample_cells, tmp_path, options):
    path = tmp_path / "events.json"
    assert run("perf-data", sample_event_path(), "-o", path, *options).exit_code == 0
    (event,) = json.loads(path.read_text())["data"]
    expected = wire.pack_compact_cells(sample_cells) if options else wire.pack_cells(sample_cells)
    assert set(event) == set(expected)
    for name, values in expected.items():
        assert event[name]["shape"] == list(values.shape)
        np.testing.assert_array_equal(np.array(event[name]["content"], values.dtype), values.ravel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "0,x"], '--gpus is "0,x"; expected numbers'),
        (["--gpus", "1,1"], '--gpus is "1,1"; expected different numbers'),
        (["--gpus", "0", "--device", "cpu"], "--gpus is [0], but no GPU can be used"),
        (["--athena-map", "missing.txt"], "missing.txt: can't be read"),
        (["--detector", "wibble"], "detector 'wibble' is unknown"),
        (["--grid-file", "grids.json"], "--grid-file belongs to a --detector-file"),
    ],
)
def test_serve_refuses_impossible_settings(server, options, message):
    done = run("serve", "--detector", "telescope", "--http-port", 0, "--grpc-port", 0, "--metrics-port", 0, *options)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
