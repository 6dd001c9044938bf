"""Nothing of a service outlives it, however it ends; and little shared memory is no trap."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.integration.small_events import telescope, telescope_cells
from tests.service.conftest import START_SECONDS, require_server
from tests.service.test_serve import Service, children, command_line, left_behind
from traccc_py.backend import leftovers
from traccc_py.backend import server as server_module
from traccc_py.backend.installation import Installation
from traccc_py.backend.leftovers import (
    FOLDER_PREFIX,
    SHARED_MEMORY,
    SharedMemoryFiles,
    is_in_use,
    lock_against_cleaning,
    remove_leftovers,
)
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import SchedulingSettings, ServerSettings
from traccc_py.errors import ServiceError

client_module = pytest.importorskip("traccc_py.client")
pytest.importorskip("tritonclient")

END_SECONDS = 15


def wait_until(condition, seconds=END_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def service(tmp_path):
    require_server()
    started = Service(tmp_path, "--threads", "1")
    yield started
    started.close()


def folder_of(server):
    return Path(re.search(r"--model-repository=(\S+)/models\0", command_line(server)).group(1))


@pytest.mark.parametrize("stopped", ["nothing", "instance", "server"])
def test_killed_launcher_leaves_nothing(service, stopped):
    """Also if a process is stopped, and so can not end itself."""
    (server,) = [pid for pid in children(service.process.pid) if "tritonserver" in command_line(pid)]
    instances, folder = service.instances(), folder_of(server)
    assert folder.is_dir()
    assert len(instances) == 1
    for pid in {"nothing": (), "instance": instances, "server": [server]}[stopped]:
        os.kill(pid, signal.SIGSTOP)
    service.process.kill()
    service.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in {server, *instances}))
    wait_until(lambda: not folder.exists())
    assert left_behind() == []
    for port in (service.http, service.grpc, service.metrics):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def test_second_service_is_told_whose_port_it_is(service):
    (server,) = [pid for pid in children(service.process.pid) if "tritonserver" in command_line(pid)]
    command = [sys.executable, "-m", "traccc_py", "serve", "--detector", "telescope", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--http-port", str(service.http)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "500"},
    )
    assert done.returncode == 2
    assert f"by process {server}: " in done.stderr
    assert "tritonserver" in done.stderr


def test_hanging_instance_is_noticed_and_replaced(tmp_path):
    """An instance that is stopped uses no processor time and answers nothing."""
    require_server()
    code = (
        "import sys; from traccc_py.backend import watch; from traccc_py.cli import main; "
        "import dataclasses; real = watch.Watchdog.__init__; "
        "watch.Watchdog.__init__ = lambda self, server, options, **more: "
        "real(self, server, dataclasses.replace(options, hang_timeout=2.0), **more); main()"
    )
    service = Service(tmp_path, "--threads", "1", program=("-c", code))
    try:
        (instance,) = service.instances()
        os.kill(instance, signal.SIGSTOP)
        service.wait_for(" restarts so far)", START_SECONDS)  # one, or two if the server hangs while it starts
        assert re.search(f"model instances hang: processes {instance}|is not healthy", service.text())
        wait_until(lambda: not Path(f"/proc/{instance}").exists())  # who was killed is there until it is reaped
        cells = telescope_cells(5, 1, telescope())
        with client_module.TrackingClient(f"127.0.0.1:{service.grpc}") as client:
            assert len(client.reconstruct(cells)) == 5
    finally:
        service.close()
    assert left_behind() == []


def test_shared_memory_of_dead_services_alone_is_removed():
    alive = SharedMemoryFiles()
    dead = SharedMemoryFiles()
    regions = [SHARED_MEMORY / f"{files.prefix}region" for files in (alive, dead)]
    for region in regions:
        region.write_bytes(b"x")
    os.close(dead._lock)  # as when its process ends
    removed = remove_leftovers()
    assert regions[1].name in removed
    assert regions[0].exists()
    assert not regions[1].exists()
    alive.close()
    assert not regions[0].exists()
    assert left_behind() == []


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two folders among temporary files, as servers make them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = [tmp_path / f"{FOLDER_PREFIX}{name}" for name in ("first", "second")]
    for folder in made:
        (folder / "models").mkdir(parents=True)
    return made


def test_folders_of_dead_services_alone_are_removed(folders, monkeypatch, tmp_path):
    alive, dead = folders
    other, link = tmp_path / "other", tmp_path / f"{FOLDER_PREFIX}link"
    other.mkdir()
    link.symlink_to(other)
    lock = lock_against_cleaning(alive)
    assert remove_leftovers() == []  # both are young: their locks may be yet to come
    monkeypatch.setattr(leftovers, "_LEAST_AGE", 0.0)
    assert remove_leftovers() == [dead.name]
    assert (alive / "models").is_dir()
    assert other.is_dir()
    os.close(lock)
    assert remove_leftovers() == [alive.name]
    assert link.is_symlink()


def test_folder_of_a_server_that_outlives_its_launcher_stays(installation, folders, monkeypatch):
    monkeypatch.setattr(leftovers, "_LEAST_AGE", 0.0)
    with TritonServer(ModelRepository(), any_ports(), installation) as server:
        assert not any(folder.exists() for folder in folders)  # the next service removes what others have left
        server.start()
        folder = Path(server._folder.name)
        os.close(server._lock)  # as when the launcher is killed
        remove_leftovers()
        assert folder.is_dir()
        server.kill()
        assert remove_leftovers() == [folder.name]
        folder.mkdir()
        server._lock = lock_against_cleaning(folder)


def test_shared_memory_that_can_not_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("traccc_py.backend.leftovers.SHARED_MEMORY", tmp_path / "missing")
    with pytest.raises(ServiceError, match=r"missing, .* can't be written \(No such file or directory\)"):
        SharedMemoryFiles()


@pytest.fixture
def installation(tmp_path):
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    return Installation(binary)


def any_ports():
    return ServerSettings(http_port=0, grpc_port=0, metrics_port=0)


def test_too_little_shared_memory_is_said_at_the_start(installation, monkeypatch):
    monkeypatch.setattr(server_module, "free_shared_memory", lambda: 8 * 2**20)
    repository = ModelRepository(scheduling=SchedulingSettings(instances=2))
    message = r"/dev/shm has 8 MB free; expected at least 9 MB for 2 model instances: .*--shm-size"
    with TritonServer(repository, any_ports(), installation) as server, pytest.raises(ServiceError, match=message):
        server.start()


def test_little_shared_memory_limits_what_may_wait(installation, monkeypatch, caplog):
    monkeypatch.setattr(server_module, "free_shared_memory", lambda: 64 * 2**20)
    with TritonServer(ModelRepository(), any_ports(), installation) as server:
        server.start()
        settings = (server._models / "traccc-gpu" / "1" / "settings.json").read_text()
        server.kill()
    assert '"queue_cells": "838860"' in settings
    assert "at most 838860 cells may wait" in caplog.text


def test_deleted_folder_does_not_end_the_service(service):
    """Folders of temporary files are cleaned now and then."""
    (server,) = [pid for pid in children(service.process.pid) if "tritonserver" in command_line(pid)]
    subprocess.run(["rm", "-r", str(folder_of(server))], check=True)
    os.kill(server, signal.SIGKILL)
    service.wait_for("(1 restarts so far)", START_SECONDS)
    with client_module.TrackingClient(f"127.0.0.1:{service.grpc}") as client:
        assert len(client.reconstruct(telescope_cells(5, 1, telescope()))) == 5
    service.process.terminate()
    assert service.process.wait(END_SECONDS) == 0
    assert left_behind() == []


CLIENT = """
import os, signal, sys
from tests.integration.small_events import telescope, telescope_cells
from traccc_py.client import TrackingClient
client = TrackingClient(sys.argv[1], shared_memory="system", retries=0)
client.reconstruct(telescope_cells(5, 1, telescope()))
os.kill(os.getpid(), signal.SIGKILL)
"""


def registered(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/v2/systemsharedmemory/status")
    found = json.loads(connection.getresponse().read())
    connection.close()
    return {region["name"] for region in found}


def test_memory_of_killed_clients_is_released(tmp_path):
    require_server()
    service = Service(tmp_path, "--threads", "1", "--shared-memory", "local")
    try:
        url = f"127.0.0.1:{service.grpc}"
        cells = telescope_cells(5, 1, telescope())
        with client_module.TrackingClient(url, shared_memory="system") as living:
            living.reconstruct(cells)
            (its_own,) = registered(service.http)
            for _ in range(2):
                done = subprocess.run([sys.executable, "-c", CLIENT, url], capture_output=True, check=False)
                assert done.returncode == -signal.SIGKILL, done.stderr
            wait_until(lambda: registered(service.http) == {its_own})
            assert len(living.reconstruct(cells)) == 5
    finally:
        service.close()


def is_ready(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def test_readiness_is_true(service):
    """A balancer that only asks for it sends nothing to a dead instance for long, and then to one that works."""
    (instance,) = service.instances()
    assert is_ready(service.http)
    os.kill(instance, signal.SIGKILL)
    wait_until(lambda: not is_ready(service.http), 3)
    wait_until(lambda: is_ready(service.http), START_SECONDS)
    with client_module.TrackingClient(f"127.0.0.1:{service.http}", "http", retries=0) as client:
        assert len(client.reconstruct(telescope_cells(5, 1, telescope()))) == 5


def test_files_are_in_use_as_long_as_their_owner_lives():
    files = SharedMemoryFiles()
    region = SHARED_MEMORY / f"{files.prefix}region"
    region.touch()
    try:
        assert is_in_use(region)
        assert not is_in_use(SHARED_MEMORY / "traccc_py_server_gone_region")
    finally:
        files.close()
    assert not region.exists()
