"""Acts's chain and ours on the same events: efficiency, fakes, duplicates, resolutions, pulls, time; one thread each.

Usage: python -m studies.acts_comparison --sample muons --sample pions --sample ttbar:20 [--figures DIR]

Needs the extra acts. Particles are shot by this package; Acts simulates them in the Open Data Detector (Fatras, with
the material of the modules), digitises and reconstructs them in a process of its own; this chain reconstructs the same
cells. Both are judged by the same code.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from studies.acts_chain import ActsRun, event_numbers, run_acts
from studies.acts_geometry import without_passive
from studies.common import OUTPUT, Events, Output, Seed, in_own_process, write_results
from traccc_py.data.csv_events import event_file_name, read_cells, read_measurement_hit_map, write_particles
from traccc_py.data.particle_ids import pack_particle_id
from traccc_py.data.truth import Particles
from traccc_py.edm import FitOutcome
from traccc_py.edm.parameters import packed_index
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.performance.tracks import EventTracks, TrackSet, tracks_of_result
from traccc_py.performance.truth import link_cells, link_map, read_truth

COLLISIONS = "ttbar"
MIN_PT = 0.5  #: of tracks [GeV]
SHOT = {"muons": "muon", "pions": "pion"}
PROGRAMS = ("Acts", "traccc_py")
SELECTION = {"pT > 0.5": TruthSelection(min_pt=0.5, max_eta=2.5, min_measurements=7, particle_types=(), process=-1)}
SELECTION["pT > 1"] = TruthSelection(
    min_pt=1.0, max_eta=2.5, min_measurements=7, particle_types=(), process=-1, max_r=10.0
)
BINS = {"abs(eta)": (0.0, 0.5, 1.0, 1.5, 2.0, 2.5), "pT [GeV]": (0.5, 1.0, 2.0, 4.0, 10.0, 1000.0)}
FEWEST = 100  #: particles of a bin that is compared
RESIDUALS = {
    "d0": "d0 [um]",
    "z0": "z0 [um]",
    "phi": "phi [mrad]",
    "theta": "theta [mrad]",
    "pt_relative": "pT [per cent]",
}
_SCALE = {"d0": 1e3, "z0": 1e3, "phi": 1e3, "theta": 1e3, "pt_relative": 100.0}
_MILLISECONDS = 1e3


def particles_of(sample: str, n: int, seed: int, event: int, b_z: float) -> Particles:
    """Return the charged particles of an event: n of a gun, or of a collision with pile-up."""
    kind, _, pileup = sample.partition(":")
    if kind in SHOT:
        from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles

        gun = ParticleGunConfig(
            n, particle=SHOT[kind], momentum=(0.5, 10.0), eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0)
        )
        shot = generate_particles(gun, seed, event)
        zero = np.array(0)
        shot.particle_id = pack_particle_id(np.array(1), zero, np.arange(1, n + 1), zero, zero)
        return shot
    if kind != COLLISIONS:
        msg = f"sample {sample!r}: expected muons, pions or {COLLISIONS}:MU"
        raise typer.BadParameter(msg)
    from traccc_py.simulation.generators.pileup import CollisionConfig, CollisionGenerator

    generator = CollisionGenerator(CollisionConfig(kind, pileup=float(pileup or 0)), b_z)
    found = generator.generate(seed, event).particles
    return found[found.charge != 0]


def packed(covariance: np.ndarray) -> np.ndarray:
    """Return covariance matrices (n, 5, 5) in the packed form of tracks."""
    found = np.empty((len(covariance), 15))
    for i in range(5):
        for k in range(i + 1):
            found[:, packed_index(i, k)] = covariance[:, i, k]
    return found


def acts_tracks(path: Path) -> TrackSet:
    """Return the tracks that Acts found."""
    stored = np.load(path)
    tracks = TrackSet.without_fit(stored["offsets"], stored["measurements"])
    tracks.fill(
        {
            "perigee": stored["parameters"][:, :5],
            "perigee_covariance": packed(stored["covariance"][:, :5, :5]),
            "fit_outcome": np.full(len(tracks), FitOutcome.SUCCESS),
            "chi2": stored["chi2"][:, 0],
            "ndf": stored["chi2"][:, 1],
        }
    )
    return tracks


class _Ids:
    """Our ids by those of Acts."""

    def __init__(self, folder: Path) -> None:
        stored = np.load(folder / "ids.npz")
        order = np.argsort(stored["acts"])
        self._acts, self._ours = stored["acts"][order], stored["ours"][order]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        place = np.minimum(np.searchsorted(self._acts, ids), len(self._acts) - 1)
        if not (self._acts[place] == ids).all():
            msg = "Acts has hits on sensors that it did not have when it was built"
            raise ValueError(msg)
        return np.asarray(self._ours[place])


def compare(
    folder: Path, particle: str, assignments: Sequence[str] = ()
) -> tuple[dict[str, PerformanceSummary], dict[str, float]]:
    """Reconstruct Acts's events, and judge both programs.

    Parameters
    ----------
    folder : Path
        What `run_acts` wrote, and the particles.
    particle : str
        Mass hypothesis.
    assignments : sequence of str, optional
        Settings of our chain, as KEY=VALUE.

    Returns
    -------
    summaries : dict of str to PerformanceSummary
        By program.
    seconds : dict of str to float
        Processor time of an event of our chain, by stage.
    """
    from traccc_py.chain import TrackingChain
    from traccc_py.cli.settings import assigned
    from traccc_py.config import ChainConfig

    detector = without_passive()
    config = (
        ChainConfig()
        .with_settings({key: value for key, (_, value) in assigned(assignments).items()})
        .with_particle(particle)
    )
    chain = TrackingChain(detector, config, device="cpu", threads=1)
    summaries = {name: PerformanceSummary(SELECTION, float(detector.arrays().b_z)) for name in PROGRAMS}
    ids, seconds, stages = _Ids(folder), 0.0, dict[str, float]()
    numbers = event_numbers(folder)
    for number in numbers:
        truth = read_truth(folder, number)
        truth.hits.geometry_id = ids(truth.hits.geometry_id)
        cells = read_cells(folder / event_file_name(number, "cells"))
        cells.geometry_id = ids(cells.geometry_id)
        hits = read_measurement_hit_map(folder / event_file_name(number, "measurement-simhit-map"))
        n_measurements = 1 + int(hits.measurement_id.max(initial=-1))
        theirs = EventTracks(
            link_map(hits, n_measurements, truth.particle_of_hit), acts_tracks(_tracks_path(folder, number)), None
        )
        summaries["Acts"].add(truth, theirs)
        if number == numbers[0]:
            chain.run(cells)  # buffers grow
        begin = time.process_time()
        result = chain.run(cells)
        seconds += time.process_time() - begin
        for stage, milliseconds in result.stage_milliseconds.items():
            stages[stage] = stages.get(stage, 0.0) + milliseconds
        result = result.with_tracks(result.tracks.pt > MIN_PT)  # as Acts selects its tracks
        links = link_cells(result.measurements.geometry_id, cells, hits, truth.particle_of_hit)
        if links is None:
            msg = f"event {number}: the clusters are not those of the cells"
            raise ValueError(msg)
        summaries["traccc_py"].add(truth, EventTracks(links, tracks_of_result(result), None))
    total = sum(stages.values())
    return summaries, {stage: seconds / len(numbers) * wall / total for stage, wall in stages.items()}


def _tracks_path(folder: Path, number: int) -> Path:
    return folder / f"event{number:09d}-acts.npz"


def binned(summary: PerformanceSummary, selection: str) -> dict[str, list[tuple[int, int]]]:
    """Return numbers of particles and of those that were found, in bins of |eta| and pT."""
    particles = summary.samples[selection].particles
    values = {"abs(eta)": np.abs(particles["eta"]), "pT [GeV]": particles["pt"]}
    is_found = particles["n_matches"] > 0
    table = {}
    for name, edges in BINS.items():
        place = np.digitize(values[name], edges) - 1
        table[name] = [
            (int(np.count_nonzero(place == k)), int(np.count_nonzero(is_found & (place == k))))
            for k in range(len(edges) - 1)
        ]
    return table


def row_of(summary: PerformanceSummary, numbers: dict[str, Any], milliseconds: float) -> dict[str, Any]:
    """Return the numbers of a program on a sample."""
    row: dict[str, Any] = {}
    for name, sample in summary.samples.items():
        row[f"particles {name}"] = sample.tracks.n_particles
        row[f"efficiency {name} %"] = 100 * sample.tracks.efficiency
    counts = summary.samples["pT > 0.5"].tracks
    row["tracks"] = counts.n_groups
    row["fakes %"], row["duplicates %"] = 100 * counts.fakes_per_group, 100 * counts.duplicates_per_group
    residuals, pulls = numbers.get("perigee_residuals", {}), numbers.get("perigee_pulls", {})
    for name, title in RESIDUALS.items():
        row[title] = _SCALE[name] * residuals[name]["width"] if name in residuals else float("nan")
    widths = [fit["sigma"] for fit in pulls.values()]
    row["pulls"] = f"{min(widths):.2f} to {max(widths):.2f}" if widths else ""
    row["ms an event"] = milliseconds
    return row


def run_sample(
    sample: str, n: int, n_events: int, seed: int, folder: Path, assignments: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what both programs make of a sample."""
    b_z = float(without_passive().arrays().b_z)
    folder.mkdir(parents=True, exist_ok=True)
    for event in range(n_events):
        particles = particles_of(sample, n, seed, event, b_z)
        write_particles(folder / event_file_name(event, "particles_initial"), particles, ids_in_fields=True)
    acts: ActsRun = in_own_process(run_acts, folder, folder, n_events)
    summaries, ours = compare(folder, SHOT.get(sample, "pion"), assignments)
    seconds = {"Acts": acts.seconds, "traccc_py": ours}
    numbers = {name: summary.as_dict() for name, summary in summaries.items()}
    rows = {
        name: row_of(summaries[name], numbers[name], _MILLISECONDS * sum(seconds[name].values())) for name in PROGRAMS
    }
    return {
        "acts": acts.version,
        "n_events": n_events,
        "rows": rows,
        "milliseconds": {name: {k: _MILLISECONDS * v for k, v in of.items()} for name, of in seconds.items()},
        "bins": {name: {s: binned(summary, s) for s in SELECTION} for name, summary in summaries.items()},
        "numbers": numbers,
    }


def behind(found: dict[str, Any]) -> list[str]:
    """Return the bins with enough particles in which Acts finds more."""
    told = []
    for selection, tables in found["bins"]["Acts"].items():
        for variable, bins in tables.items():
            ours = found["bins"]["traccc_py"][selection][variable]
            for k, ((n, theirs), (_, own)) in enumerate(zip(bins, ours, strict=True)):
                if n >= FEWEST and own < theirs:
                    low, high = BINS[variable][k : k + 2]
                    told.append(f"{selection}, {variable} {low:g} to {high:g}: {own} against {theirs} of {n}")
    return told


def table(samples: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    columns = list(next(iter(samples.values()))["rows"]["Acts"])
    lines = [f"| sample | program | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for sample, found in samples.items():
        for name, row in found["rows"].items():
            label = f"Acts {found['acts']}" if name == "Acts" else name
            cells = [_shown(column, row[column]) for column in columns]
            lines.append(f"| {sample}, {found['n_events']} events | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(column: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if column.endswith("%") else f"{value:.3g}"


def main(
    sample: Annotated[list[str] | None, typer.Option(help="muons, pions or ttbar:MU; may be given again.")] = None,
    particles: Annotated[int, typer.Option(min=1, help="Of a gun, in an event.")] = 1000,
    events: Events = 3,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of ours.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep the events here.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Draw both programs' plots to folders in it.")] = None,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Compare with Acts."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in sample or ["muons"]:
            place = Path(folder or temporary) / name.replace(":", "_mu")
            found[name] = run_sample(name, particles, events, seed, place, assignments or ())
            for line in behind(found[name]):
                print(f"{name}: Acts finds more: {line}")
            if figures is not None:
                from traccc_py.performance.plots import draw_performance

                draw_performance(found[name]["numbers"], figures / place.name, "png")
    print(table(found))
    for name, one in found.items():
        for program, stages in one["milliseconds"].items():
            print(f"{name}, {program} [ms]:", ", ".join(f"{k} {v:.1f}" for k, v in stages.items()))
    kept = {name: {k: v for k, v in one.items() if k != "numbers"} for name, one in found.items()}
    write_results(output, "acts_comparison", {"samples": kept, "set": assignments or []})


if __name__ == "__main__":
    typer.run(main)
