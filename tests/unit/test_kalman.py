"""Kalman updates, combinations and chi2 probabilities against full matrices in double precision."""

import numba
import numpy as np
import pytest
from scipy.special import gammaincc

from tests.reference import kalman as reference
from traccc_py.kernels.tracking.kalman import (
    COMBINATION_SCRATCH,
    chi2_survival,
    combine_estimates,
    predicted_chi2,
    scale_diagonal,
    update,
)
from traccc_py.kernels.tracking.state import BoundParameters, Covariance, Local

SCALES = np.array([0.05, 0.3, 1e-3, 2e-3, 1e-2])  # of loc0, loc1 [mm], phi, theta [rad], q/p [1/GeV]
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-12}  # relative to the standard deviations
COMBINATION_TOLERANCE = {np.float32: 5e-4, np.float64: 1e-9}  # the same; inverse matrices cost digits
PEERS = [(0.0, 1, 1.0), (0.0, 7, 1.0), (3.0, 5, 0.69998584), (-1.0, 5, 0.0), (3.0, 0, 0.0), (3.0, -2, 0.0)]


@numba.njit
def run_update(x, c, local, variance, dimensions):
    return update(x, c, local, variance, dimensions)


@numba.njit
def run_predicted_chi2(residual, variance, dimensions, c):
    return predicted_chi2(residual, variance, dimensions, c)


@numba.njit
def run_combine(xa, ca, xb, cb, work):
    return combine_estimates(xa, ca, xb, cb, work)


@numba.njit
def run_scale(c, factor):
    return scale_diagonal(c, factor)


@numba.njit
def survival(chi2, ndf):
    return chi2_survival(chi2, ndf)


def as_tuple(values, dtype):
    return tuple(dtype(v) for v in values)


def local_of(values, dtype):
    return Local(*as_tuple(values, dtype))


def parameters_of(values, dtype):
    return BoundParameters(*as_tuple(values, dtype))


def covariance_of(matrix, dtype):
    return Covariance(*as_tuple(reference.packed(matrix), dtype))


def random_covariance(rng, scales=SCALES):
    """Well conditioned correlations times the scales; exactly representable in float32."""
    root = rng.normal(size=(5, 7))
    covariance = (root @ root.T / 7) * np.outer(scales, scales)
    return reference.unpacked(reference.packed(covariance).astype(np.float32))


def random_state(rng):
    x = (rng.normal(size=5) * SCALES * 5).astype(np.float32).astype(float)
    covariance = random_covariance(rng)
    variance = (np.exp(rng.uniform(-3, 1, 2)) * np.diag(covariance)[:2]).astype(np.float32).astype(float)
    local = (x[:2] + rng.normal(size=2) * np.sqrt(np.diag(covariance)[:2] + variance)).astype(np.float32).astype(float)
    return x, covariance, local, variance


def deviation(found, expected, sigma):
    """Largest difference of packed covariances relative to the standard deviations."""
    return np.abs((reference.unpacked(found) - expected) / np.outer(sigma, sigma)).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_update_equals_the_gain_formula(dimensions, dtype):
    rng = np.random.default_rng(1)
    h = reference.projector(dimensions)
    for _ in range(300):
        x, covariance, local, variance = random_state(rng)
        found_x, found_c, chi2 = run_update(
            parameters_of(x, dtype), covariance_of(covariance, dtype), local_of(local, dtype),
            local_of(variance, dtype), np.int32(dimensions),
        )  # fmt: skip
        expected = reference.gain_update(x, covariance, local[:dimensions], variance[:dimensions], h)
        sigma = np.sqrt(np.diag(expected[1]))
        assert np.abs((np.array(found_x) - expected[0]) / sigma).max() < TOLERANCE[dtype]
        assert deviation(np.array(found_c), expected[1], sigma) < TOLERANCE[dtype]
        assert chi2 == pytest.approx(expected[2], rel=TOLERANCE[dtype], abs=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_predicted_chi2_equals_the_matrix_form(dimensions, dtype):
    rng = np.random.default_rng(2)
    h = reference.projector(dimensions)
    for _ in range(300):
        x, covariance, local, variance = random_state(rng)
        residual = (local - x[:2]).astype(np.float32).astype(float)
        found = run_predicted_chi2(
            local_of(residual, dtype), local_of(variance, dtype), np.int32(dimensions),
            covariance_of(covariance, dtype),
        )  # fmt: skip
        expected = reference.predicted_chi2(residual[:dimensions], variance[:dimensions], covariance, h)
        assert found == pytest.approx(expected, rel=TOLERANCE[dtype], abs=TOLERANCE[dtype])


def test_update_of_a_wide_prior_keeps_variances_positive_and_right():
    """A seed's covariance is 1e6 times that of a pixel; the Joseph form has to survive that in float32."""
    rng = np.random.default_rng(3)
    scales = np.array([3.0, 3.0, 0.02, 0.02, 0.3])
    pixel = np.array([2.5e-5, 2e-3])
    for _ in range(300):
        covariance = random_covariance(rng, scales)
        x = np.zeros(5)
        _, found, _ = run_update(
            parameters_of(x, np.float32), covariance_of(covariance, np.float32),
            local_of(np.zeros(2), np.float32), local_of(pixel, np.float32), np.int32(2),
        )  # fmt: skip
        _, expected, _ = reference.gain_update(x, covariance, np.zeros(2), pixel, reference.projector(2))
        variances = np.diag(reference.unpacked(np.array(found)))
        assert (variances > 0).all()
        assert np.abs(variances / np.diag(expected) - 1).max() < 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ratio", [1.0, 1e-4])
def test_combination_equals_the_information_form(ratio, dtype):
    rng = np.random.default_rng(4)
    work = np.empty(COMBINATION_SCRATCH, dtype)
    for _ in range(200):
        xa, ca, *_ = random_state(rng)
        xb, cb, *_ = random_state(rng)
        ca = reference.unpacked(reference.packed(ca * ratio).astype(np.float32))
        x, c, success = run_combine(
            parameters_of(xa, dtype), covariance_of(ca, dtype),
            parameters_of(xb, dtype), covariance_of(cb, dtype), work,
        )  # fmt: skip
        expected_x, expected_c = reference.weighted_mean(xa, ca, xb, cb)
        sigma = np.sqrt(np.diag(expected_c))
        assert success
        assert np.abs((np.array(x) - expected_x) / sigma).max() < COMBINATION_TOLERANCE[dtype]
        assert deviation(np.array(c), expected_c, sigma) < COMBINATION_TOLERANCE[dtype]


def test_combination_of_impossible_covariances_fails():
    c = np.eye(5)
    c[3, 3] = -2.0
    zero = parameters_of(np.zeros(5), np.float32)
    impossible, possible = (covariance_of(matrix, np.float32) for matrix in (c, np.eye(5)))
    x, _, success = run_combine(zero, impossible, zero, possible, np.empty(COMBINATION_SCRATCH, "f4"))
    assert not success
    assert x == zero


def test_scale_diagonal_drops_correlations():
    c = random_covariance(np.random.default_rng(5))
    found = run_scale(covariance_of(c, np.float64), 100.0)
    assert np.array_equal(reference.unpacked(np.array(found)), np.diag(100.0 * np.diag(c)))


def random_steps(rng, n):
    """A random linear model: transition, process noise, measurement, variance, projector for each of n states."""
    steps = []
    for k in range(n):
        transition = np.eye(5) + rng.normal(0, 0.3, (5, 5)) if k else np.eye(5)
        root = rng.normal(0, 0.3, (5, 5))
        h = reference.projector(1 + k % 3 // 2)
        n_dim = len(h)
        noise = root @ root.T if k else np.zeros((5, 5))
        steps.append((transition, noise, rng.normal(size=n_dim), rng.uniform(0.05, 0.5, n_dim), h))
    return steps


def step_update(x, c, step):
    _, _, local, variance, h = step
    both = np.concatenate([local, [0.0]])[:2], np.concatenate([variance, [1.0]])[:2]
    local, variance = (local_of(pair, float) for pair in both)
    x, c, _ = run_update(parameters_of(x, float), covariance_of(c, float), local, variance, np.int32(len(h)))
    return np.array(x), reference.unpacked(np.array(c))


def test_forward_and_backward_filter_combined_are_the_rts_smoother():
    """The scheme of the fit: forward filtered estimates combined with backward predictions from a very wide start."""
    rng = np.random.default_rng(6)
    for _ in range(20):
        steps = random_steps(rng, 8)
        prior = np.zeros(5), np.eye(5) * 4.0
        expected = reference.rts_smoother(*prior, steps)
        filtered, (x, c) = [], prior
        for step in steps:
            x, c = step_update(step[0] @ x, step[0] @ c @ step[0].T + step[1], step)
            filtered.append((x, c))
        c = reference.unpacked(np.array(run_scale(covariance_of(c, float), 1e9)))
        for k in range(7, 0, -1):
            x, c = step_update(x, c, steps[k])
            inverse = np.linalg.inv(steps[k][0])
            x, c = inverse @ x, inverse @ (c + steps[k][1]) @ inverse.T
            combined = run_combine(
                parameters_of(x, float), covariance_of(c, float), parameters_of(filtered[k - 1][0], float),
                covariance_of(filtered[k - 1][1], float), np.empty(COMBINATION_SCRATCH),
            )  # fmt: skip
            sigma = np.sqrt(np.diag(expected[k - 1][1]))
            assert np.abs((np.array(combined[0]) - expected[k - 1][0]) / sigma).max() < 1e-3
            assert deviation(np.array(combined[1]), expected[k - 1][1], sigma) < 1e-3


@pytest.mark.parametrize(("chi2", "ndf", "expected"), PEERS)
def test_chi2_survival_has_known_values(chi2, ndf, expected):
    assert survival(np.float32(chi2), np.int32(ndf)) == pytest.approx(expected, rel=1e-5)


def test_chi2_survival_agrees_with_the_incomplete_gamma_function():
    for ndf in (*range(1, 40), 75, 76, 100):
        chi2 = np.concatenate([np.linspace(1e-3, 160, 200), [1e-6, 0.5 * ndf, ndf, 2.0 * ndf]]).astype(np.float32)
        chi2 = chi2[chi2 <= 160]
        found = np.array([survival(value, np.int32(ndf)) for value in chi2])
        expected = gammaincc(0.5 * ndf, 0.5 * chi2.astype(float))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-37)


def test_chi2_survival_of_what_is_no_number_is_zero():
    assert survival(np.float32(np.nan), np.int32(5)) == 0
    assert survival(np.float32(np.inf), np.int32(5)) == 0
    assert survival(np.float32(1e4), np.int32(5)) == 0
