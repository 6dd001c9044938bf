"""Fits and finding on telescopes: pulls, p-values, momentum resolution, holes, branches (cases of traccc's tests)."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import kstest

from tests.batches import (
    CANDIDATE_EXTENTS,
    FIT_EXTENTS,
    candidate_batch,
    find_candidates,
    make_workspace,
    measurement_batch,
    rows,
    seed_parameters,
    select_all,
    stack_ranges,
)
from tests.reference.kalman import unpacked
from tests.reference.transport import helix_point, unit_direction
from tests.settings import finding_settings
from tests.smearing import smear_hits
from traccc_py.config import FindingConfig, FittingConfig
from traccc_py.edm import FitOutcome, Measurements
from traccc_py.geometry import build_detector
from traccc_py.geometry.records import STACK, SURFACE, DetectorArrays, HomogeneousField
from traccc_py.kernels.fitting.fitting import fit_tracks
from traccc_py.kernels.tracking.entries import kink_of
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import transport
from traccc_py.units import T, um

B_FIELD = 2.0 * T
SMEARING = 50 * um
SEED_SIGMA = np.array([0.1, 0.1, 0.017, 0.017, 0.05])  # mm, mm, rad, rad, 1/GeV
WIDE_SEED_SIGMA = np.array([5.0, 5.0, 0.05, 0.05, 0.1])
N_TRACKS = 10_000  # the limits on pulls are five standard deviations of a mean, seven of a width
PULL_MEAN, PULL_WIDTH, P_VALUE_MEAN = 0.05, 0.1, 0.05
P_VALUE_FLATNESS = 1e-4  # probability of Kolmogorov and Smirnov
MUON = FittingConfig(particle="muon", max_outliers=0)
KINK = kink_of(FindingConfig(), np.float32)
# pT [GeV], charge, number of planes
SETS = {
    "1 GeV": (1.0, "negative", 20),
    "10 GeV": (10.0, "negative", 9),
    "100 GeV": (100.0, "negative", 9),
    "1 GeV, positive": (1.0, "positive", 9),
    "1 GeV, random charge": (1.0, "random", 9),
}


def build(n_planes, **options):
    return build_detector("telescope", n_planes=n_planes, spacing=20, first_offset=20, b_field_z=2.0, **options)


def bound_parameters(local_position, momentum, charge):
    p = np.linalg.norm(momentum, axis=1)
    phi, theta = np.arctan2(momentum[:, 1], momentum[:, 0]), np.arccos(momentum[:, 2] / p)
    return np.column_stack([local_position, phi, theta, charge / p])


class Sample:
    """Muons through a telescope, one event: smeared measurements, seeds from truth, and truth on the first plane."""

    def __init__(self, detector, n_tracks, pt, charge, seed, planes=None, **gun):
        self.arrays = detector.arrays()
        self.stacks = stack_ranges(self.arrays.stacks)
        gun = ParticleGunConfig(n_particles=n_tracks, charge=charge, momentum=(pt, pt), eta=(0, 0), phi=(0, 0), **gun)
        particles = generate_particles(gun, seed)
        hits = transport(detector, particles, event_key(seed, 0))
        if planes is not None:
            hits = hits.select(np.isin(hits.module_index, planes))
        self.measurements, hit = smear_hits(detector, hits, event_key(seed, 0), SMEARING, SMEARING)
        self.row_of_hit = np.argsort(hit)
        self.hits_per_track = np.bincount(hits.particle_index, minlength=n_tracks)
        first = np.cumsum(self.hits_per_track) - self.hits_per_track
        self.path = np.linalg.norm(np.diff(hits.hits.position, axis=0, prepend=hits.hits.position[:1]), axis=1)
        self.path[first] = 0  # elsewhere the chord, a good guess of the path
        self.first_module, self.first_measurement = hits.module_index[first], self.row_of_hit[first].astype(np.int32)
        local = hits.local_position[first]
        before = bound_parameters(local, hits.hits.momentum[first], particles.charge)
        self.truth = bound_parameters(local, hits.outgoing_momentum[first], particles.charge)
        self.start = before + np.random.default_rng(seed).normal(size=before.shape) * SEED_SIGMA

    def _inputs(self, ws):
        measurements = measurement_batch(ws, self.measurements, len(self.arrays.surfaces))
        return measurements, seed_parameters(ws, self.first_module, self.start, SEED_SIGMA)

    def fit(self, candidates=None, config=MUON):
        ws = make_workspace()
        measurements, seeds = self._inputs(ws)
        if candidates is None:
            candidates = candidate_batch(ws, self.row_of_hit, self.path, self.hits_per_track, start=seeds)
        selection = select_all(ws, candidates)
        fitted = fit_tracks(ws, candidates, selection, measurements, self.arrays, self.stacks, config, KINK)
        return rows(ws, fitted, default="tracks", **FIT_EXTENTS)

    def find(self, config, **options):
        """Candidates of seeds on the first measurement of each track."""
        ws = make_workspace()
        measurements, seeds = self._inputs(ws)
        where = (self.first_measurement, measurements, self.arrays, self.stacks)
        found = find_candidates(ws, seeds, *where, config, **options)
        return rows(ws, found, default="candidates", **CANDIDATE_EXTENTS)


@cache
def fitted_set(name):
    pt, charge, n_planes = SETS[name]
    sample = Sample(build(n_planes), N_TRACKS, pt, charge, seed=1)
    return sample, sample.fit()


def differences(params, truth):
    difference = params.astype(float) - truth
    difference[:, 2] = np.mod(difference[:, 2] + np.pi, 2 * np.pi) - np.pi
    return difference


@pytest.mark.parametrize("name", list(SETS))
def test_every_fit_succeeds_with_all_measurements(name):
    sample, fitted = fitted_set(name)
    n_planes = SETS[name][2]
    assert (sample.hits_per_track == n_planes).all()
    assert (fitted.outcome == FitOutcome.SUCCESS).all()
    assert (fitted.ndf == 2 * n_planes - 5).all()
    assert (fitted.measurement == sample.row_of_hit).all()
    assert (fitted.chi2 > 0).all()
    assert np.isfinite(fitted.params).all()
    if SETS[name][0] < 50:  # beyond, nine planes do not tell the charge
        assert (np.sign(fitted.params[:, 4]) == np.sign(sample.truth[:, 4])).mean() > 0.99


@pytest.mark.parametrize("name", list(SETS))
def test_pulls_on_the_first_plane_are_normal(name):
    sample, fitted = fitted_set(name)
    sigma = np.sqrt(np.diagonal(unpacked(fitted.covariance), axis1=1, axis2=2))
    pulls = differences(fitted.params, sample.truth) / sigma
    assert (np.abs(pulls.mean(0)) < PULL_MEAN).all(), pulls.mean(0)
    assert (np.abs(pulls.std(0) - 1) < PULL_WIDTH).all(), pulls.std(0)


@pytest.mark.parametrize("name", list(SETS))
def test_whole_covariance_describes_the_residuals(name):
    """r^T C^-1 r follows chi2 with 5 degrees of freedom: correlations are right, too."""
    sample, fitted = fitted_set(name)
    residual = differences(fitted.params, sample.truth)
    scale = np.sqrt(np.diagonal(unpacked(fitted.covariance), axis1=1, axis2=2))
    correlation = unpacked(fitted.covariance) / (scale[:, :, None] * scale[:, None, :])
    chi2 = np.einsum("ni,ni->n", residual / scale, np.linalg.solve(correlation, (residual / scale)[..., None])[..., 0])
    assert chi2.mean() == pytest.approx(5, abs=5 * np.sqrt(10 / N_TRACKS))


@pytest.mark.parametrize("name", list(SETS))
def test_p_values_are_flat(name):
    _, fitted = fitted_set(name)
    assert fitted.pval.mean() == pytest.approx(0.5, abs=P_VALUE_MEAN)
    assert kstest(fitted.pval.astype(float), "uniform").pvalue > P_VALUE_FLATNESS


@pytest.mark.parametrize("name", list(SETS))
def test_first_state_of_each_track_is_the_track(name):
    _, fitted = fitted_set(name)
    n_planes = SETS[name][2]
    states = fitted.state_params.reshape(N_TRACKS, n_planes, 5)
    assert np.array_equal(states[:, 0], fitted.params)
    assert np.array_equal(fitted.state_covariance.reshape(N_TRACKS, n_planes, 15)[:, 0], fitted.covariance)
    variances = np.diagonal(unpacked(fitted.state_covariance), axis1=1, axis2=2)
    assert (variances > 0).all()
    # Smoothed positions in the middle are better known than at the end.
    sigma = np.sqrt(variances[:, 0]).reshape(N_TRACKS, n_planes).mean(0)
    assert sigma[n_planes // 2] < 0.8 * sigma[-1]
    assert (sigma < SMEARING).all()


def plane_along_helix(position, phi, theta):
    """A 1 m square plane perpendicular to a direction: u transverse, v = w x u."""
    w = unit_direction(phi, theta)
    u = np.array([-np.sin(phi), np.cos(phi), 0.0])
    surface = np.zeros((), SURFACE)
    for name, values in zip("cuvw", (position, u, np.cross(w, u), w), strict=True):
        for axis, value in zip("xyz", values, strict=True):
            surface[name + axis] = value
    surface["hx_min"] = surface["hx_max"] = surface["hy"] = 500.0
    return surface


@pytest.mark.parametrize(
    ("p", "smearing"), [(1.0, (50, 50)), (10.0, (50, 50)), (100.0, (50, 50)), (1.0, (50, 100)), (1.0, (100, 50))]
)
def test_momentum_resolution_in_vacuum_is_that_of_the_sagitta(p, smearing):
    """20 planes without material, 50 mm apart and perpendicular to the track: sigma(q/pT) as in PDG 2024 eq. 35.58."""
    n, n_planes, spacing = 20_000, 20, 50.0
    sigma = np.array(smearing) * um
    qop = -1 / p
    points = [helix_point(np.zeros(3), 0.0, np.pi / 2, qop, B_FIELD, spacing * (k + 1)) for k in range(n_planes)]
    surfaces = np.array([plane_along_helix(position, phi, np.pi / 2) for position, phi in points])
    rng = np.random.default_rng(5)
    module = np.repeat(np.arange(n_planes, dtype=np.int32), n)
    measurements = made_measurements(module, rng.normal(size=(n * n_planes, 2)) * sigma, sigma)
    truth = np.array([0.0, 0.0, points[0][1], np.pi / 2, qop])
    ws = make_workspace()
    no_layers = np.zeros(1, "i4")
    arrays = DetectorArrays(
        surfaces,
        build(1).arrays().layers,
        np.zeros(0, STACK),
        no_layers,
        no_layers,
        *build(1).arrays()[5:8],  # designs and variances, of which measurements without clusters make no use
        None,
        HomogeneousField(np.float32(B_FIELD)),
    )
    batch = measurement_batch(ws, measurements, n_planes)
    start = truth + rng.normal(size=(n, 5)) * WIDE_SEED_SIGMA
    seeds = seed_parameters(ws, np.zeros(n), start, WIDE_SEED_SIGMA)
    code = np.arange(n * n_planes).reshape(n_planes, n).T.ravel()
    path = np.tile([0.0] + [spacing] * (n_planes - 1), n)
    candidates = candidate_batch(ws, code, path, [n_planes] * n, start=seeds)
    fitted = fit_tracks(
        ws, candidates, select_all(ws, candidates), batch, arrays, stack_ranges(arrays.stacks), MUON, KINK
    )
    fitted = rows(ws, fitted, default="tracks", **FIT_EXTENTS)
    assert (fitted.outcome == FitOutcome.SUCCESS).all()
    residual = (fitted.params[:, 4] / np.sin(fitted.params[:, 3].astype(float))) - qop
    length = (n_planes - 1) * spacing
    expected = sigma[0] / length**2 * np.sqrt(720 / (n_planes + 4)) / B_FIELD
    assert residual.std() == pytest.approx(expected, rel=0.025)
    assert abs(residual.mean()) < 5 * expected / np.sqrt(n)
    assert np.std(residual / np.sqrt(fitted.covariance[:, 14])) == pytest.approx(1, abs=0.03)


def made_measurements(module, local_position, sigma):
    n = len(module)
    none = np.zeros((n, 2), np.int32)
    return Measurements(
        geometry_id=np.zeros(n, np.uint64),
        local_position=local_position,
        local_variance=np.broadcast_to(np.square(sigma), (n, 2)),
        dimensions=np.full(n, 2, np.int32),
        time=np.zeros(n, np.float32),
        module_index=module,
        cluster_size=none,
        n_cells=none[:, 0],
        measurement_id=np.arange(n),
    )


def test_variances_from_the_table_act_as_given_ones():
    """A table that is the same for all directions gives the bits of measurements that bring its variances along."""
    sample = Sample(build(9), 200, 1.0, "random", seed=4)
    sigma = np.float32(0.06)
    given, clusters = (replace(sample.measurements) for _ in range(2))
    given.local_variance = np.full_like(given.local_variance, sigma * sigma)
    clusters.local_variance = np.full_like(given.local_variance, np.nan)
    clusters.cluster_size = np.full_like(given.cluster_size, 2)
    outcomes = []
    for measurements in (given, clusters):
        sample.measurements = measurements
        sample.arrays = sample.arrays._replace(path_sigmas=np.full_like(sample.arrays.path_sigmas, sigma))
        found = sample.find(finding_settings(particle="muon"))
        outcomes.append((*sample.fit(), *found._replace(start=found.start.params), *found.start))
    for one, other in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, other)


KEPT_PLANES = [2, 3, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16]


def test_holes_between_measurements_are_counted():
    """Twelve of twenty planes have a measurement.

    traccc counts five holes in this case: its seed stands before the first plane, so that the two empty planes before
    the first measurement count. Our seed stands on its first measurement. The three at the end count in neither.
    """
    sample = Sample(build(20), 1, 1.0, "negative", 3, KEPT_PLANES)
    cuts = {"seed_max_consecutive_holes": 2, "max_holes": 3, "measurements_per_hole": 0}
    found = sample.find(finding_settings(particle="muon", **cuts))
    assert found.measurements.tolist() == list(range(12))
    assert found.n_holes.tolist() == [3]
    assert found.ndf.tolist() == [2 * 12 - 5]
    holes = [-1 - plane for plane in range(2, 17) if plane not in KEPT_PLANES]
    assert sorted(found.code[found.code < 0].tolist(), reverse=True) == holes
    assert found.path == pytest.approx([0] + [20.0] * 14, rel=0.05)
    assert 1e-4 < found.pval[0] < 1


def test_too_many_holes_end_the_track():
    sample = Sample(build(20), 1, 1.0, "negative", 3, KEPT_PLANES)
    # Planes 4 and 5 are empty: two in a row.
    assert len(sample.find(finding_settings(particle="muon", max_consecutive_holes=1)).seed) == 0
    options = {"particle": "muon", "measurements_per_hole": 0, "seed_max_consecutive_holes": 2}
    options |= {"short_min_pval": 0.0, "measurements_behind_kink": 0}
    found = sample.find(finding_settings(max_consecutive_holes=1, min_measurements=2, **options))
    assert found.measurements.tolist() == [0, 1]
    assert found.n_holes.tolist() == [0]
    # The third hole is plane 11.
    found = sample.find(finding_settings(max_consecutive_holes=2, max_holes=2, **options))
    assert found.measurements.tolist() == list(range(7))
    assert found.n_holes.tolist() == [2]


@pytest.mark.parametrize(
    ("same_layer", "n_holes"), [((), 3), ((4, 5), 2), ((3, 4), 2), ((5, 6), 2), ((3, 4, 5, 6), 1), ((10, 11, 12), 2)]
)
def test_a_layer_has_one_hole_at_most_and_none_beside_a_measurement(same_layer, n_holes):
    sample = Sample(build(20), 1, 1.0, "negative", 3, KEPT_PLANES)  # planes 4, 5 and 11 are empty
    surfaces = sample.arrays.surfaces.copy()
    surfaces["layer"][list(same_layer)] = surfaces["layer"][max(same_layer, default=0)]
    sample.arrays = sample.arrays._replace(surfaces=surfaces)
    found = sample.find(finding_settings(particle="muon", seed_max_consecutive_holes=2, measurements_per_hole=0))
    assert found.measurements.tolist() == list(range(12))
    assert found.n_holes.tolist() == [n_holes]


def test_two_holes_in_a_row_need_a_fourth_measurement():
    for planes, in_seed, n_found in (
        ([0, 1, 2, 3, 6, 7, 8], 1, 7),
        ([0, 1, 2, 5, 6, 7, 8], 1, 3),
        ([0, 1, 2, 5, 6, 7, 8], 2, 7),
    ):
        sample = Sample(build(20), 1, 1.0, "negative", 3, planes)
        cuts = {"min_measurements": 3, "seed_max_consecutive_holes": in_seed, "measurements_behind_kink": 0}
        cuts |= {"short_min_pval": 0.0, "measurements_per_hole": 0}
        found = sample.find(finding_settings(particle="muon", **cuts))
        assert len(found.measurements) == n_found


def test_short_candidates_need_measurements_for_each_hole():
    sample = Sample(build(17), 1, 1.0, "negative", 3, KEPT_PLANES)  # twelve measurements, three holes between them
    for per_hole in (0, 1, 2):
        most = 12 - 3 * per_hole
        for minimum, n_found in ((most, 1), (most + 1, 0)):
            cuts = {"min_measurements": minimum, "measurements_per_hole": per_hole}
            found = sample.find(finding_settings(particle="muon", seed_max_consecutive_holes=2, **cuts))
            assert len(found.seed) == n_found


def test_what_holes_ended_needs_measurements_and_if_short_a_good_fit():
    for n, smallest, n_found in ((5, 0.0, 0), (6, 1.1, 0), (6, 0.0, 6), (7, 1.1, 7)):
        sample = Sample(build(20), 1, 1.0, "negative", 3, range(n))
        cuts = {"measurements_behind_kink": 0, "stopped_min_pval": smallest}
        assert len(sample.find(finding_settings(particle="muon", **cuts)).measurements) == n_found
    sample.measurements = replace(sample.measurements)
    sample.measurements.local_position = sample.measurements.local_position.copy()
    sample.measurements.local_position[sample.row_of_hit[6], 0] += 12 * SMEARING
    wide = {"particle": "muon", "chi2_max": 300.0}
    assert len(sample.find(finding_settings(short_min_pval=0.0, **wide)).measurements) == 7
    assert len(sample.find(finding_settings(**wide)).seed) == 0


@pytest.mark.parametrize(("angle", "n_behind", "n_found"), [(0.0, 8, 16), (0.06, 8, 16), (0.06, 4, 8), (-0.05, 5, 13)])
def test_a_track_is_followed_past_a_kink(angle, n_behind, n_found):
    """Behind the eighth of twenty planes the particle flies on at an angle; five measurements there must agree."""
    last = 7 + n_behind
    sample = Sample(build(20, half_length=1000), 1, 2.0, "negative", 3, range(last + 1))
    sample.measurements = replace(sample.measurements)
    place = sample.measurements.local_position.copy()
    plane = sample.measurements.module_index
    behind = plane > 7
    place[behind, 0] += np.tan(angle) * 20.0 * (plane[behind] - 7)
    sample.measurements.local_position = place
    found = sample.find(finding_settings(particle="muon"))
    assert len(found.measurements) == n_found
    fitted = sample.fit(candidates=found)
    is_past = angle != 0 and n_found > 8
    assert fitted.n_kinks.tolist() == [int(is_past)]
    assert fitted.outcome.tolist() == [FitOutcome.SUCCESS]
    assert fitted.ndf.tolist() == [2 * n_found - 5 - 2 * is_past]
    assert fitted.pval[0] > 1e-3
    before = sample.find(finding_settings(particle="muon", measurements_behind_kink=0))
    assert len(before.measurements) == (16 if angle == 0 else 8)


@pytest.mark.parametrize(("n_behind", "n_found"), [(7, 8), (8, 15)])
def test_a_hole_behind_a_kink_needs_two_more_measurements(n_behind, n_found):
    """Plane 10 is empty."""
    planes = [k for k in range(8 + n_behind) if k != 10]
    sample = Sample(build(20, half_length=1000), 1, 2.0, "negative", 3, planes)
    sample.measurements = replace(sample.measurements)
    place, plane = sample.measurements.local_position.copy(), sample.measurements.module_index
    place[plane > 7, 0] += np.tan(0.06) * 20.0 * (plane[plane > 7] - 7)
    sample.measurements.local_position = place
    assert len(sample.find(finding_settings(particle="muon")).measurements) == n_found


def test_the_fit_leaves_outliers_out():
    """Measurements moved by ten standard deviations: the fit is that of the others, and says which they are."""
    n_planes, n_tracks = 9, 200
    sample = Sample(build(n_planes), n_tracks, 10.0, "random", seed=4)
    moved = replace(sample.measurements)
    moved.local_position = moved.local_position.copy()
    row_of = sample.row_of_hit.reshape(n_tracks, n_planes)
    outliers = np.column_stack([np.arange(n_tracks) % n_planes, (np.arange(n_tracks) + 4) % n_planes])
    for k in (0, 1):
        moved.local_position[row_of[np.arange(n_tracks), outliers[:, k]], k] += 10 * SMEARING
    sample.measurements = moved
    fitted = sample.fit(config=FittingConfig(particle="muon"))
    is_outlier = fitted.is_outlier.reshape(n_tracks, n_planes)
    expected = np.zeros((n_tracks, n_planes), bool)
    expected[np.arange(n_tracks)[:, None], outliers] = True
    assert (is_outlier == expected).all(1).mean() > 0.97  # at the ends a track may bend towards one of them
    assert (fitted.n_outliers == is_outlier.sum(1)).all()
    assert fitted.ndf.tolist() == (2 * n_planes - 5 - 2 * fitted.n_outliers).tolist()
    assert fitted.pval.mean() == pytest.approx(0.5, abs=0.1)
    sigma = np.sqrt(np.diagonal(unpacked(fitted.covariance), axis1=1, axis2=2))
    pulls = (differences(fitted.params, sample.truth) / sigma)[(is_outlier == expected).all(1)]
    assert (np.abs(pulls.std(0) - 1) < 0.25).all()
    kept = sample.fit()
    assert (kept.n_outliers == 0).all()
    assert kept.pval.mean() < 0.01


@pytest.mark.parametrize(
    ("distance", "n_holes", "is_crossed"), [(50.0, 1, True), (0.08, 0, True), (-0.08, 0, False), (-50.0, 0, False)]
)
def test_a_plane_without_measurement_is_a_hole_only_if_the_track_surely_crosses_it(distance, n_holes, is_crossed):
    """The fifth of nine planes has its edge at `distance` inside of the track; near an edge it may have passed by."""
    planes = [0, 1, 2, 3, 5, 6, 7, 8]
    sample = Sample(build(9, half_length=1000), 1, 1000.0, "negative", 5, planes)
    y = sample.truth[0, 0]
    surfaces = sample.arrays.surfaces.copy()
    surfaces["hx_min"][4] = surfaces["hx_max"][4] = abs(y) + distance if distance > -1 else 0.0
    surfaces["cy"][4] += 0 if distance > -1 else 500.0
    sample.arrays = sample.arrays._replace(surfaces=surfaces)
    found = sample.find(finding_settings(particle="muon"))
    assert len(found.measurements) == len(planes)
    assert found.n_holes.tolist() == [n_holes]
    assert ((found.code == -1 - 4).sum() == 1) == is_crossed


def test_every_sparse_track_is_found_with_its_own_measurements():
    n_tracks, n_planes = 100, 9
    sample = Sample(build(n_planes, half_length=2000), n_tracks, 1.0, "random", 4, vertex_sigma=(0, 400, 400))
    found = sample.find(finding_settings(particle="muon", chi2_max=30))
    assert found.seed.tolist() == list(range(n_tracks))
    assert np.array_equal(found.measurements, sample.row_of_hit)
    assert (found.n_holes == 0).all()
    assert (found.ndf == 2 * n_planes - 5).all()


@pytest.mark.parametrize("n_tracks", [2, 3])
def test_branches_are_all_combinations_of_identical_tracks(n_tracks):
    """traccc's seeds stand before the first plane and give n^(planes + 1); ours on their first measurement."""
    n_planes = 9
    sample = Sample(build(n_planes), n_tracks, 100.0, "negative", 6)
    options = {"particle": "muon", "chi2_max": 200.0, "max_branches_per_surface": 10}
    n_branches = n_tracks ** (n_planes - 1)
    found = sample.find(finding_settings(max_branches_per_seed=n_branches + 10, **options))
    assert len(found.seed) == n_tracks * n_branches
    assert (np.diff(found.measurement_offsets) == n_planes).all()
    combinations = found.measurements.reshape(-1, n_planes)
    assert len(np.unique(combinations, axis=0)) == n_tracks * n_branches
    assert (combinations // n_tracks == np.arange(n_planes)).all()
    assert (found.n_holes == 0).all()
    assert len(sample.find(finding_settings(max_branches_per_seed=100, **options)).seed) == n_tracks * 100
    # The first branch of a seed follows the best measurements: no branch is without them.
    one = sample.find(finding_settings(**{**options, "max_branches_per_surface": 1}))
    assert len(one.seed) == n_tracks
    assert all((combinations == best).all(1).any() for best in one.measurements.reshape(-1, n_planes))


def test_found_tracks_fit_like_those_made_of_truth():
    """Trails of the finding and hand-made ones lead to the same fit."""
    sample = Sample(build(9), 50, 10.0, "random", 7, vertex_sigma=(0, 25, 25))
    by_truth = sample.fit()
    found = sample.find(finding_settings(particle="muon", max_consecutive_holes=3, chi2_max=30))
    assert np.array_equal(found.measurements, sample.row_of_hit)
    fitted = sample.fit(candidates=found)
    assert np.allclose(fitted.params, by_truth.params, rtol=1e-5, atol=1e-5)
    assert np.allclose(fitted.chi2, by_truth.chi2, rtol=1e-3)
