"""Reconstruct collisions with pile-up: time per stage, sizes, efficiency, fakes, and where particles are lost.

Usage: python scripts/pileup_performance.py --pileup 200 --events 4 --threads 2
       python scripts/pileup_performance.py --folder out/mu200 --json out/mu200.json
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from traccc_py.chain import TrackingChain
from traccc_py.config import read_config
from traccc_py.data.manifest import read_manifest
from traccc_py.edm import STAGES, EventResult
from traccc_py.performance.definitions import TRACCC, collision_selections
from traccc_py.performance.matching import Counts, Matches, count_matches, match_seeds, match_tracks
from traccc_py.performance.selection import select_particles
from traccc_py.performance.tracks import seeds_of_result, tracks_of_result
from traccc_py.performance.truth import MeasurementTruth, link_digitization, simulated_truth
from traccc_py.simulation.events import SimulatedEvent, read_event
from traccc_py.simulation.samples import load_sample

SELECTIONS = collision_selections()
CENTRAL = "central"
_VOLUME, _LAYER = np.uint64(56), np.uint64(36)
_PIXELS = (16, 17, 18)
_KIB_PER_MIB = 1024


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="sample made by traccc-py simulate; else one is made")
    parser.add_argument("--process", default="ttbar")
    parser.add_argument("--pileup", type=float, default=200.0)
    parser.add_argument("--events", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each event; times are medians")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


class Truth:
    """What is known of an event's particles, and of the measurements that were made of its cells."""

    def __init__(self, event: SimulatedEvent, result: EventResult) -> None:
        particles, simulated = event.particles, event.simulated
        truth = simulated_truth(event)
        self.n = len(particles)
        self.links = link_digitization(result.measurements, event.digitization, truth.particle_of_hit)
        self.is_selected = {name: select_particles(truth, self.links, chosen) for name, chosen in SELECTIONS.items()}
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
    """Return why selected particles (|eta| < 2.5) are not found: the first cause that applies counts."""
    tracks, before, seeds = truth.tracks(result), truth.tracks(candidates), truth.seeds(result)
    selected = truth.is_selected[CENTRAL]
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


def count(truth: Truth, result: EventResult, sums: dict[str, Counts], extra: Counter) -> None:
    """Add the matches of an event."""
    tracks, seeds = truth.tracks(result), truth.seeds(result)
    for name, selected in truth.is_selected.items():
        sums[f"tracks {name}"] += count_matches(tracks, selected, TRACCC)
        sums[f"seeds {name}"] += count_matches(seeds, selected, TRACCC)
    extra["tracks"] += len(tracks.purity)
    extra["impure"] += int(np.count_nonzero(tracks.purity < 0.5))
    extra["pure but short"] += int(np.count_nonzero((tracks.purity >= 0.5) & ~tracks.is_matched))


def main() -> None:
    """Run everything, print, write."""
    options = arguments()
    config = read_config(options.config)
    chain = TrackingChain("odd", config, threads=options.threads)
    chain.initialize()
    unresolved = replace(config, ambiguity_resolution=replace(config.ambiguity_resolution, enabled=False))
    if options.folder:
        numbers = [e["event"] for e in read_manifest(options.folder).events][: options.events]
        events = [read_event(options.folder, chain.detector, number) for number in numbers]
    else:
        events = list(load_sample(options.process, options.pileup, options.events, options.seed))
    times, processor, sizes = [], [], []
    sums = {f"{kind} {name}": Counts() for kind in ("tracks", "seeds") for name in SELECTIONS}
    extra, lost = Counter(), Counter()
    results = []
    for event in events:
        chain.run(event.cells)  # buffers grow
        for _ in range(options.repeat):
            start = time.process_time()
            result = chain.run(event.cells)
            processor.append(time.process_time() - start)
            times.append([result.stage_milliseconds[stage] for stage in STAGES])
        results.append(result)
        names = (len(event.cells), len(result.measurements), len(result.spacepoints.measurement_index))
        sizes.append((*names, len(result.seeds.quality), result.n_candidates, len(result.tracks)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB
    other = TrackingChain("odd", unresolved, threads=options.threads)
    for event, result in zip(events, results, strict=True):
        truth = Truth(event, result)
        count(truth, result, sums, extra)
        lost += causes(truth, result, other.run(event.cells))
    stages = dict(zip(STAGES, np.median(times, axis=0).round(1).tolist(), strict=True))
    columns = ("cells", "measurements", "spacepoints", "seeds", "candidates", "tracks")
    report = {
        "events": len(events),
        "threads": options.threads,
        "stage_milliseconds": stages,
        "total_milliseconds": float(np.median(np.sum(times, axis=1))),
        "processor_milliseconds": float(np.median(processor)) * 1e3,
        "peak_memory_mib": memory,
        "sizes": dict(zip(columns, np.mean(sizes, axis=0).tolist(), strict=True)),
        "matches": {name: counts.as_dict() for name, counts in sums.items()},
        "fakes_per_track": {k: extra[k] / max(extra["tracks"], 1) for k in ("impure", "pure but short")},
        "lost": dict(lost),
    }
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
