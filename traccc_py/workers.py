"""Processes that share work: they end when they are told to, and with the one that started them, however that ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

__all__ = ["WorkerPool", "end_with_parent", "worker_pool"]

_PR_SET_PDEATHSIG = 1


class WorkerPool(ProcessPoolExecutor):
    """A pool whose processes leave Ctrl-C to the one that started them; see `worker_pool`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a call; it is left, with what it must tidy up, when its process is told to end."""
        return super().submit(_call, fn, *args, **kwargs)


_is_in_call = _is_ending = False  # of this process, one that a pool has started


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    global _is_in_call  # noqa: PLW0603 (what the handler of a signal sees)
    _is_in_call = True
    try:
        return function(*args, **kwargs)
    finally:
        _is_in_call = False
        if _is_ending:  # the pool would send an exception as an answer, and go on with the next call
            os._exit(1)


def _end_worker(*_: Any) -> None:
    """Leave what is called, which tidies up; between calls end at once. Later signals change nothing.

    An exception there could come right after a lock that all processes share was taken, and leave it locked for ever.
    """
    global _is_ending  # noqa: PLW0603
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _is_ending = True
    if _is_in_call:
        sys.exit(1)
    os._exit(1)


@contextmanager
def worker_pool(
    workers: int,
    start: str = "spawn",
    initializer: Callable[..., Any] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[WorkerPool]:
    """Return a pool of processes, to be used in ``with``.

    A call that fails lets others that have begun finish. Ctrl-C in this process, or a generator that is closed, ends
    them; so does the end of this process, even if it is killed. All of them have to be started by one thread.

    Parameters
    ----------
    workers : int
        Number of processes [1].
    start : str, optional
        "spawn", or "fork" where they shall have what this process has; then it must have started no threads.
    initializer : callable, optional
        Called in each of them first.
    arguments : tuple, optional
        Of `initializer`.
    """
    before = set(multiprocessing.active_children())
    begin = (initializer, arguments)
    pool = WorkerPool(workers, multiprocessing.get_context(start), _begin_worker, begin)
    try:
        yield pool
    except Exception:
        raise
    except BaseException:  # KeyboardInterrupt, GeneratorExit
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(initializer: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process
    signal.signal(signal.SIGTERM, _end_worker)
    end_with_parent()
    if initializer is not None:
        initializer(*arguments)


def end_with_parent() -> None:
    """Let this process be killed when the thread that has started it ends, however that happens (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it had ended before
        os.kill(os.getpid(), signal.SIGKILL)
