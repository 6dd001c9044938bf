"""Kernels compiled ahead, in several processes, and word of how far that is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["CompilationProgress", "compile_missing_kernels"]

_MOST_PROCESSES = 6  # the longest of the kernels takes a quarter of the time of all
_SECONDS_AT_MOST = 60  # told to the user before anything is known; measured on two cores
_FIRST_LINE = 10.0  # [s]
_GROWTH = 0.25  # of the time between lines, with that since the beginning: 14 lines in seven minutes
_ROUNDING = 10  # [s]
_KNOWN_SHARE = 0.05  # of the work, from which on the rest is estimated
# Seconds of one core that kernels take to compile, measured; without them an estimate of the rest would be a guess.
_SECONDS = {
    "fitting_fit_track": 26,
    "finding_follow_seeds": 22,
    "seeding_triplets_select_triplets": 16,
    "seeding_doublets_fill_tops": 5,
    "finding_starts_move_start": 4,
    "seeding_triplets_count_triplets": 3,
    "seeding_doublets_count_tops": 3,
}
_SECONDS_OF_OTHERS = 0.5


def compile_missing_kernels(chain: Any, console: Console) -> None:
    """Compile the kernels of a chain that the cache lacks, on as many cores as it may use; it then finds them there.

    Parameters
    ----------
    chain : TrackingChain
        Chain that is not initialised.
    console : Console
        Where it is told how far this is, if there is anything to do.
    """
    from traccc_py.chain import TrackingChain
    from traccc_py.device.cache import is_empty
    from traccc_py.device.cpu.executor import CpuDevice
    from traccc_py.device.signatures import record_signatures

    if is_empty(str(chain.device.name).partition(":")[0]):  # said at once: also the record has to compile a bit
        console.print(f"compiling kernels, once for this version; about {_SECONDS_AT_MOST} s on two idle cores")
    signatures = record_signatures(lambda device: TrackingChain(chain.detector, chain.config, device).initialize())
    missing, compile_them = _missing(chain.device, signatures)
    names = [name for name, kinds in missing.items() for _ in kinds]
    if names:
        processes = min(getattr(chain.device, "threads", CpuDevice().threads), _MOST_PROCESSES, len(names))
        with CompilationProgress(names, console) as progress:
            compile_them(missing, processes=processes, on_compiled=progress.advance)


def _missing(device: Any, signatures: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the signatures that the cache lacks for a device, and what compiles them."""
    if not hasattr(device, "capability"):
        from traccc_py.device.cpu.compile import compile_loops, missing_loops

        return missing_loops(signatures), compile_loops
    from traccc_py.device.cuda.compile import compile_all, missing_kernels

    capability = device.capability
    return missing_kernels(signatures, capability), partial(compile_all, capabilities=[capability])


def _weight(name: str) -> float:
    return _SECONDS.get(name, _SECONDS_OF_OTHERS)


class CompilationProgress:
    """Tells how many kernels are compiled, and about how long the rest takes.

    On a terminal that is one line, else a line after 10 s and ever rarer ones later. To be used in a ``with``.

    Parameters
    ----------
    names : iterable of str
        The kernels; one that is compiled for two types occurs twice.
    console : Console
        Where to tell.
    """

    def __init__(self, names: Iterable[str], console: Console) -> None:
        weights = [_weight(name) for name in names]
        self._total, self._total_weight = len(weights), sum(weights)
        self._console = console
        self._done, self._done_weight = 0, 0.0
        self._begin = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="compilation-progress", daemon=True)
        columns = (TextColumn("compiling kernels"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        line = TextColumn("{task.description}", markup=False)
        self._bar = Progress(*columns, line, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=self._total)

    def __enter__(self) -> CompilationProgress:
        self._bar.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._bar.stop()

    def advance(self, name: str) -> None:
        """Note that a kernel is compiled."""
        self._done += 1
        self._done_weight += _weight(name)
        self._bar.update(self._task, completed=self._done, description=self.rest(self._seconds()))

    def rest(self, seconds: float) -> str:
        """Return in words how long the rest takes if it goes on as in the first `seconds`; "" before that is known."""
        share = self._done_weight / self._total_weight if self._total else 1.0
        if share < _KNOWN_SHARE:
            return ""
        left = seconds * (1 - share) / share
        return f"about {max(1, round(left / _ROUNDING)) * _ROUNDING} s more"

    def line(self, seconds: float) -> str:
        """Return what is told `seconds` after the beginning."""
        rest = self.rest(seconds)
        done = f"compiling kernels: {self._done} of {self._total}, {seconds:.0f} s"
        return f"{done}; {rest}" if rest else done

    def _seconds(self) -> float:
        return time.perf_counter() - self._begin

    def _tell(self) -> None:
        """Print lines where there is no terminal to write one again and again."""
        while not self._stop.wait(max(_FIRST_LINE, _GROWTH * self._seconds())):
            if self._console.is_terminal:
                self._bar.update(self._task, description=self.rest(self._seconds()))
            else:
                self._console.print(self.line(self._seconds()))
