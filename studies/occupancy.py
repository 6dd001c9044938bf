"""Count cells, clusters and seeds of simulated events by layer, and compare cluster sizes with a real event's.

Usage: python -m studies.occupancy --pileup 200 --events 4
       python -m studies.occupancy --folder out/mu200
The real event is read from $TRACCC_PY_REFERENCE_DATA/odd_real where that is set.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from studies.common import (
    OUTPUT,
    Detector,
    Events,
    Output,
    Seed,
    Threads,
    collision_events,
    detector_in,
    write_results,
)
from traccc_py.chain import TrackingChain
from traccc_py.config import read_config
from traccc_py.data.csv_events import read_cells
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

PIXELS = (16, 17, 18)
#: traccc's settings, with the vertex range of its benchmark job
TRACCC = read_config("traccc").with_settings(
    {"seeding.collision_region_min": -150.0, "seeding.collision_region_max": 150.0}
)
ETA_BINS = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])


def show_layers(detector: object, results: list) -> None:
    """Print clusters and cells per event of each volume and layer."""
    ids = np.concatenate([r.measurements.geometry_id for r in results])
    n_cells = np.concatenate([r.measurements.n_cells for r in results])
    layer = ids >> np.uint64(36)
    modules = np.asarray(detector.geometry_ids) >> np.uint64(36)
    print(f"{'volume':>6} {'layer':>5} {'modules':>7} {'clusters':>9} {'per module':>10} {'cells per cluster':>17}")
    for key in np.unique(layer):
        rows = layer == key
        n_modules = np.count_nonzero(modules == key)
        per_event = rows.sum() / len(results)
        volume, number = int(key) >> 20, int(key) & 0xFFF
        print(
            f"{volume:6} {number:5} {n_modules:7} {per_event:9.0f} {per_event / n_modules:10.2f} "
            f"{n_cells[rows].mean():17.2f}"
        )


def show_sizes(detector: object, chain: TrackingChain, n_events: int, seed: int) -> None:
    """Print sizes of muons' clusters by |eta| of the module, simulated and real."""
    folder = os.environ.get("TRACCC_PY_REFERENCE_DATA")
    gun = ParticleGunConfig(n_particles=40, momentum=(50.0, 50.0), eta=(-2.5, 2.5), vertex_sigma=(0.01, 0.01, 55.0))
    sets = {"simulated": [e.cells for e in simulate_events(detector, gun, seed, n_events)]}
    if folder:
        sets["real"] = [read_cells(path) for path in sorted((Path(folder) / "odd_real").glob("*-cells.csv"))]
    for name, group in (("pixel", PIXELS), ("short strip", (23, 24, 25)), ("long strip", (28, 29, 30))):
        for kind, cells in sets.items():
            rows = [_sizes(detector, chain.run(c).measurements, group) for c in cells]
            eta, size0, size1, count = (np.concatenate(c) for c in zip(*rows, strict=True))
            bins = np.digitize(eta, ETA_BINS) - 1
            parts = [
                f"{count[bins == b].mean():5.2f} ({size0[bins == b].mean():4.2f} x {size1[bins == b].mean():4.2f})"
                for b in range(len(ETA_BINS) - 1)
                if np.any(bins == b)
            ]
            print(f"{name:12} {kind:9} clusters {len(eta) / len(cells):6.0f}  cells by |eta|:", "  ".join(parts))


def _sizes(detector: object, m: object, group: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    rows = np.isin(m.geometry_id >> np.uint64(56), group)
    surfaces = detector.arrays().surfaces[m.module_index[rows]]
    eta = np.abs(np.arcsinh(surfaces["cz"] / np.hypot(surfaces["cx"], surfaces["cy"])))
    return eta, m.cluster_size[rows, 0], m.cluster_size[rows, 1], m.n_cells[rows]


def main(
    folder: Annotated[Path | None, typer.Option(help="Sample made by traccc-py simulate; else one is made.")] = None,
    process: Annotated[str, typer.Option(help="Hard process of a sample that is made.")] = "ttbar",
    pileup: Annotated[float, typer.Option(help="Its mean number of pile-up collisions.")] = 200.0,
    muon_events: Annotated[int, typer.Option(min=1, help="Events of 40 muons for the sizes.")] = 50,
    events: Events = 4,
    detector: Detector = "odd",
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Count cells, clusters and seeds by layer, and compare cluster sizes with a real event's."""
    chain = TrackingChain(detector_in(detector), threads=threads)
    simulated = collision_events(chain.detector, folder, process, pileup, events, seed)
    results = [chain.run(event.cells) for event in simulated]
    peer = TrackingChain(chain.detector, TRACCC, threads=threads)
    pixels = [np.isin(r.measurements.geometry_id >> np.uint64(56), PIXELS).sum() for r in results]
    sizes = {
        "particles": [len(event.particles) for event in simulated],
        "hits": [len(event.simulated) for event in simulated],
        "cells": [len(event.cells) for event in simulated],
        "clusters": [len(r.measurements) for r in results],
        "clusters in pixels": [int(n) for n in pixels],
        "seeds": [len(r.seeds.quality) for r in results],
        "seeds with traccc's cuts": [len(peer.run(event.cells).seeds.quality) for event in simulated],
    }
    means = {name: float(np.mean(numbers)) for name, numbers in sizes.items()}
    print(f"{len(simulated)} events, means:", ", ".join(f"{mean:,.0f} {name}" for name, mean in means.items()))
    print("traccc finds 29,830 seeds in its Geant4 events")
    show_layers(chain.detector, results)
    show_sizes(chain.detector, chain, muon_events, seed)
    write_results(output, "occupancy", {"folder": folder and str(folder), "by_event": sizes, "means": means})


if __name__ == "__main__":
    typer.run(main)
