"""Track candidates: the accepted branches of all seeds, gathered in one collection."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function, kernel
from traccc_py.device.workspace import ScanColumn
from traccc_py.kernels.tracking.kalman import chi2_survival

__all__ = ["Acceptance", "Branches", "CandidateBatch", "acceptance", "collect_candidates", "is_accepted"]

_NDF_OF_PARAMETERS = 5


class Branches(NamedTuple):
    """Branches by slot = seed * branches_per_seed + branch."""

    code: Any  # (n_slots, max_entries) int32, see `CandidateBatch.code`
    path: Any  # (n_slots, max_entries) scalar, path length from the entry before [mm]
    n_entries: Any  # (n_slots,) int32
    n_measurements: Any  # (n_slots,) int32, 0 where there is no branch
    n_holes: Any  # (n_slots,) int32, holes before the last measurement
    chi2: Any  # (n_slots,) scalar, sum of predicted chi2
    ndf: Any  # (n_slots,) int32, sum of dimensions
    is_stopped: Any  # (n_slots,) int32, 1 if holes ended the branch, not the detector


class CandidateBatch(NamedTuple):
    """Track candidates, ordered by seed. Extent: "candidates"."""

    seed: Any  # (n_candidates,) int32
    event: Any  # (n_candidates,) int32
    entry_offsets: Any  # (n_candidates + 1,) int32
    code: Any  # (n_entries,) int32: >= 0 measurement; below 0: -1 - surface, or -1 - n_modules - layer
    path: Any  # (n_entries,) scalar, path length from the entry before [mm]
    measurement_offsets: Any  # (n_candidates + 1,) int32
    measurements: Any  # (sum,) int32
    n_holes: Any  # (n_candidates,) int32
    chi2: Any  # (n_candidates,) scalar
    ndf: Any  # (n_candidates,) int32, sum of dimensions - 5
    pval: Any  # (n_candidates,) scalar


_EXTENTS = ("candidates", "candidate_entries", "candidate_measurements")


class Acceptance(NamedTuple):
    """Fields of payloads for `is_accepted`."""

    n_measurements: Any  # (n_slots,)
    n_holes: Any  # (n_slots,)
    is_stopped: Any  # (n_slots,)
    min_measurements: Any
    measurements_per_hole: Any


def acceptance(found: Branches, config: Any) -> Acceptance:
    """Return what `is_accepted` looks at, for branches and a `FindingConfig`."""
    cuts = (np.int32(config.min_measurements), np.int32(config.measurements_per_hole))
    return Acceptance(found.n_measurements, found.n_holes, found.is_stopped, *cuts)


@device_function(inlined=True)
def is_accepted(p, slot):
    """Return whether a branch has enough measurements, for its holes, to be a track."""
    n = p.n_measurements[slot]
    if n < p.min_measurements:  # there may be no branch, and then no number of holes
        return False
    return n - p.min_measurements >= p.measurements_per_hole * (p.n_holes[slot] + p.is_stopped[slot])


class _AcceptPayload(NamedTuple):
    n_measurements: Any  # (n_slots,), see `Acceptance`
    n_holes: Any
    is_stopped: Any
    min_measurements: Any
    measurements_per_hole: Any
    n_entries: Any  # (n_slots,)
    branches_per_seed: Any
    out_n_candidates: Any  # (n_seeds,) int32
    out_n_entries: Any  # (n_seeds,) int32
    out_n_measurements: Any  # (n_seeds,) int32


@kernel(grain=2048)
def count_candidates(i, p):
    """Count the accepted branches of seed i, their entries and measurements."""
    n = np.int32(0)
    entries = np.int32(0)
    measurements = np.int32(0)
    for slot in range(i * p.branches_per_seed, (i + 1) * p.branches_per_seed):
        if is_accepted(p, slot):
            n += np.int32(1)
            entries += p.n_entries[slot]
            measurements += p.n_measurements[slot]
    p.out_n_candidates[i] = n
    p.out_n_entries[i] = entries
    p.out_n_measurements[i] = measurements


class _FillPayload(NamedTuple):
    n_measurements: Any  # (n_slots,), see `Acceptance`
    n_holes: Any
    is_stopped: Any
    min_measurements: Any
    measurements_per_hole: Any
    code: Any  # (n_slots, max_entries)
    path: Any
    n_entries: Any  # (n_slots,)
    chi2: Any
    ndf: Any
    seed_event: Any  # (n_seeds,)
    candidate_offsets: Any  # (n_seeds + 1,)
    entry_offsets: Any  # (n_seeds + 1,)
    measurement_offsets: Any  # (n_seeds + 1,)
    branches_per_seed: Any
    out_seed: Any  # (n_candidates,)
    out_event: Any
    out_entry_offsets: Any  # (n_candidates + 1,)
    out_code: Any  # (n_entries,)
    out_path: Any
    out_measurement_offsets: Any  # (n_candidates + 1,)
    out_measurements: Any
    out_n_holes: Any
    out_chi2: Any
    out_ndf: Any
    out_pval: Any


@kernel(grain=512)
def fill_candidates(i, p):
    """Copy the accepted branches of seed i to their places."""
    candidate = p.candidate_offsets[i]
    entry = p.entry_offsets[i]
    measurement = p.measurement_offsets[i]
    if (
        p.candidate_offsets[i + 1] >= p.out_entry_offsets.shape[0]
        or p.entry_offsets[i + 1] > p.out_code.shape[0]
        or p.measurement_offsets[i + 1] > p.out_measurements.shape[0]
    ):
        return
    for slot in range(i * p.branches_per_seed, (i + 1) * p.branches_per_seed):
        if not is_accepted(p, slot):
            continue
        for k in range(p.n_entries[slot]):
            p.out_code[entry] = p.code[slot, k]
            p.out_path[entry] = p.path[slot, k]
            entry = np.int32(entry + 1)
            if p.code[slot, k] >= 0:
                p.out_measurements[measurement] = p.code[slot, k]
                measurement = np.int32(measurement + 1)
        ndf = np.int32(p.ndf[slot] - _NDF_OF_PARAMETERS)
        p.out_seed[candidate] = i
        p.out_event[candidate] = p.seed_event[i]
        p.out_n_holes[candidate] = p.n_holes[slot]
        p.out_chi2[candidate] = p.chi2[slot]
        p.out_ndf[candidate] = ndf
        p.out_pval[candidate] = chi2_survival(p.chi2[slot], ndf)
        candidate = np.int32(candidate + 1)
        p.out_entry_offsets[candidate] = entry
        p.out_measurement_offsets[candidate] = measurement
    if i == 0:
        p.out_entry_offsets[0] = np.int32(0)
        p.out_measurement_offsets[0] = np.int32(0)


def _make_candidates(ws: Any, real: Any) -> CandidateBatch:
    candidates, entries, measurements = (ws.extent(name) for name in _EXTENTS)
    return CandidateBatch(
        seed=ws.array("candidates.seed", candidates, np.int32),
        event=ws.array("candidates.event", candidates, np.int32),
        entry_offsets=ws.array("candidates.entry_offsets", candidates, np.int32, extra=1),
        code=ws.array("candidates.code", entries, np.int32),
        path=ws.array("candidates.path", entries, real),
        measurement_offsets=ws.array("candidates.measurement_offsets", candidates, np.int32, extra=1),
        measurements=ws.array("candidates.measurements", measurements, np.int32),
        n_holes=ws.array("candidates.n_holes", candidates, np.int32),
        chi2=ws.array("candidates.chi2", candidates, real),
        ndf=ws.array("candidates.ndf", candidates, np.int32),
        pval=ws.array("candidates.pval", candidates, real),
    )


def collect_candidates(
    ws: Any, found: Branches, seed_event: Any, branches_per_seed: int, config: Any
) -> CandidateBatch:
    """Gather the accepted branches of all seeds.

    Parameters
    ----------
    ws : Workspace
        Buffers; the size of "seeds" must be set, those of "candidates", "candidate_entries" and
        "candidate_measurements" are set here.
    found : Branches
        Branches of all seeds.
    seed_event : array of shape (n_seeds,), int32
        Event of each seed.
    branches_per_seed : int
        Slots of a seed [1].
    config : FindingConfig
        Its `min_measurements` and `measurements_per_hole` decide which branches are accepted.

    Returns
    -------
    CandidateBatch
        Candidates ordered by seed, then branch.
    """
    seeds = ws.extent("seeds")
    per_seed = [ws.array(f"finding.n_{name}", seeds, np.int32) for name in _EXTENTS]
    offsets = [ws.array(f"finding.{name}_offsets", seeds, np.int32, extra=1) for name in _EXTENTS]
    accepted, slots = acceptance(found, config), np.int32(branches_per_seed)
    ws.launch(count_candidates, seeds, _AcceptPayload(*accepted, found.n_entries, slots, *per_seed))
    scans = [ScanColumn(n, o, ws.extent(name)) for name, n, o in zip(_EXTENTS, per_seed, offsets, strict=True)]
    ws.scan_together(seeds, *scans)
    batch = _make_candidates(ws, found.chi2.dtype)
    columns = (found.code, found.path, found.n_entries, found.chi2, found.ndf)
    ws.launch(fill_candidates, seeds, _FillPayload(*accepted, *columns, seed_event, *offsets, slots, *batch))
    return batch
