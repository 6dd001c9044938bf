"""Kernels compiled ahead for CUDA: a loop around the body -> PTX (numba-cuda) -> cubin (ptxas), kept on disk.

Needs no GPU. The cubins that tests inspect are those that `CudaDevice` loads and launches.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import types
from numba.core.types.containers import BaseTuple

from traccc_py.device.cache import cache_directory, is_packaged, keep, read_kept, take_unkept
from traccc_py.device.cpu.compile import be_silent, floating_dtype
from traccc_py.device.cpu.kept_code import describe_type
from traccc_py.device.cuda.layout import aligned
from traccc_py.device.kernel import Kernel, registered_kernels, scalar
from traccc_py.errors import DeviceUnavailableError, TracccError
from traccc_py.files import content_digest
from traccc_py.workers import worker_pool

__all__ = [
    "CompiledKernel",
    "compile_all",
    "compile_kernel",
    "float64_instructions",
    "loop_source",
    "missing_kernels",
    "resource_table",
]

INSTALL_HINT = 'pip install "traccc-py[cuda13]" (or [cuda12] for drivers of CUDA 12)'
_TOOLCHAIN = (
    "numba-cuda",
    *(f"nvidia-{part}{suffix}" for part in ("nvvm", "cuda-nvcc") for suffix in ("", "-cu12")),
)

_LOOP = """
def {name}(payload, counts, slot, capacity):
{scratch}    n = np.int64(capacity)
    if slot >= 0:
        n = min(n, np.int64(counts[slot]))
    step = np.int64(cuda.gridDim.x) * np.int64(cuda.blockDim.x)
    i = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
    while i < n:
        body(np.int32(i), payload{arguments})
        i += step
"""

_BLOCK_LOOP = """
def {name}(payload, counts, slot, capacity):
{scratch}    n = np.int64(capacity)
    if slot >= 0:
        n = min(n, np.int64(counts[slot]))
    i = np.int64(cuda.blockIdx.x)
    while i < n:
        body(np.int32(i), np.int32(cuda.threadIdx.x), np.int32(cuda.blockDim.x), payload{arguments})
        cuda.syncthreads()
        i += np.int64(cuda.gridDim.x)
"""

_FLOAT64 = re.compile(r"\b[a-z][a-z0-9]*(?:\.[a-z0-9]+)*\.f64\b(?:\.[a-z0-9]+)*")

_FEW_REGISTERS = 128  # of a thread: a multiprocessor has room for 16 warps then
_REGISTER_STEP = 8  # of a thread, by which they are allocated

_compiler_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """A kernel's machine code for one compute capability, and what it needs of the hardware.

    Parameters
    ----------
    name : str
        Name of the kernel, and of the function in the cubin.
    capability : tuple of int
        Compute capability (major, minor).
    registers : int
        Registers per thread.
    stack : int
        Local memory per thread: scratch arrays and addressed variables [bytes].
    spill_stores, spill_loads : int
        Registers moved to local memory for lack of room [bytes].
    shared : int
        Shared memory per block [bytes].
    path : str
        File of the cubin; the PTX lies beside it.
    cubin : bytes
        Machine code.
    ptx : str
        The code that ptxas was given.
    """

    name: str
    capability: tuple[int, int]
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    path: str
    cubin: bytes = field(repr=False)
    ptx: str = field(repr=False)


@cache
def _toolchain() -> str:
    found = []
    for distribution in _TOOLCHAIN:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{distribution}={version(distribution)}")
    return ";".join(found)


def loop_source(kernel: Kernel, payload: BaseTuple) -> tuple[str, dict[str, Any]]:
    """Return the source of the CUDA loop around a kernel's body, and the globals it needs but `cuda`."""
    special = kernel.cuda
    is_block = special is not None and special.threads > 0
    arrays = kernel.scratch if special is None else special.shared
    body = kernel.body if special is None else special.load()
    lines = []
    names: dict[str, Any] = {"body": body, "np": np, "__name__": kernel.body.py_func.__module__}
    for k, s in enumerate(arrays):
        lines.append(f"    s{k} = cuda.{'shared' if is_block else 'local'}.array({s.length}, t{k})\n")
        follows = s.dtype is scalar  # the precision of the payload
        names[f"t{k}"] = ((floating_dtype(payload) or np.dtype(scalar)) if follows else np.dtype(s.dtype)).type
    arguments = "".join(f", s{k}" for k in range(len(arrays)))
    template = _BLOCK_LOOP if is_block else _LOOP
    return template.format(name=kernel.name, scratch="".join(lines), arguments=arguments), names


@contextlib.contextmanager
def _fusing(is_allowed: bool) -> Iterator[None]:
    """Tell NVVM whether it may do a product and a sum in one instruction; `cuda.compile` has no option for it."""
    from numba.cuda.cudadrv import nvvm

    before = nvvm.compile_ir
    nvvm.compile_ir = lambda source, **options: before(source, **{**options, "fma": is_allowed})
    try:
        yield
    finally:
        nvvm.compile_ir = before


@contextlib.contextmanager
def _without_negative_indices() -> Iterator[None]:
    """Let indices be what they are: that of an array may not count from its end, which costs a comparison each time."""
    from numba.cuda.np import arrayobj

    before = arrayobj.fix_integer_index
    arrayobj.fix_integer_index = lambda context, builder, kind, index, _: context.cast(
        builder, index, kind, types.intp if kind.signed else types.uintp
    )
    try:
        yield
    finally:
        arrayobj.fix_integer_index = before


@contextlib.contextmanager
def _without_a_device(capability: tuple[int, int]) -> Iterator[None]:
    """Tell numba-cuda the compute capability, for which it asks a device when it compiles nested functions."""
    from numba.cuda import dispatcher

    class Target:
        compute_capability = capability

    before = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: Target
    try:
        yield
    finally:
        dispatcher.get_current_device = before


def _compile_ptx(kernel: Kernel, payload: BaseTuple, capability: tuple[int, int]) -> str:
    """Compile the CUDA loop around a kernel's body; its entry point gets the kernel's name."""
    try:
        from numba import cuda
        from numba.cuda.cudadrv.error import CCSupportError
    except ImportError as error:
        msg = f"numba-cuda is not installed; compiling for CUDA needs it: {INSTALL_HINT}"
        raise DeviceUnavailableError(msg) from error
    source, names = loop_source(kernel, payload)
    names["cuda"] = cuda
    exec(compile(source, kernel.filename, "exec"), names)
    signature = (payload, types.Array(types.int32, 1, "C"), types.int32, types.int32)
    try:
        with _compiler_lock, _fusing(kernel.fuses), _without_negative_indices(), _without_a_device(capability):
            ptx, _ = cuda.compile(names[kernel.name], signature, device=False, cc=capability, abi="numba", output="ptx")
    except CCSupportError as error:
        msg = f"sm_{capability[0]}{capability[1]} is no architecture that numba-cuda compiles for: {error}"
        raise DeviceUnavailableError(msg) from error
    entry = re.search(r"\.entry\s+(\w+)\(", ptx)
    if entry is None:
        msg = f"the PTX of {kernel.name} has no entry point; is this version of numba-cuda supported?"
        raise TracccError(msg)
    return ptx.replace(entry.group(1), kernel.name)


@cache
def _ptxas() -> str:
    """Return the path of the assembler."""
    with contextlib.suppress(ImportError):
        from cuda.pathfinder import find_nvidia_binary_utility

        found = find_nvidia_binary_utility("ptxas")
        if found:
            return str(found)
    found = shutil.which("ptxas")
    if found is None:
        msg = f"ptxas was not found among the installed packages or in PATH; it comes with {INSTALL_HINT}"
        raise DeviceUnavailableError(msg)
    return found


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def _assemble(ptx: str, capability: tuple[int, int], name: str, *, fuses: bool) -> tuple[bytes, dict[str, int]]:
    """Turn PTX into a cubin; return it and the resources ptxas reports for it.

    ptxas takes more registers than it needs. Where they leave room for few warps, it is asked to do with fewer, in
    steps in which they are allocated, until it would have to move some to memory.
    """
    code, resources = _assembled(ptx, capability, name, fuses=fuses)
    while resources["registers"] > _FEW_REGISTERS:
        most = (resources["registers"] - 1) // _REGISTER_STEP * _REGISTER_STEP
        fewer = _assembled(ptx, capability, name, fuses=fuses, most=most)
        spills = any(fewer[1][kind] > resources[kind] for kind in ("stack", "spill_stores", "spill_loads"))
        if spills or fewer[1]["registers"] > most:  # a limit that the code itself sets stands above the option
            break
        code, resources = fewer
    return code, resources


def _assembled(
    ptx: str, capability: tuple[int, int], name: str, *, fuses: bool, most: int | None = None
) -> tuple[bytes, dict[str, int]]:
    """Turn PTX into a cubin with at most so many registers, see `_assemble`."""
    major, minor = capability
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        options = [f"-arch=sm_{major}{minor}", "-O3", f"--fmad={str(fuses).lower()}", "-v"]
        options += [] if most is None else [f"--maxrregcount={most}"]
        command = [_ptxas(), *options, "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            msg = f"ptxas failed on {name} for sm_{major}{minor}: {done.stderr.strip()}"
            raise TracccError(msg)
        return target.read_bytes(), _resources(done.stderr + done.stdout)


def _resources(report: str) -> dict[str, int]:
    """Return the numbers in a report of ``ptxas -v``."""
    return {
        "registers": _number(r"Used (\d+) registers", report),
        "stack": _number(r"(\d+) bytes stack frame", report),
        "spill_stores": _number(r"(\d+) bytes spill stores", report),
        "spill_loads": _number(r"(\d+) bytes spill loads", report),
        "shared": _number(r"(\d+) bytes smem", report),
    }


def _entry_path(kernel: Kernel, payload: BaseTuple, capability: tuple[int, int]) -> Path:
    parts: list[str | bytes] = [_toolchain(), describe_type(payload)]
    if not is_packaged(kernel.filename):  # the folder's name says nothing about its edits
        parts.append(Path(kernel.filename).read_bytes())
        if kernel.cuda is not None:
            parts.append(Path(inspect.getfile(import_module(kernel.cuda.function.partition(":")[0]))).read_bytes())
    folder = cache_directory(f"cuda-sm{capability[0]}{capability[1]}")
    return folder / f"{kernel.name}-{content_digest(*parts)}.cubin"


def compile_kernel(kernel: Kernel, payload: BaseTuple, capability: tuple[int, int]) -> CompiledKernel:
    """Return a kernel's machine code, from the cache or compiled now.

    Parameters
    ----------
    kernel : Kernel
        What to compile.
    payload : numba type
        Type of its payload, from `payload_type` or `record_signatures`.
    capability : tuple of int
        Compute capability (major, minor), for example (9, 0).

    Returns
    -------
    CompiledKernel
        The code and the resources it needs.

    Raises
    ------
    DeviceUnavailableError
        If the compilers are not installed.
    TracccError
        If ptxas refuses the code.
    """
    payload = aligned(payload)
    path = _entry_path(kernel, payload, capability)
    found = _read_entry(kernel.name, capability, path)
    if found is None:
        ptx = _compile_ptx(kernel, payload, capability)
        cubin, resources = _assemble(ptx, capability, kernel.name, fuses=kernel.fuses)
        found = CompiledKernel(kernel.name, capability, **resources, path=str(path), cubin=cubin, ptx=ptx)
        about = json.dumps({"digest": content_digest(ptx, cubin), **resources})
        keep({path.with_suffix(".ptx"): ptx.encode(), path: cubin, path.with_suffix(".json"): about.encode()})
    return found


def _read_entry(name: str, capability: tuple[int, int], path: Path) -> CompiledKernel | None:
    """Return a kernel from the cache; None if it is not there, or its files are not those that were written."""
    ptx, cubin, about = (read_kept(path.with_suffix(suffix)) for suffix in (".ptx", ".cubin", ".json"))
    if ptx is None or cubin is None or about is None:
        return None
    try:
        resources = json.loads(about)
        if resources.pop("digest") != content_digest(ptx, cubin):
            return None
        return CompiledKernel(name, capability, **resources, path=str(path), cubin=cubin, ptx=ptx.decode())
    except (AttributeError, KeyError, TypeError, ValueError):  # no JSON, or not what was written
        return None


def _compile_job(module: str, name: str, payload: BaseTuple, capability: tuple[int, int]) -> dict[Path, bytes]:
    """Compile a kernel for another process; return what could not be written for it to find."""
    import_module(module)
    compile_kernel(registered_kernels()[name], payload, capability)
    return take_unkept()


def _is_kept(kernel: Kernel, payload: BaseTuple, capability: tuple[int, int]) -> bool:
    return _read_entry(kernel.name, capability, _entry_path(kernel, payload, capability)) is not None


def missing_kernels(
    signatures: Mapping[str, Sequence[BaseTuple]], capability: tuple[int, int]
) -> dict[str, list[BaseTuple]]:
    """Return those of the (kernel, payload type) pairs whose machine code is not in the cache; see `compile_all`."""
    kernels = registered_kernels()
    missing = {
        name: [kind for kind in kinds if not _is_kept(kernels[name], aligned(kind), capability)]
        for name, kinds in signatures.items()
    }
    return {name: kinds for name, kinds in missing.items() if kinds}


def compile_all(
    signatures: Mapping[str, Sequence[BaseTuple]],
    capabilities: Sequence[tuple[int, int]],
    *,
    processes: int = 1,
    on_compiled: Callable[[str], None] = lambda name: None,
) -> list[CompiledKernel]:
    """Compile every recorded (kernel, payload type) pair for every compute capability.

    Parameters
    ----------
    signatures : mapping of str to sequence of numba types
        Payload types by kernel name, as `record_signatures` returns them.
    capabilities : sequence of tuple of int
        Compute capabilities (major, minor).
    processes : int, optional
        Number of processes to share the work [1].
    on_compiled : callable, optional
        Called with the name of the kernel after each pair.

    Returns
    -------
    list of CompiledKernel
        By kernel name, then capability.
    """
    kernels = registered_kernels()
    jobs = [
        (kernels[name].body.py_func.__module__, name, aligned(payload), capability)
        for name in sorted(signatures)
        for capability in capabilities
        for payload in signatures[name]
    ]
    missing = [job for job in jobs if not _is_kept(kernels[job[1]], *job[2:])]
    ahead = missing if processes > 1 and len(missing) > 1 else []
    if ahead:
        # spawned: a fork would copy the compilers' threads and locks
        with worker_pool(min(processes, len(ahead)), initializer=be_silent) as pool:
            names = {pool.submit(_compile_job, *job): job[1] for job in ahead}
            for future in as_completed(names):
                keep(future.result())
                on_compiled(names[future])
    made = []
    for job in jobs:
        _, name, payload, capability = job
        made.append(compile_kernel(kernels[name], payload, capability))
        if job not in ahead:
            on_compiled(name)
    return made


def float64_instructions(ptx: str) -> list[str]:
    """Return the instructions of a PTX text that work in double precision, in order, without repetition."""
    return list(dict.fromkeys(_FLOAT64.findall(re.sub(r"//.*", "", ptx))))


def resource_table(compiled: Sequence[CompiledKernel]) -> str:
    """Return a text table of the resources of compiled kernels."""
    lines = [f"{'kernel':48s} {'sm':>4s} {'registers':>9s} {'stack':>7s} {'spills':>7s} {'shared':>7s} {'f64':>4s}"]
    for one in compiled:
        spills = one.spill_stores + one.spill_loads
        major, minor = one.capability
        lines.append(
            f"{one.name:48s} {f'{major}{minor}':>4s} {one.registers:9d} {one.stack:7d} {spills:7d} {one.shared:7d}"
            f" {len(float64_instructions(one.ptx)):4d}"
        )
    return "\n".join(lines)
