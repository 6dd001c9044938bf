"""Textbook Kalman filter and smoothers with full matrices in float64; imports nothing of the package."""

import numpy as np

N_PARAMETERS = 5
LOWER = np.tril_indices(N_PARAMETERS)


def packed(covariance):
    """Lower triangle of symmetric matrices (..., 5, 5), row by row: (..., 15)."""
    return np.asarray(covariance)[..., LOWER[0], LOWER[1]]


def unpacked(elements):
    """Symmetric matrices (..., 5, 5) of lower triangles (..., 15)."""
    elements = np.asarray(elements, dtype=float)
    full = np.zeros((*elements.shape[:-1], N_PARAMETERS, N_PARAMETERS))
    full[..., LOWER[0], LOWER[1]] = elements
    full[..., LOWER[1], LOWER[0]] = elements
    return full


def projector(dimensions):
    """Matrix H that measures loc0, or loc0 and loc1."""
    return np.eye(dimensions, N_PARAMETERS)


def predicted_chi2(residual, variance, covariance, h):
    """r^T (H C H^T + V)^-1 r."""
    s = h @ covariance @ h.T + np.diag(variance)
    return residual @ np.linalg.solve(s, residual)


def gain_update(x, covariance, local, variance, h):
    """Parameters, covariance and chi2 after a measurement: K = C H^T S^-1, C' = (I - K H) C."""
    residual = local - h @ x
    s = h @ covariance @ h.T + np.diag(variance)
    gain = np.linalg.solve(s, h @ covariance).T
    after = (np.eye(len(x)) - gain @ h) @ covariance
    return x + gain @ residual, after, predicted_chi2(residual, variance, covariance, h)


def weighted_mean(xa, ca, xb, cb):
    """Combination of two independent estimates by their information matrices, and its covariance."""
    ia, ib = np.linalg.inv(ca), np.linalg.inv(cb)
    covariance = np.linalg.inv(ia + ib)
    return covariance @ (ia @ xa + ib @ xb), covariance


def rts_smoother(x, covariance, steps):
    """Rauch-Tung-Striebel smoother.

    `steps`: (transition F, process noise Q, measured local, variance, H) of each state; F and Q lead to it from the
    state before (to the first one: from the prior). Returns smoothed means and covariances of all states.
    """
    predicted, filtered = [], []
    for transition, noise, local, variance, h in steps:
        x, covariance = transition @ x, transition @ covariance @ transition.T + noise
        predicted.append((x, covariance))
        x, covariance, _ = gain_update(x, covariance, local, variance, h)
        filtered.append((x, covariance))
    smoothed = [filtered[-1]]
    for k in range(len(steps) - 2, -1, -1):
        transition = steps[k + 1][0]
        (xf, cf), (xp, cp), (xs, cs) = filtered[k], predicted[k + 1], smoothed[0]
        gain = np.linalg.solve(cp, transition @ cf).T
        smoothed.insert(0, (xf + gain @ (xs - xp), cf + gain @ (cs - cp) @ gain.T))
    return smoothed
