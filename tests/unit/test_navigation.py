"""The order in which tracks meet layers, bins of crossings, and crossings of single surfaces."""

import numba
import numpy as np
import pytest

from tests.batches import stack_ranges
from tests.reference.transport import cross_plane, helix_point
from traccc_py.geometry.records import LAYER, STACK, SURFACE, LayerKind, Shape
from traccc_py.kernels.tracking.helix import direction_after, direction_of
from traccc_py.kernels.tracking.navigation import (
    NONE,
    first_gaps,
    grid_bin,
    inside_margin,
    intersect_surface,
    is_on_new_leg,
    layer_normal,
    next_layer,
)
from traccc_py.kernels.tracking.state import Vector
from traccc_py.simulation.transport.truth_helix import CYLINDER_SURFACE, PLANE_SURFACE, helix_position, next_crossing
from traccc_py.units import T

B_Z = 2 * T
STRAIGHT = 1e-9  # curvature of a track that is all but straight [1/mm]
PATH_TOLERANCE = 2e-2  # [mm]; crossings at small angles magnify the rounding of positions
FAR_OUT = (5000.0, 0.0, 1e-6)  # a cylinder nobody meets: tracks that get far outside of all layers do not come back
NO_LAYER = np.int32(-1)


@numba.njit
def gaps_of(layers, stacks, layer, position, phi, theta):
    return first_gaps(layers, stacks, layer, position, direction_of(phi, theta))


@numba.njit
def follow(layers, stacks, layer, position, phi, theta, curvature, out_layer, out_path):
    """Layers met from a position on `layer` (-1: on none), and total paths; returns how many."""
    direction = direction_of(phi, theta)
    gaps = first_gaps(layers, stacks, layer, position, direction)
    total = np.float32(0)
    for n in range(len(out_layer)):
        layer, path, position, gaps = next_layer(layers, stacks, gaps, position, direction, curvature)
        if layer == NONE:
            return n
        direction = direction_after(direction, curvature, path)
        total += path
        out_layer[n] = layer
        out_path[n] = total
    return len(out_layer)


@numba.njit
def on_new_leg(position, phi, theta, curvature, path, crossing):
    return is_on_new_leg(position, direction_of(phi, theta), curvature, path, crossing)


@numba.njit
def bin_of(layers, layer, crossing):
    return grid_bin(layers, layer, crossing)


@numba.njit
def normal_of(layers, layer, position):
    return layer_normal(layers, layer, position)


@numba.njit
def cross_surface(surfaces, i, position, phi, theta, curvature, guess):
    return intersect_surface(surfaces, i, position, direction_of(phi, theta), curvature, guess)


@numba.njit
def margin(surfaces, i, loc0, loc1):
    return inside_margin(surfaces, i, loc0, loc1)


def detector(cylinders=(), discs=(), planes=(), normal=(1.0, 0.0, 0.0)):
    """Layers and stacks: cylinders (r, z from, z to), discs (z, r from, r to), planes (offset) of one normal."""
    parts = [
        (LayerKind.CYLINDER, [(*c, 0, 0, 0) for c in cylinders]),
        (LayerKind.DISC, [(*d, 0, 0, 0) for d in discs]),
        (LayerKind.PLANE, [(offset, 0, 0, *normal) for offset in planes]),
    ]
    columns = ["position", "extent_min", "extent_max", "normal_x", "normal_y", "normal_z"]
    layers = np.zeros(sum(len(found) for _, found in parts), LAYER)
    stacks, first = [], 0
    for kind, found in parts:
        layers["kind"][first : first + len(found)] = kind
        for name, values in zip(columns, zip(*found, strict=True), strict=False):
            layers[name][first : first + len(found)] = values
        stacks.append((kind, first, len(found)))
        first += len(found)
    return layers, stack_ranges(np.array([s for s in stacks if s[2]], STACK))


def f32(values):
    return tuple(np.float32(v) for v in values)


def place(values):
    return Vector(*f32(values))


def layers_met(made, position, phi, theta, curvature=STRAIGHT, layer=NO_LAYER, most=40):
    layers, stacks = made
    out_layer, out_path = np.zeros(most, np.int32), np.zeros(most, np.float32)
    n = follow(layers, stacks, np.int32(layer), place(position), *f32((phi, theta, curvature)), out_layer, out_path)
    return out_layer[:n].tolist(), out_path[:n].astype(float)


BARREL = detector(cylinders=[(30, -500, 500), (70, -500, 500), (110, -500, 500), (170, -500, 500), (300, -500, 500)])
ENDCAP = detector(discs=[(-700, 30, 180), (-600, 30, 180), (600, 30, 180), (700, 30, 180), (800, 30, 180)])
LEVEL = np.pi / 2
R_100 = 1 / 100  # curvature of a level track with a radius of curvature of 100 mm


def test_outwards_cylinders_come_in_order():
    found, path = layers_met(BARREL, (1, 2, 3), 0.3, LEVEL)
    assert found == [0, 1, 2, 3, 4]
    assert path == pytest.approx([30, 70, 110, 170, 300], abs=2.5)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_turning_track_comes_back_through_the_same_cylinders(sign):
    found, path = layers_met(BARREL, (0, 0, 0), 1.0, LEVEL, sign * R_100, most=12)
    assert found == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3]
    chords = np.array([30, 70, 110, 170])
    out = 200 * np.arcsin(chords / 200)
    turn = 200 * np.pi
    assert path == pytest.approx(np.concatenate([out, turn - out[::-1], turn + out]), abs=PATH_TOLERANCE)


def test_inwards_the_track_turns_at_its_closest_point():
    found, path = layers_met(BARREL, (200, 50, 0), np.pi, LEVEL)
    assert found == [3, 2, 1, 1, 2, 3, 4]
    r = np.array([170, 110, 70])
    inwards = 200 - np.sqrt(r**2 - 50**2)
    outwards = 200 + np.sqrt(np.array([70, 110, 170, 300]) ** 2 - 50**2)
    assert path == pytest.approx(np.concatenate([inwards, outwards]), abs=PATH_TOLERANCE)


def test_a_track_within_the_innermost_cylinder_meets_it_once():
    assert layers_met(BARREL, (25, 0, 0), np.pi, LEVEL)[0] == [0, 1, 2, 3, 4]


def test_a_track_that_winds_between_two_cylinders_meets_none():
    # A circle of radius 10 mm around (90, 0): between 80 and 100 mm from the axis.
    assert layers_met(BARREL, (90, -10, 0), 0.0, LEVEL, 1 / 10)[0] == []


def test_a_track_outside_all_cylinders_comes_back_if_it_turns():
    made = detector(cylinders=[(30, -500, 500), (70, -500, 500)])
    assert layers_met(made, (80, 0, 0), 0.0, LEVEL, STRAIGHT)[0] == []
    assert layers_met(made, (80, 0, 0), 0.2, LEVEL, 1 / 45, most=2)[0] == [1, 1]


@pytest.mark.parametrize(("radius", "comes_back"), [(165, False), (145, True)])
def test_a_track_that_gets_far_outside_of_all_layers_does_not_come_back(radius, comes_back):
    """The world ends 100 mm outside of the outermost cylinder and disc, here at 300 mm."""
    made = detector(cylinders=[(50, -500, 500), (100, -500, 500)], discs=[(400, 0, 200)])
    assert layers_met(made, (0, 0, 0), 0.0, LEVEL, 1 / radius, most=4)[0] == ([0, 1, 1, 0] if comes_back else [0, 1])
    # The same with a slope that takes it to the disc on its way back.
    theta = np.arctan2(1.7 * np.pi * radius, 400)
    found, _ = layers_met(made, (0, 0, 0), 0.0, theta, np.sin(theta) / radius, most=4)
    assert found == ([0, 1, 2, 1] if comes_back else [0, 1])


@pytest.mark.parametrize(("turned", "is_met"), [(60, True), (70, False), (1e7, False)])
def test_a_track_that_turns_ten_times_before_a_layer_does_not_meet_it(turned, is_met):
    """It might turn ten million times, where its momentum is nonsense."""
    made = detector(discs=[(500, 0, 200)])
    path = 500 / np.cos(np.pi / 4)
    assert layers_met(made, (0, 0, 0), 0.0, np.pi / 4, turned / path)[0] == ([0] if is_met else [])


def test_a_layer_that_was_left_is_met_again_only_after_the_turn():
    start = (100.0 * np.sin(2 * 0.2), 100 * (1 - np.cos(2 * 0.2)), 0)  # on the circle, near r = 39.7
    r = np.hypot(*start[:2])
    made = detector(cylinders=[(r, -500, 500), (70, -500, 500), FAR_OUT])
    found, _ = layers_met(made, start, 2 * 0.2, LEVEL, R_100, layer=0, most=4)
    assert found == [1, 1, 0, 0]


def test_standing_on_a_layer_it_is_not_met_at_once_even_if_its_sensor_lies_elsewhere():
    for r in (69.0, 70.0, 71.0):
        assert layers_met(BARREL, (r, 0, 0), 0.1, LEVEL, layer=1)[0] == [2, 3, 4]
        assert layers_met(BARREL, (r, 0, 0), np.pi - 0.1, LEVEL, layer=1)[0] == [0, 0, 1, 2, 3, 4]
    assert layers_met(BARREL, (69, 0, 0), 0.1, LEVEL)[0] == [1, 2, 3, 4]
    assert layers_met(BARREL, (71, 0, 0), 0.1, LEVEL)[0] == [2, 3, 4]


@pytest.mark.parametrize(
    ("z", "theta", "expected"),
    [
        (0, 0.02, [2, 3, 4]),
        (0, np.pi - 0.02, [1, 0]),
        (-900, 0.02, [0, 1, 2, 3, 4]),
        (750, np.pi - 0.02, [3, 2, 1, 0]),
        (650, 0.02, [3, 4]),
        (810, 0.02, []),
    ],
)
def test_discs_come_in_order_forwards_and_backwards(z, theta, expected):
    found, path = layers_met(ENDCAP, (100, 0, z), 0.0, theta)
    assert found == expected
    assert path == pytest.approx(np.abs((ENDCAP[0]["position"][expected] - z) / np.cos(theta)), abs=PATH_TOLERANCE)


def test_discs_are_met_only_between_their_radii():
    made = detector(discs=[(600, 30, 100), (601, 100, 180), (700, 0, 10)])
    assert layers_met(made, (0, 0, 0), 0.0, np.arctan(50 / 600))[0] == [0]
    assert layers_met(made, (0, 0, 0), 0.0, np.arctan(150 / 600))[0] == [1]
    assert layers_met(made, (0, 0, 0), 0.0, 0.0)[0] == [2]


def test_a_level_track_meets_no_disc():
    made = detector(cylinders=[(30, -500, 500)], discs=[(1, 0, 500)])
    assert layers_met(made, (0, 0, 0), 0.0, LEVEL)[0] == [0]


def test_cylinders_end_and_discs_take_over():
    made = detector(
        cylinders=[(30, -100, 100), (70, -100, 100), (500, -2000, 2000)], discs=[(-150, 20, 200), (150, 20, 200)]
    )
    for sign, disc in ((1, 4), (-1, 3)):
        theta = np.arctan2(50, sign * 100)  # beyond the end of the second cylinder, at z = 140
        assert layers_met(made, (0, 0, 0), 0.5, theta)[0] == [0, disc, 2]


def test_a_cylinder_missed_beyond_its_end_on_the_way_out_may_be_met_on_the_way_back():
    made = detector(cylinders=[(150, 100, 400)])
    # Level but for a slow drift: leaves at z = 17, comes back at z = 46 ..., third and fourth crossing at z > 63 ...
    curvature = R_100 * np.sin(LEVEL - 0.1)
    _, path = layers_met(made, (0, 0, 0), 0.0, LEVEL - 0.1, curvature, most=2)
    z = path * np.cos(LEVEL - 0.1)
    assert (z > 100).all()
    one = 200 * np.arcsin(0.75) * np.tan(0.1)
    period = 200 * np.pi * np.tan(0.1)
    every = np.sort([k * period + s * one for k in range(6) for s in (1, -1)])
    assert z == pytest.approx(every[every > 100][:2], abs=PATH_TOLERANCE)


def test_two_discs_at_one_position_are_both_met():
    made = detector(discs=[(600, 30, 120), (600, 100, 180), (700, 30, 180)])
    for sign in (1, -1):
        start, theta = (600 - sign * 100), 0.0 if sign > 0 else np.pi
        found, path = layers_met(made, (110, 0, start), 0.0, theta)
        assert found[:2] == ([0, 1] if sign > 0 else [1, 0])
        assert path[:2] == pytest.approx([100, 100], abs=1e-3)


def test_a_disc_where_the_track_starts_is_met():
    assert layers_met(ENDCAP, (50, 0, 600), 0.0, 0.01)[0] == [2, 3, 4]
    assert layers_met(ENDCAP, (50, 0, 600), 0.0, 0.01, layer=2)[0] == [3, 4]
    assert layers_met(ENDCAP, (50, 0, 600), 0.0, np.pi - 0.01, layer=2)[0] == [1, 0]


def test_a_corner_of_cylinder_and_disc_is_met_once_by_each():
    made = detector(cylinders=[(100, -100, 100), (200, -500, 500)], discs=[(100, 50, 100)])
    made[0]["extent_max"][[0, 2]] += 1e-3
    found, path = layers_met(made, (0, 0, 0), 0.0, np.pi / 4)
    assert sorted(found[:2]) == [0, 2]
    assert found[2:] == [1]
    assert path[:2] == pytest.approx([100 * np.sqrt(2)] * 2, abs=1e-3)


NORMAL = np.array([np.sin(1.0) * np.cos(0.3), np.sin(1.0) * np.sin(0.3), np.cos(1.0)])


@pytest.mark.parametrize("normal", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), tuple(NORMAL)])
def test_planes_come_in_order_both_ways(normal):
    made = detector(planes=[10, 30, 50, 70], normal=normal)
    phi, theta = np.arctan2(normal[1], normal[0]), np.arccos(normal[2])
    forwards, path = layers_met(made, (0, 0, 0), phi, theta)
    assert forwards == [0, 1, 2, 3]
    assert path == pytest.approx([10, 30, 50, 70], abs=1e-3)
    backwards, path = layers_met(made, 60 * np.array(normal), phi + np.pi, np.pi - theta)
    assert backwards == [2, 1, 0]
    assert path == pytest.approx([10, 30, 50], abs=1e-3)
    assert layers_met(made, 30 * np.array(normal), phi, theta, layer=1)[0] == [2, 3]
    assert layers_met(made, 30 * np.array(normal), phi + np.pi, np.pi - theta, layer=1)[0] == [0]


def test_a_track_that_turns_before_a_plane_does_not_meet_it():
    made = detector(planes=[10, 30, 50, 150])
    assert layers_met(made, (0, 0, 0), 0.0, LEVEL, R_100)[0] == [0, 1, 2]


def test_no_layers_at_all():
    layers = np.zeros(1, LAYER)
    assert layers_met((layers, stack_ranges(np.zeros(0, STACK))), (0, 0, 0), 0.0, 1.0)[0] == []


def test_first_gaps_count_the_layers_below():
    layers, stacks = detector(cylinders=[(30, -1, 1), (70, -1, 1)], discs=[(-10, 0, 1), (10, 0, 1)], planes=[5, 6, 7])
    position = place((50, 0, 3))
    assert gaps_of(layers, stacks, NO_LAYER, position, *f32((0.0, 1.0))) == (1, 1, 3)
    assert gaps_of(layers, stacks, np.int32(1), position, *f32((0.0, 1.0))) == (2, 1, 3)
    assert gaps_of(layers, stacks, np.int32(1), position, *f32((np.pi, 1.0))) == (1, 1, 3)
    assert gaps_of(layers, stacks, np.int32(2), position, *f32((0.0, 1.0))) == (1, 1, 3)
    assert gaps_of(layers, stacks, np.int32(2), position, *f32((0.0, 2.0))) == (1, 0, 3)
    assert gaps_of(layers, stacks, np.int32(4), position, *f32((0.0, 1.0))) == (1, 1, 1)
    assert gaps_of(layers, stacks, np.int32(4), position, *f32((np.pi, 1.0))) == (1, 1, 0)


def exact_crossings(layers, helix, path_max):
    """All crossings within extents in order, and whether one of them is too close to an edge to be sure of."""
    found, is_doubtful = [], False
    for i, layer in enumerate(layers):
        is_cylinder = layer["kind"] == LayerKind.CYLINDER
        r = float(layer["position"])
        surface = (CYLINDER_SURFACE, r**2, 0.0, 0.0, 0.0) if is_cylinder else (PLANE_SURFACE, 0.0, 0.0, 1.0, r)
        low = 0.0
        while (s := next_crossing(helix, surface, low, path_max)) < path_max:
            x, y, z = helix_position(helix, s)
            along = z if is_cylinder else np.hypot(x, y)
            is_doubtful |= min(abs(along - layer["extent_min"]), abs(along - layer["extent_max"])) < 0.05
            if layer["extent_min"] <= along <= layer["extent_max"]:
                found.append((s, i))
            low = s + 1e-6
    found.sort()
    paths = np.array([s for s, _ in found])
    is_doubtful |= len(paths) > 1 and np.diff(paths).min() < 0.1
    return paths, [i for _, i in found], is_doubtful


def is_tangent(layers, helix):
    """Whether the helix turns within 0.05 mm of a cylinder."""
    x, y, _, dx, dy, _, kappa = helix
    centre = np.array([x - dy / kappa, y + dx / kappa])
    radius = np.hypot(dx, dy) / abs(kappa)
    extremes = np.abs(np.hypot(*centre) + np.array([-radius, radius]))
    cylinders = layers["position"][layers["kind"] == LayerKind.CYLINDER].astype(float)
    return np.abs(cylinders[:, None] - extremes).min(initial=np.inf) < 0.05


def test_random_helices_meet_all_layers_in_order():
    """Sixty random stacks, tracks from anywhere, many of them loopers: exactly the crossings that there are."""
    rng = np.random.default_rng(1)
    n_compared = n_crossings = 0
    for _ in range(60):
        cylinders = [(r, *np.sort(rng.uniform(-600, 600, 2))) for r in np.sort(rng.uniform(20, 500, 5))]
        discs = [(z, *np.sort(rng.uniform(0, 500, 2))) for z in np.sort(rng.uniform(-800, 800, 6))]
        made = detector([*cylinders, FAR_OUT], discs)
        for _ in range(20):
            phi, theta = rng.uniform(-np.pi, np.pi), np.arccos(rng.uniform(-0.98, 0.98))
            curvature = rng.choice([-1, 1]) * B_Z / np.exp(rng.uniform(np.log(0.1), np.log(20)))
            position = np.float32([*rng.uniform(-300, 300, 2), rng.uniform(-400, 400)])
            phi, theta, curvature = (float(v) for v in f32((phi, theta, curvature)))
            sine = np.sin(theta)
            helix = (*position.astype(float), sine * np.cos(phi), sine * np.sin(phi), np.cos(theta), curvature)
            path_max = 2000.0
            expected_path, expected, is_doubtful = exact_crossings(made[0], helix, path_max)
            if is_doubtful or is_tangent(made[0], helix):
                continue
            found, path = layers_met(made, position, phi, theta, curvature, most=60)
            within = path < path_max - 0.1
            n = int((expected_path < path_max - 0.1).sum())
            assert np.array(found)[within].tolist() == expected[:n]
            assert path[within] == pytest.approx(expected_path[:n], abs=PATH_TOLERANCE)
            n_compared += 1
            n_crossings += n
    assert n_compared > 1000
    assert n_crossings > 2000


@pytest.mark.parametrize(
    ("phi", "curvature", "path", "expected"),
    [
        (0.0, STRAIGHT, 100.0, False),
        (np.pi - 0.1, STRAIGHT, 30.0, False),  # still inwards
        (np.pi - 0.1, STRAIGHT, 100.0, True),  # past the point closest to the beam
        (0.0, R_100, 60.0, False),
        (0.0, R_100, 120.0, True),  # turned by more than a radian, still outwards
        (0.0, -R_100, 290.0, True),  # beyond the farthest point
    ],
)
def test_a_track_is_on_a_new_leg_after_it_turned(phi, curvature, path, expected):
    position = np.array([50.0, 0, 0])
    crossing, _ = helix_point(position, phi, LEVEL, -curvature / B_Z, B_Z, path)
    assert on_new_leg(place(position), *f32((phi, LEVEL, curvature, path)), place(crossing)) == expected


@pytest.fixture(scope="module")
def grids():
    """A cylinder with 8 x 5 bins from 10, a disc with 6 x 3 from 50, a plane with one, 68."""
    layers, _ = detector(cylinders=[(50, -100, 100)], discs=[(10, 20, 80)], planes=[5])
    layers["n_phi"], layers["n_other"] = (8, 6, 1), (5, 3, 1)
    layers["other_min"], layers["other_max"] = layers["extent_min"], layers["extent_max"]
    layers["first_bin"] = 10, 50, 68
    return layers


def test_grid_bins_of_points(grids):
    rng = np.random.default_rng(3)
    for _ in range(500):
        phi, z, r = rng.uniform(-np.pi, np.pi), rng.uniform(-100, 100), rng.uniform(20, 80)
        cell = int((phi + np.pi) / (2 * np.pi) * 8) * 5 + int((z + 100) / 40)
        assert bin_of(grids, 0, place((50 * np.cos(phi), 50 * np.sin(phi), z))) == 10 + cell
        cell = int((phi + np.pi) / (2 * np.pi) * 6) * 3 + int((r - 20) / 20)
        assert bin_of(grids, 1, place((r * np.cos(phi), r * np.sin(phi), 10))) == 50 + cell
        assert bin_of(grids, 2, place(rng.normal(size=3) * 100)) == 68


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("coordinates", [(0,), (2,), (0, 1, 2)])
def test_grid_bins_of_no_points_are_bins(grids, layer, number, coordinates):
    """Tracks whose parameters are no numbers may not read beyond the grid."""
    crossing = np.array([30, 40, 0], np.float32)
    crossing[list(coordinates)] = number
    first, n = (10, 40) if layer == 0 else (50, 18)
    assert first <= bin_of(grids, layer, Vector(*crossing)) < first + n


@pytest.mark.parametrize(("z", "i_other"), [(-1e4, 0), (-100, 0), (99.99, 4), (100, 4), (1e4, 4)])
def test_grid_bins_are_clamped_at_the_ends(grids, z, i_other):
    assert bin_of(grids, 0, place((50, 1, z))) == 10 + 4 * 5 + i_other


@pytest.mark.parametrize(("y", "i_phi"), [(-0.0, 0), (-1e-6, 0), (1e-6, 7), (0.0, 7)])
def test_grid_bins_where_phi_jumps(grids, y, i_phi):
    assert bin_of(grids, 0, place((-50, y, 0))) == 10 + i_phi * 5 + 2


def test_layer_normals():
    layers, _ = detector(cylinders=[(50, -100, 100)], discs=[(10, 20, 80)], planes=[5], normal=NORMAL)
    assert normal_of(layers, 0, place((-30, 40, 7))) == pytest.approx((-0.6, 0.8, 0))
    assert normal_of(layers, 1, place((-30, 40, 7))) == (0, 0, 1)
    assert normal_of(layers, 2, place((-30, 40, 7))) == pytest.approx(tuple(NORMAL))


def random_surface(rng, centre, normal):
    w = normal + rng.normal(0, 0.2, 3)
    w /= np.linalg.norm(w)
    u = np.cross(w, rng.normal(size=3))
    u /= np.linalg.norm(u)
    surface = np.zeros(1, SURFACE)
    for name, values in zip("cuvw", (centre, u, np.cross(w, u), w), strict=True):
        for axis, value in zip("xyz", values, strict=True):
            surface[name + axis] = value
    return surface


def vector(surface, name):
    return np.array([surface[name + axis][0] for axis in "xyz"], float)


def test_surfaces_are_crossed_where_the_exact_helix_crosses_them():
    rng = np.random.default_rng(4)
    for k in range(500):
        phi, theta = np.float32(rng.uniform(-np.pi, np.pi)), np.float32(rng.uniform(0.2, 2.9))
        qop = np.float32(rng.choice([-1, 1]) / np.exp(rng.uniform(np.log(0.5), np.log(100))))
        curvature = np.float32(-qop * B_Z)
        start = rng.uniform(-200, 200, 3).astype(np.float32)
        length = rng.uniform(5, 300) * (1 if k % 3 else -1)
        helix = (start.astype(float), float(phi), float(theta), -float(curvature) / B_Z, B_Z)
        target, angle = helix_point(*helix, length)
        direction = np.array([np.sin(theta) * np.cos(angle), np.sin(theta) * np.sin(angle), np.cos(theta)])
        surface = random_surface(rng, target + rng.normal(0, 2, 3), direction)
        centre, normal = vector(surface, "c"), vector(surface, "w")
        exact = cross_plane(*helix, centre, normal, length)
        local = helix_point(*helix, exact)[0] - centre
        guess = np.float32(0 if k % 2 else length)
        path, loc0, loc1 = cross_surface(surface, 0, Vector(*start), phi, theta, curvature, guess)
        assert path == pytest.approx(exact, abs=1e-3)
        assert (loc0, loc1) == pytest.approx((local @ vector(surface, "u"), local @ vector(surface, "v")), abs=5e-4)


def test_a_surface_that_the_helix_does_not_reach_is_not_crossed():
    surface = random_surface(np.random.default_rng(1), np.array([150.0, 0, 0]), np.array([1.0, 0, 0]))
    surface["hx_min"] = surface["hx_max"] = surface["hy"] = 1000.0
    for radius, is_crossed in ((100, False), (1000, True)):
        start = place((0, 0, 0)), *f32((0.0, LEVEL, 1 / radius))
        _, loc0, loc1 = cross_surface(surface, 0, *start, np.float32(0))
        assert (min(margin(surface, 0, *f32((loc0, loc1)))) > 0) == is_crossed


@pytest.mark.parametrize(
    ("shape", "loc", "expected"),
    [
        (Shape.RECTANGLE, (0, 0), (10, 20)),
        (Shape.RECTANGLE, (-9, 18), (1, 2)),
        (Shape.RECTANGLE, (12, -21), (-2, -1)),
        (Shape.TRAPEZOID, (0, -20), (10, 0)),
        (Shape.TRAPEZOID, (0, 0), (12, 20)),
        (Shape.TRAPEZOID, (-13, 20), (1, 0)),
        (Shape.TRAPEZOID, (13, -10), (-2, 10)),
    ],
)
def test_inside_margin_of_rectangles_and_trapezoids(shape, loc, expected):
    surface = np.zeros(1, SURFACE)
    surface["shape"], surface["hx_min"], surface["hx_max"], surface["hy"] = shape, 10, 14, 20
    assert margin(surface, 0, *f32(loc)) == pytest.approx(expected)
