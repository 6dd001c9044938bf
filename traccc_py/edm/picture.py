"""A quick look at an event: spacepoints and tracks in r-z and x-y. Needs matplotlib (extra ``plots``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from traccc_py.extras import optional_module

if TYPE_CHECKING:
    from traccc_py.edm.collections import EventResult

__all__ = ["plot_event"]

_AT_MOST = 400  #: tracks, those of highest pT, and as many hundred spacepoints
_POINTS_AT_MOST = 100 * _AT_MOST
_COLOURS = {1: "#c0392b", -1: "#1f5fa8"}  #: by charge, as in `draw_event`


def plot_event(result: EventResult, axes: Any = None) -> Any:
    """Draw spacepoints, and tracks through their states; parameters and return value as `EventResult.plot`."""
    if axes is None:
        pyplot = optional_module("matplotlib.pyplot", "plots", "result.plot")
        _, axes = pyplot.subplots(1, 2, figsize=(13, 5.5), layout="constrained", width_ratios=(1.5, 1))
    in_rz, in_xy = axes
    points = np.asarray(result.spacepoints.global_position, np.float64).reshape(-1, 3)
    every = -(-len(points) // _POINTS_AT_MOST) or 1
    x, y, z = points[::every].T
    style = {"color": "#999999", "markersize": 1.5, "zorder": 1}
    in_rz.plot(z, np.hypot(x, y), ".", **style)
    in_xy.plot(x, y, ".", **style)
    tracks = result.tracks
    chosen = np.sort(np.argsort(-np.nan_to_num(tracks.pt), kind="stable")[:_AT_MOST])
    for track in chosen:
        states = slice(*tracks.state_offsets[track : track + 2])
        x, y, z = np.asarray(result.track_states.global_position[states], np.float64).T
        line = {"color": _COLOURS[1 if tracks.charge[track] > 0 else -1], "linewidth": 0.8}
        in_rz.plot(z, np.hypot(x, y), **line)
        in_xy.plot(x, y, **line)
    in_rz.set(xlabel="z [mm]", ylabel="r [mm]", ylim=(0, None), title=_title(result, len(chosen), every))
    in_xy.set(xlabel="x [mm]", ylabel="y [mm]", aspect="equal", title="positive tracks red, negative blue")
    return axes


def _title(result: EventResult, n_shown: int, every: int) -> str:
    n = len(result.tracks)
    tracks = f"{n} tracks" if n_shown == n else f"the {n_shown} tracks of highest pT, of {n}"
    points = f"{len(result.spacepoints)} spacepoints" + ("" if every == 1 else f", one of {every} drawn")
    return f"{tracks}; {points}"
