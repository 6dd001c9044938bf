"""Spacepoint files: links to measurements, and what is refused."""

import numpy as np
import pytest

from tests.unit.test_data_prepare_measurements import make_measurements, make_spacepoints
from traccc_py.data.spacepoint_files import measurements_file_of, read_spacepoints, write_spacepoints
from traccc_py.errors import InputDataError
from traccc_py.geometry import build_detector

NONE = 2**64 - 1


@pytest.fixture(scope="module")
def measurements():
    return make_measurements(build_detector("toy"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "event000000003-spacepoints.csv"


def test_what_is_written_is_read_to_the_bit(measurements, path):
    spacepoints = make_spacepoints(build_detector("toy"), measurements)
    for name in (path, path.with_name(path.name + ".gz")):
        write_spacepoints(name, spacepoints, measurements)
        found = read_spacepoints(name, measurements)
        np.testing.assert_array_equal(found.global_position, spacepoints.global_position)
        np.testing.assert_array_equal(found.measurement_index, spacepoints.measurement_index)
        assert found.measurement_index.dtype == np.int32


@pytest.mark.parametrize(
    "header",
    [
        "measurement_id,x,y,z",
        "measurement_id_1,measurement_id_2,geometry_id_1,geometry_id_2,x,y,z,t,var_r,var_z",
        "measurement_id,sp_x,sp_y,sp_z,sp_radius",
    ],
)
def test_columns_of_acts_are_read(measurements, path, header):
    values = {"x": "1.5", "y": "-2", "z": "3e2", "t": "nan", "measurement_id_2": str(NONE)}
    ids = measurements.measurement_id[[4, 2]].tolist()
    rows = [
        ",".join(
            {"measurement_id": str(i)}.get(c.removesuffix("_1"), values.get(c.removeprefix("sp_"), "0"))
            for c in header.split(",")
        )
        for i in ids
    ]
    path.write_text("\n".join([header, *rows, ""]))
    found = read_spacepoints(path, measurements)
    assert found.measurement_index.tolist() == [4, 2]
    assert found.global_position.tolist() == [[1.5, -2, 300]] * 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("geometry_id,x,y,z\n1,2,3,4\n", "line 1: no column measurement_id or measurement_id_1; the header has"),
        ("measurement_id,x,y,z\n7,2,3,4\n999,2,3,4\n", "line 3: column measurement_id is '999'; .* none has it"),
        ("measurement_id,x,y,z\n7,2,nan,4\n", "line 2: column y is 'nan'; expected a finite number"),
        ("measurement_id,sp_x,sp_y,sp_z\n7,2,z,4\n", "line 2: column sp_y is 'z'; expected a finite number"),
        (
            f"measurement_id_1,measurement_id_2,x,y,z\n7,{NONE},3,4,5\n7,8,3,4,5\n",
            f"line 3: column measurement_id_2 is '8'; expected {NONE} .none.: spacepoints of two strip",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(measurements, path, text, problem):
    path.write_text(text)
    with pytest.raises(InputDataError, match=f"event000000003-spacepoints.csv, {problem}"):
        read_spacepoints(path, measurements)


def test_ids_must_be_unique(measurements, path):
    path.write_text("measurement_id,x,y,z\n7,2,3,4\n")
    measurements = make_measurements(build_detector("toy"))
    measurements.measurement_id[:2] = 7
    n = np.count_nonzero(measurements.measurement_id == 7)
    with pytest.raises(InputDataError, match=rf"line 2: column measurement_id is '7'; .*; {n} have it"):
        read_spacepoints(path, measurements)


@pytest.mark.parametrize("name", ["spacepoints.csv", "spacepoint.csv", "spacepoints.csv.gz"])
def test_the_measurements_stand_beside(tmp_path, name):
    path = tmp_path / f"event000000001-{name}"
    with pytest.raises(InputDataError, match=r"event000000001-measurements\.csv or .*: there is neither"):
        measurements_file_of(path)
    plain = tmp_path / "event000000001-measurements.csv"
    plain.touch()
    assert measurements_file_of(path) == plain
    plain.with_name(plain.name + ".gz").touch()
    with pytest.raises(InputDataError, match="there are both"):
        measurements_file_of(path)
    with pytest.raises(InputDataError, match=r"expected a name that ends in -spacepoints\.csv"):
        measurements_file_of(tmp_path / "muons.csv")
