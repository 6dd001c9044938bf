"""Numbers of measurements that tracks share with others."""

import numpy as np
import pytest

from traccc_py.pipeline.results import _n_shared


def shared(tracks, first=0, n=40):
    """Numbers for lists of measurements, rows of a batch whose event begins at `first`."""
    rows = np.array([m for track in tracks for m in track], np.int32)
    return _n_shared(rows + np.int32(first), np.array([len(t) for t in tracks], np.int32), slice(first, first + n))


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        ([], []),
        ([[3, 1, 2]], [0]),
        ([[0, 1, 2], [3, 4, 5]], [0, 0]),
        ([[0, 1, 2], [2, 3, 4], [4, 0, 7]], [2, 2, 2]),
        ([[5, 1], [5, 2], [5, 3]], [1, 1, 1]),
        ([[6, 6, 1], [1, 2]], [1, 1]),  # twice on one track is not shared
        ([[6, 6], [6]], [2, 1]),
    ],
)
def test_measurements_on_other_tracks_are_counted(tracks, expected):
    found = shared(tracks)
    assert found.dtype == np.int32
    assert found.tolist() == expected
    assert shared(tracks, first=1000).tolist() == expected


def test_numbers_are_those_of_plain_loops():
    random = np.random.default_rng(4)
    tracks = [random.integers(0, 40, random.integers(1, 9)).tolist() for _ in range(25)]
    expected = [sum(any(m in other for other in tracks if other is not t) for m in t) for t in tracks]
    assert sum(expected) > 0
    assert shared(tracks).tolist() == expected
