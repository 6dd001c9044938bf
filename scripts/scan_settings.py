"""Vary one setting after the other on simulated events: seeds, candidates, efficiency, fakes, time.

Usage: python scripts/scan_settings.py --folder mu200 --events 2 --json scan.json
       python scripts/scan_settings.py --folder mu200 --vary seeding.impact_max=1,2,5,10 --vary finding.chi2_max=15,30
Without --vary it takes each setting of the defaults that differs from traccc's, and what traccc has.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import tomllib
from pathlib import Path
from typing import Any

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, read_config
from traccc_py.data.manifest import read_manifest
from traccc_py.geometry import build_detector
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import read_event

CUTS: dict[str, Any] = {"max_r": 10.0, "process": -1, "min_measurements": 7, "particle_types": ()}
SELECTIONS = {
    f"{name} {eta:g}": TruthSelection(min_pt=pt, max_eta=eta, min_z=-math.inf, max_z=math.inf, **CUTS)
    for name, pt, eta in (("pT > 1, eta", 1.0, 2.5), ("pT > 1, eta", 1.0, 3.0), ("pT > 0.5, eta", 0.5, 2.5))
}
COLUMNS = ("seeds", "candidates", "tracks", "fakes %", "duplicates %", "cpu s", *SELECTIONS, "seed eff. %")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="sample made by traccc-py simulate")
    parser.add_argument("--events", type=int, default=2)
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=VALUE,VALUE", help="a setting, its values")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def differences() -> dict[str, list[Any]]:
    """Return the settings in which traccc differs from the defaults, with traccc's value."""
    ours, theirs = ChainConfig().to_dict(), read_config("traccc").to_dict()
    return {
        f"{section}.{key}": [theirs[section][key]]
        for section, values in ours.items()
        for key, value in values.items()
        if theirs[section][key] != value
    }


def variations(options: argparse.Namespace) -> dict[str, list[Any]]:
    """Return the values of each setting that is varied."""
    if not options.vary:
        return differences()
    found = {}
    for text in options.vary:
        key, _, values = text.partition("=")
        found[key] = list(tomllib.loads(f"values = [{values}]")["values"])
    return found


def measure(detector: Any, config: ChainConfig, events: list, threads: int) -> dict[str, float]:
    """Return what the settings give."""
    chain = TrackingChain(detector, config, threads=threads)
    chain.initialize()
    summary = PerformanceSummary(SELECTIONS, float(detector.arrays().b_z))
    chain.run(events[0].cells)  # buffers grow
    seconds = candidates = 0.0
    for event in events:
        start = time.process_time()
        result = chain.run(event.cells)
        seconds += time.process_time() - start
        candidates += result.n_candidates
        summary.add_result(event, result)
    tracks = {name: sample.tracks for name, sample in summary.samples.items()}
    first, n = next(iter(tracks.values())), len(events)
    seeds = next(iter(summary.samples.values())).seeds
    rates = [100 * counts.efficiency for counts in tracks.values()]
    row = (
        seeds.n_groups / n, candidates / n, first.n_groups / n, 100 * first.fakes_per_group,
        100 * first.duplicates_per_group, seconds / n, *rates, 100 * seeds.efficiency,
    )  # fmt: skip
    return dict(zip(COLUMNS, row, strict=True))


def main() -> None:
    """Run everything, print, write."""
    options = arguments()
    detector = build_detector("odd")
    numbers = [event["event"] for event in read_manifest(options.folder).events][: options.events]
    events = [read_event(options.folder, detector, number) for number in numbers]
    default = ChainConfig()
    rows = []
    print("| setting | value |", " | ".join(COLUMNS), "|")
    print("|---|" + "---|" * (1 + len(COLUMNS)))
    points: list[tuple[str, Any]] = [("default", "")]
    points += [(key, value) for key, values in variations(options).items() for value in values]
    for key, value in points:
        config = default if key == "default" else default.with_settings({key: value})
        found = measure(detector, config, events, options.threads)
        rows.append({"setting": key, "value": value, **found})
        cells = (f"{x:,.0f}" if x >= 200 else f"{x:.2f}" for x in found.values())
        print(f"| {key} | {value} |", " | ".join(cells), "|", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
