"""Which settings a search varies, and between which values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from traccc_py.config import ChainConfig
from traccc_py.errors import ConfigError
from traccc_py.settings import Range, settings_of

__all__ = ["SPACE", "Parameter", "Suggester", "parse_parameter", "suggest"]


class Parameter(NamedTuple):
    """A setting that is varied."""

    key: str  # section.setting
    low: float
    high: float
    is_log: bool = False
    is_integer: bool = False


class Suggester(Protocol):
    """What gives values: a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a number."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return an integer."""


#: The settings that matter for most detectors (docs/odd_configuration.md has what each changes in one): gates of track
#: finding, the price of a hole, the smallest error of pixels, and cuts of seeds on the beam line and on scattering.
SPACE = (
    Parameter("clusterization.pixel_sigma_floor", 0.0005, 0.01, is_log=True),
    Parameter("seeding.impact_max", 1.0, 10.0, is_log=True),
    Parameter("seeding.sigma_scattering", 1.5, 6.0),
    Parameter("seeding.sigma_measurement", 1.5, 6.0),
    Parameter("finding.chi2_max", 10.0, 50.0, is_log=True),
    Parameter("finding.retry_chi2_max", 10.0, 60.0, is_log=True),
    Parameter("finding.measurements_per_hole", 0, 3, is_integer=True),
)


def parse_parameter(text: str) -> Parameter:
    """Return what KEY=LOW:HIGH says.

    Raises
    ------
    ConfigError
        If there is no such setting, it is no number, or it may not have these values.
    """
    key, _, bounds = text.partition("=")
    section, _, name = key.partition(".")
    part: Any = getattr(ChainConfig(), section, None)
    settings = () if part is None else settings_of(type(part))  # type: ignore[arg-type]
    setting = next((s for s in settings if s.name == name), None)
    if setting is None:
        msg = f"--vary {text}: there is no setting {key!r}; 'traccc-py config' prints all"
        raise ConfigError(msg)
    try:
        low, high = (float(number) for number in bounds.split(":"))
    except ValueError as error:
        msg = f"--vary {text}: expected KEY=LOW:HIGH with two numbers, as finding.chi2_max=10:40"
        raise ConfigError(msg) from error
    is_integer = setting.kind is int
    values: list[Any] = [int(low), int(high)] if is_integer else [low, high]
    if setting.kind not in (int, float) or values != [low, high] or not low < high:
        msg = f"--vary {text}: expected two different {'integers' if is_integer else 'numbers'}, the smaller one first"
        raise ConfigError(msg)
    for value in values:
        if not setting.accepts(value):
            msg = f"--vary {text}: {key} can't be {value:g}; expected {setting.expected}"
            raise ConfigError(msg)
    positive = isinstance(setting.allowed, Range) and low > 0
    return Parameter(key, low, high, is_log=positive and not is_integer, is_integer=is_integer)


def suggest(trial: Suggester, space: Sequence[Parameter]) -> dict[str, float | int]:
    """Return the values of a trial by setting."""
    found: dict[str, float | int] = {}
    for p in space:
        if p.is_integer:
            found[p.key] = trial.suggest_int(p.key, int(p.low), int(p.high))
        else:
            value = trial.suggest_float(p.key, p.low, p.high, log=p.is_log)
            found[p.key] = float(f"{value:.4g}")
    return found
