"""The package's client against the real server: same tracks whatever the way, and errors that say what happened."""

import asyncio
import gc
import http.client
import json
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import _why_no_gpu
from tests.old_client import KNOWN_OUTPUTS, old_request
from tests.service.conftest import url
from traccc_py import wire
from traccc_py.edm import STAGES, Cells
from traccc_py.errors import ConfigError, DeviceUnavailableError, InputDataError, ServiceError, WireError

client_module = pytest.importorskip("traccc_py.client")
pytest.importorskip("tritonclient")
TrackingClient, AsyncTrackingClient = client_module.TrackingClient, client_module.AsyncTrackingClient

ALL = [spec.name for spec in wire.OUTPUTS]
SIZES = (663, 0, 120, 300, 20)
PROTOCOLS = ("grpc", "http")


def first_cells(cells, n):
    return Cells(*(getattr(cells, name)[:n] for name in Cells.__slots__))


@pytest.fixture(scope="module")
def events(sample_cells):
    return [first_cells(sample_cells, n) for n in SIZES]


@pytest.fixture(scope="module")
def expected(chain, events):
    return [wire.unpack_tracks(wire.pack_result(chain.run(cells))) for cells in events]


@pytest.fixture(params=PROTOCOLS)
def address(request):
    """Return (url, protocol), of a server that shares memory if the test's options are of that kind."""
    is_shared = "shared_memory" in getattr(request.node, "callspec", request).params.get("options", {})
    server = request.getfixturevalue("sharing_server" if is_shared else "server")
    return url(server, request.param), request.param


def assert_same_tracks(found, expected):
    columns, known = found.columns(), expected.columns()
    assert len(columns) >= 4
    for name, values in columns.items():
        assert values.shape == known[name].shape, name
        assert values.tobytes() == known[name].tobytes(), name


@pytest.mark.parametrize(
    "options",
    [{}, {"compact": True}, {"shared_memory": "system"}, {"compact": True, "shared_memory": "system", "outputs": ALL}],
    ids=["standard", "compact", "shared memory", "compact, all tensors, shared memory"],
)
def test_tracks_are_those_of_the_chain(address, options, events, expected):
    assert len(expected[0]) == 20
    with TrackingClient(*address, **options) as client:
        for cells, tracks in zip(events, expected, strict=True):
            assert_same_tracks(client.reconstruct(cells), tracks)


def test_tensors_that_come_without_being_asked_for(address, events):
    with TrackingClient(*address) as standard, TrackingClient(*address, compact=True) as compact:
        tracks, light = standard.reconstruct(events[0]), compact.reconstruct(events[0])
    assert tracks.state_covariance is not None
    assert tracks.perigee is None
    assert set(tracks.stage_milliseconds) == set(STAGES)
    assert light.perigee is not None
    assert light.covariance is not None
    assert light.state_geometry_id is None
    assert light.n_measurements.tolist() == np.diff(tracks.state_offsets).tolist()


def test_only_wanted_tensors_come(address, events):
    with TrackingClient(*address, outputs=["GEOMETRY_IDS"]) as client:
        columns = client.reconstruct(events[0]).columns()
    assert set(columns) == {"params", "time", "chi2", "ndf", "state_offsets", "state_geometry_id"}


def test_tensors_that_are_not_named_are_not_made(grpc_url, events):
    """An ensemble has the model make all tensors, whatever was asked for; the parameter says what is wanted."""
    import tritonclient.grpc as grpc
    from tritonclient.utils import np_to_triton_dtype

    names = ["TRK_PARAMS", "TRK_SUMMARY"]
    assert TrackingClient(compact=True, outputs=["TRK_SUMMARY"]).options.parameters == {"outputs": ",".join(names)}
    assert TrackingClient().options.parameters == {}
    inputs = []
    for name, values in wire.pack_compact_cells(events[0]).items():
        inputs.append(grpc.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        inputs[-1].set_data_from_numpy(values)
    outputs = {name: grpc.InferRequestedOutput(name) for name in (*names, "COVARIANCES")}
    with grpc.InferenceServerClient(grpc_url) as client:

        def infer(*wanted):
            parameters = {"outputs": ",".join(names)}
            return client.infer(wire.COMPACT_MODEL, inputs, outputs=[outputs[n] for n in wanted], parameters=parameters)

        assert infer(*names).as_numpy("TRK_SUMMARY").shape == (20, 2)
        assert infer(*names, "COVARIANCES").as_numpy("COVARIANCES") is None


@pytest.mark.parametrize("options", [{}, {"shared_memory": "system"}], ids=["plain", "shared memory"])
def test_stream_keeps_the_order_and_its_bounds(address, options, events, expected):
    read = 0

    def source():
        nonlocal read
        for _ in range(4):
            for cells in events:
                read += 1
                yield cells

    with TrackingClient(*address, **options) as client:
        for k, tracks in enumerate(client.stream(source(), in_flight=3)):
            assert read <= k + 1 + 3
            assert_same_tracks(tracks, expected[k % len(events)])
    assert k + 1 == 4 * len(events)


def test_stream_with_a_bad_event(grpc_url, events, expected):
    bad = Cells(*(getattr(events[2], name).copy() for name in Cells.__slots__))
    bad.activation[5] = -1
    with TrackingClient(grpc_url) as client:
        first, error, last = client.stream([events[0], bad, events[2]], return_errors=True)
        assert_same_tracks(first, expected[0])
        assert_same_tracks(last, expected[2])
        assert isinstance(error, InputDataError)
        stream = client.stream([events[0], bad, events[2]])
        assert_same_tracks(next(stream), expected[0])
        with pytest.raises(InputDataError, match=r"traccc-gpu at .* refused the event: cells row 5 .*-1\.0"):
            next(stream)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_asynchronous_client(request, protocol, events, expected):
    url = request.getfixturevalue(f"{protocol}_url")

    async def run():
        async with AsyncTrackingClient(url, protocol) as client:
            facts = await client.facts()
            one = await client.reconstruct(events[0])
            many = [tracks async for tracks in client.stream(events, in_flight=2)]
            bad = Cells(*(getattr(events[2], name).copy() for name in Cells.__slots__))
            bad.channel0[3] = 10**6
            with pytest.raises(InputDataError, match=r"cells row 3 .*channel0 is 1000000"):
                await client.reconstruct(bad)
        return facts, one, many

    facts, one, many = asyncio.run(run())
    gc.collect()  # a session left open would warn, which is an error here
    assert facts["detector"] == "odd"
    assert_same_tracks(one, expected[0])
    for tracks, known in zip(many, expected, strict=True):
        assert_same_tracks(tracks, known)


def test_facts_and_fingerprint(address, detector, events, expected):
    with TrackingClient(*address, fingerprint=detector.fingerprint) as client:
        assert client.facts() == {
            "protocol_version": str(wire.INPUT_VERSION),
            "output_version": str(wire.OUTPUT_VERSION),
            "detector": "odd",
            "detector_fingerprint": detector.fingerprint,
        }
        assert client.is_ready()
        assert_same_tracks(client.reconstruct(events[0]), expected[0])
    with (
        TrackingClient(*address, fingerprint="f00d") as client,
        pytest.raises(InputDataError, match="'f00d'; expected"),
    ):
        client.reconstruct(events[0])


def test_newer_server_is_refused(grpc_url, events, monkeypatch):
    version = wire.INPUT_VERSION
    monkeypatch.setattr(wire, "INPUT_VERSION", 0)
    with (
        TrackingClient(grpc_url) as client,
        pytest.raises(ServiceError, match=rf"takes input of version {version}, this client makes version 0"),
    ):
        client.reconstruct(events[0])


def test_client_of_an_older_version_is_answered(http_url, sample_result):
    """The bytes that it sent then, and the tensors that it knows."""
    request = old_request()
    connection = http.client.HTTPConnection(http_url, timeout=60)
    headers = {"Inference-Header-Content-Length": str(request.header_length)}
    connection.request("POST", f"/v2/models/{wire.COMPACT_MODEL}/infer", request.body, headers)
    answer = connection.getresponse()
    body, length = answer.read(), int(answer.getheader("Inference-Header-Content-Length"))
    connection.close()
    assert answer.status == 200, body
    outputs = {output["name"]: output for output in json.loads(body[:length])["outputs"]}
    assert sorted(outputs) == sorted(request.outputs)
    expected = wire.pack_result(sample_result)
    at = length
    for name, output in outputs.items():
        dtype, dims = KNOWN_OUTPUTS[name]
        size = output["parameters"]["binary_data_size"]
        assert (output["datatype"], output["shape"][1:]) == (dtype, list(dims[1:])), name
        if name != "STAGE_TIMES":
            assert body[at : at + size] == expected[name].tobytes(), name
        at += size


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_memory_is_given_back(sharing_server, protocol, events):
    before = set(Path("/dev/shm").glob("traccc_py_*"))
    with TrackingClient(url(sharing_server, protocol), protocol, shared_memory="system") as client:
        client.reconstruct(events[2])
        client.reconstruct(events[0])  # larger: a new region
        assert len(set(Path("/dev/shm").glob("traccc_py_*")) - before) == 1
    assert set(Path("/dev/shm").glob("traccc_py_*")) <= before


def test_shared_memory_grows_for_many_tracks(sharing_server, events, expected, monkeypatch):
    monkeypatch.setattr("traccc_py.client.shared_memory._SPARE_ROWS", 1)
    monkeypatch.setattr("traccc_py.client.shared_memory._ROWS_PER_CELL", {"track": 0.005, "state": 0.01})
    with TrackingClient(url(sharing_server, "grpc"), shared_memory="system") as client:
        assert_same_tracks(client.reconstruct(events[0]), expected[0])


def test_region_the_server_has_forgotten_is_registered_again(sharing_server, events, expected):
    grpc = pytest.importorskip("tritonclient.grpc")
    with TrackingClient(url(sharing_server, "grpc"), shared_memory="system") as client:
        assert_same_tracks(client.reconstruct(events[0]), expected[0])
        with grpc.InferenceServerClient(url(sharing_server, "grpc")) as other:
            other.unregister_system_shared_memory()  # all, as a new server would
        assert_same_tracks(client.reconstruct(events[0]), expected[0])


def test_cuda_shared_memory_needs_a_gpu(sharing_server, events):
    with TrackingClient(url(sharing_server, "grpc"), shared_memory="cuda") as client:
        if _why_no_gpu() is None:
            assert len(client.reconstruct(events[0])) == 20
        else:
            with pytest.raises(DeviceUnavailableError, match=r"CUDA shared memory|can't be shared"):
                client.reconstruct(events[0])


def test_channels_beyond_16_bits(grpc_url, sample_cells):
    cells = first_cells(sample_cells, 10)
    cells.channel0 = np.full(10, 70_000)
    with TrackingClient(grpc_url, compact=True) as client, pytest.raises(WireError, match="use the standard tensors"):
        client.reconstruct(cells)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_server(protocol, sample_cells):
    url = f"127.0.0.1:{free_port()}"
    with TrackingClient(url, protocol, retries=1) as client:
        assert not client.is_ready()
        with pytest.raises(ServiceError, match=f"traccc-gpu at {url} can't be reached: .*is the server running"):
            client.reconstruct(sample_cells)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_server_that_does_not_answer(protocol, sample_cells):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        message = r"did not answer within 0\.5 s|can't be reached"
        with TrackingClient(url, protocol, timeout=0.5) as client, pytest.raises(ServiceError, match=message):
            client.reconstruct(sample_cells)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "ftp"}, 'protocol is "ftp"; expected one of "grpc", "http"'),
        ({"url": "http://127.0.0.1:8000"}, "expected host:port, without http://"),
        ({"url": "127.0.0.1:99999"}, 'url is "127.0.0.1:99999"; expected host:port with a port from 1 to 65535'),
        ({"url": "127.0.0.1:0"}, "expected host:port with a port from 1"),
        ({"url": "127.0.0.1"}, "expected host:port with a port from 1"),
        ({"url": "127.0.0.1", "protocol": "http"}, "expected host:port with a port from 1"),
        ({"url": "::1:8001"}, r"such as 127\.0\.0\.1:8001 or \[::1\]:8001"),
        ({"url": "dns:somewhere"}, "expected host:port with a port from 1"),
        ({"headers": {"bad name": "secret"}}, "headers has the name 'bad name'; expected small letters, digits, -, _ "),
        ({"headers": {"Authorization": "secret"}}, "headers has the name 'Authorization'; expected small letters"),
        ({"headers": {"": "x"}, "protocol": "http"}, "headers has the name ''; expected letters, digits, -, _ and ."),
        ({"shared_memory": "disk"}, 'shared_memory is "disk"; expected one of "system", "cuda"'),
        ({"timeout": 0}, "timeout is 0; expected a finite number > 0"),
        ({"retries": -1}, "retries is -1; expected an integer >= 0"),
        ({"outputs": ["TRK_PERIGEE"]}, "outputs has 'TRK_PERIGEE'; expected some of TRK_PARAMS"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TrackingClient(**options)


@pytest.mark.parametrize(
    ("url", "protocol"),
    [
        ("localhost:8001", "grpc"),
        ("[::1]:65535", "grpc"),
        ("unix:/run/triton.sock", "grpc"),
        ("dns:somewhere:8001", "grpc"),
        ("ipv4:192.0.2.1:8001,192.0.2.2:8001", "grpc"),
        ("[::1]:8000", "http"),
        ("proxy.example:80/triton", "http"),
    ],
)
def test_other_ways_to_name_a_server_are_left_alone(url, protocol):
    with TrackingClient(url, protocol) as client:
        assert client.options.url == url


def test_asynchronous_client_has_no_shared_memory():
    with pytest.raises(ConfigError, match="use TrackingClient"):
        AsyncTrackingClient(shared_memory="system")


def test_stream_needs_something_in_flight(grpc_url, events):
    with TrackingClient(grpc_url) as client, pytest.raises(ConfigError, match="in_flight is 0; expected at least 1"):
        next(client.stream(events, in_flight=0))
