"""The chain without a service, in a process of its own, for comparison."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from traccc_py.edm import Cells
from traccc_py.studies.throughput import ThroughputPlan, measure_throughput
from traccc_py.workers import end_with_parent

__all__ = ["Standalone"]

_FEWEST_CALLS = 4
_KILOBYTES_PER_MB = 1000

_state: dict[str, Any] = {}  # of the process


def _begin(detector: str, digitization: str | None, device: str, events: Sequence[Cells]) -> None:
    end_with_parent()
    from traccc_py.geometry import build_detector

    options = {} if digitization is None else {"digitization": digitization}
    _state["detector"] = build_detector(detector, **options)
    _state["device"], _state["events"], _state["chains"] = device, events, {}


def _chain(threads: int) -> Any:
    from traccc_py.chain import TrackingChain

    if threads not in _state["chains"]:
        chain = TrackingChain(_state["detector"], device=_state["device"], threads=threads)
        chain.initialize()
        _state["chains"][threads] = chain
    return _state["chains"][threads]


def _measure(way: str, threads: int, batch: int, seconds: float) -> dict[str, float]:
    chain, events = _chain(threads), _state["events"]
    for cells in events:
        chain.run(cells)
    begin = time.perf_counter()
    results = [chain.run(cells) for cells in events]
    of_one = (time.perf_counter() - begin) / len(events)
    stages = {
        f"{name}_stage_ms": sum(result.stage_milliseconds[name] for result in results) / len(results)
        for name in results[0].stage_milliseconds
    }
    n_calls = max(_FEWEST_CALLS * max(batch, threads), round(seconds / of_one))
    plan = ThroughputPlan(threads, len(events) * threads, n_calls, batch, 1, None, (way,))
    _, (done,) = measure_throughput(chain, lambda: events.__getitem__, len(events), plan)
    return {
        "throughput": done.events_per_second,
        "requests": done.n_events,
        "seconds": done.wall_seconds,
        "cpu_cores": done.processor_seconds / done.wall_seconds,
        "cpu_ms": 1e3 * done.processor_seconds / done.n_events,
        "mean_ms": 1e3 * threads / done.events_per_second if way == "chains" else 1e3 / done.events_per_second,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KILOBYTES_PER_MB,
        **(stages if way == "chains" and threads == 1 else {}),
    }


class Standalone:
    """Chains on events in the memory of a process.

    Parameters
    ----------
    detector : str
        Name of the detector.
    digitization : str or None
        Name of its readout; None: its own.
    device : str
        Device of the chains.
    events : sequence of Cells
        What is reconstructed, in turn.
    """

    def __init__(self, detector: str, digitization: str | None, device: str, events: Sequence[Cells]) -> None:
        arguments = (detector, digitization, device, events)
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, arguments)

    def measure(self, way: str, threads: int, seconds: float, batch: int = 1) -> dict[str, float]:
        """Return rate and use of a way of `WAYS`, measured for about so many seconds, warm."""
        return self._pool.submit(_measure, way, threads, batch, seconds).result()

    def __enter__(self) -> Standalone:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
