"""From layer to layer: which surfaces of the next layer a branch may cross, and which of them comes first."""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import HALF, INFINITY, ONE, TWO, ZERO
from traccc_py.kernels.finding.branches import append_entry
from traccc_py.kernels.tracking.helix import direction_after, unit_vector
from traccc_py.kernels.tracking.magnetic_field import curvature_ahead, position_ahead
from traccc_py.kernels.tracking.navigation import (
    NONE,
    first_gaps,
    grid_bin,
    inside_margin,
    intersect_surface,
    is_on_new_leg,
    next_layer,
    surface_incidence,
)
from traccc_py.kernels.tracking.polar import is_polar
from traccc_py.kernels.tracking.propagation import track_curvature, transport_to_curvilinear, with_layer_material
from traccc_py.kernels.tracking.state import Branch, Counters, Navigation

__all__ = ["MAX_SURFACES_IN_BIN", "cross_layer", "first_navigation", "is_slow", "nearest_surface", "without_bit"]

MAX_SURFACES_IN_BIN = 63  #: surfaces of a grid bin are bits of an int64
# [mm]. A surface must be this far ahead: otherwise a track could alternate between two of them for ever. At its start a
# track may be this far beyond another sensor of the layer, for both may lie in one plane: that one is still tried.
_AHEAD = scalar(0.01)
_GRAZING = scalar(0.1)  # |cos| of an angle of incidence at which a straight line says little
_ROUNDING = scalar(0.1)  # [mm]


@device_function(inlined=True)
def _reach(p, track, direction, path):
    """Return an upper bound of how far from the prediction after a path length a track may be [mm]; no correlations."""
    c = track.covariance
    across = c.phi_phi * direction.sin_theta * direction.sin_theta
    spread = max(c.loc0_loc0, c.loc1_loc1) + path * path * max(across, c.theta_theta)
    bend = HALF * path * path * p.detector.field.b_z
    return p.cuts.mask_sigma * math.sqrt(TWO * (spread + bend * bend * c.qop_qop))


@device_function(inlined=True)
def _may_meet(p, i, crossing, along, curvature):
    """Return False only if a track that goes on along a straight line from a crossing is far beside surface i.

    The surfaces of a layer are near it, so hardly more than a line is needed to tell the many of a bin that are beside.
    """
    s = p.detector.surfaces[i]
    x, y, z = crossing.x - s.cx, crossing.y - s.cy, crossing.z - s.cz
    slope = along.x * s.wx + along.y * s.wy + along.z * s.wz
    if abs(slope) < _GRAZING or is_polar(p.detector.surfaces, i):
        return True
    path = -(x * s.wx + y * s.wy + z * s.wz) / slope
    x, y, z = x + path * along.x, y + path * along.y, z + path * along.z
    slack = p.cuts.mask_max + abs(curvature) * path * path + _ROUNDING  # twice what the track bends
    is_near = abs(x * s.vx + y * s.vy + z * s.vz) <= s.hy + slack
    return is_near and abs(x * s.ux + y * s.uy + z * s.uz) <= max(s.hx_min, s.hx_max) + slack


@device_function(inlined=True)
def _surfaces_ahead(p, layer, crossing, path, track, direction, curvature, least, gaps):
    """Return the `Navigation` at a crossing `path` ahead: the surfaces of its bin that the track may cross."""
    detector = p.detector
    grid = grid_bin(detector.layers, layer, crossing)
    first = detector.bin_offsets[grid]
    reach = _reach(p, track, direction, path)
    along = unit_vector(direction_after(direction, curvature, path))
    untried = np.int64(0)
    for k in range(detector.bin_offsets[grid + 1] - first):
        i = detector.bin_surfaces[first + k]
        if not _may_meet(p, i, crossing, along, curvature):
            continue
        s, loc0, loc1 = intersect_surface(detector.surfaces, i, track.position, direction, curvature, ZERO * curvature)
        margin0, margin1 = inside_margin(detector.surfaces, i, loc0, loc1)
        incidence = surface_incidence(detector.surfaces, i, direction)
        band = min(p.cuts.mask_tolerance + reach / incidence, p.cuts.mask_max)
        if s > least and margin0 > -band and margin1 > -band:
            untried = untried | (np.int64(1) << np.int64(k))
    return Navigation(gaps=gaps, bin_start=np.int32(first), untried=untried)


@device_function
def without_bit(navigation, k):
    """Return the navigation without surface k of the bin."""
    untried = navigation.untried & ~(np.int64(1) << np.int64(k))
    return Navigation(gaps=navigation.gaps, bin_start=navigation.bin_start, untried=untried)


@device_function(inlined=True)
def _without_surface(p, navigation, surface):
    """Return the navigation without one surface."""
    untried = navigation.untried
    for k in range(np.int32(MAX_SURFACES_IN_BIN)):
        if (untried >> np.int64(k)) == np.int64(0):
            break
        if p.detector.bin_surfaces[navigation.bin_start + k] == surface:
            untried = untried & ~(np.int64(1) << np.int64(k))
    return Navigation(gaps=navigation.gaps, bin_start=navigation.bin_start, untried=untried)


@device_function(inlined=True)
def first_navigation(p, surface, track, direction, alive, zero):
    """Return the `Navigation` of a track that starts on a surface: the others of its layer come first.

    `zero` is 0 in the precision of the track.
    """
    layer = p.detector.surfaces[surface].layer
    gaps = first_gaps(p.detector.layers, p.detector.stacks, layer, track.position, direction)
    curvature = track_curvature(p.detector.field, track, direction)
    ahead = _surfaces_ahead(p, layer, track.position, zero, track, direction, curvature, -_AHEAD, gaps)
    ahead = _without_surface(p, ahead, surface)
    untried = ahead.untried if alive else np.int64(0)
    return Navigation(gaps=ahead.gaps, bin_start=ahead.bin_start, untried=untried)


@device_function(inlined=True)
def nearest_surface(p, navigation, track, direction, curvature):
    """Return (place in the bin, path) of the untried surface that the track meets first."""
    untried = navigation.untried
    best = np.int32(-1)
    best_path = INFINITY * (ONE + ZERO * curvature)
    for k in range(np.int32(MAX_SURFACES_IN_BIN)):
        if (untried >> np.int64(k)) == np.int64(0):
            break
        if (untried >> np.int64(k)) & np.int64(1):
            i = p.detector.bin_surfaces[navigation.bin_start + k]
            s, _, _ = intersect_surface(p.detector.surfaces, i, track.position, direction, curvature, ZERO * curvature)
            if s < best_path or best < 0:
                best = np.int32(k)
                best_path = s
    return best, best_path


@device_function(inlined=True)
def _through_passive_layer(p, slot, branch, direction, curvature, layer, path, gaps):
    """Return the branch after the material of a passive layer, and whether it goes on."""
    track, direction = transport_to_curvilinear(branch.track, direction, curvature, path, p.detector.field)
    track, alive = with_layer_material(track, direction, p, layer, ONE)
    counters = branch.counters
    code = np.int32(-1 - p.detector.n_modules - layer)
    n_entries = append_entry(p, slot, counters.entries, code, branch.path + path)
    counters = Counters(
        entries=n_entries,
        measurements=counters.measurements,
        holes=counters.holes,
        consecutive_holes=counters.consecutive_holes,
        ndf=counters.ndf,
        last_layer=counters.last_layer,
    )
    navigation = Navigation(gaps=gaps, bin_start=np.int32(0), untried=np.int64(0))
    zero = ZERO * branch.path
    return Branch(track=track, navigation=navigation, counters=counters, chi2=branch.chi2, path=zero), alive


@device_function(inlined=True)
def is_slow(p, track, direction):
    """Return whether a track is below the momentum cuts (or not a number); it may turn thousands of times."""
    momentum = ONE / abs(track.params.qop)
    return not (momentum > p.cuts.min_p and momentum * direction.sin_theta > p.cuts.min_pt)


@device_function(inlined=True)
def cross_layer(p, slot, branch, direction, curvature):
    """Go on to the next layer: through its material if it is passive, else choose the surfaces to try.

    Returns (branch, whether it goes on).
    """
    detector, track, travelled = p.detector, branch.track, branch.path
    layer, path, crossing, gaps = next_layer(
        detector.layers, detector.stacks, branch.navigation.gaps, track.position, direction, curvature
    )
    if layer == NONE:
        return branch, False
    if detector.layers[layer].is_sensitive == 0:
        return _through_passive_layer(p, slot, branch, direction, curvature, layer, path, gaps)
    least = _AHEAD + ZERO * path
    if is_on_new_leg(track.position, direction, curvature, path, crossing):
        track, direction = transport_to_curvilinear(track, direction, curvature, path, detector.field)
        curvature = track_curvature(detector.field, track, direction)
        travelled = travelled + path
        least = least - path
        path = ZERO * path
    curvature = curvature_ahead(detector.field, track.position, direction, curvature, path, track.params.qop)
    crossing = position_ahead(detector.field, track.position, direction, curvature, path, crossing)
    ahead = _surfaces_ahead(p, layer, crossing, path, track, direction, curvature, least, gaps)
    return Branch(track=track, navigation=ahead, counters=branch.counters, chi2=branch.chi2, path=travelled), True
