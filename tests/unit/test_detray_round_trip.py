"""Detectors written as detray's files and read again are the same detectors."""

import itertools
import json

import numpy as np
import pytest

from tests.unit.detray_documents import PASSIVE, RING, barrel, geometry, homogeneous, load, slab, surface
from traccc_py.geometry import build_detector, read_detray, write_detray
from traccc_py.geometry.detray.volumes import Box, borders, divide_world
from traccc_py.geometry.records import LayerKind
from traccc_py.geometry.surfaces import encode_geometry_id

POSITION = 1e-6  # mm
MATERIAL = 1e-5  # relative
BUILT_IN = [
    ("odd", {}),
    ("toy", {}),
    ("toy", {"n_endcap_layers": 7}),
    ("toy", {"material": None}),
    ("telescope", {}),
    ("telescope", {"axis": "z", "n_planes": 4}),
]


def again(detector, folder, **options):
    files = write_detray(detector, folder, **options)
    materials = [files[tag] for tag in ("homogeneous_material", "material_maps") if tag in files]
    return read_detray(
        files["geometry"],
        materials,
        files["surface_grids"],
        digitization=files["digitization"],
        conditions=files.get("conditions"),
        b_field_z=detector.b_field_z,
    )


def assert_same(found, expected):
    for name in ("geometry_ids", "layer_of_surface", "layer_names", "design_names", "design_of_surface", "name"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name in ("centre", "u", "v", "w", "hx_min", "hx_max", "hy"):
        np.testing.assert_allclose(
            getattr(found.surfaces, name), getattr(expected.surfaces, name), rtol=0, atol=POSITION, err_msg=name
        )
    np.testing.assert_allclose(found.surfaces.slab, expected.surfaces.slab, rtol=MATERIAL)
    a, b = found.arrays(), expected.arrays()
    for name in a.layers.dtype.names:
        np.testing.assert_allclose(a.layers[name], b.layers[name], rtol=MATERIAL, atol=POSITION, err_msg=name)
    for name in ("stacks", "bin_offsets", "bin_surfaces", "designs", "variances", "translations"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize(("name", "options"), BUILT_IN)
def test_built_in_detectors_survive(tmp_path, name, options):
    detector = build_detector(name, **options)
    first = again(detector, tmp_path, compress=name != "odd")
    assert_same(first, detector)
    assert len(first.passive) == len(detector.passive)
    if name != "odd":  # takes a second or two each time
        assert_same(again(first, tmp_path), detector)


def with_sources(volumes):
    """Barrels with Acts ids: (radius, Acts volume of sensor k)."""
    found = []
    for radius, volume_of in volumes:
        sensors = barrel(radius)
        for k, s in enumerate(sensors):
            s["source"] = int(encode_geometry_id(volume_of(k), 2, k + 1))
        found.append(sensors)
    return found


@pytest.mark.parametrize(("name", "options"), BUILT_IN)
def test_detray_numbers_sensors_in_the_order_of_their_acts_ids(tmp_path, name, options):
    """traccc's CPU programs leave measurements in the order of Acts ids, and find those of a surface by binary search.

    The search goes by detray's numbers, which count the surfaces of the file. In another order of volumes, whole
    endcaps had no measurements.
    """
    found = again(build_detector(name, **options), tmp_path)
    assert found.surfaces.is_sensitive.all()
    assert (np.diff(found.geometry_ids.astype(object)) > 0).all()
    assert (np.diff(found.detray_ids.astype(object)) > 0).all()


def test_order_of_ids_does_not_depend_on_the_places_of_layers(tmp_path, caplog):
    outside_in = with_sources([(50.0, lambda _: 9), (80.0, lambda _: 5), (110.0, lambda _: 3)])
    outside_in[1].reverse()
    wall = surface(PASSIVE, RING, (60, 90), (0, 0, 100))
    detector = load(tmp_path, geometry(*outside_in, [wall]), homogeneous({3: [slab(0)]}))
    found = again(detector, tmp_path / "out")
    assert_same(found, detector)
    assert len(found.passive) == 1
    assert (np.diff(found.detray_ids.astype(object)) > 0).all()
    assert not caplog.records


def test_ids_that_interleave_are_told(tmp_path, caplog):
    """No order of volumes is that of the ids."""
    mixed = with_sources([(50.0, lambda k: 1 + k % 2), (80.0, lambda k: 1 + (k + 1) % 2)])
    again(load(tmp_path, geometry(*mixed)), tmp_path / "out")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "interleave: traccc's CPU programs need them in the order of volumes" in caplog.text


def test_written_surfaces_have_no_identifier(volumes):
    """It is optional, and detray makes it anew; simulated particles start in volume 0, around the origin."""
    assert not any("identifier" in s for v in volumes[0] for s in v["surfaces"])
    r_low, _, z_low, z_high = tube(volumes[0][0])
    assert (r_low, z_low < 0 < z_high) == (0, True)


def test_shifts_and_field_survive(tmp_path):
    conditions = tmp_path / "conditions.json"
    shift = {"value": {"geometric": {"segmentation": {"binningdata": {"shift": [0.01, -0.02]}}}}}
    entries = [
        {"volume": 1, "layer": 4, **shift},
        {"volume": 1, "value": {"geometric": {"segmentation": {"binningdata": []}}}},
    ]
    conditions.write_text(json.dumps({"acts-geometry-hierarchy-map": {}, "entries": entries}))
    detector = build_detector("telescope", n_planes=3, b_field_z=1.5).with_conditions(conditions)
    assert np.count_nonzero(detector.translations) == 2
    found = again(detector, tmp_path / "out")
    assert_same(found, detector)
    assert found.b_field_z == 1.5


def test_detector_without_acts_ids_keeps_all_but_its_ids(tmp_path):
    wall = surface(PASSIVE, RING, (60, 90), (0, 0, 100))
    detector = load(tmp_path, geometry(barrel(50.0), [*barrel(100.0), wall]), homogeneous({1: [slab(16)]}))
    found = again(detector, tmp_path / "out")
    order = np.lexsort(found.surfaces.centre.T), np.lexsort(detector.surfaces.centre.T)
    np.testing.assert_allclose(found.surfaces.centre[order[0]], detector.surfaces.centre[order[1]])
    np.testing.assert_allclose(found.layers["position"], detector.layers["position"])
    np.testing.assert_array_equal(found.geometry_ids, found.detray_ids)
    assert [p.slab.thickness_in_x0 for p in found.passive] == pytest.approx([1 / 95.7])


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    files = write_detray(build_detector("toy", n_endcap_layers=7), tmp_path_factory.mktemp("toy"))
    return json.loads(files["geometry"].read_text())["data"]["volumes"], json.loads(files["surface_grids"].read_text())


def tube(volume):
    """(r low, r high, z low, z high) of a volume, from its portals."""
    portals = [s for s in volume["surfaces"] if s["type"] == 0]
    radii = sorted(s["masks"][0]["boundaries"][0] for s in portals if s["masks"][0]["shape"] == 4)
    ends = sorted(s["transform"]["translation"][2] for s in portals if s["masks"][0]["shape"] == 6)
    assert len(ends) == 2
    assert len(radii) in (1, 2)
    return (radii[0] if len(radii) == 2 else 0.0), radii[-1], *ends


def test_written_volumes_are_closed_and_tile_the_world(volumes):
    found, _ = volumes
    tubes = [tube(v) for v in found]
    world = (max(t[1] for t in tubes), min(t[2] for t in tubes), max(t[3] for t in tubes))
    filled = sum((t[1] ** 2 - t[0] ** 2) * (t[3] - t[2]) for t in tubes)
    assert filled == pytest.approx(world[0] ** 2 * (world[2] - world[1]))
    for index, volume in enumerate(found):
        for s in (s for s in volume["surfaces"] if s["type"] == 0):
            masks = s["masks"]
            is_cylinder = masks[0]["shape"] == 4
            spans = sorted((m["boundaries"][1:] if is_cylinder else m["boundaries"], m["volume_link"]) for m in masks)
            r_low, r_high, z_low, z_high = tubes[index]
            assert (spans[0][0][0], spans[-1][0][1]) == ((z_low, z_high) if is_cylinder else (r_low, r_high))
            assert all(a[0][1] == b[0][0] for a, b in itertools.pairwise(spans))
            place = masks[0]["boundaries"][0] if is_cylinder else s["transform"]["translation"][2]
            for (low, high), link in spans:
                if link == 65535:
                    assert place in world
                    continue
                r_low, r_high, z_low, z_high = tubes[link]  # the neighbour touches, and covers the mask
                assert place in ((r_low, r_high) if is_cylinder else (z_low, z_high))
                assert (z_low if is_cylinder else r_low) <= low < high <= (z_high if is_cylinder else r_high)


def test_every_sensor_lies_in_its_volume_and_grid(volumes):
    found, grids = volumes
    of_volume = {g["volume_link"]: g["grid_data"][0] for g in grids["data"]["grids"]}
    for index, volume in enumerate(found):
        sensors = [s for s in volume["surfaces"] if s["type"] == 1]
        r_low, r_high, z_low, z_high = tube(volume)
        for s in sensors:
            x, y, z = s["transform"]["translation"]
            assert r_low < np.hypot(x, y) < r_high
            assert z_low < z < z_high
        if sensors:
            grid = of_volume[index]
            listed = {k for b in grid["bins"] for k in b["content"]}
            assert listed == set(range(len(sensors)))
            for s, k in zip(sensors, range(len(sensors)), strict=True):
                x, y, z = s["transform"]["translation"]
                phi, r = np.arctan2(y, x), np.hypot(x, y)
                place = (phi, z) if grid["grid_link"]["type"] == 4 else (r, phi)
                at = [
                    int((p - a["edges"][0]) / (a["edges"][1] - a["edges"][0]) * a["bins"])
                    for p, a in zip(place, grid["axes"], strict=True)
                ]
                assert k in next(b["content"] for b in grid["bins"] if b["loc_index"] == at)


def test_boxes_that_no_cut_parts_share_a_volume():
    boxes = [Box("a", 0, (10, 0), (20, 30)), Box("b", 1, (15, 20), (25, 50)), Box("c", 2, (40, 0), (50, 50))]
    found = divide_world(boxes)
    assert sorted([b.name for b in v.boxes] for v in found) == [["a", "b"], ["c"]]
    inner = next(i for i, v in enumerate(found) if len(v.boxes) == 2)
    assert [b.neighbour for b in borders(found, inner, 0, is_upper=True)] == [1 - inner]
    assert [b.neighbour for b in borders(found, inner, 1, is_upper=True)] == [None]


def test_telescope_is_one_cuboid(tmp_path):
    """Its sides lead out of the world."""
    files = write_detray(build_detector("telescope", n_planes=2), tmp_path)
    volume = json.loads(files["geometry"].read_text())["data"]["volumes"][0]
    assert [s["type"] for s in volume["surfaces"]] == [1, 1] + [0] * 6
    assert {m["volume_link"] for s in volume["surfaces"][2:] for m in s["masks"]} == {65535}
    assert (build_detector("telescope").layers["kind"] == LayerKind.PLANE).all()
