"""Float64 NumPy reference of helix transport, written from the equations of motion; imports nothing of the package."""

import numpy as np

PHI, THETA, QOP = 2, 3, 4


def unit_direction(phi, theta):
    """Unit vector of a direction."""
    return np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])


def helix_point(position, phi, theta, qop, b_z, path):
    """Position and phi after `path` in a field b_z [GeV/(e mm)] along z: d(phi)/ds = -q/p b_z."""
    turn = -qop * b_z
    after = phi + turn * path
    if turn == 0.0:
        return position + path * unit_direction(phi, theta), after
    radius = np.sin(theta) / turn
    step = np.array(
        [radius * (np.sin(after) - np.sin(phi)), -radius * (np.cos(after) - np.cos(phi)), path * np.cos(theta)]
    )
    return position + step, after


def cross_plane(position, phi, theta, qop, b_z, centre, normal, guess):
    """Path length at which the helix crosses a plane, by bisection-safe Newton from `guess`."""
    path = guess
    for _ in range(50):
        point, angle = helix_point(position, phi, theta, qop, b_z, path)
        step = (point - centre) @ normal / (unit_direction(angle, theta) @ normal)
        path -= step
        if abs(step) < 1e-12:
            break
    return path


def bound_to_bound(params, start, end, b_z, guess):
    """Bound parameters on plane `end` (centre, u, v) of the track with `params` on plane `start`."""
    centre, u, v = start
    position = centre + params[0] * u + params[1] * v
    there, u1, v1 = end
    path = cross_plane(position, params[PHI], params[THETA], params[QOP], b_z, there, np.cross(u1, v1), guess)
    point, phi = helix_point(position, params[PHI], params[THETA], params[QOP], b_z, path)
    return np.array([(point - there) @ u1, (point - there) @ v1, phi, params[THETA], params[QOP]])


def numerical_jacobian(params, start, end, b_z, guess):
    """Central differences of `bound_to_bound`, extrapolated once (Richardson)."""
    steps = np.array([1e-2, 1e-2, 1e-5, 1e-5, 1e-5 + 1e-4 * abs(params[QOP])])
    columns = []
    for k, step in enumerate(steps):
        estimates = []
        for h in (step, step / 2):
            high, low = params.copy(), params.copy()
            high[k] += h
            low[k] -= h
            difference = bound_to_bound(high, start, end, b_z, guess) - bound_to_bound(low, start, end, b_z, guess)
            estimates.append(difference / (2 * h))
        columns.append((4 * estimates[1] - estimates[0]) / 3)
    return np.array(columns).T
