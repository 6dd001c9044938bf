"""What the load generator sends, and what it says of answers that are none."""

import numpy as np
import pytest

from traccc_py import wire
from traccc_py.client.requests import triton_module
from traccc_py.studies.generator import _Requests, generate_label_load

pytest.importorskip("tritonclient.grpc", exc_type=ImportError)


def test_messages_are_requests_as_the_service_reads_them():
    module = triton_module("grpc", asynchronous=True)
    tensors = {
        wire.CELL_POSITIONS.name: np.arange(12, dtype=np.int64).reshape(3, 4),
        wire.CELL_PROPERTIES.name: np.arange(6, dtype=np.float32).reshape(3, 2),
    }
    given = _Requests("traccc-gpu", [tensors, {}], ("TRK_PARAMS",), {"outputs": "TRK_PARAMS"}, "TRK_PARAMS")
    first, second = map(module.service_pb2.ModelInferRequest.FromString, given.messages(module))
    assert (first.model_name, second.model_name) == ("traccc-gpu", "traccc-gpu")
    sent = [(one.name, one.datatype, tuple(one.shape)) for one in first.inputs]
    assert sent == [("CELL_POSITIONS", "INT64", (3, 4)), ("CELL_PROPERTIES", "FP32", (3, 2))]
    assert list(first.raw_input_contents) == [values.tobytes() for values in tensors.values()]
    assert [one.name for one in first.outputs] == ["TRK_PARAMS"]
    assert first.parameters["outputs"].string_param == "TRK_PARAMS"
    assert not second.inputs


def test_a_service_that_is_not_there_is_told_request_by_request():
    tables = [np.zeros((1, 3), np.float32)]
    run = generate_label_load("127.0.0.1:1", "exatrkx", tables, 1, seconds=0.3, warm_up=0.0)
    assert run.good() == []
    assert all(one.error.startswith("StatusCode.UNAVAILABLE: ") for one in run.failed())
