"""What clients and other users of the machine can do to a server: nothing but have events reconstructed."""

import http.client
import itertools
import json
import os
import pwd
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.service.conftest import START_SECONDS, require_server
from traccc_py import wire
from traccc_py.backend.installation import package_folder
from traccc_py.backend.leftovers import SHARED_MEMORY
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import ModelSettings, ServerSettings
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ServiceError

client_module = pytest.importorskip("traccc_py.client")
grpc_client = pytest.importorskip("tritonclient.grpc")

MODEL_CODE = "import os; open('/tmp/owned', 'w')"
# What must be closed over HTTP, with a body that would do something where it is open.
ROUTES = {
    "/v2/repository/index": {},
    f"/v2/repository/models/{wire.MODEL}/load": {"parameters": {"file:1/model.py": MODEL_CODE, "config": "{}"}},
    f"/v2/repository/models/{wire.MODEL}/unload": {},
    "/v2/repository/models/other/load": {},
    "/v2/logging": {"log_verbose_level": 1},
    "/v2/trace/setting": {"trace_level": ["TIMESTAMPS"]},
    f"/v2/models/{wire.MODEL}/trace/setting": {"trace_level": ["TIMESTAMPS"]},
    "/v2/systemsharedmemory/region/r/register": {"key": "/r", "offset": 0, "byte_size": 8},
    "/v2/systemsharedmemory/unregister": {},
    "/v2/cudasharedmemory/region/r/register": {"raw_handle": {"b64": ""}, "device_id": 0, "byte_size": 8},
    "/v2/cudasharedmemory/unregister": {},
}
GETS = ("/v2/logging", "/v2/trace/setting", "/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status")
CALLS = {
    "index": lambda c, h: c.get_model_repository_index(headers=h),
    "load": lambda c, h: c.load_model(wire.MODEL, headers=h),
    "load a file": lambda c, h: c.load_model(wire.MODEL, headers=h, config="{}", files={"file:1/model.py": b"x"}),
    "unload": lambda c, h: c.unload_model(wire.MODEL, headers=h),
    "log settings": lambda c, h: c.get_log_settings(headers=h),
    "change log settings": lambda c, h: c.update_log_settings({"log_verbose_level": 1}, headers=h),
    "trace settings": lambda c, h: c.get_trace_settings(headers=h),
    "change trace settings": lambda c, h: c.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}, headers=h),
    "register": lambda c, h: c.register_system_shared_memory("r", "/r", 8, headers=h),
    "unregister": lambda c, h: c.unregister_system_shared_memory(headers=h),
    "status": lambda c, h: c.get_system_shared_memory_status(headers=h),
    "CUDA status": lambda c, h: c.get_cuda_shared_memory_status(headers=h),
    "CUDA register": lambda c, h: c.register_cuda_shared_memory("r", b"", 0, 8, headers=h),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return a server as it is by default."""
    require_server()
    repository = ModelRepository(
        ModelSettings(DetectorOptions("telescope"), threads=1), package_folder=package_folder()
    )
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port"), 0)
    log = tmp_path_factory.mktemp("server") / "server.log"
    with TritonServer(repository, ServerSettings(**ports, exit_timeout=5, log_file=log)) as running:
        running.start_until_ready(START_SECONDS)
        yield running


READER = """
import json, sys
from pathlib import Path
found = {}
for entry in Path("/proc").iterdir():
    if entry.name.isdigit():
        for name in ("cmdline", "environ"):
            try:
                found[f"{entry.name} {name}"] = (entry / name).read_text(errors="replace")
            except OSError:
                pass
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def words(server):
    """Return (header, value) pairs that another user of the machine may find in /proc and try."""
    other = {"user": pwd.getpwnam("nobody").pw_uid, "group": 65534, "extra_groups": ()} if os.geteuid() == 0 else {}
    python = "/usr/bin/python3" if other and Path("/usr/bin/python3").exists() else sys.executable
    done = subprocess.run([python, "-c", READER], capture_output=True, text=True, check=True, **other)
    texts = [text for key, text in json.loads(done.stdout).items() if "tritonserver" in text]
    assert any(f"--http-port={server.ports.http}" in text for text in texts), "it could not see the server"
    if other:
        assert not any("MALLOC_ARENA_MAX" in text for text in texts), "it could see the environment"
    pairs = {(name, value) for text in texts for name, value in re.findall(r":([\w -]+)=([^\0]*)", text)}
    assert ("closed to all", "no\none") in pairs
    return sorted(
        (name.replace(" ", space), piece)
        for name, value in pairs
        for piece in {value, *value.split("\n"), value.replace("\n", " "), ""}
        for space in (" ", "-", "", "_")
    )


def ask(server, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=10)
    connection.request(
        "GET" if body is None else "POST", path, None if body is None else json.dumps(body), dict(headers)
    )
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text


def test_no_word_opens_anything_over_http(server, words):
    sendable = [pair for pair in words if "\n" not in pair[1] and " " not in pair[0]]
    assert sendable
    for path, body in [*ROUTES.items(), *((path, None) for path in GETS)]:
        for headers in ([], *([pair] for pair in sendable)):
            status, text = ask(server, path, body, headers)
            assert status == 403, (path, headers, status, text)


VALUES = ("no\none", "no\r\none", "no\x00one", "no\r\n one", "no%0aone", "no\\none")
NAMES = (
    "closed to all",
    "closed\tto\tall",
    "closed\x00to all",
    "closed%20to%20all",
    "CLOSED TO ALL",
    '"closed to all"',
)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", NAMES)
def test_raw_bytes_do_not_make_the_word_over_http(server, name, value):
    request = f"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{name}: {value}\r\n\r\n{{}}"
    with socket.create_connection(("127.0.0.1", server.ports.http), timeout=5) as connection:
        connection.sendall(request.encode())
        connection.settimeout(0.5)
        try:
            answer = connection.recv(4096)
        except TimeoutError:
            answer = b""  # dropped
    assert not answer.startswith(b"HTTP/1.1 200"), answer


def test_no_word_opens_anything_over_grpc(server, words):
    from tritonclient.utils import InferenceServerException

    with grpc_client.InferenceServerClient(f"127.0.0.1:{server.ports.grpc}") as client:
        for (_, call), (name, value) in itertools.product(CALLS.items(), [("x", ""), *words]):
            if "\n" in value or " " in name:
                continue  # the client refuses to send it
            for header in (name, f"triton-grpc-protocol-{name}"):
                with pytest.raises(InferenceServerException, match="This protocol is restricted"):
                    call(client, {header: value})


def frame(kind, flags, stream, content):
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def grpc_call(port, method, headers):
    """Call a method that needs no arguments with headers of any bytes; return the kinds of the frames that come."""
    pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/inference.GRPCInferenceService/{method}"),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *headers,
    ]
    block = b"".join(
        b"\x00" + b"".join(bytes([len(t.encode())]) + t.encode() for t in pair) for pair in pairs
    )  # literal, not indexed
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    kinds = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(preface + frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5)))
        connection.settimeout(0.5)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except TimeoutError:
            pass
    while len(received) >= 9:
        size = int.from_bytes(received[:3], "big")
        kinds.append((received[3], int.from_bytes(received[5:9], "big")))
        received = received[9 + size :]
    return [kind for kind, stream in kinds if stream == 1]


@pytest.mark.parametrize("value", VALUES[:3])
@pytest.mark.parametrize("name", [f"triton-grpc-protocol-{name}" for name in NAMES])
def test_raw_bytes_do_not_make_the_word_over_grpc(server, name, value):
    data = 0
    assert data in grpc_call(server.ports.grpc, "ServerLive", []), "the call itself is wrong"
    assert data not in grpc_call(server.ports.grpc, "RepositoryIndex", [])
    assert data not in grpc_call(server.ports.grpc, "RepositoryIndex", [(name, value)])


def test_loading_is_off_even_where_it_is_not_closed(tmp_path):
    """The mode of the server, which takes no models from anybody, is the second lock."""
    require_server()
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port"), 0)
    repository = ModelRepository(
        ModelSettings(DetectorOptions("telescope"), threads=1), package_folder=package_folder()
    )
    with TritonServer(repository, ServerSettings(**ports, exit_timeout=2, log_file=tmp_path / "log")) as server:
        command = [word for word in server.command() if "restricted" not in word]
        server.command = lambda: command
        server.start_until_ready(START_SECONDS)
        for what in ("load", "unload"):
            status, text = ask(server, f"/v2/repository/models/{wire.MODEL}/{what}", {})
            assert status != 200
            assert "not allowed" in text


def test_shared_memory_of_instances_is_private(server):
    regions = list(SHARED_MEMORY.glob(f"{server._shared_memory.prefix}*"))
    assert len(regions) == 2  # of the instance, and the lock
    for region in regions:
        assert region.stat().st_mode & 0o077 == 0


def test_client_is_told_that_shared_memory_is_off(server):
    from tests.integration.small_events import telescope, telescope_cells

    cells = telescope_cells(3, 1, telescope())
    for port, protocol in ((server.ports.grpc, "grpc"), (server.ports.http, "http")):
        url = f"127.0.0.1:{port}"
        before = set(SHARED_MEMORY.glob("traccc_py_*"))
        with (
            client_module.TrackingClient(url, protocol, shared_memory="system", retries=20) as client,
            pytest.raises(ServiceError, match=r"does not share memory with clients: .*--shared-memory local"),
        ):
            client.reconstruct(cells)
        assert set(SHARED_MEMORY.glob("traccc_py_*")) == before


def test_clients_see_no_paths(server):
    """Of this machine, in anything they may read."""
    folders = {str(Path.home()), str(package_folder()), sys.prefix, server._folder.name, "/dev/shm"}
    texts = [ask(server, path)[1] for path in ("/v2", "/v2/health/ready")]
    for model in (wire.MODEL, wire.COMPACT_MODEL):
        texts += [ask(server, f"/v2/models/{model}{path}")[1] for path in ("", "/config", "/stats")]
    bad = np.full((1, 4), 77).tolist()
    body = {
        "inputs": [
            {"name": "CELL_POSITIONS", "shape": [1, 4], "datatype": "INT64", "data": bad},
            {"name": "CELL_PROPERTIES", "shape": [1, 2], "datatype": "FP32", "data": [[0, 0.1]]},
        ]
    }
    texts.append(ask(server, f"/v2/models/{wire.MODEL}/infer", body)[1])
    assert "geometry_id is 77" in texts[-1]
    for text, folder in itertools.product(texts, folders):
        assert folder not in text
        assert "Traceback" not in text


@pytest.mark.parametrize("n_cells", [1, 3, 1000])
def test_raw_cells_of_traccc_aas_are_refused_by_name(server, n_cells):
    """Its branch accept-raw-cell-buffer: the number of cells in 8 bytes, then five columns of 4 bytes a cell."""
    columns = np.zeros((5, n_cells), np.uint32)
    content = np.uint64(n_cells).tobytes() + columns.tobytes()
    body = {"inputs": [{"name": "CELLS", "shape": [len(content)], "datatype": "UINT8", "data": list(content)}]}
    status, text = ask(server, f"/v2/models/{wire.MODEL}/infer", body)
    assert status == 400
    assert "CELLS is as in traccc-aaS's branch accept-raw-cell-buffer" in text
