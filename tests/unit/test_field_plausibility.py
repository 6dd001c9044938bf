"""Fields that can't be right are refused with what is likely meant; one side of a symmetric field is completed."""

import re

import numpy as np
import pytest

from traccc_py import TrackingChain
from traccc_py.config import SeedingConfig
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError, GeometryError
from traccc_py.geometry import build_detector
from traccc_py.geometry.field import FieldMap, read_field_map, solenoid_field_map, write_field_map
from traccc_py.units import T

SPACING = 100.0
ORIGINS = {"x": -1200.0, "y": -1200.0, "z": -3100.0}  # of a map that covers the Open Data Detector


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


@pytest.fixture(scope="module")
def telescope():
    return build_detector("telescope")


def flat(b_z=2.0, half=4000.0):
    values = np.zeros((2, 2, 2, 3))
    values[..., 2] = b_z
    return FieldMap(values, (-half,) * 3, (2 * half,) * 3)


def scaled_cvf(path, factor):
    """A covfie file of 2 T whose numbers are too large by a factor."""
    write_field_map(path, flat(1e-6))
    content = path.read_bytes()
    right, wrong = (np.array(b * T, "<f4").tobytes() for b in (np.float32(1e-6), 2.0 * factor))
    assert content.count(right) == 8
    path.write_bytes(content.replace(right, wrong))
    return path


# --- strength and units


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1 / T, "6,671.3 T; expected less than 20 T: its numbers would make 2 T if in tesla instead of GeV / (e mm)"),
        (10 / T, "2 T if in kilogauss instead of"),
        (1e4 / T, "2 T if in gauss instead of"),
        (
            10,
            "the largest field of the map is 20 T; expected less than 20 T: its numbers would make 2 T if in kilogauss",
        ),
        (1e3, "2 T if in millitesla, 0.2 T if in gauss"),
        (1e30, "T; expected less than 20 T"),
    ],
)
def test_units_of_covfie_files_are_told(tmp_path, factor, message):
    path = scaled_cvf(tmp_path / "map.cvf", factor)
    with pytest.raises(GeometryError, match=re.escape(f"{path}: ") + ".*" + re.escape(message)):
        read_field_map(path)


@pytest.mark.parametrize(("name", "message"), [("tesla", "2 T if in tesla instead of"), ("kg", "2 T if in kilogauss")])
def test_stored_maps_in_other_units(reference_data, name, message):
    with pytest.raises(GeometryError, match=rf"{name}\.cvf: the largest field .*{message}"):
        read_field_map(reference_data / "cases" / "fields" / f"{name}.cvf")


@pytest.mark.parametrize(
    ("factor", "message"), [(10, "2 T if in kilogauss"), (1e3, "2 T if in millitesla"), (1e4, "2 T if in gauss")]
)
@pytest.mark.parametrize("kind", ["xyz", "rz"])
def test_units_of_tables_are_told(tmp_path, factor, message, kind):
    path, field = tmp_path / "map.csv", flat() if kind == "xyz" else solenoid_field_map(spacing=1500, radius=1e5)
    write_field_map(path, field)
    header, *rows = path.read_text().split()
    n = len(field.axes)
    scaled = [",".join([*r.split(",")[:n], *(str(float(v) * factor) for v in r.split(",")[n:])]) for r in rows]
    path.write_text("\n".join([header, *scaled]))
    with pytest.raises(GeometryError, match=rf"map\.csv: the largest field of the map is .*{message}"):
        read_field_map(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            2000,
            "b_z is 2,000 T; expected less than 20 T: its numbers would make 2 T if in millitesla, 0.2 T if in",
        ),
        (-2000, "b_z is -2,000 T"),
        (20_000, "2 T if in gauss"),
        (20, "2 T if in kilogauss"),
        (1e300, "expected less than 20 T"),
        (np.inf, "b_z is inf; expected a finite field in T"),
        (np.nan, "b_z is nan"),
    ],
)
def test_homogeneous_fields_that_are_refused(telescope, value, message):
    for load in (
        telescope.with_field,
        lambda b: build_detector("telescope", b_field_z=b),
        lambda b: DetectorOptions("telescope", bfield_value=b).load(),
    ):
        with pytest.raises(GeometryError, match=re.escape(message)):
            load(value)


@pytest.mark.parametrize(("value", "n"), [(-3.8, 0), (6.0, 0), (6.1, 1), (-12.0, 1), (19.9, 1)])
def test_unusual_fields_are_taken_with_a_warning(telescope, caplog, value, n):
    assert telescope.with_field(value).b_field_z == value
    assert telescope.with_field_map(flat(value)).b_field_z == pytest.approx(value)
    assert len(caplog.records) == 2 * n
    assert caplog.text.count("is stronger than that of any tracker: its numbers would make") == 2 * n


def test_field_of_the_seeding_has_the_same_limit():
    assert SeedingConfig(b_field_z=19.9).b_field_z == 19.9
    with pytest.raises(ConfigError, match=r"b_field_z is 2000.*expected a finite number > 0 and < 20"):
        SeedingConfig(b_field_z=2000.0)


def along_x(b=2.0):
    field = flat()
    return FieldMap(field.values[..., ::-1] * b / 2, field.origin, field.spacing)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (0.0, "is 0 T; expected at least 0.1 T: seeds get their momentum from the curvature"),
        (0.09, "is 0.09 T; expected at least 0.1 T: seeds"),
        (flat(0.0), "is 0 T; expected at least 0.1 T: seeds"),
        (flat(2 * T), "is 0.0006 T; expected at least 0.1 T: its numbers would make 2 T if in GeV / (e mm)"),
        (along_x(), "is 0 T; expected at least 0.1 T: it is (2, 0, 0) T, so turn the axes or columns of the map"),
    ],
)
def test_fields_that_give_no_momentum_are_refused_by_the_chain(telescope, chosen, message):
    in_field = telescope.with_field_map(chosen) if isinstance(chosen, FieldMap) else telescope.with_field(chosen)
    with pytest.raises(GeometryError, match=re.escape(f"the field along z at the origin {message}")):
        TrackingChain(in_field, device="cpu").initialize()


# --- extent


def part(field, **ranges):
    """Part of a map: nodes from, and to, by axis."""
    index = tuple(slice(*ranges.get(axis, (None, None))) for axis in field.axes)
    origin = [n[i][0] for n, i in zip(field.nodes, index, strict=True)]
    return FieldMap(field.values[index], origin, field.spacing)


SOLENOID = solenoid_field_map()
MIDDLE = SOLENOID.values.shape[1] // 2


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            part(SOLENOID, z=(MIDDLE, None)),
            "the detector from -3026 to 3026 mm: 9690 of 18824 surfaces are outside; expected a map of the whole",
        ),
        (part(SOLENOID, z=(None, MIDDLE + 1)), "FieldMap.mirrored('z') (bfield_symmetry='z')"),
        (part(SOLENOID, z=(MIDDLE + 5, None)), "z: the field map reaches from 250 to 3150 mm"),
        (part(SOLENOID, r=(None, 18)), "r: the field map reaches from 0 to 850 mm, the detector from 0 to 1072 mm"),
        (FieldMap(SOLENOID.values, (0, -3.15), (0.05, 0.05)), "if its lengths are in m: convert them to mm"),
        (FieldMap(SOLENOID.values, (0, -315), (5, 5)), "if its lengths are in cm: convert them to mm"),
    ],
)
def test_maps_that_do_not_cover_the_detector_are_refused(odd, caplog, field, message):
    with pytest.raises(GeometryError, match=re.escape(message)):
        odd.with_field_map(field)
    taken = odd.with_field_map(field, allow_partial=True)
    assert taken.field_map is field
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "surfaces are outside" in caplog.text


def test_the_origin_has_to_be_in_the_map(telescope):
    """The planes stand at x > 0, but tracks are followed to the origin, and the field is taken there."""
    with pytest.raises(GeometryError, match="x: the field map reaches from 15 to 35 mm, the detector from 0 to 180 mm"):
        telescope.with_field_map(FieldMap(flat().values, (15.0, -400.0, -400.0), (20.0, 800.0, 800.0)))


def test_maps_filled_up_with_zeros_are_refused(odd, caplog):
    values = SOLENOID.values.copy()
    values[:, :MIDDLE] = 0
    padded = FieldMap(values, SOLENOID.origin, SOLENOID.spacing)
    with pytest.raises(GeometryError, match=r"map is zero at 8956 of 18824 surfaces, z from -3026 to -108 mm"):
        odd.with_field_map(padded)
    odd.with_field_map(padded, allow_partial=True)
    assert "the field map is zero at" in caplog.text


def test_nodes_need_not_lie_around_the_outermost_surfaces(odd, caplog):
    """Nodes in the middle of cells end half a cell before the edge; those of a shifted grid beyond it on one side."""
    z = np.arange(-2975.0, 3000, 50)  # the outermost sensor is at 3026 mm
    values = np.ones((24, len(z), 2)) * [0.0, 2.0]
    with pytest.raises(GeometryError, match="z: the field map reaches from -2975 to 2975 mm"):
        odd.with_field_map(FieldMap(values, (0, z[0]), (50, 50)))
    odd.with_field_map(FieldMap(values, (0, z[0] - 51), (50, 51.0)))
    shifted = FieldMap(np.ones((40, 40, 80, 3)) * [0, 0, 2.0], (-1733.0, -1511.0, -3977.0), (SPACING,) * 3)
    assert odd.with_field_map(shifted).b_field_z == 2.0
    assert not caplog.records


# --- symmetry


@pytest.fixture(scope="module")
def whole():
    """The solenoid in x, y, z, and the analytic field at its nodes."""
    axes = [np.arange(low, -low + 1, SPACING) for low in ORIGINS.values()]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return FieldMap(SOLENOID.at(grid), tuple(ORIGINS.values()), (SPACING,) * 3)


@pytest.mark.parametrize("axes", ["x", "y", "z", "xy", "xz", "yz", "xyz", "zyx"])
@pytest.mark.parametrize("is_upper", [True, False])
def test_a_part_mirrored_is_the_whole(whole, axes, is_upper):
    middle = {axis: n // 2 for axis, n in zip("xyz", whole.values.shape, strict=False)}
    cut = {a: (middle[a], None) if is_upper else (None, middle[a] + 1) for a in axes}
    found = part(whole, **cut).mirrored(axes)
    np.testing.assert_allclose(found.values, whole.values, atol=1e-6)
    np.testing.assert_allclose(found.origin, whole.origin)


def test_reflections_of_a_field_are_those_of_an_axial_vector(odd):
    """Bx = xz, By = yz, Bz = 2 + x^2 + y^2 - z^2 by hand in one octant: what holds in the others."""
    axes = [np.arange(0, 3201.0, 1600)] * 3
    x, y, z = np.meshgrid(*axes, indexing="ij")
    values = np.stack([x * z, y * z, 1e7 + x * x + y * y - z * z], axis=-1) * 1e-7
    found = odd.with_field_map(FieldMap(values, (0, 0, 0), (1600,) * 3).mirrored("xyz")).field_map
    for sign in np.ndindex(2, 2, 2):
        px, py, pz = place = 1600.0 * (1 - 2 * np.array(sign))
        np.testing.assert_allclose(found.at(place), [px * pz * 1e-7, py * pz * 1e-7, 1.256], rtol=1e-6)


def test_half_of_a_map_in_r_and_z(odd):
    half = part(SOLENOID, z=(MIDDLE, None)).mirrored("z")
    np.testing.assert_array_equal(half.values, SOLENOID.values)
    assert odd.with_field_map(half).fingerprint == odd.with_field_map(SOLENOID).fingerprint


def test_nodes_half_a_distance_from_the_plane():
    z = np.arange(25.0, 3200, 50)
    r = np.arange(0.0, 1101, 50)
    places = np.stack([*np.meshgrid(r, [0.0], z, indexing="ij")], axis=-1)[:, 0]
    half = FieldMap(SOLENOID.at(places)[..., [0, 2]], (0, 25), (50, 50))
    found = half.mirrored("z")
    assert found.nodes[1][[0, -1]].tolist() == [-3175, 3175]
    mirrored = found.values[:, ::-1]
    np.testing.assert_array_equal(mirrored, found.values * np.float32([-1, 1]))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("", "mirrored at ''; expected some of its axes x, y, z, each once"),
        ("xx", "mirrored at 'xx'"),
        ("r", "mirrored at 'r'"),
        ("octant", "mirrored at 'octant'"),
        ("z", "z of a field map goes from -3100 to 3100 mm; expected one side"),
    ],
)
def test_what_can_not_be_mirrored(whole, axes, message):
    with pytest.raises(GeometryError, match=re.escape(message)):
        whole.mirrored(axes)


def test_maps_that_are_not_symmetric_are_refused(whole):
    upper = part(whole, x=(12, None))
    with pytest.raises(GeometryError, match=r"Bx of a field map is up to 0\.5 T at x = 0; expected 0"):
        FieldMap(upper.values + np.float32([0.5, 0, 0]), upper.origin, upper.spacing).mirrored("x")
    with pytest.raises(GeometryError, match="x of a field map goes from 30 to 1230 mm"):
        FieldMap(upper.values, (30.0, *upper.origin[1:]), upper.spacing).mirrored("x")
    with pytest.raises(GeometryError, match=r"Br of a field map is up to .* at z = 0"):
        part(FieldMap(SOLENOID.values, (0, 0), SOLENOID.spacing), z=(0, 20)).mirrored("z")


@pytest.mark.parametrize("suffix", ["cvf", "csv"])
def test_files_of_an_octant_by_option(tmp_path, whole, suffix):
    path = tmp_path / f"octant.{suffix}"
    write_field_map(path, part(whole, x=(12, None), y=(12, None), z=(31, None)))
    options = DetectorOptions("telescope", bfield_file=path, bfield_symmetry="xyz")
    np.testing.assert_allclose(options.load().field_map.values, whole.values, atol=1e-5)
    with pytest.raises(GeometryError, match=rf"octant\.{suffix}: y: the field map reaches .*bfield_symmetry='yz'"):
        DetectorOptions("telescope", bfield_file=path).load()
    partial = DetectorOptions("telescope", bfield_file=path, bfield_partial=True)
    assert partial.load().b_field_z == pytest.approx(2.0, abs=1e-5)
    with pytest.raises(GeometryError, match=rf"octant\.{suffix}: a field map is mirrored at 'w'"):
        DetectorOptions("telescope", bfield_file=path, bfield_symmetry="w").load()
