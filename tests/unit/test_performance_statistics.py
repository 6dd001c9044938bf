import numpy as np
import pytest

from traccc_py.performance.binned import fractions, means, pull_profile, rates, resolution_profile
from traccc_py.performance.statistics import (
    fit_gaussian,
    histogram,
    robust_width,
    summarise_p_values,
    wilson_interval,
)


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


def test_robust_width_is_sigma_of_a_gaussian_and_its_error_is_the_spread_of_samples():
    rng = np.random.default_rng(3)
    found = [robust_width(rng.normal(0.3, 2.0, 400)) for _ in range(2000)]
    widths, medians = np.array([f.width for f in found]), np.array([f.median for f in found])
    assert widths.mean() == pytest.approx(2.0, abs=0.02)
    assert widths.std() == pytest.approx(found[0].width_error, rel=0.15)
    assert medians.mean() == pytest.approx(0.3, abs=0.01)
    assert medians.std() == pytest.approx(found[0].median_error, rel=0.15)


def test_robust_width_ignores_tails_and_nan():
    rng = np.random.default_rng(4)
    with_tail = np.concatenate([rng.normal(size=10_000), np.full(50, 1e4), [np.nan]])
    assert robust_width(with_tail).width == pytest.approx(1.0, abs=0.04)
    assert robust_width(with_tail).n == 10_050
    assert np.isnan(robust_width(np.arange(9.0)).width)


def test_wilson_interval_solves_its_equation():
    """Its ends are the fractions p from which the observed one is one standard deviation away."""
    passed, total = np.array([0, 1, 7, 50, 50]), np.array([10, 3, 20, 50, 1000])
    low, high = wilson_interval(passed, total)
    for end, is_limit in ((low, passed == 0), (high, passed == total)):
        p = end[~is_limit]
        fraction = (passed / total)[~is_limit]
        np.testing.assert_allclose((fraction - p) ** 2, p * (1 - p) / total[~is_limit], rtol=1e-9)
    assert (low[0], high[3]) == (0.0, 1.0)
    assert np.isnan(wilson_interval(np.array([0]), np.array([0]))).all()


def test_wilson_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    low, high = wilson_interval(rng.binomial(200, 0.9, 20_000), np.full(20_000, 200))
    assert np.mean((low <= 0.9) & (high >= 0.9)) == pytest.approx(0.683, abs=0.04)


def test_histogram_counts_what_is_outside():
    table = histogram(np.array([-2.0, 0.0, 0.5, 1.0, 3.0, np.nan, np.inf]), np.array([0.0, 0.5, 1.0]))
    assert (table["n"], table["counts"], table["below"], table["above"]) == (5, [1, 2], 1, 1)
    assert table["errors"] == pytest.approx([1, np.sqrt(2)])


EDGES = np.array([0.0, 1.0, 2.0, 3.0])


def test_fractions_and_rates_in_bins():
    x = np.array([0.5, 0.5, 1.5, 1.5, 9.0])
    table = fractions(x, np.array([True, False, True, True, True]), EDGES)
    assert (table["total"], table["passed"]) == ([2, 2, 0], [1, 2, 0])
    assert table["value"][:2] == [0.5, 1.0]
    assert np.isnan(table["value"][2])
    assert np.isnan(table["low"][2])
    assert table["low"][1] < 1 == table["high"][1]
    counted = rates(x, np.array([3, 1, 0, 0, 1]), EDGES, np.array([True, False, True, True, True]))
    assert (counted["total"], counted["passed"]) == ([1, 2, 0], [4, 0, 0])
    assert (counted["value"][0], counted["low"][0], counted["high"][0]) == (4.0, 2.0, 6.0)
    assert (counted["value"][1], counted["low"][1], counted["high"][1]) == (0.0, 0.0, 0.5)
    assert np.isnan(counted["value"][2])


def test_means_in_bins_leave_out_what_is_not_known():
    table = means(np.array([0.5, 0.5, 0.5, 1.5]), np.array([2.0, 4.0, np.nan, np.nan]), EDGES)
    assert table["total"] == [2, 0, 0]
    assert (table["value"][0], table["high"][0] - 3.0) == pytest.approx((3.0, 1 / np.sqrt(2)))


def test_profiles_give_the_width_of_each_bin():
    rng = np.random.default_rng(6)
    edges = np.linspace(0.0, 4.0, 5)
    x = rng.uniform(0, 4, 20_000)
    sigma = np.where(x < 2, 1.0, 2.0)
    table = resolution_profile(x, rng.normal(0, sigma), edges)
    assert table["edges"] == [0, 2, 4]
    np.testing.assert_allclose(table["value"], [1.0, 2.0], rtol=0.04)
    pulls = pull_profile(x, rng.normal(0.1, 1.0, len(x)) / np.where(x < 2, 1.0, 2.0), edges)
    np.testing.assert_allclose(pulls["value"], [1.0, 0.5], rtol=0.04)
    np.testing.assert_allclose(pulls["mean"], [0.1, 0.05], atol=0.04)
    assert np.isnan(resolution_profile(x[:5], x[:5], edges)["value"]).any()
