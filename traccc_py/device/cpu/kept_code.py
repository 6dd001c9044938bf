"""Machine code of the host kept on disk, one file for each function and types of arguments.

Numba's own cache ends the process on a damaged file, a full disk or a folder that can't be written, runs code of which
a byte has changed, and loses entries where two processes write the index of one function. Here each file carries a hash
of its content; what is no such file counts as absent.

What a process loads is also half of what it needs to start. So files have no bitcode, with which other code could be
linked, and what Numba sets up for compiling, more than half a second, is not set up for loading.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llvmlite.binding import parse_assembly
from numba.core import types
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.core.types.containers import BaseTuple

from traccc_py.device.cache import keep, read_kept
from traccc_py.files import content_digest

__all__ = ["CODE_SUFFIX", "NotKeptError", "describe_type", "is_kept", "keeps_code", "without_compiling"]

CODE_SUFFIX = ".code"
_DIGEST_BYTES = hashlib.sha256().digest_size
# Numba looks in the bitcode for the name of what it will call. Code that is linked with this ends, and is not wrong.
_BITCODE = """
declare void @llvm.trap()
define void @"{entry}"() {{
  call void @llvm.trap()
  unreachable
}}
"""


_may_compile = True  # of this process


class NotKeptError(Exception):
    """Machine code is not on disk, and compiling it is not wanted now."""


@contextlib.contextmanager
def without_compiling() -> Iterator[None]:
    """Let what is not on disk raise `NotKeptError` in this process, instead of being compiled."""
    global _may_compile  # noqa: PLW0603 (Numba asks a cache of its own making)
    _may_compile = False
    try:
        yield
    finally:
        _may_compile = True


def describe_type(kind: types.Type) -> str:
    """Return a text that two types of arguments share only if they are the same to compiled code."""
    if isinstance(kind, BaseTuple):
        names = getattr(kind, "fields", None) or [""] * len(kind)
        return "(" + ",".join(f"{name}:{describe_type(member)}" for name, member in zip(names, kind, strict=True)) + ")"
    return str(kind)


def _sealed(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


def _unsealed(content: bytes | None) -> bytes | None:
    """Return what was sealed, None if it has been damaged since."""
    if content is None:
        return None
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def _without_bitcode(compiled: CompileResult) -> tuple[Any, ...]:
    """Return what a function is rebuilt from; it can't be called by other compiled code then."""
    (name, kind, (machine_code, _)), description, *rest = compiled._reduce()
    entry = _BITCODE.format(entry=description.llvm_cpython_wrapper_name)
    return (name, kind, (machine_code, parse_assembly(entry).as_bitcode())), description, *rest


class _KeptCode(_Cache):
    """What a dispatcher of Numba asks before it compiles, and tells afterwards."""

    def __init__(self, dispatcher: Any, folder: Path) -> None:
        self._function: Callable[..., Any] = dispatcher.py_func
        self._folder = folder
        self._makes_arrays = dispatcher.targetoptions.get("_nrt", True)

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def _file(self, signature: Any, codegen: Any) -> Path:
        """Return the file for a function, its types of arguments and a processor; the folder stands for its source."""
        code = self._function.__code__
        kinds = [describe_type(kind) for kind in signature]
        key = content_digest(
            self._function.__module__, str(code.co_firstlineno), code.co_code, repr(codegen.magic_tuple()), *kinds
        )
        return self._folder / f"{self._function.__name__}-{key}{CODE_SUFFIX}"

    def content(self, sig: Any, target_context: Any) -> bytes | None:
        """Return the machine code for types of arguments, serialised; None if there is none."""
        if self._makes_arrays:
            target_context.refresh()  # which makes the functions known that allocate
        return _unsealed(read_kept(self._file(sig, target_context.codegen())))

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        content = self.content(sig, target_context)
        if content is not None:
            with contextlib.suppress(Exception):  # whatever it was made with is not here
                return CompileResult._rebuild(target_context, *pickle.loads(content))
        if not _may_compile:
            raise NotKeptError(self._function.__name__)
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        if not data.library.has_dynamic_globals:  # addresses of this process
            keep({self._file(sig, data.codegen): _sealed(dumps(_without_bitcode(data)))})

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass

    def flush(self) -> None:
        pass


def keeps_code(dispatcher: Any, folder: Path) -> Any:
    """Return a dispatcher of Numba that takes its machine code from a folder, and puts there what it compiles.

    Other compiled functions can't call it.
    """
    dispatcher._cache = _KeptCode(dispatcher, folder)
    return dispatcher


def is_kept(dispatcher: Any, signature: tuple[types.Type, ...]) -> bool:
    """Return whether there is machine code of a dispatcher for types of arguments."""
    cache = dispatcher._cache
    return isinstance(cache, _KeptCode) and cache.content(signature, dispatcher.targetctx) is not None
