"""Triplet seeding by the plain definitions: every pair, every triplet, in float64.

Cuts take a relative `slack`: results that differ between a small positive and a small negative slack hang on rounding.
"""

from __future__ import annotations

import numpy as np

TESLA = 0.000299792458


def is_accepted(points, config):
    """Which spacepoints take part."""
    r = np.hypot(points[:, 0], points[:, 1])
    return (points[:, 2] >= config.z_min) & (points[:, 2] <= config.z_max) & (np.floor(r) < np.floor(config.r_max))


def fits_clusters(slopes, dr, dz, slack=0.0):
    """Whether directions fit the slopes (..., 4): least and largest |dz / dr|, for dz >= 0 and for dz < 0."""
    least = np.where(dz >= 0, slopes[..., 0], slopes[..., 2])
    most = np.where(dz >= 0, slopes[..., 1], slopes[..., 3])
    return (least * dr * (1 - slack) <= np.abs(dz)) & (np.abs(dz) <= most * dr * (1 + slack))


def allowed_doublets(middle, others, side, config, slack=0.0, slopes=None):
    """Mask of `others` (n, 3) that are tops (side 1) or bottoms (side -1) of `middle`.

    `slopes`: of the middle (4,) and of the others (n, 4).
    """
    up, down = 1 + slack, 1 - slack
    r, r_other = np.hypot(*middle[:2]), np.hypot(others[:, 0], others[:, 1])
    dr, dz = side * (r_other - r), side * (others[:, 2] - middle[2])
    ok = (dr > config.delta_r_min * down) & (dr < config.delta_r_max * up)
    z_dr = middle[2] * dr - r * dz
    width = config.collision_region_max - config.collision_region_min
    ok &= (z_dr > (config.collision_region_min - slack * width) * dr) & (
        z_dr < (config.collision_region_max + slack * width) * dr
    )
    ok &= (np.abs(dz) < config.cot_theta_max * dr * up) & (np.abs(dz) < config.delta_z_max * up)
    ok &= others[:, :2] @ middle[:2] > 0
    for of_point in slopes or ():
        ok &= fits_clusters(of_point, dr, dz, slack)
    return ok & _circles_miss_beam(middle, others, config, slack)


def _circles_miss_beam(middle, others, config, slack):
    """The two smallest circles through both points: neither centre is nearer to the beam than R - impact_max."""
    radius = config.min_pt / (config.b_field_z * TESLA)
    chord = others[:, :2] - middle[:2]
    d = np.hypot(chord[:, 0], chord[:, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        normal = np.column_stack([-chord[:, 1], chord[:, 0]]) / d[:, None]
        offset = np.sqrt(radius**2 - d**2 / 4)[:, None] * normal
    half_way = (others[:, :2] + middle[:2]) / 2
    nearest = np.minimum(np.hypot(*(half_way + offset).T), np.hypot(*(half_way - offset).T))
    return ~(nearest <= radius - config.impact_max * (1 + slack))


def linear_coordinates(middle, others, side):
    """cot(theta), u, v of partners."""
    delta = others - middle
    r = np.hypot(*middle[:2])
    cos, sin = middle[0] / r, middle[1] / r
    d2 = delta[:, 0] ** 2 + delta[:, 1] ** 2
    u = (delta[:, 0] * cos + delta[:, 1] * sin) / d2
    v = (delta[:, 1] * cos - delta[:, 0] * sin) / d2
    return side * delta[:, 2] / np.sqrt(d2), u, v


def slope_errors2(cot, u, v, middle, others, config):
    """Squares of what the errors of doublets may shift their cot(theta) by, twice that of the middle among them.

    `middle` (2,) and `others` (n, 2): variances of radius and z.
    """
    of_r, of_z = others[..., 0] + 2 * middle[0], others[..., 1] + 2 * middle[1]
    return config.sigma_measurement**2 * (of_z + cot**2 * of_r) * (u**2 + v**2)


def allowed_triplets(r_middle, bottom, tops, config, slack=0.0):
    """(mask, curvature, impact, pT) of the triplets of one bottom (cot, u, v, error2) with tops (arrays)."""
    up = 1 + slack
    field = config.b_field_z * TESLA
    depth = config.rad_length_per_seed
    highland = 0.0136 * np.sqrt(depth) * (1 + 0.038 * np.log(depth))
    sin2 = 1 + bottom[0] ** 2
    mismatch2 = (bottom[0] - tops[0]) ** 2
    error2 = bottom[3] + tops[3]
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (tops[2] - bottom[2]) / (tops[1] - bottom[1])
        intercept = bottom[2] - slope * bottom[1]
        diameter2 = (1 + slope**2) / intercept**2
        pt = field * np.sqrt(diameter2) / 2
        scattering2 = np.where(pt > config.max_pt_scattering, highland / config.max_pt_scattering, highland / pt) ** 2
        impact = np.abs((slope - intercept * r_middle) * r_middle)
        ok = (tops[1] != bottom[1]) & (
            mismatch2 <= ((highland / config.min_pt * config.sigma_scattering) ** 2 * sin2 + error2) * up
        )
        ok &= diameter2 * up >= (2 * config.min_pt / field) ** 2
        ok &= mismatch2 <= (scattering2 * sin2 * config.sigma_scattering**2 + error2) * up
        ok &= impact <= config.impact_max * up
        return ok, intercept / np.sqrt(1 + slope**2), impact, pt


def compatible_radii(k, radii, curvatures, config, slack=0.0):
    """Number of separate radii of other triplets that confirm triplet k, counted from the inside."""
    near = np.abs(curvatures - curvatures[k]) <= config.delta_inverse_helix_diameter * (1 + slack)
    near &= np.abs(radii - radii[k]) >= config.filter_delta_r_min * (1 - slack)
    taken = []
    for r in np.sort(radii[near]):
        if all(abs(r - t) >= config.filter_delta_r_min * (1 - slack) for t in taken):
            taken.append(r)
    return min(len(taken), config.compatible_seed_limit)


def _select(triplets, config):
    """The seeds of one middle from (weight, size2, bottom, top, r_bottom, r_top)."""
    weighed = []
    for weight, size2, bottom, top, r_bottom, r_top in triplets:
        increase = config.good_bottom_weight_increase if r_bottom > config.good_bottom_min_radius else 0.0
        if r_top < config.good_top_max_radius:
            increase = config.good_top_weight_increase
        total = weight + increase
        if not (r_bottom > config.good_bottom_min_radius and total < config.good_bottom_min_weight):
            weighed.append((-total, -size2, bottom, top, r_bottom))
    weighed.sort()
    best = weighed[: config.max_seeds_per_middle]
    kept = [
        s for k, s in enumerate(best) if k == 0 or -s[0] > config.seed_min_weight or s[4] > config.bottom_min_radius
    ]
    return [(bottom, top, -weight) for weight, _, bottom, top, _ in kept]


def seeds_of_middle(i, points, candidates, config, slack=0.0, slopes=None, variances=None):
    """Seeds [(bottom, top, weight)] of middle i among the candidates (indices)."""
    variances = np.zeros((len(points), 2)) if variances is None else variances
    both = None if slopes is None else (slopes[i], slopes[candidates])
    bottoms = candidates[allowed_doublets(points[i], points[candidates], -1, config, slack, both)]
    tops = candidates[allowed_doublets(points[i], points[candidates], 1, config, slack, both)]
    if len(bottoms) == 0 or len(tops) == 0:
        return []
    r = np.hypot(points[:, 0], points[:, 1])
    bottom_lines, top_lines = (
        (*lines, slope_errors2(*lines, variances[i], variances[others], config))
        for others, side in ((bottoms, -1), (tops, 1))
        for lines in [linear_coordinates(points[i], points[others], side)]
    )
    triplets = []
    for bottom, line in zip(bottoms, np.column_stack(bottom_lines), strict=True):
        ok, curvature, impact, _ = allowed_triplets(r[i], line, top_lines, config, slack)
        found = tops[ok]
        for k, top in enumerate(found):
            weight = -impact[ok][k] * config.impact_weight_factor
            weight += config.compatible_seed_weight * compatible_radii(k, r[found], curvature[ok], config, slack)
            size2 = np.sum(points[[bottom, top], 1:] ** 2)
            triplets.append((weight, size2, bottom, top, r[bottom], r[top]))
    return _select(triplets, config)


def find_seeds(points, event, config, slack=0.0, slopes=None, variances=None):
    """Dictionary of middle -> seeds [(bottom, top, weight)] of all events."""
    accepted = is_accepted(points, config)
    found = {}
    for i in np.flatnonzero(accepted):
        others = np.flatnonzero(accepted & (event == event[i]))
        seeds = seeds_of_middle(i, points, others, config, slack, slopes, variances)
        if seeds:
            found[int(i)] = seeds
    return found
