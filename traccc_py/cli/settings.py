"""The options that change settings: a file, single values, and traccc's names of the cuts."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import typer

from traccc_py.cli.options import Group, Option, naming_options, options_of
from traccc_py.config import ChainConfig, read_config
from traccc_py.errors import ConfigError

__all__ = ["SETTINGS", "TRACCC_CUTS", "ChosenSettings", "assigned", "load_config"]

_PARTICLES = {11: "electron", 13: "muon", 211: "pion"}  #: by PDG number without sign


class _Cut(NamedTuple):
    """An option of traccc: its name, the settings it stands for, and how its value reads."""

    name: str
    keys: tuple[str, ...]
    parse: Callable[[str], tuple[Any, ...]]


def _number(text: str) -> float | int:
    value = float(text)
    return int(value) if re.fullmatch(r"[+-]?\d+", text) else value


def _one(text: str) -> tuple[Any, ...]:
    return (_number(text),)


def _range(text: str) -> tuple[Any, ...]:
    low, high = (_number(part) for part in text.split(":"))
    return low, high


def _upper(text: str) -> tuple[Any, ...]:
    return _range(text)[1:]


def _particle(text: str) -> tuple[Any, ...]:
    return (_PARTICLES[abs(int(text))],)


_EXPECTED: dict[Callable[[str], tuple[Any, ...]], str] = {
    _one: "a number",
    _range: "MIN:MAX",
    _upper: "MIN:MAX",
    _particle: f"a PDG number out of {', '.join(map(str, _PARTICLES))} (or minus that)",
}

TRACCC_CUTS = (
    _Cut("seedfinder-z-range", ("seeding.z_min", "seeding.z_max"), _range),
    _Cut("seedfinder-r-range", ("seeding.r_max",), _upper),  # the minimum is used by neither
    _Cut("seedfinder-vertex-range", ("seeding.collision_region_min", "seeding.collision_region_max"), _range),
    _Cut("seedfinder-minPt", ("seeding.min_pt",), _one),
    _Cut("seedfinder-cotThetaMax", ("seeding.cot_theta_max",), _one),
    _Cut("seedfinder-deltaR-range", ("seeding.delta_r_min", "seeding.delta_r_max"), _range),
    _Cut("seedfinder-deltaZMax", ("seeding.delta_z_max",), _one),
    _Cut("seedfinder-impactMax", ("seeding.impact_max",), _one),
    _Cut("seedfinder-sigmaScattering", ("seeding.sigma_scattering",), _one),
    _Cut("seedfinder-maxPtScattering", ("seeding.max_pt_scattering",), _one),
    _Cut("seedfinder-maxSeedsPerSpM", ("seeding.max_seeds_per_middle",), _one),
    _Cut("seedfinder-bFieldInZ", ("seeding.b_field_z",), _one),
    _Cut("seedfinder-deltaInvHelixDiameter", ("seeding.delta_inverse_helix_diameter",), _one),
    _Cut("seedfinder-impactWeightFactor", ("seeding.impact_weight_factor",), _one),
    _Cut("seedfinder-compatSeedWeight", ("seeding.compatible_seed_weight",), _one),
    _Cut("seedfinder-compatSeedLimit", ("seeding.compatible_seed_limit",), _one),
    _Cut("max-num-branches-per-seed", ("finding.max_branches_per_seed",), _one),
    _Cut("max-num-branches-per-surface", ("finding.max_branches_per_surface",), _one),
    _Cut("track-candidates-range", ("finding.min_measurements", "finding.max_measurements"), _range),
    _Cut("chi2-max", ("finding.chi2_max",), _one),
    _Cut("max-num-skipping-per-cand", ("finding.max_holes",), _one),
    _Cut("max-num-consecutive-skipped", ("finding.max_consecutive_holes",), _one),
    _Cut("particle-hypothesis", ("finding.particle",), _particle),
    _Cut("finding-min-total-momentum", ("finding.min_p",), _one),
    _Cut("finding-min-transverse-momentum", ("finding.min_pt",), _one),
    _Cut("min-total-momentum", ("finding.min_p",), _one),  # the cuts of the finding hold for the fit too
    _Cut("min-transverse-momentum", ("finding.min_pt",), _one),
    _Cut("min-meas-per-track", ("ambiguity_resolution.min_measurements_per_track",), _one),
    _Cut("max-shared-meas", ("ambiguity_resolution.max_shared_measurements",), _one),
    _Cut("fit-particle-hypothesis", ("fitting.particle",), _particle),
    _Cut("fit-covariance-inflation-factor", ("fitting.backward_inflation",), _one),
)  #: hidden in the help; docs/from_traccc.md lists them


def load_config(source: Any, particle: str | None) -> ChainConfig:
    """Return the settings of a file or a name, or the default ones, with the particle hypothesis if one is given.

    Raises
    ------
    ConfigError
        If they can't be used.
    """
    config = read_config(source)
    with naming_options({"finding.particle": "--particle"}):
        return config if particle is None else config.with_particle(particle)


@dataclass(frozen=True, slots=True)
class ChosenSettings:
    """What the options for settings say."""

    source: str | None = None
    particle: str | None = None
    values: Mapping[str, tuple[str, Any]] = field(default_factory=dict)  # option and value by setting

    def load(self) -> ChainConfig:
        """Return the configuration: the file or the default settings, then --particle, then single values.

        Raises
        ------
        ConfigError
            If it can't be used; the message names the option.
        """
        config = load_config(self.source, self.particle)
        names = {key: f"{name}: {key}" for key, (name, _) in self.values.items()}
        names |= {key.partition(".")[0]: f"{name}: {key.partition('.')[0]}" for key, (name, _) in self.values.items()}
        with naming_options(names):
            return config.with_settings({key: value for key, (_, value) in self.values.items()})


def _assignment(text: str) -> tuple[str, Any]:
    """Return setting and value of ``section.key=value``; the value reads as in TOML, texts need no quotes."""
    key, is_there, value = (part.strip() for part in text.partition("="))
    if not is_there or key.count(".") != 1:
        msg = f"--set {text}: expected section.key=value, as in --set finding.chi2_max=20"
        raise ConfigError(msg)
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def assigned(texts: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Return the option and the value of each setting that ``section.key=value`` names.

    Raises
    ------
    ConfigError
        If a text is none, or a setting gets two values.
    """
    values: dict[str, tuple[str, Any]] = {}
    for text in texts:
        _put(values, "--set", *_assignment(text))
    return values


def _put(values: dict[str, tuple[str, Any]], name: str, key: str, value: Any) -> None:
    earlier = values.setdefault(key, (name, value))
    if earlier[1] != value:
        msg = f"{earlier[0]} and {name} give {key} two values: {earlier[1]} and {value}"
        raise ConfigError(msg)


def _cut_values(cut: _Cut, text: str) -> Iterator[tuple[str, Any]]:
    try:
        yield from zip(cut.keys, cut.parse(text), strict=True)
    except (ValueError, KeyError) as error:
        msg = f"--{cut.name} is {text!r}; expected {_EXPECTED[cut.parse]}"
        raise ConfigError(msg) from error


@dataclass(frozen=True, slots=True)
class _Given:
    #: TOML file with settings, or traccc: the default cuts of traccc. See 'traccc-py config'
    config: Annotated[str | None, Option(metavar="TOML")] = None
    particle: str | None = None  #: mass hypothesis of finding and fit: muon, pion or electron; by default pion
    finder: str | None = None  #: what starts tracks: seeds, or gnn, a graph neural network; by default seeds
    #: one setting, as finding.chi2_max=20; may be repeated
    assignments: Annotated[tuple[str, ...], Option("--set", metavar="KEY=VALUE")] = ()


_GIVEN = options_of(_Given)


def _key(cut: _Cut) -> str:
    return "cut_" + cut.name.replace("-", "_")


def _gather(
    *, config: str | None, particle: str | None, finder: str | None, assignments: list[str] | None, **cuts: str | None
) -> ChosenSettings:
    values: dict[str, tuple[str, Any]] = {}
    if finder is not None:
        _put(values, "--finder", "finder.method", finder)
    for cut in TRACCC_CUTS:
        text = cuts[_key(cut)]
        for key, value in () if text is None else _cut_values(cut, text):
            _put(values, f"--{cut.name}", key, value)
    for key, (name, value) in assigned(assignments or ()).items():
        _put(values, name, key, value)
    return ChosenSettings(config, particle, values)


def _cut_parameter(cut: _Cut) -> inspect.Parameter:
    info = Annotated[str | None, typer.Option(f"--{cut.name}", hidden=True)]
    return inspect.Parameter(_key(cut), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=info)


#: Gives a command a `ChosenSettings`.
SETTINGS = Group([*_GIVEN.parameters, *map(_cut_parameter, TRACCC_CUTS)], _gather, _GIVEN.names, {})
