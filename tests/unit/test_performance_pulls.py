import json

import numpy as np
import pytest

from traccc_py.config import ClusterizationConfig
from traccc_py.data.truth import Particles
from traccc_py.edm import (
    Cells,
    EventResult,
    FitOutcome,
    Measurements,
    Seeds,
    Spacepoints,
    Tracks,
    TrackStates,
    packed_index,
)
from traccc_py.geometry import build_detector
from traccc_py.performance.matching import TruthSelection, match_seeds, match_tracks, measurement_truth_of_hits
from traccc_py.performance.plots import draw_efficiency, draw_p_values, draw_pulls, draw_residuals
from traccc_py.performance.pulls import (
    FIRST_STATE_NAMES,
    PERIGEE_NAMES,
    concatenate_pulls,
    first_state_pulls,
    fit_gaussian,
    measurement_pulls,
    perigee_pulls,
    summarise_p_values,
    summarise_pulls,
    true_perigee,
)
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.digitization import Digitization
from traccc_py.simulation.events import SimulatedEvent
from traccc_py.simulation.generator import ParticleGunConfig, generate_particles
from traccc_py.simulation.measurements import smear_hits
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport import transport
from traccc_py.units import T

SIGMAS = np.array([0.02, 0.05, 3e-4, 2e-4, 1e-3])
N_PARTICLES = 800


def test_gaussian_fit_recovers_mean_and_sigma_in_spite_of_the_cut():
    rng = np.random.default_rng(1)
    n = 40_000
    for mean, sigma in ((0.0, 1.0), (0.2, 1.3), (-0.5, 0.6), (0.0, 2.0)):
        fit = fit_gaussian(rng.normal(mean, sigma, n))
        assert fit.mean == pytest.approx(mean, abs=5 * sigma**2 / np.sqrt(n))
        assert fit.sigma == pytest.approx(sigma, rel=5 * sigma**2 / np.sqrt(n))
        assert fit.n == n


def test_gaussian_fit_ignores_the_tail_but_the_rms_does_not():
    rng = np.random.default_rng(2)
    sample = np.concatenate([rng.normal(size=10_000), rng.uniform(10, 20, 100), [np.nan]])
    fit = fit_gaussian(sample)
    assert fit.sigma == pytest.approx(1.0, abs=0.03)
    assert fit.rms > 1.5
    assert fit.outside == pytest.approx((100 + 1 + 27) / len(sample), abs=3e-3)


def test_gaussian_fit_of_too_few_values_is_nan():
    assert np.isnan(fit_gaussian(np.array([0.1, 0.2])).sigma)
    assert np.isnan(fit_gaussian(np.zeros(0)).rms)


def test_gaussian_fit_of_a_flat_sample_ends():
    assert fit_gaussian(np.linspace(-3, 3, 1000)).sigma == pytest.approx(3.0)


def test_p_values_are_counted():
    summary = summarise_p_values(np.append(np.linspace(0.0005, 0.9995, 1000), np.nan))
    assert (summary["n"], summary["counts"]) == (1000, [50] * 20)
    assert summary["mean"] == pytest.approx(0.5)


def single(position, momentum, charge):
    one = np.ones(1)
    return Particles(
        one.astype(np.uint64), one.astype(np.int32), one.astype(np.int32), np.array([position], float), one,
        np.array([momentum], float), one, np.array([charge], float),
    )  # fmt: skip


def test_perigee_of_a_straight_track_is_exact():
    perigee = true_perigee(single((1.0, 2.0, 3.0), (1.0, 0.0, 0.5), 1.0), 0.0)[0]
    np.testing.assert_allclose(perigee, (2.0, 2.5, 0.0, np.arctan2(1.0, 0.5), 1 / np.hypot(1, 0.5)), atol=1e-12)


@pytest.mark.parametrize("charge", [1.0, -1.0])
def test_perigee_is_the_nearest_point_of_the_helix(charge):
    rng = np.random.default_rng(3)
    for _ in range(20):
        position, direction = rng.normal(size=3) * (20, 20, 50), rng.normal(size=3)
        momentum = 0.7 * direction / np.linalg.norm(direction)
        d0, z0, phi, theta, qop = true_perigee(single(position, momentum, charge), 2 * T)[0]
        kappa = -charge * 2 * T / np.hypot(*momentum[:2])
        s = np.linspace(-60, 60, 240_001)
        angle = np.arctan2(momentum[1], momentum[0]) + kappa * s
        x = position[0] + (np.sin(angle) - np.sin(angle[len(s) // 2])) / kappa
        y = position[1] - (np.cos(angle) - np.cos(angle[len(s) // 2])) / kappa
        nearest = np.argmin(np.hypot(x, y))
        assert abs(d0) == pytest.approx(np.hypot(x, y)[nearest], abs=1e-5)
        assert np.remainder(phi - angle[nearest] + 1, 2 * np.pi) - 1 == pytest.approx(0, abs=1e-5)
        assert d0 == pytest.approx(-x[nearest] * np.sin(phi) + y[nearest] * np.cos(phi), abs=1e-5)
        assert z0 == pytest.approx(position[2] + s[nearest] * momentum[2] / np.hypot(*momentum[:2]), abs=1e-2)
        assert (theta, qop) == pytest.approx((np.arccos(momentum[2] / 0.7), charge / 0.7))


@pytest.fixture(scope="module")
def sample():
    """Tracks whose parameters are the truth with Gaussian errors of known width."""
    detector = build_detector("odd")
    gun = ParticleGunConfig(n_particles=N_PARTICLES, momentum=(1.0, 5.0), vertex_sigma=(0.1, 0.1, 55.0))
    particles = generate_particles(gun, 1)
    simulated = transport(detector, particles, event_key(1, 0))
    measurements, hit = smear_hits(detector, simulated, event_key(1, 0), 0.03, 0.06)
    row_of_hit = np.argsort(hit)
    n_hits = np.bincount(simulated.particle_index, minlength=N_PARTICLES)
    particle = np.flatnonzero(n_hits > 0)
    offsets = np.concatenate(([0], np.cumsum(n_hits[particle])))
    first = offsets[:-1]
    rng = np.random.default_rng(5)
    out = simulated.outgoing_momentum[first]
    p = np.linalg.norm(out, axis=1)
    at_first = np.column_stack([
        simulated.local_position[first], np.arctan2(out[:, 1], out[:, 0]), np.arccos(out[:, 2] / p),
        particles.charge[particle] / p,
    ])  # fmt: skip
    b_z = float(detector.arrays().b_z)
    at_perigee = true_perigee(particles, b_z)[particle]
    covariance = np.zeros((len(particle), 15))
    for k, sigma in enumerate(SIGMAS):
        covariance[:, packed_index(k, k)] = sigma**2
    n = len(particle)
    zero = np.zeros(n)
    tracks = Tracks(
        fit_outcome=np.full(n, FitOutcome.SUCCESS, np.int32),
        geometry_id=simulated.hits.geometry_id[first],
        params=at_first + SIGMAS * rng.normal(size=(n, 5)),
        covariance=covariance,
        time=zero,
        chi2=zero,
        ndf=zero,
        pval=zero,
        n_measurements=n_hits[particle],
        n_holes=zero,
        perigee=at_perigee + SIGMAS * rng.normal(size=(n, 5)),
        perigee_covariance=covariance,
        state_offsets=offsets,
    )
    m = len(simulated)
    states = TrackStates(row_of_hit, simulated.hits.geometry_id, np.zeros((m, 5)), np.zeros((m, 15)), np.zeros(m))
    triplets = first[:, None] + np.arange(3)
    seeds = Seeds(*triplets.T, zero)
    spacepoints = Spacepoints(np.zeros((m, 3)), row_of_hit)
    result = EventResult(measurements, spacepoints, seeds, tracks, states, 0, n)
    truth = measurement_truth_of_hits(hit, simulated)
    return result, truth, simulated, particles, b_z


def test_first_state_pulls_have_the_widths_put_in(sample):
    result, truth, simulated, particles, _ = sample
    matches = match_tracks(result, truth, N_PARTICLES)
    assert matches.is_matched.all()
    assert (matches.purity == 1).all()
    assert (matches.completeness == 1).all()
    pulls = first_state_pulls(result, matches, truth, simulated, particles)
    assert len(pulls.pull) == len(result.tracks)
    error = 4 / np.sqrt(len(pulls.pull))
    for name, fit in summarise_pulls(pulls, FIRST_STATE_NAMES).items():
        assert abs(fit.mean) < error, name
        assert fit.sigma == pytest.approx(1.0, abs=error), name
    np.testing.assert_allclose(pulls.residual.std(axis=0), SIGMAS, rtol=error)


def test_perigee_pulls_have_the_widths_put_in(sample):
    result, truth, _, particles, b_z = sample
    pulls = perigee_pulls(result, match_tracks(result, truth, N_PARTICLES), particles, b_z)
    error = 4 / np.sqrt(len(pulls.pull))
    for name, fit in summarise_pulls(pulls, PERIGEE_NAMES).items():
        assert max(abs(fit.mean), abs(fit.sigma - 1)) < error, name


def test_truth_on_the_other_side_of_the_material_is_seen(sample):
    result, truth, simulated, particles, _ = sample
    unchanged = simulated.hits.delta_momentum.copy()
    simulated.hits.delta_momentum[:] = 0.0
    pulls = first_state_pulls(result, match_tracks(result, truth, N_PARTICLES), truth, simulated, particles)
    simulated.hits.delta_momentum[:] = unchanged
    assert pulls.pull[:, FIRST_STATE_NAMES.index("phi")].std() > 1.2


def test_failed_fits_are_left_out(sample):
    result, truth, simulated, particles, b_z = sample
    outcomes = result.tracks.fit_outcome.copy()
    result.tracks.fit_outcome[10:] = FitOutcome.FITTER
    matches = match_tracks(result, truth, N_PARTICLES)
    n = [len(first_state_pulls(result, matches, truth, simulated, particles).pull)]
    n.append(len(perigee_pulls(result, matches, particles, b_z).pull))
    result.tracks.fit_outcome[:] = outcomes
    assert n == [10, 10]


def test_seeds_match_with_two_of_three(sample):
    result, truth, *_ = sample
    assert match_seeds(result, truth, N_PARTICLES).is_matched.all()
    top = result.seeds.top_index.copy()
    result.seeds.top_index[:] = np.roll(top, 1)
    two = match_seeds(result, truth, N_PARTICLES)
    result.seeds.middle_index, middle = np.roll(result.seeds.middle_index, 2), result.seeds.middle_index
    one = match_seeds(result, truth, N_PARTICLES)
    result.seeds.top_index[:], result.seeds.middle_index = top, middle
    assert two.is_matched.all()
    assert not one.is_matched.any()


def test_measurement_pulls_have_the_smearing(sample):
    result, truth, simulated, *_ = sample
    pulls = measurement_pulls(result, truth, simulated, build_detector("odd"), ClusterizationConfig())
    pixel = result.measurements.dimensions[pulls.measurement_index] == 2
    assert isinstance(result.measurements, Measurements)
    np.testing.assert_allclose(pulls.pull[pixel].std(axis=0), 1.0, atol=4 / np.sqrt(2 * pixel.sum()))


def test_plots_are_written(sample, tmp_path):
    pytest.importorskip("matplotlib")
    result, truth, simulated, particles, b_z = sample
    matches = match_tracks(result, truth, N_PARTICLES)
    first = first_state_pulls(result, matches, truth, simulated, particles)
    twice = concatenate_pulls([first, first])
    assert len(twice.pull) == 2 * len(first.pull)
    draw_pulls(twice, FIRST_STATE_NAMES, tmp_path / "pulls.png")
    draw_residuals(perigee_pulls(result, matches, particles, b_z), PERIGEE_NAMES, tmp_path / "residuals.png")
    draw_p_values(np.random.default_rng(1).random(100), tmp_path / "p.png")
    eta = np.linspace(-2, 2, 100)
    draw_efficiency(eta, np.abs(eta) < 1.9, np.linspace(-3, 3, 13), r"$\eta$", tmp_path / "efficiency.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("pulls", "residuals", "p", "efficiency"))


def test_summary_of_an_event_has_every_number(sample):
    result, _, simulated, particles, _ = sample
    detector = build_detector("odd")
    # one cell per hit, so that cells, measurements and hits correspond
    hit = np.argsort(simulated.module_index, kind="stable")
    n = len(hit)
    zero = np.zeros(n, np.int64)
    cells = Cells(simulated.hits.geometry_id[hit], zero, zero, np.ones(n), np.zeros(n), zero)
    made = Digitization(cells, np.arange(n + 1), hit, hit)
    result.measurements.cell_offsets, result.measurements.cell_indices = np.arange(n + 1), np.arange(n)
    summary = PerformanceSummary(detector, {"all": TruthSelection(), "none": TruthSelection(min_measurements=1000)})
    summary.add(SimulatedEvent(0, particles, simulated, made), result)
    numbers = json.loads(json.dumps(summary.as_dict()))
    assert numbers["tracks"]["all"]["efficiency"] == 1.0
    assert numbers["seeds"]["all"]["efficiency"] == 1.0
    assert numbers["tracks"]["none"]["n_particles"] == 0
    assert numbers["fit_outcomes"] == {"SUCCESS": len(result.tracks)}
    assert numbers["perigee_pulls"]["d0"]["sigma"] == pytest.approx(1.0, abs=4 / np.sqrt(N_PARTICLES))
    assert numbers["p_values"]["n"] == len(result.tracks)
    assert PerformanceSummary(detector, {}).as_dict()["first_state_pulls"] == {}
