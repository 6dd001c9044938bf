"""Detray's files as traccc writes them: the toy detector with traccc's own events."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from traccc_py.errors import GeometryError, InputDataError
from traccc_py.geometry import build_detector, read_detray, write_detray
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.geometry.surfaces import decode_geometry_id

PLANE_TOLERANCE = 1e-3  # mm; single precision at 1500 mm is 1.2e-4
N_SENSORS = 224 + 448 + 728 + 1092 + 14 * 108


@pytest.fixture(scope="module")
def folder(request):
    return request.getfixturevalue("reference_data") / "traccc_toy" / "geometry"


@pytest.fixture(scope="module")
def toy(folder):
    return read_detray(
        *(folder / f"toy_detector_{n}.json.gz" for n in ("geometry", "homogeneous_material", "surface_grids"))
    )


@pytest.fixture(scope="module")
def acts_toy(folder):
    return read_detray(
        folder / "actsid_toy_detector_geometry.json.gz",
        folder / "toy_detector_homogeneous_material.json.gz",
        digitization=folder / "actsid_toy_digi_config.json.gz",
        conditions=folder / "actsid_toy_conditions_config.json.gz",
    )


def test_toy_detector_of_traccc_has_its_surfaces(toy):
    assert len(toy.geometry_ids) == N_SENSORS
    assert (toy.surfaces.shape == Shape.TRAPEZOID).sum() == 14 * 108
    sensitive = toy.layers["is_sensitive"] == 1
    assert (sensitive & (toy.layers["kind"] == LayerKind.CYLINDER)).sum() == 4
    assert (sensitive & (toy.layers["kind"] == LayerKind.DISC)).sum() == 14
    assert np.bincount(toy.layer_of_surface)[sensitive].tolist() == [224, 448, 728, 1092] + [108] * 14
    assert (~sensitive).sum() == 1  # the beam pipe; portals have no material
    pipe = toy.passive[0]
    assert (pipe.position, pipe.extent_min, pipe.extent_max) == (19.0, -1500.0, 1500.0)


def test_toy_detector_of_traccc_written_again_keeps_the_order_of_ids(acts_toy, tmp_path):
    files = write_detray(acts_toy, tmp_path)
    found = read_detray(files["geometry"], files["homogeneous_material"], files["surface_grids"])
    np.testing.assert_array_equal(found.geometry_ids, acts_toy.geometry_ids)
    assert (np.diff(found.detray_ids.astype(object)) > 0).all()


def test_toy_detector_of_traccc_has_its_material(toy):
    """Silicon 2.32 g / cm^3 (X0 95.7 mm, Z/A 14 / 28.03), 0.11 mm in this file; 0.8 mm of beryllium (X0 352.8 mm)."""
    thickness, xi, excitation, plasma = toy.surfaces.slab.T
    np.testing.assert_allclose(thickness, 0.11 / 95.7, rtol=1e-6)
    np.testing.assert_allclose(xi, 0.5 * 0.307075e-3 * 14 / 28.03 * 2.32 * 0.011, rtol=1e-6)
    np.testing.assert_allclose(excitation, 16e-9 * 14**0.9, rtol=1e-6)
    np.testing.assert_allclose(plasma, 28.816e-9 * np.sqrt(2.32 * 14 / 28.03), rtol=1e-6)
    assert toy.passive[0].slab.thickness_in_x0 == pytest.approx(0.8 / 352.8, rel=1e-6)


def test_identifiers_are_those_that_detray_wrote(folder, toy):
    """The reader makes them anew, from the order in the file."""
    volumes = json.loads(gzip.decompress((folder / "toy_detector_geometry.json.gz").read_bytes()))["data"]["volumes"]
    written = [s["identifier"] for v in volumes for s in v["surfaces"] if s["type"] == 1]
    np.testing.assert_array_equal(np.sort(np.array(written, np.uint64)), toy.detray_ids)
    np.testing.assert_array_equal(toy.geometry_ids, toy.detray_ids)  # "source" is unset in this file


@pytest.mark.parametrize("sample", ["toy_mu10_10GeV", "toy_mu1000_0p5-10GeV"])
@pytest.mark.parametrize("ids", ["toy", "acts_toy"])
def test_hits_of_traccc_lie_on_their_surfaces(request, reference_data, sample, ids):
    detector = request.getfixturevalue(ids)
    for file in sorted((reference_data / "traccc_toy" / sample).glob("*-hits.csv.gz")):
        hits = pd.read_csv(file, dtype={"geometry_id": np.uint64})
        s = detector.surfaces[detector.module_index(hits.geometry_id.to_numpy())]
        offset = hits[["tx", "ty", "tz"]].to_numpy() - s.centre
        loc0, loc1, distance = (np.sum(offset * axis, axis=1) for axis in (s.u, s.v, s.w))
        assert len(hits) > 0
        assert np.abs(distance).max() < PLANE_TOLERANCE
        half_width = s.hx_min + (s.hx_max - s.hx_min) * (loc1 + s.hy) / (2 * s.hy)
        assert (np.abs(loc1) < s.hy + PLANE_TOLERANCE).all()
        assert (np.abs(loc0) < half_width + PLANE_TOLERANCE).all()


def test_acts_ids_are_primary_where_sensors_have_them(folder, toy, acts_toy):
    assert (acts_toy.geometry_ids != acts_toy.detray_ids).all()
    np.testing.assert_array_equal(np.sort(acts_toy.detray_ids), toy.detray_ids)
    rows = np.arange(N_SENSORS)
    np.testing.assert_array_equal(acts_toy.module_index(acts_toy.geometry_ids), rows)
    np.testing.assert_array_equal(acts_toy.module_index(acts_toy.detray_ids), rows)
    assert decode_geometry_id(acts_toy.geometry_ids).layer.tolist() == [2] * N_SENSORS
    with pytest.raises(InputDataError, match="not sensors of detector 'toy_detector'"):
        acts_toy.module_index([0])


def test_toy_detector_of_traccc_is_our_own(acts_toy):
    """The built-in one, but for the thickness of its modules and the excitation energies."""
    own = build_detector("toy", n_endcap_layers=7)
    np.testing.assert_array_equal(acts_toy.geometry_ids, own.geometry_ids)
    for column in ("centre", "u", "v", "w", "hx_min", "hx_max", "hy"):
        np.testing.assert_allclose(getattr(acts_toy.surfaces, column), getattr(own.surfaces, column), rtol=0, atol=2e-4)
    np.testing.assert_array_equal(acts_toy.layer_of_surface, own.layer_of_surface)
    for name in ("kind", "position", "extent_min", "extent_max", "is_sensitive", "n_phi", "n_other", "first_bin"):
        np.testing.assert_allclose(acts_toy.layers[name], own.layers[name], rtol=1e-6, atol=1e-3)


def test_digitisation_and_conditions_belong_to_acts_ids(acts_toy):
    designs = acts_toy.arrays().designs
    assert len(designs) == 18
    barrel = designs[acts_toy.design_of_surface[acts_toy.surfaces.shape == Shape.RECTANGLE]]
    np.testing.assert_allclose(barrel["pitch0"], 0.05, rtol=1e-6)
    assert (acts_toy.arrays().translations == 0).all()


def test_default_readout_covers_every_sensor(toy):
    s, d = toy.surfaces, toy.designs[toy.design_of_surface]
    assert (d["pitch0"] == np.float32(0.05)).all()
    assert (d["n_channels0"] * d["pitch0"] / 2 > np.maximum(s.hx_min, s.hx_max)).all()
    assert (d["n_channels1"] * d["pitch1"] / 2 > s.hy).all()
    assert (-d["min1"] > s.hy).all()


def test_files_of_different_detectors_are_refused(folder, tmp_path):
    content = json.loads(gzip.decompress((folder / "toy_detector_homogeneous_material.json.gz").read_bytes()))
    content["header"]["common"]["detector"] = "other"
    file = tmp_path / "material.json"
    file.write_text(json.dumps(content))
    with pytest.raises(
        GeometryError, match=r"material\.json: header\.common\.detector: is 'other', but .*'toy_detector'"
    ):
        read_detray(folder / "toy_detector_geometry.json.gz", file)


def test_build_detector_takes_a_geometry_file(folder):
    detector = build_detector(
        folder / "toy_detector_geometry.json.gz", material_file=folder / "toy_detector_homogeneous_material.json.gz"
    )
    assert len(detector.passive) == 1
    bare = build_detector(str(folder / "toy_detector_geometry.json.gz"), b_field_z=1.0)
    assert (bare.b_field_z, len(bare.passive), bare.surfaces.slab.any()) == (1.0, 0, False)
    with pytest.raises(GeometryError, match="has no option n_planes"):
        build_detector(folder / "toy_detector_geometry.json.gz", n_planes=3)
