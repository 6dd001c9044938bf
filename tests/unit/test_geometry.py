"""Detectors: the tables they are made from, identifiers, layers, errors."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from tests.geometry_summary import summarize_layers
from traccc_py.errors import GeometryError, InputDataError
from traccc_py.geometry import build_detector
from traccc_py.geometry.detector import assemble_detector
from traccc_py.geometry.detectors.odd import odd_passive_surfaces, odd_surfaces
from traccc_py.geometry.digitization import Design, Digitization, symmetric_axes
from traccc_py.geometry.layers import SurfacePoints, derive_layers
from traccc_py.geometry.material.material import CARBON_FIBRE, SILICON_TML, VACUUM_SLAB
from traccc_py.geometry.records import DESIGN, LAYER, STACK, SURFACE, LayerKind, Shape
from traccc_py.geometry.surfaces import PassiveSurface, Surfaces, decode_geometry_id, encode_geometry_id
from traccc_py.geometry.variance_table import VarianceTable
from traccc_py.units import T

POSITION_TOLERANCE = 1e-3  # mm, the reference table has 9 digits
AXIS_TOLERANCE = 1e-6
SINGLE_PRECISION_TOLERANCE = 1e-4  # mm, detray's geometry file holds float32


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


def discs(z_of_layers, radii=100.0, n_phi=8):
    """Sensors on discs: one layer number per z; `radii` is a number, or one per layer."""
    parts = []
    for i, (z, radius) in enumerate(zip(z_of_layers, np.broadcast_to(radii, len(z_of_layers)), strict=True)):
        phi = 2 * np.pi * np.arange(n_phi) / n_phi
        zero = np.zeros(n_phi)
        v = np.stack([np.cos(phi), np.sin(phi), zero], axis=1)
        centre = radius * v + np.stack([zero, zero, z + zero], axis=1)
        ids = encode_geometry_id(1, 2 * (i + 1), 1 + np.arange(n_phi))
        u = np.stack([np.sin(phi), -np.cos(phi), zero], axis=1)
        outline = {"shape": Shape.RECTANGLE, "hx_min": 40.0, "hx_max": 40.0, "hy": 20.0, "thickness": 0.2}
        parts.append(Surfaces.planes(ids, centre, u, v, slab=VACUUM_SLAB, **outline))
    return Surfaces.concatenate(parts)


def test_odd_reproduces_every_module_of_the_reference_table(odd, reference_data):
    table = pd.read_csv(reference_data / "odd" / "odd_modules.csv", dtype={"geometry_id": np.uint64})
    surfaces = odd.surfaces
    np.testing.assert_array_equal(surfaces.geometry_id, table.geometry_id)
    np.testing.assert_allclose(surfaces.centre, table[["cx", "cy", "cz"]], rtol=0, atol=POSITION_TOLERANCE)
    for axis in "uvw":
        expected = table[[axis + c for c in "xyz"]]
        np.testing.assert_allclose(getattr(surfaces, axis), expected, rtol=0, atol=AXIS_TOLERANCE)
    for column in ("hx_min", "hx_max", "hy", "thickness"):
        np.testing.assert_allclose(getattr(surfaces, column), table[column], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(surfaces.shape == Shape.TRAPEZOID, table["shape"] == "trapezoid")
    ids = decode_geometry_id(surfaces.geometry_id)
    for column in ("volume", "layer", "sensitive", "extra"):
        np.testing.assert_array_equal(getattr(ids, column), table[column])


def test_odd_numbers_staves_in_the_order_of_their_names():
    """Stave 10 follows stave 1: the third group of 14 ids of the innermost layer lies at 10/16 of a turn."""
    surfaces = odd_surfaces()
    index = np.searchsorted(surfaces.geometry_id, encode_geometry_id(17, 2, 1 + 2 * 14))
    x, y, _ = surfaces.centre[index] + 1.8 * surfaces.w[index]  # back to the stave's plane
    assert np.mod(np.arctan2(y, x), 2 * np.pi) == pytest.approx(2 * np.pi * 10 / 16)
    assert np.hypot(x, y) == pytest.approx(34.0)


def test_odd_has_its_layers_in_order(odd):
    kinds = odd.layers["kind"]
    assert odd.stacks["kind"].tolist() == [LayerKind.CYLINDER, LayerKind.DISC]
    for first, n in zip(odd.stacks["first_layer"], odd.stacks["n_layers"], strict=True):
        assert (np.diff(odd.layers["position"][first : first + n]) >= 0).all()
        assert len(set(kinds[first : first + n].tolist())) == 1
    sensitive = odd.layers["is_sensitive"] == 1
    assert (sensitive & (kinds == LayerKind.CYLINDER)).sum() == 10
    assert (sensitive & (kinds == LayerKind.DISC)).sum() == 14 * 2 + 12 * 3 + 12 * 2
    assert (~sensitive).sum() == 10 + 16 + 48
    pixel = [r for r in summarize_layers(odd) if r.name.startswith("pixel barrel")]
    assert [r.n_sensors for r in pixel] == [224, 448, 728, 1092]
    assert pixel[0].extent_max == pytest.approx(507.25)


def test_odd_material_of_modules_and_supports(odd):
    """A barrel pixel: Si 0.13 %, Kapton 0.08 %, Al 0.03 %, foam 0.08 %, Ti 0.11 %; a support: 2 mm of carbon fibre."""
    rows = {r.name: r for r in summarize_layers(odd)}
    parts = 0.125 / 93.7 + 0.25 * 0.926 / 284 + 0.0223 / 89 + 1.397 / 1720 + 0.0393 / 35.6
    assert rows["pixel barrel 17/2"].thickness_in_x0 == pytest.approx(parts, rel=1e-3)
    assert rows["pixel support"].thickness_in_x0 == pytest.approx(2 / 281)
    assert rows["beam pipe"].thickness_in_x0 == pytest.approx(0.8 / 352.8)
    assert rows["pixel endplate"].thickness_in_x0 == pytest.approx(10 / 281)
    sensitive = odd.layers["is_sensitive"] == 1
    assert (odd.layers["thickness_in_x0"][sensitive] == 0).all()
    assert (odd.layers["bethe_xi"][~sensitive] > 0).all()


def test_arrays_have_the_types_of_the_records(odd):
    arrays = odd.arrays()
    assert [a.dtype for a in arrays[:3]] == [SURFACE, LAYER, STACK]
    assert arrays.designs.dtype == DESIGN
    assert arrays.bin_offsets.dtype == arrays.bin_surfaces.dtype == np.int32
    assert arrays.variances.dtype == arrays.path_sigmas.dtype == arrays.translations.dtype == np.float32
    assert type(arrays.b_z) is np.float32
    assert arrays.b_z == np.float32(2 * T)
    assert arrays.translations.shape == (18824, 2)
    assert odd.arrays() is arrays
    np.testing.assert_array_equal(arrays.layers["is_sensitive"][arrays.surfaces["layer"]], 1)
    for i in range(0, len(arrays.bin_offsets) - 1, 997):
        listed = arrays.bin_surfaces[arrays.bin_offsets[i] : arrays.bin_offsets[i + 1]]
        assert (np.diff(listed) > 0).all()


def test_surfaces_lie_on_their_layers(odd):
    """Each sensor is listed in the bin that its own centre falls into."""
    arrays = odd.arrays()
    x, y, z = odd.surfaces.centre.T
    layer = odd.layers[odd.layer_of_surface]
    other = np.where(layer["kind"] == LayerKind.CYLINDER, z, np.hypot(x, y))
    i_phi = np.floor((np.arctan2(y, x) + np.pi) / (2 * np.pi) * layer["n_phi"]).astype(int) % layer["n_phi"]
    pitch = (layer["other_max"] - layer["other_min"]) / layer["n_other"]
    index = layer["first_bin"] + i_phi * layer["n_other"] + ((other - layer["other_min"]) / pitch).astype(int)
    for surface in range(0, len(z), 101):
        b = index[surface]
        assert surface in arrays.bin_surfaces[arrays.bin_offsets[b] : arrays.bin_offsets[b + 1]]


def test_module_index_finds_signed_and_unsigned_ids(odd):
    rows = np.array([18823, 0, 7])
    ids = odd.geometry_ids[rows]
    np.testing.assert_array_equal(odd.module_index(ids), rows)
    np.testing.assert_array_equal(odd.module_index(ids.astype(np.int64)), rows)
    assert odd.module_index(ids).dtype == np.int32
    assert odd.module_index(np.zeros(0, np.uint64)).shape == (0,)


def test_module_index_names_unknown_ids(odd):
    ids = odd.geometry_ids[:4].copy()
    ids[2] = encode_geometry_id(17, 3, 9)
    with pytest.raises(InputDataError, match=r"1 geometry id\(s\).*'odd'.*volume 17, layer 3, sensitive 9.*in row 2"):
        odd.module_index(ids)
    with pytest.raises(InputDataError, match="volume 255"):
        odd.module_index(np.array([-1]))
    with pytest.raises(InputDataError, match="float64"):
        odd.module_index(np.array([1.5]))


def test_fingerprint_follows_the_content(odd):
    assert build_detector("odd").fingerprint == odd.fingerprint
    raised = VarianceTable(odd.variance_table.variances, odd.variance_table.path_sigmas + 1)
    others = [odd.with_field(3.0), odd.with_digitization("odd-current"), odd.with_variances(raised)]
    assert len({odd.fingerprint, *(d.fingerprint for d in others)}) == 4
    assert odd.b_field_z == 2.0


def test_variances_of_other_designs_are_rejected(odd):
    with pytest.raises(GeometryError, match=r"variances have shape \(1, 2, 17\); expected \(9, 2, 17\)"):
        odd.with_variances(VarianceTable.zeros(1))


def test_build_detector_rejects_unknown_names_and_options():
    with pytest.raises(GeometryError, match=r"'itk' is unknown; known are colliderml, odd, telescope, toy"):
        build_detector("itk")
    with pytest.raises(GeometryError, match="no option n_planes"):
        build_detector("odd", n_planes=3)
    with pytest.raises(GeometryError, match="finite"):
        build_detector("odd", b_field_z=np.nan)


def test_toy_equals_the_geometry_detray_writes(reference_data):
    detector = build_detector("toy", n_endcap_layers=7)
    path = reference_data / "traccc_toy" / "geometry" / "actsid_toy_detector_geometry.json.gz"
    with gzip.open(path) as stream:
        volumes = json.load(stream)["data"]["volumes"]
    sensitive = [s for v in volumes for s in v["surfaces"] if s["type"] == 1]
    index = detector.module_index(np.array([s["source"] for s in sensitive], np.uint64))
    assert sorted(index) == list(range(len(detector.surfaces)))
    surfaces = detector.surfaces[index]
    centre = np.array([s["transform"]["translation"] for s in sensitive])
    np.testing.assert_allclose(surfaces.centre, centre, rtol=0, atol=SINGLE_PRECISION_TOLERANCE)
    axes = np.array([s["transform"]["rotation"] for s in sensitive])
    np.testing.assert_allclose(np.hstack([surfaces.u, surfaces.v, surfaces.w]), axes, rtol=0, atol=AXIS_TOLERANCE)
    bounds = np.array(
        [(b[0], b[-1], b[-1]) if len(b) == 2 else b[:3] for b in (s["masks"][0]["boundaries"] for s in sensitive)]
    )
    is_trapezoid = np.array([s["masks"][0]["shape"] == 7 for s in sensitive])
    bounds[~is_trapezoid, 1] = bounds[~is_trapezoid, 0]
    ours = np.column_stack([surfaces.hx_min, surfaces.hx_max, surfaces.hy])
    np.testing.assert_allclose(ours, bounds, rtol=0, atol=AXIS_TOLERANCE)
    np.testing.assert_array_equal(surfaces.shape == Shape.TRAPEZOID, is_trapezoid)
    pipe = next(s for v in volumes for s in v["surfaces"] if s["type"] == 2)["masks"][0]["boundaries"]
    assert (detector.passive[0].position, detector.passive[0].extent_min, detector.passive[0].extent_max) == tuple(pipe)


def test_toy_default_and_limits():
    detector = build_detector("toy")
    assert len(detector.surfaces) == 2492 + 6 * 108
    assert (decode_geometry_id(detector.geometry_ids).volume.max(), len(detector.layers)) == (21, 1 + 4 + 6)
    expected = SILICON_TML.slab(1.5)
    np.testing.assert_allclose(detector.surfaces.slab, np.tile(expected, (len(detector.surfaces), 1)))
    assert len(build_detector("toy", n_barrel_layers=2, n_endcap_layers=0, material=None).surfaces) == 672
    with pytest.raises(GeometryError, match="n_endcap_layers is 8; expected 0 to 7"):
        build_detector("toy", n_endcap_layers=8)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"n_planes": 3.5}, "n_planes is 3.5; expected an integer from 1"),
        ({"n_planes": "a"}, "n_planes is 'a'; expected an integer"),
        ({"half_length": np.inf}, "half_length inf .* finite"),
        ({"material_thickness": -1.0}, "material_thickness is -1.0 mm; expected a finite number >= 0"),
    ],
)
def test_impossible_telescopes_are_refused(option, words):
    with pytest.raises(GeometryError, match=words):
        build_detector("telescope", **option)


def test_telescope_planes_and_axes():
    detector = build_detector("telescope", n_planes=3, spacing=10.0, first_offset=5.0, half_length=50.0, material=None)
    np.testing.assert_allclose(detector.surfaces.centre, [[5, 0, 0], [15, 0, 0], [25, 0, 0]])
    np.testing.assert_array_equal(detector.surfaces.u[0], [0, 1, 0])
    np.testing.assert_array_equal(detector.surfaces.v[0], [0, 0, 1])
    assert detector.layers["position"].tolist() == [5, 15, 25]
    assert (detector.layers["kind"] == LayerKind.PLANE).all()
    assert detector.stacks.tolist() == [(LayerKind.PLANE, 0, 3)]
    assert detector.arrays().bin_surfaces.tolist() == [0, 1, 2]
    assert (detector.designs[0]["n_channels0"], float(detector.designs[0]["min1"])) == (2000, -50.0)
    for axis, normal in (("y", [0, 1, 0]), ("z", [0, 0, 1])):
        turned = build_detector("telescope", axis=axis).surfaces
        np.testing.assert_array_equal(turned.w[0], normal)
        np.testing.assert_array_equal(turned.centre[0], 20 * np.array(normal))
    with pytest.raises(GeometryError, match="axis is 'r'"):
        build_detector("telescope", axis="r")


def test_layers_that_interleave_are_refused():
    surfaces = discs([500.0, 505.0])
    shifted = surfaces.centre.copy()
    shifted[::2, 2] += 8.0  # half of each disc's sensors: 500 ... 508 and 505 ... 513
    surfaces = Surfaces(surfaces.geometry_id, shifted, *(getattr(surfaces, n) for n in list(surfaces.__slots__)[2:]))
    with pytest.raises(GeometryError, match=r"'volume 1/2' .*500.000 to 508.000 mm in z.*'volume 1/4'.*interleave"):
        derive_layers(surfaces, SurfacePoints.of(surfaces))


def test_passive_layer_inside_a_sensitive_one_is_refused():
    surfaces = discs([500.0])
    support = PassiveSurface("support", LayerKind.DISC, 500.5, 50.0, 150.0, 4.0, CARBON_FIBRE.slab(4.0))
    with pytest.raises(GeometryError, match="support"):
        derive_layers(surfaces, SurfacePoints.of(surfaces), [support])
    outside = support._replace(extent_min=200.0, extent_max=300.0)
    table = derive_layers(surfaces, SurfacePoints.of(surfaces), [outside])
    assert table.names == ("volume 1/2", "support")
    assert table.layers["is_sensitive"].tolist() == [1, 0]


def test_discs_are_split_by_ring_where_rings_differ_in_z():
    inner, outer = discs([500.0], 100.0), discs([500.0], 135.0)
    shifted = outer.centre + np.array([0, 0, 6.0])
    ids = outer.geometry_id + np.uint64(100 << 8)
    rest = [getattr(outer, n) for n in list(outer.__slots__)[2:]]
    split = Surfaces.concatenate([inner, Surfaces(ids, shifted, *rest)])
    assert derive_layers(split, SurfacePoints.of(split)).names == ("volume 1/2 ring 0", "volume 1/2 ring 1")
    flat = Surfaces.concatenate([inner, Surfaces(ids, outer.centre, *rest)])  # they overlap in r: one layer
    assert derive_layers(flat, SurfacePoints.of(flat)).names == ("volume 1/2",)


def test_surfaces_are_checked():
    good = discs([500.0])
    with pytest.raises(GeometryError, match="occurs twice"):
        Surfaces.concatenate([good, good])
    rest = {n: getattr(good, n) for n in good.__slots__}
    with pytest.raises(GeometryError, match="orthonormal"):
        Surfaces(**(rest | {"u": 1.1 * good.u})).validate()
    with pytest.raises(GeometryError, match="not positive"):
        Surfaces(**(rest | {"hy": 0 * good.hy})).validate()
    with pytest.raises(GeometryError, match="no sensitive surface"):
        good[:0].validate()


def test_assemble_detector_refuses_a_surface_without_design():
    digitization = Digitization("other", (Design(2, 0, 0, symmetric_axes(10.0, 100, 10.0, 100)),))
    with pytest.raises(GeometryError, match=r"'other' has no entry for surface .*volume 1, layer 2"):
        assemble_detector("discs", discs([500.0]), [], digitization, 2.0)


def test_passive_surfaces_of_the_odd_are_symmetric():
    found = odd_passive_surfaces()
    z = [p.position for p in found if p.kind == LayerKind.DISC]
    assert sorted(z) == sorted(-value for value in z)
    assert sum(p.name == "pixel disc support" for p in found) == 14
