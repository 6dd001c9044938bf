"""Chains of spacepoints: a thread on CUDA looks at the points of a cell alone."""

from __future__ import annotations

from traccc_py.device.cuda.block import block_function
from traccc_py.kernels.seeding.chains import search_from

__all__ = ["find_chains"]


@block_function
def find_chains(k, p, hits):
    """One spacepoint: the best chains it is the outermost point of, beside those it has."""
    search_from(k, p, hits, False)
