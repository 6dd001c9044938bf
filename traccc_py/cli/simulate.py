"""`traccc-py simulate` and `traccc-py calibrate`: events and variances from the simulation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from traccc_py.cli.outputs import check_directory
from traccc_py.data.manifest import check_folder, read_manifest
from traccc_py.data.words import counted
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import InputDataError

__all__ = ["OPTIONS_OF_SOURCES", "calibrate", "check_sample", "simulate"]

#: Options by the beginning of the error that tells of their value.
OPTIONS_OF_SOURCES = {
    "noise occupancy": "--noise-cells",
    "interaction": "--without",
} | {
    f"{source}: {name}": option
    for source, options in (
        (
            "ParticleGunConfig",
            {
                "n_particles": "--particles",
                "particle": "--particle",
                "charge": "--charge",
                "momentum": "--pt",
                "eta": "--eta",
                "phi": "--phi, in radians,",
                "vertex_sigma": "--vertex-sigma",
            },
        ),
        (
            "CollisionConfig",
            {
                "process": "--process, which is not gun,",
                "pileup": "--pileup",
                "pileup_process": "--pileup-process",
                "pt_hat_min": "--pt-hat",
                "min_pt": "--min-pt",
            },
        ),
    )
    for name, option in options.items()
}

_COMPILATION_SECONDS = 20  # told to the user; on one core
_UM_PER_MM = 1000.0
_PROBLEMS_SHOWN = 5
_SIZES_SHOWN = 6  #: cluster sizes in the table of sigmas; the file has all


def simulate(
    output: Path,
    chosen: DetectorOptions,
    config: Any,
    n_events: int,
    console: Console,
    log: Console,
    *,
    first_event: int = 0,
    workers: int = 1,
    threads: int | None = None,
    overwrite: bool = False,
) -> None:
    """Simulate events and write cells, truth and a manifest; say so where they are there already.

    Parameters
    ----------
    output : Path
        Folder for the files; made if needed.
    chosen : DetectorOptions
        Where the particles fly.
    config : SampleConfig
        What is simulated.
    n_events : int
        Number of events.
    console : Console
        Where the summary goes.
    log : Console
        Where progress goes.
    first_event : int, optional
        Number of the first event.
    workers : int, optional
        Processes.
    threads : int, optional
        Threads of a single process; by default one per core.
    overwrite : bool, optional
        Replace events made in another way.

    Raises
    ------
    InputDataError
        If `output` is a file or holds other events, or events made in another way.
    OSError
        If it can't be written.
    """
    from traccc_py.device.cpu.executor import CpuDevice
    from traccc_py.simulation.compiled import is_compiled
    from traccc_py.simulation.samples import find_sample, make_sample

    detector = chosen.load()
    if not overwrite and find_sample(output, detector, config, n_events, first_event) is not None:
        console.print(f"{output}: {counted(n_events, 'event')} made with these settings, already there; unchanged")
        return
    check_directory(output, "--output")
    if not is_compiled():
        log.print(f"compiling the simulation, once for this version; about {_COMPILATION_SECONDS} s")
    events = make_sample(
        output,
        detector,
        config,
        n_events,
        first_event=first_event,
        workers=workers,
        threads=CpuDevice(threads).threads if workers == 1 else 1,
        overwrite=overwrite,
    )
    start = time.perf_counter()
    totals = dict.fromkeys(("particles", "hits", "cells"), 0)
    for sizes in track(events, "events", n_events, console=log, transient=True, disable=not log.is_terminal):
        totals = {name: n + sizes[name] for name, n in totals.items()}
    seconds = time.perf_counter() - start
    counts = ", ".join(counted(n, name.removesuffix("s")) for name, n in totals.items())
    console.print(f"{counted(n_events, 'event')}: {counts} in {seconds:.1f} s, written to {output}")


def check_sample(folder: Path, console: Console) -> None:
    """Compare the files of a folder with its manifest.

    Raises
    ------
    InputDataError
        If they differ or there is no manifest.
    """
    problems = check_folder(folder)
    if problems:
        msg = f"{folder} differs from its manifest: " + "; ".join(problems[:_PROBLEMS_SHOWN])
        more = len(problems) - _PROBLEMS_SHOWN
        raise InputDataError(msg + (f"; and {more} more" if more > 0 else ""))
    manifest = read_manifest(folder)
    files, events = counted(len(manifest.files), "file"), counted(len(manifest.events), "event")
    console.print(f"{folder}: {files} of {events}, all as they were made")


def calibrate(detector: Any, n_particles: int, seed: int, output: Path | None, console: Console) -> None:
    """Make the table of measurement variances of a detector and digitisation.

    Parameters
    ----------
    detector : Detector
        The detector with the digitisation.
    n_particles : int
        Number of simulated muons.
    seed : int
        Seed of the sample.
    output : Path, optional
        File to write; by default the one that the detector is read with.
    console : Console
        Where the table goes.
    """
    from traccc_py.geometry.digitization import builtin_digitizations
    from traccc_py.geometry.variance_table import save_variances
    from traccc_py.simulation.calibration import CalibrationConfig, calibrate_variances

    config = CalibrationConfig(n_particles=n_particles, seed=seed)
    with console.status(f"simulating {counted(n_particles, 'muon')}"):
        result = calibrate_variances(detector, config)
    path, name = output or detector.variance_path, detector.digitization.name
    readout = f" --digitization {name}" if name in builtin_digitizations() else ""
    comment = {
        "made_by": f"traccc-py calibrate {detector.name}{readout} --particles {n_particles}",
        "sample": repr(config),
        "variance": "mean square of cluster position - true position, central part; sigmas: the same by end path",
        "n_clusters": int(result.n_clusters[:, 0].sum()),
    }
    save_variances(path, detector.design_names, result.table, comment)
    console.print(_sigma_table(detector, result))
    console.print(f"{counted(result.n_clusters[:, 0].sum(), 'cluster')}; table written to {path}")


def _sigma_table(detector: Any, result: Any) -> Table:
    table = Table(title="sigma [um] by cluster size", title_justify="left", header_style="bold", pad_edge=False)
    table.add_column("design")
    table.add_column("axis")
    for size in range(1, _SIZES_SHOWN + 1):
        table.add_column(str(size), justify="right")
    for name, variances in zip(detector.design_names, result.table.variances, strict=True):
        for axis, row in enumerate(variances):
            if np.any(row > 0):
                sigma = _UM_PER_MM * np.sqrt(row[1 : _SIZES_SHOWN + 1])
                table.add_row(name, f"loc{axis}", *(f"{s:.1f}" if s > 0 else "" for s in sigma))
    return table
