"""The engine of studies: measures points, keeps all of them in a table, and says of each whether it may be used."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from traccc_py.edm import Cells
from traccc_py.environment import environment
from traccc_py.errors import ServiceError
from traccc_py.files import write_files
from traccc_py.studies.generator import generate_label_load, generate_load
from traccc_py.studies.load import LoadRun, summary_of
from traccc_py.studies.monitor import Monitor, gpu_reader, latency_split
from traccc_py.studies.perf_analyzer import run_perf_analyzer
from traccc_py.studies.programs import Service, running

__all__ = ["Study", "StudyPlan"]

_FIRST_COLUMNS = ("study", "curve", "generator", "repeat", "problems")


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """How a study measures.

    Attributes
    ----------
    kind : str
        Which study.
    values : sequence of float
        What its variable is set to.
    events : mapping of float to sequence of Cells
        Events by their pile-up.
    seconds, warm_up : float
        Of a point [s].
    repeats : int
        Times each point is measured [1].
    concurrency : int
        Requests on the way in all points of a study that does not vary it [1].
    cores : sequence of int
        Cores that may be used.
    device : str
        "cpu" or "cuda".
    detector : str
        Name of the detector.
    digitization : str or None
        Name of its readout; None: its own.
    perf_analyzer : str or None
        The program, to measure with it, too.
    compact : bool
        Send compact tensors.
    start_seconds : float
        How long a service may take to start [s].
    """

    kind: str
    values: Sequence[float]
    events: Mapping[float, Sequence[Cells]]
    seconds: float
    warm_up: float
    repeats: int
    concurrency: int
    cores: Sequence[int]
    device: str = "cpu"
    detector: str = "odd"
    digitization: str | None = None
    perf_analyzer: str | None = None
    compact: bool = False
    start_seconds: float = 600.0

    def facts(self) -> dict[str, Any]:
        """Return it for the results."""
        left_out = ("events", "start_seconds")
        found = {name: getattr(self, name) for name in self.__slots__ if name not in left_out}
        found["perf_analyzer"] = self.perf_analyzer is not None
        found["cells"] = {f"{mu:g}": [len(cells) for cells in events] for mu, events in self.events.items()}
        return found | {"values": list(self.values), "cores": list(self.cores)}


@dataclass
class Study:
    """Points that were measured, written after each.

    Attributes
    ----------
    plan : StudyPlan
        How.
    output : Path
        Folder of the results.
    tell : callable
        Gets a line for each point.
    """

    plan: StudyPlan
    output: Path
    tell: Callable[[str], None] = lambda _: None
    points: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)  #: what else the results must say

    def __post_init__(self) -> None:
        self._begin = environment()
        self._date = datetime.now(UTC).date().isoformat()
        self._read_gpus = gpu_reader()

    @property
    def logs(self) -> Path:
        """Folder of the logs of services."""
        return self.output / "logs"

    def path(self, suffix: str) -> Path:
        """Return a file of the results."""
        return self.output / f"{self._date}-{self.plan.kind}{suffix}"

    def only_events(self) -> Sequence[Cells]:
        """Return the events of a study with one pile-up: those of the least."""
        return self.plan.events[min(self.plan.events)]

    @contextmanager
    def services(self, *services: Service) -> Iterator[Sequence[Service]]:
        """Give services that answer; end them at the end."""
        with running(services, self.plan.start_seconds):
            yield services

    def service(self, *options: str, instances: int = 1, threads: int | None = None, **more: Any) -> Service:
        """Return a service on the study's device, which `services` waits for."""
        plan = self.plan
        words = ["--detector", plan.detector, "--device", plan.device, "--instances", str(instances)]
        words += [] if plan.digitization is None else ["--digitization", plan.digitization]
        words += [] if threads is None else ["--threads", str(threads)]
        more.setdefault("cores", plan.cores)
        name = f"{plan.kind}-{len(self.points)}-{time.monotonic_ns() % 10**6}"
        return Service(self.logs, [*words, *options], name=name, **more)

    def measure(
        self, services: Sequence[Service], url: str, events: Sequence[Cells], concurrency: int, **labels: Any
    ) -> None:
        """Measure a point with each load generator, and keep it.

        Parameters
        ----------
        services : sequence of Service
            What is behind the address.
        url : str
            Where to send events.
        events : sequence of Cells
            Events, in turn.
        concurrency : int
            Requests on the way [1].
        **labels
            What the point is: `curve`, `repeat`, the variable.

        Raises
        ------
        ServiceError
            If a service ended meanwhile.
        """
        plan = self.plan
        options = {"seconds": plan.seconds, "warm_up": plan.warm_up}
        labels.setdefault("compact", plan.compact)
        with Monitor(services, self._read_gpus) as monitor:
            run = generate_load(url, events, concurrency, **options, compact=labels["compact"])
        self._keep(services, run, monitor.between(run.begin, run.end), labels)
        if plan.perf_analyzer is None:
            return
        with Monitor(services, self._read_gpus) as monitor:
            begin = time.monotonic()
            try:
                run = run_perf_analyzer(
                    plan.perf_analyzer, url, events, concurrency, **options, compact=labels["compact"]
                )
            except ServiceError as error:
                self.tell(f"perf_analyzer: {error}")
                labels |= {"generator": "perf_analyzer", "concurrency": concurrency, "problems": str(error)}
                self.add(**labels)
                return
            end = time.monotonic()
        self._keep(services, run, monitor.between(begin, end), labels)

    def measure_labels(
        self, service: Service, model: str, tables: Sequence[Any], concurrency: int, **labels: Any
    ) -> None:
        """Measure a point of a model that labels spacepoints, and keep it.

        Parameters
        ----------
        service : Service
            What serves it.
        model : str
            Its name.
        tables : sequence of ndarray
            FEATURES of events, in turn.
        concurrency : int
            Requests on the way [1].
        **labels
            What the point is.
        """
        plan = self.plan
        with Monitor([service], self._read_gpus) as monitor:
            run = generate_label_load(
                service.url, model, tables, concurrency, seconds=plan.seconds, warm_up=plan.warm_up
            )
        self._keep([service], run, monitor.between(run.begin, run.end), labels)

    def _keep(
        self, services: Sequence[Service], run: LoadRun, grown: dict[str, float], labels: Mapping[str, Any]
    ) -> None:
        for service in services:
            service.check()
        found = summary_of(run)
        is_same_clock = run.generator == "asyncio"  # the other's window is not that of the monitor
        split = latency_split(grown, found["mean_ms"]) if is_same_clock and found["requests"] else {}
        gauges = {name: grown[name] for name in grown if name == "memory_mb" or name.startswith("gpu_")}
        use = {}
        if grown and is_same_clock:
            use["cpu_cores"] = grown["cpu_seconds"] / run.seconds
            use["cpu_ms"] = 1e3 * grown["cpu_seconds"] / found["requests"] if found["requests"] else math.nan
        self.add(**labels, **found, **split, **use, **gauges)

    def add(self, **point: Any) -> None:
        """Keep a point and write all."""
        self.points.append({"study": self.plan.kind, "problems": "", **point})
        if self.points[-1]["problems"]:
            self.tell(f"{self._label(point)}: NOT USABLE: {self.points[-1]['problems']}")
        else:
            self.tell(f"{self._label(point)}: {point['throughput']:.2f} events/s")
        self.write(is_complete=False)

    @staticmethod
    def _label(point: Mapping[str, Any]) -> str:
        names = (
            "mu",
            "instances",
            "servers",
            "max_batch",
            "delay_ms",
            "megabits",
            "half_width",
            "concurrency",
            "repeat",
        )
        about = ", ".join(f"{name} {point[name]}" for name in names if name in point)
        return f"{point['curve']} ({about})"

    def write(self, *, is_complete: bool, stopped: str = "") -> None:
        """Write table and JSON; say why it is not complete, if it is not.

        Raises
        ------
        OSError
            If they can't be written; those of before are untouched.
        """
        content = {
            "date": self._date,
            **self._begin,
            "load_average_at_end": environment()["load_average"],
            "plan": self.plan.facts(),
            "is_complete": is_complete,
            **({"stopped": stopped} if stopped else {}),
            **self.notes,
            "points": [{k: None if _is_nan(v) else v for k, v in point.items()} for point in self.points],
        }
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_files({self.path(".csv"): self._table().encode(), self.path(".json"): text.encode()})

    def _table(self) -> str:
        names = dict.fromkeys([*_FIRST_COLUMNS, *(name for point in self.points for name in point)])
        text = io.StringIO()
        writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if _is_nan(v) else v for k, v in point.items()} for point in self.points)
        return text.getvalue()


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
