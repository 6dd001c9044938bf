"""Figures of studies, as the papers on tracking as a service have them; only points that may be used are drawn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import ServiceError
from traccc_py.performance.plot_style import COLOURS, MARKERS, new_figure, plot_style, render
from traccc_py.studies.load import confounded

__all__ = ["draw_study", "usable_points"]

_Points = Sequence[Mapping[str, Any]]
_SPLIT = ("transfer_ms", "queue_ms", "input_ms", "compute_ms", "output_ms")
_ROOM = 1.35  #: above the curves, for the legend


class _Variable(NamedTuple):
    name: str
    label: str
    is_log: bool = False


_VARIABLES = {
    "instances": _Variable("instances", "Model instances"),
    "concurrency": _Variable("concurrency", "Requests on the way, or threads", is_log=True),
    "pileup": _Variable("mu", "Mean number of pile-up collisions"),
    "gpus": _Variable("servers", "GPUs, or cores"),
    "batch": _Variable("max_batch", "Largest batch [events]", is_log=True),
    "remote": _Variable("delay_ms", "Delay of a round trip [ms]"),
    "exatrkx": _Variable("concurrency", "Requests on the way, or threads", is_log=True),
    "region": _Variable("half_width", r"Half width of the region in $\eta$ and $\phi$"),
}


def usable_points(points: _Points) -> list[Mapping[str, Any]]:
    """Return the points without problems."""
    return [point for point in points if not point["problems"] and point.get("throughput") is not None]


def _curve_name(point: Mapping[str, Any]) -> str:
    is_second = point.get("generator") == "perf_analyzer"
    return str(point["curve"]) + (", perf_analyzer" if is_second else "")


def _curves(points: _Points) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        found.setdefault(_curve_name(point), []).append(point)
    return found


def _spread(points: _Points, x: str, y: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, and median, least and most of y over the repeats."""
    by_x: dict[float, list[float]] = {}
    for point in points:
        if point.get(y) is not None:
            by_x.setdefault(float(point[x]), []).append(float(point[y]))
    xs = sorted(by_x)
    rows = [(np.median(by_x[v]), min(by_x[v]), max(by_x[v])) for v in xs]
    middle, low, high = np.array(rows).reshape(-1, 3).T
    return np.array(xs), middle, low, high


def _draw(axes: Any, k: int, x: Any, middle: Any, low: Any, high: Any, label: str) -> None:
    errors = [middle - low, high - middle]
    style = {"marker": MARKERS[k % len(MARKERS)], "color": COLOURS[k % len(COLOURS)], "capsize": 2}
    axes.errorbar(x, middle, yerr=errors, label=label, linestyle="-", **style)


def _throughput(axes: Any, points: _Points, variable: _Variable, *, is_log: bool = False) -> None:
    """Draw rates of all curves; bars are least and most of the repeats."""
    for k, (name, chosen) in enumerate(_curves(points).items()):
        _draw(axes, k, *_spread(chosen, variable.name, "throughput"), name)
    axes.set(ylabel="Events per second")
    _set_x(axes, points, variable)
    if is_log:
        axes.set_yscale("log")
        _plain_numbers(axes)
        axes.set_ylim(None, 2 * axes.get_ylim()[1])
    else:
        axes.set_ylim(0, _ROOM * axes.get_ylim()[1])


def _set_x(axes: Any, points: _Points, variable: _Variable) -> None:
    """Label the axis of the variable."""
    axes.set(xlabel=variable.label)
    if variable.is_log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    elif variable.name in ("instances", "servers"):
        axes.set_xticks(sorted({point[variable.name] for point in points}))


def _plain_numbers(axes: Any) -> None:
    """Label a logarithmic axis with numbers, also between powers of ten."""
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")


def _ideal(axes: Any, points: _Points, x: str, curve: str) -> None:
    """Draw the line through the first point of a curve and zero."""
    xs, middle, _, _ = _spread([p for p in points if p["curve"] == curve], x, "throughput")
    if len(xs) > 1:
        axes.plot(xs, middle[0] * xs / xs[0], "--", color="0.4", label="ideal, of the first point", zorder=0)


def _use(axes: Any, points: _Points, x: str, n_cores: int) -> None:
    """Draw utilisation on an axis at the right."""
    right = axes.twinx()
    name, scale, label = "cpu_cores", 100 / n_cores, "CPU use of the service [%]"
    if any(point.get("gpu_percent") is not None for point in points):
        name, scale, label = "gpu_percent", 1.0, "GPU use [%]"
    chosen = [p for p in points if str(p["curve"]).startswith("service") and p.get("generator") == "asyncio"]
    xs, *rows = _spread(chosen, x, name)
    if len(xs):
        middle, low, high = (scale * row for row in rows)
        right.errorbar(xs, middle, yerr=[middle - low, high - middle], fmt="x:", color="0.5", capsize=2)
        axes.plot([], [], "x:", color="0.5", label="use, right axis")  # for the legend
    right.set(ylabel=label, ylim=(0, 105 * _ROOM))
    right.set_yticks([0, 25, 50, 75, 100])
    right.tick_params(labelright=True)


def _split(axes: Any, points: _Points, variable: _Variable) -> None:
    """Draw where the mean latency goes, stacked."""
    chosen = [point for point in points if point.get("queue_ms") is not None]
    first = next(iter(_curves(chosen)), None)
    chosen = [point for point in chosen if _curve_name(point) == first]
    xs = sorted({point[variable.name] for point in chosen})
    below = np.zeros(len(xs))
    for k, part in enumerate(_SPLIT):
        _, middle, _, _ = _spread(chosen, variable.name, part)
        axes.bar(range(len(xs)), middle, bottom=below, color=COLOURS[k], label=part.removesuffix("_ms"), width=0.7)
        below += middle
    axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set(xlabel=variable.label, ylabel="Mean latency [ms]", title=first or "")
    axes.set_ylim(0, _ROOM * max(axes.get_ylim()[1], 1e-3))


def _exchanged(axes: Any, points: _Points) -> None:
    """Draw how much a request moves between processes, stacked by step."""
    names = {str(p["curve"]): [n for n in p if n.endswith("_kb") and p[n] is not None] for p in points}
    names = {curve: found for curve, found in names.items() if found}
    colours = itertools.cycle(COLOURS)
    for place, (curve, found) in enumerate(names.items()):
        point = next(p for p in points if p["curve"] == curve and found[0] in p)
        below = 0.0
        for name in found:
            label = name.removesuffix("_kb")
            axes.bar(place, point[name], bottom=below, color=next(colours), label=label, width=0.7)
            below += point[name]
    axes.set_xticks(range(len(names)), list(names))
    axes.set(ylabel="Taken and given by models [kB per request]")
    axes.set_ylim(0, _ROOM * max(axes.get_ylim()[1], 1e-3))


def _percentiles(axes: Any, points: _Points, variable: _Variable) -> None:
    """Draw percentiles of the latency of the service."""
    chosen = [point for point in points if point.get("generator") == "asyncio"]
    for k, (name, found) in enumerate(_curves(chosen).items()):
        for column, line in (("p50_ms", "-"), ("p99_ms", "--")):
            xs, middle, _, _ = _spread(found, variable.name, column)
            style = {"marker": MARKERS[k % len(MARKERS)], "color": COLOURS[k % len(COLOURS)]}
            axes.plot(xs, middle, linestyle=line, label=f"{name}, {column[:3]}", **style)
    axes.set(ylabel="Latency [ms]", yscale="log")
    _set_x(axes, points, variable)
    _plain_numbers(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.5)


def _ratio(axes: Any, points: _Points, x: str, above: str, below: str) -> None:
    """Draw the ratio of two curves in each repeat: of their rates, and of events by processor time."""
    both = [{(p[x], p["repeat"]): p for p in points if _curve_name(p) == name} for name in (above, below)]
    places = [place for place in both[0] if place in both[1]]
    rows = []
    for place in places:
        one, other = both[0][place], both[1][place]
        row = {x: place[0], "rate": one["throughput"] / other["throughput"]}
        if one.get("cpu_ms") and other.get("cpu_ms"):
            row["processor time"] = other["cpu_ms"] / one["cpu_ms"]
        rows.append(row)
    for k, name in enumerate(("rate", "processor time")):
        if any(name in row for row in rows):
            _draw(axes, k, *_spread(rows, x, name), f"by {name}")
    axes.axhline(1, color="0.4", linestyle="--", zorder=0)
    axes.set(xlabel=_VARIABLES["pileup"].label, ylabel="Ratio", title=f"{above} / {below}")
    axes.set_ylim(0, _ROOM * max(1.0, axes.get_ylim()[1]))


def draw_study(kind: str, points: _Points, n_cores: int, suffix: str = "png") -> bytes:
    """Return the figure of a study.

    Parameters
    ----------
    kind : str
        Which study.
    points : sequence of mapping
        Its points; those with problems are left out.
    n_cores : int
        Cores that the service had [1].
    suffix : str, optional
        Format.

    Raises
    ------
    ServiceError
        If there is nothing to draw, or another condition changed together with the variable.
    """
    variable = _VARIABLES[kind]
    usable = usable_points(points)
    if not usable:
        msg = f"no point of the study can be used, so there is no figure: {points[0]['problems'] if points else 'none'}"
        raise ServiceError(msg)
    if variable.name != "concurrency":
        for chosen in _curves([p for p in usable if "concurrency" in p]).values():
            if problems := confounded(chosen, variable.name, ("concurrency",)):
                msg = f"no figure: {problems[0]}"
                raise ServiceError(msg)
    with plot_style():
        figure, panels = new_figure(3)
        figure.set_size_inches(17, 5.2)
        _throughput(panels[0], usable, variable, is_log=kind == "pileup")
        if kind == "pileup":
            _ratio(panels[1], usable, "mu", "service", "standalone, all cores")
            _ratio(panels[2], usable, "mu", "standalone, all cores", "standalone, one core")
        else:
            if kind in ("instances", "gpus"):
                _ideal(panels[0], usable, variable.name, "service" if kind == "instances" else "one server")
            if kind in ("instances", "concurrency"):
                _use(panels[0], usable, variable.name, n_cores)
            _percentiles(panels[1], usable, variable)
            if kind == "exatrkx":
                _exchanged(panels[2], usable)
            else:
                _split(panels[2], usable, variable)
        for panel in panels:
            if panel.get_legend_handles_labels()[1]:
                panel.legend(
                    fontsize=10, loc="upper right" if panel is panels[0] and kind == "pileup" else "upper left"
                )
        return render(figure, suffix)
