"""Rows of the tables in the terminal and on the report page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["FIT_COLUMNS", "Table", "fit_table", "mean_p_values", "percent", "total_table", "with_interval"]

_PERCENT = 100.0
#: Columns of `fit_table`.
FIT_COLUMNS = ("parameter", "tracks", "pull mean", "pull sigma", "pull rms", "resolution", "residual rms")


#: Units of the resolutions of parameters.
_UNITS = {
    **dict.fromkeys(("loc0", "loc1", "d0", "z0"), "mm"),
    **dict.fromkeys(("phi", "theta"), "rad"),
    **dict.fromkeys(("qop", "qop_t", "qop_z"), "e/GeV"),
}


class Table(NamedTuple):
    """Texts of a table; the first column has the names of the rows."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def percent(fraction: float | None) -> str:
    """Return a fraction in percent; "-" if there is none."""
    return "-" if fraction is None or not math.isfinite(fraction) else f"{_PERCENT * fraction:.2f} %"


def with_interval(value: float, low: float, high: float) -> str:
    """Return a fraction in percent with the ends of its interval; "-" if there is none."""
    if not math.isfinite(value):
        return "-"
    up, down = _PERCENT * (high - value), _PERCENT * (value - low)
    return f"{_PERCENT * value:.2f} +{up:.2f} -{down:.2f} %"


def _with_error(value: float | None, error: float | None, digits: str, error_digits: str) -> str:
    if value is None or error is None or not math.isfinite(value):
        return "-"
    return f"{value:{digits}} +- {error:{error_digits}}"


def _efficiency(counts: Mapping[str, Any]) -> str:
    return with_interval(counts["efficiency"], counts["efficiency_low"], counts["efficiency_high"])


#: Rows of the totals: heading, source, function.
_TOTALS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("selected particles", "tracks", lambda c: str(c["n_particles"])),
    ("found particles", "tracks", lambda c: str(c["n_found"])),
    ("tracks", "tracks", lambda c: str(c["n_groups"])),
    ("efficiency", "tracks", _efficiency),
    ("duplicates / found particles", "tracks", lambda c: percent(c["duplicate_rate"])),
    ("fakes / selected particles", "tracks", lambda c: percent(c["fake_rate"])),
    ("duplicates / tracks", "tracks", lambda c: percent(c["duplicates_per_group"])),
    ("fakes / tracks", "tracks", lambda c: percent(c["fakes_per_group"])),
    ("seeds", "seeds", lambda c: str(c["n_groups"])),
    ("seed efficiency", "seeds", _efficiency),
    ("seed duplicates / found particles", "seeds", lambda c: percent(c["duplicate_rate"])),
    ("seed fakes / selected particles", "seeds", lambda c: percent(c["fake_rate"])),
    ("seed fakes / seeds", "seeds", lambda c: percent(c["fakes_per_group"])),
    ("finding efficiency, of particles with a seed", "finding", _efficiency),
)


def total_table(results: Mapping[str, Any]) -> Table:
    """Return the totals, one column for each label and selection.

    Parameters
    ----------
    results : mapping of str to mapping
        Numbers of `PerformanceSummary.as_dict`, by label.
    """
    columns = [(label, name) for label, numbers in results.items() for name in numbers["versus"]]
    is_one = len(results) == 1
    rows: list[tuple[str, ...]] = []
    for heading, source, show in _TOTALS:
        cells = [show(results[label][source][name]) if source in results[label] else "-" for label, name in columns]
        if set(cells) != {"-"} or heading == "efficiency":
            rows.append((heading, *cells))
    outcomes = [results[label].get("fit_outcomes", {}) for label, _ in columns]
    fits = [sum(n for name, n in found.items() if name != "UNKNOWN") for found in outcomes]
    shares = [o.get("SUCCESS", 0) / n if n else math.nan for o, n in zip(outcomes, fits, strict=True)]
    rows.append(("successful fits", *(percent(share) for share in shares)))
    return Table(("", *(name if is_one else f"{label}: {name}" for label, name in columns)), rows)


def fit_table(numbers: Mapping[str, Any], where: str) -> Table:
    """Return pulls and resolutions of each parameter at a place: first_state or perigee."""
    pulls, residuals = numbers[f"{where}_pulls"], numbers[f"{where}_residuals"]
    rows: list[tuple[str, ...]] = []
    for name, residual in residuals.items():
        pull = pulls.get(name, {})
        rows.append(
            (
                f"{name} [{_UNITS[name]}]" if name in _UNITS else name,
                str(residual["n"]),
                _with_error(pull.get("mean"), pull.get("mean_error"), "+.3f", ".3f"),
                _with_error(pull.get("sigma"), pull.get("sigma_error"), ".3f", ".3f"),
                f"{pull['rms']:.3f}" if pull else "-",
                _with_error(residual["width"], residual["width_error"], ".3g", ".1g"),
                f"{residual['rms']:.3g}" if math.isfinite(residual["rms"]) else "-",
            )
        )
    return Table(FIT_COLUMNS, rows)


def mean_p_values(numbers: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return names and summaries of the mean p-values: of all matched tracks, and of pions if there are others.

    Heavier particles are fitted with the pion mass, so their scattering and energy loss are underestimated.
    """
    of_all, of_pions = numbers.get("p_values", {}), numbers.get("p_values_of_pions", {})
    found = [("mean p-value", of_all)] if of_all.get("n") else []
    if 0 < of_pions.get("n", 0) < of_all.get("n", 0):
        found.append(("mean p-value of pions", of_pions))
    return found
