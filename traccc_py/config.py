"""Configuration: one frozen dataclass per stage, grouped in `ChainConfig`, read from and written to TOML.

Physics only. Lengths in mm, momenta in GeV, angles in rad. Defaults are those of traccc v1.6.0 unless the field says
otherwise; `docs/adr` gives the reasons. Types and ranges are part of the annotations and are checked
whenever a configuration is made.

A stage that can be left out has a switch, `enabled`. A cut or an assumption that can be left out is None without it,
``"off"`` in TOML: no number stands for "none". What depends on the detector is `AUTO`, ``"auto"`` in TOML, unless it
is given: `traccc_py.derivation` puts numbers in its place before a chain uses it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any

from traccc_py.errors import ConfigError
from traccc_py.settings import (
    AUTO,
    AboveOne,
    AnyName,
    Automatic,
    Choice,
    Count,
    NonNegative,
    Number,
    Positive,
    PositiveCount,
    Range,
    Setting,
    Settings,
    settings_of,
    shown,
)

__all__ = [
    "PRESETS",
    "AmbiguityResolutionConfig",
    "ChainConfig",
    "ClusterizationConfig",
    "FinderConfig",
    "FindingConfig",
    "FittingConfig",
    "GraphConfig",
    "ParameterEstimationConfig",
    "SeedThinningConfig",
    "SeedingConfig",
    "read_config",
]


_PRESET_FOLDER = Path(__file__).resolve().parent / "presets"
PRESETS = {path.stem: path for path in sorted(_PRESET_FOLDER.glob("*.toml"))}  #: sets of settings by name
_OFF = "off"
_FEWEST_LATE_POINTS = 4
_MOVED = {"seeding.thinning": "seed_thinning.enabled", "seeding.min_agreeing_seeds": "seed_thinning.min_agreeing_seeds"}


NumberOrAuto = Annotated[float, Range(), Automatic]
PositiveOrAuto = Annotated[float, Range(0, is_open=True), Automatic]
NonNegativeOrAuto = Annotated[float, Range(0), Automatic]
CountOrAuto = Annotated[int, Range(0), Automatic]
PositiveCountOrAuto = Annotated[int, Range(1), Automatic]
NonNegativeOrOff = Annotated[float | None, Range(0)]
TeslaOrOff = Annotated[float | None, Range(0, is_open=True, below=20)]  # as of detectors
Particle = Annotated[str, Choice(("pion", "muon", "electron"))]
Variance = Annotated[str, Choice(("calibrated", "traccc"))]
SeedSearchOrAuto = Annotated[str, Choice(("grid", "layer_pairs")), Automatic]
Finder = Annotated[str, Choice(("seeds", "gnn"))]
FinderWeights = Annotated[str, AnyName("a name or a file")]
GraphConstructor = Annotated[str, Choice(("layer_map", "metric"))]
Segmentation = Annotated[str, Choice(("walkthrough", "junction_removal"))]
Score = Annotated[float, Range(0, is_open=True, below=1)]


class _Section(Settings):
    """Base of the configurations of stages."""

    __slots__ = ()

    @classmethod
    def section_name(cls) -> str:
        """Return the name of the section in the TOML file."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__.removesuffix("Config")).lower()

    @classmethod
    def path_of(cls, name: str) -> str:
        """Return how errors name a field: as it stands in the file."""
        return f"{cls.section_name()}.{name}"

    def _expected(self, setting: Setting) -> str:
        words = [_OFF] * setting.is_optional + [str(AUTO)] * setting.can_be_auto
        return " or ".join([setting.expected, *(f'"{word}"' for word in words)])

    def _require_below(self, low: str, high: str) -> None:
        if AUTO not in (getattr(self, low), getattr(self, high)) and not getattr(self, low) < getattr(self, high):
            self._reject(low, f"less than {high}, which is {getattr(self, high)}")


@dataclass(frozen=True, slots=True)
class ClusterizationConfig(_Section):
    """Clusters and measurements."""

    variance: Variance = "calibrated"  #: "calibrated" (table of the detector) or "traccc" (pitch^2/12 + spread)
    pixel_sigma_floor: NonNegativeOrAuto = AUTO  #: smallest sigma of pixels (2D, not digital), of calibrated ones [mm]


@dataclass(frozen=True, slots=True)
class FinderConfig(_Section):
    """What starts tracks: seeds, or the candidates of a graph neural network (docs/gnn.md). Not in traccc."""

    method: Finder = "seeds"  #: "seeds" (triplets or chains of spacepoints) or "gnn" (paths through a graph)
    weights: FinderWeights = "odd"  #: of the network: "odd", or a file that traccc-py gnn train wrote


@dataclass(frozen=True, slots=True)
class GraphConfig(_Section):
    """Track candidates of the graph neural network, where finder.method is "gnn"."""

    constructor: GraphConstructor = "layer_map"  #: "layer_map" (windows of pairs of layers) or "metric" (an embedding)
    radius: Positive = 1.0  #: largest distance in the embedding; 1: that of the training
    max_neighbours: PositiveCount = 100  #: of a spacepoint in the embedding: where there are more, the nearest count
    filter_cut: Score = 0.5  #: smallest score of edges that the network sees
    edge_cut: Score = 0.1  #: smallest score of edges of a candidate
    segmentation: Segmentation = "walkthrough"  #: "walkthrough" (best paths) or "junction_removal" (no branchings)


@dataclass(frozen=True, slots=True)
class SeedingConfig(_Section):
    """Seeding. docs/odd_configuration.md says which cuts differ from traccc."""

    method: SeedSearchOrAuto = AUTO  #: "layer_pairs" (chains on layers in a row) or "grid" (triplets of traccc's cuts)
    z_min: NumberOrAuto = AUTO  #: smallest z of spacepoints used [mm]
    z_max: NumberOrAuto = AUTO  #: largest z of spacepoints used [mm]
    r_max: PositiveOrAuto = AUTO  #: largest radius of spacepoints used [mm]
    collision_region_min: Number = -250.0  #: smallest z at which a doublet's line may meet the beam line [mm]
    collision_region_max: Number = 250.0  #: largest z at which a doublet's line may meet the beam line [mm]
    min_pt: Positive = 0.4  #: smallest pT [GeV]
    cot_theta_max: Positive = 27.2845  #: largest |cot(theta)| of a doublet
    delta_r_min: NonNegativeOrAuto = AUTO  #: smallest radial distance of a doublet [mm]
    delta_r_max: PositiveOrAuto = AUTO  #: largest radial distance of a doublet [mm]
    delta_z_max: PositiveOrAuto = AUTO  #: largest z distance of a doublet [mm]
    late_points: Count = 5  #: spacepoints of a chain of those that no track has, 4 or more, on all layers; 0: no search
    late_min_pt: Positive = 0.5  #: smallest pT of such a chain, if `min_pt` is not larger [GeV]
    late_collision_region: Positive = 150.0  #: in dense events, largest |z| at the beam line of its doublets [mm]
    cluster_size_tolerance: NonNegativeOrOff = 2.0  #: channels a cluster may differ from what a doublet's slope says
    max_module_measurements: PositiveCount = 2000  #: a module with more is noisy: none of them is in a seed
    impact_max: Positive = 3.0  #: largest transverse impact parameter [mm]
    sigma_scattering: NonNegative = 3.0  #: polar scattering tolerated, in standard deviations
    max_pt_scattering: Positive = 10.0  #: above this pT the scattering of this pT is assumed [GeV]
    sigma_measurement: NonNegative = 3.0  #: measurement errors tolerated beside it, in standard deviations
    max_seeds_per_middle: PositiveCount = 5  #: seeds kept of those with one middle spacepoint
    b_field_z: TeslaOrOff = None  #: field assumed by the cuts [T]; off: that of the detector at the origin
    rad_length_per_seed: NonNegativeOrAuto = AUTO  #: material assumed, in radiation lengths
    delta_inverse_helix_diameter: NonNegative = 0.00003  #: curvature agreement of compatible seeds [1/mm]
    impact_weight_factor: NonNegative = 1.0  #: weight lost per mm of impact parameter
    compatible_seed_weight: NonNegative = 200.0  #: weight won by a compatible seed
    filter_delta_r_min: NonNegativeOrAuto = AUTO  #: smallest radial distance of the tops of compatible seeds [mm]
    compatible_seed_limit: Count = 2  #: compatible seeds that are counted
    good_bottom_min_radius: NonNegativeOrAuto = AUTO  #: a bottom farther out than this is good [mm]
    good_bottom_weight_increase: NonNegative = 400.0  #: weight won by a good bottom
    good_bottom_min_weight: NonNegative = 380.0  #: smallest weight with a good bottom
    good_top_max_radius: NonNegativeOrAuto = AUTO  #: a top farther in than this is good [mm]
    good_top_weight_increase: NonNegative = 200.0  #: weight won by a good top
    seed_min_weight: NonNegative = 199.0  #: smallest weight of all seeds of a middle but the best
    bottom_min_radius: NonNegativeOrAuto = AUTO  #: seeds whose bottom is farther out pass without weight [mm]

    def _check_together(self) -> None:
        self._require_below("z_min", "z_max")
        self._require_below("collision_region_min", "collision_region_max")
        self._require_below("delta_r_min", "delta_r_max")
        if 0 < self.late_points < _FEWEST_LATE_POINTS:
            self._reject("late_points", f"0, or at least {_FEWEST_LATE_POINTS}")


@dataclass(frozen=True, slots=True)
class SeedThinningConfig(_Section):
    """Choice of the seeds to follow first, so that few follow the same particle. Not in traccc.

    Seeds of the same particle (0.5 to 100 GeV, 10 um, 1.5 % of a radiation length a layer) that share a spacepoint
    differ by less in 99.9 % of the cases in the ODD. Scattering grows like 1/pT, as the curvature does. With larger
    errors more seeds are followed, to the same tracks.
    """

    enabled: bool = True  #: without it all seeds are followed first
    min_agreeing_seeds: CountOrAuto = AUTO  #: with fewer seeds that agree, a seed is followed after the others only
    curvature_tolerance: NonNegative = 0.00015  #: largest difference in curvature of seeds that agree [1/mm]
    curvature_scattering: NonNegative = 0.12  #: factor of the larger curvature, added to that
    phi_tolerance: NonNegative = 0.02  #: largest difference in phi at the beam line of seeds that agree [rad]
    phi_scattering: NonNegative = 16.0  #: factor of the curvature, added to that [mm]
    theta_tolerance: NonNegative = 0.001  #: largest difference in theta of seeds that agree [rad]
    theta_scattering: NonNegative = 8.0  #: factor of the curvature, added to that [mm]
    kink_tolerance: NonNegative = 0.0015  #: largest change of dz per arc length in a straight seed
    kink_scattering: NonNegative = 9.0  #: factor of curvature / sin^2(theta), added to that [mm]
    ring_width: PositiveOrAuto = AUTO  #: of two seeds that agree the one with its bottom in the inner ring is kept [mm]


@dataclass(frozen=True, slots=True)
class ParameterEstimationConfig(_Section):
    """Track parameters of seeds. traccc has constants in the place of the last three settings."""

    sigma_loc0: Positive = 1.0  #: standard deviation of loc0 [mm]
    sigma_loc1: Positive = 1.0  #: standard deviation of loc1 [mm]
    inflation: Positive = 2.0  #: factor on the deviations of phi, theta and q/p that follow from points and scattering
    sigma_scattering: NonNegative = 0.001  #: of phi and theta by the material between the points, at 1 GeV [rad GeV]
    sigma_pt_scattering: NonNegative = 0.08  #: relative deviation of pT by the same material


@dataclass(frozen=True, slots=True)
class FindingConfig(_Section):
    """Combinatorial Kalman filter. docs/odd_configuration.md says which cuts differ from traccc."""

    max_branches_per_seed: PositiveCount = 10  #: branches followed at a time
    max_branches_per_surface: PositiveCount = 1  #: best measurements followed on one surface
    min_measurements: PositiveCountOrAuto = AUTO  #: smallest number of measurements of a candidate
    max_measurements: PositiveCount = 40  #: largest number of measurements of a candidate
    measurements_per_hole: Count = 2  #: further measurements needed for each hole, and if holes or momentum end a track
    long_candidate_extra: Count = 4  #: measurements beyond those needed without which the p-value must be good
    short_min_pval: NonNegative = 0.0001  #: smallest p-value of such a candidate
    stopped_min_pval: NonNegative = 0.2  #: ... of one that holes end, without one before, with a measurement less
    max_surfaces: PositiveCount = 96  #: following stops after this many surfaces, passive ones and holes included
    max_holes: Count = 3  #: holes that a candidate may have
    max_consecutive_holes: Count = 2  #: holes in a row that a candidate may have
    seed_max_consecutive_holes: Count = 1  #: the same before the fourth measurement
    chi2_max: Positive = 25.0  #: largest chi2 of a measurement against the prediction
    retry_chi2_max: Positive = 30.0  #: the same in the second pass, over seeds that are on no track
    kink_momentum: Positive = 0.05  #: momentum across the track that a kink gives, standard deviation [GeV]
    kink_chi2_max: Positive = 10.0  #: `chi2_max` behind a kink
    kink_mask_max: NonNegative = 20.0  #: `mask_max` behind a kink [mm]
    kink_places: PositiveCount = 6  #: places where a track may kink: its last measurement, and passive layers behind it
    kink_min_pval: NonNegative = 0.01  #: smallest p-value of the measurements behind a kink
    measurements_behind_kink: Count = 5  #: measurements that must follow a kink; 0: kinks are not looked for
    min_p: NonNegative = 0.1  #: smallest momentum [GeV]
    min_pt: NonNegative = 0.3  #: smallest pT [GeV]
    mask_sigma: NonNegative = 3.0  #: how far outside its edge a sensor is tried, in sigma
    mask_tolerance: NonNegative = 0.1  #: distance added to that [mm]
    mask_max: NonNegative = 3.0  #: largest sum of both [mm]
    particle: Particle = "pion"  #: mass hypothesis

    def _check_together(self) -> None:
        if self.min_measurements is not AUTO and self.min_measurements > self.max_measurements:
            self._reject("min_measurements", f"at most max_measurements, which is {self.max_measurements}")


@dataclass(frozen=True, slots=True)
class AmbiguityResolutionConfig(_Section):
    """Greedy removal of tracks that share measurements."""

    enabled: bool = True  #: without it all candidates are fitted
    min_measurements_per_track: PositiveCount = 3  #: shorter candidates are dropped
    max_shared_measurements: PositiveCount = 3  #: tracks that share at least this many may be removed


@dataclass(frozen=True, slots=True)
class FittingConfig(_Section):
    """Kalman fit and smoother."""

    particle: Particle = "pion"  #: mass hypothesis
    seed_inflation: AboveOne = 10.0  #: the forward filter starts with the seed's variances of direction times this
    backward_inflation: AboveOne = 100.0  #: the backward filter starts with the last variances times this
    outlier_chi2: Positive = 20.0  #: a measurement with a larger chi2 against all others is left out as outlier
    max_outliers: Count = 2  #: measurements that may be left out of a track


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """All stages."""

    clusterization: ClusterizationConfig = field(default_factory=ClusterizationConfig)
    finder: FinderConfig = field(default_factory=FinderConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
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
                problem = f"is {shown(values)}; expected a section [{name}]"
                raise ConfigError(problem, field=name, value=values)
            made[name] = _make_section(sections[name], values)
        return cls(**made)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the configuration as nested dictionaries."""
        return dataclasses.asdict(self)

    def to_toml(self, reasons: Mapping[str, str] | None = None) -> str:
        """Return the configuration as TOML, each key with a comment.

        Parameters
        ----------
        reasons : mapping of str to str, optional
            Why settings have their values, by section and key; added to their comments.

        Examples
        --------
        >>> print(ChainConfig().to_toml().splitlines()[1])
        [clusterization]
        """
        lines = []
        for entry in dataclasses.fields(self):
            section: Any = getattr(self, entry.name)
            kind: Any = type(section)
            meanings = {setting.name: setting.meaning for setting in settings_of(kind)}
            lines += [f"# {(kind.__doc__ or '').splitlines()[0].replace('`', '')}", f"[{entry.name}]"]
            for key, value in dataclasses.asdict(section).items():
                texts = [text for text in (meanings[key], (reasons or {}).get(f"{entry.name}.{key}")) if text]
                comment = f"  # {'; '.join(texts)}" if texts else ""
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


def read_config(source: Path | str | None = None) -> ChainConfig:
    """Return a configuration.

    Parameters
    ----------
    source : path, optional
        TOML file, or the name of settings that come with the package: "traccc", the default cuts of traccc v1.6.0,
        "displaced" and "low-pt", for particles that the default ones lose (docs/limits.md). None: the default ones.

    Raises
    ------
    ConfigError
        If the file can't be used.
    """
    return ChainConfig() if source is None else ChainConfig.from_toml(PRESETS.get(str(source), source))


def _reject_unknown(what: str, name: str, known: Mapping[str, Any], section: str = "") -> None:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    problem = f"is not a known {what}; {hint}"
    raise ConfigError(problem, field=f"{section}{name}")


def _make_section(section: Any, values: Mapping[str, Any]) -> Any:
    known = {setting.name: setting for setting in settings_of(section)}
    for key in values:
        name = section.path_of(key)
        if name in _MOVED:
            problem = f"is not a known key; it is {_MOVED[name]} now"
            raise ConfigError(problem, field=name)
        if key not in known:
            _reject_unknown("key", key, known, f"{section.section_name()}.")
    return section(**{key: _read(known[key], value) for key, value in values.items()})


def _read(setting: Setting, value: Any) -> Any:
    """Return a value of a file or an option as the field has it."""
    if setting.is_optional and value == _OFF:
        return None
    if setting.can_be_auto and value == AUTO:
        return AUTO
    return float(value) if setting.kind is float and type(value) is int else value


def _toml_value(value: Any) -> str:
    if value is None or isinstance(value, (str, bool)):
        return json.dumps(_OFF if value is None else value)
    return repr(int(value)) if isinstance(value, Integral) else repr(float(value))
