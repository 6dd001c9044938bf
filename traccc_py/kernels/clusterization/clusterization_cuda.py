"""Clusterisation of one module by a block of threads, a cell each: modules near the beam have hundreds of cells."""

from __future__ import annotations

import numpy as np

from traccc_py.device.cuda.block import block_function, block_sums, cuda

__all__ = ["label_cells", "number_measurements"]

_N_CLUSTERS = 0  # in shared memory


@block_function
def _find_root(root, cell):
    """Return the smallest cell known to be connected to `cell`; halves the way there for those that come after."""
    parent = root[cell]
    while parent != cell:
        above = root[parent]
        if above != parent:
            cuda.atomic.min(root, cell, above)
        cell, parent = parent, above
    return cell


@block_function
def _unite(root, a, b):
    """Join the clusters of two cells while others do the same; links only ever go to smaller cells."""
    a, b = _find_root(root, a), _find_root(root, b)
    while a != b:
        low, high = min(a, b), max(a, b)
        before = cuda.atomic.min(root, high, low)
        if before == high:
            return
        a, b = _find_root(root, before), _find_root(root, low)  # another thread had joined it elsewhere


@block_function
def _first_below(p, begin, cell, row, column):
    """Return the first of the cells begin ... cell - 1 in or after the given row and column."""
    low, high = begin, cell
    while low < high:
        middle = (low + high) // np.int32(2)
        if p.channel1[middle] < row or (p.channel1[middle] == row and p.channel0[middle] < column):
            low = np.int32(middle + 1)
        else:
            high = np.int32(middle)
    return low


@block_function
def _unite_with_earlier(p, begin, cell):
    """Join a cell with the cells before it that it touches."""
    row, column = p.channel1[cell], p.channel0[cell]
    if cell > begin and p.channel1[cell - 1] == row and p.channel0[cell - 1] >= column - 1:
        _unite(p.out_root, np.int32(cell - 1), np.int32(cell))
    touching = _first_below(p, begin, np.int32(cell), row - 1, column - 1)
    while touching < cell and p.channel1[touching] == row - 1 and p.channel0[touching] <= column + 1:
        _unite(p.out_root, np.int32(touching), np.int32(cell))
        touching = np.int32(touching + 1)


@block_function
def _next_of_cluster(p, cell, end):
    """Return the next cell of a cell's cluster, which lies in its row or the one above, or -1."""
    following = cell + 1
    while following < end and p.channel1[following] <= p.channel1[cell] + 1:
        if p.out_root[following] == p.out_root[cell]:
            return np.int32(following)
        following += 1
    return np.int32(-1)


@block_function
def label_cells(i, thread, n_threads, p, shared):
    """One event_module: join its cells, chain each cluster's cells in ascending order, count the clusters."""
    begin, end = p.begin[i], p.end[i]
    for cell in range(begin + thread, end, n_threads):
        p.out_root[cell] = cell
    if thread == 0:
        shared[_N_CLUSTERS] = 0
    cuda.syncthreads()
    for cell in range(begin + thread, end, n_threads):
        _unite_with_earlier(p, begin, cell)
    cuda.syncthreads()
    for cell in range(begin + thread, end, n_threads):
        p.out_root[cell] = _find_root(p.out_root, np.int32(cell))
    cuda.syncthreads()
    for cell in range(begin + thread, end, n_threads):
        p.out_next[cell] = _next_of_cluster(p, cell, end)
        if p.out_root[cell] == cell:
            cuda.atomic.add(shared, _N_CLUSTERS, np.int32(1))
    cuda.syncthreads()
    if thread == 0:
        p.out_n_clusters[i] = shared[_N_CLUSTERS]


@block_function
def number_measurements(i, thread, n_threads, p, shared):
    """One event_module: its roots, in ascending order, start its measurements."""
    measurement = np.int64(p.offsets[i])
    if p.offsets[i + 1] == measurement or p.offsets[i + 1] > p.out_first_cell.shape[0]:
        return
    for tile in range(p.begin[i], p.end[i], n_threads):
        cell = tile + thread
        is_root = np.int64(0)
        if cell < p.end[i] and p.root[cell] == cell:
            is_root = np.int64(1)
        before, total = block_sums(is_root, thread, n_threads, shared)
        if is_root == 1:
            p.out_first_cell[measurement + before] = cell
        measurement += total
