"""The service without Triton: which request gets which answer, whatever else is in the call."""

import numpy as np
import pytest

from tests.integration.small_events import telescope_cells
from traccc_py import wire
from traccc_py.backend.service import Request, TrackingService
from traccc_py.backend.settings import ModelSettings
from traccc_py.edm import Cells
from traccc_py.errors import CapacityError, ConfigError, GeometryError, InputDataError, TracccError, WireError

N_TRACKS = (3, 0, 12)


@pytest.fixture(scope="module")
def service():
    service = TrackingService(ModelSettings(detector="telescope", threads=1), "cpu")
    service.initialize()
    return service


@pytest.fixture(scope="module")
def events(service):
    return [telescope_cells(n, n, service.chain.detector) for n in N_TRACKS]


def request(cells, **options):
    return Request(wire.pack_cells(cells), **options)


def no_cells(cells):
    return Cells(*(getattr(cells, name)[:0] for name in Cells.__slots__))


def broken(cells):
    tensors = wire.pack_cells(cells)
    tensors["CELL_PROPERTIES"][2, 1] = np.nan
    return Request(tensors)


def assert_answers(service, answers, events):
    for answer, cells in zip(answers, events, strict=True):
        expected = wire.pack_result(service.chain.run(cells))
        assert list(answer) == list(expected)
        for name in set(answer) - {"STAGE_TIMES"}:
            assert answer[name].tobytes() == expected[name].tobytes(), name


def count_batches(service, monkeypatch):
    sizes, run_batch = [], service.chain.run_batch

    def counted(events):
        sizes.append(len(events))
        return run_batch(events)

    monkeypatch.setattr(service.chain, "run_batch", counted)
    return sizes


def test_requests_of_a_call_are_one_batch(service, events, monkeypatch):
    with monkeypatch.context() as patch:
        sizes = count_batches(service, patch)
        answers, report = service.process([request(cells) for cells in events])
    assert sizes == [len(events)]
    assert_answers(service, answers, events)
    assert (report.n_requests, report.n_refused, report.n_failed) == (3, 0, 0)
    assert report.n_cells == sum(map(len, events))
    assert report.n_tracks >= 14
    assert set(report.stage_milliseconds) == set(wire.STAGE_NAMES)


def test_standard_and_compact_requests_in_one_call(service, events):
    answers, _ = service.process([request(events[0]), Request(wire.pack_compact_cells(events[2]))])
    assert_answers(service, answers, [events[0], events[2]])


def test_bad_events_do_not_spoil_others(service, events):
    calls = [request(events[0]), broken(events[0]), request(no_cells(events[0])), broken(events[2]), request(events[2])]
    answers, report = service.process(calls)
    assert_answers(service, [answers[0], answers[2], answers[4]], [events[0], no_cells(events[0]), events[2]])
    for k in (1, 3):
        assert isinstance(answers[k], InputDataError)
        assert "cells row 2" in str(answers[k])
    assert (report.n_refused, report.n_failed) == (2, 0)


def test_call_of_bad_events_alone(service, events):
    answers, report = service.process([broken(events[0]), broken(events[0])])
    assert all(isinstance(answer, InputDataError) for answer in answers)
    assert report.n_refused == 2


def test_call_of_no_requests(service):
    assert service.process([])[0] == []


def test_only_wanted_outputs_are_made(service, events):
    (answer,), _ = service.process([request(events[0], outputs={"TRK_PARAMS"})])
    assert list(answer) == ["TRK_PARAMS"]


def test_fingerprint_of_another_detector_is_refused(service, events):
    own = service.chain.detector.fingerprint
    good, bad = service.process([request(events[0], fingerprint=own), request(events[0], fingerprint="beef")])[0]
    assert isinstance(good, dict)
    assert isinstance(bad, WireError)
    assert "'beef'" in str(bad)
    assert own in str(bad)


def test_cell_budget_splits_calls(service, events, monkeypatch):
    with monkeypatch.context() as patch:
        sizes = count_batches(service, patch)
        patch.setattr(service, "settings", ModelSettings(detector="telescope", max_cells=len(events[2])))
        answers, _ = service.process([request(events[k]) for k in (0, 1, 2, 0)])
    assert sizes == [2, 1, 1]
    assert_answers(service, answers, [events[k] for k in (0, 1, 2, 0)])


def test_event_beyond_the_cell_budget_is_refused(service, events, monkeypatch):
    monkeypatch.setattr(service, "settings", ModelSettings(detector="telescope", max_cells=len(events[2]) - 1))
    good, bad = service.process([request(events[0]), request(events[2])])[0]
    assert isinstance(good, dict)
    assert isinstance(bad, CapacityError)
    assert f"has {len(events[2])} cells; expected at most {len(events[2]) - 1}" in str(bad)


@pytest.mark.parametrize("error", [RuntimeError("boom"), CapacityError("no memory")])
def test_failure_of_one_event_does_not_spoil_others(service, events, monkeypatch, error):
    run_batch = service.chain.run_batch

    def failing(batch):
        if any(len(cells) == len(events[2]) for cells in batch):
            raise error
        return run_batch(batch)

    monkeypatch.setattr(service.chain, "run_batch", failing)
    answers, report = service.process([request(events[k]) for k in (0, 2, 1)])
    monkeypatch.undo()
    assert answers[1] is error
    assert_answers(service, [answers[0], answers[2]], [events[0], events[1]])
    is_own_fault = not isinstance(error, TracccError)
    assert (report.n_refused, report.n_failed) == ((0, 1) if is_own_fault else (1, 0))


def write_map(path, ids, offset=0x1000):
    path.write_text("".join(f"{offset + k:#x},{acts}\n" for k, acts in enumerate(ids)))
    return str(path)


def test_athena_identifiers_on_the_wire(service, events, tmp_path):
    ids = service.chain.detector.geometry_ids
    path = write_map(tmp_path / "map.txt", ids)
    mapped = TrackingService(ModelSettings(detector="telescope", athena_map=path, threads=1), "cpu")
    cells = events[2]
    athena = Cells(*(getattr(cells, name) for name in Cells.__slots__))
    athena.geometry_id = (np.searchsorted(ids, cells.geometry_id) + 0x1000).astype(np.uint64)
    answer, refused = mapped.process([request(athena), request(cells)])[0]
    expected = wire.pack_result(service.chain.run(cells))
    found = answer["GEOMETRY_IDS"]
    np.testing.assert_array_equal(found == 0, expected["GEOMETRY_IDS"] == 0)
    np.testing.assert_array_equal(ids[found[found != 0] - 0x1000], expected["GEOMETRY_IDS"][found != 0])
    assert answer["TRK_PARAMS"].tobytes() == expected["TRK_PARAMS"].tobytes()
    assert isinstance(refused, InputDataError)
    assert f"Athena identifier {cells.geometry_id[0]} is not in the server's map" in str(refused)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x10,5\n0x10,6\n", "Athena identifier 16 appears 2 times"),
        ("0x10,5\n0x11,5\n", "geometry id 5 appears 2 times"),
        ("0x0,5\n", "Athena identifier 0 is in the map"),
        ("0x10,5\n17\n", "line 2: is '17'; expected a hexadecimal and a decimal number"),
        ("0x10,-5\n", "line 1: .*expected numbers of 64 bits"),
        ("0x10,5\n", "9 of 9 modules have no Athena identifier"),
        ("", "9 of 9 modules have no Athena identifier"),
    ],
)
def test_bad_athena_maps_are_refused(tmp_path, text, message):
    path = tmp_path / "map.txt"
    path.write_text(text)
    with pytest.raises(GeometryError, match=message):
        TrackingService(ModelSettings(detector="telescope", athena_map=str(path)), "cpu")


def test_settings_survive_the_parameters():
    settings = ModelSettings("toy", {"b_field_z": 1.5}, "a.toml", 3, "/cache", 17, 2000, "map.txt", log_calls=True)
    assert ModelSettings.from_parameters({**settings.to_parameters(), "other": "x"}) == settings
    assert ModelSettings.from_parameters(ModelSettings().to_parameters()) == ModelSettings()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threads": "two"}, "threads is 'two'; expected a whole number"),
        ({"threads": "0"}, "threads is 0; expected at least 1"),
        ({"detector_options": "[1]"}, "expected a JSON object"),
        ({"detector_options": "{"}, "expected a JSON object"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        ModelSettings.from_parameters(parameters)


def test_paths_of_settings_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digitization.json").write_text("{}")
    settings = ModelSettings(config="a.toml", detector_options={"digitization": "digitization.json", "b_field_z": 2})
    resolved = settings.resolved()
    assert resolved.config == str(tmp_path / "a.toml")
    assert resolved.detector_options == {"digitization": str(tmp_path / "digitization.json"), "b_field_z": 2}
