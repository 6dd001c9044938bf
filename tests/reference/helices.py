"""Toy events for seeding tests: exact helices through cylinders and discs, in float64."""

from __future__ import annotations

import numpy as np

BARREL_RADII = (34.0, 70.0, 116.0, 172.0)
BARREL_HALF_LENGTH = 500.0
DISC_POSITIONS = (620.0, 720.0, 840.0, 980.0, 1120.0, 1320.0, 1520.0)
DISC_RADII = (28.0, 186.0)
FIELD = 2.0 * 0.000299792458  # GeV / (e mm)


def position_at(phi0, cot, curvature, d0, z0, s):
    """Point at transverse path length `s` of a helix; `curvature` = 1/R, positive for clockwise tracks."""
    x0, y0 = -d0 * np.sin(phi0), d0 * np.cos(phi0)
    angle = -curvature * s
    half = angle / 2
    chord = s * np.sinc(half / np.pi)
    return x0 + chord * np.cos(phi0 + half), y0 + chord * np.sin(phi0 + half), z0 + cot * s


def path_to_radius(phi0, curvature, d0, r):
    """Transverse path length at which the helix first reaches radius `r` (closed form), nan if never."""
    # Closest approach at distance d0: r^2 = d0^2 + (1 - curvature * d0 * sign) * chord^2, chord = 2/c sin(c s / 2).
    factor = 1 + curvature * d0
    chord2 = (r**2 - d0**2) / factor
    with np.errstate(invalid="ignore"):
        half = np.arcsin(curvature * np.sqrt(chord2) / 2)
        return np.where(np.abs(curvature) > 1e-12, 2 * half / curvature, np.sqrt(chord2))


def simulate(n_tracks, seed, pt=(0.5, 10.0), eta=3.0, sigma_d0=0.02, sigma_z0=55.0, smear=0.010, scatter=True):
    """Return (positions (n, 3), particle (n,), layer (n,)) of hits on the toy pixel detector, in random order.

    Multiple scattering is imitated by adding a random walk across the track, 1.5 % of a radiation length a layer.
    """
    rng = np.random.default_rng(seed)
    pt = np.exp(rng.uniform(np.log(pt[0]), np.log(pt[1]), n_tracks))
    curvature = rng.choice([-1, 1], n_tracks) * FIELD / pt
    phi0 = rng.uniform(-np.pi, np.pi, n_tracks)
    cot = np.sinh(rng.uniform(-eta, eta, n_tracks))
    d0 = rng.normal(0, sigma_d0, n_tracks)
    z0 = rng.normal(0, sigma_z0, n_tracks)
    hits = []
    for layer, r in enumerate(BARREL_RADII):
        s = path_to_radius(phi0, curvature, d0, r)
        _, _, z = position_at(phi0, cot, curvature, d0, z0, s)
        hits.append((layer, s, np.isfinite(s) & (np.abs(z) < BARREL_HALF_LENGTH)))
    for k, zd in enumerate(DISC_POSITIONS):
        for side in (-1, 1):
            with np.errstate(divide="ignore"):
                s = (side * zd - z0) / cot
            x, y, _ = position_at(phi0, cot, curvature, d0, z0, s)
            r = np.hypot(x, y)
            hits.append(
                (
                    4 + 2 * k + (side > 0),
                    s,
                    (s > 0) & (s < np.pi / np.abs(curvature)) & (r > DISC_RADII[0]) & (r < DISC_RADII[1]),
                )
            )
    layers = np.array([h[0] for h in hits])
    paths = np.stack([np.where(h[2], h[1], np.inf) for h in hits])
    return _smeared_points((phi0, cot, curvature, d0, z0), pt, layers, paths, smear, scatter, rng)


def _smeared_points(helix, pt, layers, paths, smear, scatter, rng):
    """Put hits on the helices in order of path, with scattering and measurement errors."""
    phi0, cot, curvature, d0, z0 = helix
    order = np.argsort(paths, axis=0)
    kick_r = kick_z = shift_r = shift_z = np.zeros(len(pt))
    last = np.zeros(len(pt))
    out = []
    for k in range(len(layers)):
        layer = layers[order[k]]
        s = np.take_along_axis(paths, order[k][None], 0)[0]
        ok = np.isfinite(s)
        s = np.where(ok, s, last)
        shift_r, shift_z = shift_r + kick_r * (s - last), shift_z + kick_z * (s - last)
        x, y, z = position_at(phi0, cot, curvature, d0, z0, s)
        direction = phi0 - curvature * s
        across = shift_r + rng.normal(0, smear, len(pt))
        along = shift_z + rng.normal(0, 2 * smear, len(pt))
        is_disc = layer >= len(BARREL_RADII)
        x = (
            x
            - across * np.sin(direction)
            - np.where(is_disc, along * np.cos(direction) / np.where(cot == 0, 1, cot), 0)
        )
        y = (
            y
            + across * np.cos(direction)
            - np.where(is_disc, along * np.sin(direction) / np.where(cot == 0, 1, cot), 0)
        )
        z = z + np.where(is_disc, 0, along)
        out.append(np.column_stack([x, y, z, np.arange(len(pt)), layer])[ok])
        if scatter:
            p = pt * np.sqrt(1 + cot**2)
            depth = 0.015 * np.where(is_disc, np.sqrt(1 + 1 / cot**2), np.sqrt(1 + cot**2))
            theta0 = 0.0136 / p * np.sqrt(depth) * (1 + 0.038 * np.log(depth))
            stretch = np.sqrt(1 + cot**2)
            kick_r = kick_r + np.where(ok, rng.normal(0, 1, len(pt)) * theta0 * stretch, 0)
            kick_z = kick_z + np.where(ok, rng.normal(0, 1, len(pt)) * theta0 * stretch**2, 0)
        last = s
    rows = np.concatenate(out)
    rows = rows[rng.permutation(len(rows))]
    return rows[:, :3], rows[:, 3].astype(int), rows[:, 4].astype(int)
