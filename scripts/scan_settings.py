"""Vary one setting after the other on simulated events: seeds, candidates, efficiency, fakes, time.

Usage: python scripts/scan_settings.py --folder mu200 --events 2 --muons 4000
       python scripts/scan_settings.py --folder mu200 --vary seeding.impact_max=1,2,5,10 --vary finding.chi2_max=15,30
Without --vary it takes each setting of the defaults that differs from traccc's, and what traccc has.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from pathlib import Path
from typing import Any

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, read_config
from traccc_py.data.manifest import read_manifest
from traccc_py.geometry import build_detector
from traccc_py.performance.definitions import collision_selections
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import read_event, simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

SELECTIONS = {
    "pT > 1, eta 2.5": collision_selections()["central"],
    "pT > 1, eta 3": collision_selections()["wide"],
    "pT > 0.5, eta 2.5": collision_selections({"min_pt": 0.5})["central"],
}
MUONS = 4  # in an event
COLUMNS = ("seeds", "candidates", "tracks", "fakes %", "duplicates %", "cpu s", *SELECTIONS, "seed efficiency")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="sample made by traccc-py simulate")
    parser.add_argument(
        "--muons", type=int, default=0, help="muons of 0.5 to 100 GeV, four an event, for a last column"
    )
    parser.add_argument("--events", type=int, default=2)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all that is tried"
    )
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=VALUE,VALUE", help="a setting, its values")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def shoot_muons(detector: Any, n: int) -> list:
    """Return events of single muons."""
    gun = ParticleGunConfig(
        MUONS, momentum=(0.5, 100.0), momentum_distribution="log", eta=(-3.0, 3.0), vertex_sigma=(0.01, 0.01, 55.0)
    )
    return list(simulate_events(detector, gun, 1, n // MUONS))


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
    return dict(values_of(text) for text in options.vary)


def values_of(text: str) -> tuple[str, list[Any]]:
    """Return the setting and the values of KEY=VALUE,VALUE."""
    key, _, values = text.partition("=")
    return key, list(tomllib.loads(f"values = [{values}]")["values"])


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
    muons = shoot_muons(detector, options.muons)
    default = ChainConfig().with_settings({key: values[0] for key, values in map(values_of, options.set)})
    rows = []
    columns = (*COLUMNS, *(["muons"] if muons else []))
    print("| setting | default | tried |", " | ".join(columns), "|")
    print("|---|" + "---|" * (2 + len(columns)))
    points: list[tuple[str, Any]] = [("all as they are", "")]
    points += [(key, value) for key, values in variations(options).items() for value in values]
    for key, value in points:
        section, _, name = key.partition(".")
        config = default.with_settings({key: value}) if name else default
        found = measure(detector, config, events, options.threads)
        if muons:
            found["muons"] = measure(detector, config, muons, options.threads)[columns[COLUMNS.index("cpu s") + 1]]
        before = default.to_dict()[section][name] if name else ""
        rows.append({"setting": key, "default": before, "value": value, **found})
        cells = (f"{x:,.0f}" if x >= 200 else f"{x:.2f}" for x in found.values())
        shown = ["off" if x is None else x for x in (before, value)]
        print(f"| `{key}` | {shown[0]} | {shown[1]} |", " | ".join(cells), "|", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
