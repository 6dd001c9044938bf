"""What becomes of the surfaces of a detray file: shapes, ids, layers, passive material."""

import json

import numba
import numpy as np
import pytest

from tests.unit.detray_documents import (
    ANNULUS,
    CONCENTRIC,
    CYLINDER,
    IDENTITY,
    PASSIVE,
    PORTAL,
    RECTANGLE,
    RING,
    SENSITIVE,
    SILICON,
    TRAPEZOID,
    WORLD_END,
    barrel,
    barrel_sensor,
    disc,
    disc_sensor,
    geometry,
    homogeneous,
    load,
    slab,
    surface,
)
from traccc_py.edm import Cells
from traccc_py.errors import GeometryError, InputDataError
from traccc_py.geometry import write_detray
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.geometry.surfaces import encode_geometry_id
from traccc_py.kernels.tracking.navigation import inside_margin
from traccc_py.pipeline.prepare_cells import prepare_cells
from traccc_py.simulation.digitization.digitization import digitization_geometry
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.transport.surface_places import is_inside
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry

STEREO = 0.02


@numba.njit
def margins(surfaces, i, loc0, loc1):
    return inside_margin(surfaces, i, loc0, loc1)


def ids(*numbers):
    return int(encode_geometry_id(*numbers))


def local_of(detector, i, position):
    offset = np.asarray(position) - detector.surfaces.centre[i]
    return offset @ detector.surfaces.u[i], offset @ detector.surfaces.v[i]


def is_hit(detector, i, position):
    """Whether kernels and simulation take a global position as inside a surface; they must agree."""
    loc0, loc1 = local_of(detector, i, position)
    margin = min(margins(detector.arrays().surfaces, i, np.float32(loc0), np.float32(loc1)))
    found = bool(is_inside(truth_geometry(detector).modules[i], loc0, loc1))
    assert found == (margin > 0)
    return found


def test_annulus_of_detrays_own_tests(tmp_path):
    """The case of detray's annulus2D test: points in the beam frame, which are 2 mm off the strip frame."""
    boundaries = [7.2, 12.0, 0.74195, 1.33970, 0.0, -2.0, 2.0]
    detector = load(tmp_path, geometry([surface(SENSITIVE, ANNULUS, boundaries, (0, 0, 50))]))
    inside = [is_hit(detector, 0, (x - 2.0, y + 2.0, 50.0)) for x, y in [(7, 7), (5, 5), (10, 3), (10, 10), (4, 10)]]
    assert inside == [True, False, False, False, False]


def annulus_contains(boundaries, x, y):
    """Detray's test in the strip frame, in its own words."""
    r_min, r_max, phi_min, phi_max, phi_average, shift_x, shift_y = boundaries
    r, phi = np.hypot(x, y), np.mod(np.arctan2(y, x) - phi_average + np.pi, 2 * np.pi) - np.pi
    s, phi_s = np.hypot(shift_x, shift_y), np.arctan2(-shift_y, -shift_x)
    beam = np.sqrt(s**2 + r**2 + 2 * s * r * np.cos(phi - phi_s))
    return (phi_min <= phi) & (phi <= phi_max) & (r_min <= beam) & (beam <= r_max)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(
    "boundaries",
    [
        [384.5, 498.2, -0.096, 0.096, 1.5707963, 1.3, -8.2],
        [384.5, 498.2, -0.05, 0.12, 0.7, 4.0, 3.0],
        [20.0, 60.0, -1.2, 1.9, -2.0, 0.0, 0.0],
    ],
)
def test_annulus_is_that_of_detray_everywhere(tmp_path, boundaries, flipped):
    angle = 0.3
    axes = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    if flipped:
        axes = axes * [[1], [-1], [-1]]
    detector = load(tmp_path, geometry([surface(SENSITIVE, ANNULUS, boundaries, (3.0, -2.0, 700), axes)]))
    assert detector.surfaces.shape.tolist() == [Shape.ANNULUS]
    rng = np.random.default_rng(1)
    phi = boundaries[4] + rng.uniform(1.2 * boundaries[2] - 0.02, 1.2 * boundaries[3] + 0.02, 2000)
    r = rng.uniform(0.9 * boundaries[0], 1.1 * boundaries[1], 2000)
    x, y = r * np.cos(phi), r * np.sin(phi)
    expected = annulus_contains(boundaries, x, y)
    assert 0.2 < expected.mean() < 0.9
    positions = np.array([3.0, -2.0, 700]) + x[:, None] * axes[0] + y[:, None] * axes[1]
    found = np.array([is_hit(detector, 0, p) for p in positions])
    assert np.count_nonzero(found != expected) <= 2  # rounding at the edges
    loc0, loc1 = np.array([local_of(detector, 0, p) for p in positions[expected]]).T
    assert np.abs(loc0).max() <= detector.surfaces.hx_min[0] <= 1.1 * np.abs(loc0).max()
    assert np.abs(loc1).max() <= detector.surfaces.hy[0] <= 1.1 * np.abs(loc1).max()


def test_annulus_margins_are_distances(tmp_path):
    boundaries = [384.5, 498.2, -0.1, 0.1, 0.0, 0.0, 0.0]
    detector = load(tmp_path, geometry([surface(SENSITIVE, ANNULUS, boundaries, (0, 0, 700))]))
    surfaces, focal = detector.arrays().surfaces, detector.arrays().surfaces["focal"][0]
    for r, phi in ((400.0, 0.0), (490.0, 0.05), (380.0, -0.09), (450.0, 0.11)):
        loc0, loc1 = np.float32(-r * np.sin(phi)), np.float32(r * np.cos(phi) - focal)
        expected = r * (0.1 - abs(phi)), min(r - 384.5, 498.2 - r)
        assert margins(surfaces, 0, loc0, loc1) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("r_min", [0.0, 30.0])
def test_sensitive_ring_around_the_beam_is_reached_from_all_sides(tmp_path, r_min):
    detector = load(tmp_path, geometry([surface(SENSITIVE, RING, (r_min, 80.0), (0, 0, z)) for z in (100.0, 150.0)]))
    # both planes are parallel: a telescope
    assert (detector.layers["kind"] == LayerKind.PLANE).all()
    rng = np.random.default_rng(2)
    for r, phi in zip(rng.uniform(0.5, 100, 200), rng.uniform(-np.pi, np.pi, 200), strict=True):
        assert is_hit(detector, 0, (r * np.cos(phi), r * np.sin(phi), 100.0)) == (r_min < r < 80)


def test_bins_of_discs_list_rings_and_annuli_wherever_tracks_hit_them(tmp_path):
    """Straight tracks from the origin to random places of the sensors; the bin where they cross the layer has them."""
    annuli = []
    for k in range(12):
        phi = 2 * np.pi * k / 12
        axes = [[np.cos(phi), np.sin(phi), 0], [-np.sin(phi), np.cos(phi), 0], [0, 0, 1]]
        annuli.append(surface(SENSITIVE, ANNULUS, [200, 300, -0.27, 0.27, 0, 2, 1], (0, 0, 800 + 4 * (k % 2)), axes))
    rings = [surface(SENSITIVE, RING, (30, 150), (0, 0, 900 + 3 * k)) for k in range(2)]
    solid = [surface(SENSITIVE, RECTANGLE, (90, 90), (1.0, 2.0, 1000))]
    detector = load(tmp_path, geometry([*annuli, *rings, *solid, *barrel(500.0)]))
    arrays = detector.arrays()
    rng = np.random.default_rng(3)
    for i in np.flatnonzero(detector.surfaces.w[:, 2] > 0.5):
        layer = detector.layers[detector.layer_of_surface[i]]
        assert layer["kind"] == LayerKind.DISC
        s = detector.surfaces[[i]]
        places = rng.uniform(-1, 1, (300, 2)) * [s.hx_min[0], s.hy[0]]
        places = [p for p in places if is_inside(truth_geometry(detector).modules[i], *p)]
        assert len(places) > 50
        for loc0, loc1 in places:
            position = (s.centre + loc0 * s.u + loc1 * s.v)[0]
            x, y, _ = position * layer["position"] / position[2]
            i_phi = int((np.arctan2(y, x) + np.pi) / (2 * np.pi) * layer["n_phi"])
            along = (np.hypot(x, y) - layer["other_min"]) / (layer["other_max"] - layer["other_min"])
            b = layer["first_bin"] + i_phi * layer["n_other"] + int(np.clip(along, 0, 0.999999) * layer["n_other"])
            assert i in arrays.bin_surfaces[arrays.bin_offsets[b] : arrays.bin_offsets[b + 1]]


def test_layers_come_from_volumes_and_gaps(tmp_path):
    """Two barrel layers in one volume, a disc of each side in others; none has Acts ids."""
    two = [*barrel(50.0), *barrel(53.0), *barrel(100.0)]
    detector = load(tmp_path, geometry([*disc(-400.0), *disc(-430.0)], two, disc(400.0)))
    kinds = detector.layers["kind"].tolist()
    assert kinds == [LayerKind.CYLINDER] * 2 + [LayerKind.DISC] * 3
    assert np.bincount(detector.layer_of_surface).tolist() == [32, 16, 16, 16, 16]
    assert detector.layers["position"][2:] == pytest.approx([-429.5, -399.5, 400.5])
    assert detector.layer_names[0] == "part 1/0"
    np.testing.assert_array_equal(detector.geometry_ids, detector.detray_ids)


def test_layers_of_different_volumes_that_interleave_are_joined(tmp_path):
    shifted = [barrel_sensor(60.0 + 1 * (k % 2), 2 * np.pi * (k + 0.5) / 16, half=(15, 20)) for k in range(16)]
    detector = load(tmp_path, geometry(shifted[::2], shifted[1::2], barrel(100.0)))
    assert np.bincount(detector.layer_of_surface).tolist() == [16, 16]


def test_acts_ids_make_layers_where_they_can(tmp_path):
    def numbered(sensors, volume, layer):
        return [s | {"source": ids(volume, layer, k + 1)} for k, s in enumerate(sensors)]

    close = numbered(barrel(50.0), 3, 2) + numbered(barrel(61.0), 3, 4)  # closer than the gap that parts layers
    detector = load(tmp_path, geometry(close))
    assert np.bincount(detector.layer_of_surface).tolist() == [16, 16]
    assert detector.geometry_ids[0] == ids(3, 2, 1)
    mixed = numbered([*barrel(50.0), *barrel(150.0), *disc(300.0)], 3, 2)  # one number for everything
    detector = load(tmp_path, geometry(mixed))
    assert np.bincount(detector.layer_of_surface).tolist() == [16, 16, 16]
    np.testing.assert_array_equal(detector.module_index(detector.detray_ids), np.arange(48))


def test_repeated_or_missing_acts_ids_give_way_to_detrays(tmp_path):
    sensors = [s | {"source": ids(1, 2, 1 + k // 2)} for k, s in enumerate(barrel(50.0))]
    detector = load(tmp_path, geometry(sensors))
    np.testing.assert_array_equal(detector.geometry_ids, detector.detray_ids)
    assert (detector.geometry_ids[0] >> np.uint64(52), detector.geometry_ids[0] & np.uint64(63)) == (0, 63)


def test_surfaces_across_layers_are_an_error(tmp_path):
    blade = surface(SENSITIVE, RECTANGLE, (5, 5), (100, 0, 0), [[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    with pytest.raises(GeometryError, match=r"has the normal \[0.0, 1.0, 0.0\], .* neither along z nor away"):
        load(tmp_path, geometry([*barrel(50.0), blade]))


@pytest.mark.parametrize(
    ("shape", "boundaries", "message"),
    [
        (CYLINDER, (50, -10, 10), r"surfaces\[16\]\.type: surface 16 \(source 7\) is a sensitive cylinder; .*curved"),
        (CONCENTRIC, (50, -10, 10), r"surfaces\[16\]\.type: .* sensitive concentric_cylinder"),
        (9, (5, 10), r"masks\[0\]\.shape: is 9 \(straw_tube\); straws, drift cells"),
        (1, (0, 0, 0, 1, 1, 1), r"masks\[0\]\.shape: is 1 \(cuboid\)"),
        (13, (1,), r"masks\[0\]\.shape: is 13; expected an integer from 0 to 12"),
    ],
)
def test_sensors_that_are_no_planes_are_an_error(tmp_path, shape, boundaries, message):
    with pytest.raises(GeometryError, match=message):
        load(tmp_path, geometry([*barrel(50.0), surface(SENSITIVE, shape, boundaries, source=7)]))


def test_passive_surfaces_and_portals_with_material_become_layers(tmp_path):
    flipped = [1, 0, 0, 0, -1, 0, 0, 0, -1]
    passive = [
        surface(PASSIVE, CYLINDER, (30, -100, 100), (0, 0, 20)),
        surface(PORTAL, CONCENTRIC, (80, -90, 90), link=WORLD_END),
        surface(PORTAL, RING, (30, 80), (0, 0, 90), flipped, link=WORLD_END),
        surface(PASSIVE, CYLINDER, (35, -100, 100)),  # no material
    ]
    material = homogeneous({0: [slab(16), slab(17, 2.0), slab(18, 3.0)]})
    detector = load(tmp_path, geometry([*barrel(50.0), *passive]), material)
    found = [(p.name, p.kind, p.position, p.extent_min, p.extent_max) for p in detector.passive]
    assert found == [
        ("part", LayerKind.CYLINDER, 30, -80, 120),
        ("part portal", LayerKind.CYLINDER, 80, -90, 90),
        ("part portal", LayerKind.DISC, 90, 30, 80),
    ]
    thickness = [p.slab.thickness_in_x0 for p in detector.passive]
    assert thickness == pytest.approx([1 / 95.7, 2 / 95.7, 3 / 95.7])
    passive_layers = detector.layers[detector.layers["is_sensitive"] == 0]
    np.testing.assert_allclose(passive_layers["thickness_in_x0"], thickness, rtol=1e-6)


def test_portals_that_coincide_count_once(tmp_path):
    """A portal of one volume, with a mask for each of two neighbours, and the neighbours' own copies."""
    long = surface(PORTAL, CONCENTRIC, (80, -100, 0), link=1)
    long["masks"].append({"shape": CONCENTRIC, "volume_link": 2, "boundaries": [80.0, 0.0, 100.0]})
    outer = [
        [surface(PORTAL, CONCENTRIC, (80, *z), link=0), *barrel(r)] for z, r in (((-100, 0), 120), ((0, 100), 200))
    ]
    material = homogeneous({0: [slab(16)], 1: [slab(0)], 2: [slab(0)]})
    detector = load(tmp_path, geometry([*barrel(50.0), long], *outer), material)
    assert [(p.extent_min, p.extent_max) for p in detector.passive] == [(-100, 100)]
    different = homogeneous({0: [slab(16)], 2: [slab(0, 2.0)]})
    detector = load(tmp_path, geometry([*barrel(50.0), long], *outer), different)
    assert [p.slab.thickness_in_x0 for p in detector.passive] == pytest.approx([1 / 95.7])


def test_portals_that_differ_by_rounding_count_once_with_the_material_that_comes_first(tmp_path):
    inner = surface(PORTAL, CONCENTRIC, (80.002, -100, 100), link=1)
    outer = surface(PORTAL, CONCENTRIC, (80.0, -100, 100), link=0)
    material = homogeneous({0: [slab(16)], 1: [slab(0, 2.0)]})
    detector = load(tmp_path, geometry([*barrel(50.0), inner], [outer, *barrel(120.0)]), material)
    assert [p.slab.thickness_in_x0 for p in detector.passive] == pytest.approx([1 / 95.7])


def test_passive_surfaces_that_coincide_all_count(tmp_path):
    """Two plates on a portal, and one beside them in their plane: muons lose what they lose in one thick plate."""
    plates = [surface(PASSIVE, RING, (20, 80), (0, 0, 100)) for _ in range(2)]
    beside = surface(PASSIVE, RING, (80, 90), (0, 0, 100))
    portal = surface(PORTAL, RING, (20, 80), (0, 0, 100), link=WORLD_END)
    behind = surface(SENSITIVE, RING, (10, 200), (0, 0, 110))
    slabs = [slab(17, 1.0), slab(18, 2.0), slab(19, 3.0), slab(20, 4.0)]
    several = geometry([*barrel(50.0), behind, *plates, beside, portal])
    detector = load(tmp_path, several, homogeneous({0: slabs}))
    found = {(round(p.position, 6), round(p.slab.thickness_in_x0 * 95.7, 6)) for p in detector.passive}
    assert found == {(100.0, 4.0), (100.01, 1.0), (100.02, 2.0), (100.0, 3.0)}
    single = load(tmp_path, geometry([*barrel(50.0), behind, plates[0]]), homogeneous({0: [slab(17, 7.0)]}))
    muons = generate_particles(ParticleGunConfig(n_particles=20, momentum=(5.0, 5.0), eta=(1.5, 1.6)), 1)
    momenta = [
        transport(d, muons, np.uint64(1), TransportConfig(scattering=False, straggling=False)).hits.momentum
        for d in (detector, single, load(tmp_path, several))
    ]
    lost, expected = (np.linalg.norm(momenta[2], axis=1) - np.linalg.norm(m, axis=1) for m in momenta[:2])
    assert lost.min() > 2e-3
    np.testing.assert_allclose(lost, expected, rtol=1e-2)


def test_tilted_cylinder_with_material_is_an_error(tmp_path):
    tilted = surface(PASSIVE, CYLINDER, (30, -10, 10), rotation=[[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    load(tmp_path, geometry([*barrel(50.0), tilted]))
    with pytest.raises(GeometryError, match=r"surfaces\[16\]\.transform: is off the z axis"):
        load(tmp_path, geometry([*barrel(50.0), tilted]), homogeneous({0: [slab(16)]}))


def test_planes_with_material_and_no_readout_join_their_layer(tmp_path):
    service = disc_sensor(100.0, 0.1, 303.0, kind=PASSIVE)
    detector = load(tmp_path, geometry([*disc(300.0), service]), homogeneous({0: [slab(16)]}))
    assert len(detector.geometry_ids) == 17
    row = int(np.flatnonzero(~detector.surfaces.is_sensitive)[0])
    record = detector.arrays().surfaces[row]
    assert (record["design"], record["layer"]) == (-1, 0)
    assert record["thickness_in_x0"] == pytest.approx(1 / 95.7)
    with pytest.raises(InputDataError, match="are not sensors"):
        detector.module_index(detector.geometry_ids[[row]])
    assert len(load(tmp_path, geometry([*disc(300.0), service])).geometry_ids) == 16  # without material: left out


def test_round_trip_of_all_shapes(tmp_path):
    """Annuli, rings, trapezoids, surfaces without readout, passive cylinders and discs."""
    axes = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    parts = [
        surface(SENSITIVE, ANNULUS, [200, 300, -0.1, 0.3, 0.2, 2, 1], (0, 0, 800), axes),
        surface(SENSITIVE, ANNULUS, [200, 300, -0.1, 0.3, 0.2, 2, 1], (0, 0, 804), IDENTITY),
        surface(SENSITIVE, RING, (30, 150), (0, 0, 900)),
        surface(SENSITIVE, TRAPEZOID, (5, 8, 20, 0.025), (0, 300, 950)),
        surface(PASSIVE, RECTANGLE, (5, 8), (0, 300, 955)),
        surface(PASSIVE, CYLINDER, (30, -100, 100)),
        surface(PASSIVE, RING, (30, 100), (0, 0, 700)),
    ]
    sources = [s | ({"source": ids(1, 1, k + 1)} if s["type"] == SENSITIVE else {}) for k, s in enumerate(parts)]
    first = load(tmp_path, geometry(sources), homogeneous({0: [slab(k, 1.0 + k) for k in range(7)]}))
    files = write_detray(first, tmp_path / "out", compress=True)
    again = load_written(files)
    assert len(again.passive) == 2
    np.testing.assert_array_equal(
        again.geometry_ids[again.surfaces.is_sensitive], first.geometry_ids[first.surfaces.is_sensitive]
    )
    order = np.lexsort(first.surfaces.centre.T), np.lexsort(again.surfaces.centre.T)
    for name in ("centre", "u", "v", "w", "shape", "hx_min", "hx_max", "hy", "slab", "outline", "is_sensitive"):
        a, b = (getattr(d.surfaces, name)[o] for d, o in zip((first, again), order, strict=True))
        np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=1e-9, atol=1e-9, err_msg=name)


def load_written(files):
    from traccc_py.geometry import read_detray

    return read_detray(files["geometry"], files["homogeneous_material"], files["surface_grids"])


def test_vacuum_and_thin_air_are_no_material(tmp_path):
    vacuum = [None, None, 0.0, 0.0, 0.0, 0.0, 3.0]
    wall = [surface(PASSIVE, CYLINDER, (r, -100, 100)) for r in (30, 31)]
    material = homogeneous({0: [slab(16, 1.0, vacuum), slab(17, 0.0, SILICON)]})
    assert load(tmp_path, geometry([*barrel(50.0), *wall]), material).passive == ()


def test_identifier_written_in_the_file_does_not_matter(tmp_path):
    document = geometry(barrel(50.0))
    expected = load(tmp_path, document).detray_ids
    for s in document["data"]["volumes"][0]["surfaces"]:
        s["identifier"] = 5
    np.testing.assert_array_equal(load(tmp_path, document).detray_ids, expected)


def test_surfaces_are_ordered_by_their_index(tmp_path):
    document = geometry(barrel(50.0))
    expected = load(tmp_path, document)
    surfaces = document["data"]["volumes"][0]["surfaces"]
    for i, s in enumerate(surfaces):
        s["index_in_coll"] = i
    surfaces.reverse()
    found = load(tmp_path, document)
    np.testing.assert_allclose(found.surfaces.centre, expected.surfaces.centre)
    assert json.dumps(found.detray_ids.tolist()) == json.dumps(expected.detray_ids.tolist())


def test_older_keys_are_understood(tmp_path):
    """A single "mask" instead of "masks", "material_slabs" instead of "surface_material"."""
    document, material = geometry(barrel(50.0)), homogeneous({0: [slab(3)]})
    expected = load(tmp_path, document, material)
    for s in document["data"]["volumes"][0]["surfaces"]:
        s["mask"] = s.pop("masks")[0]
    volume = material["data"]["volumes"][0]
    volume["material_slabs"] = volume.pop("surface_material")
    found = load(tmp_path, document, material)
    assert found.fingerprint == expected.fingerprint
    assert np.count_nonzero(found.surfaces.slab[:, 0]) == 1


def test_cells_of_annuli_need_a_polar_readout(tmp_path):
    strips = [surface(SENSITIVE, ANNULUS, [200, 300, -0.1, 0.1, 0, 0, 0], (0, 0, 800))]
    detector = load(tmp_path, geometry([*strips, *barrel(50.0)]))
    ids_of = detector.geometry_ids[np.argsort(detector.surfaces.shape)[[0, -1]]]
    none = np.zeros(2, np.int64)
    cells = Cells(ids_of, none, none, np.ones(2, np.float32), np.zeros(2, np.float32), none)
    with pytest.raises(InputDataError, match=r"cells row 1 .*an annulus or ring, whose .* is not; expected"):
        prepare_cells(cells, detector)
    with pytest.raises(GeometryError, match=r"annuli or rings, whose channels are polar.*binR, binPhi"):
        digitization_geometry(detector)
