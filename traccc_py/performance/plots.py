"""Figures. The only file that draws; matplotlib is imported when a function is called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.performance.detector_views import detector_views
from traccc_py.performance.pulls import Pulls, fit_gaussian, summarise_p_values

__all__ = ["draw_detector", "draw_efficiency", "draw_histograms", "draw_p_values", "draw_pulls", "draw_residuals"]

_SENSOR_COLOUR, _PASSIVE_COLOUR = "#1f77b4", "#999999"
_LINE_WIDTH = 0.6  #: [points]

_LABELS = {
    "loc0": ("loc$_0$", "mm"),
    "loc1": ("loc$_1$", "mm"),
    "d0": ("$d_0$", "mm"),
    "z0": ("$z_0$", "mm"),
    "phi": (r"$\phi$", "rad"),
    "theta": (r"$\theta$", "rad"),
    "qop": ("$q/p$", "e/GeV"),
}
_PULL_RANGE = 5.0
_N_BINS = 60
_RESIDUAL_QUANTILE = 0.99  # the part of the residuals that a histogram shows
_ONE_SIGMA = 1.0


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


def _new_figure(n_panels: int) -> tuple[Any, list[Any]]:
    """Return a figure without the pyplot state, and its panels in one row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * n_panels, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, n_panels)))


def draw_pulls(pulls: Pulls, names: tuple[str, ...], path: str | Path) -> None:
    """Draw the pulls of the five parameters with the Gaussian fitted to their core.

    Parameters
    ----------
    pulls : Pulls
        Pulls.
    names : tuple of str
        Parameters: `pulls.FIRST_STATE_NAMES` or `pulls.PERIGEE_NAMES`.
    path : str or Path
        Image file; its suffix chooses the format.
    """
    figure, panels = _new_figure(len(names))
    x = np.linspace(-_PULL_RANGE, _PULL_RANGE, 400)
    width = 2 * _PULL_RANGE / _N_BINS
    for k, (axes, name) in enumerate(zip(panels, names, strict=True)):
        values = pulls.pull[:, k]
        fit = fit_gaussian(values)
        axes.hist(values, bins=_N_BINS, range=(-_PULL_RANGE, _PULL_RANGE), histtype="step")
        if math.isfinite(fit.sigma):
            norm = fit.n * (1 - fit.outside) * width / (fit.sigma * math.sqrt(2 * math.pi))
            axes.plot(x, norm * np.exp(-0.5 * ((x - fit.mean) / fit.sigma) ** 2))
        title = f"mean {fit.mean:.3f}, $\\sigma$ {fit.sigma:.3f}, rms {fit.rms:.3f}"
        axes.set(xlabel=f"pull of {_LABELS[name][0]}", ylabel="tracks", title=title)
    figure.savefig(Path(path), dpi=120)


def draw_residuals(pulls: Pulls, names: tuple[str, ...], path: str | Path) -> None:
    """Draw the residuals of the five parameters; arguments as for `draw_pulls`."""
    figure, panels = _new_figure(len(names))
    for k, (axes, name) in enumerate(zip(panels, names, strict=True)):
        values = pulls.residual[:, k]
        limit = float(np.quantile(np.abs(values), _RESIDUAL_QUANTILE)) if len(values) else 1.0
        axes.hist(values, bins=_N_BINS, range=(-limit, limit), histtype="step")
        label, unit = _LABELS[name]
        axes.set(xlabel=f"residual of {label} [{unit}]", ylabel="tracks")
    figure.savefig(Path(path), dpi=120)


def draw_p_values(pval: np.ndarray, path: str | Path) -> None:
    """Draw the histogram of the tracks' p-values, (n,), to an image file."""
    figure, (axes,) = _new_figure(1)
    summary = summarise_p_values(pval)
    axes.stairs(summary["counts"], summary["edges"])
    axes.set(xlabel="p-value", ylabel="tracks", title=f"mean {summary['mean']:.3f}", ylim=(0, None))
    figure.savefig(Path(path), dpi=120)


def draw_histograms(panels: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draw one histogram per entry.

    Parameters
    ----------
    panels : mapping of str to ndarray
        Values by label; those that are not finite are left out, and the rare largest ones are gathered at the edge.
    path : str or Path
        Image file; its suffix chooses the format.
    """
    figure, axes_of_panels = _new_figure(len(panels))
    for axes, (label, values) in zip(axes_of_panels, panels.items(), strict=True):
        finite = values[np.isfinite(values)]
        low, high = np.quantile(finite, [0, _RESIDUAL_QUANTILE]) if len(finite) else (0.0, 1.0)
        axes.hist(np.minimum(finite, high), bins=_N_BINS, range=(low, high if high > low else low + 1), histtype="step")
        axes.set(xlabel=label, ylabel="entries", title=f"{len(finite)} entries")
    figure.savefig(Path(path), dpi=120)


def draw_efficiency(
    variable: np.ndarray, is_found: np.ndarray, edges: np.ndarray, label: str, path: str | Path
) -> None:
    """Draw an efficiency with Wilson's intervals of one sigma.

    Parameters
    ----------
    variable : ndarray of shape (n,)
        Eta or pT of the selected particles.
    is_found : ndarray of shape (n,), bool
        Whether each was found.
    edges : ndarray of shape (n_bins + 1,)
        Bins.
    label : str
        Axis label with unit.
    path : str or Path
        Image file; its suffix chooses the format.
    """
    total = np.histogram(variable, edges)[0].astype(np.float64)
    found = np.histogram(variable[is_found], edges)[0]
    used = total > 0
    total, found = total[used], found[used]
    efficiency, z2 = found / total, _ONE_SIGMA**2
    centre = (efficiency + z2 / (2 * total)) / (1 + z2 / total)
    half = np.sqrt(z2 * efficiency * (1 - efficiency) / total + z2**2 / (4 * total**2)) / (1 + z2 / total)
    middle, width = 0.5 * (edges[1:] + edges[:-1])[used], 0.5 * np.diff(edges)[used]
    errors = np.maximum(0.0, [efficiency - (centre - half), centre + half - efficiency])
    figure, (axes,) = _new_figure(1)
    axes.errorbar(middle, efficiency, xerr=width, yerr=errors, fmt=".", capsize=0)
    axes.set(xlabel=label, ylabel="efficiency", ylim=(min(0.9, float(efficiency.min(initial=1.0)) - 0.05), 1.02))
    figure.savefig(Path(path), dpi=120)
