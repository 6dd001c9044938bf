"""Cutting of a batch's outputs into events."""

import numpy as np
import pytest

from traccc_py.pipeline import results
from traccc_py.pipeline.results import _by_measurement


@pytest.mark.parametrize("most", [2**16, 50, 3])
@pytest.mark.parametrize(("n_modules", "n_measurements"), [(100, 5000), (10, 0), (20, 70_000), (1, 70_000)])
def test_cells_are_ordered_by_measurement_then_by_row(n_modules, n_measurements, most, monkeypatch):
    """Also where a module has more measurements than are sorted at a time."""
    monkeypatch.setattr(results, "_MOST_IN_RADIX", most)
    random = np.random.default_rng(1)
    module = np.sort(random.integers(0, n_modules, n_measurements))
    ends = np.searchsorted(module, np.arange(n_modules + 1)).astype(np.int32)
    n_cells = random.integers(1, 4, n_measurements)
    of_cell = np.repeat(np.arange(n_measurements, dtype=np.int32), n_cells)
    of_cell = of_cell[np.lexsort((random.random(len(of_cell)), np.repeat(module, n_cells)))]
    found = _by_measurement(of_cell, np.concatenate(([0], np.cumsum(n_cells))), ends)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.argsort(of_cell, kind="stable"))
