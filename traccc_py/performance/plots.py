"""Performance plots; matplotlib and mplhep are imported when a function is called."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.words import counted
from traccc_py.files import write_files
from traccc_py.performance.plot_style import (
    COLOURS,
    HEADROOM,
    MARKERS,
    draw_versus,
    new_figure,
    plot_style,
    render,
    require_plots,
    with_unit,
)
from traccc_py.performance.statistics import wilson_interval

__all__ = ["draw_histograms", "draw_performance", "render_performance"]

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
_OF_PARTICLES = {"radius": ("production radius", "mm")}  #: variables that tracks don't have
_DISTRIBUTIONS = {
    "n_measurements": "Measurements on the track",
    "n_holes": "Holes on the track",
    "purity": "Purity",
    "completeness": "Completeness",
    "chi2_per_ndf": r"$\chi^2\,/\,\mathrm{ndf}$",
}
#: Quantities versus a variable: label, variable of particles or tracks, whether the upper limit is 1.
_RATES = {
    "efficiency": ("Efficiency", "Truth", True),
    "seed_efficiency": ("Seed efficiency", "Truth", True),
    "finding_efficiency": ("Finding efficiency", "Truth", True),
    "duplicates_per_found": ("Duplicates / found particles", "Truth", False),
    "duplicates_per_track": ("Duplicates / tracks", "Track", False),
    "fakes_per_particle": ("Fakes / selected particles", "Truth", False),
    "fakes_per_track": ("Fakes / tracks", "Track", False),
    "n_measurements": ("Mean number of measurements", "Track", False),
    "n_holes": ("Mean number of holes", "Track", False),
}
_VERSUS_PILEUP = (  # label, where it is, its name there, whether the upper limit is 1
    ("Efficiency", "tracks", "efficiency", True),
    ("Seed efficiency", "seeds", "efficiency", True),
    ("Finding efficiency", "finding", "efficiency", True),
    ("Fakes / tracks", "tracks", "fakes_per_group", False),
    ("Duplicates / tracks", "tracks", "duplicates_per_group", False),
    ("Wall clock of an event [ms]", "sizes", "milliseconds", False),
)
_PLACES = {"first_state": "first state", "perigee": "perigee"}
_PROFILES = (("residuals", "Resolution of", "resolution"), ("pulls", "Pull width of", "pull_width"))
_FEWEST_PARTICLES = 50  #: of a selection that is drawn versus pile-up
_SHIFT_OF_PILEUP = 2.0  #: between the points of selections
_BELOW_ZERO = 0.04  #: part of the axis below zero, so that points at zero are fully visible
_ROOM_FOR_ONE, _ROOM_FOR_MORE = 1.45, 1.75  #: the same for panels, whose legends have three lines an entry
_N_BINS = 60
_HIGHEST_QUANTILE = 0.99  #: larger values are put into the last bin


def _cuts(cuts: Mapping[str, Any]) -> str:
    """Return the selection of particles in one line."""
    eta = rf", |$\eta$| < {cuts['max_eta']:g}" if math.isfinite(cuts["max_eta"]) else ""
    minimum = f", $\\geq$ {cuts['min_measurements']} measurements" if cuts["min_measurements"] else ""
    return f"$p_\\mathrm{{T}}$ > {cuts['min_pt']:g} GeV{eta}{minimum}"


def _add_caption(figure: Any, name: str, numbers: Mapping[str, Any]) -> None:
    """Put a title over a figure that tells which tracks are in it."""
    definition = numbers["definition"]
    text = f"definition {definition['name']}, ratio {definition['matching_ratio']:g}"
    text += ", double matching" if definition["double_matching"] else ""
    place = next((title for key, title in _PLACES.items() if key in name), None)
    if name == "pileup":
        pass
    elif name.startswith(tuple(rate for rate in _RATES if rate not in _DISTRIBUTIONS)):
        selection = next(iter(numbers["versus"]))
        text += f"; {selection}: {_cuts(numbers['selections'][selection])}"
    elif place is not None or name == "p_values":
        text = f"{'At the ' + place + ': m' if place else 'M'}atched tracks with a successful fit; {text}"
    else:
        text = "All tracks"
    figure.suptitle(text, x=0.01, ha="left", fontsize=11)


def _rate_figure(results: Mapping[str, Any], selection: str, name: str, variable: str) -> Any:
    """Return the figure of a rate versus a variable, or None if there is nothing to draw."""
    curves = {}
    for label, numbers in results.items():
        table = numbers["versus"][selection][variable]
        if name in table:
            curves[label] = (table["edges"], table[name])
    used = {k for _, table in curves.values() for k, n in enumerate(table["total"]) if n}
    if len(used) < (2 if variable in _OF_PARTICLES else 1):  # all particles from the beam line make no curve
        return None
    figure, (axes,) = new_figure()
    if not draw_versus(axes, variable, curves):
        return None
    title, whose, is_efficiency = _RATES[name]
    _set_rate_limits(axes, curves, is_efficiency=is_efficiency)
    label, unit = {**_VARIABLES, **_OF_PARTICLES}[variable]
    axes.set(xlabel=with_unit(f"{whose} {label}", unit), ylabel=title)
    axes.legend(loc="upper right", ncols=min(len(curves), 2))
    return figure


def _set_rate_limits(axes: Any, curves: Mapping[str, Any], *, is_efficiency: bool) -> None:
    """Leave room for the legend above the points."""
    all_low, all_high = (
        np.concatenate([np.array(c[edge], float) for _, c in curves.values()]) for edge in ("low", "high")
    )
    low, high = float(np.nanmin(all_low)), float(np.nanmax(all_high))
    if is_efficiency:
        bottom = max(0.0, min(0.9, low) - 0.05)
        axes.axhline(1.0, color="grey", linestyle=":", linewidth=1.0)
        axes.set_ylim(bottom, 1.0 + HEADROOM * (1.0 - bottom))
    else:
        axes.set_ylim(-_BELOW_ZERO * (high or 1.0), (high or 1.0) * (1.0 + HEADROOM))


def _pileup_figure(results: Mapping[str, Any]) -> Any:
    """Return the figure of totals versus pile-up, or None if there are not two samples of different pile-up."""
    samples = sorted((n for n in results.values() if n.get("pileup") is not None), key=lambda n: n["pileup"])
    shown = [row for row in _VERSUS_PILEUP if all(row[1] in numbers for numbers in samples)]
    if len({numbers["pileup"] for numbers in samples}) < 2 or not shown:  # noqa: PLR2004 (two make a curve)
        return None
    figure, panels = new_figure(len(shown))
    selections = [
        name
        for k, name in enumerate(samples[0]["versus"])
        if k == 0 or all(_n_particles(numbers, name) >= _FEWEST_PARTICLES for numbers in samples)
    ]
    for axes, (title, source, name, is_efficiency) in zip(panels, shown, strict=True):
        # whether a track is a fake hardly depends on the selection of particles
        for k, selection in enumerate(selections if is_efficiency else selections[:1]):
            counts = [numbers[source].get(selection, numbers[source]) for numbers in samples]
            mu = np.array([numbers["pileup"] for numbers in samples], float) + k * _SHIFT_OF_PILEUP
            value, low, high = (np.array(column, float) for column in zip(*map(_interval(name), counts), strict=True))
            errors = np.maximum(0.0, [value - low, high - value])
            axes.errorbar(mu, value, yerr=errors, fmt=MARKERS[k], color=COLOURS[k], label=selection, elinewidth=1.2)
        bottom, top = axes.get_ylim()
        axes.set_ylim((bottom, 1 + HEADROOM * (1 - bottom)) if is_efficiency else (0, top))
        axes.set(xlabel=r"Pile-up $\mu$", ylabel=title)
        if is_efficiency:
            axes.legend(loc="lower left", fontsize=10)
    return figure


def _n_particles(numbers: Mapping[str, Any], selection: str) -> int:
    return int(numbers.get("tracks", numbers.get("seeds", {}))[selection]["n_particles"])


def _interval(name: str) -> Callable[[Mapping[str, Any]], tuple[float, float, float]]:
    """Return the function that calculates value, low and high of a rate from counts."""

    def make(counts: Mapping[str, Any]) -> tuple[float, float, float]:
        if name == "efficiency":
            return counts[name], counts["efficiency_low"], counts["efficiency_high"]
        if "n_groups" not in counts:
            return counts[name], counts[name], counts[name]
        n = counts["n_groups"]
        low, high = wilson_interval(np.array([round(counts[name] * n) if n else 0]), np.array([n]))
        return counts[name], float(low[0]), float(high[0])

    return make


def _step(axes: Any, table: Mapping[str, Any], k: int, label: str) -> float:
    """Draw a histogram normalised to unit area with its errors; return its maximum."""
    import mplhep

    counts, edges = np.asarray(table["counts"], np.float64), np.asarray(table["edges"], np.float64)
    scale = 1.0 / max(table["n"], 1) / np.diff(edges)
    colour = COLOURS[k % len(COLOURS)]
    mplhep.histplot(
        counts * scale, edges, yerr=np.sqrt(counts) * scale, ax=axes, color=colour, label=label, histtype="step"
    )
    return float(((counts + np.sqrt(counts)) * scale).max(initial=0.0))


def _legend_room(found: Mapping[str, Any]) -> float:
    """Return the height of a panel relative to its histograms."""
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
            axes.plot(x, norm * np.exp(-0.5 * ((x - fit["mean"]) / fit["sigma"]) ** 2), color=COLOURS[k], alpha=0.8)
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
        text = f"{source}\nwidth {residual['width']:.3g} {unit}"
        if math.isfinite(residual["rms"]):
            text += f"\nrms {residual['rms']:.3g} {unit}"
        highest = max(highest, _step(axes, residual["histogram"], k, text))
    axes.set(
        ylim=(0, highest * _legend_room(found)),
        xlabel=with_unit(f"Residual of {label}", unit),
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
    """Return a figure with one panel per parameter, or None if there is nothing to draw."""
    tables = {name: found for name, found in _of_all(results, key).items() if name not in skip}
    if not tables:
        return None
    figure, panels = new_figure(len(tables))
    for axes, (name, found) in zip(panels, tables.items(), strict=True):
        draw(axes, name, found)
    return figure


def _profile_figure(results: Mapping[str, Any], key: str, variable: str, title: str) -> Any:
    """Return a figure of a width versus a variable, one panel per parameter, or None if there is nothing to draw."""
    tables = _of_all(results, key)
    if not tables:
        return None
    figure, panels = new_figure(len(tables))
    for axes, (name, found) in zip(panels, tables.items(), strict=True):
        curves = {label: (t["versus"][variable]["edges"], t["versus"][variable]) for label, t in found.items()}
        if not draw_versus(axes, variable, curves):
            axes.text(0.5, 0.5, "fewer than 10 tracks in each bin", ha="center", transform=axes.transAxes)
            continue
        label, unit = _LABELS[name]
        x_label, x_unit = _VARIABLES[variable]
        what = label if name == "pt_relative" else f"{title} {label}"
        is_pull = key.endswith("pulls")
        axes.set(xlabel=with_unit(f"Truth {x_label}", x_unit), ylabel=what if is_pull else with_unit(what, unit))
        if is_pull:
            axes.axhline(1.0, color="grey", linestyle=":", linewidth=1.0)
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0.8), max(high, 1.2) + HEADROOM * (max(high, 1.2) - min(low, 0.8)))
        else:
            axes.set_ylim(0.0, axes.get_ylim()[1] * (1.0 + HEADROOM))
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.legend(loc="upper right", ncols=2 if len(found) > 1 else 1)
    return figure


def _distribution_figure(results: Mapping[str, Any], name: str) -> Any:
    found = {label: table for label, table in _of_all(results, "distributions").get(name, {}).items() if table["n"]}
    if not found:
        return None
    figure, (axes,) = new_figure()
    highest = max(_step(axes, table, k, label) for k, (label, table) in enumerate(found.items()))
    used = np.flatnonzero(np.sum([table["counts"] for table in found.values()], axis=0))
    edges = next(iter(found.values()))["edges"]
    if len(used):
        axes.set_xlim(edges[max(used[0] - 1, 0)], edges[min(used[-1] + 2, len(edges) - 1)])
    axes.set(xlabel=_DISTRIBUTIONS[name], ylabel="Tracks, normalised", ylim=(0, highest * (1 + HEADROOM)))
    axes.legend(loc="upper right")
    return figure


def _p_value_figure(results: Mapping[str, Any]) -> Any:
    found = {label: n["p_values"] for label, n in results.items() if n.get("p_values", {}).get("n")}
    if not found:
        return None
    figure, (axes,) = new_figure()
    highest = 0.0
    for k, (label, table) in enumerate(found.items()):
        text = f"{label}: mean {table['mean']:.3f} $\\pm$ {table['mean_error']:.3f}"
        highest = max(highest, _step(axes, table, k, text))
    axes.axhline(1.0, color="grey", linestyle=":", linewidth=1.0)
    axes.set(xlim=(0, 1), ylim=(0, highest * (1 + HEADROOM)), xlabel="p-value", ylabel="Tracks, normalised")
    axes.legend(loc="upper right")
    return figure


def _figures(results: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names and figures; None if there is nothing to draw."""
    first = next(iter(results.values()))
    selection = next(iter(first["versus"]))
    per_track = first["definition"]["per_track"]
    left_out = ("duplicates_per_found", "fakes_per_particle") if per_track else ("duplicates_per_track",)
    yield "pileup", _pileup_figure(results)
    for name in _RATES:
        if name not in left_out:
            for variable in (*_VARIABLES, *_OF_PARTICLES):
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


def render_performance(results: Mapping[str, Any], suffix: str = "png", **options: Any) -> dict[str, bytes]:
    """Return plots of efficiency, duplicates, fakes, measurements, pulls, residuals, resolutions and p-values.

    Parameters
    ----------
    results : mapping of str to mapping
        Numbers of `PerformanceSummary.as_dict`, by label; several are drawn over each other.
    suffix : str, optional
        Format: png, pdf, svg.
    **options
        Of `plot_style.render`.

    Returns
    -------
    dict of str to bytes
        Files by name, without suffix.

    Raises
    ------
    ConfigError
        If matplotlib or mplhep is not installed (``pip install "traccc-py[plots]"``).
    """
    require_plots()
    contents = {}
    with plot_style():
        for name, figure in _figures(results):
            if figure is not None:
                _add_caption(figure, name, next(iter(results.values())))
                contents[name] = render(figure, suffix, **options)
    return contents


def draw_performance(results: Mapping[str, Any], directory: str | Path, suffix: str = "png") -> list[Path]:
    """Write the plots of `render_performance` to a folder, which is made if needed, all or none."""
    contents = render_performance(results, suffix)
    files = {Path(directory) / f"{name}.{suffix}": content for name, content in contents.items()}
    write_files(files)
    return list(files)


def draw_histograms(panels: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Draw one histogram per entry to a file.

    Parameters
    ----------
    panels : mapping of str to ndarray
        Values by label; those that are not finite are left out, and the rare largest ones are put into the last bin.
    path : str or Path
        Image file; its suffix chooses the format.

    Raises
    ------
    ConfigError
        If matplotlib or mplhep is not installed.
    """
    require_plots()
    with plot_style():
        figure, axes_of_panels = new_figure(len(panels))
        for axes, (label, values) in zip(axes_of_panels, panels.items(), strict=True):
            finite = values[np.isfinite(values)]
            low, high = np.quantile(finite, [0, _HIGHEST_QUANTILE]) if len(finite) else (0.0, 1.0)
            edges = np.linspace(low, high if high > low else low + 1.0, _N_BINS + 1)
            counts, _ = np.histogram(np.minimum(finite, high), edges)
            axes.stairs(counts, edges, color=COLOURS[0])
            axes.set(xlabel=label, ylabel="Entries", title=counted(len(finite), "entry", "entries"))
        content = render(figure, Path(path).suffix.lstrip("."))
    write_files({Path(path): content})
