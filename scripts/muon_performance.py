"""Reconstruct simulated single muons and sum up efficiency, pulls and p-values.

Usage: python scripts/muon_performance.py --pt 1 10 100 --muons 10000 --output out/muons
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.geometry import build_detector
from traccc_py.geometry.field import solenoid_field_map
from traccc_py.performance.cluster_pulls import ClusterPulls
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.plots import draw_performance
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

# Denominators: a muon that leaves enough hits to be found by design, and every muon that leaves hits.
SELECTIONS = {
    "findable": TruthSelection(min_pt=0.0, min_modules=7, min_pixel_layers=3),
    "all": TruthSelection(min_pt=0.0, min_measurements=1),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pt", type=float, nargs="+", default=[1.0, 10.0, 100.0], help="transverse momenta [GeV]")
    parser.add_argument("--muons", type=int, default=10_000, help="muons per momentum, one per event")
    parser.add_argument("--batch", type=int, default=250, help="events reconstructed together")
    parser.add_argument("--eta", type=float, default=2.5, help="largest |eta|")
    parser.add_argument(
        "--solenoid", action="store_true", help="in the field of a solenoid instead of a homogeneous one"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None, help="folder for JSON and figures")
    return parser.parse_args()


def run(chain: TrackingChain, pt: float, options: argparse.Namespace) -> dict:
    """Simulate and reconstruct muons of one momentum; return the numbers."""
    detector = chain.detector
    gun = ParticleGunConfig(momentum=(pt, pt), eta=(-options.eta, options.eta), vertex_sigma=(0.0125, 0.0125, 55.0))
    summary = PerformanceSummary(SELECTIONS, float(detector.arrays().b_z), detector_frames(detector))
    clusters = ClusterPulls(detector, chain.config.clusterization)
    events = simulate_events(detector, gun, options.seed + round(1000 * pt), options.muons)
    while batch := list(islice(events, options.batch)):
        for event, result in zip(batch, chain.run_batch([event.cells for event in batch]), strict=True):
            summary.add_result(event, result)
            clusters.add(event, result)
    return summary.as_dict() | {
        "measurement_pulls": clusters.as_dict(),
        "measurement_pulls_by_size": clusters.by_size(),
    }


def show(pt: float, numbers: dict) -> None:
    """Print the numbers that matter."""
    for name, counts in numbers["tracks"].items():
        print(
            f"pT {pt:g} GeV, {name}: efficiency {counts['efficiency']:.4%} of {counts['n_particles']}, "
            f"duplicates {counts['duplicate_rate']:.3%}, fakes {counts['n_fakes']}, "
            f"seeds {numbers['seeds'][name]['efficiency']:.4%}"
        )
    print("  outcomes:", numbers["fit_outcomes"], f"p-value mean {numbers['p_values']['mean']:.3f}")
    for where in ("first_state_pulls", "perigee_pulls"):
        fits = numbers[where].items()
        print(
            f"  {where}:", ", ".join(f"{k} {f['mean']:+.3f} +- {f['sigma']:.3f} (rms {f['rms']:.2f})" for k, f in fits)
        )


def main() -> None:
    """Run all momenta, print, write."""
    options = arguments()
    detector = build_detector("odd")
    if options.solenoid:
        detector = detector.with_field_map(solenoid_field_map())
    config = ChainConfig()
    config = replace(
        config, finding=replace(config.finding, particle="muon"), fitting=replace(config.fitting, particle="muon")
    )
    chain = TrackingChain(detector, config, device="auto", threads=options.threads)
    written = {}
    for pt in options.pt:
        start = time.perf_counter()
        written[f"{pt:g}"] = run(chain, pt, options)
        show(pt, written[f"{pt:g}"])
        print(f"  {time.perf_counter() - start:.0f} s")
        if options.output:
            draw_performance({f"{pt:g} GeV": written[f"{pt:g}"]}, options.output / f"{pt:g}_gev")
    if options.output:
        (options.output / "muon_performance.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
