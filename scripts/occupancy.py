"""Count cells, clusters and seeds of simulated events by layer, and compare cluster sizes with a real event's.

Usage: python scripts/occupancy.py --pileup 200 --events 4
       python scripts/occupancy.py --folder out/mu200
The real event is read from $TRACCC_PY_REFERENCE_DATA/odd_real where that is set.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, SeedingConfig
from traccc_py.data.csv_events import read_cells
from traccc_py.data.manifest import read_manifest
from traccc_py.simulation.events import read_event, simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.samples import load_sample

PIXELS = (16, 17, 18)
# traccc v1.6.0's seeding; the vertex range is that of its benchmark job
TRACCC_SEEDING = SeedingConfig(
    min_pt=0.5, delta_r_min=20, delta_r_max=80, delta_z_max=450, impact_max=10, max_pt_scattering=10,
    seed_min_weight=200, rad_length_per_seed=0.05, collision_region_min=-150, collision_region_max=150,
)  # fmt: skip
ETA_BINS = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="sample made by traccc-py simulate")
    parser.add_argument("--process", default="ttbar")
    parser.add_argument("--pileup", type=float, default=200.0)
    parser.add_argument("--events", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def events_of(options: argparse.Namespace, detector: object) -> list:
    """Read the folder's events, or make the sample."""
    if options.folder is None:
        return list(load_sample(options.process, options.pileup, options.events, options.seed, workers=options.workers))
    numbers = [event["event"] for event in read_manifest(options.folder).events][: options.events]
    return [read_event(options.folder, detector, number) for number in numbers]


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


def show_sizes(detector: object, chain: TrackingChain, options: argparse.Namespace) -> None:
    """Print sizes of muons' clusters by |eta| of the module, simulated and real."""
    folder = os.environ.get("TRACCC_PY_REFERENCE_DATA")
    gun = ParticleGunConfig(n_particles=40, momentum=(50.0, 50.0), eta=(-2.5, 2.5), vertex_sigma=(0.01, 0.01, 55.0))
    sets = {"simulated": [e.cells for e in simulate_events(detector, gun, options.seed, 50)]}
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


def main() -> None:
    """Run everything and print."""
    options = arguments()
    chain = TrackingChain("odd", threads=options.threads)
    events = events_of(options, chain.detector)
    results = [chain.run(event.cells) for event in events]
    n = len(events)
    print(f"{n} events, per event:")
    sizes = [(len(e.particles), len(e.simulated), len(e.cells)) for e in events]
    particles, hits, cells = np.mean(sizes, axis=0)
    clusters = np.mean([len(r.measurements) for r in results])
    print(f"particles {particles:.0f}, hits {hits:.0f}, cells {cells:.0f}, clusters {clusters:.0f}")
    pixels = sum(np.isin(r.measurements.geometry_id >> np.uint64(56), PIXELS).sum() for r in results) / n
    print(f"pixel clusters {pixels:.0f}, seeds {sum(len(r.seeds.quality) for r in results) / n:.0f}")
    peer = TrackingChain("odd", replace(ChainConfig(), seeding=TRACCC_SEEDING), threads=options.threads)
    seeds = sum(len(peer.run(event.cells).seeds.quality) for event in events) / n
    print(f"seeds with traccc's cuts and a vertex range of 150 mm: {seeds:.0f} (traccc on Geant4 events: 29,830)")
    show_layers(chain.detector, results)
    show_sizes(chain.detector, chain, options)


if __name__ == "__main__":
    main()
