"""Helices against all sensors of a detector by brute force, in double precision; imports nothing of the package.

Transverse direction at transverse path s: phi(s) = phi_0 + k s, k the signed curvature; the transverse position is
c + (sin phi, -cos phi) / k, and z = z_0 + s cot(theta). Sensors are planes parallel or perpendicular to the z axis, so
that every crossing is a solution in closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TWO_PI = 2 * np.pi


class Helices(NamedTuple):
    """n helices in a field along z."""

    origin: np.ndarray  # (n, 3) [mm]
    phi: np.ndarray  # (n,) direction at the origin
    cot_theta: np.ndarray  # (n,)
    curvature: np.ndarray  # (n,) signed [1/mm]

    def centre(self):
        """Transverse centre of the circles, (n, 2)."""
        shift = np.stack([-np.sin(self.phi), np.cos(self.phi)], axis=1) / self.curvature[:, None]
        return self.origin[:, :2] + shift

    def at(self, track, s):
        """Positions (m, 3) of the helices `track` at transverse paths `s`."""
        k, phi = self.curvature[track], self.phi[track]
        half = k * s / 2
        chord = s * np.sinc(half / np.pi)
        x = self.origin[track, 0] + chord * np.cos(phi + half)
        y = self.origin[track, 1] + chord * np.sin(phi + half)
        return np.stack([x, y, self.origin[track, 2] + s * self.cot_theta[track]], axis=1)

    def path_to(self, track, phi):
        """Transverse path >= 0, less than one turn, at which the direction is `phi`."""
        k = self.curvature[track]
        return np.mod((phi - self.phi[track]) * np.sign(k), TWO_PI) / np.abs(k)


def random_helices(rng, n, pt, eta_max, d0_sigma=0.0, z_sigma=55.0, b_field=2.0):
    """Helices with pT uniform in log between the two values `pt` [GeV], flat eta and phi."""
    momentum = np.exp(rng.uniform(np.log(pt[0]), np.log(pt[1]), n))
    phi, eta = rng.uniform(-np.pi, np.pi, n), rng.uniform(-eta_max, eta_max, n)
    d0, z0 = rng.normal(0, d0_sigma, n), np.clip(rng.normal(0, z_sigma, n), -250, 250)
    origin = np.stack([-d0 * np.sin(phi), d0 * np.cos(phi), z0], axis=1)
    curvature = rng.choice([-1.0, 1.0], n) * 0.000299792458 * b_field / momentum
    return Helices(origin, phi, np.sinh(eta), curvature)


def _select(first, count):
    """Concatenate ranges [first, first + count): which range, and the number."""
    which = np.repeat(np.arange(len(first)), count)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + first[which]


def sensor_hits(helices, sensors, r_max=1120.0, z_max=3060.0):
    """All sensors each helix crosses on its first turn, before it leaves the world for the first time.

    `sensors` has float64 arrays centre, u, v, w (n, 3), hx_min, hx_max, hy (n,).
    Returns (track, sensor, s), in no order.
    """
    end = _end_of_world(helices, r_max, z_max)
    is_barrel = np.abs(sensors.w[:, 2]) < 1e-9
    parts = [_hits(helices, sensors, np.flatnonzero(is_barrel), _plane_paths, end)]
    parts.append(_hits(helices, sensors, np.flatnonzero(~is_barrel), _disc_paths, end))
    return tuple(np.concatenate(c) for c in zip(*parts, strict=True))


def _end_of_world(helices, r_max, z_max):
    n = len(helices.phi)
    end = np.minimum(
        TWO_PI / np.abs(helices.curvature), disc_path(helices, np.arange(n), np.sign(helices.cot_theta) * z_max)
    )
    for path in cylinder_paths(helices, np.arange(n), np.full(n, r_max)).T:
        end = np.fmin(end, path)
    return end


def _hits(helices, sensors, members, paths, end):
    """Cross each distinct plane once, then test all sensors on it."""
    plane = np.column_stack([sensors.w[members], np.sum(sensors.w * sensors.centre, axis=1)[members]])
    _, one, inverse = np.unique(np.round(plane, 6), axis=0, return_index=True, return_inverse=True)
    planes = plane[one]
    order = np.argsort(inverse.ravel(), kind="stable")
    members = members[order]
    count = np.bincount(inverse.ravel())
    first = np.cumsum(count) - count
    out = []
    for solution in paths(helices, planes):  # each (n_tracks, n_planes), nan where there is no crossing
        track, i_plane = np.nonzero(solution < end[:, None])
        s = solution[track, i_plane]
        position = helices.at(track, s)
        for some in np.array_split(np.arange(len(track)), max(1, len(track) // 50_000)):
            which, place = _select(first[i_plane[some]], count[i_plane[some]])
            row, sensor = some[which], members[place]
            offset = position[row] - sensors.centre[sensor]
            loc0, loc1 = np.sum(offset * sensors.u[sensor], 1), np.sum(offset * sensors.v[sensor], 1)
            t = loc1 / sensors.hy[sensor]
            half = sensors.hx_min[sensor] * (1 - t) / 2 + sensors.hx_max[sensor] * (1 + t) / 2
            inside = (np.abs(t) < 1) & (np.abs(loc0) < half)
            out.append((track[row[inside]], sensor[inside], s[row[inside]]))
    return tuple(np.concatenate(c) for c in zip(*out, strict=True))


def _plane_paths(helices, planes):
    centre, angle = helices.centre(), np.arctan2(planes[:, 1], planes[:, 0])
    tracks = np.arange(len(helices.phi))[:, None]
    with np.errstate(invalid="ignore"):
        a = np.arcsin(helices.curvature[:, None] * (planes[:, 3] - centre @ planes[:, :2].T))
    yield helices.path_to(tracks, angle + a)
    yield helices.path_to(tracks, angle + np.pi - a)


def _disc_paths(helices, planes):
    s = (planes[:, 3] * planes[:, 2] - helices.origin[:, 2, None]) / helices.cot_theta[:, None]
    yield np.where(s > 0, s, np.nan)


def cylinder_paths(helices, track, radius):
    """Both transverse paths of the first turn at which helices `track` cross cylinders `radius`; (m, 2), or nan."""
    c, k = helices.centre()[track], helices.curvature[track]
    distance = np.hypot(c[:, 0], c[:, 1])
    angle = np.arctan2(c[:, 1], c[:, 0])
    with np.errstate(invalid="ignore"):
        a = np.arcsin(k * (radius**2 - distance**2 - 1 / k**2) / (2 * distance))
    return np.stack([helices.path_to(track, angle + a), helices.path_to(track, angle + np.pi - a)], axis=1)


def nearest_cylinder_path(helices, track, radius, s):
    """Transverse path of the crossing with cylinders `radius` that is nearest to `s`; nan where there is none."""
    turn = (TWO_PI / np.abs(helices.curvature[track]))[:, None]
    paths = cylinder_paths(helices, track, radius)
    paths = np.concatenate([paths, paths + turn], axis=1)
    distance = np.where(np.isnan(paths), np.inf, np.abs(paths - s[:, None]))
    best = distance.argmin(1)[:, None]
    return np.take_along_axis(paths, best, 1)[:, 0]


def disc_path(helices, track, z):
    """Transverse path of the crossing with the plane at `z`."""
    return (z - helices.origin[track, 2]) / helices.cot_theta[track]
