"""Clients and servers of different versions: what was sent once stays understood, and tensors never change."""

import numpy as np
import pytest

from tests.old_client import KNOWN_OUTPUTS, LARGEST_VERSION, old_request
from traccc_py import read_cells, wire
from traccc_py.backend.repository import ModelRepository
from traccc_py.client.options import ClientOptions
from traccc_py.client.requests import options_for_server
from traccc_py.data.sample import sample_event_path
from traccc_py.errors import ServiceError

NEWEST = max(wire.OUTPUTS, key=lambda spec: spec.since)


def facts(protocol_version=wire.INPUT_VERSION, **more):
    return {"protocol_version": str(protocol_version), "detector": "odd", **more}


def test_tensors_of_the_first_version_are_what_they_were():
    found = {spec.name: (spec.triton_dtype, spec.dims) for spec in wire.OUTPUTS if spec.since == 1}
    assert found == KNOWN_OUTPUTS


@pytest.mark.parametrize("tensor", wire.TRACK_TENSORS)
def test_a_tensor_does_not_grow(tensor):
    columns = wire.track_columns(tensor)
    assert len({column.since for column in columns}) == 1, f"{tensor}: a column that is added gets a tensor of its own"
    assert len({column.dtype for column in columns}) == 1


def test_request_of_an_old_client_is_understood():
    request = old_request()
    found, cells = wire.unpack_compact_cells({"CELLS": request.cells}), read_cells(sample_event_path())
    np.testing.assert_array_equal(np.repeat(found.geometry_id, found.n_cells), cells.geometry_id)
    for name in ("channel0", "channel1", "activation", "time"):
        np.testing.assert_array_equal(getattr(found, name), getattr(cells, name), name)
    assert request.header["parameters"] == {"outputs": ",".join(request.outputs)}


def test_old_client_accepts_the_server():
    config = ModelRepository().configs()[wire.COMPACT_MODEL]
    assert f'key: "protocol_version" value: {{ string_value: "{LARGEST_VERSION}" }}' in config
    assert f'key: "output_version" value: {{ string_value: "{wire.OUTPUT_VERSION}" }}' in config


@pytest.mark.parametrize("known", [{}, facts(output_version=str(wire.OUTPUT_VERSION))], ids=["another's", "own"])
def test_options_stay_where_the_server_has_all(known):
    options = ClientOptions(compact=True)
    assert options_for_server(options, known) is options
    assert set(options.output_names) == {*wire.TRACK_TENSORS, "STAGE_TIMES"}


@pytest.mark.parametrize("known", [facts(), facts(output_version="1")], ids=["before outputs had versions", "first"])
def test_newer_client_asks_an_old_server_for_what_that_has(known):
    options = options_for_server(ClientOptions(compact=True), known)
    assert options.output_names == ("TRK_PARAMS", "TRK_PERIGEE", "TRK_COVARIANCES", "TRK_SUMMARY", "STAGE_TIMES")
    assert options.parameters["outputs"] == ",".join(options.output_names)


def test_what_was_asked_for_by_name_must_be_there():
    older = str(NEWEST.since - 1)
    options = ClientOptions(compact=True, outputs=[NEWEST.name])
    with pytest.raises(
        ServiceError, match=rf"outputs of version {older}, and \w+ came with version {NEWEST.since}: use"
    ):
        options_for_server(options, facts(output_version=older))


def test_server_that_takes_later_input_is_refused():
    with pytest.raises(ServiceError, match=r"takes input of version 99, this client makes version \d: use a newer"):
        options_for_server(ClientOptions(), facts(99))
