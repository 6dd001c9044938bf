"""Kernels compiled for the host: a loop around the body that takes pieces of the index range, kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.core.types.containers import BaseTuple

from traccc_py.device.cache import cache_directory, is_packaged, keep, take_unkept
from traccc_py.device.cpu.atomic import fetch_add
from traccc_py.device.cpu.kept_code import is_kept, keeps_code
from traccc_py.device.kernel import Kernel, registered_kernels, scalar
from traccc_py.workers import worker_pool

__all__ = ["Loop", "be_silent", "compile_loops", "compiled_for_host", "floating_dtype", "missing_loops"]

WORTH_A_THREAD = 100e-6  #: [s]; waking a thread costs 20 to 50 us
_ROOM = 128  # elements, at least as many bytes
_SMOOTHING = 0.5  # weight of the newest measurement of a loop's cost


_LOOP = """
def {name}(cursor, piece, stop, payload{scratch}):
    while True:
        start = take(cursor, 0, piece)
        if start >= stop:
            return
        for i in range(start, min(start + piece, stop)):
            body(np.int32(i), payload{scratch})
"""


def _floating_field(payload: Any, path: str = "") -> str | None:
    """Return the name, with dots, of the first array of floating-point numbers in a payload."""
    for name in getattr(payload, "_fields", ()):
        value = getattr(payload, name)
        if isinstance(value, tuple):
            found = _floating_field(value, f"{path}{name}.")
            if found:
                return found
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return f"{path}{name}"
    return None


class Loop:
    """The compiled loop around a kernel's body, for payloads of one class, and what it was seen to cost.

    Parameters
    ----------
    kernel : Kernel
        What to compile.
    payload : NamedTuple
        One payload of the class.
    """

    __slots__ = ("_field_of_precision", "_scratch", "cost", "function")

    def __init__(self, kernel: Kernel, payload: Any) -> None:
        self.function = _loop_function(kernel)
        self.cost = WORTH_A_THREAD / kernel.grain  # time per index [s], a guess until it is measured
        self._scratch = kernel.scratch
        field = _floating_field(payload) if kernel.scratch else None
        self._field_of_precision = attrgetter(field) if field else None

    def scratch(self, payload: Any) -> list[np.ndarray]:
        """Return private arrays for one thread; floating-point ones have the payload's precision."""
        if not self._scratch:
            return []
        field = self._field_of_precision
        precision = scalar if field is None else field(payload).dtype
        dtypes = [precision if s.dtype is scalar else s.dtype for s in self._scratch]
        # Room behind each keeps the arrays of two threads out of one cache line.
        return [np.empty(s.length + _ROOM, dtype)[: s.length] for s, dtype in zip(self._scratch, dtypes, strict=True)]

    def measured(self, cost: float) -> None:
        """Take a new measurement of the time per index [s] into account."""
        self.cost += _SMOOTHING * (cost - self.cost)


def _cached_function(kernel: Kernel, name: str, source: str, names: dict[str, Any]) -> Any:
    """Compile generated code around a kernel's body, kept on disk if the kernel belongs to this package.

    Parameters
    ----------
    kernel : Kernel
        Whose body the code calls.
    name : str
        Unique name of the function that `source` defines.
    source : str
        The code.
    names : dict
        Globals of the code. It can't make arrays.

    Returns
    -------
    callable
        The function, compiled at its first call; it releases the GIL.
    """
    # A cached function is rebuilt by importing the module it names.
    scope = {**names, "__name__": kernel.body.py_func.__module__}
    exec(compile(source, kernel.filename, "exec"), scope)
    return compiled_for_host(scope[name])


def compiled_for_host(function: Callable[..., Any]) -> Any:
    """Return a function compiled at its first call, kept on disk if its file is one of those of the cache's key."""
    # Without reference counting, as in bodies: else each index counts each array of the payload up and down.
    made = numba.njit(nogil=True, error_model="numpy", _nrt=False)(function)
    return keeps_code(made, cache_directory("cpu")) if is_packaged(function.__code__.co_filename) else made


def _loop_function(kernel: Kernel) -> Any:
    """Return the loop around a kernel's body, compiled at its first call."""
    scratch = "".join(f", s{k}" for k in range(len(kernel.scratch)))
    names: dict[str, Any] = {"body": kernel.body, "np": np, "take": fetch_add}
    return _cached_function(kernel, kernel.name, _LOOP.format(name=kernel.name, scratch=scratch), names)


def floating_dtype(payload: BaseTuple) -> np.dtype | None:
    """Return the precision of a payload's type: that of its first array of floating-point numbers."""
    for member in payload:
        found = None
        if isinstance(member, BaseTuple):
            found = floating_dtype(member)
        elif isinstance(member, types.Array) and isinstance(member.dtype, types.Float):
            found = np.dtype(str(member.dtype))
        if found is not None:
            return found
    return None


def _loop_signature(kernel: Kernel, payload: BaseTuple) -> tuple[types.Type, ...]:
    """Return the types of the arguments of a kernel's loop."""
    precision = floating_dtype(payload) or np.dtype(scalar)
    dtypes = [precision if s.dtype is scalar else np.dtype(s.dtype) for s in kernel.scratch]
    scratch = [types.Array(numba.from_dtype(dtype), 1, "C") for dtype in dtypes]
    return types.Array(types.int64, 1, "C"), types.int64, types.int64, payload, *scratch


def _compile_loop(module: str, name: str, payload: BaseTuple) -> None:
    import_module(module)
    kernel = registered_kernels()[name]
    _loop_function(kernel).compile(_loop_signature(kernel, payload))


def _compile_job(*job: Any) -> dict[Path, bytes]:
    """Compile a loop for another process; return what could not be written for it to find."""
    _compile_loop(*job)
    return take_unkept()


def be_silent() -> None:
    """Leave warnings to the process that asked for the work."""
    logging.getLogger("traccc_py").handlers = [logging.NullHandler()]


def missing_loops(signatures: Mapping[str, Sequence[BaseTuple]]) -> dict[str, list[BaseTuple]]:
    """Return those of the (kernel, payload type) pairs whose loops are not in the cache; see `compile_loops`."""
    kernels = registered_kernels()
    missing = {}
    for name, kinds in signatures.items():
        kernel = kernels[name]
        function = _loop_function(kernel)
        missing[name] = [kind for kind in kinds if not is_kept(function, _loop_signature(kernel, kind))]
    return {name: kinds for name, kinds in missing.items() if kinds}


def compile_loops(
    signatures: Mapping[str, Sequence[BaseTuple]],
    *,
    processes: int = 1,
    on_compiled: Callable[[str], None] = lambda name: None,
) -> None:
    """Compile the loops of all recorded (kernel, payload type) pairs into the disk cache, or find them there.

    Parameters
    ----------
    signatures : mapping of str to sequence of numba types
        Payload types by kernel name, as `record_signatures` returns them.
    processes : int, optional
        Number of processes to share the work [1]. They are spawned: a script that asks for more than one must keep its
        own work under ``if __name__ == "__main__"``.
    on_compiled : callable, optional
        Called with the name of the kernel after each pair.
    """
    kernels = registered_kernels()
    jobs = [(kernels[name].body.py_func.__module__, name, kind) for name, kinds in signatures.items() for kind in kinds]
    jobs.reverse()  # the largest come late in a chain
    if processes <= 1:
        for job in jobs:
            _compile_loop(*job)
            on_compiled(job[1])
        return
    with worker_pool(processes, initializer=be_silent) as pool:
        names = {pool.submit(_compile_job, *job): job[1] for job in jobs}
        for future in as_completed(names):
            keep(future.result())
            on_compiled(names[future])
