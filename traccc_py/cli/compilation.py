"""Kernels compiled ahead, in several processes where the chain runs on the CPU."""

from __future__ import annotations

from typing import Any

__all__ = ["compile_in_processes", "kernels_are_compiled"]

_MOST_PROCESSES = 6  # the longest of the kernels takes a quarter of the time of all


def kernels_are_compiled(chain: Any) -> bool:
    """Return whether compiled kernels for a chain's device are kept on disk."""
    from traccc_py.device.cache import cache_root, source_hash

    kind = str(chain.device.name).partition(":")[0]
    folders = cache_root().glob(f"{kind}*-{source_hash()}")
    # Files: Numba makes its folders before it compiles anything.
    return any(path.is_file() for folder in folders for path in folder.rglob("*"))


def compile_in_processes(chain: Any) -> None:
    """Compile the kernels of a chain for the CPU on as many cores as it may use; it then finds them on disk."""
    from traccc_py.chain import TrackingChain
    from traccc_py.device.cpu.compile import compile_loops
    from traccc_py.device.signatures import record_signatures

    processes = min(chain.device.threads if chain.device.name == "cpu" else 1, _MOST_PROCESSES)
    if processes > 1:
        signatures = record_signatures(lambda device: TrackingChain(chain.detector, chain.config, device).initialize())
        compile_loops(signatures, processes=processes)
