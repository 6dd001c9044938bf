"""`@device_function` and `@kernel`: physics written once, run as CPU loops and as CUDA kernels.

A kernel's body is written for one index, ``body(i, p)``, with `p` a NamedTuple of arrays and scalars (its payload).
The executors in `traccc_py.device` generate a loop around it. Nothing is compiled when this module is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numba
import numpy as np

import traccc_py.device.cache  # noqa: F401 (it notes the time: kernels' modules are imported after this)

__all__ = ["CudaBody", "Kernel", "Scratch", "device_function", "kernel", "registered_kernels", "scalar"]

scalar = np.float32  #: the floating-point type of all kernels

# Without reference counting ("_nrt"): otherwise every call of a function that takes the payload counts each of its
# arrays up and down, atomically, which made the triplet search of the seeding seven times slower on two threads.
_OPTIONS = {"error_model": "numpy", "inline": "never", "_nrt": False}
_REGISTRY: dict[str, Kernel] = {}


@dataclass(frozen=True, slots=True)
class Scratch:
    """A small private array of one kernel index.

    Parameters
    ----------
    length : int
        Number of elements [1].
    dtype : type
        Element type; `scalar` follows the precision of the payload.
    """

    length: int
    dtype: Any = scalar


@dataclass(frozen=True, slots=True)
class CudaBody:
    """A second body of a kernel, for CUDA alone: it must give the bits of the plain one.

    Parameters
    ----------
    function : str
        "module:function". The module is imported when the kernel is compiled for CUDA; it takes the primitives of CUDA
        from `traccc_py.device.cuda.block`.
    threads : int, optional
        With 0 each index has a thread of its own, and the body is ``body(i, payload, *shared)``. Else a block of up to
        so many threads works on each index, and all of them run ``body(i, thread, n_threads, payload, *shared)``.
    shared : tuple of Scratch, optional
        Arrays that the threads of a block share, uninitialised; without blocks each index has its own.
    """

    function: str
    threads: int = 0
    shared: tuple[Scratch, ...] = ()

    def load(self) -> Any:
        """Import the body."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: the compiled body for one index and what a loop around it needs to know.

    Parameters
    ----------
    name : str
        Unique name, ``<stage>_<file>_<function>`` or ``<file>_<function>``.
    body : callable
        ``body(i, payload, *scratch)``, compiled.
    filename : str
        Source file of the body, used for the cache entry.
    scratch : tuple of Scratch
        Arrays the loop provides to each index, uninitialised.
    grain : int
        Smallest number of indices worth a task of its own on the CPU; small for expensive bodies.
    cuda : CudaBody, optional
        What runs on CUDA instead of the plain body.
    fuses : bool, optional
        Whether CUDA may do a product and a sum in one instruction.
    """

    name: str
    body: Any
    filename: str
    scratch: tuple[Scratch, ...]
    grain: int
    cuda: CudaBody | None = None
    fuses: bool = True


def device_function(function: Callable[..., Any] | None = None, *, inlined: bool = False) -> Any:
    """Compile a pure function of scalars and tuples that kernels of both devices may call.

    Parameters
    ----------
    function : callable, optional
        What to compile; without it, a decorator is returned.
    inlined : bool, optional
        Always compile it into its callers. Worth it for functions that take a payload and are called in inner loops:
        LLVM does not inline large functions called from two places, and a call copies every array of the payload
        (seeding on one thread: 620 ms with calls, 335 ms without). It costs compilation time.

    Returns
    -------
    callable
        The compiled function, or a decorator.
    """
    options = {**_OPTIONS, "forceinline": True} if inlined else _OPTIONS
    decorate = numba.njit(**options)
    return decorate if function is None else decorate(function)


def kernel(
    *, scratch: tuple[Scratch, ...] = (), grain: int = 256, cuda: CudaBody | None = None, fuses: bool = True
) -> Callable[[Callable[..., Any]], Kernel]:
    """Declare the body of a kernel.

    Parameters
    ----------
    scratch : tuple of Scratch, optional
        Private arrays, passed to the body after the payload.
    grain : int, optional
        Smallest number of indices worth a task of its own on the CPU.
    cuda : CudaBody, optional
        A body for CUDA where the plain one would leave a GPU idle; it gets none of the private arrays.
    fuses : bool, optional
        Whether CUDA may do a product and a sum in one instruction, with one rounding. The compiler chooses where, in
        each kernel anew. Not for a kernel that counts what another one writes: both must decide alike.

    Returns
    -------
    callable
        Decorator that turns ``body(i, p, *scratch)`` into a `Kernel`.

    Raises
    ------
    ValueError
        If two kernels of the package have the same name.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        filename = function.__code__.co_filename
        name = _kernel_name(function)
        if name in _REGISTRY and _REGISTRY[name].filename != filename:
            msg = f"two kernels are named {name}: in {filename} and {_REGISTRY[name].filename}; rename one"
            raise ValueError(msg)
        # Outside of its loop each index would pay for a call with all arrays of the payload.
        body = numba.njit(**_OPTIONS, forceinline=True)(function)
        made = Kernel(name, body, filename, scratch, grain, cuda, fuses)
        _REGISTRY[name] = made
        return made

    return decorate


def _kernel_name(function: Callable[..., Any]) -> str:
    """Return ``<file>_<function>``, for stages ``<stage>_<file>_<function>``: both once where they are the same."""
    *packages, file = function.__module__.split(".")
    stage = packages[-1] if packages[:-1] == ["traccc_py", "kernels"] and packages[-1] != file else ""
    return "_".join(part for part in (stage, file, function.__name__.strip("_")) if part)


def registered_kernels() -> dict[str, Kernel]:
    """Return the kernels of all modules imported so far, by name."""
    return dict(_REGISTRY)
