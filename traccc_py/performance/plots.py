"""Plots. The only file that draws; matplotlib and mplhep are imported when a function is called."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.csv_table import write_files
from traccc_py.errors import ConfigError
from traccc_py.performance.detector_views import detector_views

__all__ = ["draw_detector", "draw_histograms", "draw_performance", "require_plots"]

_SENSOR_COLOUR, _PASSIVE_COLOUR = "#1f77b4", "#999999"
_LINE_WIDTH = 0.6  #: [points]

_LABELS = {  # of fitted parameters, with unit
    "loc0": (r"$\mathrm{loc}_0$", "mm"),
    "loc1": (r"$\mathrm{loc}_1$", "mm"),
    "d0": ("$d_0$", "mm"),
    "z0": ("$z_0$", "mm"),
    "phi": (r"$\phi$", "rad"),
    "theta": (r"$\theta$", "rad"),
    "qop": ("$q/p$", "e/GeV"),
    "qop_t": (r"$q/p_\mathrm{T}$", "e/GeV"),
    "qop_z": ("$q/p_z$", "e/GeV"),
    "pt_relative": (r"$\sigma(p_\mathrm{T})\,/\,p_\mathrm{T}$", ""),
}
_VARIABLES = {"eta": (r"$\eta$", ""), "phi": (r"$\phi$", "rad"), "pt": (r"$p_\mathrm{T}$", "GeV")}
_DISTRIBUTIONS = {
    "n_measurements": "Measurements on the track",
    "n_holes": "Holes on the track",
    "purity": "Purity",
    "completeness": "Completeness",
    "chi2_per_ndf": r"$\chi^2\,/\,\mathrm{ndf}$",
}
#: Quantities versus a variable: label, whose variable, whether the upper limit is 1.
_RATES = {
    "efficiency": ("Efficiency", "Truth", True),
    "seed_efficiency": ("Seed efficiency", "Truth", True),
    "duplicates_per_found": ("Duplicates / found particles", "Truth", False),
    "duplicates_per_track": ("Duplicates / tracks", "Track", False),
    "fakes_per_particle": ("Fakes / selected particles", "Truth", False),
    "fakes_per_track": ("Fakes / tracks", "Track", False),
    "n_measurements": ("Mean number of measurements", "Track", False),
    "n_holes": ("Mean number of holes", "Track", False),
}
_PLACES = {"first_state": "first state", "perigee": "perigee"}
_PROFILES = (("residuals", "Resolution of", "resolution"), ("pulls", "Pull width of", "pull_width"))
_COLOURS = ("#3f90da", "#bd1f01", "#ffa90e", "#832db6", "#94a4a2", "#a96b59")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE = {  # on top of mplhep's ROOT style, whose fonts are made for posters
    "font.size": 15,
    "axes.titlesize": 11,
    "axes.labelsize": 16,
    "legend.fontsize": 13,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "lines.markersize": 5,
    "lines.linewidth": 1.4,
    "xtick.minor.visible": False,  # they take most of the time that drawing takes
    "ytick.minor.visible": False,
    "figure.figsize": (8.0, 5.6),
}
_N_COLUMNS = 4  #: panels side by side
_LOWEST_PT = 0.1  #: where a logarithmic axis begins if its first bin begins at 0 [GeV]
_SHIFT = 0.15  #: between the points of curves in one bin, in bin widths
_HEADROOM = 0.3  #: part of the axis above the points, for the legend
_BELOW_ZERO = 0.04  #: part of the axis below zero, so that points at zero are seen whole
_ROOM_FOR_ONE, _ROOM_FOR_MORE = 1.45, 1.75  #: the same for panels, whose legends have three lines an entry
_DPI = 120
_N_BINS = 60
_HIGHEST_QUANTILE = 0.99  #: larger values are gathered at the edge


def require_plots() -> None:
    """Check that the packages for plots are installed.

    Raises
    ------
    ConfigError
        If not.
    """
    missing = [name for name in ("matplotlib", "mplhep") if find_spec(name) is None]
    if missing:
        msg = f'--plots needs {" and ".join(missing)}; install with: pip install "traccc-py[plots]"'
        raise ConfigError(msg)


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


@contextmanager
def _style() -> Iterator[None]:
    """Use mplhep's style inside, and nothing of it outside."""
    import matplotlib as mpl
    import mplhep

    with mpl.rc_context():
        mpl.rcParams.update({**mplhep.style.ROOT, **_STYLE})
        yield


def _new_figure(n_panels: int = 1) -> tuple[Any, list[Any]]:
    """Return a figure without the pyplot state, and its panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    n_columns = min(n_panels, _N_COLUMNS)
    n_rows = math.ceil(n_panels / n_columns)
    size = (5.0 * n_columns, 4.2 * n_rows) if n_panels > 1 else None
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06))
    FigureCanvasAgg(figure)
    panels = list(np.ravel(figure.subplots(n_rows, n_columns, squeeze=False)))
    for panel in panels[n_panels:]:
        panel.remove()
    return figure, panels[:n_panels]


def _with_unit(label: str, unit: str) -> str:
    return f"{label} [{unit}]" if unit else label


def _cuts(cuts: Mapping[str, Any]) -> str:
    """Return what particles were selected by, in a line."""
    eta = rf", |$\eta$| < {cuts['max_eta']:g}" if math.isfinite(cuts["max_eta"]) else ""
    minimum = f", $\\geq$ {cuts['min_measurements']} measurements" if cuts["min_measurements"] else ""
    return f"$p_\\mathrm{{T}}$ > {cuts['min_pt']:g} GeV{eta}{minimum}"


def _add_caption(figure: Any, name: str, numbers: Mapping[str, Any]) -> None:
    """Say over a figure which tracks are in it."""
    definition = numbers["definition"]
    text = f"definition {definition['name']}, ratio {definition['matching_ratio']:g}"
    text += ", double matching" if definition["double_matching"] else ""
    place = next((title for key, title in _PLACES.items() if key in name), None)
    if name.startswith(tuple(rate for rate in _RATES if rate not in _DISTRIBUTIONS)):
        selection = next(iter(numbers["versus"]))
        text += f"; {selection}: {_cuts(numbers['selections'][selection])}"
    elif place is not None or name == "p_values":
        text = f"{'At the ' + place + ': m' if place else 'M'}atched tracks with a successful fit; {text}"
    else:
        text = "All tracks"
    figure.suptitle(text, x=0.01, ha="left", fontsize=11)


def _points(axes: Any, edges: np.ndarray, found: Mapping[str, Any], k: int, n: int, label: str) -> np.ndarray:
    """Draw curve k of n with errors and bin widths, its points beside those of the others; return the bins used."""
    value, low, high = (np.asarray(found[name], np.float64) for name in ("value", "low", "high"))
    used = np.isfinite(value)
    left, right = edges[:-1][used], edges[1:][used]
    place = 0.5 + _SHIFT * (k - 0.5 * (n - 1))  # in the bin
    if axes.get_xscale() == "log":
        left = np.maximum(left, _LOWEST_PT)
        centre = left * (right / left) ** place
    else:
        centre = left + place * (right - left)
    errors = np.maximum(0.0, [value[used] - low[used], high[used] - value[used]])
    axes.errorbar(
        centre,
        value[used],
        xerr=[centre - left, right - centre],
        yerr=errors,
        fmt=_MARKERS[k % len(_MARKERS)],
        color=_COLOURS[k % len(_COLOURS)],
        markerfacecolor="white" if k % 2 else None,
        label=label,
        capsize=0,
        elinewidth=1.2,
    )
    return used


def _versus(axes: Any, variable: str, curves: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> bool:
    """Draw curves (edges and columns by label) over a variable; return whether there was anything to draw."""
    if variable == "pt":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    left, right = [], []
    for k, (label, (bins, found)) in enumerate(curves.items()):
        edges = np.asarray(bins, np.float64)
        used = _points(axes, edges, found, k, len(curves), label)
        if used.any():
            left.append(edges[:-1][used][0])
            right.append(edges[1:][used][-1])
    if not left:
        return False
    low = max(min(left), _LOWEST_PT) if variable == "pt" else min(left)
    axes.set_xlim(low, max(right))
    return True


def _rate_figure(results: Mapping[str, Any], selection: str, name: str, variable: str) -> Any:
    """Return the figure of a rate versus a variable, or None if nothing is there."""
    curves = {}
    for label, numbers in results.items():
        table = numbers["versus"][selection][variable]
        if name in table:
            curves[label] = (table["edges"], table[name])
    if not curves:
        return None
    figure, (axes,) = _new_figure()
    if not _versus(axes, variable, curves):
        return None
    title, whose, is_efficiency = _RATES[name]
    _set_rate_limits(axes, curves, is_efficiency=is_efficiency)
    label, unit = _VARIABLES[variable]
    axes.set(xlabel=_with_unit(f"{whose} {label}", unit), ylabel=title)
    axes.legend(loc="upper right", ncols=min(len(curves), 2))
    return figure


def _set_rate_limits(axes: Any, curves: Mapping[str, Any], *, is_efficiency: bool) -> None:
    """Leave room for the legend above the points."""
    low = float(np.nanmin([np.nanmin(np.array(c["low"], float)) for _, c in curves.values()]))
    high = float(np.nanmax([np.nanmax(np.array(c["high"], float)) for _, c in curves.values()]))
    if is_efficiency:
        bottom = max(0.0, min(0.9, low) - 0.05)
        axes.axhline(1.0, color="grey", linestyle=":", linewidth=1.0)
        axes.set_ylim(bottom, 1.0 + _HEADROOM * (1.0 - bottom))
    else:
        axes.set_ylim(-_BELOW_ZERO * (high or 1.0), (high or 1.0) * (1.0 + _HEADROOM))


def _step(axes: Any, table: Mapping[str, Any], k: int, label: str) -> float:
    """Draw a histogram normalised to unit area with its errors; return its maximum."""
    import mplhep

    counts, edges = np.asarray(table["counts"], np.float64), np.asarray(table["edges"], np.float64)
    scale = 1.0 / max(table["n"], 1) / np.diff(edges)
    colour = _COLOURS[k % len(_COLOURS)]
    mplhep.histplot(
        counts * scale, edges, yerr=np.sqrt(counts) * scale, ax=axes, color=colour, label=label, histtype="step"
    )
    return float(((counts + np.sqrt(counts)) * scale).max(initial=0.0))


def _legend_room(found: Mapping[str, Any]) -> float:
    """Return how much higher than its histograms a panel is."""
    return _ROOM_FOR_ONE if len(found) == 1 else _ROOM_FOR_MORE


def _pull_panel(axes: Any, name: str, fits: Mapping[str, Mapping[str, Any]]) -> None:
    highest = 0.0
    for k, (label, fit) in enumerate(fits.items()):
        text = f"{label}\n$\\mu$ = {fit['mean']:.3f} $\\pm$ {fit['mean_error']:.3f}"
        text += f"\n$\\sigma$ = {fit['sigma']:.3f} $\\pm$ {fit['sigma_error']:.3f}"
        highest = max(highest, _step(axes, fit["histogram"], k, text))
        edges = fit["histogram"]["edges"]
        if math.isfinite(fit["sigma"]):
            x = np.linspace(edges[0], edges[-1], 400)
            norm = (1 - fit["outside"]) / (fit["sigma"] * math.sqrt(2 * math.pi))
            axes.plot(x, norm * np.exp(-0.5 * ((x - fit["mean"]) / fit["sigma"]) ** 2), color=_COLOURS[k], alpha=0.8)
        axes.set_xlim(edges[0], edges[-1])
    axes.set(
        xlabel=f"Pull of {_LABELS[name][0]}",
        ylabel="Tracks / unit pull",
        ylim=(0, highest * _legend_room(fits)),
    )
    axes.legend(loc="upper right", ncols=2 if len(fits) > 1 else 1, fontsize=10, columnspacing=0.8, handlelength=1.2)


def _residual_panel(axes: Any, name: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    highest = 0.0
    label, unit = _LABELS[name]
    for k, (source, residual) in enumerate(found.items()):
        text = f"{source}\nwidth {residual['width']:.3g} {unit}\nrms {residual['rms']:.3g} {unit}"
        highest = max(highest, _step(axes, residual["histogram"], k, text))
    axes.set(
        ylim=(0, highest * _legend_room(found)),
        xlabel=_with_unit(f"Residual of {label}", unit),
        ylabel="Density",
    )
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.legend(loc="upper right", ncols=2 if len(found) > 1 else 1, fontsize=10, columnspacing=0.8, handlelength=1.2)


def _of_all(results: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """Return the tables under `key` by name, then by label."""
    turned: dict[str, dict[str, Any]] = {}
    for label, numbers in results.items():
        for name, table in numbers.get(key, {}).items():
            turned.setdefault(name, {})[label] = table
    return turned


def _panel_figure(results: Mapping[str, Any], key: str, draw: Callable[..., None], skip: Sequence[str] = ()) -> Any:
    """Return a figure with one panel a parameter, or None if nothing is there."""
    tables = {name: found for name, found in _of_all(results, key).items() if name not in skip}
    if not tables:
        return None
    figure, panels = _new_figure(len(tables))
    for axes, (name, found) in zip(panels, tables.items(), strict=True):
        draw(axes, name, found)
    return figure


def _profile_figure(results: Mapping[str, Any], key: str, variable: str, title: str) -> Any:
    """Return a figure of a width versus a variable with one panel a parameter, or None if nothing is there."""
    tables = _of_all(results, key)
    if not tables:
        return None
    figure, panels = _new_figure(len(tables))
    for axes, (name, found) in zip(panels, tables.items(), strict=True):
        curves = {label: (t["versus"][variable]["edges"], t["versus"][variable]) for label, t in found.items()}
        if not _versus(axes, variable, curves):
            axes.text(0.5, 0.5, "fewer than 10 tracks in each bin", ha="center", transform=axes.transAxes)
            continue
        label, unit = _LABELS[name]
        x_label, x_unit = _VARIABLES[variable]
        what = label if name == "pt_relative" else f"{title} {label}"
        is_pull = key.endswith("pulls")
        axes.set(xlabel=_with_unit(f"Truth {x_label}", x_unit), ylabel=what if is_pull else _with_unit(what, unit))
        if is_pull:
            axes.axhline(1.0, color="grey", linestyle=":", linewidth=1.0)
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0.8), max(high, 1.2) + _HEADROOM * (max(high, 1.2) - min(low, 0.8)))
        else:
            axes.set_ylim(0.0, axes.get_ylim()[1] * (1.0 + _HEADROOM))
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.legend(loc="upper right", ncols=2 if len(found) > 1 else 1)
    return figure


def _distribution_figure(results: Mapping[str, Any], name: str) -> Any:
    found = {label: table for label, table in _of_all(results, "distributions").get(name, {}).items() if table["n"]}
    if not found:
        return None
    figure, (axes,) = _new_figure()
    highest = max(_step(axes, table, k, label) for k, (label, table) in enumerate(found.items()))
    used = np.flatnonzero(np.sum([table["counts"] for table in found.values()], axis=0))
    edges = next(iter(found.values()))["edges"]
    if len(used):
        axes.set_xlim(edges[max(used[0] - 1, 0)], edges[min(used[-1] + 2, len(edges) - 1)])
    axes.set(xlabel=_DISTRIBUTIONS[name], ylabel="Tracks, normalised", ylim=(0, highest * (1 + _HEADROOM)))
    axes.legend(loc="upper right")
    return figure


def _p_value_figure(results: Mapping[str, Any]) -> Any:
    found = {label: n["p_values"] for label, n in results.items() if n.get("p_values", {}).get("n")}
    if not found:
        return None
    figure, (axes,) = _new_figure()
    highest = 0.0
    for k, (label, table) in enumerate(found.items()):
        text = f"{label}: mean {table['mean']:.3f} $\\pm$ {table['mean_error']:.3f}"
        highest = max(highest, _step(axes, table, k, text))
    axes.axhline(1.0, color="grey", linestyle=":", linewidth=1.0)
    axes.set(xlim=(0, 1), ylim=(0, highest * (1 + _HEADROOM)), xlabel="p-value", ylabel="Tracks, normalised")
    axes.legend(loc="upper right")
    return figure


def _figures(results: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names and figures; figures of what is not there are None."""
    first = next(iter(results.values()))
    selection = next(iter(first["versus"]))
    per_track = first["definition"]["per_track"]
    left_out = ("duplicates_per_found", "fakes_per_particle") if per_track else ("duplicates_per_track",)
    for name in _RATES:
        if name not in left_out:
            for variable in _VARIABLES:
                yield f"{name}_{variable}", _rate_figure(results, selection, name, variable)
    for name in _DISTRIBUTIONS:
        yield f"distribution_{name}", _distribution_figure(results, name)
    yield "p_values", _p_value_figure(results)
    for place in _PLACES:
        yield f"pulls_{place}", _panel_figure(results, f"{place}_pulls", _pull_panel)
        yield f"residuals_{place}", _panel_figure(results, f"{place}_residuals", _residual_panel, ("pt_relative",))
        for variable in _VARIABLES:
            for key, what, name in _PROFILES:
                yield f"{name}_{place}_{variable}", _profile_figure(results, f"{place}_{key}", variable, what)


def draw_performance(results: Mapping[str, Any], directory: str | Path, suffix: str = "png") -> list[Path]:
    """Draw efficiency, duplicates, fakes, measurements, pulls, residuals, resolutions and p-values.

    Parameters
    ----------
    results : mapping of str to mapping
        Numbers of `PerformanceSummary.as_dict`, by label; several are drawn over each other.
    directory : str or Path
        Folder, made if needed.
    suffix : str, optional
        Format: png, pdf, svg.

    Returns
    -------
    list of Path
        Files. All appear or none.

    Raises
    ------
    ConfigError
        If matplotlib or mplhep is not installed (``pip install "traccc-py[plots]"``).
    """
    require_plots()
    contents = {}
    with _style():
        for name, figure in _figures(results):
            if figure is not None:
                _add_caption(figure, name, next(iter(results.values())))
                buffer = io.BytesIO()
                figure.savefig(buffer, format=suffix, dpi=_DPI)
                contents[Path(directory) / f"{name}.{suffix}"] = buffer.getvalue()
    write_files(contents)
    return list(contents)


def draw_histograms(panels: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draw one histogram per entry to a file.

    Parameters
    ----------
    panels : mapping of str to ndarray
        Values by label; those that are not finite are left out, and the rare largest ones are gathered at the edge.
    path : str or Path
        Image file; its suffix chooses the format.

    Raises
    ------
    ConfigError
        If matplotlib or mplhep is not installed.
    """
    require_plots()
    with _style():
        figure, axes_of_panels = _new_figure(len(panels))
        for axes, (label, values) in zip(axes_of_panels, panels.items(), strict=True):
            finite = values[np.isfinite(values)]
            low, high = np.quantile(finite, [0, _HIGHEST_QUANTILE]) if len(finite) else (0.0, 1.0)
            edges = np.linspace(low, high if high > low else low + 1.0, _N_BINS + 1)
            counts, _ = np.histogram(np.minimum(finite, high), edges)
            axes.stairs(counts, edges, color=_COLOURS[0])
            axes.set(xlabel=label, ylabel="Entries", title=f"{len(finite)} entries")
        buffer = io.BytesIO()
        figure.savefig(buffer, format=Path(path).suffix.lstrip("."), dpi=_DPI)
    write_files({Path(path): buffer.getvalue()})
