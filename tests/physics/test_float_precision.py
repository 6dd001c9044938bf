"""Finding and fitting on the Open Data Detector in float32 against the same code fed float64."""

from dataclasses import fields
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.batches import (
    CANDIDATE_EXTENTS,
    FIT_EXTENTS,
    find_candidates,
    make_workspace,
    measurement_batch,
    rows,
    seed_parameters,
    select_all,
    stack_ranges,
)
from tests.reference.kalman import unpacked
from tests.settings import finding_settings
from tests.smearing import smear_hits
from traccc_py.config import FittingConfig
from traccc_py.edm import FitOutcome, Measurements
from traccc_py.geometry import build_detector
from traccc_py.kernels.finding.candidates import CandidateBatch
from traccc_py.kernels.fitting.fitting import FittedBatch, fit_tracks
from traccc_py.kernels.tracking.entries import kink_of
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import transport

PARTICLES_PER_EVENT = 10
VARIANCE = 0.01  # largest relative difference of variances
PARAMETER = 0.05  # largest difference of parameters, in standard deviations
INNER_PARAMETER = 0.15  # the same of smoothed states, whose position is far better known than it was predicted
SAME_CANDIDATES = 0.995  # the others have a measurement at the edge of the chi2 cut
SEED_SIGMA = np.array([0.05, 0.05, 1e-3, 5e-4])  # mm, mm, rad, rad; so small that the first steps are linear
SEED_SIGMA_P = 0.05  # of q/p, relative


class Sample(NamedTuple):
    """Muons on the ODD in events of ten, seeded with smeared truth on their first sensor."""

    measurements: Measurements
    particle: np.ndarray  # of each measurement
    event: np.ndarray  # of each measurement
    module: np.ndarray  # of each seed
    params: np.ndarray  # (n, 5) of each seed
    sigma: np.ndarray
    first: np.ndarray  # first measurement of each seed


@cache
def odd():
    return build_detector("odd")


def simulate(n, pt, eta, seed, **gun):
    detector = odd()
    gun = {"vertex_sigma": (0.01, 0.01, 50.0), **gun}
    gun = ParticleGunConfig(n_particles=n, momentum=pt, momentum_distribution="log", eta=(-eta, eta), **gun)
    particles = generate_particles(gun, seed)
    hits = transport(detector, particles, event_key(seed, 0), threads=2)
    design = detector.designs[detector.design_of_surface]
    sigma = [np.where(design[f"n_channels{k}"] > 1, design[f"pitch{k}"], 1.0) / np.sqrt(12) for k in (0, 1)]
    measurements, hit = smear_hits(detector, hits, event_key(seed, 0), *sigma)
    particle = hits.particle_index[hit]
    order = np.lexsort([measurements.module_index, particle // PARTICLES_PER_EVENT])
    columns = {f.name: getattr(measurements, f.name)[order] for f in fields(Measurements) if "cell_" not in f.name}
    columns["n_cells"] = measurements.n_cells[order]
    row_of_hit = np.argsort(hit[order])
    first = np.searchsorted(hits.particle_index, np.arange(n))
    momentum = hits.hits.momentum[first]
    p = np.linalg.norm(momentum, axis=1)
    params = np.column_stack([
        hits.local_position[first],
        np.arctan2(momentum[:, 1], momentum[:, 0]), np.arccos(momentum[:, 2] / p), particles.charge / p,
    ])  # fmt: skip
    seed_sigma = np.column_stack([np.tile(SEED_SIGMA, (n, 1)), SEED_SIGMA_P / p])
    params += np.random.default_rng(seed).normal(size=params.shape) * seed_sigma
    event = (particle // PARTICLES_PER_EVENT)[order]
    module = hits.module_index[first]
    return Sample(
        Measurements(**columns), particle[order], event, module, params, seed_sigma, row_of_hit[first].astype(np.int32)
    )


class Reconstructed(NamedTuple):
    candidates: CandidateBatch
    fitted: FittedBatch
    dtypes: Any


def reconstruct(sample, dtype):
    arrays = odd().arrays()
    stacks, ws = stack_ranges(arrays.stacks), make_workspace()
    n = len(sample.module)
    n_events = -(-n // PARTICLES_PER_EVENT)
    measurements = measurement_batch(ws, sample.measurements, len(arrays.surfaces), dtype, sample.event, n_events)
    event = np.arange(n) // PARTICLES_PER_EVENT
    # Both get the same numbers.
    seeds = seed_parameters(ws, sample.module, sample.params.astype(np.float32), sample.sigma, dtype, event)
    config = finding_settings(particle="muon")
    found = find_candidates(ws, seeds, sample.first, measurements, arrays, stacks, config)
    selection = select_all(ws, rows(ws, found, default="candidates", **CANDIDATE_EXTENTS))
    fitting = (FittingConfig(particle="muon"), kink_of(config, dtype))
    fitted = fit_tracks(ws, found, selection, measurements, arrays, stacks, *fitting)
    return Reconstructed(
        rows(ws, found, default="candidates", **CANDIDATE_EXTENTS),
        rows(ws, fitted, default="tracks", **FIT_EXTENTS),
        {fitted.params.dtype, fitted.state_covariance.dtype, found.path.dtype},
    )


@cache
def both_precisions(name):
    *ranges, gun = SAMPLES[name]
    sample = simulate(*ranges, **gun)
    return sample, reconstruct(sample, np.float32), reconstruct(sample, np.float64)


# Number of muons, pT range [GeV], |eta| limit, seed, and where they come from if not from the beam.
SAMPLES = {
    "0.5-500 GeV": (2000, (0.5, 500.0), 2.7, 1, {}),
    "0.35-0.5 GeV": (500, (0.35, 0.5), 2.7, 2, {}),
    # They meet the innermost layer twice, before and after the point closest to the beam.
    "tangential": (500, (1.0, 20.0), 1.0, 3, {
        "vertex_mean": (34.0, 0.0, 0.0), "vertex_sigma": (1.0, 0.0, 20.0), "phi": (np.pi / 2, np.pi / 2 + 0.5),
    }),
}  # fmt: skip


def measurement_lists(candidates):
    return [tuple(m) for m in np.split(candidates.measurements, candidates.measurement_offsets[1:-1])]


def compared_rows(name):
    """Rows of the tracks that both precisions found and fitted, in each of the results."""
    _, single, double = both_precisions(name)
    lists = [measurement_lists(r.candidates) for r in (single, double)]
    by_seed = {int(s): (k, m) for k, (s, m) in enumerate(zip(double.candidates.seed, lists[1], strict=True))}
    pairs = [
        (k, by_seed[int(s)][0])
        for k, (s, m) in enumerate(zip(single.candidates.seed, lists[0], strict=True))
        if int(s) in by_seed and by_seed[int(s)][1] == m
    ]
    return np.array(pairs).T


def sigmas(packed):
    return np.sqrt(np.diagonal(unpacked(packed), axis1=1, axis2=2))


def deviations(single, double, packed_single, packed_double):
    """Largest relative difference of variances, and of parameters in standard deviations, of each track."""
    sigma = sigmas(packed_double)
    variance = np.abs((sigmas(packed_single) / sigma) ** 2 - 1).max(1)
    difference = single.astype(float) - double
    difference[:, 2] = np.mod(difference[:, 2] + np.pi, 2 * np.pi) - np.pi
    return variance, np.abs(difference / sigma).max(1)


@pytest.mark.long
@pytest.mark.parametrize("name", list(SAMPLES))
def test_each_precision_stays_itself(name):
    _, single, double = both_precisions(name)
    assert single.dtypes == {np.dtype(np.float32)}
    assert double.dtypes == {np.dtype(np.float64)}


@pytest.mark.parametrize("name", list(SAMPLES))
def test_candidates_are_the_same(name):
    _, single, double = both_precisions(name)
    n = max(len(single.candidates.seed), len(double.candidates.seed))
    assert compared_rows(name).shape[1] >= SAME_CANDIDATES * n


@pytest.mark.parametrize("name", list(SAMPLES))
def test_candidates_have_their_particles_hits_and_none_twice(name):
    sample, single, _ = both_precisions(name)
    lists = measurement_lists(single.candidates)
    assert all(len(set(m)) == len(m) for m in lists)
    assert len(lists) >= (0.85 if name == "tangential" else 0.99) * len(sample.module)
    right = np.array(
        [(sample.particle[list(m)] == s).sum() for s, m in zip(single.candidates.seed, lists, strict=True)]
    )
    n_hits = np.bincount(sample.particle)[single.candidates.seed]
    assert right.sum() >= 0.995 * len(single.candidates.measurements)
    if name == "0.5-500 GeV":  # softer ones have hits on several turns
        assert right.sum() >= 0.99 * n_hits.sum()


@pytest.mark.parametrize("name", list(SAMPLES))
def test_variances_are_positive(name):
    for result in both_precisions(name)[1:]:
        fitted = result.fitted
        good = fitted.outcome == FitOutcome.SUCCESS
        assert good.mean() > 0.999
        states = np.repeat(good, np.diff(result.candidates.measurement_offsets))
        for packed in (
            fitted.covariance[good], fitted.perigee_covariance[good], fitted.state_covariance[states],
        ):  # fmt: skip
            assert (np.diagonal(unpacked(packed), axis1=1, axis2=2) > 0).all()
            correlation = unpacked(packed) / (sigmas(packed)[:, :, None] * sigmas(packed)[:, None, :])
            assert np.linalg.eigvalsh(correlation).min() > -1e-3


@pytest.mark.parametrize("name", list(SAMPLES))
def test_fits_agree(name):
    _, single, double = both_precisions(name)
    a, b = compared_rows(name)
    columns = {
        "first state": ("params", "covariance"),
        "perigee": ("perigee", "perigee_covariance"),
    }
    for what, (params, covariance) in columns.items():
        values = [getattr(r.fitted, c)[k] for c in (params, covariance) for r, k in ((single, a), (double, b))]
        variance, shift = deviations(*values)
        print(f"{name}, {what}: variances to {variance.max():.1e}, parameters to {shift.max():.1e} sigma")
        assert variance.max() < VARIANCE, what
        assert shift.max() < PARAMETER, what
    chi2 = np.abs(single.fitted.chi2[a] - double.fitted.chi2[b])
    assert (chi2 < 0.01 * double.fitted.chi2[b] + 0.05).all()


@pytest.mark.parametrize("name", list(SAMPLES))
def test_smoothed_states_agree(name):
    _, single, double = both_precisions(name)
    pairs = compared_rows(name)
    states = []
    for result, tracks in zip((single, double), pairs, strict=True):
        offsets = result.candidates.measurement_offsets
        states.append(np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in tracks]))
    a, b = states
    f, g = single.fitted, double.fitted
    variance, shift = deviations(f.state_params[a], g.state_params[b], f.state_covariance[a], g.state_covariance[b])
    assert variance.max() < VARIANCE
    assert shift.max() < INNER_PARAMETER
