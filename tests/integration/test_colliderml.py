"""ColliderML's display events from its own Parquet tables, beside the same events converted by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.colliderml import EVENTS, hit_columns
from traccc_py import TrackingChain, match, read_measurements
from traccc_py.cli.app import app
from traccc_py.cli.event_reader import EventReader
from traccc_py.cli.files import find_event_files
from traccc_py.data.colliderml import HIT_RULES, hit_measurements, read_collider_particles
from traccc_py.data.parquet_files import ParquetEvents, ParquetTables
from traccc_py.data.source import Source
from traccc_py.errors import InputDataError
from traccc_py.performance.collider_truth import read_collider_truth

pq = pytest.importorskip("pyarrow.parquet")

POSITION = 2e-4  #: rounding of global positions of a metre in float32 [mm]


@pytest.fixture(scope="module")
def chain():
    return TrackingChain("colliderml", device="cpu", threads=2)


def test_the_preset_has_the_field_and_readout_of_the_data(chain):
    assert chain.detector.b_field_z == 3.0
    assert chain.detector.digitization.name == "odd-current"
    assert chain.detector.name == "odd"


def test_hits_become_the_measurements_they_were(collider_run, reference_data, chain):
    files = find_event_files([str(collider_run[0])], with_tables=True)
    assert [(file.event, file.kind) for file in files] == [(0, "tracker_hits"), (1, "tracker_hits")]
    reader = EventReader(chain.detector)
    for file in files:
        found = reader.read(file)
        expected = read_measurements(
            reference_data / "colliderml" / f"event{file.event:09d}-measurements.csv", chain.detector
        )
        np.testing.assert_array_equal(found.event.geometry_id, expected.geometry_id)
        np.testing.assert_array_equal(found.event.dimensions, expected.dimensions)
        two = expected.dimensions == 2
        assert np.abs(found.event.local_position - expected.local_position)[:, 0].max() < POSITION
        assert np.abs(found.event.local_position - expected.local_position)[two, 1].max() < POSITION
        ratio = found.event.local_variance[:, 0] / expected.local_variance[:, 0]
        assert 0.5 < np.median(ratio) < 2.0
        assert found.particle_of_measurement is not None


def test_events_run_without_conversion_by_hand(collider_run, reference_data):
    """At least as many of the particles that count as with the measurements that were converted by hand, less one."""
    tracks = pq.read_table(collider_run[1] / "tracks").to_pylist()
    n_selected = n_found = 0
    for row in tracks:
        truth = pd.read_csv(reference_data / "colliderml" / f"event{row['event_id']:09d}-truth.csv")
        counts = (truth.pt > 1) & (abs(truth.eta) < 3) & (truth.n_hits >= 7) & (truth.n_pixel_hits >= 3)
        n_selected += counts.sum()
        n_found += truth.particle_id[counts].isin(row["majority_particle_id"]).sum()
    assert n_selected == 40
    assert n_found >= 36


def test_tracks_are_those_of_acts(collider_run, reference_data):
    for row in pq.read_table(collider_run[1] / "tracks").to_pylist():
        acts = pd.read_csv(reference_data / "colliderml" / f"event{row['event_id']:09d}-acts_tracks.csv")
        place = {particle: k for k, particle in enumerate(row["majority_particle_id"])}
        both = acts[acts.particle_id.isin(place)]
        ours = np.array([place[particle] for particle in both.particle_id])
        assert len(both) > 10
        assert np.median(np.abs(np.array(row["d0"])[ours] - both.d0)) < 0.005
        assert np.median(np.abs(np.array(row["qop"])[ours] / both.qop - 1)) < 0.005
        assert [len(ids) for ids in row["hit_ids"]] == row["n_measurements"]


def test_the_record_says_what_was_run(collider_run):
    record = json.loads((collider_run[1] / "run-manifest.json").read_text())
    assert record["is_complete"]
    assert record["recipe"]["detector"]["field"] == 3.0
    assert [event["event"] for event in record["events"]] == list(EVENTS)


def test_particles_are_read(collider_run):
    (path,) = (collider_run[0] / "particles").iterdir()
    particles = read_collider_particles(ParquetEvents(path), 1)
    assert len(particles) == 53
    assert np.isfinite(particles.pt).all()


def test_tracks_match_the_truth_of_the_tables(collider_run, chain):
    sample, _ = collider_run
    reader = EventReader(chain.detector)
    counts = []
    for file in find_event_files([str(sample)], with_tables=True):
        result = chain.run(reader.read(file).event)
        found = match(result, read_collider_truth(sample, file.event, chain.detector))
        cuts = {"min_pt": 1.0, "max_eta": 3.0, "min_measurements": 7, "min_pixel_layers": 3, "particle_types": ()}
        counts.append(found.counts(**cuts))
        assert found.to_pandas().purity[found.is_matched].mean() > 0.9
    total = sum(counts[1:], counts[0])
    assert total.n_found / total.n_particles > 0.85
    assert total.n_fakes <= 1
    with pytest.raises(InputDataError, match="is it one event"):
        match(result, read_collider_truth(sample, 0, chain.detector))
    with pytest.raises(InputDataError, match="no Parquet file has event 9"):
        read_collider_truth(sample, 9, chain.detector)


def test_the_event_is_drawn_with_its_truth(collider_run, tmp_path):
    pytest.importorskip("plotly")
    words = ["display", str(collider_run[0]), "--detector", "colliderml", "-o", str(tmp_path / "page.html")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert '"has_truth":true' in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surface_id": 60000}, "event 4, tracker_hits row 2 .*: volume 16, layer 4, surface 60000 is no sensor"),
        ({"x": 1.5}, "event 4, tracker_hits row 2 .*: the hit is .* mm off its sensor; is it the right detector"),
    ],
)
def test_hits_that_are_not_on_the_detector_are_named(reference_data, chain, change, message):
    table = hit_columns(reference_data / "colliderml" / "event000000000-measurements.csv", chain.detector)
    table = {rule.name: table[rule.name].astype(rule.dtype) for rule in HIT_RULES}
    for name, value in change.items():
        table[name][2] = value if name == "surface_id" else table[name][2] + value
    if "x" in change:  # along the normal of a disc
        table["x"][2] -= change["x"]
        table["z"][2] += change["x"]
    with pytest.raises(InputDataError, match=message):
        hit_measurements(table, chain.detector, Source("f.parquet", event=4))


def test_tables_of_another_schema_are_refused(tmp_path):
    tables = ParquetTables(tmp_path, 10)
    tables.add(0, {"calo_hits": {"x": np.zeros(1, np.float32), "cell_id": np.zeros(1, np.uint64)}})
    tables.close()
    (path,) = (tmp_path / "calo_hits").iterdir()
    done = CliRunner().invoke(app, ["run", str(path)])
    assert done.exit_code == 2
    assert "has no table that can be reconstructed; expected the columns of cells: channel0, channel1" in done.output
    done = CliRunner().invoke(app, ["run", str(tmp_path)])
    assert "has no file that ends in -cells.csv" in done.output
