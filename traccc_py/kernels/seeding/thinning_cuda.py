"""Seed thinning: a block of threads settles what is left of an event."""

from __future__ import annotations

import numpy as np

from traccc_py.device.cuda.block import block_function, cuda
from traccc_py.kernels.seeding.thinning import UNDECIDED, decision, is_followed, seeds_of_event

__all__ = ["settle_event"]


@block_function
def settle_event(i, thread, n_threads, p):
    """One event: decide on all its seeds that are left, and flag those that are kept."""
    first, end = seeds_of_event(p, i)
    is_left = 1
    while is_left != 0:
        own = np.int32(0)
        for seed in range(first + thread, end, n_threads):
            if p.state[seed] == UNDECIDED:
                p.state[seed] = decision(p, np.int32(seed))
                if p.state[seed] == UNDECIDED:
                    own = np.int32(1)
        is_left = cuda.syncthreads_or(own)
    for seed in range(first + thread, end, n_threads):
        p.out_is_kept[seed] = is_followed(p, np.int32(seed))
