"""Samples: folders of simulated events with a manifest, made by several processes, and a cache of them."""

from __future__ import annotations

import atexit
import json
import logging
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.dead_channels import write_dead_channels
from traccc_py.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    check_folder,
    file_digest,
    other_event_files,
    read_manifest,
    write_manifest,
)
from traccc_py.data.words import counted
from traccc_py.device.cache import cache_root
from traccc_py.errors import InputDataError
from traccc_py.files import content_digest, package_sources, source_digest
from traccc_py.simulation.digitization.failures import chance_of_modules, draw_dead_modules
from traccc_py.simulation.events import SimulatedEvent, event_file_names, read_event, simulate_event, write_event
from traccc_py.simulation.generators.particle_files import FileParticles
from traccc_py.simulation.generators.pileup import CollisionGenerator
from traccc_py.simulation.generators.pythia import pythia_version
from traccc_py.simulation.settings import (
    EVENTS_VERSION,
    CollisionConfig,
    ParticleFilesConfig,
    ParticleGunConfig,
    SampleConfig,
)
from traccc_py.simulation.trackml import trackml_file_names, write_trackml
from traccc_py.workers import worker_pool

__all__ = ["DEAD_CHANNELS_NAME", "Sample", "SampleConfig", "find_sample", "load_sample", "make_sample", "samples_root"]

_log = logging.getLogger(__name__)

DATA_VARIABLE = "TRACCC_PY_DATA_DIR"
DEAD_CHANNELS_NAME = "dead_channels.csv"  #: next to the events
_DIFFERENCES_SHOWN = 3


@cache
def _source_digest() -> str:
    """Return a hash [16 hexadecimal digits] of the sources that events depend on."""
    return source_digest(package_sources(("simulation", "units.py", "data/csv_events.py")))


def _recipe(detector: Any, config: SampleConfig) -> dict[str, Any]:
    """Return how a sample is made, as read back from a manifest: JSON has lists, not tuples."""
    import traccc_py

    uses_pythia = isinstance(config.source, CollisionConfig)
    recipe = {
        "versions": {
            "traccc_py": traccc_py.__version__,
            "events": EVENTS_VERSION,
            "simulation": _source_digest(),
            "pythia8mc": pythia_version() if uses_pythia else None,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "detector": {
            "name": detector.name,
            "digitization": detector.digitization.name,
            "b_field_z": detector.b_field_z,
            "fingerprint": detector.fingerprint,
        },
        "source": _source_recipe(config.source),
        "transport": asdict(config.transport),
        "smearing": config.smearing,
        "noise": list(config.noise),
        "dead_modules": config.dead_modules,
        "inefficiency": config.inefficiency,
        "compress": config.compress,
        "particle_id_fields": config.particle_id_fields,
        "seed": config.seed,
    }
    if config.format != SampleConfig.__dataclass_fields__["format"].default:  # samples were traccc's before
        recipe["format"] = config.format
    return dict(json.loads(json.dumps(recipe)))


def _source_recipe(source: ParticleGunConfig | CollisionConfig | ParticleFilesConfig) -> dict[str, Any]:
    """Return where particles come from; files by their contents."""
    if isinstance(source, ParticleFilesConfig):
        return {"kind": "files", "files": {Path(path).name: file_digest(Path(path)) for path in source.files}}
    return {"kind": "collisions" if isinstance(source, CollisionConfig) else "gun", **asdict(source)}


def _particle_source(detector: Any, source: ParticleGunConfig | CollisionConfig | ParticleFilesConfig) -> Any:
    """Return what gives the particles of events."""
    if isinstance(source, CollisionConfig):
        return CollisionGenerator(source, float(detector.arrays().b_z))
    return FileParticles(source) if isinstance(source, ParticleFilesConfig) else source


def _file_names(config: SampleConfig, number: int) -> list[str]:
    """Return the names of the files of an event."""
    names = trackml_file_names if config.format == "trackml" else event_file_names
    return names(number, compress=config.compress)


class _Maker:
    """Makes and writes single events; one in each process."""

    def __init__(self, folder: Path, detector: Any, config: SampleConfig) -> None:
        self._folder, self._detector, self._config = folder, detector, config
        self._source = _particle_source(detector, config.source)

    def make(self, number: int, threads: int = 1) -> tuple[dict[str, int], dict[str, str]]:
        """Write an event; return its sizes and the digests of its files."""
        config = self._config
        options = {name: getattr(config, name) for name in ("smearing", "noise", "inefficiency")}
        options |= {"config": config.transport, "threads": threads}
        event = simulate_event(self._detector, self._source, config.seed, number, **options)
        if config.format == "trackml":
            paths = write_trackml(self._folder, self._detector, event, compress=config.compress)
        else:
            fields = {"compress": config.compress, "particle_id_fields": config.particle_id_fields}
            paths = write_event(self._folder, self._detector, event, **fields)
        sizes = {
            "event": number,
            "particles": len(event.particles),
            "hits": len(event.simulated),
            "cells": len(event.cells),
            "measurements": len(event.digitization.measurement_hit),
        }
        return sizes, {path.name: file_digest(path) for path in paths}


_maker: _Maker | None = None  # of a worker process


def _start_worker(folder: Path, detector: Any, config: SampleConfig) -> None:
    global _maker  # noqa: PLW0603 (the initializer of a pool has no other place to put things)
    _maker = _Maker(folder, detector, config)


def _make_in_worker(number: int) -> tuple[dict[str, int], dict[str, str]]:
    assert _maker is not None
    return _maker.make(number)


def _run(
    folder: Path, detector: Any, config: SampleConfig, numbers: range, workers: int, threads: int
) -> Iterator[Any]:
    if workers <= 1:
        maker = _Maker(folder, detector, config)
        yield from (maker.make(number, threads) for number in numbers)
        return
    # spawned: a fork would lack the threads of compiled kernels
    with worker_pool(workers, initializer=_start_worker, arguments=(folder, detector, config)) as pool:
        yield from pool.map(_make_in_worker, numbers)


def find_sample(
    folder: Path | str, detector: Any, config: SampleConfig, n_events: int, first_event: int = 0
) -> Manifest | None:
    """Return the manifest of a folder that contains exactly the requested sample.

    Parameters
    ----------
    folder, detector, config, n_events, first_event
        As for `make_sample`.

    Returns
    -------
    Manifest or None
        None if the folder has no events; files are unchanged since they were made.

    Raises
    ------
    InputDataError
        If the folder is a file, or holds other events, or events made in another way, or files that have changed.
    """
    folder = Path(folder)
    _refuse_file(folder)
    there = other_event_files(folder, ())
    if not (folder / MANIFEST_NAME).exists():
        if there:
            problem = f"holds {counted(len(there), 'file')} of events without a manifest, such as {min(there)}"
            raise _occupied(folder, problem)
        return None
    manifest = read_manifest(folder)
    made, numbers = [event["event"] for event in manifest.events], range(first_event, first_event + n_events)
    if made != list(numbers):
        raise _occupied(folder, f"holds a sample of {_in_words(made)}, not of {_in_words(numbers)}")
    differences = list(_differences(manifest.recipe, _recipe(detector, config)))
    if differences:
        more = f"; and {len(differences) - _DIFFERENCES_SHOWN} more" if len(differences) > _DIFFERENCES_SHOWN else ""
        shown = "; ".join(differences[:_DIFFERENCES_SHOWN])
        raise _occupied(folder, f"holds a sample that was made in another way: {shown}{more}")
    problems = check_folder(folder)
    if problems:
        raise _occupied(folder, f"holds such a sample, but {problems[0]}")
    return manifest


def _refuse_file(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        msg = f"{folder}: is a file; expected a folder"
        raise InputDataError(msg)


def _occupied(folder: Path, problem: str) -> InputDataError:
    return InputDataError(f"{folder}: {problem}; use another folder, or overwrite to replace the events")


def _in_words(numbers: Sequence[int]) -> str:
    return f"{counted(len(numbers), 'event')} from number {numbers[0]}" if numbers else "no events"


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield what differs between two recipes."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} {before}, now {now}"


def make_sample(
    folder: Path | str,
    detector: Any,
    config: SampleConfig,
    n_events: int,
    *,
    first_event: int = 0,
    workers: int = 1,
    threads: int = 1,
    overwrite: bool = False,
) -> Iterator[dict[str, int]]:
    """Simulate and write events, then the manifest; nothing is done if they exist already.

    Parameters
    ----------
    folder : str or Path
        Folder, made if it is not there.
    detector : Detector
        Where the particles fly.
    config : SampleConfig
        What is simulated.
    n_events : int
        Number of events.
    first_event : int, optional
        Number of the first event.
    workers : int, optional
        Processes that make events; the files don't depend on it.
    threads : int, optional
        Threads of a single process; the files don't depend on it.
    overwrite : bool, optional
        Replace what `find_sample` refuses: the sample of the folder's manifest, and files of the same names.

    Yields
    ------
    dict of str to int
        Number and sizes of each event, in order, once it is written. The manifest is written after the last.

    Raises
    ------
    InputDataError
        As `find_sample`; with `overwrite` only if there are files of other events that are in no manifest.
    """
    folder = Path(folder)
    numbers = range(first_event, first_event + n_events)
    if overwrite:
        _clear(folder, [name for k in numbers for name in _file_names(config, k)])
    else:
        manifest = find_sample(folder, detector, config, n_events, first_event)
        if manifest is not None:
            yield from manifest.events
            return
    recipe, detector = _recipe(detector, config), _with_dead_modules(detector, config)
    events, files = [], _write_dead_channels(folder, detector)
    for sizes, digests in _run(folder, detector, config, numbers, min(workers, n_events), threads):
        events.append(sizes)
        files.update(digests)
        yield sizes
    write_manifest(folder, Manifest(recipe, events, files))


def _with_dead_modules(detector: Any, config: SampleConfig) -> Any:
    """Return the detector with the sample's dead modules besides its own dead channels.

    Raises
    ------
    ConfigError
        If the detector has no modules of a kind.
    """
    chance_of_modules(detector, config.inefficiency)  # an unknown kind is told before events are made
    if not config.dead_modules:
        return detector
    drawn, own = draw_dead_modules(detector, config.dead_modules, config.seed), detector.dead_channels
    return detector.with_dead_channels(drawn if own is None else own.and_also(drawn))


def _write_dead_channels(folder: Path, detector: Any) -> dict[str, str]:
    """Write the dead channels of a sample, if there are any; return the digest of the file by its name."""
    if detector.dead_ranges is None:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    path = write_dead_channels(folder / DEAD_CHANNELS_NAME, detector.dead_channels)
    return {path.name: file_digest(path)}


def _clear(folder: Path, names: list[str]) -> None:
    """Remove the sample of a folder, unless there are files of events that are neither in it nor in `names`."""
    _refuse_file(folder)
    path = folder / MANIFEST_NAME
    files = read_manifest(folder).files if path.exists() else {}
    old = [name for name in files if Path(name).name == name]  # never in another folder, whatever the manifest says
    others = other_event_files(folder, [*names, *old])
    if others:
        msg = (
            f"{folder}: holds {counted(len(others), 'file')} of other events, such as {others[0]}; use an empty folder"
        )
        raise InputDataError(msg)
    path.unlink(missing_ok=True)  # first: a folder without it is not a complete sample
    for name in old:
        (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample on disk."""

    folder: Path
    detector: Any
    manifest: Manifest

    def __len__(self) -> int:
        return len(self.manifest.events)

    def __iter__(self) -> Iterator[SimulatedEvent]:
        """Read one event after another."""
        for event in self.manifest.events:
            yield read_event(self.folder, self.detector, event["event"])


def samples_root() -> Path:
    """Return the folder of all samples: `TRACCC_PY_DATA_DIR`, else ``samples`` in the user's cache."""
    chosen = os.environ.get(DATA_VARIABLE)
    return Path(chosen) if chosen else cache_root() / "samples"


def load_sample(
    process: str,
    pileup: float,
    n_events: int,
    seed: int = 1,
    *,
    detector: Any = "odd",
    pt_hat_min: float = 0.0,
    workers: int = 1,
) -> Sample:
    """Return a sample of collisions; it is made if it is not on disk or was made differently.

    Parameters
    ----------
    process : str
        Hard process: minbias, ttbar, jets or zmumu.
    pileup : float
        Mean number of pile-up collisions.
    n_events : int
        Number of events.
    seed : int, optional
        Seed.
    detector : Detector or str, optional
        Detector, or the name of one.
    pt_hat_min : float, optional
        Smallest pT of the hard scattering [GeV].
    workers : int, optional
        Processes that make it.

    Returns
    -------
    Sample
        The sample below `samples_root()`.
    """
    if isinstance(detector, str):
        from traccc_py.geometry import build_detector

        detector = build_detector(detector)
    source = CollisionConfig(process=process, pileup=pileup, pt_hat_min=pt_hat_min)
    config = SampleConfig.of_collisions(source, seed, compress=True)
    recipe = _recipe(detector, config)
    key = content_digest(json.dumps(recipe))
    name = f"{detector.name}-{process}-mu{pileup:g}-seed{seed}-n{n_events}-{key}"
    manifest = _sound_manifest(samples_root() / name, recipe)
    if manifest is not None:
        return Sample(samples_root() / name, detector, manifest)
    folder = _writable_root() / name
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        for _ in make_sample(temporary, detector, config, n_events, workers=workers):
            pass
        if _sound_manifest(folder, recipe) is None:  # otherwise another process was first
            shutil.rmtree(folder, ignore_errors=True)
            folder.unlink(missing_ok=True)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Sample(folder, detector, read_manifest(folder))


def _sound_manifest(folder: Path, recipe: dict[str, Any]) -> Manifest | None:
    """Return the manifest of a sample; None where there is no sample of this recipe, or its files are damaged."""
    try:
        manifest = read_manifest(folder)
        is_sound = manifest.recipe == recipe and not check_folder(folder)
    except (InputDataError, OSError, TypeError, AttributeError):  # the last two: JSON of another form
        return None
    return manifest if is_sound else None


def _writable_root() -> Path:
    """Return where samples can be made: `samples_root()`, else with a warning a folder that ends with the process."""
    root = samples_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as error:
        _log.warning("%s: can't be written (%s); the sample is made in a temporary folder", root, error.strerror)
        folder = Path(tempfile.mkdtemp(prefix="traccc_py-samples-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder
