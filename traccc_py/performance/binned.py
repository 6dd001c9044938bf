"""Quantities in bins of eta, phi, pT and production radius, with statistical errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from traccc_py.performance.statistics import fit_gaussian, robust_width, wilson_interval

__all__ = ["EDGES", "PARTICLE_EDGES", "fractions", "means", "pull_profile", "rates", "resolution_profile"]

#: Bins of each variable, the same for all samples, so that they can be compared.
EDGES: Mapping[str, np.ndarray] = {
    "eta": np.linspace(-4.0, 4.0, 33),
    "phi": np.linspace(-math.pi, math.pi, 25),
    "pt": np.array(
        [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9, 11, 15, 20, 30, 50, 90, 110, 200, 500, 1000], float
    ),
}
#: The same, and bins of variables that only particles have.
PARTICLE_EDGES: Mapping[str, np.ndarray] = {
    **EDGES,
    "radius": np.array([0, 1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200], float),  # [mm]
}
_COARSE = 2  # number of bins of EDGES merged for fits and widths, which need more entries


def _counts(values: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return np.histogram(values, edges, weights=weights)[0]


def _table(value: Any, low: Any, high: Any, **others: Any) -> dict[str, Any]:
    columns = {"value": value, "low": low, "high": high, **others}
    return {name: np.asarray(column).tolist() for name, column in columns.items()}


def fractions(values: np.ndarray, passed: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Return the fraction that passed in each bin, with Wilson's one-sigma interval; NaN in empty bins.

    Parameters
    ----------
    values : ndarray of shape (n,)
        What is binned.
    passed : ndarray of shape (n,), bool
        Whether each passed.
    edges : ndarray of shape (n_bins + 1,)
        Bins.

    Returns
    -------
    dict
        Lists by name: value, low, high (ends of the interval), passed, total.
    """
    total, n_passed = _counts(values, edges), _counts(values[passed], edges)
    low, high = wilson_interval(n_passed, total)
    with np.errstate(invalid="ignore"):
        return _table(n_passed / total, low, high, passed=n_passed, total=total)


def rates(
    values: np.ndarray, counts: np.ndarray, edges: np.ndarray, denominator: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the sum of counts over the number of entries in each bin, with Poisson errors; it may exceed 1.

    Parameters
    ----------
    values : ndarray of shape (n,)
        What is binned.
    counts : ndarray of shape (n,)
        Numbers to add up.
    edges : ndarray of shape (n_bins + 1,)
        Bins.
    denominator : ndarray of shape (n,), bool, optional
        Which entries count in the denominator; by default all.

    Returns
    -------
    dict
        Lists by name: value, low, high, passed (the sums), total.
    """
    sums = _counts(values, edges, weights=np.asarray(counts, np.float64))
    total = _counts(values if denominator is None else values[denominator], edges)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, low = sums / total, np.maximum(sums - np.sqrt(sums), 0.0) / total
        high = (sums + np.sqrt(np.maximum(sums, 1.0))) / total
    empty = total == 0
    value[empty] = low[empty] = high[empty] = np.nan
    return _table(value, low, high, passed=sums, total=total)


def means(values: np.ndarray, quantity: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Return the mean of a quantity in each bin and its error; NaN in empty bins. Names as for `fractions`."""
    used = np.isfinite(quantity)
    values, quantity = values[used], np.asarray(quantity, np.float64)[used]
    total = _counts(values, edges)
    with np.errstate(invalid="ignore"):
        mean = _counts(values, edges, weights=quantity) / total
        variance = np.maximum(_counts(values, edges, weights=quantity**2) / total - mean**2, 0.0)
        error = np.sqrt(variance / total)
    return _table(mean, mean - error, mean + error, total=total)


def _coarse_bins(values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return merged bins and the rows in each."""
    wide = edges[::_COARSE]
    place = np.searchsorted(wide, values, side="right") - 1
    return wide, [np.flatnonzero(place == k) for k in range(len(wide) - 1)]


def resolution_profile(values: np.ndarray, residual: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Return the robust width of residuals in (merged) bins, with statistical errors, and the median."""
    wide, rows = _coarse_bins(values, edges)
    found = [robust_width(residual[r]) for r in rows]
    width, error = np.array([f.width for f in found]), np.array([f.width_error for f in found])
    return _table(
        width, width - error, width + error, edges=wide, total=[f.n for f in found], median=[f.median for f in found]
    )


def pull_profile(values: np.ndarray, pull: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Return sigma and mean of the Gaussian fitted to pulls in (merged) bins, with errors."""
    wide, rows = _coarse_bins(values, edges)
    found = [fit_gaussian(pull[r]) for r in rows]
    sigma, error = np.array([f.sigma for f in found]), np.array([f.sigma_error for f in found])
    return _table(
        sigma,
        sigma - error,
        sigma + error,
        edges=wide,
        total=[f.n for f in found],
        mean=[f.mean for f in found],
        mean_error=[f.mean_error for f in found],
    )
