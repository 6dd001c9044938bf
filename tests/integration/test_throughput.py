"""`traccc-py throughput`: every way gives the same tracks, and rates that follow from its own clock."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.integration.small_events import telescope, telescope_cells
from traccc_py import TrackingChain
from traccc_py.cli.app import app
from traccc_py.data.csv_events import write_cells
from traccc_py.errors import InputDataError, TracccError
from traccc_py.studies.throughput import ThroughputPlan, event_order, measure_throughput, spread_of

N_TRACKS = (3, 7, 0)


@pytest.fixture(scope="module")
def events():
    return [telescope_cells(n, seed, telescope()) for seed, n in enumerate(N_TRACKS)]


@pytest.fixture(scope="module")
def folder(events, tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    for number, cells in enumerate(events):
        write_cells(folder / f"event{number:09d}-cells.csv", cells)
    return folder


def call(*arguments):
    return CliRunner().invoke(app, ["throughput", *map(str, arguments)])


def test_all_ways_in_turn(folder, tmp_path):
    options = ["--detector", "telescope", "--device", "cpu", "--threads", 2, "--cold-run-events", 2, "--with-reading"]
    options += ["--processed-events", 7, "--repeats", 2, "--batch-events", 3, "--random-seed", 5]
    outputs = ["--json", tmp_path / "found.json", "--log-file", tmp_path / "log.csv"]
    result = call(folder, *options, *outputs)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    order = event_order(3, 7, 5)
    expected = sum(N_TRACKS[k] for k in order)
    assert f"Reconstructed track parameters: {expected} in 7 events" in result.stdout
    assert [(r["repeat"], r["way"], r["with_reading"]) for r in found["rounds"]] == [
        (repeat, way, reads) for repeat in (0, 1) for way in ("chains", "threads", "batches") for reads in (False, True)
    ]
    for done in found["rounds"]:
        assert done["n_tracks"] == expected
        assert done["events_per_second"] == pytest.approx(7 / done["wall_seconds"])
        assert 0 < done["processor_seconds"] < 4 * done["wall_seconds"]
    rates = found["events_per_second"]["a chain per thread"]
    own = [r["events_per_second"] for r in found["rounds"] if r["way"] == "chains" and not r["with_reading"]]
    assert rates == {"median": np.mean(own), "least": min(own), "most": max(own)}
    assert {"commit", "cpu", "load_average", "versions"} <= set(found)
    lines = list(csv.reader((tmp_path / "log.csv").read_text().splitlines()))
    assert len(lines) == 12
    assert lines[0][:5] == [str(folder), "2", "3", "2", "7"]
    assert int(lines[0][6]) == round(1e9 * found["rounds"][0]["wall_seconds"])


def test_orders():
    assert event_order(3, 7, None).tolist() == [0, 1, 2, 0, 1, 2, 0]
    drawn = event_order(3, 1000, 1)
    assert (event_order(3, 1000, 1) == drawn).all()
    assert (event_order(3, 1000, 2) != drawn).any()
    assert np.bincount(drawn).min() > 280
    assert spread_of([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


def test_ways_that_differ_are_an_error(events):
    chain = TrackingChain(telescope(), device="cpu", threads=1)
    reads = iter(range(100))

    def reader(number):  # other events in the second loop
        return events[1] if next(reads) > 3 else events[0]

    plan = ThroughputPlan(1, cold_run_events=1, processed_events=2, repeats=2, ways=("threads",))
    with pytest.raises(TracccError, match="2 events gave 14 tracks by threads and 6 by threads"):
        measure_throughput(chain, lambda: reader, 1, plan, with_reading=True)


def test_a_broken_event_ends_it(events):
    chain = TrackingChain(telescope(), device="cpu", threads=1)

    def reader(number):
        message = "broken"
        if number == 1:
            raise InputDataError(message)
        return events[0]

    with pytest.raises(InputDataError, match="broken"):
        measure_throughput(chain, lambda: reader, 2, ThroughputPlan(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no input: name event files"),
        (["--sample", "--ways", "chains,all"], "--ways has 'all'; expected some of chains, threads, batches"),
        (["--sample", "--processed-events", "0"], "--processed-events"),
        (["--sample", "--json", "/"], "--json /: is a folder"),
    ],
)
def test_bad_options(options, words):
    result = call(*options)
    assert result.exit_code in (1, 2)
    assert words in result.stderr
