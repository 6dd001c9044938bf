"""A client written from the description of traccc-aaS's interface alone; it imports nothing of this package.

Same bits as the standalone chain over gRPC, HTTP and shared memory; the expected tensors are made with plain loops.
"""

import csv
import gzip
import math
import uuid
from pathlib import Path

import numpy as np
import pytest

grpc = pytest.importorskip("tritonclient.grpc")
http = pytest.importorskip("tritonclient.http")

SAMPLE = Path(__file__).resolve().parents[2] / "traccc_py/data/sample/event000000000-cells.csv.gz"
OUTPUTS = ("TRK_PARAMS", "MEASUREMENTS", "COVARIANCES", "GEOMETRY_IDS")
SUCCESS = 1
LOCAL = [("loc0", 0), ("loc1", 1), ("phi", 2), ("theta", 3), ("qop", 4)]


@pytest.fixture(scope="module")
def tensors():
    with gzip.open(SAMPLE, "rt") as file:
        rows = list(csv.DictReader(file))
    positions = [[int(row[k]) for k in ("geometry_id", "measurement_id", "channel0", "channel1")] for row in rows]
    properties = [[float(row["timestamp"]), float(row["value"])] for row in rows]
    return np.array(positions, np.uint64).view(np.int64), np.array(properties, np.float32)


@pytest.fixture(scope="module")
def expected(sample_result):
    """Return the tensors, state by state, from the result of the standalone chain."""
    tracks, states, measurements = sample_result.tracks, sample_result.track_states, sample_result.measurements
    found = {name: [] for name in OUTPUTS}
    for t in range(len(tracks.chi2)):
        rows = range(tracks.state_offsets[t], tracks.state_offsets[t + 1])
        if tracks.fit_outcome[t] != SUCCESS or tracks.ndf[t] < 0 or len(rows) < 3:
            continue
        if found["TRK_PARAMS"]:
            found["GEOMETRY_IDS"].append(0)
        found["TRK_PARAMS"].append([tracks.chi2[t], tracks.ndf[t], *tracks.params[t], tracks.time[t]])
        for s in rows:
            m = states.measurement_index[s]
            found["MEASUREMENTS"].append([*measurements.local_position[m], *states.params[s][2:], tracks.time[t]])
            found["COVARIANCES"].append(full_matrix(states.covariance[s]))
            found["GEOMETRY_IDS"].append(int(states.geometry_id[s]))
    types = [np.float32, np.float32, np.float32, np.int64]
    return {name: np.array(found[name], kind) for name, kind in zip(OUTPUTS, types, strict=True)}


def full_matrix(lower_triangle):
    matrix = np.zeros((5, 5), np.float32)
    k = 0
    for i in range(5):
        for j in range(i + 1):
            value = lower_triangle[k]
            matrix[i, j] = matrix[j, i] = value if math.isfinite(value) and abs(value) <= 1e8 else 0
            k += 1
    return matrix.ravel()


def inputs(module, tensors):
    positions, properties = tensors
    made = [
        module.InferInput("CELL_POSITIONS", list(positions.shape), "INT64"),
        module.InferInput("CELL_PROPERTIES", list(properties.shape), "FP32"),
    ]
    for tensor, values in zip(made, tensors, strict=True):
        tensor.set_data_from_numpy(values)
    return made


def assert_same_bits(found, expected):
    for name in OUTPUTS:
        assert found[name].dtype == expected[name].dtype, name
        assert found[name].shape == expected[name].shape, name
        assert found[name].tobytes() == expected[name].tobytes(), name


def test_sample_event_has_tracks(expected):
    assert len(expected["TRK_PARAMS"]) == 20


@pytest.mark.parametrize("module", [grpc, http], ids=["grpc", "http"])
def test_tracks_are_those_of_the_chain(request, module, tensors, expected):
    url = request.getfixturevalue("grpc_url" if module is grpc else "http_url")
    with module.InferenceServerClient(url) as client:
        answer = client.infer("traccc-gpu", inputs(module, tensors))
        found = {name: answer.as_numpy(name) for name in OUTPUTS}
    assert_same_bits(found, expected)
    assert found["GEOMETRY_IDS"].ndim == 1


@pytest.mark.parametrize("module", [grpc, http], ids=["grpc", "http"])
def test_tracks_through_shared_memory(sharing_server, module, tensors, expected):
    shm = pytest.importorskip("tritonclient.utils.shared_memory")
    url = f"127.0.0.1:{sharing_server.ports.grpc if module is grpc else sharing_server.ports.http}"
    name = f"traccc_py_test_{uuid.uuid4().hex}"
    size = sum(t.nbytes for t in tensors)
    region = shm.create_shared_memory_region(name, f"/{name}", size)
    with module.InferenceServerClient(url) as client:
        try:
            shm.set_shared_memory_region(region, list(tensors))
            client.register_system_shared_memory(name, f"/{name}", size)
            made, offset = inputs(module, tensors), 0
            for tensor, values in zip(made, tensors, strict=True):
                tensor.set_shared_memory(name, values.nbytes, offset)
                offset += values.nbytes
            answer = client.infer("traccc-gpu", made)
            found = {name: answer.as_numpy(name) for name in OUTPUTS}
            client.unregister_system_shared_memory(name)
        finally:
            shm.destroy_shared_memory_region(region)
    assert_same_bits(found, expected)


def test_order_of_cells_does_not_matter(grpc_url, tensors, expected):
    order = np.random.default_rng(1).permutation(len(tensors[0]))
    with grpc.InferenceServerClient(grpc_url) as client:
        answer = client.infer("traccc-gpu", inputs(grpc, [t[order] for t in tensors]))
        assert_same_bits({name: answer.as_numpy(name) for name in OUTPUTS}, expected)


def test_tracks_are_separated_by_zeros(grpc_url, tensors):
    with grpc.InferenceServerClient(grpc_url) as client:
        answer = client.infer("traccc-gpu", inputs(grpc, tensors))
        ids, tracks = answer.as_numpy("GEOMETRY_IDS"), answer.as_numpy("TRK_PARAMS")
        measurements = answer.as_numpy("MEASUREMENTS")
    assert ids[0] != 0
    assert ids[-1] != 0
    assert np.count_nonzero(ids == 0) == len(tracks) - 1
    assert np.count_nonzero(ids) == len(measurements)


def test_event_without_cells_has_no_tracks(grpc_url):
    empty = np.zeros((0, 4), np.int64), np.zeros((0, 2), np.float32)
    with grpc.InferenceServerClient(grpc_url) as client:
        answer = client.infer("traccc-gpu", inputs(grpc, empty))
        assert [len(answer.as_numpy(name)) for name in OUTPUTS] == [0, 0, 0, 0]
