"""Labels of spacepoints from a real server, asked for by the names of exatrkx-service: one model, and its ensemble."""

import numpy as np
import pytest

from tests.service.conftest import START_SECONDS, require_server
from traccc_py.backend.installation import package_folder
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.server import TritonServer
from traccc_py.backend.settings import ModelSettings, ServerSettings
from traccc_py.config import read_config
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.gnn.weights import untrained_weights, write_weights
from traccc_py.pipeline.features import FeatureReader
from traccc_py.pipeline.labelling import SpacepointLabeller

pytestmark = pytest.mark.service
MODELS = ("exatrkx", "exatrkx-ensemble")


@pytest.fixture(scope="module")
def settings(detector, tmp_path_factory):
    """Return a file of settings with random weights."""
    folder = tmp_path_factory.mktemp("exatrkx")
    write_weights(folder / "untrained.npz", untrained_weights(detector.arrays(), seed=3))
    path = folder / "settings.toml"
    path.write_text(
        f'[finder]\nweights = "{folder / "untrained.npz"}"\n[graph]\nconstructor = "metric"\nradius = 0.5\n',
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def features(detector):
    """Return spacepoints of straight lines, and a last one that no edge joins to others."""
    table, random = FeatureReader(detector.arrays()).example(), np.random.default_rng(5)
    lines = np.repeat(table[None], 60, axis=0)
    lines[:, :, 1] = random.uniform(-0.9, 0.9, (60, 1)) + random.normal(0, 0.002, lines.shape[:2])
    return lines.reshape(-1, 3)


@pytest.fixture(scope="module")
def expected(detector, settings, features):
    return SpacepointLabeller(detector, read_config(settings), CpuDevice(1)).label(features)


@pytest.fixture(scope="module")
def server(detector, settings, expected, chain, tmp_path_factory):
    require_server()
    chosen = ModelSettings(config=str(settings), threads=1, exatrkx_ensemble=True)
    repository = ModelRepository(chosen, fingerprint=detector.fingerprint, package_folder=package_folder())
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port"), 0)
    log = tmp_path_factory.mktemp("server") / "server.log"
    with TritonServer(repository, ServerSettings(**ports, exit_timeout=5, log_file=log)) as running:
        running.start_until_ready(START_SECONDS)
        yield running


@pytest.fixture(scope="module")
def client(server):
    import tritonclient.grpc as grpc

    with grpc.InferenceServerClient(f"127.0.0.1:{server.ports.grpc}") as made:
        yield made


def ask(client, model, output, **tensors):
    """Return one tensor of the answer of a model, as any client of the protocol gets it."""
    import tritonclient.grpc as grpc
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, array in tensors.items():
        one = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array)
        inputs.append(one)
    return client.infer(model, inputs, outputs=[grpc.InferRequestedOutput(output)]).as_numpy(output)


@pytest.mark.parametrize("model", MODELS)
def test_every_spacepoint_gets_the_label_of_the_finder(client, features, expected, model):
    labels = ask(client, model, "LABELS", FEATURES=features)
    assert labels.dtype == np.int64
    assert labels.tobytes() == expected.tobytes()
    assert np.count_nonzero(np.bincount(labels) > 2) > 3


def test_the_steps_can_be_asked_one_by_one(client, features, expected):
    places = ask(client, "embed", "OUTPUT__0", INPUT__0=features)
    pairs = ask(client, "frnn", "OUTPUT0", INPUT0=places)
    scores = ask(client, "filter", "OUTPUT__0", INPUT__0=features, INPUT__1=pairs)
    edges = ask(client, "applyfilter", "EDGE_LIST_AFTER_FILTER", FILTER_SCORES=scores, EDGE_LIST=pairs)
    judged = ask(client, "gnn", "OUTPUT__0", INPUT__0=features, INPUT__1=edges)
    assert (places.shape, pairs.shape[0], scores.shape[1]) == ((len(features), 8), 2, 1)
    assert pairs.shape[1] > edges.shape[1] == len(judged) > 0
    labels = ask(client, "wcc", "OUTPUT0", INPUT0=edges, INPUT1=judged, FEATURES=features)
    assert labels.tobytes() == expected.tobytes()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n", [0, 1])
def test_few_spacepoints_have_labels_of_their_own(client, features, model, n):
    assert ask(client, model, "LABELS", FEATURES=features[:n]).tolist() == list(range(n))


@pytest.mark.parametrize("model", MODELS)
def test_bad_requests_are_refused_and_others_are_answered(client, features, expected, model):
    from tritonclient.utils import InferenceServerException

    bad = features.copy()
    bad[7, 2] = np.nan
    for table, message in ((features[:, :2].copy(), r"\[-1,3\]"), (bad, r"FEATURES row 7 \(counted from 0\)")):
        with pytest.raises(InferenceServerException, match=message):
            ask(client, model, "LABELS", FEATURES=table)
    with pytest.raises(InferenceServerException, match="unexpected inference input 'FEATURES' for model 'frnn'"):
        ask(client, "frnn", "OUTPUT0", FEATURES=features)
    assert ask(client, model, "LABELS", FEATURES=features).tobytes() == expected.tobytes()
