"""Pictures of detectors and events in r-z and x-y; matplotlib is imported when a function is called."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.words import counted
from traccc_py.edm import EventResult
from traccc_py.files import write_files
from traccc_py.geometry.detector import Detector
from traccc_py.performance.detector_views import detector_views
from traccc_py.performance.scene import Limits, make_scene

__all__ = ["draw_detector", "draw_event"]

_SENSOR_COLOURS = ("#4f90b8", "#6aa365", "#b58a45", "#8d7fb3")  #: by kind
_PASSIVE_COLOUR = "#999999"
_PALE = 0.45  #: of sensors behind an event
_POSITIVE, _NEGATIVE, _POINTS = "#c0392b", "#1f5fa8", "#333333"
_LINE_WIDTH = 0.6  #: [points]
_ETAS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  #: whose lines are drawn
_DPI = 150
_AT_MOST = 400  #: tracks that can be told apart on paper


def _new_figure() -> tuple[Any, Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 7), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    left.set(xlabel="z [mm]", ylabel="r [mm]")
    right.set(xlabel="x [mm]", ylabel="y [mm]", aspect="equal")
    return figure, left, right


def _add_lines(axes: Any, segments: Any, colour: str, label: str | None = None, **style: Any) -> None:
    from matplotlib.collections import LineCollection

    options = {"colors": colour, "linewidths": _LINE_WIDTH, "label": label, **style}
    axes.add_collection(LineCollection(list(segments), **options))


def _add_sensors(left: Any, right: Any, parts: list[dict[str, Any]], **style: Any) -> None:
    """Draw sensors, each kind in a colour."""
    for k, part in enumerate(parts):
        colour = _SENSOR_COLOURS[k % len(_SENSOR_COLOURS)]
        for axes, name in ((left, "rz"), (right, "xy")):
            _add_lines(axes, np.array(part[name], np.float64).reshape(-1, 2, 2), colour, part["name"], **style)


def _add_etas(axes: Any, z_max: float, r_max: float) -> None:
    """Draw lines of constant eta from the origin to the edges of the picture."""
    for eta in _ETAS:
        slope = 1.0 / np.sinh(eta)  # r / z
        z = min(z_max, r_max / slope)
        for side in (-1, 1):
            axes.plot([0, side * z], [0, slope * z], color="#bbbbbb", linewidth=_LINE_WIDTH, linestyle=":", zorder=0)
        place = "right" if z == z_max else "center"
        axes.annotate(rf"$\eta$ = {eta:g}", (z, slope * z), color="#777777", fontsize="small", ha=place, va="bottom")


def _scale(left: Any, right: Any) -> None:
    for axes in (left, right):
        axes.autoscale()
    z_max, r_max = max(map(abs, left.get_xlim())), left.get_ylim()[1]
    _add_etas(left, z_max, r_max)
    left.set_xlim(-1.03 * z_max, 1.03 * z_max)
    left.set_ylim(0, 1.06 * r_max)


def draw_detector(detector: Detector, path: str | Path) -> None:
    """Draw the r-z and x-y views of a detector to a file: each kind of sensor in a colour, lines of constant eta.

    Parameters
    ----------
    detector : Detector
        What to draw.
    path : str or Path
        Image file; its suffix chooses the format.

    Raises
    ------
    ImportError
        If matplotlib is not installed (``pip install "traccc-py[plots]"``).
    """
    from matplotlib.patches import Circle

    from traccc_py.performance.scene import detector_parts

    views = detector_views(detector)
    figure, left, right = _new_figure()
    _add_sensors(left, right, detector_parts(detector))
    _add_lines(left, views.passive_rz, _PASSIVE_COLOUR, "passive material")
    for radius in views.passive_radii:
        right.add_patch(Circle((0, 0), radius, fill=False, color=_PASSIVE_COLOUR, linewidth=_LINE_WIDTH))
    left.set_title(f"{detector.name}: {counted(len(detector.geometry_ids), 'sensor')}")
    _scale(left, right)
    left.legend(loc="upper left", fontsize="small")
    figure.savefig(Path(path), dpi=_DPI)


def draw_event(
    result: EventResult,
    detector: Detector,
    path: str | Path | None = None,
    *,
    title: str | None = None,
    facts: Mapping[str, str] | None = None,
    dpi: int = _DPI,
) -> Any:
    """Draw the r-z and x-y views of an event: sensors, spacepoints, and tracks by their charge.

    Parameters
    ----------
    result : EventResult
        The event.
    detector : Detector
        Its detector.
    path : str or Path, optional
        Image file.
    title : str, optional
        Text over the views; by default the counts.
    facts : mapping of str to str, optional
        Texts that a PNG file keeps.
    dpi : int, optional
        Pixels per inch; the figure has 16 by 7 inches.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed (``pip install "traccc-py[plots]"``).
    """
    scene = make_scene(result, detector, limits=Limits(tracks=_AT_MOST))
    figure, left, right = _new_figure()
    _add_sensors(left, right, scene["detector"]["parts"], alpha=_PALE)
    points = np.array(scene["spacepoints"], np.float64).reshape(-1, 3)
    left.plot(points[:, 2], np.hypot(points[:, 0], points[:, 1]), ".", color=_POINTS, markersize=2)
    right.plot(points[:, 0], points[:, 1], ".", color=_POINTS, markersize=2, label="spacepoints")
    for sign, colour, label in ((1, _POSITIVE, "positive tracks"), (-1, _NEGATIVE, "negative tracks")):
        lines = [_path(track) for track in scene["tracks"] if (track["charge"] or 0) * sign > 0]
        rz = [np.column_stack([line[:, 2], np.hypot(line[:, 0], line[:, 1])]) for line in lines]
        _add_lines(left, rz, colour, label, linewidths=1.1)
        _add_lines(right, [line[:, :2] for line in lines], colour, label, linewidths=1.1)
    counts = scene["counts"]
    text = f"{detector.name}, {detector.b_field_z:g} T: {counted(counts['n_spacepoints'], 'spacepoint')}, "
    figure.suptitle("\n".join([title or text + counted(counts["n_tracks"], "track"), *scene["notes"]]))
    _scale(left, right)
    right.legend(loc="upper right", fontsize="small")
    if path is not None:
        buffer = io.BytesIO()
        kind = Path(path).suffix[1:]
        figure.savefig(buffer, format=kind, dpi=dpi, **({"metadata": dict(facts)} if facts and kind == "png" else {}))
        write_files({Path(path): buffer.getvalue()})
    return figure


def _path(track: dict[str, Any]) -> np.ndarray:
    start = [] if track["start"][0] is None else [track["start"]]
    return np.array([*start, *track["points"]], np.float64).reshape(-1, 3)
