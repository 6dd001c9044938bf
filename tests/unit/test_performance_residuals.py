"""Residuals and pulls of tracks whose errors are known, and what is made of them: summaries, plots."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.columns import zeros
from tests.performance_events import particles_at
from tests.smearing import smear_hits
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
from traccc_py.errors import InputDataError
from traccc_py.geometry import build_detector
from traccc_py.performance.cluster_pulls import ClusterPulls
from traccc_py.performance.definitions import TRACCC, TruthSelection
from traccc_py.performance.frames import SurfaceFrames, detector_frames
from traccc_py.performance.matching import match_seeds, match_tracks
from traccc_py.performance.residuals import (
    FIRST_STATE_NAMES,
    PERIGEE_NAMES,
    concatenate_residuals,
    first_state_residuals,
    measurement_residuals,
    perigee_residuals,
    true_perigee,
)
from traccc_py.performance.rows import fit_table, mean_p_values
from traccc_py.performance.statistics import fit_gaussian
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.tracks import seeds_of_result, tracks_of_result
from traccc_py.performance.truth import EventTruth, link_hits
from traccc_py.simulation.digitization.digitization import DigitizedHits
from traccc_py.simulation.events import SimulatedEvent
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import transport
from traccc_py.units import T

SIGMAS = np.array([0.02, 0.05, 3e-4, 2e-4, 1e-3])
N_PARTICLES = 800
N_FITTED = 5  # the rest of the names are derived


class Sample(NamedTuple):
    result: Any
    links: Any
    event: Any
    detector: Any
    simulated: Any

    @property
    def b_z(self):
        return float(self.detector.arrays().b_z)


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
    tracks = zeros(
        Tracks,
        n,
        fit_outcome=np.full(n, FitOutcome.SUCCESS, np.int32),
        geometry_id=simulated.hits.geometry_id[first],
        params=at_first + SIGMAS * rng.normal(size=(n, 5)),
        covariance=covariance,
        n_measurements=n_hits[particle],
        perigee=at_perigee + SIGMAS * rng.normal(size=(n, 5)),
        perigee_covariance=covariance,
        state_offsets=offsets,
    )
    m = len(simulated)
    states = zeros(TrackStates, m, measurement_index=row_of_hit, geometry_id=simulated.hits.geometry_id)
    triplets = first[:, None] + np.arange(3)
    seeds = Seeds(*triplets.T, zero)
    spacepoints = Spacepoints(np.zeros((m, 3)), row_of_hit)
    result = EventResult(measurements, spacepoints, seeds, tracks, states, 0, n)
    event = EventTruth(0, particles, simulated.hits, simulated.particle_index)
    return Sample(result, link_hits(hit, event.particle_of_hit), event, detector, simulated)


def first_state(sample, tracks=None, **options):
    tracks = tracks_of_result(sample.result) if tracks is None else tracks
    matches = match_tracks(tracks, sample.links, N_PARTICLES, TRACCC)
    frames = detector_frames(sample.detector)
    return first_state_residuals(tracks, matches, sample.links, sample.event, frames, **options)


def perigee(sample, tracks=None):
    tracks = tracks_of_result(sample.result) if tracks is None else tracks
    matches = match_tracks(tracks, sample.links, N_PARTICLES, TRACCC)
    return perigee_residuals(tracks, matches, sample.event, sample.b_z)


def test_all_tracks_match(sample):
    matches = match_tracks(tracks_of_result(sample.result), sample.links, N_PARTICLES, TRACCC)
    assert matches.is_matched.all()
    assert (matches.purity == 1).all()
    assert (matches.completeness == 1).all()


@pytest.mark.parametrize(("compare", "names"), [(first_state, FIRST_STATE_NAMES), (perigee, PERIGEE_NAMES)])
def test_pulls_have_the_widths_put_in(sample, compare, names):
    found = compare(sample)
    assert len(found.pull) == len(sample.result.tracks)
    error = 4 / np.sqrt(len(found.pull))
    for k, name in enumerate(names):
        fit = fit_gaussian(found.pull[:, k])
        assert max(abs(fit.mean), abs(fit.sigma - 1)) < error, name
    np.testing.assert_allclose(found.residual[:, :N_FITTED].std(axis=0), SIGMAS, rtol=error)
    momentum = sample.event.particles.momentum[found.particle_index]
    np.testing.assert_allclose(found.pt * np.sinh(found.eta), momentum[:, 2], rtol=1e-6)


def test_pulls_of_derived_parameters_use_the_whole_covariance(sample):
    """With theta and q/p fully correlated, the variance of q/pT is that of a one-dimensional shift."""
    tracks = tracks_of_result(sample.result)
    tracks.params, tracks.covariance = tracks.params.copy(), tracks.covariance.copy()
    theta, qop = tracks.params[:, 3].copy(), tracks.params[:, 4].copy()
    truth = first_state(sample, tracks)
    rows = truth.track_index
    true_theta, true_qop = theta[rows] - truth.residual[:, 3], qop[rows] - truth.residual[:, 4]
    rng = np.random.default_rng(8)
    shift = rng.normal(size=len(rows))
    tracks.params[rows, 3], tracks.params[rows, 4] = true_theta + SIGMAS[3] * shift, true_qop - SIGMAS[4] * shift
    tracks.covariance[:, packed_index(3, 4)] = -SIGMAS[3] * SIGMAS[4]
    pull = first_state(sample, tracks).pull[:, [FIRST_STATE_NAMES.index("qop_t"), FIRST_STATE_NAMES.index("qop_z")]]
    # the derivatives are taken at the fit, not between fit and truth
    np.testing.assert_allclose(np.median(np.abs(pull) / np.abs(shift)[:, None], axis=0), 1.0, rtol=1e-2)
    tracks.covariance[:, packed_index(3, 4)] = np.nan
    assert np.isnan(first_state(sample, tracks).pull[:, N_FITTED:]).all()


def test_truth_on_the_other_side_of_the_material_is_seen(sample):
    incoming = first_state(sample, outgoing=False)
    assert incoming.pull[:, FIRST_STATE_NAMES.index("phi")].std() > 1.2
    assert first_state(sample).pull[:, FIRST_STATE_NAMES.index("phi")].std() < 1.1


def test_failed_fits_are_left_out(sample):
    tracks = tracks_of_result(sample.result)
    tracks.fit_outcome = tracks.fit_outcome.copy()
    tracks.fit_outcome[10:] = FitOutcome.FITTER
    assert [len(first_state(sample, tracks).pull), len(perigee(sample, tracks).pull)] == [10, 10]


def test_surfaces_that_are_not_known_have_no_local_residuals(sample):
    tracks = tracks_of_result(sample.result)
    tracks.geometry_id = tracks.geometry_id.copy()
    tracks.geometry_id[0] = 12345
    pull = first_state(sample, tracks).pull
    assert np.isnan(pull[0, :2]).all()
    assert np.isfinite(pull[0, 2:]).all()
    assert np.isfinite(pull[1:, :2]).all()
    none = SurfaceFrames(np.zeros(0, np.uint64), *(np.zeros((0, 3)) for _ in range(3)))
    assert np.isnan(none.local_positions(np.array([1], np.uint64), np.zeros((1, 3)))).all()


def test_positions_off_their_surface_are_refused(sample):
    hits, frames = sample.simulated.hits, detector_frames(sample.detector)
    with pytest.raises(InputDataError, match=r"mm off the surface of this id; is it the right detector\?"):
        frames.local_positions(np.roll(hits.geometry_id, 1), hits.position)


def test_frames_are_found_by_detray_ids_too(sample):
    detector = sample.detector
    n = len(detector.geometry_ids)
    detray_ids = np.arange(1, n + 1, dtype=np.uint64)[::-1].copy()
    detray_ids[:10] = 0
    both = detector_frames(
        SimpleNamespace(surfaces=detector.surfaces, geometry_ids=detector.geometry_ids, detray_ids=detray_ids)
    )
    assert len(both.geometry_id) == 2 * n - 10
    hits, rows = sample.simulated.hits, sample.simulated.module_index
    known = rows >= 10
    expected = detector_frames(detector).local_positions(hits.geometry_id, hits.position)
    np.testing.assert_array_equal(both.local_positions(hits.geometry_id, hits.position), expected)
    found = both.local_positions(detray_ids[rows[known]], hits.position[known])
    np.testing.assert_array_equal(found, expected[known])


def test_local_positions_are_those_of_the_simulation(sample):
    hits = sample.simulated.hits
    local = detector_frames(sample.detector).local_positions(hits.geometry_id, hits.position)
    np.testing.assert_allclose(local, sample.simulated.local_position, atol=2e-3)


def test_seeds_match_with_two_of_three(sample):
    result, n = sample.result, N_PARTICLES
    seeds = seeds_of_result(result)
    assert match_seeds(seeds, sample.links, n, TRACCC).is_matched.all()
    triplets = seeds.measurement_index.reshape(-1, 3).copy()
    triplets[:, 2] = np.roll(triplets[:, 2], 1)
    seeds.measurement_index = triplets.ravel()
    assert match_seeds(seeds, sample.links, n, TRACCC).is_matched.all()
    triplets[:, 1] = np.roll(triplets[:, 1], 2)
    seeds.measurement_index = triplets.ravel()
    assert not match_seeds(seeds, sample.links, n, TRACCC).is_matched.any()


def test_measurement_residuals_have_the_smearing(sample):
    measurements = sample.result.measurements
    assert isinstance(measurements, Measurements)
    found = measurement_residuals(measurements, sample.links, sample.event, detector_frames(sample.detector))
    pixel = measurements.dimensions[found.measurement_index] == 2
    pulls = found.residual / np.sqrt(measurements.local_variance[found.measurement_index])
    np.testing.assert_allclose(pulls[pixel].std(axis=0), 1.0, atol=4 / np.sqrt(2 * pixel.sum()))


@pytest.fixture(scope="module")
def as_simulated(sample):
    """The sample as an event of the simulation: one cell per hit, so that cells, measurements and hits correspond."""
    simulated, measurements = sample.simulated, sample.result.measurements
    hit = np.argsort(simulated.module_index, kind="stable")
    n = len(hit)
    zero = np.zeros(n, np.int64)
    cells = Cells(simulated.hits.geometry_id[hit], zero, zero, np.ones(n), np.zeros(n), zero)
    measurements.cell_offsets, measurements.cell_indices = np.arange(n + 1), np.arange(n)
    return SimulatedEvent(0, sample.event.particles, simulated, DigitizedHits(cells, np.arange(n + 1), hit, hit))


@pytest.fixture(scope="module")
def numbers(sample, as_simulated):
    selections = {"all": TruthSelection(), "none": TruthSelection(min_measurements=1000)}
    summary = PerformanceSummary(selections, sample.b_z, detector_frames(sample.detector))
    summary.add_result(as_simulated, sample.result)
    summary.add_result(as_simulated, sample.result)
    return summary.as_dict()


def test_summary_of_events_has_every_number(sample, numbers):
    n = len(sample.result.tracks)
    numbers = json.loads(json.dumps(numbers))
    assert numbers["n_events"] == 2
    assert numbers["tracks"]["all"]["efficiency"] == 1.0
    assert numbers["seeds"]["all"]["efficiency"] == 1.0
    assert numbers["tracks"]["none"]["n_particles"] == 0
    assert numbers["fit_outcomes"] == {"SUCCESS": 2 * n}
    assert numbers["p_values"]["n"] == 2 * n
    assert set(numbers["first_state_pulls"]) == set(FIRST_STATE_NAMES)
    assert set(numbers["perigee_residuals"]) == {*PERIGEE_NAMES, "pt_relative"}
    assert numbers["perigee_pulls"]["d0"]["sigma"] == pytest.approx(1.0, abs=4 / np.sqrt(N_PARTICLES))
    assert numbers["perigee_residuals"]["d0"]["width"] == pytest.approx(SIGMAS[0], rel=0.15)
    assert sum(numbers["perigee_residuals"]["d0"]["versus"]["eta"]["total"]) == 2 * n
    for where in ("first_state", "perigee"):
        for name, table in numbers[f"{where}_pulls"].items():
            histogram = table["histogram"]
            assert sum(histogram["counts"]) + histogram["below"] + histogram["above"] == 2 * n, name
    assert sum(numbers["distributions"]["n_measurements"]["counts"]) == 2 * n


def test_residuals_of_q_over_pz_have_a_width_but_no_moments(numbers):
    # muons at 90 degrees have 1 / cos(theta) of any size
    for where in ("first_state", "perigee"):
        residual = numbers[f"{where}_residuals"]["qop_z"]
        assert np.isnan([residual["mean"], residual["rms"]]).all()
        assert residual["width"] > 0
        cells = {row[0]: row[-1] for row in fit_table(numbers, where).rows}
        assert [name for name, cell in cells.items() if cell == "-"] == ["qop_z [e/GeV]"]


def test_p_values_of_pions_are_quoted_beside_those_of_all(sample, as_simulated):
    assert mean_p_values({}) == []
    n = len(as_simulated.particles)
    for types, n_quoted in ((np.full(n, 211), 1), (np.full(n, 321), 1), (np.resize([-211, 321, 2212, 211], n), 2)):
        particles = replace(as_simulated.particles, particle_type=types.astype(np.int32))
        particle = np.unique(as_simulated.simulated.particle_index)
        pval = np.where(np.abs(types[particle]) == 211, 0.5, 0.25)
        result = replace(sample.result, tracks=replace(sample.result.tracks, pval=pval))
        summary = PerformanceSummary({"all": TruthSelection(particle_types=())}, sample.b_z)
        summary.add_result(replace(as_simulated, particles=particles), result)
        quoted = mean_p_values(summary.as_dict())
        assert len(quoted) == n_quoted
        assert quoted[0][1]["mean"] == pytest.approx(pval.mean())
        if n_quoted > 1:
            assert quoted[1][0] == "mean p-value of pions"
            assert quoted[1][1]["mean"] == 0.5
            assert quoted[1][1]["n"] == np.count_nonzero(pval == 0.5)


def test_cluster_pulls_are_fitted_by_design_and_size(sample, as_simulated):
    pulls = ClusterPulls(sample.detector, ClusterizationConfig(variance="traccc"))  # those the measurements bring along
    assert pulls.as_dict() == pulls.by_size() == {}
    sample.result.measurements.cluster_size[:] = 1
    pulls.add(as_simulated, sample.result)
    found = pulls.as_dict()
    assert {name.rpartition(" ")[2] for name in found} == {"1"}
    fit = max(found.values(), key=lambda f: f["n"])
    assert fit["sigma"] == pytest.approx(1.0, abs=4 / np.sqrt(2 * fit["n"]))
    assert pulls.by_size()["1"]["n"] >= sum(f["n"] for f in found.values())
    together = ClusterPulls(sample.detector, ClusterizationConfig(variance="traccc"))
    together += pulls
    together += pulls
    assert together.as_dict().keys() >= found.keys()
    assert together.by_size()["1"]["n"] == 2 * pulls.by_size()["1"]["n"]


def test_plots_are_written_and_overlaid(numbers, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("mplhep")
    from traccc_py.performance import plots

    monkeypatch.setattr(plots, "_VARIABLES", {"pt": plots._VARIABLES["pt"]})  # a third of the time
    monkeypatch.setattr(plots, "_PLACES", {"first_state": "first state"})
    few = {**numbers, **{key: {"phi": numbers[key]["phi"]} for key in ("first_state_pulls", "first_state_residuals")}}
    paths = plots.draw_performance({"one": few, "other": few}, tmp_path / "plots", "svg")
    assert {p.name for p in paths} == {p.name for p in (tmp_path / "plots").iterdir()}
    assert {p.stem for p in paths} == {
        "efficiency_pt", "seed_efficiency_pt", "finding_efficiency_pt", "duplicates_per_found_pt",
        "fakes_per_particle_pt", "fakes_per_track_pt", "n_measurements_pt", "n_holes_pt",
        "distribution_n_measurements", "distribution_n_holes", "distribution_purity",
        "distribution_completeness", "p_values", "pulls_first_state", "residuals_first_state",
        "resolution_first_state_pt", "pull_width_first_state_pt",
    }  # fmt: skip
    assert all(p.read_text().rstrip().endswith("</svg>") for p in paths)


def test_a_missing_package_for_plots_is_named(monkeypatch):
    from traccc_py.errors import ConfigError
    from traccc_py.performance import plot_style

    monkeypatch.setattr(plot_style, "find_spec", lambda name: None if name == "mplhep" else object())
    with pytest.raises(ConfigError, match=r'needs mplhep; install with: pip install "traccc-py\[plots\]"'):
        plot_style.require_plots()


def test_no_events_have_no_residuals():
    assert concatenate_residuals([]).pull.shape == (0, len(FIRST_STATE_NAMES))
    assert true_perigee(particles_at([], [], []), 2 * T).shape == (0, N_FITTED)
