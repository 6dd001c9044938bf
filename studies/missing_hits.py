"""Tell what missing measurements cost: lost ones, a dead layer, dead modules and channels.

The last columns are for a chain that is told what is dead (`traccc-py run --dead-channels`).

Usage: python -m studies.missing_hits [--only "pixel barrel*"] [--only "*lost"] [--set finding.max_holes=2]

Muons of 1 to 10 GeV, |eta| < 2.5. A lost measurement is removed with the cells it was made of, so the others stay as
they are; of what is dead, cells are removed. Findable are particles that still have measurements on three pixel layers
and on seven modules; found are those with a track of purity and completeness of at least 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from fnmatch import fnmatch
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from studies.common import OUTPUT, Events, Output, Seed, Threads, detector_in, write_results
from studies.scan_settings import values_of
from traccc_py.chain import TrackingChain
from traccc_py.config import read_config
from traccc_py.edm import Cells, EventResult, Measurements
from traccc_py.geometry.dead_channels import ALL, DeadChannels
from traccc_py.geometry.surfaces import decode_geometry_id
from traccc_py.performance.definitions import TRACCC, TruthSelection
from traccc_py.performance.matching import Counts, count_matches, match_tracks
from traccc_py.performance.selection import select_particles
from traccc_py.performance.tracks import tracks_of_result
from traccc_py.performance.truth import csr_expand, link_digitization, simulated_truth
from traccc_py.simulation.digitization.digitization import DigitizedHits
from traccc_py.simulation.events import SimulatedEvent, simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

FINDABLE = TruthSelection(min_pt=0.0, min_modules=7, min_pixel_layers=3)
BARRELS = {"pixel barrel": 17, "short strip barrel": 24, "long strip barrel": 29}
DISCS = {"pixel disc": (16, 18), "short strip disc": (23, 25), "long strip disc": (28, 30)}
KINDS = {"pixel": (16, 17, 18), "short strip": (23, 24, 25), "long strip": (28, 29, 30)}
LOST = (0.05, 0.1)
DEAD = (0.02, 0.05, 0.1)
SMALL_P = 0.01


class Way(NamedTuple):
    """One way to lose measurements."""

    name: str
    lost: float = 0.0  # part of all measurements
    dead: DeadChannels | None = None  # what makes no cells


def layers_of(detector: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and modules of the layers: barrel layers from inside, and discs of both sides from the middle."""
    ids = decode_geometry_id(detector.geometry_ids)
    for name, volume in BARRELS.items():
        for k, layer in enumerate(np.unique(ids.layer[ids.volume == volume])):
            yield f"{name} {k + 1}", np.flatnonzero((ids.volume == volume) & (ids.layer == layer))
    for name, (minus, plus) in DISCS.items():
        on_minus, on_plus = (np.unique(ids.layer[ids.volume == volume]) for volume in (minus, plus))
        for k, (a, b) in enumerate(zip(on_minus[::-1], on_plus, strict=True)):
            is_on = ((ids.volume == minus) & (ids.layer == a)) | ((ids.volume == plus) & (ids.layer == b))
            yield f"{name} {k + 1}", np.flatnonzero(is_on)


def ways(detector: Any, seed: int) -> Iterator[Way]:
    """Yield all ways; modules are drawn by the seed."""
    yield Way("all there")
    for part in LOST:
        yield Way(f"{part:.0%} lost", lost=part)
    for name, modules in layers_of(detector):
        yield Way(f"{name} dead", dead=DeadChannels.of_modules(detector.geometry_ids[modules]))
    volume = decode_geometry_id(detector.geometry_ids).volume
    random = np.random.default_rng(seed)
    for kind, volumes in {**KINDS, "all": sum(KINDS.values(), ())}.items():
        of_kind = np.flatnonzero(np.isin(volume, volumes))
        order = random.permutation(of_kind)
        for part in DEAD:
            dead = detector.geometry_ids[order[: round(part * len(order))]]
            yield Way(f"{part:.0%} of {kind} modules dead", dead=DeadChannels.of_modules(dead))
    yield from (
        Way(f"{part:.0%} of columns and strips dead", dead=dead_columns(detector, part, random)) for part in DEAD
    )


def dead_columns(detector: Any, part: float, random: np.random.Generator) -> DeadChannels:
    """Return single channels along axis 0 of all sensors, drawn at random: strips, and columns of pixels."""
    n_channels = detector.designs["n_channels0"][detector.design_of_surface]
    module = np.repeat(np.arange(len(n_channels)), random.binomial(n_channels, part))
    channel = random.integers(0, n_channels[module])
    every = np.full((len(module), 2), ALL)
    return DeadChannels(detector.geometry_ids[module], np.stack([channel, channel], axis=1), every)


def without(event: SimulatedEvent, is_left: np.ndarray) -> SimulatedEvent:
    """Return an event with some of its cells."""
    made, rows = event.digitization, np.flatnonzero(is_left)
    cells = Cells(**{field.name: getattr(made.cells, field.name)[rows] for field in fields(Cells)})
    links, _ = csr_expand(made.hit_offsets, rows)
    offsets = np.concatenate(([0], np.cumsum(np.diff(made.hit_offsets)[rows])))
    return replace(event, digitization=DigitizedHits(cells, offsets, made.hit_indices[links], made.measurement_hit))


class Found(NamedTuple):
    """What a chain found in all events."""

    counts: Counts
    p_values: np.ndarray

    @property
    def shown(self) -> list[str]:
        """Efficiency, fakes per track and tracks with a p-value below 0.01 [%]."""
        numbers = (self.counts.efficiency, self.counts.fakes_per_group, np.mean(self.p_values < SMALL_P))
        return [f"{100 * x:.2f}" for x in numbers]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers."""
        return {**self.counts.as_dict(), "small_p_values": float(np.mean(self.p_values < SMALL_P))}


def count(event: SimulatedEvent, result: EventResult) -> Counts:
    """Return how many findable particles are found, and how many tracks are fakes."""
    truth = simulated_truth(event)
    links = link_digitization(result.measurements, event.digitization, truth.particle_of_hit)
    is_findable = select_particles(truth, links, FINDABLE)
    matches = match_tracks(tracks_of_result(result), links, len(event.particles), TRACCC)
    return count_matches(matches, is_findable, TRACCC)


def measure(chain: TrackingChain, events: list[SimulatedEvent]) -> Found:
    """Return what the chain finds in events."""
    results = [chain.run(event.cells) for event in events]
    counts = sum(map(count, events, results), Counts())
    return Found(counts, np.concatenate([result.tracks.pval for result in results]))


def damaged(
    samples: list[tuple[SimulatedEvent, Measurements]], way: Way, detector: Any, seed: int
) -> list[SimulatedEvent]:
    """Return the events without what is lost; `detector` has the way's dead channels."""
    events = []
    for event, measurements in samples:
        is_lost = np.random.default_rng((seed, event.number)).random(len(measurements)) < way.lost
        is_left = np.ones(len(event.cells), bool)
        is_left[measurements.cell_indices[np.repeat(is_lost, np.diff(measurements.cell_offsets))]] = False
        if detector.dead_ranges is not None:
            cells = event.cells
            module = detector.module_index(cells.geometry_id)
            is_left &= ~detector.dead_ranges.contain(module, cells.channel0, cells.channel1)
        events.append(without(event, is_left))
    return events


def main(
    only: Annotated[list[str] | None, typer.Option(help="Ways by name, with * and ?; may be given again.")] = None,
    fixed: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting.")] = None,
    muons: Annotated[int, typer.Option(min=1, help="Muons in an event.")] = 500,
    events: Events = 2,
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Remove measurements in several ways and count what is still found."""
    detector = detector_in("odd")
    config = read_config(None).with_settings({key: values[0] for key, values in map(values_of, fixed or [])})
    chain = TrackingChain(detector, config, threads=threads)
    gun = ParticleGunConfig(muons, momentum=(1.0, 10.0), eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0))
    simulated = simulate_events(detector, gun, seed, events, threads=threads)
    samples = [(event, chain.run(event.cells).measurements) for event in simulated]
    rows = []
    heads = ("efficiency %", "fakes per track %", "p < 0.01 %")
    print("|", " | ".join(["measurements", "findable", *heads, *(f"told: {head}" for head in heads)]), "|")
    print("|---" * (2 + 2 * len(heads)) + "|")
    for way in ways(detector, seed):
        if only and not any(fnmatch(way.name, pattern) for pattern in only):
            continue
        told = detector.with_dead_channels(way.dead)
        left = damaged(samples, way, told, seed)
        found = [measure(chain, left)]
        if way.dead is not None:
            found.append(measure(TrackingChain(told, config, threads=threads), left))
        rows.append({"way": way.name, **found[0].as_dict(), "told": found[1].as_dict() if found[1:] else None})
        shown = [number for one in found for number in one.shown]
        shown += [""] * (2 * len(heads) - len(shown))
        print("|", " | ".join([way.name, str(found[0].counts.n_particles), *shown]), "|", flush=True)
    write_results(output, "missing_hits", {"n_muons": muons, "n_events": events, "settings": fixed, "rows": rows})


if __name__ == "__main__":
    typer.run(main)
