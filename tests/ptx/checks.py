"""What the checks of `c/checks.h` are told, and what they found."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.ptx.instructions import Site
from tests.ptx.memory import Memory
from tests.ptx.parser import Parameter

__all__ = ["Checks", "Problem"]

KINDS = (
    *("", "out of bounds", "uninitialised", "misaligned"),
    *("race: read after write", "race: write after read", "race: write after write", "race: same value written"),
    *("division by 0", "not in an array of the launch", "out of shared memory"),
)
_FINDING = np.dtype(
    [("kind", "u4"), ("site", "u4"), ("count", "u8"), ("address", "u8"), ("thread", "u4"), ("other", "u4")]
)
_MAX_FINDINGS = 256
_WORDS_OF_ARRAY = 5  # that come first: reference count, owner, number of items, size of one, address
_LARGEST_ITEM = 4096  # [bytes]


@dataclass(frozen=True)
class Problem:
    """What an instruction of a launch did wrong, and how often; `other` is the other thread of a race."""

    kernel: str
    kind: str
    line: int
    text: str
    count: int
    thread: int
    other: int


class _Checker(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("base", "size")),
        *((name, ctypes.c_void_p) for name in ("state", "words", "regions", "findings")),
        *((name, ctypes.c_uint32) for name in ("n_regions", "launch", "n_findings", "max_findings")),
    )


def arrays_in(block: np.ndarray, parameters: Sequence[Parameter], memory: Memory) -> np.ndarray:
    """Return (first address, end) of the arrays in a block of parameters, (n, 2) uint64."""
    words = {k: int(block[p.offset : p.offset + 8].view(np.uint64)[0]) for k, p in enumerate(parameters) if p.size == 8}
    found = []
    for k in range(len(parameters) - _WORDS_OF_ARRAY + 1):
        if any(k + j not in words for j in range(_WORDS_OF_ARRAY)):
            continue
        counted, owner, n_items, item_size, address = (words[k + j] for j in range(_WORDS_OF_ARRAY))
        is_here = memory.base <= address < memory.base + len(memory.bytes)
        if counted == owner == 0 and is_here and 0 < item_size < _LARGEST_ITEM:
            found.append((address, address + n_items * item_size))
    return np.array(found, np.uint64).reshape(-1, 2)


class Checks:
    """The checks of one launch.

    Parameters
    ----------
    memory : Memory
        Device memory.
    block : ndarray of uint8
        The parameters, as the launch packs them.
    parameters : sequence of Parameter
        What stands where in it.
    number : int
        Number of the launch, from 1.
    """

    def __init__(self, memory: Memory, block: np.ndarray, parameters: Sequence[Parameter], number: int) -> None:
        self._regions = arrays_in(block, parameters, memory)
        self._findings = np.zeros(_MAX_FINDINGS, _FINDING)
        addresses = (a.ctypes.data for a in (memory.state, memory.words, self._regions, self._findings))
        self._c = _Checker(
            memory.base, len(memory.bytes), *addresses, len(self._regions), number, 0, len(self._findings)
        )

    @property
    def pointer(self) -> Any:
        """What the C is given."""
        return ctypes.byref(self._c)

    def problems(self, kernel: str, sites: Sequence[Site]) -> list[Problem]:
        """Return what was found."""
        found = []
        for one in self._findings[: self._c.n_findings]:
            kind, site = KINDS[int(one["kind"])], sites[int(one["site"])]
            numbers = (int(one[name]) for name in ("count", "thread", "other"))
            found.append(Problem(kernel, kind, site.line, site.text, *numbers))
        return found
