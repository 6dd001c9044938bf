"""`traccc-py simulate` and `traccc-py calibrate`: events and variances from the simulation."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from traccc_py.cli.detector import DETECTOR, DETECTOR_BY_POSITION
from traccc_py.cli.files import check_directory, check_file
from traccc_py.cli.options import Option, command, consoles, naming_options, options_of
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError, InputDataError
from traccc_py.settings import Count, PositiveCount, Settings
from traccc_py.simulation.settings import (
    GUN,
    CalibrationConfig,
    CollisionConfig,
    KindFractions,
    ParticleFilesConfig,
    ParticleGunConfig,
    SampleConfig,
    TransportConfig,
)
from traccc_py.units import degree

__all__ = ["calibrate", "simulate"]

_COMPILATION_SECONDS = 60  # told to the user; on one core
_UM_PER_MM = 1000.0
_PROBLEMS_SHOWN = 5
_SIZES_SHOWN = 6  #: cluster sizes in the table of sigmas; the file has all


@dataclass(frozen=True, slots=True)
class _SimulateOptions(Settings):
    #: folder for cells, truth and manifest; made if needed
    output: Annotated[Path | None, Option("-o", metavar="DIR")] = None
    check: Annotated[Path | None, Option(metavar="DIR")] = None  #: only compare a folder with its manifest
    events: Annotated[PositiveCount, Option("-n")] = 1  #: number of events
    first_event: Count = 0  #: number of the first event
    #: file of particles in TrackML's format, an event each, or of HepMC3 events (.hepmc3), in the place of a gun or
    #: collisions; may be repeated
    particles_files: Annotated[tuple[Path, ...], Option("--particles-file", metavar="FILE")] = ()
    no_material: bool = False  #: no interactions with material
    #: switch off an interaction, such as nuclear_interactions or decays; may be repeated. A wrong name lists all
    without: Annotated[tuple[str, ...], Option(metavar="NAME")] = ()
    #: switch on an interaction that a gun lacks by default; may be repeated
    also: Annotated[tuple[str, ...], Option("--with", metavar="NAME")] = ()
    overwrite: bool = False  #: replace events in the folder that were made in another way
    workers: PositiveCount = 1  #: processes that make events; files don't depend on it
    threads: PositiveCount | None = None  #: CPU threads of a single process; by default all cores
    log: Annotated[bool, Option(of="Gun")] = False  #: pT uniform in its logarithm


def _sample(**values: Any) -> SampleConfig:
    return SampleConfig(ParticleGunConfig(), **values)  # of a source that is not known yet


def _collisions(**values: Any) -> CollisionConfig:
    return CollisionConfig(**values, gun=ParticleGunConfig() if values["process"] == GUN else None)


def _radians(pair: tuple[float, float]) -> tuple[float, float]:
    return pair[0] * degree, pair[1] * degree


def _kind_fractions(option: str, texts: list[str]) -> KindFractions:
    """Return what texts such as "pixel barrel=0.05" say."""
    found = []
    for text in texts:
        kind, _, number = text.rpartition("=")
        try:
            fraction = float(number)
        except ValueError:
            fraction = math.nan
        if not kind or not 0 <= fraction <= 1:
            msg = f"{option} is {text!r}; expected KIND=FRACTION such as pixel=0.05, a fraction from 0 to 1"
            raise ConfigError(msg)
        found.append((kind.replace("_", " ").strip(), fraction))
    return tuple(found)


_dead_modules = partial(_kind_fractions, "--dead-modules")
_inefficiency = partial(_kind_fractions, "--inefficiency")

_OF_SAMPLE = options_of(
    SampleConfig,
    _sample,
    leave_out=("source", "transport"),
    smearing=Option("--no-noise", is_negated=True, meaning="no noise of charges"),
    noise=Option("--noise-cells", metavar="P2D P1D"),
    dead_modules=Option(metavar="KIND=FRACTION", kind=list[str], convert=_dead_modules),
    inefficiency=Option(metavar="KIND=FRACTION", kind=list[str], convert=_inefficiency),
)
_OF_COLLISIONS = options_of(
    CollisionConfig,
    _collisions,
    leave_out=("energy", "gun"),
    process=Option(default=GUN),
    pileup=Option(metavar="MU"),
    pileup_process=Option(of="Collisions"),
    pt_hat_min=Option("--pt-hat", of="Collisions"),
    max_eta=Option(of="Collisions"),
    min_pt=Option(of="Collisions"),
    vertex_sigma=Option("--beam-spot", of="Collisions", metavar="X Y Z"),
)
_OF_GUN = options_of(
    ParticleGunConfig,
    leave_out=("momentum_is_transverse", "momentum_distribution", "vertex_mean"),
    n_particles=Option("--particles", of="Gun", default=10),
    particle=Option(of="Gun"),
    charge=Option(of="Gun"),
    momentum=Option("--pt", of="Gun", metavar="MIN MAX", default=(1.0, 10.0), meaning="range of pT [GeV]"),
    eta=Option(of="Gun", metavar="MIN MAX"),
    phi=Option(
        of="Gun", metavar="MIN MAX", default=(-180.0, 180.0), meaning="range of phi [degrees]", convert=_radians
    ),
    vertex_sigma=Option(of="Gun", metavar="X Y Z", default=(0.0125, 0.0125, 55.0)),
)


@command(
    detector=DETECTOR,
    options=options_of(_SimulateOptions),
    sample=_OF_SAMPLE,
    collisions=_OF_COLLISIONS,
    gun=_OF_GUN,
)
def simulate(
    detector: DetectorOptions,
    options: _SimulateOptions,
    sample: SampleConfig,
    collisions: CollisionConfig,
    gun: ParticleGunConfig,
) -> None:
    """Simulate events, of a particle gun or collisions with pile-up: cells, truth and a manifest."""
    console, log = consoles()
    if options.check is not None:
        _check_sample(options.check, console)
        return
    output = options.output
    if output is None:
        msg = "no folder: name one with --output DIR, or one to check with --check DIR"
        raise ConfigError(msg)
    if options.log:
        gun = replace(gun, momentum_distribution="log")
    source: ParticleGunConfig | CollisionConfig | ParticleFilesConfig
    if options.particles_files:
        source = ParticleFilesConfig(tuple(map(str, options.particles_files)))
        options, transport = _of_files(options, source, collisions), _transport_of_files(source)
    elif collisions.process == GUN and collisions.pileup == 0:
        source, transport = gun, TransportConfig()
    else:
        source = replace(collisions, gun=gun) if collisions.process == GUN else collisions
        transport = TransportConfig.of_collisions()
    transport = TransportConfig.without_material() if options.no_material else transport
    with naming_options({"interaction": "--with"}):
        transport = transport.having(*options.also)
    with naming_options({"interaction": "--without"}):
        transport = transport.without(*options.without)
    _make_sample(output, detector, replace(sample, source=source, transport=transport), options, console, log)


def _transport_of_files(source: ParticleFilesConfig) -> TransportConfig:
    """Return the physics of particle files: HepMC3 events have particles as they were generated.

    Raises
    ------
    ConfigError
        If there are files of both kinds.
    """
    from traccc_py.data.hepmc_input import is_hepmc

    n_hepmc = sum(map(is_hepmc, source.files))
    if 0 < n_hepmc < len(source.files):
        msg = f"--particles-file names {counted(n_hepmc, 'file')} of HepMC3 and others of TrackML; expected one kind"
        raise ConfigError(msg)
    return TransportConfig.of_collisions() if n_hepmc else TransportConfig.of_particle_files()


def _of_files(options: _SimulateOptions, source: ParticleFilesConfig, collisions: CollisionConfig) -> _SimulateOptions:
    """Return the options with the events of particle files.

    Raises
    ------
    ConfigError
        If other events are asked for too.
    """
    from traccc_py.simulation.generators.particle_files import file_numbers

    if collisions.process != GUN or collisions.pileup > 0 or options.events != 1 or options.first_event:
        msg = "--particles-file says which events there are; leave out --events, --first-event, --process and --pileup"
        raise ConfigError(msg)
    with naming_options({source.path_of("files"): "--particles-file"}):
        numbers = file_numbers(source)
    return replace(options, events=len(numbers), first_event=numbers[0])


def _make_sample(
    output: Path, chosen: DetectorOptions, config: SampleConfig, options: _SimulateOptions, console: Any, log: Any
) -> None:
    """Simulate events and write cells, truth and a manifest; say so where they are there already."""
    from rich.progress import track

    from traccc_py.device.cpu.executor import CpuDevice
    from traccc_py.simulation.compiled import is_compiled
    from traccc_py.simulation.samples import DEAD_CHANNELS_NAME, find_sample, make_sample

    detector, n, first = chosen.load(), options.events, options.first_event
    if not options.overwrite and find_sample(output, detector, config, n, first) is not None:
        console.print(f"{output}: {counted(n, 'event')} made with these settings, already there; unchanged")
        return
    check_directory(output, "--output")
    if not is_compiled():
        log.print(f"compiling the simulation, once for this version; about {_COMPILATION_SECONDS} s")
    events = make_sample(
        output,
        detector,
        config,
        n,
        first_event=first,
        workers=options.workers,
        threads=CpuDevice(options.threads).threads if options.workers == 1 else 1,
        overwrite=options.overwrite,
    )
    start = time.perf_counter()
    totals = dict.fromkeys(("particles", "hits", "cells"), 0)
    for sizes in track(events, "events", n, console=log, transient=True, disable=not log.is_terminal):
        totals = {name: total + sizes[name] for name, total in totals.items()}
    seconds = time.perf_counter() - start
    counts = ", ".join(counted(total, name.removesuffix("s")) for name, total in totals.items())
    console.print(f"{counted(n, 'event')}: {counts} in {seconds:.1f} s, written to {output}")
    dead_channels = output / DEAD_CHANNELS_NAME
    if dead_channels.is_file():
        console.print(f"dead channels: {dead_channels}; --dead-channels tells other commands of them")


def _check_sample(folder: Path, console: Any) -> None:
    """Compare the files of a folder with its manifest.

    Raises
    ------
    InputDataError
        If they differ or there is no manifest.
    """
    from traccc_py.data.manifest import check_folder, read_manifest

    problems = check_folder(folder)
    if problems:
        msg = f"{folder} differs from its manifest: " + "; ".join(problems[:_PROBLEMS_SHOWN])
        more = len(problems) - _PROBLEMS_SHOWN
        raise InputDataError(msg + (f"; and {more} more" if more > 0 else ""))
    manifest = read_manifest(folder)
    files, events = counted(len(manifest.files), "file"), counted(len(manifest.events), "event")
    console.print(f"{folder}: {files} of {events}, all as they were made")


@dataclass(frozen=True, slots=True)
class _CalibrateOptions:
    #: where to write the table; by default among the package's
    output: Annotated[Path | None, Option("-o", metavar="FILE")] = None


_OF_CALIBRATION = options_of(
    CalibrationConfig,
    leave_out=("gun", "min_clusters", "min_clusters_of_path", "min_sigma", "central_fraction"),
    n_particles=Option("--particles"),
)


@command(chosen=DETECTOR_BY_POSITION, config=_OF_CALIBRATION, options=options_of(_CalibrateOptions))
def calibrate(chosen: DetectorOptions, config: CalibrationConfig, options: _CalibrateOptions) -> None:
    """Make the table of measurement variances by cluster size."""
    from traccc_py.geometry.digitization import builtin_digitizations
    from traccc_py.geometry.variance_table import save_variances
    from traccc_py.simulation.calibration import calibrate_variances

    check_file(options.output, "--output")
    detector: Any = chosen.load()
    console = consoles()[0]
    with console.status(f"simulating {counted(config.n_particles, 'muon')}"):
        result = calibrate_variances(detector, config)
    path, name = options.output or detector.variance_path, detector.digitization.name
    readout = f" --digitization {name}" if name in builtin_digitizations() else ""
    comment = {
        "made_by": f"traccc-py calibrate {detector.name}{readout} --particles {config.n_particles}",
        "sample": repr(config),
        "variance": "mean square of cluster position - true position, central part; sigmas: the same by end path",
        "n_clusters": int(result.n_clusters[:, 0].sum()),
    }
    save_variances(path, detector.design_names, result.table, comment)
    console.print(_sigma_table(detector, result))
    console.print(f"{counted(result.n_clusters[:, 0].sum(), 'cluster')}; table written to {path}")


def _sigma_table(detector: Any, result: Any) -> Any:
    from rich.table import Table

    table = Table(title="sigma [um] by cluster size", title_justify="left", header_style="bold", pad_edge=False)
    table.add_column("design")
    table.add_column("axis")
    for size in range(1, _SIZES_SHOWN + 1):
        table.add_column(str(size), justify="right")
    for name, variances in zip(detector.design_names, result.table.variances, strict=True):
        for axis, row in enumerate(variances):
            if (row > 0).any():
                sigma = _UM_PER_MM * row[1 : _SIZES_SHOWN + 1] ** 0.5
                table.add_row(name, f"loc{axis}", *(f"{s:.1f}" if s > 0 else "" for s in sigma))
    return table
