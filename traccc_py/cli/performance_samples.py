"""Simulated events, made now or read from samples, reconstructed now and compared with their truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.progress import track

from traccc_py.data.headers import check_event_headers
from traccc_py.data.manifest import Manifest, read_manifest
from traccc_py.edm import EventResult
from traccc_py.errors import InputDataError
from traccc_py.performance.cluster_pulls import ClusterPulls
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import EVENT_KINDS, SimulatedEvent, read_event, simulate_events
from traccc_py.simulation.settings import ParticleGunConfig

__all__ = ["evaluate_gun", "evaluate_samples", "read_manifests"]

_OWN_LABEL = "traccc_py"


def _sizes(event: SimulatedEvent, result: EventResult) -> dict[str, float]:
    return {
        "cells": len(event.cells),
        "measurements": len(result.measurements),
        "spacepoints": len(result.spacepoints.measurement_index),
        "seeds": len(result.seeds.quality),
        "candidates": result.n_candidates,
        "tracks": len(result.tracks),
        "milliseconds": sum(result.stage_milliseconds.values()),
    }


def _evaluate_events(
    chain: Any,
    summary: PerformanceSummary,
    events: Iterable[SimulatedEvent],
    n_events: int,
    log: Console,
    clusters: ClusterPulls | None = None,
) -> dict[str, Any]:
    """Return the numbers of the summary, and `sizes`: means of an event, median of the milliseconds."""
    rows = []
    for event in track(events, "events", n_events, console=log, transient=True, disable=not log.is_terminal):
        result = chain.run(event.cells)
        summary.add_result(event, result)
        rows.append(_sizes(event, result))
        if clusters is not None:
            clusters.add(event, result)
    sizes: dict[str, float] = {name: fmean(row[name] for row in rows) for name in rows[0]}
    sizes["milliseconds"] = median(row["milliseconds"] for row in rows)
    return summary.as_dict() | {"sizes": sizes} | (clusters.tables() if clusters else {})


def evaluate_gun(
    chain: Any, summary: PerformanceSummary, gun: ParticleGunConfig, seed: int, n_events: int, log: Console
) -> dict[str, Any]:
    """Simulate events of a particle gun, reconstruct them and compare them with their truth.

    Parameters
    ----------
    chain : TrackingChain
        Ready to run.
    summary : PerformanceSummary
        Gathers the events.
    gun : ParticleGunConfig
        What is shot.
    seed : int
        Seed of the sample.
    n_events : int
        Number of events.
    log : Console
        Where progress goes.

    Returns
    -------
    dict of str to dict
        Numbers by label; `sizes` are means of an event, and the median of the milliseconds.
    """
    events = simulate_events(chain.detector, gun, seed, n_events)
    clusters = ClusterPulls(chain.detector, chain.config.clusterization)
    return {_OWN_LABEL: _evaluate_events(chain, summary, events, n_events, log, clusters)}


def read_manifests(folders: Sequence[Path], detector: Any, n_events: int | None, log: Console) -> dict[Path, Manifest]:
    """Return the manifests of samples, in order of pile-up, once it is sure that their files can be read.

    Parameters
    ----------
    folders : sequence of Path
        Folders of `traccc-py simulate`.
    detector : Detector
        What the events are reconstructed with.
    n_events : int, optional
        Number of events of each at most.
    log : Console
        Where warnings go.

    Raises
    ------
    InputDataError
        If a folder has no manifest or is of another detector, or a file is missing or lacks a column.
    """
    manifests = {folder: read_manifest(folder) for folder in folders}
    for folder, manifest in manifests.items():
        _check_detector(folder, manifest, detector, log)
        if manifest.recipe.get("format") == "trackml":
            msg = f"{folder}: holds files of TrackML; reconstruct them with 'run', then give --truth and --tracks"
            raise InputDataError(msg)
        for number in _numbers(manifest, n_events):
            check_event_headers(folder, number, EVENT_KINDS)
    return dict(sorted(manifests.items(), key=lambda item: _pileup(item[1]) or 0.0))


def _numbers(manifest: Manifest, n_events: int | None) -> list[int]:
    return [event["event"] for event in manifest.events][:n_events]


def evaluate_samples(
    manifests: Mapping[Path, Manifest],
    chain: Any,
    make_summary: Callable[[], PerformanceSummary],
    n_events: int | None,
    log: Console,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reconstruct the samples in folders.

    Parameters
    ----------
    manifests : mapping of Path to Manifest
        What `read_manifests` returned.
    chain : TrackingChain
        Ready to run, with the samples' detector.
    make_summary : callable
        Returns an empty summary.
    n_events : int, optional
        Number of events of each at most.
    log : Console
        Where progress goes.

    Returns
    -------
    results : dict of str to dict
        Numbers by label; `pileup` is the mean number of collisions besides, if there is one.
    facts : dict of str to dict
        Folder, recipe and number of events by label.

    Raises
    ------
    InputDataError
        If a file can't be used.
    """
    results: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for folder, manifest in manifests.items():
        label = _label(manifest)
        label = f"{label} ({folder.name})" if label in results else label
        numbers = _numbers(manifest, n_events)
        events = (read_event(folder, chain.detector, number) for number in numbers)
        found = _evaluate_events(chain, make_summary(), events, len(numbers), log)
        results[label] = found | {"pileup": _pileup(manifest)}
        facts[label] = {"folder": str(folder), "n_events": len(numbers), "recipe": manifest.recipe}
    return results, facts


def _check_detector(folder: Path, manifest: Manifest, detector: Any, log: Console) -> None:
    made_for = manifest.recipe["detector"]
    names = (detector.name, detector.digitization.name)
    if (made_for["name"], made_for["digitization"]) != names:
        msg = (
            f"{folder}: its events are of detector {made_for['name']} with digitization {made_for['digitization']}, "
            f"not of {names[0]} with {names[1]}; choose it with --detector and --digitization"
        )
        raise InputDataError(msg)
    if made_for["fingerprint"] != detector.fingerprint:
        log.print(
            f"{folder} was simulated with another version of the detector: {made_for['fingerprint']}, "
            f"now {detector.fingerprint}"
        )


def _pileup(manifest: Manifest) -> float | None:
    pileup = manifest.recipe["source"].get("pileup")
    return None if pileup is None else float(pileup)


def _label(manifest: Manifest) -> str:
    source = manifest.recipe["source"]
    if "pileup" in source:
        return f"{source['process']} mu={source['pileup']:g}"
    return f"{source['n_particles']} {source['particle']}s"
