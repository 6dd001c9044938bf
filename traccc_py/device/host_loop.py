"""`@host_loop`: loops over the rows of an event before they go to a device, compiled for the host and kept on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numba
import numpy as np

from traccc_py.device.cache import cache_directory, is_packaged

__all__ = ["HostLoop", "host_loop", "read_only"]


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
        It makes no arrays and calls no other function of the package: Numba's cache looks at its file alone.
    examples : iterable of tuple
        Arguments of the types it is compiled for, all of them at the first call, so that no later one has to wait.
    """

    def __init__(self, function: Callable[..., Any], examples: Iterable[tuple]) -> None:
        self._signatures = [tuple(numba.typeof(a) for a in arguments) for arguments in examples]
        self._lock = threading.Lock()
        self._is_compiled = False
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(cache_directory("cpu"))
        try:
            self._function = numba.njit(
                nogil=True, error_model="numpy", _nrt=False, cache=is_packaged(function.__code__.co_filename)
            )(function)
        finally:
            numba.config.CACHE_DIR = before

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns; it releases the GIL.

        Raises
        ------
        TypeError
            If the arguments are of other types than all examples.
        """
        if not self._is_compiled:
            with self._lock:
                for signature in self._signatures:
                    self._function.compile(signature)
                self._function.disable_compile()
                self._is_compiled = True
        return self._function(*arguments)


def host_loop(examples: Iterable[tuple]) -> Callable[[Callable[..., Any]], HostLoop]:
    """Decorate a function that shall be a `HostLoop`; `examples` as there."""
    return lambda function: HostLoop(function, examples)
