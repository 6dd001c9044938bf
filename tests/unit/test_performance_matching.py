from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.performance_events import event_of, links_of, particles_at, tracks_of
from tests.reference.performance import clusters, score
from traccc_py.data.truth import MeasurementHitMap
from traccc_py.edm import Cells, FitOutcome, Measurements
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.performance.definitions import ACTS, TRACCC, Definition, TruthSelection
from traccc_py.performance.matching import (
    Counts,
    count_matches,
    find_duplicates,
    find_fakes,
    match_seeds,
    match_tracks,
)
from traccc_py.performance.selection import select_particles
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.tracks import EventTracks
from traccc_py.performance.truth import link_cells, link_digitization, link_hits, link_map
from traccc_py.simulation.digitization.digitization import DigitizedHits
from traccc_py.units import T

SINGLE = replace(TRACCC, double_matching=False)


def match(tracks, links, n_particles, definition=TRACCC):
    return match_tracks(tracks_of(tracks), links, n_particles, definition)


def test_purity_and_completeness_of_hand_made_tracks():
    # particle 0 has measurements 0-3, particle 1 has 4-9
    links = links_of([[0]] * 4 + [[1]] * 6)
    found = match([[0, 1, 2, 4], [4, 5], [4, 5, 6, 0], []], links, 2)
    assert found.particle_index.tolist() == [0, 1, 1, -1]
    assert found.n_major.tolist() == [3, 2, 3, 0]
    np.testing.assert_allclose(found.purity, [0.75, 1.0, 0.75, 0.0])
    np.testing.assert_allclose(found.completeness, [0.75, 2 / 6, 0.5, 0.0])
    assert found.is_matched.tolist() == [True, False, True, False]
    assert match([[4, 5]], links, 2, SINGLE).is_matched.tolist() == [True]


def test_exactly_half_is_a_match_and_ties_go_to_the_lower_row():
    links = links_of([[1], [1], [0], [0]])
    found = match([[0, 1, 2, 3]], links, 2)
    assert (found.particle_index[0], found.purity[0], found.is_matched[0]) == (0, 0.5, True)
    assert not match([[0, 1, 2, 3]], links, 2, replace(TRACCC, matching_ratio=0.51)).is_matched[0]


def test_a_merged_measurement_counts_for_each_of_its_particles():
    links = links_of([[0, 1], [0, 1], [1]])
    found = match([[0, 1, 2]], links, 2)
    assert (found.particle_index[0], found.n_major[0], found.completeness[0]) == (1, 3, 1.0)
    assert match([[0, 1]], links, 2).particle_index[0] == 0
    assert found.contributions.tolist() == [[0, 1], [0, 0]]


def test_holes_do_not_count():
    found = match([[0, -1, 1]], links_of([[0], [0]]), 1)
    assert (found.purity[0], found.n_major[0]) == (1.0, 2)
    assert tracks_of([[0, -1, 1], [], [-1]]).n_measurements.tolist() == [2, 0, 0]


def test_seeds_need_more_than_half_for_traccc_and_all_for_acts():
    links = links_of([[0], [0], [1], [1, 0]])
    seeds = tracks_of([[0, 1, 2], [0, 2, 2], [0, 1, 3], [0, 2, 3]])
    assert match_seeds(seeds, links, 2, TRACCC).is_matched.tolist() == [True, True, True, True]
    assert match_seeds(seeds, links, 2, ACTS).is_matched.tolist() == [False, False, True, False]
    half = tracks_of([[0, 2]])
    assert not match_seeds(half, links, 2, TRACCC).is_matched[0]
    assert match_seeds(half, links, 2, replace(ACTS, seed_matching_ratio=0.5)).is_matched[0]


def test_counts_of_duplicates_fakes_and_missing_truth():
    links = links_of([[0]] * 4 + [[1]] * 4 + [[2]] * 4 + [[], []])
    tracks = [[0, 1, 2], [1, 2, 3], [4, 5, 6, 7], [8, 4, 0], [12, 13]]
    counts = count_matches(match(tracks, links, 3), np.array([True, True, True]), TRACCC)
    assert counts == Counts(n_particles=3, n_groups=5, n_found=2, n_duplicates=1, n_fakes=1, n_without_truth=1)
    assert counts.efficiency == pytest.approx(2 / 3)
    assert (counts.duplicate_rate, counts.fake_rate) == pytest.approx((0.5, 1 / 3))
    assert (counts.duplicates_per_group, counts.fakes_per_group) == pytest.approx((0.2, 0.2))
    selected = count_matches(match(tracks, links, 3), np.array([False, True, False]), TRACCC)
    assert (selected.n_particles, selected.n_found, selected.n_duplicates, selected.n_fakes) == (1, 1, 0, 1)
    both = counts + selected
    assert (both.n_particles, both.n_groups) == (4, 10)


def test_fakes_of_particles_that_do_not_count_are_no_fakes_for_acts():
    links = links_of([[0]] * 6 + [[1]] * 6)
    tracks = [[0, 1], [6, 7]]  # neither is complete
    found, is_selected = match(tracks, links, 2), np.array([True, False])
    assert find_fakes(found, is_selected, TRACCC).tolist() == [True, True]
    assert find_fakes(found, is_selected, ACTS).tolist() == [True, False]
    assert count_matches(found, is_selected, ACTS).fakes_per_group == 0.5


def test_the_best_track_of_a_particle_is_no_duplicate():
    links = links_of([[0]] * 5 + [[1]] * 3)
    tracks = tracks_of([[0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7], [5, 6]])
    tracks.chi2 = np.array([1.0, 9.0, 5.0, 1.0, np.nan])
    found = match_tracks(tracks, links, 2, TRACCC)
    assert find_duplicates(found, np.array([True, True]), tracks).tolist() == [True, True, False, False, True]
    assert find_duplicates(found, np.array([True, False]), tracks).tolist() == [True, True, False, False, False]


def test_ratios_without_denominator_are_nan():
    numbers = Counts().as_dict()
    for name in ("efficiency", "duplicate_rate", "fake_rate", "duplicates_per_group", "fakes_per_group"):
        assert np.isnan(numbers[name]), name
    assert np.isnan(numbers["efficiency_low"])


def test_events_without_tracks_or_truth_are_matched_to_nothing():
    assert len(match([], links_of([[0]]), 1).particle_index) == 0
    found = match([[0]], links_of([[]]), 0)
    assert (found.particle_index.tolist(), found.is_matched.tolist()) == ([-1], [False])


def test_a_summary_of_empty_events_holds_no_number():
    event = event_of(particles_at([], [], []), [])
    summary = PerformanceSummary({"all": TruthSelection()}, 2 * T)
    summary.add(event, EventTracks(links_of([]), tracks_of([]), tracks_of([])))
    numbers = summary.as_dict()
    assert numbers["tracks"]["all"]["n_particles"] == 0
    assert np.isnan(numbers["tracks"]["all"]["efficiency"])
    assert np.isnan(numbers["versus"]["all"]["eta"]["efficiency"]["value"]).all()
    assert numbers["first_state_pulls"] == {}


def random_event(seed):
    """Tracks that mix particles, holes, merged and noise measurements."""
    rng = np.random.default_rng(seed)
    particles = [rng.choice(8, size=rng.choice([0, 1, 1, 1, 2, 3]), replace=False).tolist() for _ in range(60)]
    tracks = []
    for _ in range(40):
        wanted = rng.integers(8)
        own = [m for m, p in enumerate(particles) if wanted in p]
        rest = rng.choice([-1, *range(60)], size=rng.integers(0, 4), replace=False).tolist()
        tracks.append(
            list(dict.fromkeys(rng.choice(own, size=rng.integers(0, len(own) + 1), replace=False).tolist() + rest))
        )
    return tracks, particles, rng.random(8) < 0.7


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("definition", [TRACCC, ACTS, SINGLE, Definition(matching_ratio=0.75)], ids=repr)
def test_counts_equal_those_of_plain_python(seed, definition):
    tracks, particles, is_selected = random_event(seed)
    links = links_of(particles)
    found = match_tracks(tracks_of(tracks), links, 8, definition)
    expected = score(
        tracks, particles, is_selected, definition.matching_ratio, definition.double_matching,
        definition.fakes_of_selected_only,
    )  # fmt: skip
    of_particle = expected.pop("fakes_of_particle")
    assert count_matches(found, is_selected, definition) == Counts(**expected)
    is_fake = find_fakes(found, is_selected, definition)
    assert Counter(found.contributions[is_fake[found.contributions[:, 0]], 1].tolist()) == of_particle
    n_duplicates = np.count_nonzero(find_duplicates(found, is_selected, tracks_of(tracks)))
    assert n_duplicates == expected["n_duplicates"]
    seeds = [t[:3] for t in tracks if len(t) >= 3]
    as_seeds = count_matches(match_seeds(tracks_of(seeds), links, 8, TRACCC), is_selected, TRACCC)
    expected = score(seeds, particles, is_selected, strict=0.5)
    del expected["fakes_of_particle"]
    assert as_seeds == Counts(**expected)


def test_tracks_whose_fit_failed_can_be_left_out():
    links = links_of([[0]] * 3 + [[1]] * 3)
    tracks = tracks_of([[0, 1, 2], [3, 4, 5]])
    tracks.fit_outcome[:] = FitOutcome.SUCCESS, FitOutcome.FITTER
    event = event_of(particles_at([1.0, 1.0], [0.0, 0.0], [0.0, 0.0]), [0, 0, 0, 1, 1, 1])
    for require_fit, n_found in ((False, 2), (True, 1)):
        summary = PerformanceSummary(
            {"all": TruthSelection()}, 2 * T, definition=replace(TRACCC, require_fit=require_fit)
        )
        summary.add(event, EventTracks(links, tracks, None))
        assert summary.samples["all"].tracks.n_found == n_found


def test_rates_in_bins_add_up_to_the_totals():
    links = links_of([[0]] * 3 + [[1]] * 3 + [[2]] * 3)
    tracks = tracks_of([[0, 1, 2], [0, 1], [3, 4, 5], [6, 0, 3]])
    event = event_of(particles_at([1.0, 5.0, 1.0], [0.1, 0.1, -2.0], [0.0] * 3), np.repeat(np.arange(3), 3))
    summary = PerformanceSummary({"all": TruthSelection()}, 2 * T)
    summary.add(event, EventTracks(links, tracks, None))
    numbers = summary.as_dict()
    assert "seeds" not in numbers
    for variable, table in numbers["versus"]["all"].items():
        assert sum(table["efficiency"]["total"]) == 3, variable
        assert sum(table["efficiency"]["passed"]) == 2
        assert sum(table["duplicates_per_found"]["passed"]) == 1
        assert sum(table["fakes_per_particle"]["passed"]) == 3  # the fake holds a measurement of each
    in_bin = [k for k, n in enumerate(numbers["versus"]["all"]["eta"]["efficiency"]["total"]) if n]
    assert [numbers["versus"]["all"]["eta"]["efficiency"]["value"][k] for k in in_bin] == [0.0, 1.0]


def measurements_from(cell_lists, geometry_id=None):
    n = len(cell_lists)
    zero = np.zeros(n, np.int32)
    ids = np.zeros(n, np.uint64) if geometry_id is None else geometry_id
    return Measurements(
        ids, np.zeros((n, 2)), np.ones((n, 2)), zero + 2, np.zeros(n), zero,
        np.zeros((n, 2), np.int32), zero, np.arange(n), np.concatenate(([0], np.cumsum([len(c) for c in cell_lists]))),
        np.array([c for cells in cell_lists for c in cells], np.int64),
    )  # fmt: skip


def test_links_of_cells_count_cells_and_keep_the_main_hit():
    # cells: 0 from hit 0; 1 from hits 0 and 2; 2 from hit 2; 3 from hit 1; 4 from hit 3
    hits_of_cell = [[0], [0, 2], [2], [1], [3]]
    empty = np.zeros(5, np.int64)
    cells = Cells(empty.astype(np.uint64), empty, empty, empty, empty, empty)
    made = DigitizedHits(
        cells,
        np.concatenate(([0], np.cumsum([len(h) for h in hits_of_cell]))),
        np.array([0, 0, 2, 2, 1, 3]),
        np.arange(4),
    )
    links = link_digitization(measurements_from([[4], [3, 2, 1, 0], []]), made, np.array([0, 0, 1, 2]))
    # measurement 1: particle 0 has cells 0, 1 (hit 0) and 3 (hit 1); particle 1 has cells 1 and 2 (hit 2)
    assert links.offsets.tolist() == [0, 1, 3, 3]
    assert links.particle_index.tolist() == [2, 0, 1]
    assert links.n_cells.tolist() == [1, 3, 2]
    assert links.hit_index.tolist() == [3, 0, 2]


def test_links_of_hits_have_one_particle_each():
    links = link_hits(np.array([2, 0, 1]), np.array([5, 6, 7]))
    assert links.particle_index.tolist() == [7, 5, 6]
    assert links.offsets.tolist() == [0, 1, 2, 3]


def test_links_of_a_map_are_many_to_many_and_leave_out_unknown_particles():
    pairs = MeasurementHitMap(np.array([0, 0, 2, 2, 2, 0]), np.array([1, 0, 2, 3, 1, 4]))
    links = link_map(pairs, 4, np.array([0, 1, 1, -1, 0]))
    assert links.offsets.tolist() == [0, 2, 2, 3, 3]
    assert links.particle_index.tolist() == [0, 1, 1]
    assert links.n_cells.tolist() == [2, 1, 2]
    assert links.hit_index.tolist() == [0, 1, 1]
    with pytest.raises(InputDataError, match=r"row 2: measurement_id is 2; there are 2"):
        link_map(pairs, 2, np.zeros(5, np.int64))
    with pytest.raises(InputDataError, match=r"hit_id is 2; there are 2"):
        link_map(pairs, 4, np.zeros(2, np.int64))


@pytest.mark.parametrize("seed", range(3))
def test_links_through_clusters_equal_flood_filling(seed):
    rng = np.random.default_rng(seed)
    rows = np.unique(rng.integers(0, (3, 12, 12), size=(150, 3)), axis=0)
    rng.shuffle(rows)
    n_truth = 20
    ids = rng.permutation(np.array([7, 3, 5], np.uint64) << np.uint64(40))[rows[:, 0]]
    zero = np.zeros(len(rows))
    cells = Cells(ids, rows[:, 1], rows[:, 2], zero, zero, rng.integers(-1, n_truth, len(rows)))
    particle_of_hit = rng.integers(-1, 6, n_truth + 2)
    pairs = MeasurementHitMap(np.r_[np.arange(n_truth), 3, 4], np.arange(n_truth + 2))
    expected = clusters([(int(i), *row) for i, row in zip(ids, rows[:, 1:].tolist(), strict=True)])
    geometry_id = np.array([ids[min(c)] for c in expected])
    links = link_cells(geometry_id, cells, pairs, particle_of_hit)
    hits = {m: [h for n, h in zip(pairs.measurement_id, pairs.hit_id, strict=True) if n == m] for m in range(n_truth)}
    for k, cluster in enumerate(expected):
        count = Counter(
            int(particle_of_hit[h]) for r in cluster for h in hits.get(int(cells.measurement_id[r]), [])
            if particle_of_hit[h] >= 0
        )  # fmt: skip
        place = slice(links.offsets[k], links.offsets[k + 1])
        assert dict(zip(links.particle_index[place].tolist(), links.n_cells[place].tolist(), strict=True)) == count
    assert link_cells(geometry_id[1:], cells, pairs, particle_of_hit) is None


def test_clusters_of_no_cells_and_of_diagonals():
    none = np.zeros(0, np.int64)
    empty = Cells(none.astype(np.uint64), none, none, none, none, none)
    pairs = MeasurementHitMap(np.array([0]), np.array([0]))
    assert len(link_cells(np.zeros(0, np.uint64), empty, pairs, np.zeros(1, np.int64)).offsets) == 1
    # a long diagonal, then its neighbour two channels away
    channel = np.r_[np.arange(30)[::-1], 32]
    cells = Cells(np.zeros(31, np.uint64), channel, channel, none, none, np.zeros(31, np.int64))
    links = link_cells(np.zeros(2, np.uint64), cells, pairs, np.zeros(1, np.int64))
    assert links.n_cells.tolist() == [30, 1]


def test_selection_cuts_on_kinematics_hits_and_layers():
    particles = particles_at([1.0, 0.4, 1.0, 1.0, 1.0], [0.0, 0.0, 3.5, 0.0, 0.0], [0.0, 0.0, 0.0, 600.0, 0.0])
    volume17 = np.uint64(17) << np.uint64(56)
    layers = [volume17 | np.uint64((2 * k) << 36) | np.uint64(8 << 8) for k in range(1, 5)]
    strip = (np.uint64(24) << np.uint64(56)) | np.uint64(2 << 36)
    particle_of_hit = np.repeat(np.arange(5), 4)
    ids = np.array((layers * 4) + [layers[0], layers[0], layers[1], strip], np.uint64)
    links = links_of([[p] for p in particle_of_hit])

    def select(some_particles, **cuts):
        return select_particles(event_of(some_particles, particle_of_hit, ids), links, TruthSelection(**cuts)).tolist()

    assert select(particles) == [True, False, False, False, True]
    assert select(particles, min_pixel_layers=3) == [True, False, False, False, False]
    assert select(particles, min_modules=4) == [True, False, False, False, False]
    assert select(particles, min_pt=0.3, max_eta=4.0, max_z=601.0) == [True] * 5
    assert not any(select(particles, min_measurements=5))
    assert not any(select(particles, process=1))
    assert select(particles, process=-1) == select(particles)
    here = [0.0] * 5
    assert not any(select(particles_at([1.0] * 5, here, here, charge=0.0)))
    kaons = particles_at([1.0] * 5, here, here, code=321)
    assert not any(select(kaons))
    assert all(select(kaons, particle_types=()))
    far = particles_at([1.0] * 5, here, here)
    far.vertex[:, 1] = 201.0
    assert not any(select(far))
    with pytest.raises(ConfigError, match="max_eta"):
        TruthSelection(max_eta=0.0)
    with pytest.raises(ConfigError, match=r"matching_ratio is 1.5; expected a finite number from 0 to 1"):
        Definition(matching_ratio=1.5)
