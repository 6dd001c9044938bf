"""What studies share: options, events, processes of their own, and results with what they depend on."""

from __future__ import annotations

import json
import multiprocessing
import resource
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "OUTPUT",
    "ROOT",
    "Detector",
    "Device",
    "Events",
    "Output",
    "Repeats",
    "Seed",
    "ThreadCounts",
    "Threads",
    "collision_events",
    "detector_in",
    "in_own_process",
    "muon_gun",
    "peak_memory",
    "write_between",
    "write_results",
]

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("out") / "studies"
_KILOBYTES_PER_MB = 1000

Output = Annotated[Path, typer.Option(help="Folder of the results.", file_okay=False)]
Detector = Annotated[str, typer.Option(help="Name of a detector.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
ThreadCounts = Annotated[list[int] | None, typer.Option("--threads", min=1, help="CPU threads; may be given again.")]
Events = Annotated[int, typer.Option(min=1, help="Events, of each sample where there are several.")]
Repeats = Annotated[int, typer.Option(min=1, help="Times each event is reconstructed, or each thing is measured.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of what is simulated.")]


def detector_in(name: str, *, solenoid: bool = False) -> Any:
    """Return a detector, in a homogeneous field or in that of a solenoid."""
    from traccc_py.geometry import build_detector
    from traccc_py.geometry.field import solenoid_field_map

    detector = build_detector(name)
    return detector.with_field_map(solenoid_field_map()) if solenoid else detector


def muon_gun(n: int) -> Any:
    """Return the gun of most studies of times: muons as soft as tracks of collisions are."""
    from traccc_py.simulation.generators.gun import ParticleGunConfig

    return ParticleGunConfig(n, momentum=(0.5, 10.0), eta=(-2.5, 2.5), vertex_sigma=(0.0125, 0.0125, 55.0))


def collision_events(detector: Any, folder: Path | None, process: str, pileup: float, n: int, seed: int) -> list[Any]:
    """Return the first events of a folder of ``traccc-py simulate``, or of a sample that is made if need be."""
    from traccc_py.data.manifest import read_manifest
    from traccc_py.simulation.events import read_event
    from traccc_py.simulation.samples import load_sample

    if folder is None:
        return list(load_sample(process, pileup, n, seed, detector=detector))
    numbers = [event["event"] for event in read_manifest(folder).events][:n]
    return [read_event(folder, detector, number) for number in numbers]


def peak_memory() -> float:
    """Return the largest memory this process has had [MB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KILOBYTES_PER_MB


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a fresh process, whose peak memory is that of the function alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_results(output: Path, study: str, content: Mapping[str, Any]) -> Path:
    """Write ``DATE-STUDY.json``: the results and what they depend on; return the file."""
    from traccc_py.environment import environment
    from traccc_py.files import write_files

    date = datetime.now(UTC).date().isoformat()
    path = output / f"{date}-{study}.json"
    text = json.dumps({"date": date, **environment(), **content}, indent=1) + "\n"
    write_files({path: text.encode()})
    print(f"written to {path}")
    return path


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two markers of a page."""
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
