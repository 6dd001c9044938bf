"""Which findings of the checks are meant to be, and what is compared of results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.ptx.checks import Problem

__all__ = ["lists_of_measurements", "unwanted"]

#: Races that change nothing, by kernel: kinds, as in `tests.ptx.checks.KINDS`, and why they do no harm.
WANTED = {
    # Links of the union-find only ever go to smaller cells of the cluster, whoever writes them; what is read too early
    # is followed further.
    "clusterization_label_cells": (
        *("race: read after write", "race: write after read"),
        *("race: write after write", "race: same value written"),
    ),
    # Decisions are final; who sees one early decides earlier.
    "seeding_thinning_decide_seeds": ("race: read after write", "race: write after read"),
    "seeding_thinning_settle_event": ("race: read after write", "race: write after read"),
    # A flag, and a zero before counting.
    "seeding_chains_mark_used": ("race: same value written",),
    "finding_retry_mark_used": ("race: same value written",),
    "finding_retry_mark_points": ("race: same value written",),
    "ambiguity_resolution_resolve_event": ("race: same value written",),
    # Several edges of a node flag it; the end of a list is the start of the next one.
    "gnn_networks_filter_edges": ("race: same value written",),
    "gnn_segmentation_fill_lists": ("race: same value written",),
}


def unwanted(problems: Iterable[Problem]) -> list[Problem]:
    """Return what was found but for races that are meant to be."""
    return [problem for problem in problems if problem.kind not in WANTED.get(problem.kernel, ())]


def lists_of_measurements(result: Any) -> list[tuple[int, ...]]:
    """Return the measurements of each track, in order."""
    states, offsets = result.track_states.measurement_index.tolist(), result.tracks.state_offsets.tolist()
    return [tuple(states[offsets[k] : offsets[k + 1]]) for k in range(len(result.tracks))]
