"""Chains ready to run, and kernels compiled ahead: by several processes, also for GPUs that are not there."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from traccc_py.data.words import counted
from traccc_py.errors import ConfigError

__all__ = [
    "compile_for_gpus",
    "compile_in_processes",
    "device_facts",
    "kernels_are_compiled",
    "make_chain",
    "parse_architecture",
]

_MOST_PROCESSES = 6  # the longest of the kernels takes a quarter of the time of all
_COMPILATION_SECONDS = 60  # told to the user; measured on two cores
_SILENCE_SECONDS = 10.0  # kernels that are kept load in two
_ARCHITECTURE = re.compile(r"(?:sm_)?(\d+)(\d)")


def kernels_are_compiled(chain: Any) -> bool:
    """Return whether compiled kernels for a chain's device are kept on disk."""
    from traccc_py.device.cache import cache_root, source_hash

    kind = str(chain.device.name).partition(":")[0]
    folders = cache_root().glob(f"{kind}*-{source_hash()}")
    # Files: Numba makes its folders before it compiles anything.
    return any(path.is_file() for folder in folders for path in folder.rglob("*"))


def _recorded(detector: Any, config: Any) -> dict[str, Any]:
    """Return the types of the payloads of a chain's kernels."""
    from traccc_py.chain import TrackingChain
    from traccc_py.device.signatures import record_signatures

    return record_signatures(lambda device: TrackingChain(detector, config, device).initialize())


def compile_in_processes(chain: Any) -> None:
    """Compile the kernels of a chain for the CPU on as many cores as it may use; it then finds them on disk."""
    from traccc_py.device.cpu.compile import compile_loops

    processes = min(chain.device.threads if chain.device.name == "cpu" else 1, _MOST_PROCESSES)
    if processes > 1:
        compile_loops(_recorded(chain.detector, chain.config), processes=processes)


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


def compile_for_gpus(detector: Any, config: Any, capabilities: Sequence[tuple[int, int]]) -> int:
    """Compile the kernels of a chain for GPUs that need not be there, into the cache on disk.

    Parameters
    ----------
    detector : Detector
        Detector of the chain.
    config : ChainConfig
        Its settings.
    capabilities : sequence of tuple of int
        Compute capabilities (major, minor).

    Returns
    -------
    int
        Number of cubins in the cache for them.

    Raises
    ------
    DeviceUnavailableError
        If the compilers are not installed.
    TracccError
        If they refuse an architecture.
    """
    from traccc_py.device.cuda.compile import compile_all

    processes = min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)
    return len(compile_all(_recorded(detector, config), capabilities, processes=processes))


def make_chain(detector: Any, config: Any, device: str, threads: int | None, log: Any) -> Any:
    """Return an initialised chain; say what takes long."""
    from traccc_py.chain import TrackingChain

    chain = TrackingChain(detector, config, device=device, threads=threads)
    start = time.perf_counter()
    if not kernels_are_compiled(chain):
        log.print(f"compiling kernels, once for this version; about {_COMPILATION_SECONDS} s")
        compile_in_processes(chain)
        chain.initialize()
    else:  # some are kept; others may be missing, or another process may be compiling them just now
        late = "some kernels are not compiled yet, or another process compiles them; this may take minutes"
        timer = threading.Timer(_SILENCE_SECONDS, log.print, (late,))
        timer.daemon = True
        timer.start()
        try:
            chain.initialize()
        finally:
            timer.cancel()
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
