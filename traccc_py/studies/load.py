"""What a load generator saw of a service, what follows from it, and the traps that spoil such measurements.

Rates and latencies come from the time stamps of requests alone, and only of those with a right answer. A measurement
with a problem is kept, with the words that say so, and no figure shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LoadRun", "Request", "confounded", "problems_of", "summary_of"]

_PERCENTILES = (50, 90, 99)
_WINDOWS = 4  #: parts of the time; the first must not be slower than the others
_COLD_SHARE = 0.6
_COLD_SIGNIFICANCE = 3.0  #: standard deviations of a count
_FEWEST_REQUESTS = 5
_CLOCK_TOLERANCE = (0.1, 0.02)  #: [s], and of the time
_CLIENT_BUSY = 0.95  #: of a core: the generator is then what is measured


class Request(NamedTuple):
    """One request."""

    begin: float  #: [s], monotonic
    end: float
    is_good: bool  #: a right answer came
    error: str = ""


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What a generator did in one measurement.

    Attributes
    ----------
    generator : str
        Which one.
    concurrency : int
        Requests on the way at a time [1].
    begin, end : float
        The measured time, after the warm-up, on the clock of the requests [s].
    system_seconds : float
        The same time by the system's clock [s]; nan where the generator does not tell.
    requests : sequence of Request
        All that ended in this time, or failed.
    client_busy : float
        Processor time of the generator, of one core; nan where it is not known.
    """

    generator: str
    concurrency: int
    begin: float
    end: float
    system_seconds: float
    requests: Sequence[Request]
    client_busy: float = math.nan

    @property
    def seconds(self) -> float:
        """Length of the measured time [s]."""
        return self.end - self.begin

    def good(self) -> list[Request]:
        """Return requests with a right answer that came in the measured time."""
        return [request for request in self.requests if request.is_good and self.begin <= request.end < self.end]

    def failed(self) -> list[Request]:
        """Return requests without a right answer."""
        return [request for request in self.requests if not request.is_good]


def summary_of(run: LoadRun) -> dict[str, Any]:
    """Return rate and latencies of a measurement.

    Parameters
    ----------
    run : LoadRun
        The measurement.

    Returns
    -------
    dict
        Numbers of requests, `throughput` [1/s], `mean_ms` and percentiles of the latency [ms], `problems` in words.
        Rate and latencies are nan without a right answer.
    """
    good = run.good()
    times = 1e3 * np.array([request.end - request.begin for request in good])
    found: dict[str, Any] = {
        "generator": run.generator,
        "concurrency": run.concurrency,
        "seconds": run.seconds,
        "requests": len(good),
        "errors": len(run.failed()),
        "throughput": len(good) / run.seconds if good else math.nan,
        "mean_ms": float(times.mean()) if good else math.nan,
        **{f"p{q}_ms": float(np.percentile(times, q)) if good else math.nan for q in _PERCENTILES},
        "client_busy": run.client_busy,
    }
    return {**found, "problems": "; ".join(problems_of(run))}


def problems_of(run: LoadRun) -> list[str]:
    """Return, in words, why a measurement must not be used; nothing if it may be."""
    good, failed = run.good(), run.failed()
    if not good:
        return ["no request succeeded" + (f": {failed[0].error}" if failed else "")]
    problems = []
    if failed:
        n_all = len(good) + len(failed)
        problems.append(f"{len(failed)} of {n_all} requests failed, the first with: {failed[0].error or 'no reason'}")
    if len(good) < _FEWEST_REQUESTS:
        problems.append(f"only {len(good)} requests ended in {run.seconds:.1f} s; measure longer")
    return [*problems, *_problems_of_clocks(run), *_cold_start(run, good), *_slow_client(run)]


def _problems_of_clocks(run: LoadRun) -> list[str]:
    if any(not request.begin <= request.end for request in run.requests):
        return ["a request ended before it began: the clock jumped"]
    absolute, relative = _CLOCK_TOLERANCE
    if abs(run.system_seconds - run.seconds) > absolute + relative * run.seconds:
        return [f"{run.seconds:.1f} s took {run.system_seconds:.1f} s by the system's clock: a clock jumped"]
    return []


def _cold_start(run: LoadRun, good: Sequence[Request]) -> list[str]:
    """Return a problem if the first part of the time had clearly fewer answers than the others."""
    counts, _ = np.histogram([request.end for request in good], _WINDOWS, (run.begin, run.end))
    first, others = counts[0], float(np.median(counts[1:]))
    if first < _COLD_SHARE * others and first + _COLD_SIGNIFICANCE * math.sqrt(others) < others:
        return [f"the first quarter has {first} answers, the others {others:.0f}: it was not warm"]
    return []


def _slow_client(run: LoadRun) -> list[str]:
    if run.client_busy > _CLIENT_BUSY:
        return [f"the generator used {run.client_busy:.0%} of a core: it is the limit, not the service"]
    return []


def confounded(points: Sequence[Mapping[str, Any]], variable: str, fixed: Sequence[str]) -> list[str]:
    """Return which conditions change together with the variable of a study, so that neither explains its curve.

    Parameters
    ----------
    points : sequence of mapping
        Measurements of one curve.
    variable : str
        What the curve is drawn against.
    fixed : sequence of str
        What must be the same in all points, such as the concurrency in a study of instances.

    Returns
    -------
    list of str
        In words.
    """
    found = []
    for name in fixed:
        values = sorted({point[name] for point in points})
        if name != variable and len(values) > 1:
            found.append(f"{name} is {', '.join(map(str, values))} at different {variable}; expected one value")
    return found
