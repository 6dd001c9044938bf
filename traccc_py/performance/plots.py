"""Figures. The only file that draws; matplotlib is imported when a function is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from traccc_py.performance.detector_views import detector_views

__all__ = ["draw_detector"]

_SENSOR_COLOUR, _PASSIVE_COLOUR = "#1f77b4", "#999999"
_LINE_WIDTH = 0.6  #: [points]


def draw_detector(detector: Any, path: str | Path) -> None:
    """Draw the r-z and x-y views of a detector to a file.

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    views = detector_views(detector)
    figure = Figure(figsize=(16, 7), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    for axes, segments in ((left, views.sensors_rz), (right, views.sensors_xy)):
        axes.add_collection(
            LineCollection(list(segments), colors=_SENSOR_COLOUR, linewidths=_LINE_WIDTH, label="sensors")
        )
    passive = LineCollection(
        list(views.passive_rz), colors=_PASSIVE_COLOUR, linewidths=_LINE_WIDTH, label="passive material"
    )
    left.add_collection(passive)
    for radius in views.passive_radii:
        right.add_patch(Circle((0, 0), radius, fill=False, color=_PASSIVE_COLOUR, linewidth=_LINE_WIDTH))
    left.set(xlabel="z [mm]", ylabel="r [mm]", title=f"{detector.name}: {len(detector.geometry_ids)} sensors")
    right.set(xlabel="x [mm]", ylabel="y [mm]", aspect="equal")
    left.autoscale()
    right.autoscale()
    left.legend(loc="upper right", fontsize="small")
    figure.savefig(Path(path), dpi=150)
