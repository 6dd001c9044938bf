"""Vary one setting after the other on simulated events: seeds, candidates, efficiency, fakes, time.

Usage: python -m studies.scan_settings --folder mu200 --events 2 --muons 4000
       python -m studies.scan_settings --folder mu200 --vary seeding.impact_max=1,2,5,10 --vary finding.chi2_max=15,30
Without --vary it takes each setting of the defaults that differs from traccc's, and what traccc has. What the defaults
leave to the detector has the value that follows from it.
"""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

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
from traccc_py.config import ChainConfig, read_config
from traccc_py.derivation import derive
from traccc_py.performance.definitions import collision_selections
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

SELECTIONS = {
    "pT > 1, eta 2.5": collision_selections()["central"],
    "pT > 1, eta 3": collision_selections()["wide"],
    "pT > 0.5, eta 2.5": collision_selections({"min_pt": 0.5})["central"],
}
MUONS = 4  # in an event
COLUMNS = ("seeds", "candidates", "tracks", "fakes %", "duplicates %", "cpu s", *SELECTIONS, "seed efficiency")


def shoot_muons(detector: Any, n: int, seed: int) -> list:
    """Return events of single muons."""
    gun = ParticleGunConfig(
        MUONS, momentum=(0.5, 100.0), momentum_distribution="log", eta=(-3.0, 3.0), vertex_sigma=(0.01, 0.01, 55.0)
    )
    return list(simulate_events(detector, gun, seed, n // MUONS))


def differences(default: ChainConfig) -> dict[str, list[Any]]:
    """Return the settings in which traccc differs from the defaults, with traccc's value."""
    ours, theirs = default.to_dict(), read_config("traccc").to_dict()
    return {
        f"{section}.{key}": [theirs[section][key]]
        for section, values in ours.items()
        for key, value in values.items()
        if theirs[section][key] != value
    }


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


def main(
    folder: Annotated[Path, typer.Option(help="Sample made by traccc-py simulate.")],
    vary: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE,VALUE", help="A setting, its values.")] = None,
    fixed: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of all.")] = None,
    muons: Annotated[int, typer.Option(help="Muons of 0.5 to 100 GeV, four an event, for a last column.")] = 0,
    events: Events = 2,
    detector: Detector = "odd",
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Vary one setting after the other."""
    chosen = detector_in(detector)
    collisions = collision_events(chosen, folder, "", 0.0, events, seed)
    shot = shoot_muons(chosen, muons, seed)
    given = ChainConfig().with_settings({key: values[0] for key, values in map(values_of, fixed or [])})
    default = derive(given, chosen)[0]
    rows = []
    columns = (*COLUMNS, *(["muons"] if shot else []))
    print("| setting | default | tried |", " | ".join(columns), "|")
    print("|---|" + "---|" * (2 + len(columns)))
    points: list[tuple[str, Any]] = [("all as they are", "")]
    varied = dict(map(values_of, vary)) if vary else differences(default)
    points += [(key, value) for key, values in varied.items() for value in values]
    for key, value in points:
        section, _, name = key.partition(".")
        config = default.with_settings({key: value}) if name else default
        found = measure(chosen, config, collisions, threads)
        if shot:
            found["muons"] = measure(chosen, config, shot, threads)[columns[COLUMNS.index("cpu s") + 1]]
        before = default.to_dict()[section][name] if name else ""
        rows.append({"setting": key, "default": before, "value": value, **found})
        cells = (f"{x:,.0f}" if x >= 200 else f"{x:.2f}" for x in found.values())
        shown = ["off" if x is None else x for x in (before, value)]
        print(f"| `{key}` | {shown[0]} | {shown[1]} |", " | ".join(cells), "|", flush=True)
    write_results(output, "scan_settings", {"folder": str(folder), "n_events": len(collisions), "rows": rows})


if __name__ == "__main__":
    typer.run(main)
