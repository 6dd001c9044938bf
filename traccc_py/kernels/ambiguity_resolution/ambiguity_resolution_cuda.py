"""Ambiguity resolution of one event by a block of threads: the rounds of the plain body, with all candidates at once.

No thread walks a list of owners. In each round every candidate that shares too many measurements bids for all of its
own, with a key that orders candidates as the plain body does but for ties, which a second bid with the index decides.
Who has the highest bid for all of them is worse than all it shares one with. A measurement knows how many candidates
own it and the exclusive or of their indices: where one is left, that is its index. The entries of a candidate are dealt
to as many threads as there are for it, more of them in later rounds.

Two candidates that leave in the same round share no measurement, since only one of them can be the worst there: so each
measurement is changed by one thread alone. The order of the active candidates varies, and has no influence.
"""

from __future__ import annotations

import numpy as np

from traccc_py.device.cuda.block import block_function, cuda
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import (
    LEAVING,
    candidates_of_event,
    is_repeated,
    length,
    n_states,
    occurrences,
)

__all__ = ["resolve_event"]

_N_ACTIVE, _N_NEXT = 0, 1  # in shared memory
_LANES = 32  # most threads for one candidate
_SHARE_BITS = np.int64(31)  # of the share of shared measurements: exact for fewer than 46,000 of them
_LARGEST = np.int32(0x7FFFFFFF)


@block_function
def _key(p, candidate):
    """Return a number, larger for what goes first: by the share of shared measurements, then the p-value."""
    share = (np.int64(p.n_shared[candidate]) << _SHARE_BITS) // length(p.held.offsets, candidate)
    # The bits of numbers that are not negative are ordered as they are.
    return (share << _SHARE_BITS) + np.int64(_LARGEST - p.pval[candidate].view(np.int32))


@block_function
def _find_owners(p, first, end, thread, n_threads):
    """Count the accepted candidates of each measurement, and combine their indices."""
    for candidate in range(first + thread, end, n_threads):
        p.out.flag[candidate] = np.int32(1) if length(p.held.offsets, candidate) >= p.min_measurements else np.int32(0)
        for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
            m = p.held.measurements[k]  # cleared by all that share it
            p.owners.n[m] = np.int32(0)
            p.owners.offsets[m] = np.int32(0)
            p.worst.key_of[m] = np.int64(0)
            p.worst.candidate_of[m] = np.int32(0)
            p.owners.candidate[k] = np.int32(0) if is_repeated(p.held, candidate, k) else np.int32(1)
    cuda.syncthreads()
    for candidate in range(first + thread, end, n_threads):
        if p.out.flag[candidate] == 1:
            for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
                if p.owners.candidate[k] == 1:
                    m = p.held.measurements[k]
                    cuda.atomic.add(p.owners.n, m, np.int32(1))
                    cuda.atomic.xor(p.owners.offsets, m, np.int32(candidate))
    cuda.syncthreads()


@block_function
def _count_shared(p, first, end, thread, n_threads, shared):
    """Count the shared measurements of each accepted candidate; list those that share too many."""
    for candidate in range(first + thread, end, n_threads):
        n = np.int32(0)
        if p.out.flag[candidate] == 1:
            for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
                if p.owners.n[p.held.measurements[k]] > 1:
                    n += np.int32(1)
        p.n_shared[candidate] = n
        if n >= p.max_shared:
            p.worst.key[candidate] = _key(p, candidate)
            p.active[first + cuda.atomic.add(shared, _N_ACTIVE, np.int32(1))] = np.int32(candidate)
    cuda.syncthreads()


@block_function
def _bid(p, active, end, at, step, lane, lanes):
    """Bid the keys of the active candidates; who has the highest in the end is seen by the bid that follows."""
    for place in range(at, end, step):
        candidate = active[place]
        key = p.worst.key[candidate]
        for k in range(p.held.offsets[candidate] + lane, p.held.offsets[candidate + 1], lanes):
            cuda.atomic.max(p.worst.key_of, p.held.measurements[k], key)
    cuda.syncthreads()
    for place in range(at, end, step):
        candidate = active[place]
        key = p.worst.key[candidate]
        if lane == 0:
            p.out.flag[candidate] = np.int32(LEAVING)  # until it is outbid
        for k in range(p.held.offsets[candidate] + lane, p.held.offsets[candidate + 1], lanes):
            m = p.held.measurements[k]
            if p.worst.key_of[m] == key:
                cuda.atomic.max(p.worst.candidate_of, m, np.int32(candidate + 1))
    cuda.syncthreads()


@block_function
def _give_way(p, active, end, at, step, lane, lanes):
    """Let those stay that were outbid for a measurement."""
    for place in range(at, end, step):
        candidate = active[place]
        for k in range(p.held.offsets[candidate] + lane, p.held.offsets[candidate + 1], lanes):
            if p.worst.candidate_of[p.held.measurements[k]] != candidate + 1:
                p.out.flag[candidate] = np.int32(1)
    cuda.syncthreads()


@block_function
def _leave(p, active, end, at, step, lane, lanes):
    """Take those that go off their measurements, which a sole owner no longer shares; clear the bids."""
    for place in range(at, end, step):
        candidate = active[place]
        leaves = p.out.flag[candidate] == LEAVING
        for k in range(p.held.offsets[candidate] + lane, p.held.offsets[candidate + 1], lanes):
            m = p.held.measurements[k]
            p.worst.key_of[m] = np.int64(0)
            p.worst.candidate_of[m] = np.int32(0)
            if leaves and p.owners.candidate[k] == 1:
                left = p.owners.n[m] - np.int32(1)
                others = p.owners.offsets[m] ^ np.int32(candidate)
                p.owners.n[m] = left
                p.owners.offsets[m] = others
                if left == 1:
                    cuda.atomic.sub(p.n_shared, others, occurrences(p.held, others, m))
    cuda.syncthreads()


@block_function
def _list_next(p, active, following, first, end, thread, n_threads, shared):
    """Drop those that go, and list those that still share too many."""
    for place in range(first + thread, end, n_threads):
        candidate = active[place]
        if p.out.flag[candidate] == LEAVING:
            p.out.flag[candidate] = np.int32(0)
        elif p.n_shared[candidate] >= p.max_shared:
            p.worst.key[candidate] = _key(p, candidate)
            following[first + cuda.atomic.add(shared, _N_NEXT, np.int32(1))] = candidate
    cuda.syncthreads()


@block_function
def _do_round(p, active, following, first, n_active, thread, n_threads, shared):
    """Remove those that are locally worst; return how many are left that share too many."""
    if thread == 0:
        shared[_N_NEXT] = 0
    lanes = np.int32(1)
    while lanes < _LANES and lanes < n_threads and 2 * lanes * n_active <= n_threads:
        lanes *= np.int32(2)
    end, at, step = first + n_active, first + thread // lanes, n_threads // lanes
    lane = thread % lanes
    if thread >= step * lanes:
        at = end  # a thread too many
    _bid(p, active, end, at, step, lane, lanes)
    _give_way(p, active, end, at, step, lane, lanes)
    _leave(p, active, end, at, step, lane, lanes)
    _list_next(p, active, following, first, end, thread, n_threads, shared)
    n_left = shared[_N_NEXT]
    cuda.syncthreads()
    return n_left


@block_function
def resolve_event(i, thread, n_threads, p, shared):
    """Resolve the candidates of event i; writes only their flags and numbers of states."""
    first, end = candidates_of_event(p, i)
    if first == end:
        return
    if thread == 0:
        shared[_N_ACTIVE] = 0
    _find_owners(p, first, end, thread, n_threads)
    _count_shared(p, first, end, thread, n_threads, shared)
    n_active = shared[_N_ACTIVE]
    while n_active > 0:
        n_active = _do_round(p, p.active, p.worst.next_active, first, n_active, thread, n_threads, shared)
        if n_active > 0:
            n_active = _do_round(p, p.worst.next_active, p.active, first, n_active, thread, n_threads, shared)
    for candidate in range(first + thread, end, n_threads):
        p.out.n_states[candidate] = n_states(p.held.offsets, p.out.flag, candidate)
