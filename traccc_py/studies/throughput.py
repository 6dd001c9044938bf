"""Events per second of the chain in one process: a chain per thread, one with all threads, batches.

What is timed follows traccc's throughput programs: events are in memory (or, if asked for, are read in the loop), each
chain is warm, and the wall time of the whole loop counts. Ways are measured in turn, so that other work on the machine
touches all alike.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from traccc_py.chain import TrackingChain
from traccc_py.errors import TracccError

__all__ = ["WAYS", "ThroughputPlan", "ThroughputRound", "event_order", "measure_throughput", "spread_of"]

WAYS = ("chains", "threads", "batches")


@dataclass(frozen=True, slots=True)
class ThroughputPlan:
    """What is measured.

    Attributes
    ----------
    threads : int
        CPU threads [1].
    cold_run_events, processed_events : int
        Calls before the timed loop and in it [1].
    batch_events : int
        Events of a batch [1].
    repeats : int
        Times everything is measured [1].
    seed : int or None
        Seed of a random order of events; None: in turn.
    ways : sequence of str
        Some of `WAYS`.
    """

    threads: int
    cold_run_events: int = 10
    processed_events: int = 100
    batch_events: int = 8
    repeats: int = 3
    seed: int | None = None
    ways: Sequence[str] = WAYS


@dataclass(frozen=True, slots=True)
class ThroughputRound:
    """One loop."""

    way: str
    repeat: int
    with_reading: bool
    n_events: int
    n_tracks: int
    warm_up_seconds: float
    wall_seconds: float
    processor_seconds: float

    @property
    def events_per_second(self) -> float:
        """Rate of the loop [1/s]."""
        return self.n_events / self.wall_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {**asdict(self), "events_per_second": self.events_per_second}


class _Source:
    """Events by their numbers: kept in memory, or read each time; each thread has a reader of its own."""

    def __init__(self, make_reader: Callable[[], Callable[[int], Any]], kept: Sequence[Any] | None) -> None:
        self._make, self._kept, self._own = make_reader, kept, threading.local()

    def __call__(self, number: int) -> Any:
        if self._kept is not None:
            return self._kept[number]
        if not hasattr(self._own, "read"):
            self._own.read = self._make()
        return self._own.read(number)


def event_order(n_events: int, n_calls: int, seed: int | None) -> np.ndarray:
    """Return the event of each call.

    Parameters
    ----------
    n_events : int
        Events that there are [1].
    n_calls : int
        Calls [1].
    seed : int or None
        Seed of a random order; None: in turn.

    Returns
    -------
    ndarray of shape (n_calls,), int64
        Places of events.
    """
    if seed is None:
        return np.arange(n_calls) % n_events
    return np.random.default_rng(seed).integers(0, n_events, n_calls)


def _by_chains(chains: Sequence[TrackingChain], source: _Source, order: np.ndarray) -> int:
    """Let each chain, in a thread of its own, take the next event; return the number of tracks."""
    calls, lock = iter(order.tolist()), threading.Lock()

    def work(chain: TrackingChain) -> int:
        n_tracks = 0
        while True:
            with lock:
                number = next(calls, None)
            if number is None:
                return n_tracks
            n_tracks += len(chain.run(source(number)).tracks)

    with ThreadPoolExecutor(len(chains)) as pool:
        return sum(pool.map(work, chains))


def _by_batches(chain: TrackingChain, source: _Source, order: np.ndarray, size: int) -> int:
    """Run batches one after another; return the number of tracks."""

    def batches() -> Iterator[list[Any]]:
        for begin in range(0, len(order), size):
            yield [source(number) for number in order[begin : begin + size].tolist()]

    return sum(len(result.tracks) for results in chain.run_batches(batches()) for result in results)


class _Loops:
    """The chains of each way, made once, and their loops."""

    def __init__(self, chain: TrackingChain, plan: ThroughputPlan) -> None:
        self._chain, self._plan = chain, plan
        self._chains: list[TrackingChain] = []
        if "chains" in plan.ways:
            device = chain.device.name
            made = (TrackingChain(chain.detector, chain.config, device, threads=1) for _ in range(plan.threads))
            self._chains = list(made)

    def run(self, way: str, source: _Source, order: np.ndarray) -> int:
        """Run a loop; return the number of tracks."""
        if way == "chains":
            return _by_chains(self._chains, source, order)
        return _by_batches(self._chain, source, order, self._plan.batch_events if way == "batches" else 1)

    def warm(self, way: str, source: _Source, order: np.ndarray) -> None:
        """Let kernels be loaded and buffers grow, those of each chain."""
        if way == "chains":
            share = order[: max(1, len(order) // len(self._chains))]
            for chain in self._chains:
                _by_chains([chain], source, share)
        elif len(order):
            self.run(way, source, order)


def measure_throughput(
    chain: TrackingChain,
    make_reader: Callable[[], Callable[[int], Any]],
    n_events: int,
    plan: ThroughputPlan,
    *,
    with_reading: bool = False,
    on_round: Callable[[ThroughputRound], None] = lambda _: None,
) -> tuple[float, list[ThroughputRound]]:
    """Measure how many events a second are reconstructed.

    Parameters
    ----------
    chain : TrackingChain
        Chain with all threads; others are made like it.
    make_reader : callable
        Makes a function that returns an event by its place; called in each thread that reads.
    n_events : int
        Events that there are [1].
    plan : ThroughputPlan
        What is measured.
    with_reading : bool, optional
        Measure each way again with events read in the loop.
    on_round : callable, optional
        Gets each loop as it ends.

    Returns
    -------
    float
        Time to read all events into memory [s].
    list of ThroughputRound
        The loops.

    Raises
    ------
    TracccError
        If loops over the same events found different numbers of tracks, or an event can't be read or reconstructed.
    """
    begin = time.perf_counter()
    read = make_reader()
    kept = [read(number) for number in range(n_events)]
    reading_seconds = time.perf_counter() - begin
    loops = _Loops(chain, plan)
    order = event_order(n_events, plan.processed_events, plan.seed)
    cold = event_order(n_events, max(plan.cold_run_events, 1), plan.seed)
    sources = {False: _Source(make_reader, kept)} | ({True: _Source(make_reader, None)} if with_reading else {})
    rounds: list[ThroughputRound] = []
    for repeat, way, reads in itertools.product(range(plan.repeats), plan.ways, sources):
        begin = time.perf_counter()
        loops.warm(way, sources[reads], cold)
        wall, processor = time.perf_counter(), time.process_time()
        n_tracks = loops.run(way, sources[reads], order)
        end = time.perf_counter()
        spent = time.process_time() - processor
        rounds.append(ThroughputRound(way, repeat, reads, len(order), n_tracks, wall - begin, end - wall, spent))
        _check_tracks(rounds)
        on_round(rounds[-1])
    return reading_seconds, rounds


def _check_tracks(rounds: Sequence[ThroughputRound]) -> None:
    first, last = rounds[0], rounds[-1]
    if first.n_tracks != last.n_tracks:
        msg = (
            f"{last.n_events} events gave {last.n_tracks} tracks by {last.way} and {first.n_tracks} by {first.way}; "
            "expected the same: please report this"
        )
        raise TracccError(msg)


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most of repeated measurements."""
    return {"median": median(values), "least": min(values), "most": max(values)}
