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
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import InputDataError

__all__ = ["OPTIONS_OF_GUN", "calibrate", "simulate"]

#: Options by the beginning of the error that tells of their value.
OPTIONS_OF_GUN = {
    f"ParticleGunConfig: {name}": option
    for name, option in (
        ("n_particles", "--particles"),
        ("particle", "--particle"),
        ("charge", "--charge"),
        ("momentum", "--pt"),
        ("eta", "--eta"),
        ("phi", "--phi, in radians,"),
        ("vertex_sigma", "--vertex-sigma"),
    )
}

_COMPILATION_SECONDS = 20  # told to the user; on one core
_UM_PER_MM = 1000.0
_SIZES_SHOWN = 6  #: cluster sizes in the table of sigmas; the file has all


def simulate(
    output: Path,
    chosen: DetectorOptions,
    gun: Any,
    seed: int,
    n_events: int,
    console: Console,
    log: Console,
    *,
    first_event: int = 0,
    material: bool = True,
    smearing: bool = True,
    threads: int | None = None,
    compress: bool = False,
) -> None:
    """Simulate events and write cells and truth.

    Parameters
    ----------
    output : Path
        Folder for the files; made if needed.
    chosen : DetectorOptions
        Where the particles fly.
    gun : ParticleGunConfig
        What is shot.
    seed : int
        Seed of the sample.
    n_events : int
        Number of events.
    console : Console
        Where the summary goes.
    log : Console
        Where progress goes.
    first_event : int, optional
        Number of the first event.
    material : bool, optional
        Scattering and energy loss.
    smearing : bool, optional
        Charge noise.
    threads : int, optional
        CPU threads; by default one per core.
    compress : bool, optional
        Write ``.csv.gz``.

    Raises
    ------
    InputDataError
        If `output` is a file.
    OSError
        If it can't be written.
    """
    from traccc_py.device.cpu import CpuDevice
    from traccc_py.simulation.compiled import is_compiled
    from traccc_py.simulation.events import simulate_events, write_event
    from traccc_py.simulation.transport import TransportConfig

    if output.exists() and not output.is_dir():
        msg = f"--output {output}: is a file; expected a folder"
        raise InputDataError(msg)
    check_directory(output, "--output")
    detector = chosen.load()
    if not is_compiled():
        log.print(f"compiling the simulation, once for this version; about {_COMPILATION_SECONDS} s")
    events = simulate_events(
        detector,
        gun,
        seed,
        n_events,
        first_event=first_event,
        config=TransportConfig() if material else TransportConfig.without_material(),
        smearing=smearing,
        threads=CpuDevice(threads).threads,
    )
    start = time.perf_counter()
    n_hits = n_cells = 0
    for event in track(events, "events", n_events, console=log, transient=True, disable=not log.is_terminal):
        write_event(output, detector, event, compress=compress)
        n_hits += len(event.simulated)
        n_cells += len(event.cells)
    seconds = time.perf_counter() - start
    console.print(
        f"{n_events} events: {n_events * gun.n_particles} particles, {n_hits} hits, {n_cells} cells "
        f"in {seconds:.1f} s, written to {output}"
    )


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
    from traccc_py.geometry.variance_table import save_variances
    from traccc_py.simulation.calibration import CalibrationConfig, calibrate_variances

    config = CalibrationConfig(n_particles=n_particles, seed=seed)
    with console.status(f"simulating {n_particles} muons"):
        result = calibrate_variances(detector, config)
    path = output or detector.variance_path
    comment = {
        "made_by": f"traccc-py calibrate {detector.name} --digitization {detector.digitization.name}",
        "sample": repr(config),
        "variance": "mean square of cluster position - true position, central part; sigmas: the same by end path",
        "n_clusters": int(result.n_clusters[:, 0].sum()),
    }
    save_variances(path, detector.design_names, result.table, comment)
    console.print(_sigma_table(detector, result))
    console.print(f"{comment['n_clusters']} clusters; table written to {path}")


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
