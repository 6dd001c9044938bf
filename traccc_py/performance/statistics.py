"""Statistics for the performance: Gaussian fits to cores, robust widths, intervals, histograms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "GaussianFit",
    "RobustWidth",
    "fit_gaussian",
    "histogram",
    "robust_width",
    "summarise_p_values",
    "wilson_interval",
]

_TRUNCATION = 3.0  # |pull| below which the Gaussian is fitted
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-9
_MIN_SAMPLE = 10
_TWO_PI = 2.0 * math.pi
_ONE_SIGMA = 0.682689492137  # probability within one sigma of a Gaussian
#: Error of half the central one-sigma interval of n Gaussian values, in sigma / sqrt(n).
_WIDTH_ERROR = math.sqrt(0.5 * _ONE_SIGMA * 0.5 * (1 - _ONE_SIGMA)) * math.sqrt(_TWO_PI) * math.exp(0.5)


@dataclass(frozen=True, slots=True)
class GaussianFit:
    """A Gaussian fitted to the core of a sample, and the sample's moments."""

    n: int
    mean: float
    sigma: float
    mean_error: float
    sigma_error: float
    sample_mean: float
    rms: float  # about the sample mean, of all values
    outside: float  # fraction of values that were not fitted

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _truncated_moments(low: float, high: float) -> tuple[float, float]:
    """Return mean and variance of a standard Gaussian cut to [low, high]."""

    def density(x: float) -> float:
        return math.exp(-0.5 * x * x) / math.sqrt(_TWO_PI)

    mass = 0.5 * (math.erf(high / math.sqrt(2.0)) - math.erf(low / math.sqrt(2.0)))
    mean = (density(low) - density(high)) / mass
    return mean, 1.0 + (low * density(low) - high * density(high)) / mass - mean * mean


def fit_gaussian(values: np.ndarray, limit: float = _TRUNCATION) -> GaussianFit:
    """Fit a Gaussian to the values within +-`limit`, by maximum likelihood with the truncation taken into account.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Sample; values that are not finite count as outside.
    limit : float, optional
        Truncation.

    Returns
    -------
    GaussianFit
        Mean and sigma; NaN if fewer than ten values are within the limit.

    Notes
    -----
    For a truncated Gaussian the likelihood is largest where its mean and variance equal those of the sample; they are
    found by fixed-point iteration.
    """
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    core = finite[np.abs(finite) < limit]
    n = len(values)
    sample_mean, rms = (float(finite.mean()), float(finite.std())) if len(finite) else (math.nan, math.nan)
    outside = 1.0 - len(core) / n if n else math.nan
    if len(core) < _MIN_SAMPLE:
        return GaussianFit(n, math.nan, math.nan, math.nan, math.nan, sample_mean, rms, outside)
    core_mean, core_variance = float(core.mean()), float(core.var())
    mean, sigma = core_mean, math.sqrt(core_variance)
    for _ in range(_MAX_ITERATIONS):
        shift, shrink = _truncated_moments((-limit - mean) / sigma, (limit - mean) / sigma)
        new_sigma = min(math.sqrt(core_variance / shrink), limit)  # the sigma of a flat sample is not finite
        new_mean = core_mean - new_sigma * shift
        is_done = abs(new_mean - mean) + abs(new_sigma - sigma) < _TOLERANCE
        mean, sigma = new_mean, new_sigma
        if is_done:
            break
    root = math.sqrt(len(core))
    return GaussianFit(n, mean, sigma, sigma / root, sigma / root / math.sqrt(2.0), sample_mean, rms, outside)


def summarise_p_values(pval: np.ndarray, n_bins: int = 20) -> dict[str, Any]:
    """Return number, mean, its error and the histogram of p-values over [0, 1]."""
    values = np.asarray(pval, np.float64)
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(values, bins=n_bins, range=(0.0, 1.0))
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    error = float(values.std() / math.sqrt(n)) if n else math.nan
    return {"n": n, "mean": mean, "mean_error": error, "counts": counts.tolist(), "edges": edges.tolist()}


@dataclass(frozen=True, slots=True)
class RobustWidth:
    """Half the interval that holds the central 68.27 % of a sample: sigma for a Gaussian, whatever the tails."""

    n: int
    median: float
    width: float
    median_error: float
    width_error: float

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def robust_width(values: np.ndarray) -> RobustWidth:
    """Return median and robust width of a sample, with the statistical errors of a Gaussian sample.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Sample; values that are not finite are left out.

    Returns
    -------
    RobustWidth
        NaN if fewer than ten values are finite.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    n = len(finite)
    if n < _MIN_SAMPLE:
        return RobustWidth(n, math.nan, math.nan, math.nan, math.nan)
    low, median, high = np.quantile(finite, (0.5 * (1 - _ONE_SIGMA), 0.5, 0.5 * (1 + _ONE_SIGMA)))
    width = 0.5 * float(high - low)
    root = math.sqrt(n)
    return RobustWidth(n, float(median), width, math.sqrt(0.5 * math.pi) * width / root, _WIDTH_ERROR * width / root)


def wilson_interval(passed: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's one-sigma interval of binomial fractions; NaN where the total is 0.

    References
    ----------
    E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209, doi:10.1080/01621459.1927.10502953.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        k, n = np.asarray(passed, np.float64), np.asarray(total, np.float64)
        fraction = k / n
        centre = (fraction + 0.5 / n) / (1 + 1 / n)
        half = np.sqrt(fraction * (1 - fraction) / n + 0.25 / n**2) / (1 + 1 / n)
        return np.clip(centre - half, 0.0, fraction), np.clip(centre + half, fraction, 1.0)


def histogram(values: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """Return the histogram of the finite values: edges, counts, what is below and above, and their number."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    counts, _ = np.histogram(finite, edges)
    below, above = np.count_nonzero(finite < edges[0]), np.count_nonzero(finite > edges[-1])
    return {
        "n": len(finite),
        "edges": np.asarray(edges, np.float64).tolist(),
        "counts": counts.tolist(),
        "errors": np.sqrt(counts).tolist(),
        "below": int(below),
        "above": int(above),
    }
