"""Labels of spacepoints for studies: tables of features, the finder without a service, bytes between processes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np

from traccc_py.edm import Cells
from traccc_py.wire.exatrkx import STEPS
from traccc_py.workers import end_with_parent

__all__ = ["DirectLabels", "bytes_by_step"]

_FEWEST_CALLS = 4
_state: dict[str, Any] = {}  # of the process


def bytes_by_step(steps: Any, table: np.ndarray) -> dict[str, int]:
    """Return how many bytes each step of the ensemble takes and gives for an event.

    Parameters
    ----------
    steps : LabelSteps
        The finder in steps.
    table : ndarray of shape (n, 3), float32
        FEATURES of the event.
    """
    work: Mapping[str, Callable[..., np.ndarray]] = {
        "embed": steps.embed,
        "frnn": steps.neighbours,
        "filter": steps.filter_scores,
        "applyfilter": steps.kept_edges,
        "gnn": steps.edge_scores,
        "wcc": steps.labels,
    }
    tensors, found = {"FEATURES": table}, {}
    for step in STEPS:
        given = [tensors[name] for name in step.inputs.values()]
        (made,) = step.outputs.values()
        tensors[made] = work[step.model](*given)
        found[step.model] = sum(array.nbytes for array in (*given, tensors[made]))
    return found


def _begin(detector: str, digitization: str | None, device: str) -> None:
    end_with_parent()
    from traccc_py.config import ChainConfig
    from traccc_py.geometry import build_detector

    options = {} if digitization is None else {"digitization": digitization}
    _state["detector"], _state["device"] = build_detector(detector, **options), device
    _state["config"] = ChainConfig().with_settings({"graph.constructor": "metric"})
    _state["labellers"] = []


def _tables(events: Sequence[Cells]) -> tuple[list[np.ndarray], list[dict[str, int]]]:
    """Return the tables of events, and the bytes of their steps."""
    from traccc_py.chain import TrackingChain
    from traccc_py.device import get_device
    from traccc_py.pipeline.features import features_of
    from traccc_py.pipeline.label_steps import LabelSteps

    chain = TrackingChain(_state["detector"], device="cpu", threads=1)
    steps = LabelSteps(_state["detector"], _state["config"], get_device("cpu", threads=1))
    tables = [features_of(chain.run(cells).spacepoints.global_position) for cells in events]
    return tables, [bytes_by_step(steps, table) for table in tables]


def _measure(tables: Sequence[np.ndarray], threads: int, seconds: float) -> dict[str, float]:
    from traccc_py.device import get_device
    from traccc_py.pipeline.labelling import SpacepointLabeller

    while len(_state["labellers"]) < threads:
        device = get_device(_state["device"], threads=1)
        _state["labellers"].append(SpacepointLabeller(_state["detector"], _state["config"], device))
    labellers = _state["labellers"][:threads]
    for labeller in labellers:
        for table in tables:
            labeller.label(table)  # buffers grow
    begin = time.perf_counter()
    for table in tables:
        labellers[0].label(table)
    n_calls = max(_FEWEST_CALLS * threads, round(seconds * len(tables) / (time.perf_counter() - begin)))
    calls, lock = iter(range(n_calls)), threading.Lock()

    def work(labeller: SpacepointLabeller) -> None:
        while True:
            with lock:
                number = next(calls, None)
            if number is None:
                return
            labeller.label(tables[number % len(tables)])

    wall, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, labellers))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "throughput": n_calls / wall,
        "requests": n_calls,
        "seconds": wall,
        "cpu_cores": processor / wall,
        "cpu_ms": 1e3 * processor / n_calls,
        "mean_ms": 1e3 * threads * wall / n_calls,
    }


class DirectLabels:
    """The finder of labels in a process of its own, without a service.

    Parameters
    ----------
    detector : str
        Name of the detector.
    digitization : str or None
        Name of its readout; None: its own.
    device : str
        Device of the finder.
    """

    def __init__(self, detector: str, digitization: str | None, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, _begin, (detector, digitization, device))

    def tables(self, events: Sequence[Cells]) -> tuple[list[np.ndarray], dict[str, float]]:
        """Return FEATURES of events, and the mean bytes that each step takes and gives."""
        tables, found = self._pool.submit(_tables, events).result()
        return tables, {step: float(np.mean([one[step] for one in found])) for step in found[0]}

    def measure(self, tables: Sequence[np.ndarray], threads: int, seconds: float) -> dict[str, float]:
        """Return rate and use of so many threads with a finder each, measured for about so many seconds, warm."""
        return self._pool.submit(_measure, tables, threads, seconds).result()

    def __enter__(self) -> DirectLabels:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
