"""Labels of spacepoints, and the model of the service that gives them, with the tensors of exatrkx-service."""

import json
import sys
import types

import numpy as np
import pytest

from tests.unit.test_backend_model import FakeError, FakeLogger, FakeRequest, FakeResponse, FakeTensor
from traccc_py import InputDataError, build_detector, wire
from traccc_py.backend.ending import EndingFile
from traccc_py.backend.repository import ModelRepository
from traccc_py.backend.settings import SETTINGS_FILE, ModelSettings
from traccc_py.config import ChainConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.gnn.weights import untrained_weights, write_weights
from traccc_py.pipeline.labelling import SpacepointLabeller
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def config(detector, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "untrained.npz"
    write_weights(path, untrained_weights(detector.arrays(), seed=3))
    return ChainConfig().with_settings({"finder.weights": str(path), "finder.method": "gnn"})


@pytest.fixture(scope="module")
def labeller(detector, config):
    return SpacepointLabeller(detector, config, CpuDevice(2))


@pytest.fixture(scope="module")
def features(detector):
    """Return the hits of 40 particles on layers of two coordinates."""
    gun = ParticleGunConfig(n_particles=40, momentum=(1.0, 20.0), vertex_sigma=(0.01, 0.01, 55.0))
    event = simulate_event(detector, gun, seed=4)
    position = np.asarray(event.simulated.hits.position, float)
    arrays = detector.arrays()
    module = event.simulated.module_index
    position = position[arrays.designs["dimensions"][arrays.surfaces["design"][module]] == 2]
    x, y, z = position.T
    return np.stack([np.hypot(x, y) / 1000, np.arctan2(y, x) / np.pi, z / 1000], axis=1).astype(np.float32)


def groups(labels):
    """Return the sets of rows that have a label in common."""
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def test_each_spacepoint_has_a_label(labeller, features):
    labels = labeller.label(features)
    assert labels.dtype == np.int64
    assert labels.shape == (len(features),)
    size = np.bincount(labels)
    n_candidates = np.count_nonzero(size > 1)
    assert n_candidates > 5
    assert (size[:n_candidates] >= 3).all()
    assert (size[n_candidates:] == 1).all()


def test_candidates_do_not_depend_on_the_order_of_rows_or_threads(detector, config, labeller, features):
    labels = labeller.label(features)
    order = np.random.default_rng(1).permutation(len(features))
    again = SpacepointLabeller(detector, config, CpuDevice(1)).label(features[order])
    back = np.empty_like(labels)
    back[order] = again
    assert groups(back) == groups(labels)
    is_candidate = labels < np.count_nonzero(np.bincount(labels) > 1)
    assert np.array_equal(back[is_candidate], labels[is_candidate])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_spacepoints_have_labels_of_their_own(labeller, features, n):
    assert labeller.label(features[:n]).tolist() == list(range(n))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([np.nan, 0, 0], r"FEATURES row 3 \(counted from 0\) is \(nan, 0\.0, 0\.0\); expected r"),
        ([0.03, 1.5, 0], r"FEATURES row 3 .* phi / pi from -1 to 1"),
        ([-0.03, 0.5, 0], r"FEATURES row 3 .* expected r / 1000 mm above 0"),
        ([0.05, 0.5, 0], r"FEATURES row 3 .* mm from the nearest layer; expected at most 5 mm"),
        ([32.0, 0.5, 0], r"FEATURES row 3 .* are units and the detector right"),
    ],
)
def test_impossible_positions_are_named(labeller, features, row, message):
    bad = features[:6].copy()
    bad[3] = row
    with pytest.raises(InputDataError, match=message):
        labeller.label(bad)


def test_tables_of_another_form_are_refused(labeller):
    for bad in (np.zeros((4, 2), np.float32), np.zeros(3, np.float32), np.zeros((4, 3), np.int64)):
        with pytest.raises(InputDataError, match=r"expected numbers of shape \(n, 3\)"):
            labeller.label(bad)


def test_the_repository_has_the_model_if_asked_for(tmp_path):
    assert wire.EXATRKX_MODEL not in ModelRepository().configs()
    repository = ModelRepository(ModelSettings(exatrkx=True))
    repository.write(tmp_path)
    text = (tmp_path / "exatrkx" / "config.pbtxt").read_text()
    assert 'name: "FEATURES" data_type: TYPE_FP32 dims: [ -1, 3 ]' in text
    assert 'name: "LABELS" data_type: TYPE_INT64 dims: [ -1 ]' in text
    assert "max_batch_size: 0" in text
    assert "traccc_py.backend.exatrkx" in (tmp_path / "exatrkx" / "1" / "model.py").read_text()
    values = json.loads((tmp_path / "exatrkx" / "1" / SETTINGS_FILE).read_text())
    assert ModelSettings.from_parameters(values).exatrkx


def test_the_repository_has_the_steps_and_their_ensemble_if_asked_for(tmp_path):
    steps = ("embed", "frnn", "filter", "applyfilter", "gnn", "wcc")
    plain, repository = ModelRepository(), ModelRepository(ModelSettings(exatrkx_ensemble=True))
    assert set(repository.configs()) == {*plain.configs(), "exatrkx", "exatrkx-ensemble", *steps}
    assert (plain.n_models(), repository.n_models()) == (1, 8)
    repository.write(tmp_path)
    for step in steps:
        assert "traccc_py.backend.exatrkx_steps" in (tmp_path / step / "1" / "model.py").read_text()
    text = (tmp_path / "exatrkx-ensemble" / "config.pbtxt").read_text()
    assert [line.split('"')[1] for line in text.splitlines() if "model_name" in line] == list(steps)
    assert not (tmp_path / "exatrkx-ensemble" / "1" / "model.py").exists()
    values = json.loads((tmp_path / "wcc" / "1" / SETTINGS_FILE).read_text())
    assert ModelSettings.from_parameters(values).exatrkx_ensemble


@pytest.fixture(scope="module")
def model(tmp_path_factory, config):
    fake = types.ModuleType("triton_python_backend_utils")
    fake.TritonError, fake.Tensor, fake.InferenceResponse = FakeError, FakeTensor, FakeResponse
    fake.TritonModelException, fake.Logger = RuntimeError, FakeLogger
    sys.modules[fake.__name__] = fake
    from traccc_py.backend.exatrkx import TritonPythonModel

    folder = tmp_path_factory.mktemp("model")
    (folder / "1").mkdir()
    settings = folder / "settings.toml"
    settings.write_text(config.to_toml())
    values = ModelSettings(config=str(settings), threads=1, exatrkx=True).to_parameters()
    (folder / "1" / SETTINGS_FILE).write_text(json.dumps(values))
    made = TritonPythonModel()
    made.initialize(
        {
            "model_instance_name": "exatrkx_0",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_repository": str(folder),
            "model_version": "1",
        }
    )
    yield made
    del sys.modules[fake.__name__]
    for name in ("exatrkx", "triton_tensors"):
        sys.modules.pop(f"traccc_py.backend.{name}", None)


def test_requests_get_labels_or_errors_of_their_own(model, labeller, features):
    good, missing, wrong = {"FEATURES": features}, {}, {"FEATURES": features[:, :2].copy()}
    answers = model.execute([FakeRequest(tensors) for tensors in (good, missing, wrong, good)])
    for k in (0, 3):
        assert answers[k].error is None
        assert np.array_equal(answers[k].tensors["LABELS"], labeller.label(features))
    assert [answers[k].error.code for k in (1, 2)] == [FakeError.INVALID_ARG] * 2
    assert answers[1].error.message == "FEATURES is missing; got nothing"
    assert "FEATURES has shape" in answers[2].error.message


def test_a_service_that_ends_refuses_what_still_comes_here_too(model, features, monkeypatch, tmp_path):
    ending = EndingFile(tmp_path / "models")
    monkeypatch.setattr(model, "_ending", ending)
    ending.write()
    (answer,) = model.execute([FakeRequest({"FEATURES": features})])
    assert answer.error.code == FakeError.UNAVAILABLE
