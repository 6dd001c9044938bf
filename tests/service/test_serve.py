"""`traccc-py serve` as a process: a dead instance is noticed and replaced, and the end is clean."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.small_events import telescope, telescope_cells
from tests.service.conftest import START_SECONDS, require_server
from traccc_py import TrackingChain, wire
from traccc_py.backend.leftovers import SHARED_MEMORY, remove_leftovers
from traccc_py.backend.ports import free_ports
from traccc_py.backend.processes import living_instances, shared_region
from traccc_py.errors import ServiceError

client_module = pytest.importorskip("traccc_py.client")
pytest.importorskip("tritonclient")
TrackingClient = client_module.TrackingClient

RECOVERY_SECONDS = 10
CLEAN_END_SECONDS = 20
METRICS_SECONDS = 1.0  # counters are sent a few times a second


def left_behind():
    """Return shared memory of servers that nobody owns, after it was removed."""
    removed = remove_leftovers()
    files = {path.name for path in SHARED_MEMORY.glob("traccc_py_server_*")}
    locked = tuple(name.removesuffix(".lock") for name in files if name.endswith(".lock"))
    return [*removed, *(name for name in files if not name.startswith(locked))]


class Service:
    """A running `traccc-py serve`."""

    def __init__(self, folder, *options, program=("-m", "traccc_py")):
        self.http, self.grpc, self.metrics = free_ports("127.0.0.1", 3)
        self.log, self.server_log = folder / "launcher.log", folder / "server.log"
        ports = ["--http-port", self.http, "--grpc-port", self.grpc, "--metrics-port", self.metrics]
        command = [sys.executable, *program, "serve", "--detector", "telescope", "--device", "cpu", *ports]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*map(str, command), "--server-log", str(self.server_log), *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "300"},
            )
        self.wait_for("ready in", START_SECONDS)
        self.start_seconds = float(re.search(r"ready in ([0-9.]+) s", self.text()).group(1))

    def text(self):
        return self.log.read_text()

    def wait_for(self, words, seconds):
        deadline = time.monotonic() + seconds
        while words not in self.text():
            assert self.process.poll() is None, self.text() + self.server_log.read_text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def n_restarts(self):
        """Return how often the server was started again, once it answers."""
        deadline = time.monotonic() + START_SECONDS
        while (n := self.text().count("the server is restarted")) != self.last_restart():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)
        return n

    def last_restart(self):
        """Return the number of the last one that succeeded."""
        return int(re.findall(r"\((\d+) restarts so far\)", "(0 restarts so far)" + self.text())[-1])

    def wait_for_restart(self, after):
        """Wait until the server answers again."""
        deadline = time.monotonic() + START_SECONDS
        while self.last_restart() <= after:
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def instances(self):
        (server,) = [pid for pid in children(self.process.pid) if "tritonserver" in command_line(pid)]
        return living_instances(server)

    def metric(self, name):
        """Return the value, which all instances have."""
        time.sleep(METRICS_SECONDS)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics") as answer:
            values = re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", answer.read().decode(), re.MULTILINE)
        (value,) = set(map(float, values))
        return value

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.fixture(scope="module")
def service(tls_files, tmp_path_factory):
    require_server()
    key, certificate = tls_files
    options = ["--grpc-use-ssl=1", f"--grpc-server-cert={certificate}", f"--grpc-server-key={key}"]
    started = Service(
        tmp_path_factory.mktemp("serve"),
        *("--instances", "2", "--threads", "1", "--max-batch", "4"),
        *(word for option in options for word in ("--server-option", option)),
    )
    yield started
    started.close()


@pytest.fixture(scope="module")
def event():
    return telescope_cells(5, 1, telescope())


@pytest.fixture(scope="module")
def expected(event):
    tracks = wire.unpack_tracks(wire.pack_result(TrackingChain(telescope(), device="cpu", threads=1).run(event)))
    assert len(tracks) == 5
    return tracks


def same_tracks(found, expected):
    return all(values.tobytes() == expected.columns()[name].tobytes() for name, values in found.columns().items())


def test_gives_its_ports_and_shares_the_cores(service):
    words = rf"gRPC 127\.0\.0\.1:{service.grpc}, HTTP 127\.0\.0\.1:{service.http}"
    assert re.search(words, service.text())
    assert len(service.instances()) == 2
    service.wait_for("can be crashed by small malformed requests", METRICS_SECONDS)  # this server is an old one


def test_encrypted(service, tls_files, event, expected):
    tls = client_module.Tls(ca=tls_files[1])
    with TrackingClient(f"localhost:{service.grpc}", tls=tls, headers={"authorization": "token"}) as client:
        assert same_tracks(client.reconstruct(event), expected)
    with TrackingClient(f"localhost:{service.grpc}", timeout=3, retries=0) as client, pytest.raises(ServiceError):
        client.reconstruct(event)


def test_dead_instances_are_replaced_under_load(service, event, expected):
    """Kill both instances: clients that repeat lose nothing, others get errors that say what happened."""
    url, results, stop = f"127.0.0.1:{service.http}", [], threading.Event()

    def load(retries):
        with TrackingClient(url, "http", retries=retries, timeout=START_SECONDS) as client:
            while not stop.is_set():
                begin = time.monotonic()
                try:
                    outcome = same_tracks(client.reconstruct(event), expected)
                except ServiceError as error:
                    outcome = error
                results.append((begin, time.monotonic(), retries, outcome))

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, retries) for retries in (0, 0, 100, 100)]
        time.sleep(0.5)
        before = service.n_restarts()
        old, killed = service.instances(), time.monotonic()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        service.wait_for_restart(before)
        recovered = time.monotonic()
        time.sleep(0.5)
        stop.set()
        for future in loads:
            future.result(START_SECONDS)
    errors = [(begin, end, outcome) for begin, end, retries, outcome in results if outcome is not True]
    assert all(isinstance(outcome, ServiceError) for _, _, outcome in errors), "wrong tracks"
    lost = [str(outcome) for _, _, retries, outcome in results if retries and outcome is not True]
    assert lost == [], "repeated events were lost"
    assert errors
    for begin, end, error in errors:
        assert end > killed
        assert begin < recovered
        assert re.search("can't be reached|did not answer|is not loaded at the moment", str(error)), error
    first = min(end for begin, end, _, outcome in results if outcome is True and begin > killed)
    # A machine that is busy otherwise, or only now, takes longer for everything, the start among it.
    assert min(recovered, first) - killed < max(RECOVERY_SECONDS, 2 * service.start_seconds)
    assert len(service.instances() - old) == 2
    assert service.n_restarts() == before + 1, service.text()
    assert service.metric("traccc_py_restarts_total") == before + 1


def test_one_dead_instance_of_two_is_replaced(service, event, expected):
    before, old = service.n_restarts(), service.instances()
    regions = [shared_region(pid) for pid in old]
    assert all(region.exists() for region in regions)
    os.kill(min(old), signal.SIGKILL)
    service.wait_for_restart(before)
    with TrackingClient(f"127.0.0.1:{service.http}", "http") as client:
        assert same_tracks(client.reconstruct(event), expected)
    assert not service.instances() & old
    assert len(service.instances()) == 2
    assert not any(region.exists() for region in regions)


@pytest.mark.parametrize("is_down", [False, True])
def test_second_service_on_the_same_port_is_refused(service, is_down):
    """Also while the server of the first one is being started again, and nobody listens."""
    before = service.n_restarts()
    if is_down:
        for pid in service.instances():
            os.kill(pid, signal.SIGKILL)
    command = [sys.executable, "-m", "traccc_py", "serve", "--detector", "telescope", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--http-port", str(service.http)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert f"--http-port: port {service.http} of 127.0.0.1 can't be used" in done.stderr
    assert "trying the settings" not in done.stderr
    if is_down:
        service.wait_for_restart(before)


def test_end_is_clean(service, expected):
    """SIGTERM lets requests in flight finish; the last test of this file, as the service is gone then."""
    large = telescope_cells(200, 3, telescope())
    with TrackingClient(f"127.0.0.1:{service.http}", "http", retries=0) as client, ThreadPoolExecutor(4) as pool:
        client.reconstruct(large)
        futures = [pool.submit(client.reconstruct, large) for _ in range(4)]
        time.sleep(0.03)
        assert not all(future.done() for future in futures)
        begin = time.monotonic()
        service.process.terminate()
        assert [len(future.result(60)) for future in futures] == [len(futures[0].result())] * 4
        assert service.process.wait(CLEAN_END_SECONDS) == 0
        assert time.monotonic() - begin < CLEAN_END_SECONDS
    assert "requests in flight finish" in service.text()
    assert children(service.process.pid) == []
    assert left_behind() == []
