"""Events in the format of the TrackML challenge: hits, cells, truth and particles, and submissions.

A hit is a position on a module, with the cells of its cluster in a file of its own. Events can be reconstructed from
the cells, so that clusters are made anew, or from the positions of the hits alone. Whatever is reconstructed is known
by its hits.

References
----------
S. Amrouche et al., The Tracking Machine Learning challenge: Accuracy phase, arXiv:1904.06778, section 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traccc_py.data import FIRST_DATA_LINE
from traccc_py.data.csv_table import Column, check_header, format_table, input_error, read_table
from traccc_py.data.source import Source, bad_row, find_modules
from traccc_py.data.truth import Hits, Particles
from traccc_py.edm import Cells, EventResult, Measurements
from traccc_py.errors import InputDataError
from traccc_py.files import write_files
from traccc_py.geometry.detector import Detector
from traccc_py.geometry.surfaces import decode_geometry_id, encode_geometry_id

__all__ = [
    "NO_TRACK",
    "TrackmlEvent",
    "TrackmlHits",
    "TrackmlTruth",
    "check_trackml_headers",
    "is_trackml",
    "read_trackml_cells",
    "read_trackml_hits",
    "read_trackml_particles",
    "read_trackml_truth",
    "sibling",
    "submission_table",
    "trackml_measurements",
    "write_trackml_event",
]

NO_TRACK = 0  #: track_id of a hit on no track
_NOISE = 0  #: particle_id of a hit of no particle

_HIT_ID = Column("hit_id", "i8", minimum=1)  # from 1: a measurement made of cells is told from a hit by that
_HITS = [
    _HIT_ID,
    *(Column(name, "f8") for name in "xyz"),
    Column("volume_id", "i8", minimum=1, maximum=255),
    Column("layer_id", "i8", minimum=1, maximum=4095),
    Column("module_id", "i8", minimum=1, maximum=1_048_575),
]
_CELLS = [
    _HIT_ID,
    Column("ch0", "i4", minimum=0),
    Column("ch1", "i4", minimum=0),
    Column("value", "f4", minimum=0),
]
_TRUTH = [
    _HIT_ID,
    Column("particle_id", "u8"),
    *(Column(name, "f4") for name in ("tx", "ty", "tz", "tpx", "tpy", "tpz")),
    Column("weight", "f8", minimum=0, default=np.nan, allow_nan=True),
]
_PARTICLES = [
    Column("particle_id", "u8"),
    *(Column(name, "f4") for name in ("vx", "vy", "vz", "px", "py", "pz")),
    Column("q", "f4"),
]
_RULES = {"hits": _HITS, "cells": _CELLS, "truth": _TRUTH, "particles": _PARTICLES}
_OFF_PLANE = 1.0  #: largest distance of a hit from its module [mm]
_OFF_CELLS = 2.0  #: largest median distance of hits from the middle of their cells, in channels


class TrackmlHits(NamedTuple):
    """Hits of an event, in the order of the file."""

    hit_id: np.ndarray  # (n,) int64
    position: np.ndarray  # (n, 3) float64 [mm]
    geometry_id: np.ndarray  # (n,) uint64


class TrackmlTruth(NamedTuple):
    """Truth of the hits of an event, in the order of the hits file."""

    hits: Hits  # momenta at the hits; without energies
    weight: np.ndarray  # (n,) float64, of the challenge's score; NaN where the file has none


class TrackmlEvent(NamedTuple):
    """An event to be written; a row of all columns but `cells` is a hit."""

    hits: TrackmlHits
    cells: Cells  # measurement_id: row of the hit
    truth: TrackmlTruth
    particles: Particles


def is_trackml(path: Path | str) -> bool:
    """Return whether the header of a hits or cells file is TrackML's; False if there is no such file."""
    name = Path(path).name
    kind = next((k for k in ("hits", "cells") if f"-{k}.csv" in name), None)
    if kind is None:
        return False
    try:
        check_header(path, _RULES[kind])
    except InputDataError:
        return False
    return True


def sibling(path: Path | str, kind: str) -> Path | None:
    """Return the file of another kind of the same event, plain or gzipped; None if there is none."""
    path = Path(path)
    head, _, tail = path.name.rpartition("-")
    plain = f"{head}-{kind}.csv"
    names = (plain, f"{plain}.gz") if not tail.endswith(".gz") else (f"{plain}.gz", plain)
    return next((there for name in names if (there := path.with_name(name)).exists()), None)


def _required(path: Path | str, kind: str) -> Path:
    found = sibling(path, kind)
    if found is None:
        head = Path(path).name.rpartition("-")[0]
        msg = f"{Path(path).with_name(f'{head}-{kind}.csv')}: there is no such file; TrackML has it beside the hits"
        raise InputDataError(msg)
    return found


def check_trackml_headers(path: Path | str, *, with_cells: bool) -> None:
    """Check the header of a hits file, and of the cells beside it if events are read from them.

    Raises
    ------
    InputDataError
        If a file is missing or lacks a column.
    """
    check_header(path, _HITS)
    if with_cells:
        check_header(_required(path, "cells"), _CELLS)


def read_trackml_hits(path: Path | str) -> TrackmlHits:
    """Read the hits of an event.

    Parameters
    ----------
    path : path
        ``event000001000-hits.csv``, plain or gzipped. Rows may be in any order.

    Raises
    ------
    InputDataError
        If the file can't be used, or a hit_id stands there twice.
    """
    table = read_table(path, _HITS)
    _check_unique(path, "hit_id", table["hit_id"])
    ids = encode_geometry_id(table["volume_id"], table["layer_id"], table["module_id"])
    return TrackmlHits(table["hit_id"], np.stack([table[axis] for axis in "xyz"], axis=1), ids)


def _check_unique(path: Path | str, column: str, values: np.ndarray) -> None:
    unique, first = np.unique(values, return_index=True)
    if len(unique) < len(values):
        row = int(np.setdiff1d(np.arange(len(values)), first)[0])
        raise input_error(path, row + FIRST_DATA_LINE, column, values[row], "each id once")


def _rows_of(path: Path | str, hit_id: np.ndarray, hits: TrackmlHits) -> np.ndarray:
    """Return the rows of hits by their ids.

    Raises
    ------
    InputDataError
        If there is no such hit.
    """
    order = np.argsort(hits.hit_id, kind="stable")
    place = np.searchsorted(hits.hit_id[order], hit_id)
    row = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(hit_id), np.int64)
    good = hits.hit_id[row] == hit_id if len(order) else np.zeros(len(hit_id), bool)
    if not good.all():
        bad = int(np.argmin(good))
        expected = f"the id of one of the {len(hits.hit_id)} hits of the event"
        raise input_error(path, bad + FIRST_DATA_LINE, "hit_id", hit_id[bad], expected)
    return row


def read_trackml_cells(path: Path | str, detector: Detector | None = None) -> tuple[Cells, np.ndarray]:
    """Read the cells of an event.

    Parameters
    ----------
    path : path
        File of the hits; the cells are beside it.
    detector : Detector, optional
        Knows where the channels of its modules are: then it is checked that cells lie where their hits are.

    Returns
    -------
    cells : Cells
        Rows in the order of the cells file; `measurement_id` is the row of the hit.
    hit_id : ndarray of shape (n,), int64
        Hit of each cell.

    Raises
    ------
    InputDataError
        If a file can't be used, a hit has no cells, or cells lie elsewhere than their hits.
    """
    hits, cells_path = read_trackml_hits(path), _required(path, "cells")
    table = read_table(cells_path, _CELLS)
    row = _rows_of(cells_path, table["hit_id"], hits)
    n_cells = np.bincount(row, minlength=len(hits.hit_id))
    if not n_cells.all():
        first = int(np.argmin(n_cells > 0))
        problem = (
            f"hit {hits.hit_id[first]} has no cells in {cells_path.name} ({np.count_nonzero(n_cells == 0)} such hits); "
            "--input-kind trackml_hits reconstructs the positions of the hits, without cells"
        )
        raise bad_row(str(path), "hits", first, problem)
    cells = Cells(
        geometry_id=hits.geometry_id[row],
        channel0=table["ch0"],
        channel1=table["ch1"],
        activation=table["value"],
        time=np.zeros(len(row), np.float32),
        measurement_id=row,
    )
    if detector is not None:
        _check_places(path, cells, hits, detector)
    return cells, table["hit_id"]


def _check_places(path: Path | str, cells: Cells, hits: TrackmlHits, detector: Detector) -> None:
    """Raise if cells are counted in another way than by the readout of the detector."""
    if len(cells) == 0:
        return
    module = find_modules(hits.geometry_id, np.arange(len(hits.hit_id)), detector, "hits", str(path))
    local, _ = _local(hits.position, module, detector)
    design = detector.designs[detector.design_of_surface[module]]
    n = len(module)
    weight = np.maximum(cells.activation.astype(np.float64), 1e-9)
    total = np.bincount(cells.measurement_id, weight, n)
    for axis, channel in enumerate((cells.channel0, cells.channel1)):
        mean = np.bincount(cells.measurement_id, weight * (channel + 0.5), n) / total
        off = mean - (local[:, axis] - design[f"min{axis}"]) / design[f"pitch{axis}"]
        if np.median(np.abs(off)) > _OFF_CELLS:
            msg = (
                f"{path}: its cells are counted in another way than those of detector {detector.name!r}: half of the "
                f"hits are more than {np.median(np.abs(off)):.3g} channels from the middle of their cells along axis "
                f"{axis}; --input-kind trackml_hits reconstructs the positions of the hits"
            )
            raise InputDataError(msg)


def _local(position: np.ndarray, module: np.ndarray, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Return local positions (n, 2), and distances from the module (n,) [mm]."""
    s = detector.surfaces
    relative = position - s.centre[module]
    u, v, w = (np.sum(axis[module] * relative, axis=1) for axis in (s.u, s.v, s.w))
    return np.stack([u, v], axis=1), w


def trackml_measurements(hits: TrackmlHits, detector: Detector, source: Source | str) -> Measurements:
    """Return hits as measurements; their variances are those of one channel, since nothing is known of the clusters.

    Parameters
    ----------
    hits : TrackmlHits
        Hits of an event.
    detector : Detector
        The detector.
    source : Source or str
        Where they are from, for errors.

    Returns
    -------
    Measurements
        Rows as those of the hits; `measurement_id` is the hit_id.

    Raises
    ------
    InputDataError
        If a module is not one of the detector, or a hit is not on its module.
    """
    n = len(hits.hit_id)
    module = find_modules(hits.geometry_id, np.arange(n), detector, "hits", source)
    local, off = _local(hits.position, module, detector)
    if n and np.abs(off).max() > _OFF_PLANE:
        row = int(np.argmax(np.abs(off) > _OFF_PLANE))
        problem = f"the hit is {off[row]:.3g} mm off its module; is it the right detector?"
        raise bad_row(source, "hits", row, problem)
    index = detector.design_of_surface[module]
    design, table = detector.designs[index], detector.variance_table.variances
    variance = np.zeros((n, 2))
    for axis in range(2):
        known = table[index, axis, 1].astype(np.float64)
        variance[:, axis] = np.where(known > 0, known, design[f"pitch{axis}"].astype(np.float64) ** 2 / 12)
    dimensions = design["dimensions"].astype(np.int32)
    variance[dimensions == 1, 1] = 0.0
    return Measurements(
        geometry_id=hits.geometry_id,
        local_position=local.astype(np.float32),
        local_variance=variance.astype(np.float32),
        dimensions=dimensions,
        time=np.zeros(n, np.float32),
        module_index=module.astype(np.int32),
        cluster_size=np.zeros((n, 2), np.int32),
        n_cells=np.zeros(n, np.int32),
        measurement_id=hits.hit_id,
        cell_offsets=np.zeros(n + 1, np.int64),
    )


def read_trackml_truth(path: Path | str, hits: TrackmlHits) -> TrackmlTruth:
    """Read the truth of hits.

    Parameters
    ----------
    path : path
        File of the hits; the truth is beside it.
    hits : TrackmlHits
        Its hits.

    Raises
    ------
    InputDataError
        If the file can't be used, names a hit twice or one that does not exist, or lacks one.
    """
    truth_path = _required(path, "truth")
    table = read_table(truth_path, _TRUTH)
    _check_unique(truth_path, "hit_id", table["hit_id"])
    row = _rows_of(truth_path, table["hit_id"], hits)
    n = len(hits.hit_id)
    if len(row) != n:
        missing = int(np.setdiff1d(np.arange(n), row)[0])
        msg = f"{truth_path}: has {len(row)} of {n} hits; hit {hits.hit_id[missing]} is missing"
        raise InputDataError(msg)
    order = np.empty(n, np.int64)
    order[row] = np.arange(n)
    columns = {name: values[order] for name, values in table.items()}
    momentum = np.stack([columns[f"tp{axis}"] for axis in "xyz"], axis=1)
    found = Hits(
        particle_id=columns["particle_id"],
        geometry_id=hits.geometry_id,
        position=np.stack([columns[f"t{axis}"] for axis in "xyz"], axis=1),
        time=np.zeros(n, np.float32),
        momentum=momentum,
        energy=np.zeros(n, np.float32),
        delta_momentum=np.zeros((n, 3), np.float32),
        delta_energy=np.zeros(n, np.float32),
        index=np.full(n, -1),
    )
    return TrackmlTruth(found, columns["weight"])


def read_trackml_particles(path: Path | str, mass: float = 0.0, particle_type: int = 0) -> Particles:
    """Read a file of particles; it says neither what they are nor where they come from.

    Parameters
    ----------
    path : path
        ``event000001000-particles.csv``, plain or gzipped; further columns are ignored.
    mass : float, optional
        Of all of them [GeV].
    particle_type : int, optional
        PDG number of the positive ones; negative ones have its negative.

    Raises
    ------
    InputDataError
        If the file can't be used, or has a particle twice.
    """
    table = read_table(path, _PARTICLES)
    _check_unique(path, "particle_id", table["particle_id"])
    n = len(table["q"])
    return Particles(
        particle_id=table["particle_id"],
        particle_type=(np.sign(table["q"]) * particle_type).astype(np.int32),
        process=np.zeros(n, np.int32),
        vertex=np.stack([table[f"v{axis}"] for axis in "xyz"], axis=1),
        time=np.zeros(n, np.float32),
        momentum=np.stack([table[f"p{axis}"] for axis in "xyz"], axis=1),
        mass=np.full(n, mass, np.float32),
        charge=table["q"],
    )


def write_trackml_event(directory: Path | str, number: int, event: TrackmlEvent, *, compress: bool = False) -> None:
    """Write hits, cells, truth and particles of an event: all four files or none.

    Parameters
    ----------
    directory : path
        Folder; made if needed.
    number : int
        Event number.
    event : TrackmlEvent
        Event; particle_id 0 means noise.
    compress : bool, optional
        Write ``.csv.gz``.
    """
    hits, truth, particles, cells = event.hits, event.truth, event.particles, event.cells
    ids = decode_geometry_id(hits.geometry_id)
    of_particles = np.searchsorted(np.sort(truth.hits.particle_id), [particles.particle_id, particles.particle_id + 1])
    tables: dict[str, dict[str, Any]] = {
        "hits": {
            "hit_id": hits.hit_id,
            **dict(zip("xyz", hits.position.T, strict=True)),
            **{f"{name}_id": getattr(ids, part) for name, part in _ID_PARTS.items()},
        },
        "cells": {
            "hit_id": hits.hit_id[cells.measurement_id],
            "ch0": cells.channel0,
            "ch1": cells.channel1,
            "value": cells.activation,
        },
        "truth": {
            "hit_id": hits.hit_id,
            "particle_id": truth.hits.particle_id,
            **{f"t{axis}": truth.hits.position[:, k] for k, axis in enumerate("xyz")},
            **{f"tp{axis}": truth.hits.momentum[:, k] for k, axis in enumerate("xyz")},
            "weight": truth.weight,
        },
        "particles": {
            "particle_id": particles.particle_id,
            **{f"v{axis}": particles.vertex[:, k] for k, axis in enumerate("xyz")},
            **{f"p{axis}": particles.momentum[:, k] for k, axis in enumerate("xyz")},
            "q": particles.charge.astype(np.int64),
            "nhits": of_particles[1] - of_particles[0],
        },
    }
    suffix = ".csv.gz" if compress else ".csv"
    folder = Path(directory)
    write_files({folder / f"event{number:09d}-{kind}{suffix}": format_table(t) for kind, t in tables.items()})


_ID_PARTS = {"volume": "volume", "layer": "layer", "module": "sensitive"}


def submission_table(event: int, result: EventResult, hit_id: np.ndarray) -> dict[str, np.ndarray]:
    """Return which hit is on which track, as the challenge wants it: each hit once.

    Parameters
    ----------
    event : int
        Event number.
    result : EventResult
        What was reconstructed.
    hit_id : ndarray of shape (n,), int64
        Hit of each row of the input: of cells, or of measurements, whose ids are those of hits.

    Returns
    -------
    dict of str to ndarray
        Columns event_id, hit_id, track_id; tracks count from 1, hits on none have 0. Of several tracks of a hit, that
        with most measurements counts, then the first.
    """
    states, measurements = result.track_states, result.measurements
    track_of_measurement = np.full(len(measurements), -1)
    length = np.diff(result.tracks.state_offsets)
    used = np.flatnonzero(states.measurement_index >= 0)
    order = used[np.lexsort((-states.track_index[used], length[states.track_index[used]]))]  # the last one stays
    track_of_measurement[states.measurement_index[order]] = states.track_index[order]
    ids = np.unique(hit_id)
    if len(measurements.cell_indices):
        of_hit, owner = hit_id[measurements.cell_indices], np.repeat(np.arange(len(measurements)), measurements.n_cells)
    else:
        of_hit, owner = measurements.measurement_id, np.arange(len(measurements))
    found = np.full(len(ids), -1)
    np.maximum.at(found, np.searchsorted(ids, of_hit), track_of_measurement[owner])
    return {"event_id": np.full(len(ids), event), "hit_id": ids, "track_id": found + 1 + NO_TRACK}
