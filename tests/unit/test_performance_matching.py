import numpy as np
import pytest

from traccc_py.data.truth import Hits, Particles
from traccc_py.edm import Cells, Measurements
from traccc_py.errors import ConfigError
from traccc_py.performance.matching import (
    Counts,
    MeasurementTruth,
    TruthSelection,
    count_matches,
    match_groups,
    measurement_truth,
    measurement_truth_of_hits,
    select_particles,
)
from traccc_py.simulation.digitization import Digitization
from traccc_py.simulation.transport import SimulatedHits


def truth_of(lists):
    """Truth from one list of particles per measurement."""
    offsets = np.concatenate(([0], np.cumsum([len(x) for x in lists]))).astype(np.int64)
    particles = np.array([p for x in lists for p in x], np.int64)
    return MeasurementTruth(offsets, particles, np.ones(len(particles), np.int64), np.arange(len(particles)))


def match(tracks, truth, n_particles, **options):
    offsets = np.concatenate(([0], np.cumsum([len(t) for t in tracks]))).astype(np.int64)
    return match_groups(offsets, np.array([m for t in tracks for m in t], np.int64), truth, n_particles, **options)


def simulated_hits(particle_index, geometry_id=None):
    n = len(particle_index)
    zero, vector = np.zeros(n), np.zeros((n, 3))
    ids = np.zeros(n, np.uint64) if geometry_id is None else np.asarray(geometry_id, np.uint64)
    hits = Hits(
        np.asarray(particle_index, np.uint64), ids, vector, zero, vector, zero, vector, zero, np.zeros(n, np.int64)
    )
    return SimulatedHits(hits, np.asarray(particle_index), np.zeros(n, np.int32), np.zeros((n, 2)))


def test_purity_and_completeness_of_hand_made_tracks():
    # particle 0 has measurements 0-3, particle 1 has 4-9
    truth = truth_of([[0]] * 4 + [[1]] * 6)
    found = match([[0, 1, 2, 4], [4, 5], [4, 5, 6, 0], []], truth, 2)
    assert found.particle_index.tolist() == [0, 1, 1, -1]
    assert found.n_major.tolist() == [3, 2, 3, 0]
    np.testing.assert_allclose(found.purity, [0.75, 1.0, 0.75, 0.0])
    np.testing.assert_allclose(found.completeness, [0.75, 2 / 6, 0.5, 0.0])
    assert found.is_matched.tolist() == [True, False, True, False]


def test_exactly_half_is_a_match_and_ties_go_to_the_lower_row():
    truth = truth_of([[1], [1], [0], [0]])
    found = match([[0, 1, 2, 3]], truth, 2)
    assert (found.particle_index[0], found.purity[0], found.is_matched[0]) == (0, 0.5, True)


def test_a_shared_measurement_counts_for_each_of_its_particles():
    truth = truth_of([[0, 1], [0, 1], [1]])
    found = match([[0, 1, 2]], truth, 2)
    assert (found.particle_index[0], found.n_major[0], found.completeness[0]) == (1, 3, 1.0)
    assert match([[0, 1]], truth, 2).particle_index[0] == 0


def test_holes_do_not_count():
    found = match([[0, -1, 1]], truth_of([[0], [0]]), 1)
    assert (found.purity[0], found.n_major[0]) == (1.0, 2)


def test_counts_of_duplicates_fakes_and_missing_truth():
    truth = truth_of([[0]] * 4 + [[1]] * 4 + [[2]] * 4 + [[], []])
    tracks = [[0, 1, 2], [1, 2, 3], [4, 5, 6, 7], [8, 4, 0], [12, 13]]
    counts = count_matches(match(tracks, truth, 3), np.array([True, True, True]))
    assert counts == Counts(n_particles=3, n_groups=5, n_found=2, n_duplicates=1, n_fakes=1, n_without_truth=1)
    assert counts.efficiency == pytest.approx(2 / 3)
    assert (counts.duplicate_rate, counts.fake_rate, counts.fakes_per_group) == pytest.approx((0.5, 1 / 3, 0.2))
    selected = count_matches(match(tracks, truth, 3), np.array([False, True, False]))
    assert (selected.n_particles, selected.n_found, selected.n_duplicates) == (1, 1, 0)
    both = counts + selected
    assert (both.n_particles, both.n_groups) == (4, 10)
    assert np.isnan(Counts().efficiency)
    assert np.isnan(Counts().duplicate_rate)
    assert np.isnan(Counts().fake_rate)


def test_events_without_tracks_or_truth_are_matched_to_nothing():
    assert len(match([], truth_of([[0]]), 1).particle_index) == 0
    found = match([[0]], truth_of([[]]), 0)
    assert (found.particle_index.tolist(), found.is_matched.tolist()) == ([-1], [False])


def measurements_from(cell_lists):
    n = len(cell_lists)
    zero = np.zeros(n, np.int32)
    return Measurements(
        np.zeros(n, np.uint64), np.zeros((n, 2)), np.ones((n, 2)), zero + 2, np.zeros(n), zero,
        np.zeros((n, 2), np.int32), zero, np.arange(n), np.concatenate(([0], np.cumsum([len(c) for c in cell_lists]))),
        np.array([c for cells in cell_lists for c in cells], np.int64),
    )  # fmt: skip


def test_measurement_truth_counts_cells_and_keeps_the_main_hit():
    # cells: 0 from hit 0; 1 from hits 0 and 2; 2 from hit 2; 3 from hit 1; 4 from hit 3
    hits_of_cell = [[0], [0, 2], [2], [1], [3]]
    empty = np.zeros(5, np.int64)
    cells = Cells(empty.astype(np.uint64), empty, empty, empty, empty, empty)
    made = Digitization(
        cells,
        np.concatenate(([0], np.cumsum([len(h) for h in hits_of_cell]))),
        np.array([0, 0, 2, 2, 1, 3]),
        np.arange(4),
    )
    simulated = simulated_hits([0, 0, 1, 2])
    truth = measurement_truth(measurements_from([[4], [3, 2, 1, 0], []]), made, simulated)
    # measurement 1: particle 0 has cells 0, 1 (hit 0) and 3 (hit 1); particle 1 has cells 1 and 2 (hit 2)
    assert truth.offsets.tolist() == [0, 1, 3, 3]
    assert truth.particle_index.tolist() == [2, 0, 1]
    assert truth.n_cells.tolist() == [1, 3, 2]
    assert truth.hit_index.tolist() == [3, 0, 2]


def test_measurement_truth_of_hits_has_one_particle_each():
    truth = measurement_truth_of_hits(np.array([2, 0, 1]), simulated_hits([5, 6, 7]))
    assert truth.particle_index.tolist() == [7, 5, 6]
    assert truth.offsets.tolist() == [0, 1, 2, 3]


def particles_at(pt, eta, z, charge=-1.0, code=13):
    n = len(pt)
    pt, eta, z = (np.asarray(v, float) for v in (pt, eta, z))
    momentum = np.stack([pt, np.zeros(n), pt * np.sinh(eta)], axis=1)
    vertex = np.stack([np.zeros(n), np.zeros(n), z], axis=1)
    return Particles(
        np.arange(n, dtype=np.uint64), np.full(n, code), np.zeros(n, np.int32), vertex, np.zeros(n), momentum,
        np.full(n, 0.1), np.full(n, charge),
    )  # fmt: skip


def test_selection_cuts_on_kinematics_hits_and_layers():
    particles = particles_at([1.0, 0.4, 1.0, 1.0, 1.0], [0.0, 0.0, 3.5, 0.0, 0.0], [0.0, 0.0, 0.0, 600.0, 0.0])
    volume17 = np.uint64(17) << np.uint64(56)
    layers = [volume17 | np.uint64((2 * k) << 36) | np.uint64(8 << 8) for k in range(1, 5)]
    strip = (np.uint64(24) << np.uint64(56)) | np.uint64(2 << 36)
    particle_index = np.repeat(np.arange(5), 4)
    ids = np.array((layers * 4) + [layers[0], layers[0], layers[1], strip], np.uint64)
    simulated = simulated_hits(particle_index, ids)
    truth = truth_of([[p] for p in particle_index])
    assert select_particles(particles, simulated, truth, TruthSelection()).tolist() == [True, False, False, False, True]
    strict = TruthSelection(min_pixel_layers=3)
    assert select_particles(particles, simulated, truth, strict).tolist() == [True, False, False, False, False]
    modules = TruthSelection(min_modules=4)
    assert select_particles(particles, simulated, truth, modules).tolist() == [True, False, False, False, False]
    assert not select_particles(particles, simulated, truth, TruthSelection(min_measurements=5)).any()
    neutral = particles_at([1.0] * 5, [0.0] * 5, [0.0] * 5, charge=0.0)
    assert not select_particles(neutral, simulated, truth, TruthSelection()).any()
    kaons = particles_at([1.0] * 5, [0.0] * 5, [0.0] * 5, code=321)
    assert not select_particles(kaons, simulated, truth, TruthSelection()).any()
    with pytest.raises(ConfigError, match="max_eta"):
        TruthSelection(max_eta=0.0)
