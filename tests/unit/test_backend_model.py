"""The Triton model with a server that is made up: whatever a request holds, only its own sender hears of it."""

import json
import logging
import sys
import threading
import types

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.small_events import telescope, telescope_cells
from traccc_py import TrackingChain, wire
from traccc_py.backend.ending import EndingFile
from traccc_py.backend.settings import SETTINGS_FILE, ModelSettings, QueueSettings
from traccc_py.detector_options import DetectorOptions

ANSWER_SECONDS = 60


class FakeError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message, code):
        assert isinstance(message, str)
        self.message, self.code = message, code


class FakeTensor:
    def __init__(self, name, array):
        self._name, self.array = name, array

    @classmethod
    def from_dlpack(cls, name, exported):
        return cls(name, exported._array)

    def name(self):
        return self._name

    def __dlpack__(self, **options):
        if isinstance(self.array, Exception):
            raise self.array
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return 1, 0


class FakeResponse:
    def __init__(self, tensors=(), error=None):
        self.tensors, self.error = {t.name(): t.array for t in tensors}, error


class FakeRequest:
    """A request; values that are exceptions are raised when they are asked for."""

    def __init__(self, tensors, parameters="", outputs=None, timeout=0):
        self._tensors = [FakeTensor(*item) for item in tensors.items()] if isinstance(tensors, dict) else tensors
        self._parameters, self._timeout = parameters, timeout
        self._outputs = [s.name for s in wire.OUTPUTS] if outputs is None else outputs
        self.answered, self.answers = threading.Event(), []

    def parameters(self):
        return _given(self._parameters)

    def requested_output_names(self):
        return _given(self._outputs)

    def inputs(self):
        return _given(self._tensors)

    def timeout(self):
        return _given(self._timeout)

    def get_response_sender(self):
        return self

    def is_cancelled(self):
        return False

    def send(self, response, flags):
        self.answers.append(response)
        self.answered.set()

    def answer(self):
        assert self.answered.wait(ANSWER_SECONDS), "no answer"
        (answer,) = self.answers
        return answer


def _given(value):
    if isinstance(value, Exception):
        raise value
    return value


class FakeLogger:
    lines = []  # noqa: RUF012

    log_info = log_warn = log_error = log_verbose = lines.append


@pytest.fixture(scope="module")
def model_module():
    fake = types.ModuleType("triton_python_backend_utils")
    fake.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    fake.TritonError, fake.Tensor, fake.InferenceResponse = FakeError, FakeTensor, FakeResponse
    fake.TritonModelException, fake.Logger = RuntimeError, FakeLogger
    sys.modules[fake.__name__] = fake
    from traccc_py.backend import model

    yield model
    del sys.modules[fake.__name__], sys.modules["traccc_py.backend.model"]


@pytest.fixture(scope="module")
def model(model_module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "1").mkdir()
    values = {
        **ModelSettings(DetectorOptions("telescope"), threads=1, max_cells=200).to_parameters(),
        **QueueSettings(batch_cells=1000).to_parameters(),
    }
    (folder / "1" / SETTINGS_FILE).write_text(json.dumps(values))
    arguments = {
        "model_instance_name": "m_0",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_name": "m",
        "model_version": "1",
        "model_repository": str(folder),
        "model_config": '{"parameters": {"reloads": {"string_value": "2"}}}',
    }
    log = logging.getLogger("traccc_py")
    before = log.handlers, log.level
    model = model_module.TritonPythonModel()
    model.initialize(arguments)
    yield model
    model.finalize()
    log.handlers, level = before
    log.setLevel(level)


@pytest.fixture(scope="module")
def good(model):
    """Return tensors of an event and those of its answer."""
    cells = telescope_cells(3, 1, telescope())
    return wire.pack_cells(cells), wire.pack_result(TrackingChain(telescope(), device="cpu", threads=1).run(cells))


def check_good(request, expected):
    answer = request.answer()
    assert answer.error is None, answer.error.message
    assert set(answer.tensors) == set(expected)
    for name in set(expected) - {"STAGE_TIMES"}:
        assert answer.tensors[name].tobytes() == expected[name].tobytes(), name


def run_between_good_ones(model, good, bad):
    """Send a request between two good ones in one call; check these and return its answer."""
    tensors, expected = good
    before, after = FakeRequest(tensors), FakeRequest(wire.pack_compact_cells(wire.unpack_cells(tensors)))
    assert model.execute([before, bad, after]) is None
    check_good(before, expected)
    check_good(after, expected)
    return bad.answer()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ('{"outputs": 7}', "the request parameter 'outputs' is 7; expected a text"),
        ('{"outputs": "TRK_PARAM"}', "names 'TRK_PARAM'; expected some of"),
        ('{"outputs": true}', "'outputs' is True; expected a text"),
        ('{"detector_fingerprint": 1.5}', "'detector_fingerprint' is 1.5; expected a text"),
        ('{"detector_fingerprint": "beef"}', "fingerprint 'beef'"),
    ],
)
def test_mistyped_parameters_are_refused_alone(model, good, parameters, message):
    answer = run_between_good_ones(model, good, FakeRequest(good[0], parameters))
    assert message in answer.error.message
    assert answer.error.code == FakeError.INVALID_ARG


@pytest.mark.parametrize(
    "broken",
    [
        {"parameters": "[1, 2]"},
        {"parameters": "{not json"},
        {"parameters": RuntimeError("/home/secret/file.py")},
        {"tensors": RuntimeError("no memory at /dev/shm/secret")},
        {"outputs": RuntimeError("secret")},
        {"timeout": RuntimeError("secret")},
        {"tensors": [FakeTensor("CELLS", BufferError("odd strides"))]},
    ],
    ids=lambda broken: "-".join(f"{name}: {type(value).__name__}" for name, value in broken.items()),
)
def test_requests_that_can_not_be_read_fail_alone(model, good, broken):
    answer = run_between_good_ones(model, good, FakeRequest(**{"tensors": good[0], **broken}))
    assert answer.error.code in (FakeError.INTERNAL, FakeError.INVALID_ARG)
    assert "secret" not in answer.error.message  # what went wrong inside is in the log alone
    if answer.error.code == FakeError.INTERNAL:
        number = answer.error.message.rpartition(" ")[2]
        assert any(number in line for line in FakeLogger.lines)


def test_a_service_that_ends_refuses_what_still_comes(model, good, monkeypatch, tmp_path):
    ending = EndingFile(tmp_path / "models")
    monkeypatch.setattr(model, "_ending", ending)
    ending.write()
    late = FakeRequest(good[0])
    model.execute([late])
    assert late.answer().error.code == FakeError.UNAVAILABLE
    assert "the service ends; send the event again" in late.answer().error.message
    ending.remove()
    assert run_between_good_ones(model, good, FakeRequest({})).error.code == FakeError.INVALID_ARG


def test_results_that_can_not_be_sent_fail_alone(model, good, model_module, monkeypatch):
    convert = model_module.to_triton

    def failing(name, array):
        if name == "TRK_SUMMARY":
            raise MemoryError("/dev/shm is full")
        return convert(name, array)

    monkeypatch.setattr(model_module, "to_triton", failing)
    bad, fine = FakeRequest(good[0]), FakeRequest(good[0], outputs=["TRK_PARAMS"])
    model.execute([bad, fine])
    assert list(fine.answer().tensors) == ["TRK_PARAMS"]
    assert bad.answer().error.code == FakeError.INTERNAL
    assert "/dev/shm" not in bad.answer().error.message


def test_two_events_in_a_tensor_are_refused(model, good):
    """Formerly the second one was dropped."""
    two = {name: np.stack([values, values]) for name, values in good[0].items()}
    answer = run_between_good_ones(model, good, FakeRequest(two))
    assert "CELL_POSITIONS has shape (2, " in answer.error.message


def test_event_with_too_many_cells_is_refused(model, good):
    many = {name: np.concatenate([values] * 20) for name, values in good[0].items()}
    answer = run_between_good_ones(model, good, FakeRequest(many))
    assert "expected at most 200 (max_cells)" in answer.error.message


@pytest.mark.parametrize(
    ("column", "value", "secret", "kept"),
    [
        (0, 0x5EC12E7, str(0x5EC12E7), "cells row 2 (counted from 0): geometry_id is ..., which is not a sensitive"),
        (2, 87654321, "87654321", "cells row 2 (counted from 0): channel0 is ..., outside module"),
        (3, -87654321, "87654321", "cells row 2 (counted from 0): channel1 is ..., outside module"),
    ],
)
def test_values_are_left_out_where_memory_is_shared(model, good, monkeypatch, column, value, secret, kept):
    monkeypatch.setattr(model, "_hide_values", True)
    tensors = {name: values.copy() for name, values in good[0].items()}
    tensors["CELL_POSITIONS"][2, column] = value
    answer = run_between_good_ones(model, good, FakeRequest(tensors))
    assert secret not in answer.error.message
    assert kept in answer.error.message
    header = np.array([0x5EC12E7, 3, 5, 7], np.uint32).view(np.uint8)
    message = run_between_good_ones(model, good, FakeRequest({"CELLS": header})).error.message
    assert "CELLS is of version ...; expected" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.25e7, 1.5])
def test_real_values_are_left_out_where_memory_is_shared(model_module, value):
    text = f"cells row 12 (counted from 0): value (activation) is {value}; expected 0 to 1e+29"
    shown = model_module._without_values(text)
    assert shown.startswith("cells row 12 (counted from ")
    assert str(value) not in shown


def test_very_long_messages_are_cut(model, good):
    answer = run_between_good_ones(model, good, FakeRequest(good[0], json.dumps({"detector_fingerprint": "x" * 10**6})))
    assert 100 < len(answer.error.message) <= 2000


SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from(["int64", "float32", "uint8", "int32", "float64"])
ARRAYS = st.builds(
    lambda shape, dtype, value: np.full(shape, value).astype(dtype), SHAPES, DTYPES, st.integers(-3, 300)
)
NAMES = st.sampled_from(["CELL_POSITIONS", "CELL_PROPERTIES", "CELLS", "WIBBLE"])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
PARAMETERS = st.dictionaries(st.sampled_from(["outputs", "detector_fingerprint", "x"]), VALUES, max_size=3).map(
    json.dumps
)
HEADERS = st.lists(st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 3]), min_size=4, max_size=4).map(
    lambda header: {"CELLS": np.array(header, np.uint32).view(np.uint8)}
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=st.dictionaries(NAMES, ARRAYS, max_size=3) | HEADERS | st.none(),
    parameters=PARAMETERS | st.text(max_size=10),
    timeout=st.sampled_from([0, 1, 10**7]),
    outputs=st.lists(st.sampled_from(["TRK_PARAMS", "GEOMETRY_IDS", "WIBBLE"])),
)
def test_random_requests_do_not_touch_good_ones(model, good, tensors, parameters, timeout, outputs):
    bad = FakeRequest(good[0] if tensors is None else tensors, parameters, outputs, timeout)
    answer = run_between_good_ones(model, good, bad)
    assert answer.error is None or answer.error.message
