"""Material maps: kernels and simulation find the slab that the file has at a place; the chain runs with them."""

import json
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from tests.unit.detray_documents import (
    ANNULUS,
    CONCENTRIC,
    CYLINDER,
    PASSIVE,
    PORTAL,
    RECTANGLE,
    RING,
    SENSITIVE,
    WORLD_END,
    axis,
    barrel,
    geometry,
    grid,
    load,
    maps,
    surface,
)
from traccc_py.data.truth import Particles
from traccc_py.geometry import build_detector, read_detray, write_detray
from traccc_py.geometry.material.maps import MaterialMap
from traccc_py.geometry.records import MapKind
from traccc_py.kernels.tracking.propagation import _layer_slab, _surface_slab
from traccc_py.kernels.tracking.state import Vector
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.surface_places import module_slab, passive_slab
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry

N_POINTS = 500
X0 = 95.7
PI = np.pi
TURNED = [[np.cos(2.5), np.sin(2.5), 0], [-np.sin(2.5), np.cos(2.5), 0], [0, 0, 1]]
FLIPPED = [[np.cos(0.4), np.sin(0.4), 0], [np.sin(0.4), -np.cos(0.4), 0], [0, 0, -1]]
ON_BARREL = [[-np.sin(1.0), np.cos(1.0), 0], [0, 0, 1], [np.cos(1.0), np.sin(1.0), 0]]
STRIPS = [200, 300, -0.3, 0.5, 0.2, 2, 1]


def rectangle(rng):
    return rng.uniform(-1.2, 1.2, (N_POINTS, 2)) * [10, 20]


def polar(low, high, phi_low=-PI, phi_high=PI):
    def draw(rng):
        r, phi = rng.uniform(low, high, N_POINTS), rng.uniform(phi_low, phi_high, N_POINTS)
        return np.stack([r * np.cos(phi), r * np.sin(phi)], axis=1)

    return draw


def r_phi(x, y):
    return np.hypot(x, y), np.arctan2(y, x)


#: Surface, type of map, axes, coordinates of local positions, local positions to try.
PLANES = {
    "rectangle": (
        surface(SENSITIVE, RECTANGLE, (10, 20), (60 * np.cos(1.0), 60 * np.sin(1.0), 5), ON_BARREL),
        1, [axis(0, 3, -10, 10), axis(1, 4, -20, 20)], lambda x, y: (x, y), rectangle,
    ),
    "annulus": (
        surface(SENSITIVE, ANNULUS, STRIPS, (1, -2, 700), TURNED),
        0, [axis(0, 4, 200, 300), axis(1, 5, -0.1, 0.7)], r_phi, polar(205, 295, -0.05, 0.65),
    ),
    "flipped annulus": (
        surface(SENSITIVE, ANNULUS, STRIPS, (1, -2, 700), FLIPPED),
        0, [axis(0, 4, 200, 300), axis(1, 5, -0.1, 0.7)], r_phi, polar(205, 295, -0.05, 0.65),
    ),
    "ring": (
        surface(SENSITIVE, RING, (20, 80), (0, 0, 700), FLIPPED),
        0, [axis(0, 4, 20, 80), axis(1, 7, -PI, PI, 2)], r_phi, polar(15, 90),
    ),
}  # fmt: skip
#: Surface, type of map, axes, coordinates of global positions ("local": r and phi of local ones).
ROUND = {
    "cylinder": (
        surface(PASSIVE, CONCENTRIC, (30, -100, 200)),
        3, [axis(0, 7, -PI, PI, 2), axis(1, 5, -100, 200)], lambda x, y, z: (np.arctan2(y, x), z),
    ),
    "moved cylinder": (
        surface(PASSIVE, CYLINDER, (30, -100, 200), (0, 0, 50)),
        4, [axis(0, 6, -30 * PI, 30 * PI, 2), axis(1, 5, -50, 250)], lambda x, y, z: (30 * np.arctan2(y, x), z),
    ),
    "half a cylinder": (
        surface(PASSIVE, CONCENTRIC, (30, -100, 200)),
        3, [axis(0, 4, 0.5, 2.5), axis(1, 5, -100, 200)], lambda x, y, z: (np.arctan2(y, x), z),
    ),
    "disc": (
        surface(PORTAL, RING, (20, 80), (0, 0, 90), TURNED, link=WORLD_END),
        0, [axis(0, 3, 20, 80), axis(1, 7, -PI, PI, 2)], "local",
    ),
    "flipped disc": (
        surface(PORTAL, RING, (20, 80), (0, 0, 90), FLIPPED, link=WORLD_END),
        0, [axis(0, 3, 20, 80), axis(1, 7, -PI, PI, 2)], "local",
    ),
}  # fmt: skip


class Tables(NamedTuple):
    surfaces: Any
    layers: Any
    material_maps: Any
    slabs: Any


@numba.njit
def surface_thickness(p, i, loc0, loc1):
    return _surface_slab(p, i, loc0, loc1).thickness_in_x0


@numba.njit
def layer_thickness(p, layer, position):
    return _layer_slab(p, layer, position).thickness_in_x0


def tables(detector):
    arrays = detector.arrays()
    return Tables(arrays.surfaces, arrays.layers, arrays.material_maps, arrays.slabs)


def thicknesses(axes):
    return np.random.default_rng(5).uniform(1, 2, [a["bins"] for a in axes])


def looked_up(axes, table, coordinates):
    """The value of the bin of each place, and how far [bins] it is from an edge between bins."""
    index, distance = [], np.full(N_POINTS, np.inf)
    for a, c in zip(axes, coordinates, strict=True):
        low, high = a["edges"]
        place = (c - low) / (high - low) * a["bins"]
        inner = (place > 0.5) & (place < a["bins"] - 0.5)
        distance = np.where(inner, np.minimum(distance, np.abs(place - np.round(place))), distance)
        if a["bounds"] == 2:
            place = np.mod(place, a["bins"])
        index.append(np.clip(np.floor(place), 0, a["bins"] - 1).astype(int))
    return table[index[0], index[1]], distance


@pytest.mark.parametrize("name", PLANES)
def test_map_of_a_sensor_is_that_of_the_file(tmp_path, name):
    sensor, kind, axes, coordinates, draw = PLANES[name]
    table = thicknesses(axes)
    document = geometry([*barrel(200.0), sensor] if name == "rectangle" else [sensor])
    owner = len(document["data"]["volumes"][0]["surfaces"]) - 1
    detector = load(tmp_path, document, maps({0: [grid(owner, kind, axes, table)]}))
    i = int(np.argmax(detector.surfaces.material_map))
    x, y = draw(np.random.default_rng(6)).T
    expected, distance = looked_up(axes, table, coordinates(x, y))
    centre, rotation = np.array(sensor["transform"]["translation"]), np.reshape(sensor["transform"]["rotation"], (3, 3))
    offset = centre + x[:, None] * rotation[0] + y[:, None] * rotation[1] - detector.surfaces.centre[i]
    loc0, loc1 = offset @ detector.surfaces.u[i], offset @ detector.surfaces.v[i]
    p, truth = tables(detector), truth_geometry(detector)
    in_kernel = [surface_thickness(p, i, np.float32(a), np.float32(b)) for a, b in zip(loc0, loc1, strict=True)]
    in_simulation = [module_slab(truth, truth.modules[i], a, b)[0] for a, b in zip(loc0, loc1, strict=True)]
    is_clear = distance > 1e-4
    assert is_clear.mean() > 0.98
    np.testing.assert_allclose(np.array(in_kernel)[is_clear], expected[is_clear] / X0, rtol=1e-6)
    np.testing.assert_allclose(np.array(in_simulation)[is_clear], expected[is_clear] / X0, rtol=1e-6)
    assert detector.surfaces.slab[i, 0] == pytest.approx(table.mean() / X0)
    # the other sensors have none
    assert np.count_nonzero(detector.surfaces.material_map) == 1


@pytest.mark.parametrize("name", ROUND)
def test_map_of_a_passive_surface_is_that_of_the_file(tmp_path, name):
    passive, kind, axes, coordinates = ROUND[name]
    table = thicknesses(axes)
    detector = load(tmp_path, geometry([*barrel(200.0), passive]), maps({0: [grid(16, kind, axes, table)]}))
    rng = np.random.default_rng(7)
    is_disc = coordinates == "local"
    phi = rng.uniform(-PI, PI, N_POINTS) if name != "half a cylinder" else rng.uniform(0, 3, N_POINTS)
    r = rng.uniform(15, 90, N_POINTS) if is_disc else np.full(N_POINTS, 30.0)
    z = np.full(N_POINTS, 90.0) if is_disc else rng.uniform(-150, 260, N_POINTS)
    x, y = r * np.cos(phi), r * np.sin(phi)
    if is_disc:
        rotation = np.reshape(passive["transform"]["rotation"], (3, 3))
        found = r_phi(*(np.stack([x, y, 0 * z]).T @ rotation.T)[:, :2].T)
    else:
        found = coordinates(x, y, z)
    expected, distance = looked_up(axes, table, found)
    layer = int(np.flatnonzero(detector.layers["material_map"])[0])
    p, truth = tables(detector), truth_geometry(detector)
    in_kernel = [layer_thickness(p, layer, Vector(*np.float32(q))) for q in np.stack([x, y, z], axis=1)]
    in_simulation = [passive_slab(truth, truth.passives[0], tuple(q))[0] for q in np.stack([x, y, z], axis=1)]
    is_clear = distance > 1e-4
    assert is_clear.mean() > 0.98
    np.testing.assert_allclose(np.array(in_kernel)[is_clear], expected[is_clear] / X0, rtol=1e-6)
    np.testing.assert_allclose(np.array(in_simulation)[is_clear], expected[is_clear] / X0, rtol=1e-6)
    assert detector.passive[0].slab.thickness_in_x0 == pytest.approx(table.mean() / X0)


def test_maps_survive_writing_and_reading(tmp_path):
    everything = [*barrel(200.0), *(row[0] for row in (PLANES["annulus"], PLANES["rectangle"]))]
    everything += [ROUND[name][0] for name in ("moved cylinder", "flipped disc")]
    rows = [PLANES["annulus"], PLANES["rectangle"], ROUND["moved cylinder"], ROUND["flipped disc"]]
    grids = [grid(16 + k, row[1], row[2], thicknesses(row[2])) for k, row in enumerate(rows)]
    first = load(tmp_path, geometry(everything), maps({0: grids}))
    files = write_detray(first, tmp_path / "out")
    second = read_detray(files["geometry"], [files["homogeneous_material"], files["material_maps"]])
    assert len(second.material_maps) == 4

    def by_content(detector):
        return sorted(detector.material_maps, key=lambda m: (m.kind, m.n_bins))

    for a, b in zip(by_content(first), by_content(second), strict=True):
        assert (a.kind, a.n_bins) == (b.kind, b.n_bins)
        np.testing.assert_allclose([a.low, a.high], [b.low, b.high], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(a.slabs, b.slabs, rtol=1e-5)


def test_turning_and_mirroring_a_map():
    slabs = np.arange(6.0)[:, None] * np.ones(4) + 1
    m = MaterialMap(MapKind.POLAR, (2, 3), (1.0, 0.0), (2.0, 3.0), slabs)
    there = m.turned(0.5, is_mirrored=True)
    assert (there.low, there.high) == ((1.0, -2.5), (2.0, 0.5))
    assert there.slabs[:, 0].tolist() == [5, 6, 3, 4, 1, 2]
    again = there.turned(0.5, is_mirrored=True)
    np.testing.assert_array_equal(again.slabs, slabs)
    assert (again.low, again.high) == (m.low, m.high)
    assert m.turned(0.25).low == (1.0, 0.25)


def test_simulated_loss_is_that_of_the_map(tmp_path):
    """A plane whose left half is ten times as thick as its right one."""
    document = write_detray(build_detector("telescope", n_planes=2, material=None), tmp_path)
    detector = read_detray(document["geometry"])
    table = np.array([[10.0], [1.0]])
    halves = maps({0: [grid(0, 1, [axis(0, 2, -100, 100), axis(1, 1, -100, 100)], table)]})
    halves["header"]["common"]["detector"] = "telescope"
    (tmp_path / "maps.json").write_text(json.dumps(halves))
    detector = read_detray(document["geometry"], tmp_path / "maps.json")
    n = 2
    particles = Particles(
        particle_id=np.arange(1, n + 1, dtype=np.uint64),
        particle_type=np.full(n, 13),
        process=np.zeros(n, np.int64),
        vertex=np.array([[0, -50.0, 0], [0, 50.0, 0]]),  # y of the world is local x
        time=np.zeros(n),
        momentum=np.tile([1.0, 0, 0], (n, 1)),
        mass=np.full(n, 0.1056583755),
        charge=np.full(n, -1.0),
    )
    config = TransportConfig(scattering=False, straggling=False)
    hits = transport(detector, particles, event_key(1, 0), config)
    loss = -hits.hits.delta_energy[hits.module_index == 0]
    assert loss[0] / loss[1] == pytest.approx(10, rel=1e-3)
    # dE/dx of a muon of 1 GeV in silicon is 1.8 MeV cm^2 / g
    assert loss[1] == pytest.approx(1.8e-3 * 2.32 * 0.1, rel=0.05)
