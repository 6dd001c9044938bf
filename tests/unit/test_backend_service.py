"""The service without Triton: which request gets which answer, whatever else is in the call."""

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.integration.small_events import telescope_cells
from traccc_py import wire
from traccc_py.backend.service import BatchReport, DecodedEvent, Request, TrackingService, WithdrawnError
from traccc_py.backend.settings import ModelSettings, QueueSettings
from traccc_py.data.dead_channels import write_dead_channels
from traccc_py.detector_options import DetectorOptions
from traccc_py.edm import STAGES, Cells
from traccc_py.errors import CapacityError, ConfigError, InputDataError, TracccError, WireError
from traccc_py.geometry import write_detray
from traccc_py.geometry.dead_channels import DeadChannels
from traccc_py.pipeline import stages

N_TRACKS = (3, 0, 12)
TELESCOPE = DetectorOptions("telescope")


@pytest.fixture(scope="module")
def service():
    service = TrackingService(ModelSettings(TELESCOPE, threads=1), "cpu")
    service.initialize()
    return service


@pytest.fixture(scope="module")
def events(service):
    return [telescope_cells(n, n, service.chain.detector) for n in N_TRACKS]


def test_settings_that_do_not_fit_and_events_without_seeds_are_in_the_log(tmp_path, events, caplog):
    settings = tmp_path / "narrow.toml"
    settings.write_text("[seeding]\nr_max = 10.0\n")
    narrow = TrackingService(ModelSettings(TELESCOPE, threads=1, config=str(settings)), "cpu")
    narrow.initialize()
    assert "9 of 9 planes lie or reach beyond seeding.r_max = 10 mm" in caplog.text
    assert "0 seeds" not in caplog.text  # not of the event that it starts with
    narrow.process([DecodedEvent(events[2])])
    assert "0 seeds from 118 spacepoints" in caplog.text


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


def process(service, requests):
    """Return answers to requests whose events, where they can be decoded, are one batch; and the report."""
    decoded, answers, report = {}, {}, BatchReport()
    for k, one in enumerate(requests):
        try:
            decoded[k] = service.decode(one)
        except TracccError as error:
            answers[k] = error
    answers |= zip(decoded, service.process(list(decoded.values()), report), strict=True)
    for answer in answers.values():
        report.add_answer(answer)
    return [answers[k] for k in range(len(requests))], report


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
        answers, report = process(service, [request(cells) for cells in events])
    assert sizes == [len(events)]
    assert_answers(service, answers, events)
    assert (report.n_requests, report.n_refused, report.n_failed) == (3, 0, 0)
    assert report.n_cells == sum(map(len, events))
    assert report.n_tracks >= 14
    of_graphs = {"graph", "edge_filter", "edge_scores", "segmentation"}
    assert set(report.stage_milliseconds) == set(STAGES) - of_graphs


def test_standard_and_compact_requests_in_one_call(service, events):
    answers, _ = process(service, [request(events[0]), Request(wire.pack_compact_cells(events[2]))])
    assert_answers(service, answers, [events[0], events[2]])


def test_a_service_beside_it_has_buffers_of_its_own_and_gives_the_same(service, events):
    other = service.beside()
    assert other.chain is not service.chain
    assert other.chain.detector is service.chain.detector
    assert other.chain._schedule._stages is service.chain._schedule._stages  # a start has no time for a second one
    assert other.chain._schedule.workspace is not service.chain._schedule.workspace
    assert other.chain.device is not service.chain.device
    answers = other.process([DecodedEvent(cells) for cells in events])
    assert_answers(service, answers, events)


def test_an_event_that_needs_too_much_memory_is_refused_before_it_is_asked_for(service, events, monkeypatch):
    n = len(events[2])
    monkeypatch.setattr(service, "_memory", n * 100 - 1)
    with pytest.raises(CapacityError, match=rf"{n} cells, which need . MB .* at least; expected .*memory_mb"):
        service.decode(request(events[2]))
    assert len(service.decode(request(events[0])).cells) == len(events[0])


def test_an_event_that_finds_no_memory_is_done_again_alone(service, events, monkeypatch):
    """Others of the batch, or the other chain, may have it; an event that fails then, too, is refused."""
    other, run_batch, calls = service.beside(), service.chain.run_batch, []

    def no_memory_at_first(batch, *sources):
        calls.append(len(batch))
        if len(calls) <= n_failures:
            raise MemoryError
        return run_batch(batch, *sources)

    monkeypatch.setattr(service.chain, "run_batch", no_memory_at_first)
    other.process([DecodedEvent(events[0])])
    assert other.chain._schedule.workspace._store.arrays
    n_failures = 2
    answers = service.process([DecodedEvent(cells) for cells in events[:2]])
    assert calls == [2, 1, 1, 1]  # both, the first, the second, the first again
    assert_answers(service, answers, events[:2])
    assert not other.chain._schedule.workspace._store.arrays
    n_failures = 1000
    (answer,) = service.process([DecodedEvent(events[0])])
    assert isinstance(answer, CapacityError)


def test_an_event_that_is_done_alone_waits_for_the_other_chain(service, events, monkeypatch):
    other, begun, may_end, order = service.beside(), threading.Event(), threading.Event(), []
    run_batch, run_other = service.chain.run_batch, other.chain.run_batch

    def slow(batch, *sources):
        begun.set()
        assert may_end.wait(20)
        order.append("other")
        return run_other(batch, *sources)

    def no_memory_at_first(batch, *sources):
        order.append("own")
        if order.count("own") == 1:
            threading.Timer(0.2, may_end.set).start()
            raise MemoryError
        return run_batch(batch, *sources)

    monkeypatch.setattr(other.chain, "run_batch", slow)
    monkeypatch.setattr(service.chain, "run_batch", no_memory_at_first)
    thread = threading.Thread(target=other.process, args=([DecodedEvent(events[0])],))
    thread.start()
    assert begun.wait(20)
    answers = service.process([DecodedEvent(events[1])])
    thread.join()
    assert order == ["own", "other", "own"]
    assert_answers(service, answers, [events[1]])


def test_an_event_that_takes_too_long_is_refused_alone(events, monkeypatch):
    limited = TrackingService(ModelSettings(TELESCOPE, threads=1, event_seconds=2), "cpu")
    limited.initialize()
    slow, first_stages = len(events[2]), stages.Stages._form_spacepoints

    def slow_if_large(self, ws, given, clock):
        if any(event.n_cells >= slow for event in given.prepared):
            time.sleep(2.1)
        return first_stages(self, ws, given, clock)

    monkeypatch.setattr(stages.Stages, "_form_spacepoints", slow_if_large)
    answers, report = process(limited, [request(events[0]), request(events[2]), request(events[1])])
    assert_answers(limited, [answers[0], answers[2]], [events[0], events[1]])
    assert isinstance(answers[1], CapacityError)
    assert re.search(r"took 2\.. s up to the stage \w+; expected at most 2 s", str(answers[1]))
    assert (report.n_refused, report.n_failed) == (1, 0)


def test_bad_events_do_not_spoil_others(service, events):
    calls = [request(events[0]), broken(events[0]), request(no_cells(events[0])), broken(events[2]), request(events[2])]
    answers, report = process(service, calls)
    assert_answers(service, [answers[0], answers[2], answers[4]], [events[0], no_cells(events[0]), events[2]])
    for k in (1, 3):
        assert isinstance(answers[k], InputDataError)
        assert "cells row 2" in str(answers[k])
    assert (report.n_refused, report.n_failed) == (2, 0)


def test_call_of_bad_events_alone(service, events):
    answers, report = process(service, [broken(events[0]), broken(events[0])])
    assert all(isinstance(answer, InputDataError) for answer in answers)
    assert report.n_refused == 2


def test_call_of_no_requests(service):
    assert process(service, [])[0] == []


def test_only_wanted_outputs_are_made(service, events):
    (answer,), _ = process(service, [request(events[0], outputs={"TRK_PARAMS"})])
    assert list(answer) == ["TRK_PARAMS"]


def test_fingerprint_of_another_detector_is_refused(service, events):
    own = service.chain.detector.fingerprint
    good, bad = process(service, [request(events[0], fingerprint=own), request(events[0], fingerprint="beef")])[0]
    assert isinstance(good, dict)
    assert isinstance(bad, WireError)
    assert "'beef'" in str(bad)
    assert own in str(bad)


def test_events_nobody_waits_for_are_left_out_when_a_batch_is_done_again(service, events, monkeypatch):
    run_batch, tried = service.chain.run_batch, []

    def failing(batch):
        tried.append(len(batch))
        if len(batch) > 1:
            raise RuntimeError
        return run_batch(batch)

    with monkeypatch.context() as patch:
        patch.setattr(service.chain, "run_batch", failing)
        gone = WithdrawnError("gone")
        answers = service.process([DecodedEvent(e) for e in events], None, lambda k: gone if k == 2 else None)
    assert answers[2] is gone
    assert_answers(service, answers[:2], events[:2])
    assert tried == [3, 1, 1]


def test_event_beyond_the_cell_budget_is_refused(service, events, monkeypatch):
    monkeypatch.setattr(service, "settings", ModelSettings(TELESCOPE, max_cells=len(events[2]) - 1))
    good, bad = process(service, [request(events[0]), request(events[2])])[0]
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
    answers, report = process(service, [request(events[k]) for k in (0, 2, 1)])
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
    mapped = TrackingService(ModelSettings(TELESCOPE, athena_map=path, threads=1), "cpu")
    cells = events[2]
    athena = replace(cells, geometry_id=(np.searchsorted(ids, cells.geometry_id) + 0x1000).astype(np.uint64))
    answer, refused = process(mapped, [request(athena), request(cells)])[0]
    expected = wire.pack_result(service.chain.run(cells))
    found = answer["GEOMETRY_IDS"]
    np.testing.assert_array_equal(found == 0, expected["GEOMETRY_IDS"] == 0)
    np.testing.assert_array_equal(ids[found[found != 0] - 0x1000], expected["GEOMETRY_IDS"][found != 0])
    assert answer["TRK_PARAMS"].tobytes() == expected["TRK_PARAMS"].tobytes()
    assert isinstance(refused, InputDataError)
    assert (
        f"cells row 0 (counted from 0): Athena identifier {cells.geometry_id[0]:#x} is not in the server's map"
        in str(refused)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x10,5\n17\n", "map.txt, line 2: '17'; expected a hexadecimal"),
        ("0x0,5\n", "map.txt, line 1: 0 is not an identifier"),
        ("0x10,5\n", "map.txt: 9 of 9 sensors have no Athena identifier"),
        ("", "9 of 9 sensors have no Athena identifier"),
    ],
)
def test_bad_athena_maps_are_refused(tmp_path, text, message):
    path = tmp_path / "map.txt"
    path.write_text(text)
    with pytest.raises(TracccError, match=message):
        TrackingService(ModelSettings(TELESCOPE, athena_map=str(path)), "cpu")


def test_settings_survive_the_parameters():
    detector = DetectorOptions(
        detector_file=Path("/d/geometry.json"),
        material_files=(Path("/d/one, two.json"), Path("/d/maps.json")),
        grid_file=Path("/d/grids.json"),
        digitization="/d/digitization.json",
        conditions_file=Path("/d/conditions.json"),
        dead_channels_file=Path("/d/dead.csv"),
        variances_file=Path("/d/variances.json"),
        bfield_file=Path("/d/field.csv"),
        bfield_format="csv",
        bfield_symmetry="xyz",
        bfield_partial=True,
    )
    settings = ModelSettings(
        detector,
        "a.toml",
        threads=3,
        cache_dir="/cache",
        max_cells=17,
        gpu_memory_mb=2000,
        athena_map="map.txt",
        hide_values=True,
        log_calls=True,
        memory_mb=9,
    )
    queue = QueueSettings(3, 17, 5, 100, 7)
    assert QueueSettings.from_parameters({**queue.to_parameters(), "other": "x"}) == queue
    for given in (settings, ModelSettings(), ModelSettings(DetectorOptions("toy", bfield_value=1.5))):
        assert ModelSettings.from_parameters({**given.to_parameters(), "other": "x"}) == given


def test_a_service_is_told_of_dead_channels(tmp_path, events, service):
    ids = service.chain.detector.geometry_ids
    path = write_dead_channels(tmp_path / "dead.csv", DeadChannels.of_modules(ids[3:6]))
    settings = ModelSettings(DetectorOptions("telescope", dead_channels_file=path), threads=1)
    told = TrackingService(ModelSettings.from_parameters(settings.resolved().to_parameters()), "cpu")
    told.initialize()
    cells = events[2]
    live = Cells(*(getattr(cells, name)[~np.isin(cells.geometry_id, ids[3:6])] for name in Cells.__slots__))
    (with_gap,) = service.process([DecodedEvent(live)])
    answer, of_all = told.process([DecodedEvent(live), DecodedEvent(cells)])
    assert len(answer["TRK_SUMMARY"]) > len(with_gap["TRK_SUMMARY"])
    assert of_all["TRK_SUMMARY"].tobytes() == answer["TRK_SUMMARY"].tobytes()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threads": "two"}, "threads is 'two'; expected a whole number"),
        ({"threads": "0"}, "threads is 0; expected an integer >= 1"),
        ({"material_files": "[1]"}, "material_files is .*; expected a JSON list of files"),
        ({"material_files": "{"}, "material_files is .*; expected a JSON list of files"),
        ({"bfield_value": "strong"}, "bfield_value is 'strong'; expected a number"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        ModelSettings.from_parameters(parameters)


def test_paths_of_settings_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digitization.json").write_text("{}")
    files = DetectorOptions(detector_file=Path("a.json"), material_files=(Path("b.json"),), bfield_value=2.0)
    resolved = ModelSettings(files, config="a.toml", athena_map="map.txt").resolved()
    assert (resolved.config, resolved.athena_map) == (str(tmp_path / "a.toml"), str(tmp_path / "map.txt"))
    assert resolved.detector == DetectorOptions(
        detector_file=tmp_path / "a.json", material_files=(tmp_path / "b.json",), bfield_value=2.0
    )
    assert ModelSettings(files, config="traccc").resolved().config == "traccc"  # no file, but settings by name
    named = ModelSettings(DetectorOptions("odd", digitization="odd-digi-geometric")).resolved().detector
    assert named.digitization == "odd-digi-geometric"
    readout = ModelSettings(DetectorOptions("odd", digitization="digitization.json")).resolved().detector
    assert readout.digitization == str(tmp_path / "digitization.json")


def test_detector_from_files_with_identifiers_of_athena(service, events, tmp_path):
    """The telescope written and read again gives its tracks; the map has detray's identifiers, the answer Athena's."""
    files = write_detray(service.chain.detector, tmp_path)
    chosen = DetectorOptions(
        detector_file=files["geometry"],
        material_files=(files["homogeneous_material"],),
        digitization=str(files["digitization"]),
        bfield_value=service.chain.detector.b_field_z,
    )
    detector = chosen.load()
    assert not np.isin(detector.detray_ids, detector.geometry_ids).any()
    path = write_map(tmp_path / "map.txt", detector.detray_ids)
    settings = ModelSettings.from_parameters(ModelSettings(chosen, athena_map=path, threads=1).to_parameters())
    from_files = TrackingService(settings, "cpu")
    cells = events[2]
    module = np.searchsorted(detector.geometry_ids, cells.geometry_id)
    (answer,), _ = process(from_files, [request(replace(cells, geometry_id=(module + 0x1000).astype(np.uint64)))])
    found, expected = wire.unpack_tracks(answer), wire.unpack_tracks(wire.pack_result(service.chain.run(cells)))
    assert len(found) == len(expected) >= N_TRACKS[2]
    np.testing.assert_array_equal(
        detector.geometry_ids[found.state_geometry_id - np.uint64(0x1000)], expected.state_geometry_id
    )
    np.testing.assert_allclose(found.params, expected.params, rtol=1e-3, atol=1e-4)
