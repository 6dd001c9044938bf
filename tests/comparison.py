"""Results of a GPU against those of the CPU: which differences are rounding, and which are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Contraction to fused multiply-add makes the last bits of CUDA's results differ.
MAX_SIGMAS = 0.05  # of a fitted parameter, in units of its error
MAX_MOVED = 1e-3  # share of tracks with other measurements: a cut variable within 1e-4 of its cut
_DIAGONAL = (0, 2, 5, 9, 14)  # of a packed covariance


@dataclass
class Comparison:
    """How the tracks of two results compare."""

    n_expected: int
    n_found: int
    n_same: int  # with the same measurements, as many of them outliers
    largest_shift: float  # of their parameters, in units of the error
    same_measurements: bool  # clusters, positions within 3e-5 mm
    same_seeds: float  # share; 1 where one differs

    @property
    def is_good(self) -> bool:
        """Whether only rounding differs."""
        moved = max(self.n_expected, self.n_found) - self.n_same
        return (
            self.same_measurements
            and moved <= max(1, MAX_MOVED * self.n_expected)
            and self.largest_shift < MAX_SIGMAS
            and self.same_seeds > 1 - MAX_MOVED
        )


def tracks_by_measurements(result: Any) -> dict[tuple[int, ...], int]:
    """Return the rows of tracks by the measurements they hold, and the number of those that the fit left out."""
    states, offsets = result.track_states.measurement_index, result.tracks.state_offsets
    left_out = result.tracks.n_outliers
    return {(left_out[k], *states[offsets[k] : offsets[k + 1]]): k for k in range(len(result.tracks))}


def compare(found: Any, expected: Any) -> Comparison:
    """Compare the results of one event.

    Parameters
    ----------
    found, expected : EventResult
        Results of the same cells.

    Returns
    -------
    Comparison
        Counts, and the largest differences.
    """
    here, there = tracks_by_measurements(found), tracks_by_measurements(expected)
    common = [(row, there[key]) for key, row in here.items() if key in there]
    largest = 0.0
    if common:
        a, b = (np.array(rows) for rows in zip(*common, strict=True))
        error = np.sqrt(np.maximum(expected.tracks.covariance[b][:, _DIAGONAL], 1e-30))
        shift = found.tracks.params[a] - expected.tracks.params[b]
        shift[:, 2] = (shift[:, 2] + np.pi) % (2 * np.pi) - np.pi
        fitted = expected.tracks.fit_outcome[b] == expected.tracks.fit_outcome.min()
        largest = float(np.abs(shift / error)[fitted].max(initial=0.0))
    m, n = found.measurements, expected.measurements
    same = len(m.geometry_id) == len(n.geometry_id) and bool(
        np.array_equal(m.geometry_id, n.geometry_id)
        and np.array_equal(m.cell_indices, n.cell_indices)
        and np.allclose(m.local_position, n.local_position, rtol=0, atol=3e-5)
    )
    seeds, right = (set(zip(*(c.tolist() for c in _triplets(r)), strict=True)) for r in (found, expected))
    is_one = len(seeds) == len(right) > 2 and len(seeds ^ right) <= 2
    share = 1.0 if is_one or seeds == right else len(seeds & right) / len(seeds | right)
    return Comparison(len(there), len(here), len(common), largest, same, share)


def _triplets(result: Any) -> tuple[np.ndarray, ...]:
    seeds = result.seeds
    return seeds.bottom_index, seeds.middle_index, seeds.top_index
