"""Tracks in any magnetic field, integrated in float64 by SciPy (DOP853): reference for the transport in field maps."""

import numpy as np
from scipy.integrate import solve_ivp

TESLA = 0.000299792458  # GeV / (e mm)


def integrate(field, position, direction, qop, path):
    """Return (position, direction) after `path`; field(position) in T, t' = q/p t x B."""

    def derivative(_, state):
        _, _, _, tx, ty, tz = state
        bx, by, bz = qop * TESLA * field(state[:3])
        return np.array([tx, ty, tz, ty * bz - tz * by, tz * bx - tx * bz, tx * by - ty * bx])

    start = np.concatenate([position, direction])
    # steps no longer than the cells of the maps: their field has kinks
    found = solve_ivp(derivative, (0, path), start, "DOP853", rtol=1e-10, atol=1e-9, max_step=50.0)
    return found.y[:3, -1], found.y[3:, -1]


def direction_of(phi, theta):
    return np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])


def bound_to_bound(field, params, start, end, path):
    """Parameters on the plane `end` (centre, u, v) of the track with `params` on the plane `start`."""
    centre, u0, v0 = start
    there, u1, v1 = end
    normal = np.cross(u1, v1)
    position, direction = integrate(
        field, centre + params[0] * u0 + params[1] * v0, direction_of(params[2], params[3]), params[4], path
    )
    for _ in range(3):  # Newton
        s = -(position - there) @ normal / (direction @ normal)
        position, direction = integrate(field, position, direction, params[4], s)
    x, y, z = direction
    return np.array([
        (position - there) @ u1, (position - there) @ v1, np.arctan2(y, x), np.arctan2(np.hypot(x, y), z), params[4],
    ])  # fmt: skip


STEPS = np.array([0.5, 0.5, 1e-3, 1e-3, 1e-3])  # of q/p: relative


def numerical_jacobian(field, params, start, end, path):
    """Derivatives of the parameters at `end` by those at `start`, by central differences."""
    columns = []
    for k in range(5):
        h = STEPS[k] * (abs(params[4]) if k == 4 else 1.0)
        shift = h * np.eye(5)[k]
        change = bound_to_bound(field, params + shift, start, end, path)
        change -= bound_to_bound(field, params - shift, start, end, path)
        change[2] = (change[2] + np.pi) % (2 * np.pi) - np.pi
        columns.append(change / (2 * h))
    return np.array(columns).T
