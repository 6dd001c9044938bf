"""Reconstruct a hundred events of many kinds one after the other: no failure, no hang, none far slower than its like.

Usage: python -m studies.mixed_events [--folder mu200 --folder mu300]
Events are simulated on the fly; those of folders made by traccc-py simulate take the place of simulated ones of the
same process and pile-up. An event's time is compared with the median per cell of the nine events nearest in size.
An event that takes longer than --timeout ends the run with the place where it stands.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from studies.common import OUTPUT, Detector, Output, Repeats, Seed, Threads, detector_in, write_results
from traccc_py.chain import TrackingChain
from traccc_py.data.manifest import read_manifest
from traccc_py.edm import STAGES, Cells
from traccc_py.simulation.events import read_event, simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.generators.pileup import CollisionConfig, CollisionGenerator

TEV_JETS = 2000.0  # [GeV] pT-hat of the jets
LIMIT = 10.0  # times the median at its size that no event may take
NEIGHBOURS = 9  # events nearest in size whose median an event is compared with
COUNTS = ("spacepoints", "seeds", "candidates", "tracks")


class Kind(NamedTuple):
    """Events of one kind."""

    process: str  # of CollisionConfig, or the particle of a gun
    pileup: float
    n_events: int
    particles: int = 0  # of a gun


#: The mixture: 100 events, more of the small ones, which take less to simulate.
MIXTURE = (
    Kind("muon", 0, 1, 0),  # nothing at all
    *(Kind(particle, 0, 3, 1) for particle in ("muon", "pion", "electron")),
    *(Kind(particle, 0, 2, 50) for particle in ("muon", "pion", "electron")),
    Kind("muon", 0, 1, 5000),
    Kind("minbias", 0, 6),
    Kind("zmumu", 0, 3),
    Kind("ttbar", 0, 8),
    Kind("ttbar", 20, 12),
    Kind("ttbar", 40, 9),
    Kind("ttbar", 60, 7),
    Kind("ttbar", 80, 6),
    Kind("ttbar", 100, 6),
    Kind("ttbar", 140, 4),
    Kind("ttbar", 200, 5),
    Kind("ttbar", 300, 3),
    Kind("jets", 0, 8),
    Kind("jets", 60, 4),
    Kind("jets", 200, 2),
)


@dataclass(slots=True)
class Record:
    """What was measured of one event."""

    kind: str
    cells: int
    counts: dict[str, int]
    milliseconds: float  # wall, the median of the runs
    processor: float  # processor time of all threads [ms], the median of the runs
    stages: dict[str, float]  # processor time, as the wall clock divides it [ms]
    expected: float = 0.0  # median processor time of the events of its size, at its number of cells


def mixed_events(
    detector: object, mixture: list[Kind], folders: list[Path], seed: int, share: float
) -> Iterator[tuple[str, Cells]]:
    """Yield names and cells of the events."""
    stored: dict[tuple[str, float], list[tuple[Path, int]]] = {}
    for folder in folders:
        manifest = read_manifest(folder)
        key = (manifest.recipe["source"]["process"], manifest.recipe["source"]["pileup"])
        stored.setdefault(key, []).extend((folder, event["event"]) for event in manifest.events)
    generators: dict[str, CollisionGenerator] = {}
    shots = {"muon", "pion", "electron"}
    for kind in mixture:
        n = max(1, round(kind.n_events * share))
        name = f"{kind.particles} {kind.process}s" if kind.process in shots else f"{kind.process} mu={kind.pileup:g}"
        for event in range(n):
            if kind.process in shots:
                gun = ParticleGunConfig(
                    kind.particles, kind.process, momentum=(0.5, 100.0), momentum_distribution="log", eta=(-3.0, 3.0)
                )
                yield name, simulate_event(detector, gun, seed, event).cells
            elif event < len(stored.get((kind.process, kind.pileup), [])):
                yield name, read_event(stored[kind.process, kind.pileup][event][0], detector, event).cells
            else:
                if kind.process not in generators:
                    pt_hat = TEV_JETS if kind.process == "jets" else 0.0
                    config = CollisionConfig(kind.process, pt_hat_min=pt_hat)
                    generators[kind.process] = CollisionGenerator(config, float(detector.arrays().b_z))
                generator = generators[kind.process].with_pileup(kind.pileup)
                yield name, simulate_event(detector, generator, seed, event).cells


def measure(chain: TrackingChain, name: str, cells: Cells, repeat: int) -> Record:
    """Run an event several times; buffers have grown after the first."""
    chain.run(cells)
    wall, processor, stages = [], [], []
    for _ in range(repeat):
        start, start_wall = time.process_time(), time.perf_counter()
        result = chain.run(cells)
        processor.append(1e3 * (time.process_time() - start))
        wall.append(1e3 * (time.perf_counter() - start_wall))
        stages.append([result.stage_milliseconds.get(stage, 0.0) for stage in STAGES])
    share = np.median(stages, axis=0) / np.sum(np.median(stages, axis=0))
    n_spacepoints = len(result.spacepoints.measurement_index)
    counts = (n_spacepoints, len(result.seeds.quality), result.n_candidates, len(result.tracks))
    return Record(
        name,
        len(cells),
        dict(zip(COUNTS, counts, strict=True)),
        float(np.median(wall)),
        float(np.median(processor)),
        dict(zip(STAGES, (share * np.median(processor)).round(2).tolist(), strict=True)),
    )


def expect(records: list[Record]) -> None:
    """Set what each event's size lets expect: the median time per cell of its neighbours in size, itself left out."""
    sizes = np.array([r.cells for r in records], float)
    for k, record in enumerate(records):
        distance = np.abs(np.log((sizes + 100) / (sizes[k] + 100)))  # nothing and next to nothing are alike
        distance[k] = np.inf
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        per_cell = [records[j].processor / (records[j].cells + 100) for j in near]
        record.expected = float(np.median(per_cell)) * (record.cells + 100)


def why(record: Record, records: list[Record]) -> str:
    """Say which stage takes more than in events of its size, and what there is more of."""
    near = sorted(records, key=lambda r: abs(np.log((r.cells + 100) / (record.cells + 100))))[1 : NEIGHBOURS + 1]
    scale = {id(r): (record.cells + 100) / (r.cells + 100) for r in near}
    excess = {s: t - np.median([r.stages[s] * scale[id(r)] for r in near]) for s, t in record.stages.items()}
    stage = max(excess, key=lambda s: excess[s])
    more = {n: c / max(1.0, np.median([r.counts[n] * scale[id(r)] for r in near])) for n, c in record.counts.items()}
    count = max(more, key=lambda n: more[n])
    return f"{stage} {record.stages[stage]:.0f} ms; {more[count]:.1f} times the {count}"


def show(records: list[Record]) -> int:
    """Print all events by size, then the slowest for their size; return how many are over the limit."""
    print(f"{'event':18} {'cells':>8} {'wall ms':>8} {'cpu ms':>8} {'us/cell':>8} {'/median':>8}", *COUNTS)
    for r in sorted(records, key=lambda r: r.cells):
        per_cell = 1e3 * r.processor / max(r.cells, 1)
        numbers = (
            f"{r.cells:8} {r.milliseconds:8.1f} {r.processor:8.1f} {per_cell:8.2f} {r.processor / r.expected:8.2f}"
        )
        print(f"{r.kind:18} {numbers}", *r.counts.values())
    slowest = sorted(records, key=lambda r: -r.processor / r.expected)
    print("\nslowest for their size:")
    for r in slowest[:8]:
        print(f"{r.kind:18} {r.cells:8} cells {r.processor / r.expected:6.2f} x the median: {why(r, records)}")
    return sum(r.processor > LIMIT * r.expected for r in records)


def main(
    folder: Annotated[list[Path] | None, typer.Option(help="Sample to take events from; may be given again.")] = None,
    repeats: Repeats = 3,
    share: Annotated[float, typer.Option(help="Part of the mixture that is run; of each kind one event at least.")] = 1,
    kind: Annotated[list[str] | None, typer.Option(help="Only this process or particle; may be given again.")] = None,
    timeout: Annotated[float, typer.Option(help="Of the runs of one event [s].")] = 300.0,
    detector: Detector = "odd",
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Reconstruct a mixture of events; none may fail or take far longer than its like."""
    chain = TrackingChain(detector_in(detector), threads=threads)
    chain.initialize()
    mixture = [one for one in MIXTURE if not kind or one.process in kind]
    records = []
    for name, cells in mixed_events(chain.detector, mixture, folder or [], seed, share):
        faulthandler.dump_traceback_later(timeout, exit=True)
        records.append(measure(chain, name, cells, repeats))
        faulthandler.cancel_dump_traceback_later()
        print(f"{len(records)}: {name}, {len(cells)} cells, {records[-1].processor:.1f} ms", flush=True)
    expect(records)
    n_slow = show(records)
    print(f"{len(records)} events, none failed; {n_slow} took more than {LIMIT:g} times the median at their size")
    write_results(output, "mixed_events", {"n_slow": n_slow, "events": [asdict(record) for record in records]})


if __name__ == "__main__":
    typer.run(main)
