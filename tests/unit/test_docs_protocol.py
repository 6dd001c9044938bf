"""The page on the protocol says what the table of tensors says."""

import re
from pathlib import Path

import pytest

from traccc_py import wire

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| \[([\w, ]+)\] \| [^|]+ \| (.*) \|$", re.MULTILINE)
ROWS = {name: (dtype, shape, columns) for name, dtype, shape, columns in ROW.findall(PAGE)}
SPECS = (*wire.STANDARD_INPUTS, *wire.COMPACT_INPUTS, *wire.OUTPUTS)
MATRICES = (wire.COVARIANCES, wire.TRK_COVARIANCES)


def test_every_tensor_has_its_row():
    assert list(ROWS) == [spec.name for spec in SPECS]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: s.name)
def test_rows_are_those_of_the_table(spec):
    dtype, shape, columns = ROWS[spec.name]
    assert dtype == spec.triton_dtype
    assert shape == ", ".join("n" if d < 0 else str(d) for d in spec.dims)
    if spec not in MATRICES:
        assert re.findall(r"`(\w+)`", columns) == [column.name for column in spec.columns]


def test_constants():
    assert f"| `protocol_version` | {wire.PROTOCOL_VERSION};" in PAGE
    assert ", ".join(wire.STAGE_NAMES).replace(" ", "") in PAGE.replace("\n ", "").replace(" ", "")
    for name in (wire.MODEL, wire.COMPACT_MODEL, wire.CORE_MODEL, wire.FINGERPRINT_PARAMETER, wire.OUTPUTS_PARAMETER):
        assert f"`{name}`" in PAGE
