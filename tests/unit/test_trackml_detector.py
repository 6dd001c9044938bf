"""TrackML's detectors.csv as a detector: the modules, their readout, and files that are broken."""

import numpy as np
import pytest

from tests.trackml_files import PITCH, toy_rows, write_rows
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import GeometryError, InputDataError
from traccc_py.geometry import build_detector, read_trackml_detector
from traccc_py.geometry.records import Shape
from traccc_py.geometry.surfaces import encode_geometry_id
from traccc_py.geometry.trackml import MODULE_COLUMNS

COLUMN = {name: k for k, name in enumerate(MODULE_COLUMNS)}


@pytest.fixture(scope="module")
def rows():
    return toy_rows()


def some(rows, n=60):
    """The first modules, which are of one layer."""
    return rows[:n].copy()


def test_modules_are_those_of_the_file(tmp_path, rows):
    toy = build_detector("toy", n_endcap_layers=0)
    found = build_detector(write_rows(tmp_path / "detectors.csv.gz", rows), b_field_z=3.0)
    assert found.name == "trackml"
    assert found.b_field_z == 3.0
    assert np.array_equal(found.geometry_ids, toy.geometry_ids)
    for name in ("centre", "u", "v", "w", "hx_min", "hx_max", "hy", "thickness"):
        assert np.abs(getattr(found.surfaces, name) - getattr(toy.surfaces, name)).max() < 1e-6, name
    sensitive = np.flatnonzero(found.layers["is_sensitive"])
    assert len(sensitive) == 4
    names = [found.layer_names[k] for k in range(len(found.layers)) if k not in sensitive]
    assert names == ["beam pipe", "pixel support tube"]


def test_order_of_rows_and_further_columns_change_nothing(tmp_path, rows):
    plain = read_trackml_detector(write_rows(tmp_path / "a.csv", rows))
    mixed = np.random.default_rng(1).permutation(rows)
    wider = np.column_stack([np.arange(len(mixed)), mixed, np.ones(len(mixed))])
    found = read_trackml_detector(write_rows(tmp_path / "b.csv", wider, ("row", *MODULE_COLUMNS, "note")))
    assert found.fingerprint == plain.fingerprint


def test_missing_modules_are_missing(tmp_path, rows):
    found = read_trackml_detector(write_rows(tmp_path / "detectors.csv", np.delete(rows, [5, 700], axis=0)))
    assert len(found.geometry_ids) == len(rows) - 2
    gone = encode_geometry_id(*rows[5, :3])
    with pytest.raises(InputDataError, match="is it the right detector"):
        found.module_index([gone])


def test_channels_go_from_edge_to_edge(tmp_path, rows):
    rows = some(rows)
    rows[:, COLUMN["pitch_v"]] = 7.0  # 72 mm: 11 channels, the last stands out
    found = read_trackml_detector(write_rows(tmp_path / "detectors.csv", rows))
    design = found.digitization.designs[0]
    assert [axis.n_channels for axis in design.axes] == [336, 11]
    assert [axis.pitch for axis in design.axes] == pytest.approx([PITCH, 7.0])
    assert design.axes[0].minimum == pytest.approx(-8.4)
    assert design.is_digital


def test_each_kind_of_sensor_has_a_design(tmp_path, rows):
    rows = some(rows)
    rows[::2, [COLUMN["module_minhu"], COLUMN["module_maxhu"]]] = 6.0, 7.4  # trapezoids
    found = read_trackml_detector(write_rows(tmp_path / "detectors.csv", rows))
    volume = int(rows[0, 0])
    assert found.digitization.design_names == (f"{volume}/1", f"{volume}/2")
    is_trapezoid = found.surfaces.shape == Shape.TRAPEZOID
    assert np.count_nonzero(is_trapezoid) == 30
    half = np.array([design.axes[0].maximum for design in found.digitization.designs])
    assert np.allclose(half[found.design_of_surface], np.where(is_trapezoid, 7.4, 8.4))
    assert not found.digitization.designs[0].is_digital


def test_name_of_the_readout_follows_from_the_designs(tmp_path, rows):
    first = read_trackml_detector(write_rows(tmp_path / "a.csv", some(rows)))
    again = read_trackml_detector(write_rows(tmp_path / "b.csv", some(rows, 50)))
    other = some(rows)
    other[:, COLUMN["pitch_u"]] = 0.1
    wider = read_trackml_detector(write_rows(tmp_path / "c.csv", other))
    assert first.digitization.name == again.digitization.name != wider.digitization.name


def test_rectangles_may_have_no_smaller_width(tmp_path, rows):
    rows = some(rows)
    rows[:, COLUMN["module_minhu"]] = -1
    found = read_trackml_detector(write_rows(tmp_path / "detectors.csv", rows))
    assert (found.surfaces.shape == Shape.RECTANGLE).all()


def test_options_of_commands_take_the_file(tmp_path, rows):
    path = write_rows(tmp_path / "detectors.csv", rows)
    found = DetectorOptions(detector_file=path, bfield_value=1.0).load()
    assert (found.name, found.b_field_z) == ("trackml", 1.0)
    with pytest.raises(GeometryError, match="no material and grid files"):
        DetectorOptions(detector_file=path, material_files=(tmp_path / "m.json",)).load()


def set_to(column, value, row=3):
    def change(rows):
        rows[row, COLUMN[column]] = value
        return rows

    return change


BROKEN = {
    "id": (set_to("module_id", 1.5), "line 5: column module_id is 1.5; expected an integer from 1 to 1048575"),
    "volume": (set_to("volume_id", 256), "line 5: column volume_id is 256; expected an integer from 1 to 255"),
    "nan": (set_to("cx", np.nan), "line 5: column cx is 'nan'; expected a finite number"),
    "thickness": (set_to("module_t", 0), "line 5: column module_t is 0; expected a length > 0 mm"),
    "pitch": (set_to("pitch_u", 1e-6), "leaves less than 1000000 channels"),
    "rotation": (set_to("rot_xu", 5), "right-handed and orthonormal"),
    "mirrored": (lambda rows: rows * np.where(np.isin(MODULE_COLUMNS, ["rot_xw", "rot_yw", "rot_zw"]), -1, 1), "right"),
    "twice": (lambda rows: np.concatenate([rows, rows[:1]]), "occurs twice; ids must be unique"),
    "none": (lambda rows: rows[:0], "has no modules"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_told_with_file_and_line(tmp_path, rows, case):
    change, message = BROKEN[case]
    path = write_rows(tmp_path / "detectors.csv", change(some(rows)))
    with pytest.raises(GeometryError) as error:
        read_trackml_detector(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_other_files_are_refused(tmp_path, rows):
    for name, content, message in (
        ("other.csv", b"a,b\n1,2\n", "there is no column volume_id"),
        ("empty.csv", b"", "there is no column volume_id"),
        ("binary.csv", bytes(range(256)), "can't be read as CSV"),
        ("cut.csv.gz", b"\x1f\x8b\x08", "can't be read as CSV"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(GeometryError, match=message):
            read_trackml_detector(path)
    path = write_rows(tmp_path / "short.csv", some(rows))
    path.write_bytes(path.read_bytes()[:-20].rsplit(b",", 3)[0] + b"\n")
    with pytest.raises(GeometryError, match=r"values; expected 21, as in the header"):
        read_trackml_detector(path)
    with pytest.raises(GeometryError, match="can't be read as CSV"):
        read_trackml_detector(tmp_path / "none.csv")
