"""Files of an event that do not belong together: a clear error, and memory for no more than the rows there are."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import columns
from traccc_py.data.csv_events import (
    write_cells,
    write_hits,
    write_measurement_hit_map,
    write_measurements,
    write_particles,
)
from traccc_py.data.track_files import write_event_result
from traccc_py.data.truth import Hits, MeasurementHitMap, Particles
from traccc_py.edm import Cells, EventResult, Measurements, Seeds, Spacepoints, Tracks, TrackStates
from traccc_py.errors import InputDataError
from traccc_py.performance.track_readers import read_event_tracks
from traccc_py.performance.truth import read_truth

N_TRACKS, N_STATES = 3, 4  # tracks, states of each
N = N_TRACKS * N_STATES
MOST_MEMORY = 20e6  # [bytes]
#: Columns that name rows or ids of other files, by file.
LINKS = {
    "tracks": ["track_id"],
    "track_states": ["track_id", "measurement_id"],
    "measurement-simhit-map": ["measurement_id", "hit_id"],
    "hits": ["particle_id"],
    "particles_initial": ["particle_id"],
    "cells": ["measurement_id", "channel0", "channel1"],
    "found_tracks": ["hit_ids"],
    "seeds": ["bottom_hit", "top_hit"],
}


def zeros(*shape):
    return np.zeros(shape, np.float32)


def write_event(folder):
    """Write an event of straight particles whose tracks have all their hits, as own files and as traccc's tables."""
    rows = np.arange(N)
    particle_id = np.arange(1, N_TRACKS + 1, dtype=np.uint64)
    integers = np.zeros(N_TRACKS, np.int32)
    write_particles(
        folder / "event000000000-particles_initial.csv",
        Particles(particle_id, integers, integers, zeros(3, 3), zeros(3), zeros(3, 3) + 1, zeros(3), zeros(3) + 1),
    )
    hits = Hits(
        np.repeat(particle_id, N_STATES), rows.astype(np.uint64) + 1, zeros(N, 3), zeros(N), zeros(N, 3) + 1, zeros(N),
        zeros(N, 3), zeros(N), rows % N_STATES,
    )  # fmt: skip
    write_hits(folder / "event000000000-hits.csv", hits)
    write_measurement_hit_map(folder / "event000000000-measurement-simhit-map.csv", MeasurementHitMap(rows, rows))
    measurements = Measurements(
        rows.astype(np.uint64) + 1, zeros(N, 2), zeros(N, 2) + 1, np.full(N, 2), zeros(N), rows, np.ones((N, 2)),
        np.ones(N), rows,
    )  # fmt: skip
    write_measurements(folder / "event000000000-measurements.csv", measurements)
    write_cells(
        folder / "event000000000-cells.csv", Cells(rows.astype(np.uint64) + 1, rows, rows, zeros(N) + 1, zeros(N), rows)
    )
    out = folder / "out"
    tracks = Tracks(
        **{
            name: zeros(N_TRACKS, *shape)
            for name, shape in (("params", [5]), ("covariance", [15]), ("perigee", [5]), ("perigee_covariance", [15]))
        },
        **{name: zeros(N_TRACKS) for name in ("time", "chi2", "ndf", "pval")},
        **{
            name: np.full(N_TRACKS, n)
            for name, n in (
                ("fit_outcome", 1),
                ("n_measurements", 4),
                ("n_holes", 0),
                ("n_shared_measurements", 0),
                ("n_outliers", 0),
                ("n_kinks", 0),
            )
        },
        geometry_id=np.ones(N_TRACKS, np.uint64),
        state_offsets=np.arange(0, N + 1, N_STATES),
    )
    states = columns.zeros(TrackStates, N, measurement_index=rows, geometry_id=measurements.geometry_id)
    none = Spacepoints(zeros(0, 3), rows[:0]), Seeds(rows[:0], rows[:0], rows[:0], zeros(0))
    write_event_result(out, 0, EventResult(measurements, *none, tracks, states, N, N_TRACKS))
    _write_traccc(folder)


def _write_traccc(folder):
    state = ["loc0", "loc1", "phi", "theta", "qop"]
    columns = ["geometry_id", *state, *(f"var_{name}" for name in state)]
    first = ",".join(["1", *["0.5"] * 10])
    lines = [f"1,3,2.0,0.5,0,{first},4,{' '.join(str(4 * k + j) for j in range(4))}" for k in range(N_TRACKS)]
    header = ",".join(["outcome", "ndf", "chi2", "pval", "nholes", *columns, "n_states", "hit_ids"])
    (folder / "event000000000-found_tracks.csv").write_text("\n".join([header, *lines, ""]))
    header = ",".join(["bottom_hit", "middle_hit", "top_hit", *columns])
    lines = [f"{4 * k},{4 * k + 1},{4 * k + 2},{first}" for k in range(N_TRACKS)]
    (folder / "event000000000-seeds.csv").write_text("\n".join([header, *lines, ""]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("joins")
    write_event(made)
    return made


def path_of(folder, kind):
    return (folder / "out" if kind in ("tracks", "track_states") else folder) / f"event000000000-{kind}.csv"


def read(folder, kind):
    """Read the event; return the tracks and the peak of memory [bytes]."""
    tracemalloc.start()
    try:
        truth = read_truth(folder, 0)
        tracks = read_event_tracks(folder / "out" if kind == "own" else folder, kind, folder, truth)
        return tracks, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def replaced(text, column, row, value):
    """Return a table with one value replaced."""
    lines = text.splitlines()
    fields = lines[row + 1].split(",")
    fields[lines[0].split(",").index(column)] = str(value)
    lines[row + 1] = ",".join(fields)
    return "\n".join([*lines, ""])


class Changed:
    """A file with other content, as long as the context lasts."""

    def __init__(self, path, text):
        self.path, self.text, self.before = path, text, path.read_text()

    def __enter__(self):
        self.path.write_text(self.text)

    def __exit__(self, *_):
        self.path.write_text(self.before)


def test_the_event_is_read_as_it_is(folder):
    for kind in ("own", "found", "seeds"):
        found, _ = read(folder, kind)
        tracks = found.seeds if kind == "seeds" else found.tracks
        assert np.diff(tracks.offsets).tolist() == [3 if kind == "seeds" else N_STATES] * N_TRACKS
        assert (np.diff(found.links.offsets) == 1).all()


@pytest.mark.parametrize(
    ("kind", "column", "row", "value", "message"),
    [
        ("track_states", "track_id", 5, 99999999, "line 7: column track_id is '99999999'; expected a row of"),
        ("track_states", "track_id", 11, 0, "line 13: column track_id is '0'; expected 2 or more: states are in the"),
        ("track_states", "measurement_id", 2, 1000000, "line 4: column measurement_id is '1000000'; expected -1"),
        ("tracks", "track_id", 1, 7, "line 3: column track_id is '7'; expected 1, the number of the row"),
        ("measurement-simhit-map", "hit_id", 3, 12, "line 5: column hit_id is '12'; expected a row of the hits"),
        ("measurement-simhit-map", "measurement_id", 3, 10**15, f"column measurement_id is '{10**15}'; expected a row"),
        ("particles_initial", "particle_id", 1, 1, "particle_id 1 appears more than once"),
    ],
)  # fmt: skip
def test_a_link_to_nothing_is_named(folder, kind, column, row, value, message):
    path = path_of(folder, kind)
    with Changed(path, replaced(path.read_text(), column, row, value)), pytest.raises(InputDataError) as caught:
        read(folder, "own")
    assert message in str(caught.value)
    assert path.name in str(caught.value)


def test_a_hits_file_that_was_cut_is_named_by_the_links_that_miss_it(folder):
    path = path_of(folder, "hits")
    cut = "\n".join([*path.read_text().splitlines()[:6], ""])
    for kind in ("own", "found", "seeds"):
        with Changed(path, cut), pytest.raises(InputDataError, match=r"hits file, 0 to 4 \(is that file complete"):
            read(folder, kind)


def test_empty_links_are_an_error_and_not_an_event_without_fakes(folder):
    path = path_of(folder, "measurement-simhit-map")
    with (
        Changed(path, "measurement_id,hit_id\n"),
        pytest.raises(InputDataError, match="has no rows, but the event has 12"),
    ):
        read(folder, "own")


def test_hits_of_another_events_particles_are_an_error(folder):
    path = path_of(folder, "hits")
    text = path.read_text()
    for row in range(N):
        text = replaced(text, "particle_id", row, 77)
    with Changed(path, text), pytest.raises(InputDataError, match="are the two files of one event"):
        read(folder, "own")


@pytest.mark.slow
@settings(max_examples=400)
@given(data=st.data())
def test_any_link_gives_tracks_or_an_error_and_little_memory(folder, data):
    kind = data.draw(st.sampled_from(list(LINKS)))
    column = data.draw(st.sampled_from(LINKS[kind]))
    path = path_of(folder, kind)
    n_rows = len(path.read_text().splitlines()) - 1
    row = data.draw(st.integers(0, n_rows - 1))
    value = data.draw(st.one_of(st.integers(-3, 30), st.integers(-(2**63), 2**64), st.integers(0, 2**31 - 1)))
    text = replaced(path.read_text(), column, row, value)
    if data.draw(st.booleans()):
        text = "\n".join([*text.splitlines()[: data.draw(st.integers(1, n_rows + 1))], ""])
    reader = {"found_tracks": "found", "seeds": "seeds"}.get(kind) or data.draw(st.sampled_from(["own", "found"]))
    with Changed(path, text):
        try:
            _, peak = read(folder, reader)
        except InputDataError:
            return
    assert peak < MOST_MEMORY
