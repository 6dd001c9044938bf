"""`@host_loop`: loops over the rows of an event before they go to a device, compiled for the host and kept on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numba
import numpy as np

from traccc_py.device.cpu.compile import compiled_for_host

__all__ = ["HostLoop", "host_function", "host_loop", "read_only"]


def read_only(dtype: Any) -> np.ndarray:
    """Return an example of an array that a loop only reads: calls may pass arrays that can't be written."""
    array = np.empty(0, dtype)
    array.flags.writeable = False
    return array


class HostLoop:
    """A compiled function of arrays and scalars.

    Parameters
    ----------
    function : callable
        It makes no arrays and calls no function of other files: the cache's key knows its file alone.
    examples : iterable of tuple
        Arguments of the types it is compiled for, all of them at the first call, so that no later one has to wait.
    """

    def __init__(self, function: Callable[..., Any], examples: Iterable[tuple]) -> None:
        self._python_function = function
        self._signatures = [tuple(numba.typeof(a) for a in arguments) for arguments in examples]
        self._lock = threading.Lock()
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns; it releases the GIL.

        Raises
        ------
        TypeError
            If the arguments are of other types than all examples.
        """
        if self._compiled is None:
            with self._lock:
                if self._compiled is None:
                    self._compiled = self._compile()
        return self._compiled(*arguments)

    def _compile(self) -> Any:
        """Return the function in machine code; where that is kept may be chosen until now."""
        made = compiled_for_host(self._python_function)
        for signature in self._signatures:
            made.compile(signature)
        made.disable_compile()
        return made


def host_loop(examples: Iterable[tuple]) -> Callable[[Callable[..., Any]], HostLoop]:
    """Decorate a function that shall be a `HostLoop`; `examples` as there."""
    return lambda function: HostLoop(function, examples)


def host_function(function: Callable[..., Any]) -> Any:
    """Compile a helper of the loops of its file."""
    return numba.njit(nogil=True, error_model="numpy", _nrt=False)(function)
