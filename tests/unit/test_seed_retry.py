"""The second pass of track finding: which of the seeds that thinning dropped are followed after all."""

from __future__ import annotations

from itertools import product

import numpy as np

from traccc_py.config import FindingConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.finding.branches import Branches
from traccc_py.kernels.finding.retry import find_used, list_retried
from traccc_py.kernels.tracking.batch import SeedBatch

CUTS = FindingConfig(min_measurements=3)


def retried(triplets, is_kept, tracks, stopped=()):
    """Return the seeds that are followed again; `tracks`: measurements that each seed was found to have."""
    n = len(triplets)
    columns = np.asarray(triplets, np.int32).T.copy()
    n_spacepoints = int(columns.max()) + 1
    zeros = np.zeros(n, np.int32)
    code = np.full((n, 8), -1, np.int32)
    sizes = np.array([len(tracks.get(i, ())) for i in range(n)], np.int32)
    for i, measurements in tracks.items():
        code[i, : len(measurements)] = measurements
    is_stopped = np.isin(np.arange(n), stopped).astype(np.int32)
    branches = Branches(
        code, code.astype(np.float32), sizes, sizes, zeros, zeros.astype(np.float32), 2 * sizes, is_stopped
    )
    seeds = SeedBatch(*columns, np.zeros(n, np.float32), zeros)
    own = np.arange(n_spacepoints, dtype=np.int32)  # spacepoint k is of measurement k
    ws = Workspace(CpuDevice(1))
    for _ in range(4):
        ws.set_sizes(seeds=n, measurements=n_spacepoints)
        is_used = find_used(ws, branches, 1, CUTS)
        rows = list_retried(ws, seeds, np.asarray(is_kept, np.int32), own, is_used)
        if not ws.overflowed():
            break
    return set(rows[: ws.size(ws.extent("retried_seeds"))].tolist())


def test_a_seed_is_followed_again_unless_its_middle_or_both_ends_are_on_a_track():
    used = (0, 1, 2)
    free = iter(range(3, 100))
    flags = list(product((False, True), repeat=3))
    triplets = [used, *([used[k] if is_used[k] else next(free) for k in range(3)] for is_used in flags)]
    expected = {1 + row for row, (bottom, middle, top) in enumerate(flags) if not middle and not (bottom and top)}
    is_kept = [1] + [0] * len(flags)
    assert retried(triplets, is_kept, {0: used}) == expected
    assert len(expected) == 3


def test_tracks_that_holes_stopped_or_that_are_short_do_not_use_up_spacepoints():
    triplets, is_kept = [(0, 1, 2), (0, 1, 3)], [1, 0]
    assert retried(triplets, is_kept, {0: (0, 1, 2)}) == set()
    assert retried(triplets, is_kept, {0: (0, 1)}) == {1}
    assert retried(triplets, is_kept, {0: (0, 1, 2, 4, 5)}, stopped=[0]) == {1}


def test_kept_seeds_are_not_followed_twice():
    assert retried([(0, 1, 2), (3, 4, 5)], [1, 1], {}) == set()
