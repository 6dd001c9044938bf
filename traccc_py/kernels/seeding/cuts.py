"""The cuts of triplet seeding as device functions, and their thresholds derived from the configuration.

References
----------
traccc v1.6.0, `core/include/traccc/seeding`. traccc's spacepoints have no position errors. Here those of a triplet's
points count, as in Acts (v45, `Core/include/Acts/Seeding/SeedFinder.ipp`), beside the scattering, in quadrature.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import SeedingConfig
from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import FOUR, ONE, TWO, ZERO
from traccc_py.units import T, highland_energy, highland_log

__all__ = [
    "DoubletLine",
    "PointXY",
    "PointVariance",
    "SeedingCuts",
    "TripletCircle",
    "dense_config",
    "doublet_is_allowed",
    "late_config",
    "linearise",
    "polar_tolerance",
    "seeding_cuts",
    "triplet_circle",
]

_SMALLEST_FIELD = 1e-9  # [GeV / (e mm)]: without field the smallest helix is very large, but finite

_FAR_AWAY = 1e6  # [mm]


class SeedingCuts(NamedTuple):
    """Thresholds as kernels use them: scalars, lengths in mm."""

    z_min: np.float32
    z_max: np.float32
    r_max: np.float32
    collision_region_min: np.float32
    collision_region_max: np.float32
    cot_theta_max: np.float32
    delta_r_min: np.float32
    delta_r_max: np.float32
    delta_z_max: np.float32
    impact_max: np.float32
    min_helix_radius2: np.float32  # [mm^2]
    min_helix_diameter2: np.float32  # [mm^2]
    impact_allowance: np.float32  # 2 R d0 - d0^2 for the smallest helix and the largest impact [mm^2]
    scattering2: np.float32  # square of the largest polar angle mismatch at theta = 90 degrees [rad^2]
    scattering2_per_curvature2: np.float32  # the same for a triplet of known curvature 1/(2 R) [rad^2 mm^2]
    scattering2_high_pt: np.float32  # the same above the highest pT considered [rad^2]
    helix_diameter2_high_pt: np.float32  # ... which is where the diameter is at least the root of this [mm^2]
    measurement2: np.float32  # square of the number of standard deviations that measurement errors may have


class PointXY(NamedTuple):
    """A position in the transverse plane [mm]."""

    x: Any
    y: Any


class PointVariance(NamedTuple):
    """Variances of a spacepoint's position [mm^2]."""

    r: Any
    z: Any


class DoubletLine(NamedTuple):
    """A doublet as seen from its middle spacepoint: slope and its error, and conformal coordinates of the partner.

    The first axis of (u, v) points from the beam line to the middle; a circle through the middle becomes a line.
    """

    cot_theta: Any
    error2: Any  # square of the largest error of cot_theta, from the measurements
    u: Any  # [1/mm]
    v: Any  # [1/mm]


class TripletCircle(NamedTuple):
    """The circle through a triplet, and whether the cuts allow it."""

    is_allowed: Any
    curvature: Any  # 1/(2 R) with sign [1/mm]
    impact: Any  # transverse impact parameter [mm]


@cache  # settings are checked each time they are made: a hundredth of a small event
def late_config(config: SeedingConfig) -> SeedingConfig:
    """Return the configuration of the search among what no track has: in all layers, above another pT."""
    min_pt = max(config.min_pt, config.late_min_pt)
    return replace(config, z_min=-_FAR_AWAY, z_max=_FAR_AWAY, r_max=_FAR_AWAY, min_pt=min_pt)


@cache
def dense_config(config: SeedingConfig) -> SeedingConfig:
    """Return that of dense events: from the middle of the collision region, as most particles come from there."""
    return replace(
        late_config(config),
        collision_region_min=max(config.collision_region_min, -config.late_collision_region),
        collision_region_max=min(config.collision_region_max, config.late_collision_region),
    )


def seeding_cuts(config: SeedingConfig, b_z: float) -> SeedingCuts:
    """Derive the thresholds from the configuration.

    Parameters
    ----------
    config : SeedingConfig
        Lengths [mm], momenta [GeV], field [T].
    b_z : float
        Field along z of the detector, used where the configuration names none [GeV / (e mm)].

    Returns
    -------
    SeedingCuts
        Scalars for kernels.
    """
    field = max(abs(b_z if config.b_field_z is None else config.b_field_z * T), _SMALLEST_FIELD)
    depth = config.rad_length_per_seed
    highland = highland_energy * math.sqrt(depth) * (1 + highland_log * math.log(depth)) if depth > 0 else 0.0
    tolerance2 = config.sigma_scattering**2
    radius = config.min_pt / field
    # 4 (highland / field)^2 / (2 R)^2 is (highland / pT)^2.
    values = {
        "min_helix_radius2": radius**2,
        "min_helix_diameter2": (2 * radius) ** 2,
        "impact_allowance": 2 * radius * config.impact_max - config.impact_max**2,
        "scattering2": tolerance2 * (highland / config.min_pt) ** 2,
        "scattering2_per_curvature2": tolerance2 * 4 * (highland / field) ** 2,
        "scattering2_high_pt": tolerance2 * (highland / config.max_pt_scattering) ** 2,
        "helix_diameter2_high_pt": (2 * config.max_pt_scattering / field) ** 2,
        "measurement2": config.sigma_measurement**2,
    }
    return SeedingCuts(**{n: scalar(values[n] if n in values else getattr(config, n)) for n in SeedingCuts._fields})


@device_function(inlined=True)
def doublet_is_allowed(cuts, inner, outer, z_at_beam_times_dr, dr, dz):
    """Return whether two spacepoints make a doublet; z_at_beam_times_dr is z(r = 0) times dr [mm^2].

    The curvature cut asks that neither circle of the smallest radius R through both points holds the beam line deeper
    than d0 inside: |c| > R - d0 for both centres c = m +- s n (m the middle of the points, n the unit normal of their
    chord, s^2 = R^2 - d^2/4). With m.m - d^2/4 = inner.outer and m.n = cross / d that is the last condition. All are
    worked out, without a branch: see `doublet_bits`.
    """
    is_near = (cuts.delta_r_min < dr) & (dr < cuts.delta_r_max) & (abs(dz) < cuts.delta_z_max)
    from_below = cuts.collision_region_min * dr < z_at_beam_times_dr
    from_above = z_at_beam_times_dr < cuts.collision_region_max * dr
    is_steep = abs(dz) < cuts.cot_theta_max * dr
    inner_outer = inner.x * outer.x + inner.y * outer.y
    is_same_side = inner_outer > ZERO  # of the beam line
    cross = inner.x * outer.y - inner.y * outer.x
    dx, dy = outer.x - inner.x, outer.y - inner.y
    d2 = dx * dx + dy * dy
    allowance = inner_outer + cuts.impact_allowance
    is_straight = (FOUR * cuts.min_helix_radius2 - d2) * cross * cross < allowance * allowance * d2
    return is_near & from_below & from_above & is_steep & is_same_side & is_straight


@device_function(inlined=True)
def linearise(cuts, direction, dx, dy, dz, side, middle, partner):
    """Return the `DoubletLine` of a partner at (dx, dy, dz) from its middle; `side` is 1 for tops, -1 for bottoms.

    `direction` points from the beam line to the middle; `middle` and `partner` are the points' `PointVariance`. The
    middle moves the slopes of bottom and top in opposite directions: in their difference its error, which is that over
    both lengths, (1 / a + 1 / b)^2, is at most 2 / a^2 + 2 / b^2, so each doublet has its part.
    """
    inverse2 = ONE / (dx * dx + dy * dy)
    cot_theta = side * dz * math.sqrt(inverse2)
    variance = partner.z + TWO * middle.z + cot_theta * cot_theta * (partner.r + TWO * middle.r)
    u = (dx * direction.x + dy * direction.y) * inverse2
    v = (dy * direction.x - dx * direction.y) * inverse2
    return DoubletLine(cot_theta, cuts.measurement2 * variance * inverse2, u, v)


@device_function(inlined=True)
def polar_tolerance(cuts, cot_theta, error2):
    """Return how much cot(theta) of a top may differ from that of its bottom, whatever the curvature.

    `error2` is the square of what their measurements allow.
    """
    return math.sqrt(cuts.scattering2 * (ONE + cot_theta * cot_theta) + error2)


@device_function(inlined=True)
def triplet_circle(cuts, middle_radius, bottom, top):
    """Return the `TripletCircle` of two doublets of one middle."""
    one_over_sin2 = ONE + bottom.cot_theta * bottom.cot_theta
    mismatch = bottom.cot_theta - top.cot_theta
    mismatch2 = mismatch * mismatch - (bottom.error2 + top.error2)  # beyond what the measurements explain
    du = top.u - bottom.u
    # v = slope u + intercept is the circle through the three points.
    slope = (top.v - bottom.v) / du
    intercept = bottom.v - slope * bottom.u
    intercept2 = intercept * intercept
    stretch2 = ONE + slope * slope
    scattering2 = cuts.scattering2_per_curvature2 * intercept2 / stretch2
    if stretch2 > cuts.helix_diameter2_high_pt * intercept2:
        scattering2 = cuts.scattering2_high_pt
    impact = abs((slope - intercept * middle_radius) * middle_radius)
    # One test of all: which of them fails is hard to guess for a processor.
    is_allowed = (mismatch2 <= cuts.scattering2 * one_over_sin2) & (du != ZERO)
    is_allowed &= (stretch2 >= intercept2 * cuts.min_helix_diameter2) & (impact <= cuts.impact_max)
    is_allowed &= mismatch2 <= scattering2 * one_over_sin2
    return TripletCircle(is_allowed, curvature=intercept / math.sqrt(stretch2), impact=impact)
