"""The event that comes with the package."""

import logging

import numpy as np
import pytest

from traccc_py.data.csv_events import read_cells, read_hits, read_measurement_hit_map, read_measurements, read_particles
from traccc_py.data.sample import SAMPLE_DIRECTORY, sample_event_path
from traccc_py.errors import InputDataError
from traccc_py.geometry import build_detector
from traccc_py.pipeline.prepare_cells import prepare_cells


def test_sample_event_is_on_the_odd(caplog):
    detector = build_detector("odd")
    cells = read_cells(sample_event_path())
    with caplog.at_level(logging.WARNING):
        prepared = prepare_cells(cells, detector)
    assert prepared.n_cells == len(cells.geometry_id) > 500
    assert caplog.records == []


def test_sample_event_has_consistent_truth():
    particles = read_particles(sample_event_path("particles_initial"))
    hits = read_hits(sample_event_path("hits"))
    links = read_measurement_hit_map(sample_event_path("measurement-simhit-map"))
    measurements = read_measurements(sample_event_path("measurements"), build_detector("odd"))
    cells = read_cells(sample_event_path())
    assert len(particles) == 20
    assert set(np.abs(particles.particle_type).tolist()) == {13}
    assert set(hits.particle_id.tolist()) == set(particles.particle_id.tolist())
    np.testing.assert_array_equal(measurements.geometry_id[links.measurement_id], hits.geometry_id[links.hit_id])
    np.testing.assert_array_equal(measurements.geometry_id[cells.measurement_id], cells.geometry_id)


def test_sample_event_is_small():
    assert sum(path.stat().st_size for path in SAMPLE_DIRECTORY.iterdir()) < 100_000


def test_sample_event_path_names_what_is_missing():
    with pytest.raises(InputDataError, match="event000000000-spacepoints"):
        sample_event_path("spacepoints")
