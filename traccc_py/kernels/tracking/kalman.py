"""Kalman filter updates with 5x5 covariances kept as 15 numbers (lower triangle, row by row)."""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar

__all__ = ["chi2_survival", "combine_estimates", "predicted_chi2", "scale_diagonal", "update"]

_ZERO = scalar(0)
_ONE = scalar(1)
_HALF = scalar(0.5)
_TWO = scalar(2)
_INVERSE_SQRT_PI = scalar(1 / math.sqrt(math.pi))
_CHI2_UNDERFLOW = scalar(160)  # exp(-x/2) is no longer a normal float32
_TWO_DIMENSIONS = 2


@device_function
def predicted_chi2(residual0, residual1, variance0, variance1, dimensions, c):
    """Return the chi2 of a measurement residual (measured - predicted) against the prediction's covariance."""
    s0 = c[0] + variance0
    chi2 = residual0 * residual0 / s0
    if dimensions == _TWO_DIMENSIONS:
        gain = c[1] / s0
        rest = residual1 - gain * residual0
        chi2 = chi2 + rest * rest / (c[2] - gain * c[1] + variance1)
    return chi2


@device_function
def _joseph(c_jk, k_j, k_k, c_j, c_k, s):
    """Return an element of (I - K H) C (I - K H)^T + K V K^T; c_j = C H^T, s = H C H^T + V."""
    return (c_jk - k_j * c_k) - k_k * (c_j - k_j * s)


@device_function
def _update_loc0(x, c, residual, variance):
    """Return parameters and covariance after a measurement of loc0."""
    s = c[0] + variance
    over = _ONE / s
    k0, k1, k2, k3, k4 = c[0] * over, c[1] * over, c[3] * over, c[6] * over, c[10] * over
    keep = variance * over
    x = (x[0] + k0 * residual, x[1] + k1 * residual, x[2] + k2 * residual, x[3] + k3 * residual, x[4] + k4 * residual)
    return x, (
        c[0] * keep,
        c[1] * keep,
        _joseph(c[2], k1, k1, c[1], c[1], s),
        c[3] * keep,
        _joseph(c[4], k2, k1, c[3], c[1], s),
        _joseph(c[5], k2, k2, c[3], c[3], s),
        c[6] * keep,
        _joseph(c[7], k3, k1, c[6], c[1], s),
        _joseph(c[8], k3, k2, c[6], c[3], s),
        _joseph(c[9], k3, k3, c[6], c[6], s),
        c[10] * keep,
        _joseph(c[11], k4, k1, c[10], c[1], s),
        _joseph(c[12], k4, k2, c[10], c[3], s),
        _joseph(c[13], k4, k3, c[10], c[6], s),
        _joseph(c[14], k4, k4, c[10], c[10], s),
    )


@device_function
def _swap_loc(x, c):
    """Exchange loc0 and loc1."""
    return (x[1], x[0], x[2], x[3], x[4]), (
        c[2], c[1], c[0], c[4], c[3], c[5], c[7], c[6], c[8], c[9], c[11], c[10], c[12], c[13], c[14],
    )  # fmt: skip


@device_function
def update(x, c, local0, local1, variance0, variance1, dimensions):
    """Return parameters, covariance and chi2 after a measurement, in Joseph form.

    The two coordinates are independent, so they are taken one after the other, which equals the joint update.
    """
    residual = local0 - x[0]
    chi2 = residual * residual / (c[0] + variance0)
    x, c = _update_loc0(x, c, residual, variance0)
    if dimensions == _TWO_DIMENSIONS:
        residual = local1 - x[1]
        chi2 = chi2 + residual * residual / (c[2] + variance1)
        x, c = _swap_loc(x, c)
        x, c = _update_loc0(x, c, residual, variance1)
        x, c = _swap_loc(x, c)
    return x, c, chi2


@device_function
def scale_diagonal(c, factor):
    """Return the diagonal of a covariance times a factor, without its correlations."""
    zero = _ZERO * c[0]
    return (
        c[0] * factor, zero, c[2] * factor, zero, zero, c[5] * factor, zero, zero, zero, c[9] * factor,
        zero, zero, zero, zero, c[14] * factor,
    )  # fmt: skip


@device_function
def _load_scaled_sum(a, b, work):
    """Write the matrix A + B, scaled to a unit diagonal, to work[0:15] and the scales to work[15:20]."""
    for r in range(np.int32(5)):
        d = np.int32(r * (r + 3) // 2)
        work[15 + r] = _ONE / math.sqrt(a[d] + b[d])
    for r in range(np.int32(5)):
        for k in range(r + 1):
            e = np.int32(r * (r + 1) // 2 + k)
            work[e] = (a[e] + b[e]) * work[15 + r] * work[15 + k]


@device_function
def _cholesky(work):
    """Factorise work[0:15] in place; return False if it is not positive definite."""
    for r in range(np.int32(5)):
        for k in range(r + 1):
            e = r * (r + 1) // 2 + k
            total = work[e]
            for m in range(k):
                total = total - work[r * (r + 1) // 2 + m] * work[k * (k + 1) // 2 + m]
            if r == k:
                if not total > _ZERO:
                    return False
                work[e] = math.sqrt(total)
            else:
                work[e] = total / work[k * (k + 1) // 2 + k]
    return True


@device_function
def _forward_substitute(work, at):
    """Solve L y = b in place for the 5 numbers b at work[at:at+5], scaled as the matrix was."""
    for r in range(np.int32(5)):
        total = work[at + r] * work[15 + r]
        for m in range(r):
            total = total - work[r * (r + 1) // 2 + m] * work[at + m]
        work[at + r] = total / work[r * (r + 3) // 2]


@device_function
def _load_columns(c, work, at):
    """Write the five columns of a packed matrix to work[at:at+25] and solve L Y = C for them."""
    for k in range(np.int32(5)):
        for r in range(np.int32(5)):
            high = max(r, k)
            low = min(r, k)
            work[at + 5 * k + r] = c[high * (high + 1) // 2 + low]
        _forward_substitute(work, at + 5 * k)


@device_function
def combine_estimates(xa, ca, xb, cb, work):
    """Return the weighted mean of two independent estimates, its covariance, and whether it succeeded.

    With S = A + B = L L^T: mean = a + (L^-1 A)^T L^-1 (b - a), covariance = (L^-1 A)^T (L^-1 B): a product, in which
    nothing is subtracted, so it stays positive in float32. `work` has room for 75 numbers.
    """
    _load_scaled_sum(ca, cb, work)
    if not _cholesky(work):
        return xa, ca, False
    _load_columns(ca, work, np.int32(20))
    _load_columns(cb, work, np.int32(45))
    for r in range(np.int32(5)):
        work[70 + r] = xb[r] - xa[r]
    _forward_substitute(work, np.int32(70))
    x = (
        xa[0] + _product(work, np.int32(0), np.int32(70)),
        xa[1] + _product(work, np.int32(1), np.int32(70)),
        xa[2] + _product(work, np.int32(2), np.int32(70)),
        xa[3] + _product(work, np.int32(3), np.int32(70)),
        xa[4] + _product(work, np.int32(4), np.int32(70)),
    )
    c = (
        _symmetric(work, 0, 0), _symmetric(work, 1, 0), _symmetric(work, 1, 1), _symmetric(work, 2, 0),
        _symmetric(work, 2, 1), _symmetric(work, 2, 2), _symmetric(work, 3, 0), _symmetric(work, 3, 1),
        _symmetric(work, 3, 2), _symmetric(work, 3, 3), _symmetric(work, 4, 0), _symmetric(work, 4, 1),
        _symmetric(work, 4, 2), _symmetric(work, 4, 3), _symmetric(work, 4, 4),
    )  # fmt: skip
    return x, c, True


@device_function
def _product(work, column, at):
    """Return the scalar product of column `column` of L^-1 A with the 5 numbers at work[at:]."""
    first = 20 + 5 * column
    total = work[first] * work[at]
    for m in range(np.int32(1), np.int32(5)):
        total = total + work[first + m] * work[at + m]
    return total


@device_function
def _symmetric(work, r, k):
    """Return element (r, k) of (L^-1 A)^T (L^-1 B), averaged with (k, r)."""
    return _HALF * (
        _product(work, np.int32(r), np.int32(45 + 5 * k)) + _product(work, np.int32(k), np.int32(45 + 5 * r))
    )


@device_function
def chi2_survival(chi2, ndf):
    """Return the probability of a larger chi2 with `ndf` (integer) degrees of freedom; 0 if ndf < 1 or chi2 < 0.

    Finite sums of the regularised incomplete gamma function Q(ndf/2, chi2/2), Abramowitz and Stegun 26.4.4, 26.4.5.
    """
    if ndf < 1 or not chi2 >= _ZERO or chi2 > _CHI2_UNDERFLOW:
        return _ZERO  # not `_ZERO * chi2`: that is no number if chi2 is none
    zero = _ZERO * chi2
    x = _HALF * chi2
    decay = math.exp(-x)
    total = zero
    if ndf % 2 == 0:
        term = decay
        for k in range(ndf // 2):
            total = total + term
            term = term * x / scalar(np.int32(k + 1))
        return total
    root = math.sqrt(x)
    term = _TWO * decay * root * _INVERSE_SQRT_PI
    total = math.erfc(root)
    for k in range((ndf - 1) // 2):
        total = total + term
        term = term * x / (scalar(np.int32(k + 1)) + _HALF)
    return total
