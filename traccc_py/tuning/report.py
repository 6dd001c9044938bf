"""What a search leaves: settings as TOML, trials as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from traccc_py.tuning.search import Search, Trial

__all__ = ["settings_toml", "trial_table"]


def settings_toml(search: Search) -> str:
    """Return the settings that were found, or those the search began with, as TOML; what was varied says so."""
    best = search.best
    reasons = {} if best is None else dict.fromkeys(best.values, f"tuned, trial {best.number}")
    return search.settings.to_toml(reasons)


def trial_table(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Return trials as columns, NaN where settings contradicted each other."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.efficiency))
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    nan = float("nan")
    columns = {
        "trial": np.array([trial.number for trial in trials], np.int64),
        "loss": np.array([trial.loss for trial in trials]),
        "milliseconds": np.array([trial.milliseconds for trial in trials]),
        "p_value": np.array([trial.p_value for trial in trials]),
    }
    for kind in ("efficiency", "fakes", "duplicates"):
        for name in names:
            columns[f"{kind}_{name}"] = np.array([getattr(trial, kind).get(name, nan) for trial in trials])
    return columns | {key: np.array([trial.values.get(key, nan) for trial in trials], np.float64) for key in keys}
