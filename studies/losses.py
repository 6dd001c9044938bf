"""Tell where particles of collisions are lost, and what fakes are made of.

Usage: python -m studies.losses --folder mu200 [--events 3]

The particles are those of `traccc-py performance --sample`, |eta| < 2.5; the first cause that applies counts.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
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
from traccc_py.edm import EventResult
from traccc_py.performance.definitions import TRACCC, collision_selections
from traccc_py.performance.matching import Matches, match_seeds, match_tracks
from traccc_py.performance.selection import select_particles
from traccc_py.performance.tracks import seeds_of_result, tracks_of_result
from traccc_py.performance.truth import MeasurementTruth, link_digitization, simulated_truth
from traccc_py.simulation.events import SimulatedEvent

SELECTION = collision_selections()["central"]
_VOLUME, _LAYER = np.uint64(56), np.uint64(36)
_PIXELS = (16, 17, 18)


class Truth:
    """What is known of an event's particles, and of the measurements that were made of its cells."""

    def __init__(self, event: SimulatedEvent, result: EventResult) -> None:
        particles, simulated = event.particles, event.simulated
        truth = simulated_truth(event)
        self.n = len(particles)
        self.links = link_digitization(result.measurements, event.digitization, truth.particle_of_hit)
        self.is_selected = select_particles(truth, self.links, SELECTION)
        hit_of, ids = simulated.particle_index, simulated.hits.geometry_id
        in_pixels = np.isin(ids >> _VOLUME, _PIXELS)
        layers = np.unique(np.stack([hit_of[in_pixels].astype(np.uint64), ids[in_pixels] >> _LAYER]), axis=1)[0]
        self.n_pixel_layers = np.bincount(layers.astype(np.int64), minlength=self.n)
        last = np.zeros(self.n, np.int64)
        last[hit_of] = np.arange(len(simulated))
        x, y, z = simulated.hits.position[last].T if len(simulated) else np.zeros((3, self.n))
        is_lost = simulated.hits.energy[last] + simulated.hits.delta_energy[last] <= particles.mass * (1 + 1e-4)
        self.ends_early = is_lost | ((np.hypot(x, y) < 800) & (np.abs(z) < 2500))

    def tracks(self, result: EventResult) -> Matches:
        """Match the tracks of a result with these measurements."""
        return match_tracks(tracks_of_result(result), self.links, self.n, TRACCC)

    def seeds(self, result: EventResult) -> Matches:
        """Match the seeds of a result with these measurements."""
        return match_seeds(seeds_of_result(result), self.links, self.n, TRACCC)


def is_in(matches: Matches, rows: np.ndarray, n: int) -> np.ndarray:
    """Return which particles have a track or seed among `rows`."""
    found = np.zeros(n, bool)
    index = matches.particle_index[rows]
    found[index[index >= 0]] = True
    return found


def merged_fraction(links: MeasurementTruth, n: int) -> np.ndarray:
    """Return which part of each particle's measurements it shares with others."""
    n_behind = np.diff(links.offsets)
    merged = np.bincount(links.particle_index, np.repeat(n_behind > 1, n_behind), n)
    return merged / np.maximum(np.bincount(links.particle_index, minlength=n), 1)


def causes(truth: Truth, result: EventResult, candidates: EventResult) -> Counter:
    """Return why selected particles are not found."""
    tracks, before, seeds = truth.tracks(result), truth.tracks(candidates), truth.seeds(result)
    selected = truth.is_selected
    lost = selected & ~is_in(tracks, tracks.is_matched, truth.n)
    steps = {
        "ends early (absorbed, decayed)": truth.ends_early,
        "half of its clusters merged": merged_fraction(truth.links, truth.n) > 0.5,
        "fewer than three pixel layers": truth.n_pixel_layers < 3,
        "no seed": ~is_in(seeds, seeds.is_matched, truth.n),
        "no candidate": ~is_in(before, before.purity >= 0.5, truth.n),
        "candidate too short": ~is_in(before, before.is_matched, truth.n),
        "removed by the resolution": np.ones(truth.n, bool),
    }
    counts = Counter(selected=int(selected.sum()), lost=int(lost.sum()))
    for name, is_cause in steps.items():
        counts[name] = int(np.count_nonzero(lost & is_cause))
        lost &= ~is_cause
    return counts


def kinds_of_tracks(truth: Truth, result: EventResult) -> Counter:
    """Return how many tracks there are, and how many of them are fakes of which kind."""
    tracks = truth.tracks(result)
    is_pure = tracks.purity >= 0.5
    return Counter(
        {
            "tracks": len(tracks.purity),
            "less than half of one particle": int(np.count_nonzero(~is_pure)),
            "less than half of the particle": int(np.count_nonzero(is_pure & ~tracks.is_matched)),
        }
    )


def main(
    folder: Annotated[Path | None, typer.Option(help="Sample made by traccc-py simulate; else one is made.")] = None,
    process: Annotated[str, typer.Option(help="Hard process of a sample that is made.")] = "ttbar",
    pileup: Annotated[float, typer.Option(help="Its mean number of pile-up collisions.")] = 200.0,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    events: Events = 3,
    detector: Detector = "odd",
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Tell where particles are lost."""
    settings = read_config(config)
    chain = TrackingChain(detector_in(detector), settings, threads=threads)
    resolution = replace(settings.ambiguity_resolution, enabled=False)
    unresolved = TrackingChain(chain.detector, replace(settings, ambiguity_resolution=resolution), threads=threads)
    lost, fakes = Counter(), Counter()
    simulated = collision_events(chain.detector, folder, process, pileup, events, seed)
    for event in simulated:
        result = chain.run(event.cells)
        truth = Truth(event, result)
        lost += causes(truth, result, unresolved.run(event.cells))
        fakes += kinds_of_tracks(truth, result)
    content = {"folder": folder and str(folder), "n_events": len(simulated), "lost": lost, "fakes": fakes}
    print(json.dumps(content, indent=1))
    write_results(output, "losses", content)


if __name__ == "__main__":
    typer.run(main)
