"""The map between Athena's and detray's identifiers."""

import numpy as np
import pytest

from traccc_py.data.athena_ids import read_athena_ids
from traccc_py.errors import InputDataError


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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1f,5\n1f;6\n", "line 2: '1f;6'; expected a hexadecimal"),
        ("1f,5,6\n", "line 1: '1f,5,6'; expected"),
        ("1g,5\n", "line 1: '1g,5'; expected"),
        ("1f,5.0\n", "line 1: '1f,5.0'; expected"),
        ("\n1f,0\n", "line 2: 0 is no identifier; expected a number from 1 to"),
        ("10000000000000000,5\n", "line 1: 18446744073709551616 is no identifier"),
        ("1f,5\n2f,6\n\n1f,7\n", "line 4: Athena identifier 0x1f stands in line 1 already"),
        ("1f,5\n2f,5\n", "line 2: detray identifier 5 stands in line 1 already"),
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
