"""Hand-made device collections (CPU) for tests of single stages."""

from __future__ import annotations

from functools import cache

import numpy as np

from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.workspace import Workspace
from traccc_py.geometry.records import LayerKind
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import TrackSelection
from traccc_py.kernels.finding.candidates import CandidateBatch
from traccc_py.kernels.finding.finding import find_tracks
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SeedParameters
from traccc_py.kernels.tracking.navigation import StackRanges

KINDS = (LayerKind.CYLINDER, LayerKind.DISC, LayerKind.PLANE)


@cache
def cpu_device(threads):
    """One device for all tests: it keeps its compiled loops."""
    return CpuDevice(threads)


def make_workspace(threads=2, **sizes):
    """A CPU workspace with the sizes of some extents set."""
    ws = Workspace(cpu_device(threads))
    for name, size in sizes.items():
        ws.set_size(ws.extent(name), size)
    return ws


def stack_ranges(stacks):
    """Ranges of the layers by kind of STACK records."""
    found = {int(s["kind"]): (np.int32(s["first_layer"]), np.int32(s["n_layers"])) for s in stacks}
    none = (np.int32(0), np.int32(0))
    return StackRanges(*(value for kind in KINDS for value in found.get(int(kind), none)))


def offsets_of(counts):
    """Starts of consecutive groups and their end, int32."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def measurement_batch(ws, measurements, n_modules, dtype=np.float32, event=None, n_events=1):
    """`MeasurementBatch` of `Measurements` ordered by (event, module)."""
    event = np.zeros(len(measurements.module_index), np.int32) if event is None else event
    event_module = (event * n_modules + measurements.module_index).astype(np.int32)
    ws.set_size(ws.extent("measurements"), len(event_module))
    return MeasurementBatch(
        event_module=event_module,
        local_position=measurements.local_position.astype(dtype),
        local_variance=measurements.local_variance.astype(dtype),
        dimensions=measurements.dimensions.astype(np.int32),
        time=measurements.time.astype(dtype),
        cluster_size=measurements.cluster_size,
        n_cells=measurements.n_cells,
        offsets=np.searchsorted(event_module, np.arange(n_events * n_modules + 1)).astype(np.int32),
        cell_measurement=np.zeros(0, np.int32),
    )


def seed_parameters(ws, module, params, sigma, dtype=np.float32, event=None):
    """`SeedParameters` with one set of standard deviations for all seeds."""
    n = len(module)
    ws.set_size(ws.extent("seeds"), n)
    return SeedParameters(
        module=np.asarray(module, np.int32),
        measurement=np.zeros(n, np.int32),  # finding alone asks for it
        event=np.zeros(n, np.int32) if event is None else np.asarray(event, np.int32),
        params=np.ascontiguousarray(params, dtype),
        variance=np.ascontiguousarray(np.broadcast_to(np.square(sigma), (n, 5)), dtype),
    )


def _no_start(event, dtype):
    """`SeedParameters` that say nothing but events."""
    n = len(event)
    return SeedParameters(np.zeros(n, np.int32), np.zeros(n, np.int32), event, *np.zeros((2, n, 5), dtype))


def candidate_batch(ws, code, path, entries_per_track, pval=None, event=None, start=None, dtype=np.float32):
    """`CandidateBatch` of trails; entry codes >= 0 are measurements. They start with `SeedParameters`, if need be."""
    n, code = len(entries_per_track), np.asarray(code, np.int32)
    entry_offsets = offsets_of(entries_per_track)
    is_measurement = code >= 0
    n_measurements = np.diff(np.concatenate([[0], np.cumsum(is_measurement)])[entry_offsets])
    ws.set_size(ws.extent("candidates"), n)
    ws.set_size(ws.extent("candidate_entries"), len(code))
    ws.set_size(ws.extent("candidate_measurements"), int(is_measurement.sum()))
    return CandidateBatch(
        seed=np.arange(n, dtype=np.int32),
        start=start or _no_start(np.zeros(n, np.int32) if event is None else np.asarray(event, np.int32), dtype),
        entry_offsets=entry_offsets,
        code=code,
        path=np.asarray(path, dtype),
        measurement_offsets=offsets_of(n_measurements),
        measurements=code[is_measurement],
        n_holes=np.zeros(n, np.int32),
        chi2=np.zeros(n, dtype),
        ndf=(2 * n_measurements - 5).astype(np.int32),
        pval=np.asarray(np.full(n, 0.5) if pval is None else pval, dtype),
    )


CANDIDATE_EXTENTS = {"code": "candidate_entries", "path": "candidate_entries", "measurements": "candidate_measurements"}
FIT_EXTENTS = dict.fromkeys(
    ("measurement", "state_params", "state_covariance", "state_chi2", "is_outlier"), "track_states"
)


def find_candidates(ws, parameters, first_measurement, measurements, arrays, stacks, config, *, is_kept=True):
    """Candidates of seeds that stand on given measurements; all are followed, in the second pass unless kept."""
    spacepoint = np.arange(len(parameters.module), dtype=np.int32)  # one on each first measurement
    quality = np.zeros(len(spacepoint), parameters.params.dtype)
    seeds = SeedBatch(spacepoint, spacepoint, spacepoint, quality, parameters.event)
    is_kept = np.full(len(spacepoint), is_kept, np.int32)
    spacepoint_measurement = np.asarray(first_measurement, np.int32)
    parameters = parameters._replace(measurement=spacepoint_measurement.copy())
    ws.set_size(ws.extent("spacepoints"), len(spacepoint))
    return find_tracks(ws, seeds, is_kept, parameters, spacepoint_measurement, measurements, arrays, stacks, config)


def select_all(ws, candidates):
    """`TrackSelection` of all candidates."""
    n = len(candidates.seed)
    ws.set_size(ws.extent("tracks"), n)
    ws.set_size(ws.extent("track_states"), int(candidates.measurement_offsets[-1]))
    return TrackSelection(np.arange(n, dtype=np.int32), candidates.measurement_offsets)


def rows(ws, collection, **extents):
    """The collection cut to its sizes; `extents` maps column names to extents, `default` is that of all others."""
    default = extents.pop("default")
    columns = {}
    for name, column in zip(collection._fields, collection, strict=True):
        n = ws.size(ws.extent(extents.get(name, default))) + (1 if name.endswith("offsets") else 0)
        parts = column if isinstance(column, tuple) else (column,)
        cut = [part[:n].copy() for part in parts]
        columns[name] = type(column)(*cut) if isinstance(column, tuple) else cut[0]
    return type(collection)(**columns)
