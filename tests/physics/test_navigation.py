"""Navigation in float32 against exact helices crossing all 18,824 sensors of the Open Data Detector."""

import numba
import numpy as np
import pytest

from tests.batches import stack_ranges
from tests.physics.surface_visits import AHEAD, BAND, EDGE, MOST_LAYERS, MOST_VISITS, Detector, reachable
from tests.reference.geometry import random_helices, sensor_hits
from traccc_py.geometry import build_detector
from traccc_py.kernels.tracking.helix import direction_of
from traccc_py.kernels.tracking.linalg import wrap_angle
from traccc_py.kernels.tracking.navigation import (
    NONE,
    first_gaps,
    inside_margin,
    intersect_surface,
    is_on_new_leg,
    next_layer,
    surface_axes,
)
from traccc_py.kernels.tracking.state import Vector

WORLD_RADIUS = 1187.4  # [mm], largest disc + 100: farther out tracks are given up
PATH_TOLERANCE = 2e-3  # [mm]


@numba.njit
def to_surface(p, i, position, phi, theta, curvature):
    """Position and phi where the helix crosses the plane of a surface, and the margin to its edges."""
    path, loc0, loc1 = intersect_surface(p.surfaces, i, position, direction_of(phi, theta), curvature, np.float32(0))
    u, v = surface_axes(p.surfaces, i)
    s = p.surfaces[i]
    there = Vector(
        s.cx + loc0 * u.x + loc1 * v.x,
        s.cy + loc0 * u.y + loc1 * v.y,
        s.cz + loc0 * u.z + loc1 * v.z,
    )
    margin0, margin1 = inside_margin(p.surfaces, i, loc0, loc1)
    return there, wrap_angle(phi + curvature * path), min(margin0, margin1), path


@numba.njit
def visit_all(p, stacks, position, phi, theta, curvature, out_surface, out_margin, out_path):
    """Follow an exact helix from surface to surface as track finding does; returns the number of surfaces crossed."""
    at_hand = np.empty(MOST_VISITS, np.int32)
    gaps = first_gaps(p.layers, stacks, np.int32(-1), position, direction_of(phi, theta))
    total = np.float32(0)
    n = 0
    for _ in range(MOST_LAYERS):
        direction = direction_of(phi, theta)
        layer, path, crossing, gaps = next_layer(p.layers, stacks, gaps, position, direction, curvature)
        if layer == NONE:
            break
        if p.layers[layer].is_sensitive == 0:
            position, phi, total = crossing, wrap_angle(phi + curvature * path), total + path
            continue
        least = np.float32(AHEAD)
        if is_on_new_leg(position, direction, curvature, path, crossing):
            least = np.float32(AHEAD) - path
            position, phi, total = crossing, wrap_angle(phi + curvature * path), total + path
            direction = direction_of(phi, theta)
        for k in range(reachable(p, layer, crossing, position, direction, curvature, least, at_hand)):
            there, angle, margin, path = to_surface(p, at_hand[k], position, phi, theta, curvature)
            if n < MOST_VISITS and margin > -np.float32(BAND):
                position, phi, total = there, angle, total + path
                out_surface[n], out_margin[n], out_path[n] = at_hand[k], margin, total
                n += 1
    return n


@numba.njit
def visit_tracks(p, stacks, origin, phi, theta, curvature, out_surface, out_margin, out_path, out_n):
    for t in range(len(phi)):
        position = Vector(origin[t, 0], origin[t, 1], origin[t, 2])
        out_n[t] = visit_all(
            p, stacks, position, phi[t], theta[t], curvature[t], out_surface[t], out_margin[t], out_path[t]
        )


def navigate(detector, helices):
    """Visits (track, surface, margin, transverse path) of all helices, in order along each."""
    arrays = detector.arrays()
    p = Detector.of(arrays)
    n = len(helices.phi)
    theta = np.arctan2(1.0, helices.cot_theta)
    curvature = (helices.curvature * np.sin(theta)).astype(np.float32)
    shape = (n, MOST_VISITS)
    surface, count = np.zeros(shape, np.int32), np.zeros(n, np.int64)
    margin, path = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    columns = [helices.origin.astype(np.float32), helices.phi.astype(np.float32), theta.astype(np.float32), curvature]
    visit_tracks(p, stack_ranges(arrays.stacks), *columns, surface, margin, path, count)
    filled = np.arange(MOST_VISITS) < count[:, None]
    track = np.repeat(np.arange(n), count)
    return track, surface[filled], margin[filled].astype(float), path[filled] * np.sin(theta[track])


def as_float32(helices):
    """The same helices with starts and directions that float32 holds exactly."""
    theta = np.arctan2(1.0, helices.cot_theta).astype(np.float32).astype(float)
    curvature = (helices.curvature * np.sin(theta)).astype(np.float32).astype(float)
    return helices._replace(
        origin=helices.origin.astype(np.float32).astype(float),
        phi=helices.phi.astype(np.float32).astype(float),
        cot_theta=1 / np.tan(theta),
        curvature=curvature / np.sin(theta),
    )


def compare(detector, helices):
    """Compare the first turn of all helices: hits, those missed, visits that are no hits, visits out of order."""
    n = len(detector.surfaces)
    track, surface, s = sensor_hits(helices, detector.surfaces, r_max=WORLD_RADIUS)
    seen_track, seen_surface, margin, path = navigate(detector, helices)
    first_turn = (path > 0) & (path < 2 * np.pi / np.abs(helices.curvature[seen_track]))
    seen_track, seen_surface, margin, path = (a[first_turn] for a in (seen_track, seen_surface, margin, path))
    key, seen_key = track * n + surface, seen_track * n + seen_surface
    order = np.argsort(key)
    place = order[np.minimum(np.searchsorted(key[order], seen_key), len(key) - 1)]
    is_hit = key[place] == seen_key
    repeated = len(seen_key) - len(np.unique(seen_key))
    inverted = (np.diff(path) < 0) & (np.diff(seen_track) == 0)
    return {
        "hits": len(s),
        "missed": int((~np.isin(key, seen_key)).sum()),
        "not hit": int((~is_hit & (margin > EDGE)).sum()),
        "out of order": int(inverted.sum()),
        "repeated": repeated,
        "largest path difference": float(np.abs(path - s[place])[is_hit].max()),
    }


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


# Tracks: number, pT range [GeV], sigma of d0 [mm], share of hits that may be missed, and of visits that may be wrong.
# Soft tracks are lost where they turn within a layer whose reference surface they do not reach.
SAMPLES = {
    "prompt": (5000, (0.5, 10.0), 0.0, 0.0, 0.0),
    "stiff": (1000, (10.0, 1000.0), 0.0, 0.0, 0.0),
    "soft": (1500, (0.15, 0.5), 0.0, 1e-2, 2e-4),
    "displaced": (1500, (0.5, 10.0), 30.0, 3e-3, 2e-4),
}


@pytest.mark.parametrize("sample", list(SAMPLES))
def test_navigation_visits_what_helices_hit(odd, sample, record_property):
    n, pt, d0_sigma, may_miss, may_err = SAMPLES[sample]
    helices = random_helices(np.random.default_rng(20250102), n, pt, 3.5, d0_sigma)
    found = compare(odd, as_float32(helices))
    record_property("counts", str(found))
    print(sample, found)
    assert found["hits"] > 10 * n
    assert found["missed"] <= may_miss * found["hits"]
    assert found["not hit"] + found["repeated"] <= may_err * found["hits"]
    assert found["out of order"] == 0
    if may_miss == 0:  # others may cross a plane twice within one sensor
        assert found["largest path difference"] < PATH_TOLERANCE


def test_comparison_notices_missing_surfaces(odd):
    """The comparison itself must be able to fail: without the lists of the bins nothing is visited."""
    arrays = odd.arrays()
    without = build_detector("odd")
    without.__dict__["_arrays"] = arrays._replace(bin_offsets=np.zeros_like(arrays.bin_offsets))
    helices = as_float32(random_helices(np.random.default_rng(5), 20, (1.0, 10.0), 2.0))
    track, *_ = navigate(without, helices)
    assert len(track) == 0
