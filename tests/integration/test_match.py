"""Results as tables beside the truth: what a user does after the chain, in a few lines."""

import numpy as np
import pytest

from traccc_py import TrackingChain, match, read_cells, read_measurements, read_truth
from traccc_py.data.csv_events import find_event_file
from traccc_py.errors import InputDataError
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.truth import EventTruth
from traccc_py.simulation.events import simulate_event, write_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

GUN = ParticleGunConfig(n_particles=60, momentum=(0.5, 10.0), momentum_is_transverse=True, eta=(-2.5, 2.5))


@pytest.fixture(scope="module")
def chain():
    return TrackingChain("odd", device="cpu", threads=2)


@pytest.fixture(scope="module")
def event(chain):
    return simulate_event(chain.detector, GUN, seed=5, event=3)


@pytest.fixture(scope="module")
def result(chain, event):
    return chain.run(event.cells)


def test_states_are_where_the_hits_are(event, result, chain):
    found = match(result, event)
    states = result.track_states
    hit = found.links.hit_index[found.links.offsets[:-1][states.measurement_index]]
    distance = np.linalg.norm(states.global_position - event.simulated.hits.position[hit], axis=1)
    two_dimensional = result.measurements.dimensions[states.measurement_index] == 2
    is_own = (found.particle_index[states.track_index] == event.simulated.particle_index[hit]) & two_dimensional
    assert np.median(distance[is_own]) < 0.05
    assert distance[is_own].max() < 2.0
    np.testing.assert_array_equal(
        states.track_index, np.repeat(np.arange(len(result.tracks)), result.tracks.n_measurements)
    )


def test_match_counts_as_the_performance_code(event, result, chain):
    selection = TruthSelection(min_pt=1.0, max_eta=2.0, min_measurements=7)
    summary = PerformanceSummary(
        {"all": selection}, b_z=float(chain.detector.arrays().b_z), frames=detector_frames(chain.detector)
    )
    summary.add_result(event, result)
    found = match(result, event)
    assert found.counts(selection) == summary.samples["all"].tracks
    assert found.counts(min_pt=1.0, max_eta=2.0, min_measurements=7).efficiency > 0.95
    pulls = found.perigee_residuals(chain.detector.b_field_z).pull
    assert 0.5 < np.nanstd(pulls[:, 0]) < 2.0


def test_tables_stand_beside_the_truth(event, result):
    found = match(result, event)
    table = found.to_pandas()
    good = table[table.is_matched & (table.pt_error < 0.05 * table.pt)]
    assert len(good) > 40
    assert (abs(good.pt / good.true_pt - 1) < 0.2).all()
    assert (good.charge == good.true_charge).all()
    particles = found.particles_to_pandas()
    assert len(particles) == len(event.particles)
    is_found = particles.track_index >= 0
    assert (particles.n_tracks[is_found] > 0).all()
    assert set(table.particle_id[table.is_matched]) == set(particles.particle_id[is_found])
    assert "TruthMatch" in found._repr_html_()


def test_selected_tracks_match_as_before(event, result):
    every, rows = match(result, event), result.tracks.pt > 2
    some = match(result.with_tracks(rows), event)
    np.testing.assert_array_equal(some.particle_index, every.particle_index[rows])
    np.testing.assert_array_equal(some.purity, every.purity[rows])


def test_truth_may_come_from_files(tmp_path, chain, event, result):
    write_event(tmp_path, chain.detector, event)
    from_memory = match(result, event)
    truth = read_truth(tmp_path, 3)
    again = match(chain.run(read_cells(find_event_file(tmp_path, 3, "cells"))), truth)
    np.testing.assert_array_equal(again.particle_index, from_memory.particle_index)
    np.testing.assert_array_equal(again.is_matched, from_memory.is_matched)
    measurements = read_measurements(find_event_file(tmp_path, 3, "measurements"))
    assert match(chain.run(measurements), truth).counts(min_pt=1.0).efficiency > 0.95
    other = simulate_event(chain.detector, GUN, seed=6)
    with pytest.raises(InputDataError, match="the result: is neither the measurements of"):
        match(chain.run(other.cells), truth)


def test_truth_without_links_is_refused(event, result):
    bare = EventTruth(3, event.particles, event.simulated.hits, event.simulated.particle_index)
    with pytest.raises(InputDataError, match="does not say which particles made the measurements"):
        match(result, bare)


def test_notebooks_see_chain_and_detector(chain):
    assert "18824 surfaces" in repr(chain)
    assert "cpu, 2 threads" in chain._repr_html_()
    assert "those of the detector" in chain._repr_html_()
    assert "odd-2024" in chain.detector._repr_html_()
