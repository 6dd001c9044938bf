"""Chains ready to run, and kernels compiled ahead: by several processes, also for GPUs that are not there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from traccc_py.data.words import counted
from traccc_py.errors import ConfigError
from traccc_py.geometry.json_node import paused_collector

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["compile_for_gpus", "compile_missing_kernels", "device_facts", "make_chain", "parse_architecture"]

_MOST_PROCESSES = 6  # the longest of the kernels takes a quarter of the time of all
_SECONDS_AT_MOST = 60  # said before anything is known; measured on two cores
_ARCHITECTURE = re.compile(r"(?:sm_)?(\d+)(\d)")


@paused_collector()
def _recorded(detector: Any, config: Any) -> dict[str, Any]:
    """Return the types of the payloads of a chain's kernels."""
    from traccc_py.chain import TrackingChain
    from traccc_py.device.signatures import record_signatures

    return record_signatures(lambda device: TrackingChain(detector, config, device).initialize())


def compile_missing_kernels(chain: Any, console: Console) -> None:
    """Compile the kernels of a chain that the cache lacks, on as many cores as it may use; it then finds them there.

    Parameters
    ----------
    chain : TrackingChain
        Chain that is not initialised; on CPUs it is afterwards, if the cache lacked nothing.
    console : Console
        Where it is told how far this is, if there is anything to do.
    """
    from traccc_py.device.cache import is_empty
    from traccc_py.device.cpu.executor import CpuDevice

    if _is_loaded(chain):
        return
    is_first = is_empty(str(chain.device.name).partition(":")[0])
    if is_first:  # said at once: also the record has to compile a bit
        console.print(f"compiling kernels, once for this version; about {_SECONDS_AT_MOST} s on two idle cores")
    signatures = _recorded(chain.detector, chain.config)
    missing, compile_them = _missing(chain.device, signatures)
    if missing and not is_first:
        console.print(f"compiling {_count(missing)} that the cache lacks")
    _compile(missing, compile_them, getattr(chain.device, "threads", CpuDevice().threads), console)


@paused_collector()
def _is_loaded(chain: Any) -> bool:
    """Initialise a chain on CPUs if the cache has all it needs: far sooner done than finding out what it lacks."""
    from traccc_py.device.cpu.kept_code import NotKeptError, without_compiling

    if hasattr(chain.device, "capability"):
        return False
    try:
        with without_compiling():
            chain.initialize()
    except NotKeptError:
        return False
    return True


def _count(signatures: Mapping[str, Sequence[Any]]) -> str:
    return counted(sum(map(len, signatures.values())), "kernel")


def _compile(
    missing: Mapping[str, Sequence[Any]], compile_them: Callable[..., Any], threads: int, console: Console
) -> None:
    """Compile kernels in several processes, and tell how far this is."""
    from traccc_py.cli.compilation_progress import CompilationProgress

    names = [name for name, kinds in missing.items() for _ in kinds]
    if names:
        processes = min(threads, _MOST_PROCESSES, len(names))
        with CompilationProgress(names, processes, console) as progress:
            compile_them(missing, processes=processes, on_compiled=progress.advance)


def _missing(device: Any, signatures: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the signatures that the cache lacks for a device, and what compiles them."""
    if hasattr(device, "capability"):
        return _missing_for_gpu(device.capability, signatures)
    from traccc_py.device.cpu.compile import compile_loops, missing_loops

    return missing_loops(signatures), compile_loops


def _missing_for_gpu(capability: tuple[int, int], signatures: Any) -> tuple[Any, Callable[..., Any]]:
    from traccc_py.device.cuda.compile import compile_all, missing_kernels

    return missing_kernels(signatures, capability), partial(compile_all, capabilities=[capability])


def parse_architecture(name: str) -> tuple[int, int]:
    """Return the compute capability that ``sm_90`` names.

    Raises
    ------
    ConfigError
        If `name` is no such name.
    """
    found = _ARCHITECTURE.fullmatch(name)
    if found is None:
        msg = f"--arch is {name!r}; expected a GPU's architecture such as sm_80, sm_90 or sm_100"
        raise ConfigError(msg)
    return int(found[1]), int(found[2])


def compile_for_gpus(
    detector: Any, config: Any, capabilities: Sequence[tuple[int, int]], threads: int, console: Console
) -> None:
    """Compile the kernels of a chain for GPUs that need not be there, into the cache on disk.

    Parameters
    ----------
    detector : Detector
        Detector of the chain.
    config : ChainConfig
        Its settings.
    capabilities : sequence of tuple of int
        Compute capabilities (major, minor).
    threads : int
        Number of processes at most [1].
    console : Console
        Where it is told how far this is.

    Raises
    ------
    DeviceUnavailableError
        If the compilers are not installed or don't know an architecture.
    """
    signatures = _recorded(detector, config)
    for capability in capabilities:
        missing, compile_them = _missing_for_gpu(capability, signatures)
        name = f"sm_{capability[0]}{capability[1]}"
        console.print(f"{name}: {_count(signatures)}, {sum(map(len, missing.values()))} to be compiled")
        _compile(missing, compile_them, threads, console)


def make_chain(detector: Any, config: Any, device: str, threads: int | None, log: Any) -> Any:
    """Return an initialised chain; say what takes long."""
    with paused_collector():  # next to nothing of what is imported and loaded is garbage
        from traccc_py.chain import TrackingChain
        from traccc_py.device.cpu.executor import without_numba_extensions

        without_numba_extensions()
        chain = TrackingChain(detector, config, device=device, threads=threads)
    start = time.perf_counter()
    compile_missing_kernels(chain, log)
    with paused_collector():
        chain.initialize()
    seconds = time.perf_counter() - start
    log.print(f"{_described(chain)} ready in {seconds:.1f} s", style="dim")
    return chain


def _described(chain: Any) -> str:
    """Return the name of a chain's device and its number of threads, if it has any."""
    facts = device_facts(chain)
    return f"{facts['name']} ({counted(facts['threads'], 'thread')})" if facts["threads"] else facts["name"]


def device_facts(chain: Any) -> dict[str, Any]:
    """Return name and number of threads of a chain's device, for the JSON file."""
    return {"name": str(chain.device.name), "threads": getattr(chain.device, "threads", None)}
