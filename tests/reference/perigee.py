"""The point of a helix closest to the z axis, in closed form and float64; imports nothing of the package."""

import numpy as np

PHI, THETA, QOP = 2, 3, 4


def perigee_parameters(params, start, b_z):
    """(d0, z0, phi, theta, q/p) at the point closest to the z axis of the track with `params` on plane `start`."""
    centre, u, v = start
    x, y, z = centre + params[0] * u + params[1] * v
    curvature = -params[QOP] * b_z / np.sin(params[THETA])
    middle = np.array([x - np.sin(params[PHI]) / curvature, y + np.cos(params[PHI]) / curvature])
    side = np.sign(curvature)
    phi = np.arctan2(-side * middle[0], side * middle[1])
    d0 = middle[1] * np.cos(phi) - middle[0] * np.sin(phi) - 1 / curvature
    turned = np.mod(phi - params[PHI] + np.pi, 2 * np.pi) - np.pi
    z0 = z + turned / curvature / np.tan(params[THETA])
    return np.array([d0, z0, phi, params[THETA], params[QOP]])


def perigee_jacobian(params, start, b_z):
    """Central differences of `perigee_parameters`."""
    columns = []
    for k, h in enumerate([1e-2, 1e-2, 1e-5, 1e-5, 1e-3 * abs(params[QOP])]):
        high, low = params.copy(), params.copy()
        high[k] += h
        low[k] -= h
        change = perigee_parameters(high, start, b_z) - perigee_parameters(low, start, b_z)
        change[PHI] = np.mod(change[PHI] + np.pi, 2 * np.pi) - np.pi
        columns.append(change / (2 * h))
    return np.array(columns).T
