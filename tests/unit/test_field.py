"""Field maps: files in both formats and what is wrong with broken ones, interpolation, the solenoid, detectors."""

import gzip
import re
import struct

import numpy as np
import pytest
from scipy.special import ellipe, ellipk

from traccc_py.errors import GeometryError
from traccc_py.geometry import build_detector
from traccc_py.geometry.field import FieldMap, read_field_map, solenoid_field_map, write_field_map
from traccc_py.units import T

ORIGIN, SPACING, SHAPE = (-100.0, -50.0, -300.0), (100.0, 50.0, 150.0), (3, 3, 5)


def node_positions(origin, spacing, shape):
    axes = [o + s * np.arange(n) for o, s, n in zip(origin, spacing, shape, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def linear_field(positions):
    """A field that trilinear interpolation gives exactly."""
    x, y, z = np.moveaxis(positions, -1, 0)
    return np.stack([0.1 + x * 1e-3, 0.2 * y * 1e-2 - z * 1e-4, 2.0 + x * 1e-4 - y * 2e-4 + z * 3e-4], axis=-1)


@pytest.fixture
def field():
    return FieldMap(linear_field(node_positions(ORIGIN, SPACING, SHAPE)), ORIGIN, SPACING)


def cvf(field, n_bytes=4, **changed):
    """A covfie file written from the description of the format: blocks by name, any of them replaced."""
    scale = 1 / np.array(field.spacing)
    matrix = np.zeros((3, 4))
    matrix[:, :3] = np.diag(scale)
    matrix[:, 3] = -np.array(field.origin) * scale
    shape = field.values.shape[:3]
    blocks = {
        "wrapper": struct.pack("<II", 0xC04F1EAB, 0xAB000000),
        "affine": struct.pack("<II", 0xC04F1EAB, 0xAB020000),
        "matrix": struct.pack("<12f", *matrix.ravel()),
        "strided": struct.pack("<II", 0xC04F1EAB, 0xAB020010),
        "sizes": struct.pack("<3Q", *shape),
        "array": struct.pack("<II", 0xC04F1EAB, 0xAB010000),
        "width": struct.pack("<I", n_bytes),
        "count": struct.pack("<Q", np.prod(shape)),
        "values": (field.values * 2.99792458e-4).astype(f"<f{n_bytes}").tobytes(),
        "footers": struct.pack(
            "<8I", 0xC04F1E70, 0xCB010000, 0xC04F1E70, 0xCB020010, 0xC04F1E70, 0xCB020000, 0xC04F1E70, 0xCB000000
        ),
    } | changed
    return b"".join(blocks.values()), {
        name: sum(len(b) for b in list(blocks.values())[:k]) for k, name in enumerate(blocks)
    }


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("suffix", [".cvf", ".cvf.gz"])
def test_covfie_files_are_read(tmp_path, field, width, suffix):
    content, _ = cvf(field, width)
    path = tmp_path / f"map{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    found = read_field_map(path)
    assert found.values.shape == (*SHAPE, 3)
    np.testing.assert_allclose(found.values, field.values, rtol=1e-6)
    np.testing.assert_allclose(found.origin, ORIGIN, rtol=1e-6)
    np.testing.assert_allclose(found.spacing, SPACING, rtol=1e-6)


def test_covfie_files_are_written_as_described(tmp_path, field):
    write_field_map(tmp_path / "map.cvf", field)
    content = (tmp_path / "map.cvf").read_bytes()
    expected, at = cvf(field)
    assert len(content) == len(expected)
    assert content[: at["values"]] == expected[: at["values"]]
    assert content[at["footers"] :] == expected[at["footers"] :]
    np.testing.assert_allclose(read_field_map(tmp_path / "map.cvf").values, field.values, rtol=3e-7)


OTHER = struct.pack("<II", 1, 2)
ROTATED = struct.pack("<12f", 0, 0.01, 0, 1, 0.01, 0, 0, 1, 0, 0, 0.01, 1)
FLIPPED = struct.pack("<12f", -0.01, 0, 0, 1, 0, 0.01, 0, 1, 0, 0, 0.01, 1)
BROKEN = [
    ("wrapper", OTHER, "wrapper", "00000001 00000002; expected C04F1EAB AB000000, the header of the field block"),
    ("affine", OTHER, "affine", "header of the affine block"),
    ("matrix", ROTATED, "matrix", "zeros off it"),
    ("matrix", FLIPPED, "matrix", "a positive diagonal"),
    ("strided", OTHER, "strided", "header of the strided block"),
    ("sizes", struct.pack("<3Q", 3, 1, 5), "sizes", "grid sizes (3, 1, 5); expected numbers >= 2"),
    ("sizes", struct.pack("<3Q", 1 << 40, 1 << 40, 5), "sizes", "with a product up to"),
    ("array", OTHER, "array", "header of the array block"),
    ("width", struct.pack("<I", 2), "width", "numbers of 2 bytes; expected 4 or 8"),
    ("count", struct.pack("<Q", 44), "count", "44 nodes; expected 45 for the sizes (3, 3, 5)"),
    ("values", b"\0" * 8, "values", "40 bytes are left; expected 540 bytes with 45 field vectors"),
    ("footers", OTHER * 4, "footers", "footer of the array block"),
]


@pytest.mark.parametrize(("block", "content", "where", "message"), BROKEN, ids=[f"{b[0]}-{b[3][:9]}" for b in BROKEN])
def test_a_broken_block_is_named_with_its_byte(tmp_path, field, block, content, where, message):
    whole, at = cvf(field, **{block: content})
    path = tmp_path / "map.cvf"
    path.write_bytes(whole)
    with pytest.raises(GeometryError, match=re.escape(f"{path}: byte {at[where]}: ") + ".*" + re.escape(message)):
        read_field_map(path)


def test_values_that_are_no_numbers_and_bytes_after_the_end(tmp_path, field):
    whole, at = cvf(field)
    path = tmp_path / "map.cvf"
    path.write_bytes(whole + b"more")
    with pytest.raises(GeometryError, match=f"byte {len(whole)}: 4 more bytes"):
        read_field_map(path)
    place = at["values"] + 4 * 7
    path.write_bytes(whole[:place] + struct.pack("<f", np.nan) + whole[place + 4 :])
    with pytest.raises(GeometryError, match=f"byte {place}: field value nan"):
        read_field_map(path)


def test_every_cut_of_a_file_is_an_error(tmp_path, field):
    whole, _ = cvf(field)
    path = tmp_path / "map.cvf"
    for n in range(0, len(whole), 7):
        path.write_bytes(whole[:n])
        with pytest.raises(GeometryError, match=r"byte \d+: \d+ bytes are left"):
            read_field_map(path)


@pytest.mark.parametrize("separator", [",", " ", "\t", "; "])
@pytest.mark.parametrize("preamble", ["", "x,y,z,Bx,By,Bz\n", "% a map\n% of\n% a magnet\n\n"])
def test_tables_are_read_in_any_order(tmp_path, field, separator, preamble):
    rows = np.column_stack([node_positions(ORIGIN, SPACING, SHAPE).reshape(-1, 3), field.values.reshape(-1, 3)])
    rows = np.random.default_rng(1).permutation(rows)
    path = tmp_path / "map.csv"
    path.write_text(preamble + "\n".join(separator.join(f"{v:.9g}" for v in row) for row in rows) + "\n\n")
    found = read_field_map(path)
    np.testing.assert_array_equal(found.values, field.values)
    np.testing.assert_allclose([*found.origin, *found.spacing], [*ORIGIN, *SPACING])


@pytest.mark.parametrize("name", ["map.csv", "map.txt.gz"])
def test_tables_written_and_read_again(tmp_path, field, name):
    for one in (field, solenoid_field_map(spacing=300)):
        write_field_map(tmp_path / name, one)
        found = read_field_map(tmp_path / name)
        np.testing.assert_array_equal(found.values, one.values)
        np.testing.assert_allclose([*found.origin, *found.spacing], [*one.origin, *one.spacing], atol=1e-5)


def changed_rows(rows, kind):
    if kind == "missing":
        return np.delete(rows, 7, axis=0)
    if kind == "twice":
        rows[7] = rows[8]
    elif kind == "one more":
        return np.vstack([rows, rows[3:4]])
    elif kind == "uneven":
        rows[rows[:, 0] == 0, 0] = 30
    elif kind == "not finite":
        rows[5, 4] = np.nan
    elif kind == "flat":
        return rows[rows[:, 2] == 0]
    return rows


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"44 rows, none at x = -100, y = 0, z = 0; expected each node of a grid of \(3, 3, 5\) once"),
        ("twice", "45 rows, none at x = -100, y = 0, z = 0"),
        ("one more", "46 rows, some of them for the same node"),
        ("uneven", "x takes the value 30.0; expected 0.0 on a regular grid of 3 nodes"),
        ("not finite", r"line 6: \[.*nan.*\]; expected finite numbers"),
        ("flat", "z is 0.0 in all rows; expected at least two values"),
    ],
)
def test_incomplete_or_irregular_tables_are_refused(tmp_path, field, kind, message):
    rows = np.column_stack([node_positions(ORIGIN, SPACING, SHAPE).reshape(-1, 3), field.values.reshape(-1, 3)])
    path = tmp_path / "map.csv"
    path.write_text("\n".join(",".join(f"{v:.9g}" for v in row) for row in changed_rows(rows, kind)))
    with pytest.raises(GeometryError, match=f"{re.escape(str(path))}: {message}"):
        read_field_map(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no table within 10 lines"),
        ("1,2,3\n" * 20, "no table within 10 lines"),
        ("x y z Bx By Bz\n0 0 0 0 0 1\n0 0 1 0 0\n", "line 3: '0 0 1 0 0'; expected 6 numbers"),
        ("0 0 0 0 0 1\n0 0 1 0 0 1e\n", "line 2: '0 0 1 0 0 1e'; expected 6 numbers"),
        ("r z Br Bz\n0 0 0 1e39\n6 0 0 1\n0 1 0 1\n6 1 0 1\n", "map.csv: the field at node (0, 0) is [0.0, inf] T"),
        ("r z Br Bz\n5 0 0 1\n6 0 0 1\n5 1 0 1\n6 1 0 1\n", "r of a field map starts at 5.0 mm; expected 0"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(GeometryError, match=re.escape(message)):
        read_field_map(path)


def test_other_faults_of_files(tmp_path, field):
    with pytest.raises(GeometryError, match=r"nothing\.cvf: the field map can't be read"):
        read_field_map(tmp_path / "nothing.cvf")
    (tmp_path / "map.root").write_bytes(b"")
    with pytest.raises(GeometryError, match="format 'root' of a field map is not known; name one of cvf, csv"):
        read_field_map(tmp_path / "map.root")
    (tmp_path / "map.cvf.gz").write_bytes(b"not packed")
    with pytest.raises(GeometryError, match="can't be read"):
        read_field_map(tmp_path / "map.cvf.gz")
    (tmp_path / "map.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(GeometryError, match="byte 0 is not text"):
        read_field_map(tmp_path / "map.csv")
    write_field_map(tmp_path / "map.dat", field, "cvf")
    assert read_field_map(tmp_path / "map.dat", "cvf").values.shape == (*SHAPE, 3)
    with pytest.raises(GeometryError, match=r"no \(r, z\) maps; write it as csv"):
        write_field_map(tmp_path / "solenoid.cvf", solenoid_field_map(spacing=500))
    assert not (tmp_path / "solenoid.cvf").exists()


@pytest.mark.parametrize(
    ("values", "origin", "spacing", "message"),
    [
        (np.zeros((2, 2, 3)), (0, 0), (1, 1), "field values have shape (2, 2, 3)"),
        (np.zeros((2, 1, 2)), (0, 0), (1, 1), "at least two nodes"),
        (np.zeros((2, 2, 2)), (0, 0, 0), (1, 1), "origin of a field map is (0.0, 0.0, 0.0); expected 2 finite numbers"),
        (np.zeros((2, 2, 2)), (0, 0), (1, 0), "spacing of a field map is (1.0, 0.0)"),
        (np.full((2, 2, 2), np.inf), (0, 0), (1, 1), "the field at node (0, 0) is [inf, inf] T"),
    ],
)
def test_impossible_maps_are_refused(values, origin, spacing, message):
    with pytest.raises(GeometryError, match=re.escape(message)):
        FieldMap(values, origin, spacing)


def test_interpolation_and_edges(field):
    rng = np.random.default_rng(2)
    inside = rng.uniform([-100, -50, -300], [100, 50, 300], (100, 3))
    np.testing.assert_allclose(field.at(inside), linear_field(inside), atol=1e-6)
    np.testing.assert_allclose(field.at([500, 0, -900]), linear_field(np.array([100, 0, -300])), atol=1e-6)


def test_maps_with_rotational_symmetry():
    r, z = np.meshgrid(np.arange(0, 500, 100.0), np.arange(-300, 301, 100.0), indexing="ij")
    field = FieldMap(np.stack([r * 1e-3, 2 + z * 1e-3], axis=-1), (0, -300), (100, 100))
    np.testing.assert_allclose(field.at([30, -40, 50]), [0.03, -0.04, 2.05], atol=1e-6)
    np.testing.assert_allclose(field.at([0, 0, 0]), [0, 0, 2], atol=1e-6)
    np.testing.assert_allclose(field.at([0, 800, 0]), [0, 0.4, 2], atol=1e-6)  # Br of the edge


def loop_field(radius, rho, z):
    """(Br, Bz) of a current loop, up to a factor."""
    near2, far2 = (radius - rho) ** 2 + z**2, (radius + rho) ** 2 + z**2
    m = 1 - near2 / far2
    first, second = ellipk(m), ellipe(m)
    b_z = ((radius**2 - rho**2 - z**2) * second + near2 * first) / (near2 * np.sqrt(far2))
    b_r = z / rho * ((radius**2 + rho**2 + z**2) * second - near2 * first) / (near2 * np.sqrt(far2))
    return np.array([b_r.sum(), b_z.sum()])


def test_solenoid_is_a_stack_of_current_loops():
    loops = np.arange(6000) - 2999.5
    field = solenoid_field_map(2.0, radius=1200, half_length=3000, spacing=50)
    scale = 2.0 / loop_field(1200.0, 1e-3, loops)[1]
    for rho, z in ((50.0, 0.0), (500.0, 2500.0), (1000.0, 3000.0), (1000.0, -1500.0), (300.0, 3150.0)):
        expected = scale * loop_field(1200.0, rho, z - loops)
        np.testing.assert_allclose(field.at([rho, 0, z])[[0, 2]], expected, atol=2e-6)
    assert field.at([0, 0, 0])[2] == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("changed", [{"r_max": 1200}, {"spacing": 0}, {"half_length": -1}, {"b_z": np.inf}])
def test_impossible_solenoids_are_refused(changed):
    with pytest.raises(GeometryError, match="expected a finite field, lengths > 0 and r_max < radius"):
        solenoid_field_map(**changed)


def test_detectors_with_maps(tmp_path, field):
    detector = build_detector("telescope")
    write_field_map(tmp_path / "map.cvf", field)
    from_file = detector.with_field_map(tmp_path / "map.cvf", allow_partial=True)
    other = detector.with_field_map(solenoid_field_map())
    assert len({d.fingerprint for d in (detector, from_file, other, detector.with_field(1.0))}) == 4
    assert other.arrays().b_z == pytest.approx(2 * T, rel=1e-6)
    assert other.b_field_z == pytest.approx(2.0)
    assert from_file.arrays().b_z == pytest.approx(linear_field(np.zeros(3))[2] * T, rel=1e-6)
    changed = field.values.copy()
    changed[2, 2, 4, 0] += 1e-3
    again = detector.with_field_map(FieldMap(changed, ORIGIN, SPACING), allow_partial=True)
    assert again.fingerprint != from_file.fingerprint
    assert from_file.with_field(2.0).fingerprint == detector.with_field(2.0).fingerprint
