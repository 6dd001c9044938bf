"""The studies: which points each of them measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from traccc_py.edm import Cells
from traccc_py.geometry import build_detector
from traccc_py.geometry.region import Region, modules_of_region
from traccc_py.studies.labels import DirectLabels
from traccc_py.studies.network import slow_line
from traccc_py.studies.programs import Front, find_envoy
from traccc_py.studies.standalone import Standalone
from traccc_py.studies.study import Study
from traccc_py.wire import EXATRKX_MODEL
from traccc_py.wire.exatrkx import ENSEMBLE_MODEL

__all__ = ["STUDIES", "regions_of"]

_REGIONS_OF_AN_EVENT = 8
_ETA_RANGE = 2.0  #: centres of regions
_REGION_MIN_PT = 2.0  # [GeV]
_REGION_MAX_BATCH = 64


def _standalone(study: Study, events: Sequence[Cells]) -> Standalone:
    plan = study.plan
    return Standalone(plan.detector, plan.digitization, plan.device, events)


def _add_alone(study: Study, alone: Standalone, way: str, threads: int, curve: str, **labels: object) -> None:
    batch = int(labels.get("max_batch", 8)) if way == "batches" else 1  # type: ignore[call-overload]
    found = alone.measure(way, threads, study.plan.seconds, batch)
    study.add(curve=curve, generator="none", threads=threads, **labels, **found)


def instances(study: Study) -> None:
    """Measure against model instances, at one concurrency."""
    plan, events, n_cores = study.plan, study.only_events(), len(study.plan.cores)
    with _standalone(study, events) as alone:
        for n in map(int, plan.values):
            with study.services(study.service(instances=n, threads=max(1, n_cores // n))) as services:
                for repeat in range(plan.repeats):
                    _add_alone(study, alone, "chains", n_cores, "standalone", instances=n, repeat=repeat)
                    labels = {"curve": "service", "instances": n, "repeat": repeat}
                    study.measure(services, services[0].url, events, plan.concurrency, **labels)


def concurrency(study: Study) -> None:
    """Measure against requests on the way: one instance, an instance per core, and no service."""
    plan, events, n_cores = study.plan, study.only_events(), len(study.plan.cores)
    with _standalone(study, events) as alone:
        for repeat in range(plan.repeats):
            for n in map(int, plan.values):
                if n <= n_cores:
                    labels = {"curve": "direct, threads", "concurrency": n, "repeat": repeat}
                    _add_alone(study, alone, "chains", n, **labels)  # type: ignore[arg-type]
        for n_instances in sorted({1, n_cores}):
            made = study.service(instances=n_instances, threads=n_cores // n_instances)
            curve = f"service, {n_instances} instance{'s' if n_instances > 1 else ''}"
            with study.services(made) as services:
                for repeat in range(plan.repeats):
                    for n in map(int, plan.values):
                        labels = {"curve": curve, "instances": n_instances, "repeat": repeat}
                        study.measure(services, made.url, events, n, **labels)


def pileup(study: Study) -> None:
    """Measure against pile-up: standalone on one core and on all, and the service, in turn."""
    plan, n_cores = study.plan, len(study.plan.cores)
    for mu in sorted(plan.events):
        events = plan.events[mu]
        cells = float(np.mean([len(cells) for cells in events]))
        with (
            _standalone(study, events) as alone,
            study.services(study.service(instances=n_cores, threads=1)) as services,
        ):
            for repeat in range(plan.repeats):
                labels = {"mu": mu, "cells": cells, "repeat": repeat}
                _add_alone(study, alone, "chains", 1, "standalone, one core", **labels)
                _add_alone(study, alone, "chains", n_cores, "standalone, all cores", **labels)
                study.measure(services, services[0].url, events, plan.concurrency, curve="service", **labels)


def gpus(study: Study) -> None:
    """Measure one server with several instances against servers of one instance each behind Envoy.

    On CPUs an instance has one core, to which its server is pinned.
    """
    plan, events = study.plan, study.only_events()
    find_envoy()
    is_cpu = plan.device == "cpu"
    for n in map(int, plan.values):
        places = plan.cores[:n]
        more = {"threads": 1, "cores": places} if is_cpu else {}
        options = [] if is_cpu else ["--gpus", ",".join(map(str, range(n)))]
        one = study.service(*options, instances=n if is_cpu else 1, **more)  # type: ignore[arg-type]
        with study.services(one) as services:
            for repeat in range(plan.repeats):
                labels = {"curve": "one server", "servers": n, "repeat": repeat}
                study.measure(services, one.url, events, plan.concurrency, **labels)
        several = [
            study.service(threads=1, cores=[place]) if is_cpu else study.service("--gpus", str(k))
            for k, place in enumerate(places)
        ]
        with study.services(*several) as services, Front(study.logs, services) as front:
            for repeat in range(plan.repeats):
                labels = {"curve": "a server each, Envoy", "servers": n, "repeat": repeat}
                study.measure(services, front.url, events, plan.concurrency, **labels)


def batch(study: Study) -> None:
    """Measure against the largest batch, at one concurrency."""
    plan, events, n_cores = study.plan, study.only_events(), len(study.plan.cores)
    with _standalone(study, events) as alone:
        for n in map(int, plan.values):
            with study.services(study.service("--max-batch", str(n), threads=n_cores)) as services:
                for repeat in range(plan.repeats):
                    labels = {"max_batch": n, "repeat": repeat}
                    _add_alone(study, alone, "batches", n_cores, "standalone", **labels)
                    study.measure(services, services[0].url, events, plan.concurrency, curve="service", **labels)


def remote(study: Study) -> None:
    """Measure against the delay of the line, at several rates, with standard and compact tensors."""
    plan, events, n_cores = study.plan, study.only_events(), len(study.plan.cores)
    with slow_line() as line:
        made = study.service(threads=n_cores, address=line.address, prefix=line.prefix)
        with study.services(made) as services:
            for delay in plan.values:
                for megabits in (None, 100.0):
                    with line.slowed(made.grpc, delay, megabits) as url:
                        for repeat in range(plan.repeats):
                            for compact in (False, True):
                                name = "compact" if compact else "standard"
                                rate = "" if megabits is None else f", {megabits:g} Mbit/s"
                                labels = {"delay_ms": delay, "megabits": megabits or 0.0, "repeat": repeat}
                                more = {"curve": name + rate, "compact": compact}
                                study.measure(services, url, events, plan.concurrency, **labels, **more)
            study.notes["line"] = line.means


def regions_of(events: Sequence[Cells], detector: str, digitization: str | None, half_width: float) -> list[Cells]:
    """Return the cells of regions at random places of events.

    Parameters
    ----------
    events : sequence of Cells
        Whole events.
    detector, digitization : str, str or None
        Names of the detector and its readout.
    half_width : float
        Half the width in eta, and in phi [rad].

    Returns
    -------
    list of Cells
        Eight regions of each event; the same for the same width.
    """
    found = build_detector(detector, **({} if digitization is None else {"digitization": digitization}))
    random = np.random.default_rng(1)
    regions = []
    for cells in events:
        modules = found.module_index(cells.geometry_id)
        for _ in range(_REGIONS_OF_AN_EVENT):
            eta, phi = random.uniform(-_ETA_RANGE, _ETA_RANGE), random.uniform(-math.pi, math.pi)
            window = Region(
                (eta - half_width, eta + half_width), (phi - half_width, phi + half_width), min_pt=_REGION_MIN_PT
            )
            regions.append(cells[modules_of_region(found, window)[modules]])
    return regions


def region(study: Study) -> None:
    """Measure against the size of regions: many small ones in a batch, by compact tensors."""
    plan, n_cores = study.plan, len(study.plan.cores)
    whole = study.only_events()
    with study.services(study.service("--max-batch", str(_REGION_MAX_BATCH), threads=n_cores)) as services:
        for half_width in plan.values:
            events = regions_of(whole, plan.detector, plan.digitization, half_width)
            cells = float(np.mean([len(one) for one in events]))
            with _standalone(study, events) as alone:
                for repeat in range(plan.repeats):
                    labels = {"half_width": half_width, "cells": cells, "repeat": repeat}
                    more = {**labels, "max_batch": _REGION_MAX_BATCH}
                    _add_alone(study, alone, "batches", n_cores, "standalone", **more)
                    url = services[0].url
                    study.measure(services, url, events, plan.concurrency, **labels, curve="service", compact=True)


def exatrkx(study: Study) -> None:
    """Measure labels of spacepoints: the finder in threads, as one model, and as the ensemble of its steps."""
    plan, n_cores = study.plan, len(study.plan.cores)
    with DirectLabels(plan.detector, plan.digitization, plan.device) as direct:
        tables, crossing = direct.tables(study.only_events())
        of_model = {"exatrkx": float(np.mean([table.nbytes + 8 * len(table) for table in tables]))}
        study.notes |= {"spacepoints": [len(table) for table in tables], "bytes": {**of_model, **crossing}}
        for repeat in range(plan.repeats):
            for n in (int(x) for x in plan.values if x <= n_cores):
                found = direct.measure(tables, n, plan.seconds)
                study.add(curve="direct, threads", generator="none", concurrency=n, repeat=repeat, **found)
    made = study.service("--exatrkx-ensemble", threads=1)
    curves = {"custom": (EXATRKX_MODEL, of_model), "ensemble": (ENSEMBLE_MODEL, crossing)}
    with study.services(made):
        for repeat in range(plan.repeats):
            for n in map(int, plan.values):
                for curve, (model, exchanged) in curves.items():
                    kilobytes = {f"{step}_kb": value / 1000 for step, value in exchanged.items()}
                    study.measure_labels(made, model, tables, n, curve=curve, repeat=repeat, **kilobytes)


STUDIES: dict[str, Callable[[Study], None]] = {
    "instances": instances,
    "concurrency": concurrency,
    "pileup": pileup,
    "gpus": gpus,
    "batch": batch,
    "remote": remote,
    "region": region,
    "exatrkx": exatrkx,
}
