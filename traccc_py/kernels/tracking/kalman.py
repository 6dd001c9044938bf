"""Kalman filter updates with 5x5 covariances kept as 15 numbers (lower triangle, row by row)."""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.edm.parameters import LOC0, LOC1, N_COVARIANCE, N_PARAMETERS, PHI, QOP, THETA
from traccc_py.kernels.constants import HALF, ONE, TWO, TWO_DIMENSIONS, ZERO
from traccc_py.kernels.tracking.linalg import number_as_precise_as
from traccc_py.kernels.tracking.state import BoundParameters, Covariance

__all__ = [
    "COMBINATION_SCRATCH",
    "chi2_survival",
    "combine_estimates",
    "diagonal",
    "predicted_chi2",
    "scale_diagonal",
    "update",
]

_INVERSE_SQRT_PI = scalar(1 / math.sqrt(math.pi))
_CHI2_UNDERFLOW = scalar(160)  # exp(-x/2) is no longer a normal float32

# Places in the scratch memory of `combine_estimates`, which begins with the packed matrix.
_SCALES = N_COVARIANCE
_COLUMNS_A = _SCALES + N_PARAMETERS  # those of L^-1 A, one after the other
_COLUMNS_B = _COLUMNS_A + N_PARAMETERS * N_PARAMETERS
_DIFFERENCE = _COLUMNS_B + N_PARAMETERS * N_PARAMETERS  # of the parameters
COMBINATION_SCRATCH = _DIFFERENCE + N_PARAMETERS  #: numbers that `combine_estimates` needs room for


@device_function
def predicted_chi2(residual, variance, dimensions, c):
    """Return the chi2 of a measurement residual (measured - predicted) against the prediction's covariance."""
    s = c.loc0_loc0 + variance.loc0
    chi2 = residual.loc0 * residual.loc0 / s
    if dimensions == TWO_DIMENSIONS:
        gain = c.loc1_loc0 / s
        rest = residual.loc1 - gain * residual.loc0
        chi2 = chi2 + rest * rest / (c.loc1_loc1 - gain * c.loc1_loc0 + variance.loc1)
    return chi2


@device_function
def _joseph(c_jk, k_j, k_k, c_j, c_k, s):
    """Return an element of (I - K H) C (I - K H)^T + K V K^T; c_j = C H^T, s = H C H^T + V."""
    return (c_jk - k_j * c_k) - k_k * (c_j - k_j * s)


@device_function
def _update_loc0(x, c, residual, variance):
    """Return parameters and covariance after a measurement of loc0."""
    s = c.loc0_loc0 + variance
    over = ONE / s
    gain = BoundParameters(
        loc0=c.loc0_loc0 * over,
        loc1=c.loc1_loc0 * over,
        phi=c.phi_loc0 * over,
        theta=c.theta_loc0 * over,
        qop=c.qop_loc0 * over,
    )
    keep = variance * over
    return _after_gain(x, gain, residual), Covariance(
        loc0_loc0=c.loc0_loc0 * keep,
        loc1_loc0=c.loc1_loc0 * keep,
        loc1_loc1=_joseph(c.loc1_loc1, gain.loc1, gain.loc1, c.loc1_loc0, c.loc1_loc0, s),
        phi_loc0=c.phi_loc0 * keep,
        phi_loc1=_joseph(c.phi_loc1, gain.phi, gain.loc1, c.phi_loc0, c.loc1_loc0, s),
        phi_phi=_joseph(c.phi_phi, gain.phi, gain.phi, c.phi_loc0, c.phi_loc0, s),
        theta_loc0=c.theta_loc0 * keep,
        theta_loc1=_joseph(c.theta_loc1, gain.theta, gain.loc1, c.theta_loc0, c.loc1_loc0, s),
        theta_phi=_joseph(c.theta_phi, gain.theta, gain.phi, c.theta_loc0, c.phi_loc0, s),
        theta_theta=_joseph(c.theta_theta, gain.theta, gain.theta, c.theta_loc0, c.theta_loc0, s),
        qop_loc0=c.qop_loc0 * keep,
        qop_loc1=_joseph(c.qop_loc1, gain.qop, gain.loc1, c.qop_loc0, c.loc1_loc0, s),
        qop_phi=_joseph(c.qop_phi, gain.qop, gain.phi, c.qop_loc0, c.phi_loc0, s),
        qop_theta=_joseph(c.qop_theta, gain.qop, gain.theta, c.qop_loc0, c.theta_loc0, s),
        qop_qop=_joseph(c.qop_qop, gain.qop, gain.qop, c.qop_loc0, c.qop_loc0, s),
    )


@device_function
def _after_gain(x, gain, residual):
    """Return parameters moved by gain times residual."""
    return BoundParameters(
        loc0=x.loc0 + gain.loc0 * residual,
        loc1=x.loc1 + gain.loc1 * residual,
        phi=x.phi + gain.phi * residual,
        theta=x.theta + gain.theta * residual,
        qop=x.qop + gain.qop * residual,
    )


@device_function
def _swap_loc(x, c):
    """Exchange loc0 and loc1."""
    return BoundParameters(x.loc1, x.loc0, x.phi, x.theta, x.qop), Covariance(
        loc0_loc0=c.loc1_loc1,
        loc1_loc0=c.loc1_loc0,
        loc1_loc1=c.loc0_loc0,
        phi_loc0=c.phi_loc1,
        phi_loc1=c.phi_loc0,
        phi_phi=c.phi_phi,
        theta_loc0=c.theta_loc1,
        theta_loc1=c.theta_loc0,
        theta_phi=c.theta_phi,
        theta_theta=c.theta_theta,
        qop_loc0=c.qop_loc1,
        qop_loc1=c.qop_loc0,
        qop_phi=c.qop_phi,
        qop_theta=c.qop_theta,
        qop_qop=c.qop_qop,
    )


@device_function
def update(x, c, local, variance, dimensions):
    """Return parameters, covariance and chi2 after a measurement at `local`, in Joseph form.

    The two coordinates are independent, so they are taken one after the other, which equals the joint update.
    """
    residual = local.loc0 - x.loc0
    chi2 = residual * residual / (c.loc0_loc0 + variance.loc0)
    x, c = _update_loc0(x, c, residual, variance.loc0)
    if dimensions == TWO_DIMENSIONS:
        residual = local.loc1 - x.loc1
        chi2 = chi2 + residual * residual / (c.loc1_loc1 + variance.loc1)
        x, c = _swap_loc(x, c)
        x, c = _update_loc0(x, c, residual, variance.loc1)
        x, c = _swap_loc(x, c)
    return x, c, chi2


@device_function
def diagonal(variances, zero):
    """Return the covariance of uncorrelated parameters; `zero` is 0 in their precision."""
    return Covariance(
        loc0_loc0=variances.loc0,
        loc1_loc0=zero,
        loc1_loc1=variances.loc1,
        phi_loc0=zero,
        phi_loc1=zero,
        phi_phi=variances.phi,
        theta_loc0=zero,
        theta_loc1=zero,
        theta_phi=zero,
        theta_theta=variances.theta,
        qop_loc0=zero,
        qop_loc1=zero,
        qop_phi=zero,
        qop_theta=zero,
        qop_qop=variances.qop,
    )


@device_function
def scale_diagonal(c, factor):
    """Return the diagonal of a covariance times a factor, without its correlations."""
    variances = BoundParameters(
        loc0=c.loc0_loc0 * factor,
        loc1=c.loc1_loc1 * factor,
        phi=c.phi_phi * factor,
        theta=c.theta_theta * factor,
        qop=c.qop_qop * factor,
    )
    return diagonal(variances, ZERO * c.loc0_loc0)


@device_function
def _load_scaled_sum(a, b, work):
    """Write the matrix A + B, scaled to a unit diagonal, to the start of `work`, and the scales behind it."""
    for r in range(np.int32(N_PARAMETERS)):
        d = np.int32(r * (r + 3) // 2)
        work[_SCALES + r] = ONE / math.sqrt(a[d] + b[d])
    for r in range(np.int32(N_PARAMETERS)):
        for k in range(r + 1):
            e = np.int32(r * (r + 1) // 2 + k)
            work[e] = (a[e] + b[e]) * work[_SCALES + r] * work[_SCALES + k]


@device_function
def _cholesky(work):
    """Factorise the matrix at the start of `work` in place; return False if it is not positive definite."""
    for r in range(np.int32(N_PARAMETERS)):
        for k in range(r + 1):
            e = r * (r + 1) // 2 + k
            total = work[e]
            for m in range(k):
                total = total - work[r * (r + 1) // 2 + m] * work[k * (k + 1) // 2 + m]
            if r == k:
                if not total > ZERO:
                    return False
                work[e] = math.sqrt(total)
            else:
                work[e] = total / work[k * (k + 1) // 2 + k]
    return True


@device_function
def _forward_substitute(work, at):
    """Solve L y = b in place for the 5 numbers b at work[at:at+5], scaled as the matrix was."""
    for r in range(np.int32(N_PARAMETERS)):
        total = work[at + r] * work[_SCALES + r]
        for m in range(r):
            total = total - work[r * (r + 1) // 2 + m] * work[at + m]
        work[at + r] = total / work[r * (r + 3) // 2]


@device_function
def _load_columns(c, work, at):
    """Write the five columns of a packed matrix to work[at:at+25] and solve L Y = C for them."""
    for k in range(np.int32(N_PARAMETERS)):
        for r in range(np.int32(N_PARAMETERS)):
            high = max(r, k)
            low = min(r, k)
            work[at + N_PARAMETERS * k + r] = c[high * (high + 1) // 2 + low]
        _forward_substitute(work, at + N_PARAMETERS * k)


@device_function
def combine_estimates(xa, ca, xb, cb, work):
    """Return the weighted mean of two independent estimates, its covariance, and whether it succeeded.

    With S = A + B = L L^T: mean = a + (L^-1 A)^T L^-1 (b - a), covariance = (L^-1 A)^T (L^-1 B): a product, in which
    nothing is subtracted, so it stays positive in float32. `work` has room for `COMBINATION_SCRATCH` numbers.
    """
    _load_scaled_sum(ca, cb, work)
    if not _cholesky(work):
        return xa, ca, False
    _load_columns(ca, work, np.int32(_COLUMNS_A))
    _load_columns(cb, work, np.int32(_COLUMNS_B))
    for r in range(np.int32(N_PARAMETERS)):
        work[_DIFFERENCE + r] = xb[r] - xa[r]
    _forward_substitute(work, np.int32(_DIFFERENCE))
    x = BoundParameters(
        loc0=xa.loc0 + _product(work, np.int32(LOC0), np.int32(_DIFFERENCE)),
        loc1=xa.loc1 + _product(work, np.int32(LOC1), np.int32(_DIFFERENCE)),
        phi=xa.phi + _product(work, np.int32(PHI), np.int32(_DIFFERENCE)),
        theta=xa.theta + _product(work, np.int32(THETA), np.int32(_DIFFERENCE)),
        qop=xa.qop + _product(work, np.int32(QOP), np.int32(_DIFFERENCE)),
    )
    c = Covariance(
        loc0_loc0=_symmetric(xa.loc0, work, LOC0, LOC0),
        loc1_loc0=_symmetric(xa.loc0, work, LOC1, LOC0),
        loc1_loc1=_symmetric(xa.loc0, work, LOC1, LOC1),
        phi_loc0=_symmetric(xa.loc0, work, PHI, LOC0),
        phi_loc1=_symmetric(xa.loc0, work, PHI, LOC1),
        phi_phi=_symmetric(xa.loc0, work, PHI, PHI),
        theta_loc0=_symmetric(xa.loc0, work, THETA, LOC0),
        theta_loc1=_symmetric(xa.loc0, work, THETA, LOC1),
        theta_phi=_symmetric(xa.loc0, work, THETA, PHI),
        theta_theta=_symmetric(xa.loc0, work, THETA, THETA),
        qop_loc0=_symmetric(xa.loc0, work, QOP, LOC0),
        qop_loc1=_symmetric(xa.loc0, work, QOP, LOC1),
        qop_phi=_symmetric(xa.loc0, work, QOP, PHI),
        qop_theta=_symmetric(xa.loc0, work, QOP, THETA),
        qop_qop=_symmetric(xa.loc0, work, QOP, QOP),
    )
    return x, c, True


@device_function
def _product(work, column, at):
    """Return the scalar product of column `column` of L^-1 A with the 5 numbers at work[at:]."""
    first = _COLUMNS_A + N_PARAMETERS * column
    total = work[first] * work[at]
    for m in range(np.int32(1), np.int32(N_PARAMETERS)):
        total = total + work[first + m] * work[at + m]
    return total


@device_function
def _symmetric(like, work, r, k):
    """Return element (r, k) of (L^-1 A)^T (L^-1 B), averaged with (k, r), in the type of `like`."""
    mean = HALF * (
        _product(work, np.int32(r), np.int32(_COLUMNS_B + N_PARAMETERS * k))
        + _product(work, np.int32(k), np.int32(_COLUMNS_B + N_PARAMETERS * r))
    )
    return number_as_precise_as(like, mean)


@device_function
def chi2_survival(chi2, ndf):
    """Return the probability of a larger chi2 with `ndf` (integer) degrees of freedom; 0 if ndf < 1 or chi2 < 0.

    Finite sums of the regularised incomplete gamma function Q(ndf/2, chi2/2), Abramowitz and Stegun 26.4.4, 26.4.5.
    """
    if ndf < 1 or not chi2 >= ZERO or chi2 > _CHI2_UNDERFLOW:
        return ZERO  # not `ZERO * chi2`: that is no number if chi2 is none
    zero = ZERO * chi2
    x = HALF * chi2
    decay = math.exp(-x)
    total = zero
    if ndf % 2 == 0:
        term = decay
        for k in range(ndf // 2):
            total = total + term
            term = term * x / scalar(np.int32(k + 1))
        return total
    root = math.sqrt(x)
    term = TWO * decay * root * _INVERSE_SQRT_PI
    total = math.erfc(root)
    for k in range((ndf - 1) // 2):
        total = total + term
        term = term * x / (scalar(np.int32(k + 1)) + HALF)
    return total
