"""How far the compilation of kernels is, on a terminal or in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["CompilationProgress"]

_FIRST_LINE = 10.0  # [s]
_GROWTH = 0.25  # of the time between lines, with that since the beginning: 14 lines in seven minutes
_ROUNDING = 10  # [s]
_KNOWN_SHARE = 0.25  # of the work: with that, one of the long kernels is among those that are compiled
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


def _seconds(name: str) -> float:
    return _SECONDS.get(name, _SECONDS_OF_OTHERS)


def _rounded(seconds: float) -> int:
    return max(1, round(seconds / _ROUNDING)) * _ROUNDING


class CompilationProgress:
    """Tells how many kernels are compiled, and about how long the rest takes.

    On a terminal that is one line, else a line after 10 s and ever rarer ones later. To be used in a ``with``.

    Parameters
    ----------
    names : iterable of str
        The kernels; one that is compiled for two types occurs twice.
    processes : int
        How many of them are compiled at once.
    console : Console
        Where to tell.
    """

    def __init__(self, names: Iterable[str], processes: int, console: Console) -> None:
        self._left = list(names)
        self._total, self._seconds_of_all = len(self._left), sum(map(_seconds, self._left))
        self._processes = processes
        self._console = console
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
        self._left.remove(name)
        done = self._total - len(self._left)
        self._bar.update(self._task, completed=done, description=self.rest(self._elapsed()))

    def rest(self, seconds: float) -> str:
        """Return in words how long the rest takes, if it goes on as in the first `seconds`."""
        left = sum(map(_seconds, self._left))
        done = self._seconds_of_all - left
        if done >= _KNOWN_SHARE * self._seconds_of_all:
            return f"about {_rounded(seconds * left / done)} s more"
        # All that is known is that the longest one is not done yet.
        slowness = max(1.0, seconds / max(map(_seconds, self._left)))
        return f"at least {_rounded(slowness * self._seconds_of_all / self._processes - seconds)} s more"

    def line(self, seconds: float) -> str:
        """Return what is told `seconds` after the beginning."""
        done = self._total - len(self._left)
        return f"compiling kernels: {done} of {self._total}, {seconds:.0f} s; {self.rest(seconds)}"

    def _elapsed(self) -> float:
        return time.perf_counter() - self._begin

    def _tell(self) -> None:
        """Print lines where there is no terminal to write one again and again."""
        while not self._stop.wait(max(_FIRST_LINE, _GROWTH * self._elapsed())):
            if self._console.is_terminal:
                self._bar.update(self._task, description=self.rest(self._elapsed()))
            else:
                self._console.print(self.line(self._elapsed()))
