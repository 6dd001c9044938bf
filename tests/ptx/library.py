"""Has gcc compile the C of a kernel, and keeps what it made by the hash of the source."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.ptx.instructions import Site
from tests.ptx.parser import Function
from tests.ptx.source import source_of_blocks, source_of_threads
from traccc_py.device.cache import cache_directory

__all__ = ["CACHE_KIND", "WHY_NOT", "Library", "compiled_library"]

#: Why kernels can't be compiled here, or an empty text.
WHY_NOT = "" if shutil.which("gcc") else "gcc, which compiles what the PTX is translated to, is not installed"

CACHE_KIND = "ptx-on-cpu"
_HEADERS = Path(__file__).parent / "c"
#: name: (translation, macro, driver, level of optimisation: gcc takes a minute for what runs once in a test)
_VARIANTS = {
    "run": (source_of_threads, "", "run_grid.h", "-O1"),
    "check": (source_of_threads, "CHECK", "run_grid.h", "-O0"),
    "mix": (source_of_blocks, "", "run_mixed.h", "-O1"),
    "count": (source_of_blocks, "COUNT", "run_warps.h", "-O1"),
}
# As on a GPU: no fused products that the PTX doesn't have, integers wrap, denormal numbers stay.
_OPTIONS = ("-ffp-contract=off", "-fwrapv", "-fno-strict-aliasing", "-fno-math-errno", "-w", "-shared", "-fPIC")


@dataclass(frozen=True)
class Library:
    """A kernel's machine code for the CPU, and the instructions that access memory by their numbers."""

    code: ctypes.CDLL
    sites: list[Site]


@cache
def compiled_library(function: Function, variant: str) -> Library:
    """Return a kernel compiled for a way of running it, from the cache or compiled now.

    Parameters
    ----------
    function : Function
        The kernel.
    variant : str
        "run", "check" (with checks of all accesses), "mix" (threads in random turns) or "count" (statistics).

    Raises
    ------
    RuntimeError
        If gcc fails.
    """
    translate, macro, driver, level = _VARIANTS[variant]
    source = translate(function)
    lines = [
        f"#define {macro} 1" if macro else "",
        f"#define SHARED_BYTES {max(1, function.shared.size)}",
        f"#define HAS_BARRIERS {int(function.has_barriers)}",
        '#include "semantics.h"',
        '#include "memory.h"',
        source.text,
        f'#include "{driver}"\n',
    ]
    text = "\n".join(lines)
    headers = "".join(path.read_text() for path in sorted(_HEADERS.glob("*.h")))
    digest = hashlib.sha256(f"{text}{headers}{level}".encode()).hexdigest()[:20]
    path = cache_directory(CACHE_KIND) / f"{function.name}-{variant}-{digest}.so"
    if not path.exists():
        _compile(text, path, level)
    return Library(ctypes.CDLL(str(path)), source.sites)


def _compile(text: str, path: Path, level: str) -> None:
    own = path.with_suffix(f".{os.getpid()}")
    command = ["gcc", level, "-march=native", *_OPTIONS, f"-I{_HEADERS}", "-xc", "-", "-o", str(own), "-lm"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"gcc failed on {path.name}: {done.stderr[:3000]}"
        raise RuntimeError(msg)
    own.replace(path)
