"""A real Triton server for the tests of the service, and what its answers are compared with."""

import contextlib
import importlib.util
import os

import pytest

from traccc_py import TrackingChain, build_detector, read_cells
from traccc_py.backend.installation import find_installation, package_folder
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import ModelSettings, ServerSettings
from traccc_py.data.sample import sample_event_path
from traccc_py.errors import ServiceError

REQUIRE_SERVICE = "TRACCC_PY_REQUIRE_SERVICE"
START_SECONDS = 240  # without compiled kernels; a warm start takes a few


def why_no_server():
    """Return what is missing for a server and its client, None if nothing is."""
    for module in ("tritonclient.grpc", "tritonclient.http"):
        if importlib.util.find_spec("tritonclient") is None or importlib.util.find_spec(module) is None:
            return 'tritonclient is not installed: pip install "tritonclient[grpc,http]"'
    try:
        find_installation()
    except ServiceError as error:
        return str(error)
    return None


def require_server():
    """Skip the test if no server can be run here, or fail if `TRACCC_PY_REQUIRE_SERVICE` is 1."""
    missing = why_no_server()
    if missing is None:
        return
    if os.environ.get(REQUIRE_SERVICE) == "1":
        pytest.fail(f"{REQUIRE_SERVICE} is 1, but {missing}", pytrace=False)
    pytest.skip(missing)


def pytest_collection_modifyitems(items):
    for item in items:
        if "service" in item.path.parts and {"server", "sharing_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.service)


@pytest.fixture(scope="session")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="session")
def chain(detector):
    chain = TrackingChain(detector, device="cpu", threads=1)
    chain.initialize()
    return chain


@pytest.fixture(scope="session")
def sample_cells():
    return read_cells(sample_event_path())


@pytest.fixture(scope="session")
def sample_result(chain, sample_cells):
    return chain.run(sample_cells)


@contextlib.contextmanager
def running_server(detector, folder, **options):
    """Run a server of the Open Data Detector, one CPU instance; the chain has filled the cache of kernels."""
    require_server()
    repository = ModelRepository(
        ModelSettings(threads=1), fingerprint=detector.fingerprint, package_folder=package_folder()
    )
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port"), 0)
    settings = ServerSettings(**ports, exit_timeout=5, log_file=folder / "server.log", **options)
    with TritonServer(repository, settings) as running:
        running.start_until_ready(START_SECONDS)
        yield running


@pytest.fixture(scope="session")
def server(chain, detector, tmp_path_factory):
    """Return a server as it is by default."""
    with running_server(detector, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def sharing_server(chain, detector, tmp_path_factory):
    """Return a server that shares memory with clients."""
    with running_server(detector, tmp_path_factory.mktemp("server"), shared_memory="local") as running:
        yield running


def url(server, protocol):
    return f"127.0.0.1:{getattr(server.ports, protocol)}"


@pytest.fixture(scope="session")
def grpc_url(server):
    return f"127.0.0.1:{server.ports.grpc}"


@pytest.fixture(scope="session")
def http_url(server):
    return f"127.0.0.1:{server.ports.http}"
