"""Ambiguity resolution of one event by a block of threads: the rounds of the plain body, with all candidates at once.

Lists of owners get their places in an order that varies, and so do the candidates that are active; neither has an
influence on who is removed. Two candidates that leave in the same round share no measurement, since only one of them
can be the worst there: so each list is changed by one thread alone.
"""

from __future__ import annotations

import numpy as np

from traccc_py.device.cuda.block import block_function, cuda
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import (
    LEAVING,
    candidates_of_event,
    is_locally_worst,
    is_repeated,
    length,
    n_states,
    occurrences,
)

__all__ = ["resolve_event"]

_CURSOR, _N_ACTIVE = 0, 1  # in shared memory


@block_function
def _count_owners(p, first, end, thread, n_threads):
    """Count the candidates of each measurement; mark in `owners` the entry that was the first to count."""
    for candidate in range(first + thread, end, n_threads):
        p.out.flag[candidate] = np.int32(1) if length(p.held.offsets, candidate) >= p.min_measurements else np.int32(0)
        for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
            p.owners.n[p.held.measurements[k]] = np.int32(0)  # by all that share it
    cuda.syncthreads()
    for candidate in range(first + thread, end, n_threads):
        for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
            before = np.int32(1)
            if p.out.flag[candidate] == 1 and not is_repeated(p.held, candidate, k):
                before = cuda.atomic.add(p.owners.n, p.held.measurements[k], np.int32(1))
            p.owners.candidate[k] = np.int32(1) if before == 0 else np.int32(0)
    cuda.syncthreads()


@block_function
def _place_lists(p, first, end, thread, n_threads, shared):
    """Give the list of each measurement a place in `owners`, and empty it."""
    own = np.int32(0)
    for k in range(p.held.offsets[first] + thread, p.held.offsets[end], n_threads):
        if p.owners.candidate[k] == 1:
            own += p.owners.n[p.held.measurements[k]]
    at = cuda.atomic.add(shared, _CURSOR, own)
    for k in range(p.held.offsets[first] + thread, p.held.offsets[end], n_threads):
        if p.owners.candidate[k] == 1:
            m = p.held.measurements[k]
            p.owners.offsets[m] = at
            at += p.owners.n[m]
            p.owners.n[m] = np.int32(0)
    cuda.syncthreads()


@block_function
def _fill_lists(p, first, end, thread, n_threads):
    """List the accepted candidates of each measurement."""
    for candidate in range(first + thread, end, n_threads):
        if p.out.flag[candidate] == 1:
            for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
                if not is_repeated(p.held, candidate, k):
                    m = p.held.measurements[k]
                    place = p.owners.offsets[m] + cuda.atomic.add(p.owners.n, m, np.int32(1))
                    p.owners.candidate[place] = np.int32(candidate)
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
            p.active[first + cuda.atomic.add(shared, _N_ACTIVE, np.int32(1))] = np.int32(candidate)
    cuda.syncthreads()


@block_function
def _remove(p, candidate):
    """Take a candidate out of the lists of its measurements; a sole owner that is left no longer shares them."""
    for k in range(p.held.offsets[candidate], p.held.offsets[candidate + 1]):
        if is_repeated(p.held, candidate, k):
            continue
        m = p.held.measurements[k]
        last = p.owners.offsets[m] + p.owners.n[m] - 1
        for at in range(p.owners.offsets[m], last):
            if p.owners.candidate[at] == candidate:
                p.owners.candidate[at] = p.owners.candidate[last]
        p.owners.n[m] -= np.int32(1)
        if p.owners.n[m] == 1:
            rest = p.owners.candidate[p.owners.offsets[m]]
            cuda.atomic.sub(p.n_shared, rest, occurrences(p.held, rest, m))


@block_function
def _is_removable(p, candidate):
    """Return whether a candidate is accepted and shares too many measurements."""
    return p.out.flag[candidate] == 1 and p.n_shared[candidate] >= p.max_shared


@block_function
def _do_round(p, first, end, thread, n_threads):
    """Remove those that are locally worst; return whether some are left that share too many."""
    for k in range(first + thread, end, n_threads):
        if _is_removable(p, p.active[k]) and is_locally_worst(p, p.active[k]):
            p.out.flag[p.active[k]] = np.int32(LEAVING)
    cuda.syncthreads()
    for k in range(first + thread, end, n_threads):
        if p.out.flag[p.active[k]] == LEAVING:
            _remove(p, p.active[k])
            p.out.flag[p.active[k]] = np.int32(0)
    cuda.syncthreads()
    is_left = np.int32(0)
    for k in range(first + thread, end, n_threads):
        if _is_removable(p, p.active[k]):
            is_left = np.int32(1)
    return cuda.syncthreads_or(is_left)


@block_function
def resolve_event(i, thread, n_threads, p, shared):
    """Resolve the candidates of event i; writes only their flags and numbers of states."""
    first, end = candidates_of_event(p, i)
    if first == end:
        return
    if thread == 0:
        shared[_CURSOR] = p.held.offsets[first]
        shared[_N_ACTIVE] = 0
    _count_owners(p, first, end, thread, n_threads)
    _place_lists(p, first, end, thread, n_threads, shared)
    _fill_lists(p, first, end, thread, n_threads)
    _count_shared(p, first, end, thread, n_threads, shared)
    end_active = first + shared[_N_ACTIVE]
    is_left = end_active - first
    while is_left > 0:
        is_left = _do_round(p, first, end_active, thread, n_threads)
    for candidate in range(first + thread, end, n_threads):
        p.out.n_states[candidate] = n_states(p.held.offsets, p.out.flag, candidate)
