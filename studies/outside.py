"""One table of what the chain does on its own events and on those of others, beside what others find.

The Open Data Detector, Acts, ColliderML, traccc's toy detector, TrackML.

Usage: python -m studies.outside [--data DIR] [--trackml EVENTS --trackml-detector FILE] [--page docs/outside.md]

`--data` is the folder of reference data of the tests (colliderml, traccc_toy). Samples whose data, or package, are not
there are left out, and the table says so. In the page that is given, what stands between the two markers is replaced.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from studies.common import OUTPUT, Events, Output, Seed, Threads, write_results
from traccc_py.chain import TrackingChain
from traccc_py.cli.settings import assigned
from traccc_py.config import ChainConfig
from traccc_py.data.words import counted
from traccc_py.geometry import build_detector
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.summary import PerformanceSummary

BEGIN, END = "<!-- outside: begin -->", "<!-- outside: end -->"
REFERENCE_DATA = "TRACCC_PY_REFERENCE_DATA"
COLUMNS = ("sample", "particles that count", "program", "of", "efficiency %", "fakes / track %", "duplicates %",
           "score", "pT off by, 68 %", "pulls at the perigee", "cpu ms an event")  # fmt: skip
FINDABLE = TruthSelection(min_pt=0.0, min_modules=7, min_pixel_layers=3)
COLLIDERML = TruthSelection(
    min_pt=1.0, max_eta=3.0, min_measurements=7, min_pixel_layers=3, particle_types=(), process=-1
)
TRACKML = TruthSelection(
    min_pt=1.0, max_eta=2.5, max_r=10.0, min_measurements=7, particle_types=(), process=-1, min_z=-300, max_z=300
)
TOYS = ("toy_mu10_10GeV", "toy_mu1000_0p5-10GeV")
_MILLISECONDS = 1e3
_RESIDUALS_FROM = 0.7  # [GeV]


class Row(NamedTuple):
    """A line of the table."""

    sample: str
    selection: str
    program: str
    n: int | None = None
    efficiency: float | None = None  # [%]
    fakes: float | None = None
    duplicates: float | None = None
    score: float | None = None  # of TrackML
    pt_residual: float | None = None  # 68 % of the tracks that both found have less, of pT [%]
    pulls: str = ""
    milliseconds: float | None = None

    def cells(self) -> list[str]:
        """Return its cells."""
        digits = (None, None, None, None, 2, 2, 2, 3, 2, None, 1)
        found = []
        for value, n in zip(self, digits, strict=True):
            if value is None or (isinstance(value, float) and not np.isfinite(value)):
                found.append("")
            else:
                found.append(str(value) if n is None else f"{value:.{n}f}")
        return found


#: The winner of the throughput phase, as published.
WINNER = Row("TrackML's own events (published)", "all", "Mikado, two cores, wall time", score=0.944, milliseconds=560.0)


def of_summary(
    sample: str, selection: str, summary: PerformanceSummary, milliseconds: float | None, **more: Any
) -> Row:
    """Return the row of a summary with one selection."""
    (counts,) = (one.tracks for one in summary.samples.values())
    widths = [fit["sigma"] for fit in summary.as_dict().get("perigee_pulls", {}).values()]
    return Row(
        sample,
        selection,
        "traccc_py",
        counts.n_particles,
        100 * counts.efficiency,
        100 * counts.fakes_per_group,
        100 * counts.duplicates_per_group,
        pulls=f"{min(widths):.2f} to {max(widths):.2f}" if widths else "",
        milliseconds=milliseconds,
        **more,
    )


def own_muons(n: int, seed: int, threads: int) -> Iterator[Row]:
    """Yield rows of single muons in the Open Data Detector."""
    from traccc_py.simulation.events import simulate_events
    from traccc_py.simulation.generators.gun import ParticleGunConfig

    chain = TrackingChain(build_detector("odd"), ChainConfig().with_particle("muon"), device="cpu", threads=threads)
    for pt in (1.0, 10.0, 100.0):
        gun = ParticleGunConfig(5, momentum=(pt, pt), vertex_sigma=(0.0125, 0.0125, 55.0))
        summary, seconds = PerformanceSummary({"findable": FINDABLE}, float(chain.detector.arrays().b_z)), 0.0
        for k, event in enumerate(simulate_events(chain.detector, gun, seed, n)):
            if k == 0:
                chain.run(event.cells)  # buffers grow
            begin = time.process_time()
            result = chain.run(event.cells)
            seconds += time.process_time() - begin
            summary.add_result(event, result)
        yield of_summary(
            f"{5 * n:,} muons of {pt:g} GeV, ODD", "7 modules, 3 pixel layers", summary, _MILLISECONDS * seconds / n
        )


def acts_rows(n_events: int, particles: int, seed: int) -> Iterator[Row]:
    """Yield rows of Acts and this chain on Acts's events."""
    if find_spec("acts") is None:
        yield Row("Acts's events", "", "not run: pyacts is not installed")
        return
    from studies.acts_comparison import run_sample

    with tempfile.TemporaryDirectory() as folder:
        for sample in ("muons", "pions"):
            found = run_sample(sample, particles, n_events, seed, Path(folder) / sample)
            for program, row in found["rows"].items():
                yield Row(
                    f"{n_events} x {particles:,} {sample} of 0.5 to 10 GeV, Fatras",
                    "pT > 0.5 GeV, abs(eta) < 2.5, 7 measurements",
                    f"Acts {found['acts']}" if program == "Acts" else program,
                    row["particles pT > 0.5"],
                    row["efficiency pT > 0.5 %"],
                    row["fakes %"],
                    row["duplicates %"],
                    pulls=row["pulls"],
                    milliseconds=row["ms an event"],
                )


def colliderml_rows(folder: Path, threads: int) -> Iterator[Row]:
    """Yield rows of ColliderML's display events: Acts's tracks as they were published, and ours."""
    import pandas as pd

    from traccc_py.data.csv_events import event_files, read_measurements

    chain = TrackingChain(build_detector("colliderml"), device="cpu", threads=threads)
    n = found = theirs = n_fakes = n_tracks = 0
    seconds, residuals = 0.0, list[np.ndarray]()
    numbers = [number for number, _ in event_files(folder, "measurements")]
    for number in numbers:
        path = folder / f"event{number:09d}-measurements.csv"
        truth = pd.read_csv(folder / f"event{number:09d}-truth.csv")
        acts = pd.read_csv(folder / f"event{number:09d}-acts_tracks.csv")
        counts = truth[
            (truth.pt > 1) & (abs(truth.eta) < 3) & (truth.n_hits >= 7) & (truth.n_pixel_hits >= 3)
        ].particle_id
        stored = pd.read_csv(path)
        particle = dict(zip(stored.measurement_id, stored.particle_id, strict=True))
        measurements = read_measurements(path)
        if number == numbers[0]:
            chain.run(measurements)
        begin = time.process_time()
        result = chain.run(measurements)
        seconds += time.process_time() - begin
        majority, fakes = _majorities(result, particle)
        n, n_tracks, n_fakes = n + len(counts), n_tracks + len(result.tracks), n_fakes + fakes
        found += int(counts.isin(majority).sum())
        theirs += int(counts.isin(acts.particle_id).sum())
        residuals.append(_pt_residuals(result, majority, acts, truth))
    selection = "pT > 1 GeV, abs(eta) < 3, 7 hits, 3 pixels"
    label = f"ColliderML, {len(numbers)} ttbar events of Geant4, 3 T"
    of_both = 100 * np.percentile(np.concatenate(residuals, axis=1), 68, axis=1)
    yield Row(label, selection, "Acts (published)", n, 100 * theirs / n, pt_residual=of_both[1])
    milliseconds = _MILLISECONDS * seconds / len(numbers)
    rates = (100 * found / n, 100 * n_fakes / max(n_tracks, 1))
    yield Row(label, selection, "traccc_py", n, *rates, pt_residual=of_both[0], milliseconds=milliseconds)


def _pt_residuals(result: Any, majority: np.ndarray, acts: Any, truth: Any) -> np.ndarray:
    """Return |pT / true pT - 1| of our tracks and Acts's, (2, n), where both have the particle, pT > 0.7 GeV."""
    theirs = acts.drop_duplicates("particle_id").set_index("particle_id")
    true_pt = truth.set_index("particle_id").pt
    found = []
    for track, particle in enumerate(majority):
        if particle in theirs.index and particle in true_pt.index and true_pt[particle] > _RESIDUALS_FROM:
            other = abs(np.sin(theirs.theta[particle]) / theirs.qop[particle])
            found.append(np.abs(np.array([result.tracks.pt[track], other]) / true_pt[particle] - 1))
    return np.array(found).reshape(-1, 2).T


def _majorities(result: Any, particle: Mapping[int, int]) -> tuple[np.ndarray, int]:
    """Return the particle that made at least half of each track, -1 if none did, and the number of these."""
    states = result.track_states
    ids = result.measurements.measurement_id[states.measurement_index].tolist()
    of_states = np.array([particle[i] for i in ids])
    majority, n_fakes = [], 0
    for track in range(len(result.tracks)):
        found, counts = np.unique(of_states[states.track_index == track], return_counts=True)
        if 2 * counts.max() >= counts.sum():
            majority.append(found[counts.argmax()])
        else:
            majority.append(-1)
            n_fakes += 1
    return np.array(majority), n_fakes


def toy_rows(folder: Path, threads: int) -> Iterator[Row]:
    """Yield rows of traccc's own samples of muons: its tracks, and ours of its measurements."""
    from studies.toy_samples import of_files, of_traccc, reconstruct, toy_of_files

    config = ChainConfig().with_particle("muon")
    detector = toy_of_files(folder)["measurements"]
    for name in TOYS:
        if not (folder / name).is_dir():
            continue
        given = list(of_files(folder / name, "measurements"))
        for program, row in (
            ("traccc 1.6.0", of_traccc(folder / name, detector)),
            ("traccc_py", reconstruct(detector, config, given, threads)),
        ):
            yield Row(
                f"traccc's toy detector, {name}",
                "pT > 0.5 GeV, 5 measurements",
                program,
                row["n_particles"],
                row["efficiency"],
                row["fakes"],
                row["duplicates"],
                milliseconds=row["cpu_ms"],
            )


def trackml_rows(events: Path, detector_file: Path, config: ChainConfig, threads: int) -> Iterator[Row]:
    """Yield the row of events in TrackML's format."""
    from traccc_py.data.csv_events import event_files
    from traccc_py.data.trackml_files import read_trackml_cells
    from traccc_py.performance.tracks import EventTracks, tracks_of_result
    from traccc_py.performance.truth import read_truth

    chain = TrackingChain(build_detector(detector_file), config, device="cpu", threads=threads)
    summary = PerformanceSummary({"selected": TRACKML}, float(chain.detector.arrays().b_z))
    seconds: list[float] = []
    for number, path in event_files(events, "hits"):
        cells, _ = read_trackml_cells(path, chain.detector)
        if not seconds:
            chain.run(cells)  # buffers grow
        begin = time.process_time()
        result = chain.run(cells)
        seconds.append(time.process_time() - begin)
        truth = read_truth(events, number)
        assert truth.link is not None
        summary.add(truth, EventTracks(truth.link(result.measurements), tracks_of_result(result), None))
    milliseconds = _MILLISECONDS * float(np.mean(seconds))
    score = summary.as_dict()["trackml_score"]
    yield of_summary(
        f"TrackML's detector, {events.name}, {counted(len(seconds), 'event')}",
        "pT > 1 GeV, abs(eta) < 2.5, r < 10 mm, 7 hits",
        summary,
        milliseconds,
        score=score,
    )


def shown(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows and print each, since some take minutes."""
    for row in rows:
        print(" | ".join(row.cells()), flush=True)
        yield row


def table(rows: list[Row]) -> str:
    """Return the table as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |".replace("|  |", "| |") for row in rows)])


def main(
    data: Annotated[Path | None, typer.Option(help="Folder of reference data.")] = None,
    trackml: Annotated[list[Path] | None, typer.Option(help="Folder of events in TrackML's format.")] = None,
    trackml_detector: Annotated[Path | None, typer.Option(help="TrackML's detectors.csv.")] = None,
    trackml_set: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting for them.")] = None,
    acts: Annotated[bool, typer.Option(help="Run Acts, if it is installed.")] = True,
    page: Annotated[Path | None, typer.Option(help="File with the two markers.")] = None,
    muons: Annotated[int, typer.Option(min=0, help="Events of 5 muons at each momentum.")] = 200,
    particles: Annotated[int, typer.Option(min=1, help="In an event for Acts.")] = 1000,
    events: Events = 3,
    threads: Threads = 1,
    seed: Seed = 1,
    output: Output = OUTPUT,
) -> None:
    """Print the table."""
    rows = list(shown(own_muons(muons, seed, threads))) if muons else []
    rows += shown(acts_rows(events, particles, seed)) if acts else ()
    root = data or (Path(os.environ[REFERENCE_DATA]) if os.environ.get(REFERENCE_DATA) else None)
    for name, rows_of in (("colliderml", colliderml_rows), ("traccc_toy", toy_rows)):
        if root is not None and (root / name).is_dir():
            rows += shown(rows_of(root / name, threads))
        else:
            rows.append(Row(name, "", "not run: there are no data; --data names their folder"))
    if trackml and trackml_detector is not None:
        values = {key: value for key, (_, value) in assigned(trackml_set or ()).items()}
        config = ChainConfig().with_settings(values)
        for folder in trackml:
            rows += shown(trackml_rows(folder, trackml_detector, config, threads))
        rows.append(WINNER)
    else:
        rows.append(Row("TrackML", "", "not run: --trackml and --trackml-detector name its files"))
    text = table(rows)
    print(text)
    if page is not None:
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    write_results(output, "outside", {"rows": [row._asdict() for row in rows]})


if __name__ == "__main__":
    typer.run(main)
