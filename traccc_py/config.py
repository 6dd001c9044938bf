"""Configuration: one frozen dataclass per stage, grouped in `ChainConfig`, read from and written to TOML.

Physics only. Lengths in mm, momenta in GeV, angles in rad. Defaults are those of traccc v1.6.0 unless the field says
otherwise; `docs/adr` gives the reasons. Types and ranges are part of the annotations and are checked
whenever a configuration is made.

A stage that can be left out has a switch, `enabled`. A cut or an assumption that can be left out is None without it,
``"off"`` in TOML and in ``--set``: no number stands for "none".
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

from traccc_py.errors import ConfigError

__all__ = [
    "PRESETS",
    "AmbiguityResolutionConfig",
    "ChainConfig",
    "ClusterizationConfig",
    "FindingConfig",
    "FittingConfig",
    "ParameterEstimationConfig",
    "SeedThinningConfig",
    "SeedingConfig",
    "read_config",
]


_PRESET_FOLDER = Path(__file__).resolve().parent / "presets"
PRESETS = {name: _PRESET_FOLDER / f"{name}.toml" for name in ("toy", "traccc")}  #: sets of settings by name
_OFF = "off"
_MOVED = {"seeding.thinning": "seed_thinning.enabled", "seeding.min_agreeing_seeds": "seed_thinning.min_agreeing_seeds"}


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers allowed: at least `low` (above it, if `is_open`), and less than `below`."""

    low: float = -math.inf
    is_open: bool = False
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        is_allowed = value > self.low if self.is_open else value >= self.low
        return math.isfinite(value) and is_allowed and value < self.below

    def __str__(self) -> str:
        if self.low == -math.inf:
            return ""
        below = "" if self.below == math.inf else f" and < {self.below:g}"
        return f" {'>' if self.is_open else '>='} {self.low:g}{below}"


@dataclass(frozen=True, slots=True)
class _Choice:
    """Texts allowed."""

    names: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return "one of " + ", ".join(f'"{name}"' for name in self.names)


Number = Annotated[float, _Range()]
Positive = Annotated[float, _Range(0, is_open=True)]
NonNegative = Annotated[float, _Range(0)]
NonNegativeOrOff = Annotated[float | None, _Range(0)]
AboveOne = Annotated[float, _Range(1, is_open=True)]
TeslaOrOff = Annotated[float | None, _Range(0, is_open=True, below=20)]  # as of detectors
Count = Annotated[int, _Range(0)]
PositiveCount = Annotated[int, _Range(1)]
Switch = Annotated[bool, "true or false"]
Particle = Annotated[str, _Choice(("pion", "muon", "electron"))]
Variance = Annotated[str, _Choice(("calibrated", "traccc"))]


class _Values(NamedTuple):
    """What a field may be."""

    kind: type
    allowed: Any
    can_be_off: bool

    def __str__(self) -> str:
        names = {int: f"an integer{self.allowed}", float: f"a finite number{self.allowed}"}
        return names.get(self.kind, str(self.allowed)) + (f' or "{_OFF}"' if self.can_be_off else "")

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.can_be_off
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.kind is str:
            return isinstance(value, str) and value in self.allowed
        return isinstance(value, Integral if self.kind is int else Real) and value in self.allowed

    def read(self, value: Any) -> Any:
        """Return a value of a file or an option as the field has it."""
        if self.can_be_off and value == _OFF:
            return None
        return float(value) if self.kind is float and type(value) is int else value


@cache
def _annotations(section: type) -> dict[str, _Values]:
    """Return what each field of a section may be."""
    hints = get_type_hints(section, include_extras=True)

    def values(name: str) -> _Values:
        kind, allowed = get_args(hints[name])[:2]
        kinds = get_args(kind) or (kind,)
        return _Values(kinds[0], allowed, NoneType in kinds)

    return {f.name: values(f.name) for f in dataclasses.fields(section)}


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, (str, bool)) else str(value)


class _Section:
    """Base of the configurations of stages: checks all fields on creation."""

    __slots__ = ()

    @classmethod
    def section_name(cls) -> str:
        """Return the name of the section in the TOML file."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__.removesuffix("Config")).lower()

    def __post_init__(self) -> None:
        for name, values in _annotations(type(self)).items():  # type: ignore[arg-type]
            if getattr(self, name) not in values:
                self._reject(name, str(values))
        self._check_together()

    def _check_together(self) -> None:
        """Check conditions on several fields."""

    def _reject(self, name: str, expected: str) -> None:
        msg = f"{self.section_name()}.{name} is {_shown(getattr(self, name))}; expected {expected}"
        raise ConfigError(msg)

    def _require_below(self, low: str, high: str) -> None:
        if not getattr(self, low) < getattr(self, high):
            self._reject(low, f"less than {high}, which is {getattr(self, high)}")


@dataclass(frozen=True, slots=True)
class ClusterizationConfig(_Section):
    """Clusters and measurements."""

    variance: Variance = "calibrated"  #: "calibrated" (table of the detector) or "traccc" (pitch^2/12 + spread)
    pixel_sigma_floor: NonNegative = 0.005  #: smallest sigma of pixels (2D, not digital) with the calibrated table [mm]


@dataclass(frozen=True, slots=True)
class SeedingConfig(_Section):
    """Triplet seeding. Cuts are for the ODD; docs/odd_configuration.md says which differ from traccc."""

    z_min: Number = -2000.0  #: spacepoints are used from this z ... [mm]
    z_max: Number = 2000.0  #: ... to this z [mm]
    r_max: Positive = 200.0  #: spacepoints are used below this radius [mm]
    collision_region_min: Number = -250.0  #: z of a doublet's line at the beam line, from ... [mm]
    collision_region_max: Number = 250.0  #: ... to [mm]
    min_pt: Positive = 0.4  #: smallest pT [GeV]
    cot_theta_max: Positive = 27.2845  #: largest |cot(theta)| of a doublet
    delta_r_min: NonNegative = 8.0  #: radial distance of a doublet, from ... [mm]
    delta_r_max: Positive = 150.0  #: ... to [mm]
    delta_z_max: Positive = 500.0  #: largest z distance of a doublet [mm]
    cluster_size_tolerance: NonNegativeOrOff = 2.0  #: channels a cluster may differ from what a doublet's slope says
    impact_max: Positive = 3.0  #: largest transverse impact parameter [mm]
    sigma_scattering: NonNegative = 3.0  #: polar scattering tolerated, in standard deviations
    max_pt_scattering: Positive = 5.0  #: above this pT the scattering of this pT is assumed [GeV]
    max_seeds_per_middle: PositiveCount = 5  #: seeds kept of those with one middle spacepoint
    b_field_z: TeslaOrOff = None  #: field assumed by the cuts [T]; off: that of the detector at the origin
    rad_length_per_seed: NonNegative = 0.03  #: material assumed, in radiation lengths
    delta_inverse_helix_diameter: NonNegative = 0.00003  #: curvature agreement of compatible seeds [1/mm]
    impact_weight_factor: NonNegative = 1.0  #: weight lost per mm of impact parameter
    compatible_seed_weight: NonNegative = 200.0  #: weight won by a compatible seed
    filter_delta_r_min: NonNegative = 5.0  #: smallest radial distance of the tops of compatible seeds [mm]
    compatible_seed_limit: Count = 2  #: compatible seeds that are counted
    good_bottom_min_radius: NonNegative = 150.0  #: a bottom farther out than this is good [mm]
    good_bottom_weight_increase: NonNegative = 400.0  #: weight won by a good bottom
    good_bottom_min_weight: NonNegative = 380.0  #: smallest weight with a good bottom
    good_top_max_radius: NonNegative = 150.0  #: a top farther in than this is good [mm]
    good_top_weight_increase: NonNegative = 200.0  #: weight won by a good top
    seed_min_weight: NonNegative = 199.0  #: smallest weight of all seeds of a middle but the best
    bottom_min_radius: NonNegative = 43.0  #: seeds whose bottom is farther out pass without weight [mm]

    def _check_together(self) -> None:
        self._require_below("z_min", "z_max")
        self._require_below("collision_region_min", "collision_region_max")
        self._require_below("delta_r_min", "delta_r_max")


@dataclass(frozen=True, slots=True)
class SeedThinningConfig(_Section):
    """Choice of the seeds to follow first, so that few follow the same particle. Not in traccc.

    Tolerances are for the ODD: seeds of the same particle (0.5 to 100 GeV, 10 um, 1.5 % of a radiation length a layer)
    that share a spacepoint differ by less in 99.9 % of the cases. Scattering grows like 1/pT, as the curvature does.
    """

    enabled: Switch = True  #: without it all seeds are followed first
    min_agreeing_seeds: Count = 1  #: with fewer seeds that agree, a seed is followed after the others only
    curvature_tolerance: NonNegative = 0.00015  #: seeds agree if their curvatures differ by less than this [1/mm] ...
    curvature_scattering: NonNegative = 0.12  #: ... plus this times the larger curvature ...
    phi_tolerance: NonNegative = 0.02  #: ... their phi at the beam line by less than this [rad] ...
    phi_scattering: NonNegative = 16.0  #: ... plus this times the curvature [mm] ...
    theta_tolerance: NonNegative = 0.001  #: ... and their theta by less than this [rad] ...
    theta_scattering: NonNegative = 8.0  #: ... plus this times the curvature [mm]
    kink_tolerance: NonNegative = 0.0015  #: a seed is straight if dz per arc length changes by less than this ...
    kink_scattering: NonNegative = 9.0  #: ... plus this times curvature / sin^2(theta) [mm]
    ring_width: Positive = 20.0  #: of two seeds that agree the one with its bottom in the inner ring is kept [mm]


@dataclass(frozen=True, slots=True)
class ParameterEstimationConfig(_Section):
    """Track parameters of seeds. traccc has constants in the place of the last three settings."""

    sigma_loc0: Positive = 1.0  #: [mm]
    sigma_loc1: Positive = 1.0  #: [mm]
    inflation: Positive = 2.0  #: the deviations of phi, theta and q/p that follow from points and scattering times this
    sigma_scattering: NonNegative = 0.001  #: of phi and theta by the material between the points, at 1 GeV [rad GeV]
    sigma_pt_scattering: NonNegative = 0.08  #: of pT, relative, by the same material


@dataclass(frozen=True, slots=True)
class FindingConfig(_Section):
    """Combinatorial Kalman filter. Cuts are for the ODD; docs/odd_configuration.md says which differ from traccc."""

    max_branches_per_seed: PositiveCount = 10  #: branches followed at a time
    max_branches_per_surface: PositiveCount = 1  #: best measurements followed on one surface
    min_measurements: PositiveCount = 5  #: of a candidate, from ...
    max_measurements: PositiveCount = 40  #: ... to
    measurements_per_hole: Count = 2  #: further measurements needed for each hole, and for holes that ended the track
    max_surfaces: PositiveCount = 96  #: following stops after this many surfaces, passive ones and holes included
    max_holes: Count = 3  #: of a candidate
    max_consecutive_holes: Count = 1  #: of a candidate
    chi2_max: Positive = 25.0  #: largest chi2 of a measurement against the prediction
    retry_chi2_max: Positive = 30.0  #: the same in the second pass, over seeds that are on no track
    retry_measurements_before_hole: Count = 5  #: in the second pass, measurements that come before the first hole
    min_p: NonNegative = 0.1  #: smallest momentum [GeV]
    min_pt: NonNegative = 0.3  #: smallest pT [GeV]
    mask_sigma: NonNegative = 3.0  #: a surface is tried this many sigma outside its edge ...
    mask_tolerance: NonNegative = 0.1  #: ... and this far [mm] ...
    mask_max: NonNegative = 3.0  #: ... but at most this far in all [mm]
    particle: Particle = "pion"  #: mass hypothesis: "pion", "muon" or "electron"

    def _check_together(self) -> None:
        if self.min_measurements > self.max_measurements:
            self._reject("min_measurements", f"at most max_measurements, which is {self.max_measurements}")


@dataclass(frozen=True, slots=True)
class AmbiguityResolutionConfig(_Section):
    """Greedy removal of tracks that share measurements."""

    enabled: Switch = True  #: without it all candidates are fitted
    min_measurements_per_track: PositiveCount = 3  #: shorter candidates are dropped
    max_shared_measurements: PositiveCount = 3  #: tracks that share at least this many may be removed


@dataclass(frozen=True, slots=True)
class FittingConfig(_Section):
    """Kalman fit and smoother."""

    particle: Particle = "pion"  #: mass hypothesis: "pion", "muon" or "electron"
    seed_inflation: AboveOne = 10.0  #: the forward filter starts with the seed's variances of direction times this
    backward_inflation: AboveOne = 100.0  #: the backward filter starts with the last variances times this


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """All stages."""

    clusterization: ClusterizationConfig = field(default_factory=ClusterizationConfig)
    seeding: SeedingConfig = field(default_factory=SeedingConfig)
    seed_thinning: SeedThinningConfig = field(default_factory=SeedThinningConfig)
    parameter_estimation: ParameterEstimationConfig = field(default_factory=ParameterEstimationConfig)
    finding: FindingConfig = field(default_factory=FindingConfig)
    ambiguity_resolution: AmbiguityResolutionConfig = field(default_factory=AmbiguityResolutionConfig)
    fitting: FittingConfig = field(default_factory=FittingConfig)

    @classmethod
    def from_toml(cls, path: Path | str) -> ChainConfig:
        """Read a configuration; values that are not in the file have their defaults.

        Parameters
        ----------
        path : path
            TOML file with a section per stage, as `to_toml` writes it.

        Raises
        ------
        ConfigError
            If the file can't be read, or a section, key, type or value is not allowed; the message names it.
        """
        try:
            data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            msg = f"{path}: can't be read ({error.strerror})"
            raise ConfigError(msg) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            msg = f"{path}: is not valid TOML: {error}"
            raise ConfigError(msg) from error
        try:
            return cls.from_dict(data)
        except ConfigError as error:
            msg = f"{path}: {error}"
            raise ConfigError(msg) from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChainConfig:
        """Make a configuration from nested dictionaries; missing values have their defaults.

        Raises
        ------
        ConfigError
            If a section, key, type or value is not allowed; the message names it.

        Examples
        --------
        >>> ChainConfig.from_dict({"finding": {"chi2_max": 20}}).finding.chi2_max
        20.0
        """
        sections = {f.name: f.default_factory for f in dataclasses.fields(cls)}
        made = {}
        for name, values in data.items():
            if name not in sections:
                _reject_unknown("section", name, sections)
            if not isinstance(values, Mapping):
                msg = f"{name} is {_shown(values)}; expected a section [{name}]"
                raise ConfigError(msg)
            made[name] = _make_section(sections[name], values)
        return cls(**made)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the configuration as nested dictionaries."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Return the configuration as TOML, each key with a comment.

        Examples
        --------
        >>> print(ChainConfig().to_toml().splitlines()[1])
        [clusterization]
        """
        lines = []
        for entry in dataclasses.fields(self):
            section: Any = getattr(self, entry.name)
            kind: Any = type(section)
            comments = _comments(kind)
            lines += [f"# {(kind.__doc__ or '').splitlines()[0].replace('`', '')}", f"[{entry.name}]"]
            for key, value in dataclasses.asdict(section).items():
                comment = f"  # {comments[key]}" if key in comments else ""
                lines.append(f"{key} = {_toml_value(value)}{comment}")
            lines.append("")
        return "\n".join(lines)

    def with_settings(self, settings: Mapping[str, Any]) -> ChainConfig:
        """Return this configuration with some values replaced.

        Parameters
        ----------
        settings : mapping of str to value
            By section and key, as in ``{"finding.chi2_max": 20}``.

        Raises
        ------
        ConfigError
            If a section, key, type or value is not allowed; the message names it.

        Examples
        --------
        >>> ChainConfig().with_settings({"finding.chi2_max": 20}).finding.chi2_max
        20.0
        """
        data = self.to_dict()
        for name, value in settings.items():
            section, _, key = name.partition(".")
            data.setdefault(section, {})[key] = value
        return self.from_dict(data)

    def with_particle(self, particle: str) -> ChainConfig:
        """Return this configuration with the mass hypothesis of finding and fit replaced.

        Raises
        ------
        ConfigError
            If `particle` is not "pion", "muon" or "electron".
        """
        return self.with_settings({"finding.particle": particle, "fitting.particle": particle})


def read_config(source: Path | str | None = None, detector: str | None = None) -> ChainConfig:
    """Return a configuration.

    Parameters
    ----------
    source : path, optional
        TOML file, or the name of settings that come with the package: "traccc", the default cuts of traccc v1.6.0, or
        "toy", for the toy detector. None: those of the detector.
    detector : str, optional
        Name of the detector. The default settings, tuned on the Open Data Detector, are for all that have none of their
        own.

    Raises
    ------
    ConfigError
        If the file can't be used.
    """
    if source is None and detector in PRESETS:
        source = detector
    return ChainConfig() if source is None else ChainConfig.from_toml(PRESETS.get(str(source), source))


def _reject_unknown(what: str, name: str, known: Mapping[str, Any], section: str = "") -> None:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    msg = f"{section}{name} is no known {what}; {hint}"
    raise ConfigError(msg)


def _make_section(section: Any, values: Mapping[str, Any]) -> Any:
    known: Mapping[str, _Values] = _annotations(section)
    for key in values:
        name = f"{section.section_name()}.{key}"
        if name in _MOVED:
            msg = f"{name} is no known key; it is {_MOVED[name]} now"
            raise ConfigError(msg)
        if key not in known:
            _reject_unknown("key", key, known, f"{section.section_name()}.")
    return section(**{key: known[key].read(value) for key, value in values.items()})


def _toml_value(value: Any) -> str:
    if value is None or isinstance(value, (str, bool)):
        return json.dumps(_OFF if value is None else value)
    return repr(int(value)) if isinstance(value, Integral) else repr(float(value))


_FIELD_COMMENT = re.compile(r"^    (\w+): [^#\n]*#: (.*)$", re.MULTILINE)


@cache
def _comments(section: type) -> dict[str, str]:
    """Return the ``#:`` comments of a section's fields, which say what they mean."""
    try:
        return dict(_FIELD_COMMENT.findall(inspect.getsource(section)))
    except OSError:  # installed without sources
        return {}
