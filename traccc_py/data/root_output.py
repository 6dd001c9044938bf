"""Results in ROOT files: trees in the branches of Acts's track summaries and states. Needs uproot (extra ``root``).

`tracksummary` has an entry for each event and arrays over its tracks, `trackstates` an entry for each track and arrays
over its states, from the inside out. Branches of the truth are not there, but for majorityParticleId.

References
----------
Acts, Examples/Io/Root: RootTrackSummaryWriter, RootTrackStatesWriter. Arrays are of variable length (``x[n_x]``), not
std::vector: uproot and RDataFrame read both alike.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.shards import kind_file
from traccc_py.edm import N_PARAMETERS, PHI, QOP, THETA, EventResult, packed_index
from traccc_py.edm.kinematics import pseudorapidity
from traccc_py.extras import optional_module
from traccc_py.geometry.surfaces import decode_geometry_id

__all__ = ["ROOT_KINDS", "RootOutput", "state_branches", "summary_branches"]

#: Trees by the kind of result that they hold.
ROOT_KINDS = {"tracks": "tracksummary", "track_states": "trackstates"}
_NAMES = ("eLOC0", "eLOC1", "ePHI", "eTHETA", "eQOP")  #: Acts's names of parameters
_EVENTS_AT_ONCE = 50  #: that go to the tree together


def summary_branches(result: EventResult, particle_of_measurement: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the branches of `tracksummary` that have a value for each track, by name.

    Parameters
    ----------
    result : EventResult
        An event.
    particle_of_measurement : ndarray of shape (n,), uint64, optional
        Particles by `measurement_id`, where measurements are rows of a file of hits with truth.
    """
    from traccc_py.data.colliderml import majority_particles

    tracks = result.tracks
    n = len(tracks)
    found: dict[str, np.ndarray] = {
        "track_nr": np.arange(n, dtype=np.uint32),
        "nStates": tracks.n_measurements.astype(np.uint32),
        "nMeasurements": tracks.n_measurements.astype(np.uint32),
        "nOutliers": np.zeros(n, np.uint32),
        "nHoles": tracks.n_holes.astype(np.uint32),
        "nSharedHits": np.maximum(tracks.n_shared_measurements, 0).astype(np.uint32),
        "chi2Sum": tracks.chi2.astype(np.float32),
        "NDF": tracks.ndf.astype(np.uint32),
        "hasFittedParams": tracks.is_fitted,
    }
    if particle_of_measurement is not None:
        found["majorityParticleId"] = majority_particles(result, particle_of_measurement)
    for k, name in enumerate(_NAMES):
        found[f"{name}_fit"] = tracks.perigee[:, k]
    found["eT_fit"] = tracks.time
    covariance = tracks.perigee_covariance
    with np.errstate(invalid="ignore"):
        for k, name in enumerate(_NAMES):
            found[f"err_{name}_fit"] = np.sqrt(covariance[:, packed_index(k, k)])
    for row in range(N_PARAMETERS):
        for column in range(N_PARAMETERS):
            found[f"cov_{_NAMES[row]}_{_NAMES[column]}"] = covariance[:, packed_index(row, column)]
    return found


def state_branches(result: EventResult) -> dict[str, np.ndarray]:
    """Return the branches of `trackstates` that have a value for each state, by name."""
    states, measurements = result.track_states, result.measurements
    ids = decode_geometry_id(states.geometry_id)
    row, params = states.measurement_index, states.params
    found: dict[str, np.ndarray] = {
        "volume_id": ids.volume.astype(np.int32),
        "layer_id": ids.layer.astype(np.int32),
        "module_id": ids.sensitive.astype(np.int32),
        "dim_hit": measurements.dimensions[row],
        "chi2": states.chi2,
    }
    for axis, name in enumerate("xy"):
        is_measured = measurements.dimensions[row] > axis
        found[f"l_{name}_hit"] = np.where(is_measured, measurements.local_position[row, axis], np.float32(np.nan))
        error = np.sqrt(measurements.local_variance[row, axis])
        found[f"err_{name}_hit"] = np.where(is_measured, error, np.float32(np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        for k, name in enumerate(_NAMES):
            found[f"{name}_smt"] = params[:, k]
            found[f"err_{name}_smt"] = np.sqrt(states.covariance[:, packed_index(k, k)])
        for k, axis_name in enumerate("xyz"):
            found[f"g_{axis_name}_smt"] = states.global_position[:, k]
        theta, phi, p = params[:, THETA].astype(np.float64), params[:, PHI], 1.0 / np.abs(params[:, QOP])
        momentum = {"px": np.sin(theta) * np.cos(phi), "py": np.sin(theta) * np.sin(phi), "pz": np.cos(theta)}
        found |= {f"{name}_smt": (p * part).astype(np.float32) for name, part in momentum.items()}
        found["eta_smt"] = pseudorapidity(theta).astype(np.float32)
        found["pT_smt"] = (p * np.sin(theta)).astype(np.float32)
    return found


class RootOutput:
    """Trees in files of a range of event numbers; a file appears when it is complete.

    Parameters
    ----------
    folder : Path
        Folder, which gets one for each tree.
    kinds : sequence of str
        Keys of `ROOT_KINDS`.
    events_per_file : int
        Size of the range of event numbers of a file [1].
    """

    def __init__(self, folder: Path, kinds: Sequence[str], events_per_file: int) -> None:
        self._uproot = optional_module("uproot", "root", "writing ROOT files")
        self._ak = optional_module("awkward", "root", "writing ROOT files")
        self._folder, self._kinds, self._events_per_file = folder, kinds, events_per_file
        self._open: dict[str, _OpenTree] = {}

    def files_of(self, event: int) -> list[Path]:
        """Return the files of the event's range."""
        names = [ROOT_KINDS[kind] for kind in self._kinds]
        return [kind_file(self._folder, name, event, self._events_per_file, ".root") for name in names]

    def add(
        self,
        event: int,
        result: EventResult,
        particle_of_measurement: np.ndarray | None,
        hit_id: np.ndarray | None = None,
    ) -> None:
        """Add an event."""
        tracks = result.tracks
        for kind, path in zip(self._kinds, self.files_of(event), strict=True):
            tree = self._open.get(kind)
            if tree is None or tree.path != path:
                if tree is not None:
                    self.close()
                tree = self._open[kind] = _OpenTree(self._uproot, self._ak, path, ROOT_KINDS[kind])
            if kind == "tracks":
                branches = summary_branches(result, particle_of_measurement)
                tree.add({"event_nr": np.array([event], np.uint32)}, np.array([len(tracks)]), branches)
            else:
                of_tracks = {
                    "event_nr": np.full(len(tracks), event, np.uint32),
                    "track_nr": np.arange(len(tracks), dtype=np.uint32),
                    "nStates": tracks.n_measurements.astype(np.uint32),
                    "nMeasurements": tracks.n_measurements.astype(np.uint32),
                }
                tree.add(of_tracks, np.diff(tracks.state_offsets), state_branches(result))

    def close(self) -> None:
        """Complete the files; none appears before all are written."""
        try:
            for tree in self._open.values():
                tree.finish()
            for tree in self._open.values():
                tree.publish()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove files that are not complete."""
        for tree in self._open.values():
            tree.discard()
        self._open = {}


class _OpenTree:
    """A file with a tree that is being written."""

    def __init__(self, uproot: Any, ak: Any, path: Path, name: str) -> None:
        self.path, self._ak, self._name = path, ak, name
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = uproot.recreate(self._temporary)
        self._tree: Any = None
        self._pieces: list[tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]] = []

    def add(self, single: dict[str, np.ndarray], lengths: np.ndarray, lists: dict[str, np.ndarray]) -> None:
        self._pieces.append((single, lengths, lists))
        if len(self._pieces) >= _EVENTS_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if not self._pieces:
            return
        first, _, first_lists = self._pieces[0]
        entries: dict[str, Any] = {
            name: np.concatenate([single[name] for single, _, _ in self._pieces]) for name in first
        }
        lengths = np.concatenate([lengths for _, lengths, _ in self._pieces])
        for name in first_lists:
            flat = np.concatenate([lists[name] for _, _, lists in self._pieces])
            entries[name] = self._ak.unflatten(flat, lengths)
        self._pieces = []
        try:
            if self._tree is None:
                types = {name: _branch_type(values) for name, values in entries.items()}
                # not `file[name] = entries`: that makes an RNTuple
                self._tree = self._file.mktree(self._name, types, counter_name=lambda name: f"n_{name}")
            self._tree.extend(entries)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def finish(self) -> None:
        self._write()
        self._file.close()

    def publish(self) -> None:
        self._temporary.replace(self.path)

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def _branch_type(values: Any) -> str:
    """Return the type of a branch, as awkward writes it."""
    if isinstance(values, np.ndarray):
        return str(values.dtype)
    return f"var * {values.type.content.content}"
