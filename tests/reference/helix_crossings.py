"""Crossings of helices and planes by brute force: RK4 integration and a scan for changes of sign. Slow, float64."""

from __future__ import annotations

import numpy as np


def integrate(position, direction, kappa, path, n_steps=4000):
    """Return positions (n + 1, 3) along dx/ds = d, dd/ds = kappa z x d, at n + 1 equal steps of path."""
    h = path / n_steps
    state = np.concatenate([position, direction]).astype(float)
    out = np.empty((n_steps + 1, 6))
    out[0] = state

    def derivative(y):
        return np.array([y[3], y[4], y[5], -kappa * y[4], kappa * y[3], 0.0])

    for i in range(n_steps):
        k1 = derivative(state)
        k2 = derivative(state + 0.5 * h * k1)
        k3 = derivative(state + 0.5 * h * k2)
        k4 = derivative(state + h * k3)
        state = state + h / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        out[i + 1] = state
    return out


def crossed_modules(position, direction, kappa, path, centre, u, v, half, r_max, z_max, step=0.5):
    """Return (path, module) of every crossing inside a module's bounds, in path order, by scanning in small steps.

    `half` (n, 3): half width at -hy, at +hy, hy. Crossings are interpolated linearly between steps, so that positions
    are good to step^2 kappa / 8.
    """
    w = np.cross(u, v)
    s = np.arange(0.0, path, step)
    turn = kappa * s
    dx, dy, dz = direction
    x = position[0] + (dx * np.sin(turn) - dy * (1 - np.cos(turn))) / kappa
    y = position[1] + (dx * (1 - np.cos(turn)) + dy * np.sin(turn)) / kappa
    points = np.stack([x, y, position[2] + s * dz], axis=1)
    outside = np.flatnonzero((np.hypot(x, y) > r_max) | (np.abs(points[:, 2]) > z_max))
    points = points[: outside[0]] if len(outside) else points
    found = []
    for module in range(len(centre)):
        distance = (points - centre[module]) @ w[module]
        for i in np.flatnonzero((distance[:-1] > 0) != (distance[1:] > 0)):
            fraction = distance[i] / (distance[i] - distance[i + 1])
            local = points[i] + fraction * (points[i + 1] - points[i]) - centre[module]
            a, b = local @ u[module], local @ v[module]
            hx = half[module, 0] + (half[module, 1] - half[module, 0]) * (b + half[module, 2]) / (2 * half[module, 2])
            if abs(a) <= hx and abs(b) <= half[module, 2]:
                found.append((s[i] + fraction * step, module, a, b))
    return sorted(found)
