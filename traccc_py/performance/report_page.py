"""The performance as one self-contained HTML page: tables, plots, definitions, versions, settings."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from traccc_py.performance.plots import render_performance
from traccc_py.performance.rows import Table, fit_table, mean_p_values, percent, total_table, with_interval

__all__ = ["performance_page"]

_TEMPLATE = Path(__file__).with_name("report.html")
_TITLE = "Track reconstruction performance"
_DPI = 85
_WIDE = ("pileup", "pulls_*", "residuals_*", "resolution_*", "pull_width_*")  # figures of several panels


class _Section(NamedTuple):
    """A section of the page: plots whose names match one of the patterns, in the order of the patterns."""

    key: str
    title: str
    text: str
    figures: tuple[str, ...]


_SECTIONS = (
    _Section(
        "pileup",
        "Versus pile-up",
        "Totals of each sample over its mean number of pile-up collisions. Efficiencies have Wilson's intervals of one "
        "sigma.",
        ("pileup",),
    ),
    _Section(
        "efficiency",
        "Efficiency",
        "Selected particles with at least one matched track, of all selected particles. A track is matched to the "
        "particle with most of its measurements, if purity and completeness reach the matching ratio. In the plot over "
        "the production radius, the distance of the particle's vertex from the beam line, the cut in it is lifted; the "
        "seeding gives up particles that miss the beam line by more than seeding.impact_max.",
        ("efficiency_*",),
    ),
    _Section(
        "seeding",
        "Seeding and finding, separately",
        "Seed efficiency: selected particles with a matched seed, two of whose three measurements are theirs. Finding "
        "efficiency: of the particles with a matched seed, those with a matched track at the end of the chain. Their "
        "product is the efficiency, but for particles that are found from a seed of another one.",
        ("seed_efficiency_*", "finding_efficiency_*"),
    ),
    _Section(
        "fakes",
        "Fakes",
        "Tracks with truth that match no particle: a minority of the measurements, or less than the matching ratio of "
        "the particle's measurements, belongs to one particle. Per track, in bins of the fitted parameters; per "
        "selected particle, in bins of the particles whose measurements are on them.",
        ("fakes_per_track_*", "fakes_per_particle_*"),
    ),
    _Section(
        "duplicates",
        "Duplicates",
        "Further tracks that match a particle which has a better one: more measurements, then smaller chi2.",
        ("duplicates_*",),
    ),
    _Section(
        "tracks",
        "Tracks",
        "All tracks: measurements, holes (surfaces crossed without a measurement), purity (measurements of the major "
        "particle / measurements of the track), completeness (the same / measurements of the particle). p-values of "
        "matched tracks are flat where the variances are right and the fit has the particle's mass. By default that is "
        "the pion's: p-values of kaons and protons are lower.",
        ("distribution_*", "p_values", "n_measurements_*", "n_holes_*"),
    ),
    _Section(
        "resolutions",
        "Resolutions",
        "Fitted minus true parameters at the perigee, the point of the track nearest to the beam line, of matched "
        "tracks with a successful fit. The width is half the interval with the central 68.27 % of the residuals: sigma "
        "for a Gaussian, whatever the tails. That of pT is relative.",
        ("residuals_perigee", "resolution_perigee_eta", "resolution_perigee_pt"),
    ),
    _Section(
        "pulls",
        "Pulls",
        "Residuals divided by their fitted sigma, at the perigee: mean 0 and sigma 1 where covariances are right. Mean "
        "and sigma are those of a Gaussian fitted to |pull| &lt; 3; the rms in the tables is that of all.",
        ("pulls_perigee", "pull_width_perigee_eta", "pull_width_perigee_pt"),
    ),
    _Section(
        "first_state",
        "At the first state",
        "The same on the surface of the track's first measurement, against the particle's hit there, after the "
        "surface's material.",
        ("residuals_first_state", "pulls_first_state", "resolution_first_state_eta", "pull_width_first_state_eta"),
    ),
)
_COUNTS = {"fakes": "n_fakes", "duplicates": "n_duplicates"}  # sections without plots if this is 0 in all samples
_FITS = {"resolutions": "perigee", "first_state": "first_state"}  # sections with tables of the fits


def _html_table(table: Table, caption: str = "") -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cards(results: Mapping[str, Any]) -> str:
    """Return the key numbers of the last label, which has most pile-up."""
    label, numbers = list(results.items())[-1]
    selection = next(iter(numbers["versus"]))
    shown: list[tuple[str, str, str]] = []
    for key, name, what in (
        ("tracks", "efficiency", "efficiency"),
        ("seeds", "efficiency", "seed efficiency"),
        ("finding", "efficiency", "finding efficiency"),
        ("tracks", "fakes_per_group", "fakes / tracks"),
        ("tracks", "duplicates_per_group", "duplicates / tracks"),
    ):
        if key in numbers:
            shown.append((*_with_counts(numbers[key][selection], name), what))
    means = mean_p_values(numbers)
    shown += [(f"{found['mean']:.3f}", f"+- {found['mean_error']:.3f}", what) for what, found in means]
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><small>{escape(more)}</small><span>{escape(what)}</span></div>'
        for value, more, what in shown
    )
    return f'<p class="facts">{escape(label)}, {escape(selection)}:</p><div class="cards">{cards}</div>'


def _with_counts(counts: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return a rate in percent, and its interval or the numbers behind it."""
    if name == "efficiency":
        value, _, interval = with_interval(counts[name], counts["efficiency_low"], counts["efficiency_high"]).partition(
            " "
        )
        found = f"{counts['n_found']:,} of {counts['n_particles']:,}"
        return f"{value} %" if interval else value, f"{interval.removesuffix(' %')}; {found}" if interval else found
    of = {"fakes_per_group": "n_fakes", "duplicates_per_group": "n_duplicates"}[name]
    return percent(counts[name]), f"{counts[of]:,} of {counts['n_groups']:,}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "none" if not math.isfinite(value) else f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(v) for v in value) or "any"
    return str(value)


def _totals(results: Mapping[str, Any]) -> str:
    """Return the rates by sample and selection, and all totals in a collapsed section."""
    shown = {
        "efficiency": ("tracks", "efficiency"),
        "seed efficiency": ("seeds", "efficiency"),
        "finding efficiency": ("finding", "efficiency"),
        "fakes / tracks": ("tracks", "fakes_per_group"),
        "duplicates / tracks": ("tracks", "duplicates_per_group"),
    }
    rows = []
    for label, numbers in results.items():
        for name in numbers["versus"]:
            of_particles = numbers.get("tracks", numbers.get("seeds", {}))[name]["n_particles"]
            rates = [percent(numbers[key][name][rate]) if key in numbers else "-" for key, rate in shown.values()]
            rows.append((label, name, f"{of_particles:,}", *rates))
    table = _html_table(Table(("sample", "particles", "selected", *shown), rows))
    return f"{table}<details><summary>All totals</summary>{_html_table(total_table(results))}</details>"


def _definitions(results: Mapping[str, Any]) -> str:
    first = next(iter(results.values()))
    text = "".join(f"<li>{escape(sentence)}</li>" for sentence in first["definition"]["text"])
    cuts = list(next(iter(first["selections"].values())))
    rows = [(cut, *(_shown(chosen[cut]) for chosen in first["selections"].values())) for cut in cuts]
    table = _html_table(Table(("particles that count", *first["selections"]), rows), "lengths in mm, pT in GeV")
    return (
        f"<p>Definition <b>{escape(first['definition']['name'])}</b>. Plots show the first selection of particles.</p>"
        f"<ul>{text}</ul>{table}"
    )


def _samples(results: Mapping[str, Any]) -> str:
    """Return the table of sizes and times, if the events were reconstructed in this run."""
    known = {label: numbers["sizes"] for label, numbers in results.items() if "sizes" in numbers}
    if not known:
        return ""
    names = list(next(iter(known.values())))
    rows = [
        (label, str(results[label]["n_events"]), *(f"{sizes[name]:,.0f}" for name in names))
        for label, sizes in known.items()
    ]
    return _html_table(Table(("sample", "events", *names), rows), "means of an event; milliseconds of the wall clock")


def _figures(section: _Section, images: Mapping[str, bytes]) -> str:
    names = [name for pattern in section.figures for name in images if fnmatch(name, pattern)]
    parts = []
    for name in names:
        kind = ' class="wide"' if any(fnmatch(name, pattern) for pattern in _WIDE) else ""
        data = base64.b64encode(images[name]).decode("ascii")
        alt = escape(name.replace("_", " "))
        parts.append(f'<figure{kind} id="{name}"><img alt="{alt}" src="data:image/png;base64,{data}"></figure>')
    return f'<div class="plots">{"".join(parts)}</div>' if parts else ""


def _sections(results: Mapping[str, Any], images: Mapping[str, bytes]) -> list[tuple[str, str, str]]:
    """Return key, title and content of the sections that have plots."""
    found = []
    for section in _SECTIONS:
        plots = _figures(section, images)
        if not plots:
            continue
        key = _COUNTS.get(section.key)
        counts = [c[key] for numbers in results.values() for c in numbers.get("tracks", {}).values()] if key else []
        if counts and not any(counts):
            plots = "<p><b>There are none in these samples.</b></p>"
        tables = ""
        where = _FITS.get(section.key)
        for label, numbers in results.items() if where else ():
            if numbers.get(f"{where}_residuals"):
                tables += _html_table(fit_table(numbers, str(where)), label)
        found.append((section.key, section.title, f"<p>{section.text}</p>{tables}{plots}"))
    return found


def _provenance(versions: Mapping[str, str], sample: Mapping[str, Any]) -> str:
    table = _html_table(Table(("package", "version"), [(name, text) for name, text in versions.items()]))
    facts = escape(json.dumps(sample, indent=1, default=str))
    return f"{table}<details><summary>Samples, detector and settings</summary><pre>{facts}</pre></details>"


def _headline(sample: Mapping[str, Any]) -> str:
    detector = sample.get("detector_facts", {})
    words: Sequence[str] = [f"detector {sample['detector']}"]
    words = [*words, *(f"{name.replace('_', ' ')} {value}" for name, value in detector.items())]
    lines = [", ".join(words), *(str(sample[name]) for name in ("inputs", "date") if sample.get(name))]
    text = "<br>".join(map(escape, lines))
    command = f"<br><code>{escape(sample['command'])}</code>" if sample.get("command") else ""
    return f'<p class="facts">{text}{command}</p>'


def performance_page(results: Mapping[str, Any], versions: Mapping[str, str], sample: Mapping[str, Any]) -> str:
    """Return the page.

    Parameters
    ----------
    results : mapping of str to mapping
        Numbers of `PerformanceSummary.as_dict`, by label; `sizes` and `pileup` are shown if present.
    versions : mapping of str to str
        Versions of packages.
    sample : mapping
        Facts about the samples: `detector`, optionally `detector_facts`, `inputs`, `date`, `command` and others.

    Raises
    ------
    ConfigError
        If matplotlib or mplhep is not installed (``pip install "traccc-py[plots]"``).
    """
    parts = [
        ("summary", "Summary", _cards(results) + _totals(results) + _samples(results)),
        ("definitions", "Definitions", _definitions(results)),
        *_sections(results, render_performance(results, dpi=_DPI)),
        ("provenance", "Versions and settings", _provenance(versions, sample)),
    ]
    contents = "\n".join(f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in parts)
    body = f"<h1>{_TITLE}</h1>\n{_headline(sample)}\n"
    for key, title, content in parts:
        body += f'<section id="{key}"><h2>{escape(title)}</h2>{content}</section>\n'
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=_TITLE, contents=contents, body=body)
