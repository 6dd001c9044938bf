"""The model repository, the launcher's command and the watchdog, without a server."""

import re
import socket
import sys
import threading
from pathlib import Path

import pytest

from traccc_py import wire
from traccc_py.backend.installation import Installation
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import ModelSettings, SchedulingSettings, ServerSettings
from traccc_py.backend.watch import Watchdog, WatchOptions
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


@pytest.mark.parametrize(
    ("model", "direction", "specs"),
    [
        (wire.MODEL, "input", wire.STANDARD_INPUTS),
        (wire.MODEL, "output", (*wire.STANDARD_OUTPUTS, wire.STAGE_TIMES)),
        (wire.COMPACT_MODEL, "input", wire.COMPACT_INPUTS),
        (wire.COMPACT_MODEL, "output", wire.OUTPUTS),
        (wire.CORE_MODEL, "input", (*wire.STANDARD_INPUTS, *wire.COMPACT_INPUTS)),
        (wire.CORE_MODEL, "output", wire.OUTPUTS),
    ],
)
def test_configs_are_those_of_the_table(model, direction, specs):
    config = ModelRepository().configs()[model]
    found = tensors(config, direction)
    assert {name: entry[:2] for name, entry in found.items()} == {s.name: (s.triton_dtype, s.dims) for s in specs}
    if model != wire.CORE_MODEL:
        for spec in specs:
            assert f'{direction}_map {{ key: "{spec.name}" value: "{spec.name}" }}' in config
            assert found[spec.name][2] == f"reshape {{ shape: [ {', '.join(map(str, (1, *spec.dims)))} ] }}"


def test_standard_model_is_that_of_traccc_aas():
    config = ModelRepository().configs()["traccc-gpu"]
    found = {**tensors(config, "input"), **tensors(config, "output")}
    assert {name: entry[:2] for name, entry in found.items() if name != "STAGE_TIMES"} == {
        "CELL_POSITIONS": ("INT64", (-1, 4)),
        "CELL_PROPERTIES": ("FP32", (-1, 2)),
        "TRK_PARAMS": ("FP32", (-1, 8)),
        "MEASUREMENTS": ("FP32", (-1, 6)),
        "COVARIANCES": ("FP32", (-1, 25)),
        "GEOMETRY_IDS": ("INT64", (-1,)),
    }


def test_repository_on_disk(tmp_path):
    settings = ModelSettings(DetectorOptions("toy", digitization='a "quoted" name'), threads=2)
    repository = ModelRepository(settings, SchedulingSettings(instances=3), fingerprint="f00d", package_folder=tmp_path)
    repository.write(tmp_path / "models")
    repository.write(tmp_path / "models")  # again, over the first
    files = sorted(p.relative_to(tmp_path / "models").as_posix() for p in (tmp_path / "models").rglob("*.p*"))
    assert files == sorted([*(f"{name}/config.pbtxt" for name in repository.configs()), "traccc-gpu-core/1/model.py"])
    assert (tmp_path / "models/traccc-gpu/1").is_dir()
    model = (tmp_path / "models/traccc-gpu-core/1/model.py").read_text()
    assert f"sys.path.insert(0, {str(tmp_path)!r})" in model
    core = repository.configs()[wire.CORE_MODEL]
    assert "count: 3 kind: KIND_CPU" in core
    assert r'key: "digitization" value: { string_value: "a \"quoted\" name" }' in core
    assert '"detector_fingerprint" value: { string_value: "f00d" }' in repository.configs()[wire.MODEL]


def test_recoveries_are_told_to_the_model(tmp_path):
    ModelRepository().write(tmp_path)
    ModelRepository(reloads=4, restarts=2).write_core_config(tmp_path)
    config = (tmp_path / "traccc-gpu-core/config.pbtxt").read_text()
    assert 'key: "reloads" value: { string_value: "4" }' in config
    assert 'key: "restarts" value: { string_value: "2" }' in config


def test_gpu_instances():
    config = ModelRepository(device="cuda", scheduling=SchedulingSettings(2, (0, 2), queue_delay_us=50)).configs()[
        wire.CORE_MODEL
    ]
    assert "count: 2 kind: KIND_GPU gpus: [ 0, 2 ]" in config
    assert "dynamic_batching { max_queue_delay_microseconds: 50 }" in config


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
        (SchedulingSettings, {"max_batch": 0}, "max_batch is 0; expected an integer >= 1"),
        (SchedulingSettings, {"gpus": (1, 1)}, r"gpus is \[1, 1\]; expected different numbers from 0"),
        (ServerSettings, {"http_port": 65_536}, "http_port is 65536; expected an integer from 0 to 65535"),
        (ServerSettings, {"grpc_port": 8000}, "grpc_port is 8000; expected another port than http_port"),
    ],
)
def test_impossible_settings_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        kind(**options)


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
    (restriction,) = (a for a in command if a.startswith("--http-restricted-api="))
    assert re.fullmatch(r"--http-restricted-api=model-repository,logging,trace:traccc-admin=[0-9a-f]{32}", restriction)


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


def test_taken_port_is_named(installation):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = ServerSettings(http_port=port, grpc_port=0, metrics_port=0)
        with (
            TritonServer(ModelRepository(), settings, installation) as server,
            pytest.raises(ServiceError, match=f"http port {port}"),
        ):
            server.start()


class FakeServer:
    """A server whose faults the test decides on."""

    def __init__(self):
        self.running, self.instances, self.problem = True, {1, 2}, None
        self.reload_helps = True
        self.failing_restarts = 0
        self.calls = []
        self.recorded = None

    def is_running(self):
        return self.running

    def exit_code(self):
        return None if self.running else -9

    def probe(self, timeout):
        self.calls.append("probe")
        return self.problem

    def instance_processes(self):
        return set(self.instances)

    def record(self, reloads, restarts):
        self.recorded = (reloads, restarts)

    def reload(self, timeout):
        self.calls.append("reload")
        if not self.reload_helps:
            msg = "can't load"
            raise ServiceError(msg)
        self.instances, self.problem = {3, 4}, None

    def stop(self):
        self.calls.append("stop")
        self.running = False

    def start(self):
        self.calls.append("start")
        if self.failing_restarts:
            self.failing_restarts -= 1
            msg = "can't start"
            raise ServiceError(msg)
        self.running, self.instances, self.problem = True, {5, 6}, None

    def wait_until_ready(self, timeout):
        self.calls.append("wait")


FAST = WatchOptions(period=0.001, probe_period=0.0, first_backoff=0.001, last_backoff=0.002)


def watch_until_well(server, break_it):
    dog = Watchdog(server, FAST)
    assert dog.look() is None
    server.calls.clear()
    break_it()
    thread = threading.Thread(target=dog.run)
    thread.start()
    for _ in range(2000):
        if dog.n_reloads + dog.n_restarts and dog.look() is None:
            break
        thread.join(0.002)
    dog.stop()
    thread.join(5)
    assert not thread.is_alive()
    return dog


def test_dead_instance_is_replaced():
    server = FakeServer()
    dog = watch_until_well(server, lambda: server.instances.discard(2))
    assert (dog.n_reloads, dog.n_restarts) == (1, 0)
    assert server.calls[:2] == ["reload", "probe"]


def test_instance_that_does_not_answer_is_replaced():
    server = FakeServer()
    dog = watch_until_well(server, lambda: setattr(server, "problem", "no answer"))
    assert (dog.n_reloads, dog.n_restarts) == (1, 0)


def test_dead_server_is_started_again():
    server = FakeServer()
    dog = watch_until_well(server, lambda: setattr(server, "running", False))
    assert (dog.n_reloads, dog.n_restarts) == (0, 1)
    assert server.calls[:4] == ["stop", "start", "wait", "probe"]


def test_restart_follows_a_reload_that_does_not_help():
    server = FakeServer()
    server.reload_helps, server.failing_restarts = False, 2
    dog = watch_until_well(server, server.instances.clear)
    assert (dog.n_reloads, dog.n_restarts) == server.recorded == (1, 3)
