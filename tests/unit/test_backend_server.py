"""The model repository, the launcher's command and the watchdog, without a server."""

import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from traccc_py import wire
from traccc_py.backend import server as server_module
from traccc_py.backend.installation import Installation, version_warning
from traccc_py.backend.ports import check_port
from traccc_py.backend.processes import living_members
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import SETTINGS_FILE, ModelSettings, QueueSettings, SchedulingSettings, ServerSettings
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError, ServiceError

TENSOR = re.compile(
    r'^(input|output) \[ \{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[ ([-\d, ]+) \] (.*) \} \]$', re.M
)


def tensors(config, direction):
    """Return {name: (type, dims, rest)} of a config.pbtxt."""
    found = {}
    for kind, name, dtype, dims, rest in TENSOR.findall(config):
        if kind == direction:
            found[name] = (dtype, tuple(int(d) for d in dims.split(",")), rest)
    return found


def sleeping(folder):
    """An installation whose server does nothing for a minute."""
    binary = folder / "tritonserver"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    return Installation(binary)


@pytest.mark.parametrize(
    ("model", "direction", "specs"),
    [
        (wire.MODEL, "input", (*wire.STANDARD_INPUTS, *wire.COMPACT_INPUTS)),
        (wire.MODEL, "output", wire.OUTPUTS),
        (wire.COMPACT_MODEL, "input", wire.COMPACT_INPUTS),
        (wire.COMPACT_MODEL, "output", wire.OUTPUTS),
    ],
)
def test_configs_are_those_of_the_table(model, direction, specs):
    config = ModelRepository().configs()[model]
    found = tensors(config, direction)
    assert {name: entry[:2] for name, entry in found.items()} == {s.name: (s.triton_dtype, s.dims) for s in specs}
    for spec in specs:
        is_mapped = f'{direction}_map {{ key: "{spec.name}" value: "{spec.name}" }}' in config
        assert is_mapped == (model == wire.COMPACT_MODEL)


def test_standard_model_is_that_of_traccc_aas():
    config = ModelRepository().configs()["traccc-gpu"]
    found = {**tensors(config, "input"), **tensors(config, "output")}
    known = {
        "CELL_POSITIONS": ("INT64", (-1, 4)),
        "CELL_PROPERTIES": ("FP32", (-1, 2)),
        "TRK_PARAMS": ("FP32", (-1, 8)),
        "MEASUREMENTS": ("FP32", (-1, 6)),
        "COVARIANCES": ("FP32", (-1, 25)),
        "GEOMETRY_IDS": ("INT64", (-1,)),
    }
    assert {name: found[name][:2] for name in known} == known


def test_repository_on_disk(tmp_path):
    settings = ModelSettings(DetectorOptions("toy", digitization='a "quoted" name'), threads=2)
    repository = ModelRepository(
        settings, QueueSettings(7), SchedulingSettings(instances=3), fingerprint="f00d", package_folder=tmp_path
    )
    repository.write(tmp_path / "models")
    repository.write(tmp_path / "models")  # again, over the first
    models = tmp_path / "models"
    files = sorted(p.relative_to(models).as_posix() for p in models.rglob("*.*") if p.is_file())
    assert files == [
        "traccc-gpu-compact/config.pbtxt",
        *(f"traccc-gpu/{name}" for name in ("1/model.py", f"1/{SETTINGS_FILE}", "config.pbtxt")),
    ]
    assert (tmp_path / "models/traccc-gpu/1").is_dir()
    model = (tmp_path / "models/traccc-gpu/1/model.py").read_text()
    assert f"sys.path.insert(0, {str(tmp_path)!r})" in model
    written = json.loads((tmp_path / "models/traccc-gpu/1" / SETTINGS_FILE).read_text())
    assert ModelSettings.from_parameters(written) == settings
    assert QueueSettings.from_parameters(written) == QueueSettings(7)
    config = repository.configs()[wire.MODEL]
    assert "count: 3 kind: KIND_CPU" in config
    assert '"detector_fingerprint" value: { string_value: "f00d" }' in config


def test_clients_can_not_read_paths_of_the_server(tmp_path):
    """They can read the configuration of each model."""
    folder = "/home/someone/secret"
    settings = ModelSettings(
        DetectorOptions(detector_file=Path(f"{folder}/odd.json"), digitization=f"{folder}/d.json"),
        config=f"{folder}/c.toml",
        cache_dir=f"{folder}/cache",
        athena_map=f"{folder}/map.txt",
    )
    for config in ModelRepository(settings, package_folder=tmp_path).configs().values():
        assert "secret" not in config
        assert str(tmp_path) not in config


def test_restarts_are_told_to_the_model(tmp_path):
    ModelRepository(restarts=2).write(tmp_path)
    assert json.loads((tmp_path / "traccc-gpu/1" / SETTINGS_FILE).read_text())["restarts"] == "2"


def test_gpu_instances():
    config = ModelRepository(device="cuda", scheduling=SchedulingSettings(2, (0, 2))).configs()[wire.MODEL]
    assert "count: 2 kind: KIND_GPU gpus: [ 0, 2 ]" in config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device is 'tpu'; expected 'cpu' or 'cuda'"),
        ({"scheduling": SchedulingSettings(gpus=(0,))}, r"gpus is \[0\], but .* the device is 'cpu'"),
    ],
)
def test_impossible_repositories_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ModelRepository(**options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SchedulingSettings, {"instances": 0}, "instances is 0; expected an integer >= 1"),
        (QueueSettings, {"max_batch": 0}, "max_batch is 0; expected an integer >= 1"),
        (ServerSettings, {"shared_memory": "on"}, 'shared_memory is "on"; expected one of "off", "local", "always"'),
        (
            ServerSettings,
            {"shared_memory": "local", "address": "0.0.0.0"},
            'expected "off" or "always", because other machines may reach 0.0.0.0',
        ),
        (SchedulingSettings, {"gpus": (1, 1)}, r"gpus is \[1, 1\]; expected different numbers from 0"),
        (ServerSettings, {"http_port": 65_536}, "http_port is 65536; expected an integer from 0 to 65535"),
        *(
            (
                ServerSettings,
                {"extra_arguments": ("--log-verbose=1", option)},
                f'extra_arguments has "{option}"; expected',
            )
            for option in (
                "--model-control-mode=explicit",
                "--model-control-mode",
                "--model-con=poll",
                "--http-port=1",
                "--allow-http=false",
                "--backend-config=python,shm-region-prefix-name=x",
            )
        ),
        (ServerSettings, {"grpc_port": 8000}, "grpc_port is 8000; expected another port than http_port"),
    ],
)
def test_impossible_settings_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(**options)


def test_other_options_of_triton_are_passed_on(installation):
    """Those that the documentation names, for example."""
    options = ("--grpc-use-ssl=1", "--trace-config=rate=100", "--backend-config=python,x=1", "--log-verbose", "1")
    with TritonServer(ModelRepository(), any_ports(extra_arguments=options), installation) as server:
        assert tuple(server.command()[-len(options) :]) == options


def test_server_without_bash_is_refused(installation, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match=rf"no bash was found in PATH \({tmp_path}:{tmp_path}\);.* set PATH"):
        TritonServer(ModelRepository(), any_ports(), installation)


@pytest.mark.parametrize("name", ["with space", "a;b", "$HOME", "a'b", "(x)"])
def test_folder_that_bash_takes_apart_is_refused(installation, monkeypatch, name):
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{name}")
    message = rf"the folder of temporary files is .*{re.escape(name)}.*: set TMPDIR to another one"
    with pytest.raises(ServiceError, match=message):
        TritonServer(ModelRepository(), any_ports(), installation)


def test_log_that_can_not_be_written_is_named(installation, tmp_path):
    path = tmp_path / "missing" / "log"
    settings = any_ports(log_file=path)
    message = rf'log_file is "{path}", which can\'t be written \(No such file or directory\); expected one in a folder'
    with TritonServer(ModelRepository(), settings, installation) as server, pytest.raises(ConfigError, match=message):
        server.start()


def test_time_that_was_not_enough_is_shown_as_it_was_given(tmp_path):
    with TritonServer(ModelRepository(), any_ports(exit_timeout=0), sleeping(tmp_path)) as server:
        server.start()
        with pytest.raises(ServiceError, match=r"not ready after 0\.5 s"):
            server.wait_until_ready(0.5)


@pytest.fixture
def installation(tmp_path):
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\necho no luck\nexit 3\n")
    binary.chmod(0o755)
    return Installation(binary)


def any_ports(**options):
    return ServerSettings(http_port=0, grpc_port=0, metrics_port=0, **options)


def test_server_listens_on_this_machine_alone_by_default(installation):
    with TritonServer(ModelRepository(), any_ports(), installation) as server:
        command = server.command()
    assert {a for a in command if "-address=" in a} == {
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
    }


@pytest.mark.parametrize(("free_mb", "grows_mb"), [(8, 1), (64, 1), (1024, 16), (24_000, 64)])
def test_shared_memory_grows_in_steps_that_suit_what_there_is(installation, monkeypatch, free_mb, grows_mb):
    monkeypatch.setattr(server_module, "free_shared_memory", lambda: free_mb * 2**20)
    repository = ModelRepository(scheduling=SchedulingSettings(instances=2))
    with TritonServer(repository, any_ports(), installation) as server:
        assert f"--backend-config=python,shm-growth-byte-size={grows_mb * 2**20}" in server.command()


@pytest.mark.parametrize(("shared_memory", "apis"), [("off", ",shared-memory"), ("local", ""), ("always", "")])
def test_nobody_can_administrate_the_server(installation, shared_memory, apis):
    """No word opens these interfaces, so none has to be kept: no header has such a name and value."""
    with TritonServer(ModelRepository(), any_ports(shared_memory=shared_memory), installation) as server:
        command = server.command()
    assert "--model-control-mode=none" in command
    for option in ("http-restricted-api", "grpc-restricted-protocol"):
        closed = f"--{option}=model-repository,logging,trace{apis}:closed to all=no\none"
        assert closed in command


@pytest.mark.parametrize(
    ("version", "is_warned"), [("2.51.0", True), ("2.72.1", True), ("2.73.0", False), ("3.0", False)]
)
def test_old_servers_are_warned_of(version, is_warned):
    warning = version_warning(version)
    assert (warning is not None) == is_warned
    assert warning is None or warning.startswith(f"Triton {version} can be crashed")


def test_environment_of_the_server():
    folder = Path("/somewhere/lib")
    found = Installation(Path("tritonserver"), library_folder=folder).environment({"PATH": "/bin", "A": "1"})
    assert found["PATH"] == f"{Path(sys.executable).parent}:/bin"
    assert (found["LD_LIBRARY_PATH"], found["MALLOC_ARENA_MAX"], found["A"]) == (str(folder), "2", "1")
    assert Installation(Path("tritonserver")).environment({"MALLOC_ARENA_MAX": "8"})["MALLOC_ARENA_MAX"] == "8"


def test_server_that_ends_is_reported_with_its_log(installation, tmp_path):
    with TritonServer(ModelRepository(), any_ports(log_file=tmp_path / "log"), installation) as server:
        server.start()
        with pytest.raises(ServiceError, match=r"exited with code 3.*\nno luck"):
            server.wait_until_ready(20)


def test_server_that_hangs_is_started_again_once(tmp_path, monkeypatch):
    binary = tmp_path / "tritonserver"
    binary.write_text(f"#!/bin/sh\necho started >> {tmp_path}/starts\nexec sleep 60\n")
    binary.chmod(0o755)
    monkeypatch.setattr("traccc_py.backend.server._STALL_SECONDS", 0.3)
    with TritonServer(
        ModelRepository(), any_ports(log_file=tmp_path / "log", exit_timeout=1), Installation(binary)
    ) as server:
        with pytest.raises(ServiceError, match="hangs while it loads"):
            server.start_until_ready(20)
        server.kill()
    assert (tmp_path / "starts").read_text().split() == ["started", "started"]


def test_a_server_that_only_says_that_it_is_not_ready_hangs(tmp_path, monkeypatch):
    """It uses processor time, its instance does not."""
    used = iter(range(1000))
    monkeypatch.setattr("traccc_py.backend.server._STALL_SECONDS", 0.3)
    with TritonServer(ModelRepository(), any_ports(exit_timeout=1), sleeping(tmp_path)) as server:
        server.start()
        pid = server._process.pid
        monkeypatch.setattr("traccc_py.backend.server.cpu_seconds", lambda one: next(used) if one == pid else 5.0)
        monkeypatch.setattr(server, "instance_processes", lambda: {1})
        with pytest.raises(ServiceError, match="hangs while it loads"):
            server.wait_until_ready(5)
        server.kill()


@pytest.mark.parametrize("name", ["http", "grpc", "metrics"])
def test_taken_port_is_named(installation, name):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = replace(any_ports(), **{f"{name}_port": port})
        with pytest.raises(ServiceError, match=f"{name} port {port} .*by process {os.getpid()}: "):
            TritonServer(ModelRepository(), settings, installation)


def test_port_of_a_service_whose_server_is_down_is_not_for_another(installation):
    """While a server is started again nothing listens; neither the system nor another service may take the port."""
    with TritonServer(ModelRepository(), any_ports(), installation) as server:
        port = server.ports.http
        settings = ServerSettings(http_port=port, grpc_port=0, metrics_port=0)
        with pytest.raises(ServiceError, match=f"http port {port} .*claimed by process {os.getpid()}: "):
            TritonServer(ModelRepository(), settings, installation)
        with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
            other.bind(("127.0.0.1", port))
        with socket.socket() as own:  # of the server, which shares addresses
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(("127.0.0.1", port))
            own.listen()
    check_port("127.0.0.1", "http", port)


def test_a_port_that_is_let_go_late_is_waited_for(tmp_path):
    """The second start of a server does not fail for what the first one still holds."""
    with TritonServer(ModelRepository(), any_ports(exit_timeout=1), sleeping(tmp_path)) as server:
        server.start()
        server.kill()
        with socket.socket() as late:
            late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            late.bind(("127.0.0.1", server.ports.grpc))
            late.listen()
            timer = threading.Timer(0.5, late.close)
            timer.start()
            server.start()
            timer.join()
        assert server.is_running()


def test_nothing_of_a_killed_server_lives_when_the_next_one_starts(tmp_path):
    """An instance that has outlived its server holds shared memory; a start needs it."""
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\nsleep 60 &\nsleep 60 &\nexec sleep 60\n")
    binary.chmod(0o755)
    with TritonServer(ModelRepository(), any_ports(exit_timeout=1), Installation(binary)) as server:
        server.start()
        group = server._process.pid
        while len(living_members(group)) < 3:
            time.sleep(0.01)
        os.kill(group, signal.SIGKILL)
        server.kill()
        assert living_members(group) == set()
