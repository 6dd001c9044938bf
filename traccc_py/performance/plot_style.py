"""Style of plots, and points with errors versus a variable; only this file and `plots.py` name matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from traccc_py.errors import ConfigError

__all__ = [
    "COLOURS",
    "HEADROOM",
    "MARKERS",
    "draw_versus",
    "new_figure",
    "plot_style",
    "render",
    "require_plots",
    "with_unit",
]

COLOURS = ("#3f90da", "#bd1f01", "#ffa90e", "#832db6", "#94a4a2", "#a96b59")
MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE = {  # on top of mplhep's ROOT style, whose fonts are for posters
    "font.size": 15,
    "axes.titlesize": 11,
    "axes.labelsize": 16,
    "legend.fontsize": 13,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "lines.markersize": 5,
    "lines.linewidth": 1.4,
    "xtick.minor.visible": False,  # they take most of the drawing time
    "ytick.minor.visible": False,
    "figure.figsize": (8.0, 5.6),
}
_MAX_COLUMNS = 4  #: panels side by side
#: Variables with a logarithmic axis, and its lower end if the first bin begins at 0.
_LOWEST = {"pt": 0.1, "radius": 0.5}  # [GeV], [mm]
_SHIFT = 0.15  #: between the points of curves in one bin, in bin widths
HEADROOM = 0.3  #: part of the axis above the points, for the legend
_DPI = 120


def require_plots() -> None:
    """Check that the packages for plots are installed.

    Raises
    ------
    ConfigError
        If not.
    """
    missing = [name for name in ("matplotlib", "mplhep") if find_spec(name) is None]
    if missing:
        msg = f'drawing needs {" and ".join(missing)}; install with: pip install "traccc-py[plots]"'
        raise ConfigError(msg)


@contextmanager
def plot_style() -> Iterator[None]:
    """Use mplhep's style within the context only."""
    import matplotlib as mpl
    import mplhep

    with mpl.rc_context():
        mpl.rcParams.update({**mplhep.style.ROOT, **_STYLE})
        yield


def new_figure(n_panels: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure without the pyplot state, and its panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    n_rows = math.ceil(n_panels / _MAX_COLUMNS)
    n_columns = math.ceil(n_panels / n_rows)
    size = (5.0 * n_columns, 4.2 * n_rows) if n_panels > 1 else None
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06))
    FigureCanvasAgg(figure)
    panels = list(np.ravel(figure.subplots(n_rows, n_columns, squeeze=False)))
    for panel in panels[n_panels:]:
        panel.remove()
    return figure, panels[:n_panels]


def with_unit(label: str, unit: str) -> str:
    """Return the label of an axis."""
    return f"{label} [{unit}]" if unit else label


def render(figure: Any, suffix: str, dpi: int = _DPI) -> bytes:
    """Return a figure as a file of a format: png, pdf, svg."""
    buffer = io.BytesIO()
    if suffix == "png":
        figure.set_dpi(dpi)
        figure.canvas.print_png(buffer)  # the same result as savefig's, which draws the figure twice for its layout
    else:
        figure.savefig(buffer, format=suffix, dpi=dpi)
    return buffer.getvalue()


def _points(
    axes: Any, edges: np.ndarray, found: Mapping[str, Any], k: int, n: int, label: str, lowest: float
) -> np.ndarray:
    """Draw curve k of n with errors and bin widths, points shifted to avoid the others; return the bins used."""
    value, low, high = (np.asarray(found[name], np.float64) for name in ("value", "low", "high"))
    used = np.isfinite(value)
    left, right = edges[:-1][used], edges[1:][used]
    place = 0.5 + _SHIFT * (k - 0.5 * (n - 1))  # in the bin
    if axes.get_xscale() == "log":
        left = np.maximum(left, lowest)
        centre = left * (right / left) ** place
    else:
        centre = left + place * (right - left)
    errors = np.maximum(0.0, [value[used] - low[used], high[used] - value[used]])
    axes.errorbar(
        centre,
        value[used],
        xerr=[centre - left, right - centre],
        yerr=errors,
        fmt=MARKERS[k % len(MARKERS)],
        color=COLOURS[k % len(COLOURS)],
        markerfacecolor="white" if k % 2 else None,
        label=label,
        capsize=0,
        elinewidth=1.2,
    )
    return used


def draw_versus(axes: Any, variable: str, curves: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> bool:
    """Draw curves (edges and columns by label) versus a variable; return whether there was anything to draw."""
    if variable in _LOWEST:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    left, right = [], []
    for k, (label, (bins, found)) in enumerate(curves.items()):
        edges = np.asarray(bins, np.float64)
        used = _points(axes, edges, found, k, len(curves), label, _LOWEST.get(variable, -math.inf))
        if used.any():
            left.append(edges[:-1][used][0])
            right.append(edges[1:][used][-1])
    if not left:
        return False
    axes.set_xlim(max(min(left), _LOWEST.get(variable, -math.inf)), max(right))
    return True
