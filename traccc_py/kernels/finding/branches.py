"""Where branches of the combinatorial Kalman filter are stored: what they met, and their state while they wait.

A branch has a slot: seed * branches_per_seed + branch. Its entries are the surfaces it met, in order, with the path
lengths between them, so that the fit needs no navigation: measurements, surfaces crossed without one, passive layers.
The state of a branch is `Branch` in `tracking/state.py`: track, place in the navigation, counters, chi2, path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function
from traccc_py.device.workspace import Extent, Workspace
from traccc_py.edm.parameters import N_COVARIANCE, N_PARAMETERS
from traccc_py.kernels.constants import ZERO
from traccc_py.kernels.tracking.helix import curvilinear_axes, direction_of
from traccc_py.kernels.tracking.propagation import on_surface
from traccc_py.kernels.tracking.state import (
    Branch,
    Counters,
    Gaps,
    Navigation,
    Track,
    Vector,
    load_covariance,
    load_parameters,
    store_covariance,
    store_parameters,
)

__all__ = [
    "Branches",
    "WaitingBranches",
    "append_entry",
    "copy_entries",
    "load_branch",
    "make_branches",
    "make_waiting_branches",
    "save_branch",
    "store_outcome",
]

# Columns of the arrays of waiting branches.
_PARAMETERS, _COVARIANCE, _POSITION = 0, N_PARAMETERS, N_PARAMETERS + N_COVARIANCE
_N_STATE = _POSITION + 3
_SURFACE, _BIN_START, _CYLINDER, _DISC, _PLANE = range(5)
_ENTRIES, _MEASUREMENTS, _HOLES, _CONSECUTIVE_HOLES, _NDF, _LAST_LAYER = range(5, 11)
_N_LINKS = 11


class Branches(NamedTuple):
    """The outcome of branches, by slot."""

    code: Any  # (n_slots, max_entries) int32, see `CandidateBatch.code`
    path: Any  # (n_slots, max_entries) scalar, path length from the entry before [mm]
    n_entries: Any  # (n_slots,) int32
    n_measurements: Any  # (n_slots,) int32, 0 where there is no branch
    n_holes: Any  # (n_slots,) int32, layers without one before the last measurement
    chi2: Any  # (n_slots,) scalar, sum of predicted chi2
    ndf: Any  # (n_slots,) int32, sum of dimensions
    is_stopped: Any  # (n_slots,) int32, 1 if a limit on holes or on the momentum ended the branch, else 0


class WaitingBranches(NamedTuple):
    """The state of branches that are followed later, by slot."""

    state: Any  # (n_slots, 5 + 15 + 3) scalar, parameters and packed covariance on the last surface, position
    links: Any  # (n_slots, 11) int32: the last surface or, below 0, passive layer, then bin, gaps and counters
    untried: Any  # (n_slots,) int64, see `Navigation`
    chi2: Any  # (n_slots,) scalar


def _by_slot(ws: Workspace, name: str, seeds: Extent, dtype: Any, branches: int, width: int | None = None) -> Any:
    """Return an array with `branches` rows for each seed."""
    array = ws.array(name, seeds, dtype, branches * (width or 1))
    return array.reshape(-1, width) if width else array.reshape(-1)


def make_branches(
    ws: Workspace, seeds: Extent, dtype: Any, branches: int, max_entries: int, stage: str = "finding"
) -> Branches:
    """Return arrays for the outcome of `branches` branches of each seed, with names of their own for each `stage`."""
    return Branches(
        code=_by_slot(ws, f"{stage}.code", seeds, np.int32, branches, max_entries),
        path=_by_slot(ws, f"{stage}.path", seeds, dtype, branches, max_entries),
        n_entries=_by_slot(ws, f"{stage}.n_entries", seeds, np.int32, branches),
        n_measurements=_by_slot(ws, f"{stage}.n_measurements", seeds, np.int32, branches),
        n_holes=_by_slot(ws, f"{stage}.n_holes", seeds, np.int32, branches),
        chi2=_by_slot(ws, f"{stage}.chi2", seeds, dtype, branches),
        ndf=_by_slot(ws, f"{stage}.ndf", seeds, np.int32, branches),
        is_stopped=_by_slot(ws, f"{stage}.is_stopped", seeds, np.int32, branches),
    )


def make_waiting_branches(
    ws: Workspace, seeds: Extent, dtype: Any, branches: int, stage: str = "finding"
) -> WaitingBranches:
    """Return arrays for the state of `branches` branches of each seed, with names of their own for each `stage`."""
    return WaitingBranches(
        state=_by_slot(ws, f"{stage}.branch_state", seeds, dtype, branches, _N_STATE),
        links=_by_slot(ws, f"{stage}.branch_links", seeds, np.int32, branches, _N_LINKS),
        untried=_by_slot(ws, f"{stage}.branch_untried", seeds, np.int64, branches),
        chi2=_by_slot(ws, f"{stage}.branch_chi2", seeds, dtype, branches),
    )


@device_function(inlined=True)
def append_entry(p, slot, n_entries, code, path):
    """Write the next entry of a branch; return the number of entries."""
    p.out.code[slot, n_entries] = code
    p.out.path[slot, n_entries] = path
    return np.int32(n_entries + 1)


@device_function(inlined=True)
def copy_entries(p, source, slot, n_entries):
    """Copy the first entries of a branch to another slot."""
    for k in range(n_entries):
        p.out.code[slot, k] = p.out.code[source, k]
        p.out.path[slot, k] = p.out.path[source, k]


@device_function(inlined=True)
def save_branch(p, slot, surface, branch):
    """Store a branch that has just left a surface or, below 0, passive layer, to follow it later."""
    state, position = p.waiting.state, branch.track.position
    links, gaps, counters = p.waiting.links, branch.navigation.gaps, branch.counters
    store_parameters(state, slot, _PARAMETERS, branch.track.params)
    store_covariance(state, slot, _COVARIANCE, branch.track.covariance)
    state[slot, _POSITION], state[slot, _POSITION + 1], state[slot, _POSITION + 2] = position
    p.waiting.chi2[slot] = branch.chi2
    p.waiting.untried[slot] = branch.navigation.untried
    links[slot, _SURFACE] = surface
    links[slot, _BIN_START] = branch.navigation.bin_start
    links[slot, _CYLINDER] = gaps.cylinder
    links[slot, _DISC] = gaps.disc
    links[slot, _PLANE] = gaps.plane
    links[slot, _ENTRIES] = counters.entries
    links[slot, _MEASUREMENTS] = counters.measurements
    links[slot, _HOLES] = counters.holes
    links[slot, _CONSECUTIVE_HOLES] = counters.consecutive_holes
    links[slot, _NDF] = counters.ndf
    links[slot, _LAST_LAYER] = counters.last_layer


@device_function(inlined=True)
def load_branch(p, slot):
    """Return a branch that was stored."""
    state, links, chi2 = p.waiting.state, p.waiting.links, p.waiting.chi2[slot]
    surface = links[slot, _SURFACE]
    x = load_parameters(state, slot, _PARAMETERS)
    c = load_covariance(state, slot, _COVARIANCE)
    navigation = Navigation(
        gaps=Gaps(cylinder=links[slot, _CYLINDER], disc=links[slot, _DISC], plane=links[slot, _PLANE]),
        bin_start=links[slot, _BIN_START],
        untried=p.waiting.untried[slot],
    )
    counters = Counters(
        entries=links[slot, _ENTRIES],
        measurements=links[slot, _MEASUREMENTS],
        holes=links[slot, _HOLES],
        consecutive_holes=links[slot, _CONSECUTIVE_HOLES],
        ndf=links[slot, _NDF],
        last_layer=links[slot, _LAST_LAYER],
    )
    if surface >= 0:
        track = on_surface(p.detector.surfaces, surface, x, c)
    else:
        position = Vector(state[slot, _POSITION], state[slot, _POSITION + 1], state[slot, _POSITION + 2])
        u, v = curvilinear_axes(direction_of(x.phi, x.theta))
        track = Track(position=position, params=x, covariance=c, u=u, v=v)
    return Branch(track=track, navigation=navigation, counters=counters, chi2=chi2, path=ZERO * chi2)


@device_function(inlined=True)
def store_outcome(p, slot, counters, chi2):
    """Write the outcome of a branch, as it was at its last measurement."""
    p.out.n_entries[slot] = counters.entries
    p.out.n_measurements[slot] = counters.measurements
    p.out.n_holes[slot] = counters.holes
    p.out.ndf[slot] = counters.ndf
    p.out.chi2[slot] = chi2
