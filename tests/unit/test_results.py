"""Loops that cut a batch's outputs into events."""

import numpy as np
import pytest

from traccc_py.pipeline.result_loop import list_cells, place_on_surfaces


@pytest.mark.parametrize("n_measurements", [5000, 0])
def test_cells_are_ordered_by_measurement_then_by_row(n_measurements):
    random = np.random.default_rng(1)
    n_cells = random.integers(1, 4, n_measurements)
    of_cell = random.permutation(np.repeat(np.arange(n_measurements, dtype=np.int32), n_cells))
    found = np.empty(len(of_cell), np.int64)
    list_cells(of_cell, np.cumsum(n_cells) - n_cells, found)
    np.testing.assert_array_equal(found, np.argsort(of_cell, kind="stable"))


def test_positions_are_centre_plus_local_coordinates_along_the_axes():
    random = np.random.default_rng(2)
    frames = tuple(random.normal(size=(7, 3)) for _ in range(3))
    surface, params = random.integers(0, 7, 50).astype(np.int32), random.normal(size=(50, 6)).astype(np.float32)
    found = np.empty((50, 3), np.float32)
    place_on_surfaces(surface, params, frames, found)
    centre, u, v = (frame[surface] for frame in frames)
    expected = centre + params[:, :1].astype(float) * u + params[:, 1:2].astype(float) * v
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
