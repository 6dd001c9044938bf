"""Running sums by executed PTX: several columns, many chunks, any turns of threads and blocks."""

import numpy as np
import pytest

from tests.ptx.device import ptx_device
from tests.ptx.wanted import unwanted
from traccc_py.device import scan
from traccc_py.device.workspace import ScanColumn, Workspace

N_ROWS = 20_000
LARGEST = {"flags": 2, "counts": 9, "others": 3}


@pytest.mark.parametrize(("mode", "seed"), [("check", 0), ("check", 3), ("mix", 1), ("mix", 2)])
@pytest.mark.parametrize("n_columns", [1, 2, 3])
def test_sums_and_lists_are_numpys_and_the_work_space_is_left_as_it_was(mode, seed, n_columns):
    device = ptx_device(mode, seed=seed)
    ws = Workspace(device)
    random = np.random.default_rng(5)
    rows = ws.extent("rows")
    ws.set_size(rows, N_ROWS)
    columns, given = [], []
    for name, largest in list(LARGEST.items())[:n_columns]:
        values = random.integers(0, largest, rows.capacity).astype(np.int32)
        total = ws.extent(name)
        ws.reserve(total, 10 * N_ROWS)
        offsets = device.zeros(rows.capacity + 1, np.int32)
        listed = device.zeros(total.capacity, np.int32) if name == "flags" else None
        columns.append(ScanColumn(device.to_device(values), offsets, total, listed))
        given.append(values[:N_ROWS])
    for _ in range(2):
        ws.scan_together(rows, *columns)
        for column, values in zip(columns, given, strict=True):
            offsets = device.to_host(column.offsets)[: N_ROWS + 1]
            np.testing.assert_array_equal(offsets, np.concatenate([[0], np.cumsum(values)]))
            assert ws.size(column.total) == values.sum()
        listed = np.flatnonzero(given[0])
        np.testing.assert_array_equal(device.to_host(columns[0].rows)[: len(listed)], listed)
        assert not device.to_host(device._work).any()
    assert n_columns * N_ROWS > 4 * scan.THREADS * 16 * n_columns
    assert unwanted(device.ptx.problems) == []
