"""Reconstruct muons in toy detectors as traccc smears them: efficiency, fakes and time, beside what traccc finds.

Usage: python -m studies.toy_samples --folder traccc_toy                       the default settings
       python -m studies.toy_samples --folder traccc_toy --config traccc --set seeding.sigma_scattering=15
The folder has traccc's own samples and the files of its toy detector (docs/traccc_comparison.md). Further events are
simulated here, with momenta, angles and vertices as in its sample of 1,000 muons: 5,000 in the same detector, and 1,000
in one of 2.5 and one of half its size; without a folder in the built-in toy detector with seven discs on each side.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from studies.common import OUTPUT, Output, Seed, Threads, write_results
from tests.scaled import scaled
from tests.smearing import smear_hits
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, read_config
from traccc_py.data.csv_events import event_files, read_cells, read_measurement_hit_map, read_measurements
from traccc_py.data.truth import Particles
from traccc_py.edm import Cells, Measurements
from traccc_py.geometry import Detector, build_detector, read_detray
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.track_readers import read_event_tracks
from traccc_py.performance.tracks import EventTracks, seeds_of_result, tracks_of_result
from traccc_py.performance.truth import EventTruth, link_cells, link_hits, read_truth
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry
from traccc_py.units import muon_mass

SELECTIONS = {
    "5 and more": TruthSelection(min_pt=0.5, min_measurements=5),
    "3 and more": TruthSelection(min_pt=0.5, min_measurements=3),
}
SAMPLES = ("toy_mu10_10GeV", "toy_mu1000_0p5-10GeV")
SIZES = (2.5, 0.5)
SMEARING = 0.05  # [mm]
COLUMNS = ("particles", "efficiency, >= 5 [%]", "particles", "efficiency, >= 3 [%]", "tracks", "fakes / track [%]",
           "duplicates [%]", "cpu [ms]")  # fmt: skip


class Given(NamedTuple):
    """An event, its truth, and what makes the links of its measurements."""

    event: Cells | Measurements
    truth: EventTruth
    hits: Any  # of measurements: rows of their hits; of cells: the map


def toy_of_files(folder: Path) -> dict[str, Detector]:
    """Return traccc's toy detector for its measurements, which have detray's ids, and for cells, which have Acts's."""
    geometry = folder / "geometry"
    material = geometry / "toy_detector_homogeneous_material.json.gz"
    of_cells = read_detray(
        geometry / "actsid_toy_detector_geometry.json.gz",
        material,
        digitization=geometry / "actsid_toy_digi_config.json.gz",
        conditions=geometry / "actsid_toy_conditions_config.json.gz",
    )
    return {
        "measurements": read_detray(geometry / "toy_detector_geometry.json.gz", material),
        "cells": of_cells,
    }


def muons(n: int, seed: int) -> Particles:
    """Return negative muons as in traccc's sample: p 0.5 to 10 GeV, flat in p, theta, phi; vertices 50 mm along z."""
    rng = np.random.default_rng(seed)
    p, theta, phi = rng.uniform(0.5, 10.0, n), rng.uniform(*np.radians([5.0, 175.0]), n), rng.uniform(-np.pi, np.pi, n)
    direction = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    return Particles(
        particle_id=np.arange(1, n + 1, dtype=np.uint64),
        particle_type=np.full(n, 13, np.int32),
        process=np.zeros(n, np.int32),
        vertex=rng.normal(0.0, 1.0, (n, 3)) * [0.05, 0.05, 50.0],
        time=np.zeros(n),
        momentum=p[:, None] * direction,
        mass=np.full(n, muon_mass),
        charge=-np.ones(n),
    )


def simulated(detector: Detector, n: int, seed: int) -> Given:
    """Return an event of n muons with smeared measurements."""
    particles, key = muons(n, seed), event_key(seed, 0)
    hits = transport(detector, particles, key, TransportConfig(), geometry=truth_geometry(detector))
    measurements, hit = smear_hits(detector, hits, key, SMEARING, SMEARING)
    return Given(measurements, EventTruth(0, particles, hits.hits, hits.particle_index), hit)


def of_files(folder: Path, kind: str) -> Iterator[Given]:
    """Return traccc's events: measurements, or cells made of their hits."""
    for number, path in event_files(folder, kind):
        truth = read_truth(folder, number)
        if kind == "measurements":
            yield Given(read_measurements(path), truth, np.arange(len(truth.hits)))
        else:
            hit_map = read_measurement_hit_map(folder / path.name.replace("cells", "measurement-simhit-map"))
            yield Given(read_cells(path), truth, hit_map)


def reconstruct(detector: Detector, config: ChainConfig, given: list[Given], threads: int) -> dict[str, Any]:
    """Return the row of a sample."""
    chain = TrackingChain(detector, config, device="cpu", threads=threads)
    summary, seconds = PerformanceSummary(SELECTIONS, float(detector.arrays().b_z)), 0.0
    chain.run(given[0].event)
    for event, truth, hits in given:
        begin = time.process_time()
        result = chain.run(event)
        seconds += time.process_time() - begin
        made = result.measurements
        if isinstance(event, Cells):
            links = link_cells(made.geometry_id, event, hits, truth.particle_of_hit)
        else:
            links = link_hits(hits[made.measurement_id], truth.particle_of_hit)
        if links is None:
            msg = "the clusters are not those of the cells"
            raise ValueError(msg)
        summary.add(truth, EventTracks(links, tracks_of_result(result), seeds_of_result(result)))
    return row_of(summary, 1e3 * seconds / len(given))


def of_traccc(folder: Path, detector: Detector) -> dict[str, Any]:
    """Return the row of what traccc made of a sample's measurements."""
    summary = PerformanceSummary(SELECTIONS, float(detector.arrays().b_z))
    for number, _ in event_files(folder, "measurements"):
        truth = read_truth(folder, number)
        summary.add(truth, read_event_tracks(folder / "traccc_ckf_ar_kf", "resolved", folder, truth))
    return row_of(summary, float("nan"))


def row_of(summary: PerformanceSummary, milliseconds: float) -> dict[str, Any]:
    """Return the numbers of a sample."""
    strict, loose = (sample.tracks for sample in summary.samples.values())
    values = (
        strict.n_particles, 100 * strict.efficiency, loose.n_particles, 100 * loose.efficiency,
        strict.n_groups, 100 * strict.fakes_per_group, 100 * strict.duplicates_per_group, milliseconds,
    )  # fmt: skip
    names = ("n_particles", "efficiency", "n_particles_3", "efficiency_3", "tracks", "fakes", "duplicates", "cpu_ms")
    return dict(zip(names, values, strict=True))


def show(sample: str, row: dict[str, Any]) -> None:
    """Print a row."""
    print(f"| {sample} |", " | ".join(f"{v:,}" if isinstance(v, int) else f"{v:.2f}" for v in row.values()), "|")


def main(
    folder: Annotated[Path | None, typer.Option(help="Folder of traccc's samples and detector.")] = None,
    config: Annotated[str | None, typer.Option(help="File of settings, or traccc.")] = None,
    assignments: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    n_muons: Annotated[int, typer.Option("--muons", help="Muons of the large event.")] = 5000,
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Print the table."""
    pairs = (text.partition("=")[::2] for text in assignments or [])
    given = {key: tomllib.loads(f"v = {value}")["v"] for key, value in pairs}
    settings = read_config(config).with_settings(given).with_particle("muon")
    toy = build_detector("toy", n_endcap_layers=7) if folder is None else toy_of_files(folder)["measurements"]
    print("| sample |", " | ".join(COLUMNS), "|")
    print("|---|" + "---|" * len(COLUMNS))
    rows: dict[str, Any] = {}

    def add(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        show(name, row)

    for name in SAMPLES if folder is not None else ():
        assert folder is not None
        add(f"{name}: traccc", of_traccc(folder / name, toy))
        for kind, detector in toy_of_files(folder).items():
            add(f"{name}: {kind}", reconstruct(detector, settings, list(of_files(folder / name, kind)), threads))
    add(f"{n_muons:,} muons", reconstruct(toy, settings, [simulated(toy, n_muons, seed)], threads))
    for size in SIZES:
        detector, n = scaled(toy, size), n_muons // 5
        made = simulated(detector, n, seed)
        add(f"{n:,} muons, {size:g} times the size", reconstruct(detector, settings, [made], threads))
    write_results(output, "toy_samples", {"config": settings.to_dict(), "rows": rows})


if __name__ == "__main__":
    typer.run(main)
