"""The map between Athena's and detray's identifiers."""

from dataclasses import replace

import numpy as np
import pytest

from traccc_py.data.athena_ids import read_athena_ids
from traccc_py.errors import GeometryError, InputDataError
from traccc_py.geometry import build_detector


@pytest.fixture
def path(tmp_path):
    return tmp_path / "map.txt"


def test_both_directions(path):
    path.write_text("6e6cc00000000,281474976710719\n0x1F,5\nffffffffffffffff,18446744073709551614\n\n")
    ids = read_athena_ids(path)
    assert ids.athena.dtype == ids.detray.dtype == np.uint64
    assert ids.to_detray(np.array([31, 31, 2**64 - 1], np.uint64)).tolist() == [5, 5, 2**64 - 2]
    assert ids.to_detray(np.array([-1])).tolist() == [2**64 - 2]  # through a signed column
    assert ids.to_athena(ids.detray[::-1]).tolist() == [2**64 - 1, 31, 0x6E6CC00000000]
    assert ids.to_athena(np.zeros(0, np.uint64)).tolist() == []


def test_unknown_ids_are_named(path):
    path.write_text("1f,5\n")
    ids = read_athena_ids(path)
    with pytest.raises(InputDataError, match=r"row 1 .*Athena identifier 0x20 is not in .*map\.txt"):
        ids.to_detray(np.array([31, 32]))
    with pytest.raises(InputDataError, match=r"row 0 .*detray identifier 31 is not in"):
        ids.to_athena(np.array([31]))
    path.write_text("")
    with pytest.raises(InputDataError, match="row 0"):
        read_athena_ids(path).to_athena(np.array([31]))


def test_pairs_of_a_detector_have_its_own_ids(path):
    detector = build_detector("telescope", n_planes=3)
    own = detector.geometry_ids
    detector = replace(detector, detray_ids=np.array([30, 10, 20], np.uint64))
    path.write_text(f"a3,20\na1,30\na9,99\na2,{own[1]}\n")  # of both kinds, and one that is no sensor
    ids = read_athena_ids(path).for_detector(detector)
    np.testing.assert_array_equal(ids.to_detray(np.array([0xA1, 0xA2, 0xA3, 0xA1])), own[[0, 1, 2, 0]])
    assert ids.to_athena(own[::-1]).tolist() == [0xA3, 0xA2, 0xA1]
    with pytest.raises(InputDataError, match=r"row 1 .*Athena identifier 0xa9 is not in"):
        ids.to_detray(np.array([0xA1, 0xA9]))
    path.write_text(f"a3,20\na2,{own[1]}\n")
    with pytest.raises(GeometryError, match=rf"map\.txt: 1 of 3 sensors have no Athena identifier.* {own[0]}"):
        read_athena_ids(path).for_detector(detector)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1f,5\n1f;6\n", "line 2: '1f;6'; expected a hexadecimal"),
        ("1f,5,6\n", "line 1: '1f,5,6'; expected"),
        ("1g,5\n", "line 1: '1g,5'; expected"),
        ("1f,5.0\n", "line 1: '1f,5.0'; expected"),
        ("\n1f,0\n", "line 2: 0 is not an identifier; expected a number from 1 to"),
        ("10000000000000000,5\n", "line 1: 18446744073709551616 is not an identifier"),
        ("1f,5\n2f,6\n\n1f,7\n", "line 4: Athena identifier 0x1f is already in line 1"),
        ("1f,5\n2f,5\n", "line 2: detray identifier 5 is already in line 1"),
    ],
)
def test_bad_lines_are_named(path, text, problem):
    path.write_text(text)
    with pytest.raises(InputDataError, match=rf"map\.txt, {problem}"):
        read_athena_ids(path)


def test_binary_files_are_refused(path):
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputDataError, match="is not text"):
        read_athena_ids(path)
