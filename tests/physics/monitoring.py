"""Physics monitoring: numbers and histograms of small samples, and the comparison with the reference kept beside.

`make reference` (`python -m tests.physics.monitoring`) makes the reference anew, after a change that is meant to move
something; the difference of reference.json then tells what moved.
"""

from __future__ import annotations

import json
import math
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.geometry import build_detector
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.digitization.failures import draw_dead_modules
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.generators.pileup import CollisionConfig, CollisionGenerator
from traccc_py.simulation.transport.transport import TransportConfig

REFERENCE = Path(__file__).with_name("reference.json")
SEED = 20_260_101
SPOT = (0.01, 0.01, 55.0)
#: Samples by name: what flies, and how many events.
SAMPLES = {
    "muons": (
        ParticleGunConfig(100, momentum=(0.3, 100.0), momentum_distribution="log", eta=(-3.5, 3.5), vertex_sigma=SPOT),
        5,
    ),
    "pions": (
        ParticleGunConfig(
            1000, "pion", momentum=(0.3, 30.0), momentum_distribution="log", eta=(-3.5, 3.5), vertex_sigma=SPOT
        ),
        2,
    ),
    "jet core": (
        ParticleGunConfig(
            40, "pion", momentum=(1.0, 100.0), momentum_distribution="log", eta=(0.2, 0.5), phi=(0.1, 0.4)
        ),
        8,
    ),
    "missing hits": (ParticleGunConfig(250, momentum=(1.0, 10.0), eta=(-2.5, 2.5), vertex_sigma=SPOT), 2),
    # pile-up of the same kind: setting up soft collisions takes five seconds
    "ttbar": (CollisionConfig("ttbar", pileup=8.0, pileup_process="ttbar"), 3),
}
MISSING = (("all", 0.05),)  # of the modules are dead, and of the hits lost, where hits are missing; nothing says so
SELECTION = TruthSelection(
    min_pt=0.4,
    max_eta=3.5,
    process=-1,
    particle_types=(),
    min_measurements=5,
    max_r=10.0,
    min_z=-math.inf,
    max_z=math.inf,
)
#: What may differ where processor or versions do: compilers order and round operations in other ways.
NEAR_ENTRIES = 0.01  # of the entries of a histogram, at least ...
NEAR_FEW = 3  # ... entries
NEAR_NUMBER = 0.03  # relative, of numbers with an own scale; of pulls absolute
SAME_NUMBER = 1e-5
_PASSED = {
    "particles with a seed": "seed_efficiency",
    "particles found": "efficiency",
    "fakes": "fakes_per_track",
}


def environment() -> dict[str, str]:
    """Return what results may depend on in their last bits."""
    from llvmlite import binding

    packages = {}
    for name in ("numpy", "numba", "llvmlite", "pythia8mc"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    return {"processor": binding.get_host_cpu_name(), "system": f"{platform.system()} {platform.machine()}", **packages}


def simulate(name: str, detector) -> list:
    """Return the events of a sample."""
    source, n_events = SAMPLES[name]
    if isinstance(source, CollisionConfig):
        source = CollisionGenerator(source, float(detector.arrays().b_z))
    options: dict[str, Any] = {"config": TransportConfig.of_collisions()}
    if name == "missing hits":
        detector = detector.with_dead_channels(draw_dead_modules(detector, MISSING, SEED))
        options["inefficiency"] = MISSING
    return list(simulate_events(detector, source, SEED, n_events, **options))


def monitor(events: list, chain: TrackingChain) -> dict[str, dict]:
    """Reconstruct events; return counts, histograms and numbers by name."""
    summary = PerformanceSummary(
        {"all": SELECTION}, float(chain.detector.arrays().b_z), detector_frames(chain.detector)
    )
    results = [chain.run(event.cells) for event in events]
    for event, result in zip(events, results, strict=True):
        summary.add_result(event, result)
    found = summary.as_dict()
    tracks, seeds = found["tracks"]["all"], found["seeds"]["all"]
    counts = {
        "cells": sum(len(e.cells) for e in events),
        "measurements": sum(len(r.measurements) for r in results),
        "spacepoints": sum(len(r.spacepoints.measurement_index) for r in results),
        "seeds": seeds["n_groups"],
        "seed duplicates": seeds["n_duplicates"],
        "seed fakes": seeds["n_fakes"],
        "candidates": sum(r.n_candidates for r in results),
        "tracks": tracks["n_groups"],
        "outliers": sum(int(r.tracks.n_outliers.sum()) for r in results),
        "kinks": sum(int(r.tracks.n_kinks.sum()) for r in results),
        "particles selected": tracks["n_particles"],
        "particles found": tracks["n_found"],
        "fakes": tracks["n_fakes"],
        "duplicates": tracks["n_duplicates"],
        **{f"fits: {name}": n for name, n in found["fit_outcomes"].items()},
    }
    return {"counts": counts, "histograms": _histograms(found, results), "numbers": _numbers(found)}


def _histograms(found: dict, results: list) -> dict[str, list[int]]:
    table = {}
    for variable in ("eta", "pt"):
        versus = found["versus"]["all"][variable]
        table[f"selected particles versus {variable}"] = versus["efficiency"]["total"]
        table[f"tracks versus {variable}"] = versus["fakes_per_track"]["total"]
        for name, rate in _PASSED.items():
            table[f"{name} versus {variable}"] = versus[rate]["passed"]
    for name, histogram in found["distributions"].items():
        table[name] = [histogram["below"], *histogram["counts"], histogram["above"]]
    table["p-values"] = found["p_values"]["counts"]
    for place in ("first_state", "perigee"):
        for name, pull in found[f"{place}_pulls"].items():
            histogram = pull["histogram"]
            table[f"pulls of {name}, {place}"] = [histogram["below"], *histogram["counts"], histogram["above"]]
    size = np.concatenate([r.measurements.cluster_size for r in results])
    for axis in (0, 1):
        table[f"cluster size along loc{axis}"] = np.bincount(np.minimum(size[:, axis], 15)).tolist()
    quality = np.concatenate([r.seeds.quality for r in results])
    table["seed quality"] = np.histogram(np.clip(quality, -100, 1099), np.arange(-100, 1101, 50))[0].tolist()
    return {name: [int(n) for n in counts] for name, counts in table.items()}


def _numbers(found: dict) -> dict[str, float]:
    table = {"mean p-value": found["p_values"]["mean"]}
    for place in ("first_state", "perigee"):
        for name, pull in found[f"{place}_pulls"].items():
            table[f"pull mean of {name}, {place}"] = pull["mean"]
            table[f"pull sigma of {name}, {place}"] = pull["sigma"]
        for name, residual in found[f"{place}_residuals"].items():
            table[f"resolution of {name}, {place}"] = residual["width"]
    return {name: float(f"{number:.7g}") for name, number in table.items()}


def compare(sample: str, expected: dict, found: dict, *, is_exact: bool) -> list[str]:
    """Return a sentence for everything that moved."""
    moved = [f"{sample}: {kind} differ in their names: {sorted(expected[kind].keys() ^ found[kind].keys())}"
             for kind in expected if expected[kind].keys() != found[kind].keys()]  # fmt: skip
    for name, before in expected["counts"].items():
        now = found["counts"].get(name, before)
        if abs(now - before) > (0 if is_exact else max(NEAR_FEW, NEAR_ENTRIES * before)):
            moved.append(f"{sample}: {name}: {before} before, {now} now")
    for name, before in expected["histograms"].items():
        now = found["histograms"].get(name, before)
        n = max(len(before), len(now))
        old, new = (np.pad(h, (0, n - len(h))) for h in (before, now))
        difference = np.abs(new - old)
        if difference.sum() > (0 if is_exact else max(NEAR_FEW, 2 * NEAR_ENTRIES * old.sum())):
            worst = int(np.argmax(difference))
            moved.append(
                f"{sample}: {name}: {old.sum()} entries before, {new.sum()} now; {np.count_nonzero(difference)} bins "
                f"differ, most of all bin {worst}: {old[worst]} before, {new[worst]} now"
            )
    for name, before in expected["numbers"].items():
        now = found["numbers"].get(name, before)
        scale = max(abs(before), 1.0 if name.startswith("pull") else 0.0)
        if abs(now - before) > (SAME_NUMBER if is_exact else NEAR_NUMBER) * scale:
            moved.append(f"{sample}: {name}: {before} before, {now} now")
    return moved


def make_chain(detector, config: ChainConfig | None = None) -> TrackingChain:
    """Return the chain that is monitored."""
    return TrackingChain(detector, config or ChainConfig(), device="cpu")


def renew() -> None:
    """Write the reference."""
    detector = build_detector("odd")
    chain = make_chain(detector)
    made = {name: monitor(simulate(name, detector), chain) for name in SAMPLES}
    lines = ["{", f' "environment": {json.dumps(environment())},', ' "samples": {']
    for k, (name, kinds) in enumerate(made.items()):
        lines.append(f"  {json.dumps(name)}: {{")
        for j, (kind, table) in enumerate(kinds.items()):
            rows = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items())
            lines += [f"   {json.dumps(kind)}: {{", rows, "   }" + ("," if j < len(kinds) - 1 else "")]
        lines.append("  }" + ("," if k < len(made) - 1 else ""))
    REFERENCE.write_text("\n".join([*lines, " }", "}"]) + "\n")
    print(f"wrote {REFERENCE}")


if __name__ == "__main__":
    renew()
