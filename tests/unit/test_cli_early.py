"""Bad inputs are told before anything slow begins: kernels to compile, events to read, a server to ask."""

import os
import shutil
import socket
import tempfile

import pytest

from tests.unit.test_cli import FakeChain, assert_refused, call, install_fake_chain, run, spoil, write_event
from traccc_py.backend.ports import free_port
from traccc_py.cli import performance_files, service

SAMPLE_OPTIONS = ("--detector", "telescope", "--particles", 3, "--eta", 0, 0, "--phi", 0, 0, "--events", 2)


@pytest.fixture(autouse=True)
def chain(monkeypatch):
    install_fake_chain(monkeypatch)
    monkeypatch.setattr(FakeChain, "made", None)


@pytest.fixture
def events(tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    for event in range(3):
        write_event(folder, event)
    spoil(folder / "event000000002-cells.csv", "channel0", "column0")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    result = call("simulate", "--output", folder, *SAMPLE_OPTIONS)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def sample(made, tmp_path):
    return shutil.copytree(made, tmp_path / "sample")


def test_run_reads_all_headers_before_kernels_are_compiled(events, tmp_path):
    output = tmp_path / "out"
    assert_refused(run(events, "--output", output), "event000000002-cells.csv, line 1: no column channel0")
    assert FakeChain.made is None
    assert not output.exists()
    assert run(events, "--events", 2).exit_code == 0


def test_run_reads_settings_and_detector_before_kernels_are_compiled(events):
    for options, words in (
        (["--set", "finding.chi2=1"], "did you mean chi2_max"),
        (["--bfield-file", "no.cvf"], "no.cvf"),
    ):
        assert_refused(run(events / "event000000000-cells.csv", *options), words)
        assert FakeChain.made is None


def test_client_reads_all_headers_before_it_asks_a_server(events):
    pytest.importorskip("tritonclient")
    assert_refused(call("client", events, "-u", "127.0.0.1:1"), "event000000002-cells.csv, line 1: no column channel0")


@pytest.fixture
def server(monkeypatch):
    """`serve` as far as the ports; what follows them fails."""

    def compile_kernels(*_):
        raise AssertionError

    monkeypatch.setattr(service, "find_installation", lambda: None)
    monkeypatch.setattr(service, "_compiled_repository", compile_kernels)


def serve_on(**ports):
    return [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", ports.get(name, 0))]


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_serve_names_a_port_in_use_before_kernels_are_compiled(server, name):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = (
            f"--{name}-port: port {port} of 127.0.0.1 can't be used (Address already in use, by process {os.getpid()}: "
        )
        assert_refused(call("serve", *serve_on(**{name: port})), words)
    assert isinstance(call("serve", *serve_on(**{name: port})).exception, AssertionError)


def test_serve_refuses_impossible_ports_and_addresses(server):
    port = free_port("127.0.0.1")
    assert_refused(
        call("serve", *serve_on(http=port, metrics=port)),
        f"--metrics-port is {port}; expected another port than http_port",
    )
    assert_refused(call("serve", *serve_on(grpc=65_536)), "--grpc-port", "65535")
    assert_refused(call("serve", *serve_on(), "--address", "192.0.2.1"), "--address 192.0.2.1: can't be listened on")


def test_serve_checks_its_surroundings_before_kernels_are_compiled(server, monkeypatch, tmp_path):
    log = tmp_path / "missing" / "log"
    words = f'--server-log is "{log}", which can\'t be written (No such file or directory); expected one in a folder'
    assert_refused(call("serve", *serve_on(), "--server-log", log), words)
    words = '--server-option has "--model-control-mode=explicit"; expected none of'
    assert_refused(call("serve", *serve_on(), "--server-option", "--model-control-mode=explicit"), words)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/with space")
    assert_refused(call("serve", *serve_on()), "the folder of temporary files is '/tmp/with space'", "set TMPDIR")


def test_performance_reads_headers_of_samples_before_kernels_are_compiled(sample):
    arguments = ("performance", "--detector", "telescope", "--sample", sample)
    spoil(sample / "event000000001-hits.csv", "particle_id", "particle")
    assert_refused(call(*arguments), "event000000001-hits.csv, line 1: no column particle_id")
    (sample / "event000000000-cells.csv").unlink()
    assert_refused(call(*arguments), "event000000000-cells.csv", "there is neither")
    assert_refused(call("performance", "--sample", sample), "are of detector telescope")
    (sample / "manifest.json").unlink()
    assert_refused(call(*arguments), "manifest.json: can't be read")
    assert FakeChain.made is None


def test_performance_reads_headers_of_tracks_before_the_first_event(sample, tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError

    monkeypatch.setattr(performance_files, "read_truth", read)
    tracks = tmp_path / "tracks"
    assert run(sample, "--output", tracks).exit_code == 0
    arguments = ("performance", "--detector", "telescope", "--truth", sample, "--tracks", tracks)
    assert isinstance(call(*arguments).exception, AssertionError)
    spoil(tracks / "event000000001-track_states.csv", "state_index", "index")
    assert_refused(call(*arguments), "event000000001-track_states.csv, line 1: no column state_index")
    spoil(sample / "event000000000-particles_initial.csv", "particle_type", "type")
    assert_refused(call(*arguments), "event000000000-particles_initial.csv, line 1: no column particle_type")
    shutil.rmtree(tracks)
    tracks.mkdir()
    (tracks / "event000000000-seeds.csv").write_text("bottom_hit,middle_hit\n")
    spoil(sample / "event000000000-particles_initial.csv", "type", "particle_type")
    assert_refused(call(*arguments), "event000000000-seeds.csv, line 1: no column top_hit")


def test_performance_says_at_once_that_plots_cannot_be_written(sample, tmp_path):
    (tmp_path / "file").touch()
    result = call("performance", "--detector", "telescope", "--sample", sample, "--plots", tmp_path / "file")
    assert result.exit_code == 1
    assert "--plots" in result.stderr
    assert FakeChain.made is None
