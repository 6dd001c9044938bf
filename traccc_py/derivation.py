"""Settings that follow from the detector: numbers in the place of what a configuration leaves to it.

Seeds are made of the innermost layers that measure two coordinates: up to four barrel layers, and the discs that begin
within them. Straight lines from the origin say which of these a particle crosses one after another. A doublet is two
neighbours on such a line, or two with one between them. For the Open Data Detector the rules give what was found to
work best there (docs/odd_configuration.md). The smallest error of pixels follows from their readout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from traccc_py.config import ChainConfig
from traccc_py.errors import GeometryError
from traccc_py.geometry import Detector
from traccc_py.geometry.layout import Crossing, LayerPlace, Line, apart, crossings
from traccc_py.geometry.records import LayerKind
from traccc_py.settings import AUTO

__all__ = ["Derived", "SeedingLayout", "derive"]

_N_BARREL_LAYERS = 4  #: of which seeds are made: with three in a seed there are four seeds of a particle
_PER_SEED = 3
_SAME_RESOLUTION = 5.0  #: layers whose channels are wider than this times the narrowest are not used: strips of the ODD
_SEEDED_ETA = 3.2  #: |eta| up to which all neighbours make doublets; beyond, those with a layer between them
_TYPICAL_ETA = 2.5  #: |eta| up to which layers are counted
_ETA_STEP = 0.05
_MARGIN = 0.05  #: for staggered sensors and vertices off the origin, as part of a distance
_EDGE_MARGIN = 0.02  #: the same of an edge
_ROUNDED_TO = 10.0  #: edges [mm]
_DIGITS = 3
_TWO_DIMENSIONS = 2
_FEWEST_LINES = 8  #: through three layers, for distances to be right
_SMALLEST_DZ = 1.0  #: of doublets in a telescope that is narrow along the beam [mm]
_UNKNOWN_MATERIAL = 0.03  #: radiation lengths of a seed where the geometry has no material: those of the ODD
_TO_SECOND = 0.28  #: part of the way from the first to the second layer
_TO_FOURTH = 0.63  #: ... from the third to the fourth
_OF_DOUBLET = 0.6  #: distance of tops that confirm each other, as part of the shortest doublet
_OF_GAP = 0.55  #: width of the rings of bottoms, as part of the smallest distance between two layers
_FEWEST_MEASUREMENTS = 3
_OF_THRESHOLD = 1.25  #: smallest sigma of pixels, in shifts of the mean by a channel that just misses the threshold
#: Settings of seeds that both searches have. Who gives another one means the search for triplets.
_OF_BOTH = {
    "seeding": {
        "method",
        "z_min",
        "z_max",
        "r_max",
        "collision_region_min",
        "collision_region_max",
        "min_pt",
        "cot_theta_max",
        "late_points",
        "late_min_pt",
        "late_collision_region",
        "cluster_size_tolerance",
        "max_module_measurements",
        "impact_max",
        "sigma_scattering",
        "max_pt_scattering",
        "sigma_measurement",
        "b_field_z",
        "rad_length_per_seed",
    },
    "seed_thinning": {"enabled", "min_agreeing_seeds"},
}


class Derived(NamedTuple):
    """A setting that was derived."""

    setting: str  # by section and key
    value: float | int | str
    why: str


def derive(config: ChainConfig, detector: Detector) -> tuple[ChainConfig, tuple[Derived, ...]]:
    """Put numbers in the place of settings that are left to the detector; what is given stays.

    Parameters
    ----------
    config : ChainConfig
        Settings, some of them `AUTO`.
    detector : Detector
        The detector they are for.

    Returns
    -------
    config : ChainConfig
        The settings without `AUTO`.
    derived : tuple of Derived
        What was derived, and why it is what it is, in the order of the settings.

    Raises
    ------
    GeometryError
        If particles cross fewer than three layers that measure two coordinates, so that there can't be seeds.
    ConfigError
        If a setting that is given contradicts one that follows from the detector.

    Examples
    --------
    >>> from traccc_py.geometry import build_detector
    >>> config, derived = derive(ChainConfig(), build_detector("odd"))
    >>> config.finding.min_measurements
    5
    """
    left = {
        f"{section}.{key}"
        for section, values in config.to_dict().items()
        for key, value in values.items()
        if value is AUTO
    }
    if not left:
        return config, ()
    derived = tuple(d for d in (_readout(detector), *_of_layers(detector, left)) if d.setting in left)
    found = config.with_settings({d.setting: d.value for d in derived})
    if config.seeding.method is not AUTO:
        return found, derived
    method = _method(config, found, detector)
    return found.with_settings({method.setting: method.value}), (method, *derived)


class SeedingLayout:
    """The layers that seeds are made of, and the lines that cross them.

    Parameters
    ----------
    detector : Detector
        The detector.

    Raises
    ------
    GeometryError
        If lines cross fewer than three layers that measure two coordinates.
    """

    def __init__(self, detector: Detector) -> None:
        self.all_layers = detector.layer_places
        self.sensitive = [layer for layer in self.all_layers if layer.dimensions]
        measuring = [layer for layer in self.sensitive if layer.dimensions > 1]
        narrowest = min((layer.pitch for layer in measuring), default=0.0)
        fine = [layer for layer in measuring if layer.pitch <= _SAME_RESOLUTION * narrowest]
        found = _crossed(_innermost(fine)) or _crossed(_innermost(measuring))
        if found is None:
            msg = (
                f"no line from the beam line crosses {_PER_SEED} layers that measure two coordinates, which seeds are "
                f"made of; {len(measuring)} of the detector's {len(self.sensitive)} layers do"
            )
            raise GeometryError(msg)
        self.layers, self.lines, self.paths = found
        self.r_high = max(layer.r_high for layer in self.layers)
        outer = [x.r_low for x in measuring if x.kind == LayerKind.CYLINDER and x not in self.layers]
        self.next_r = min(outer, default=math.inf)  # of the barrel layers that are left out

    @cached_property
    def central(self) -> list[Crossing]:
        """The path of the line with the smallest |eta|."""
        return min(self.paths, key=lambda path: abs(path[0].z) / max(path[0].r, 1e-9))

    @cached_property
    def typical(self) -> tuple[int, int]:
        """How many layers lines cross, of all and of those of seeds."""
        return self._typical(self.sensitive), self._typical(self.layers)

    def _typical(self, layers: Sequence[LayerPlace]) -> int:
        counts = [len(apart(crossings(layers, line))) for line in self._central_lines]
        return int(np.median([n for n in counts if n >= _PER_SEED] or [_PER_SEED]))

    @cached_property
    def most_crossed(self) -> int:
        """The largest number of layers that a line crosses."""
        return max(len(crossings(self.sensitive, line)) for line in self.lines)

    @cached_property
    def _central_lines(self) -> list[Line]:
        return [line for line in self.lines if abs(line.cot_theta) <= math.sinh(_TYPICAL_ETA)]

    def describe(self) -> str:
        """Return which layers they are."""
        n_discs = sum(layer.kind == LayerKind.DISC for layer in self.layers)
        parts = [(len(_barrel(self.layers)), "barrel layers"), (n_discs, "discs or rings")]
        parts.append((sum(layer.kind == LayerKind.PLANE for layer in self.layers), "planes"))
        return " and ".join(f"{n} {what}" for n, what in parts if n)

    @cached_property
    def least_dr(self) -> float:
        """The smallest distance in r of crossings in a row [mm]."""
        return min(b.r_range[0] - a.r_range[1] for path in self.paths for a, b in pairwise(path))

    @cached_property
    def _steps_over_one(self) -> list[tuple[Crossing, Crossing]]:
        return [pair for path in self.paths for pair in zip(path, path[2:], strict=False)]

    @cached_property
    def most_dr(self) -> float:
        """The largest distance in r of crossings with one between them [mm]."""
        return max(b.r_range[1] - a.r_range[0] for a, b in self._steps_over_one)

    @cached_property
    def most_dz(self) -> float:
        """The largest distance in z of crossings with one between them [mm]."""
        return max(abs(b.z - a.z) for a, b in self._steps_over_one)

    def material(self) -> float:
        """Return the mean material from the first layer to the third, both included [radiation lengths]."""
        found = []
        for line in self._central_lines:
            path = apart(crossings(self.layers, line))
            if len(path) >= _PER_SEED:
                first, third = path[0], path[_PER_SEED - 1]
                met = crossings(self.all_layers, line)
                found.append(sum(c.layer.material for c in met if first.r <= c.r <= third.r))
        return float(np.mean(found)) if found else 0.0


def _crossed(layers: list[LayerPlace]) -> tuple[list[LayerPlace], list[Line], list[list[Crossing]]] | None:
    """Return layers, lines through them, and where those that cross at least three do; None if no line does."""
    found = None
    for lines in _sets_of_lines(layers) if layers else ():
        paths = [path for line in lines if len(path := apart(crossings(layers, line))) >= _PER_SEED]
        if len(paths) >= _FEWEST_LINES:
            return layers, lines, paths
        found = found or ((layers, lines, paths) if paths else None)
    return found


def _sets_of_lines(layers: Sequence[LayerPlace]) -> Iterator[list[Line]]:
    """Yield lines from the origin, closer ones for a narrow detector, and the same from its middle, if it is aside."""
    n = round(_SEEDED_ETA / _ETA_STEP)
    middle = (min(layer.z_low for layer in layers) + max(layer.z_high for layer in layers)) / 2
    for start in (0.0, middle):
        for step in (_ETA_STEP, _ETA_STEP / n, _ETA_STEP / n**2):
            yield [Line(math.sinh(k * step), start) for k in range(-n, n + 1)]


def _barrel(layers: Sequence[LayerPlace]) -> list[list[LayerPlace]]:
    """Return the cylinders from the inside out; those that overlap in r are parts of one."""
    found: list[list[LayerPlace]] = []
    for layer in sorted((x for x in layers if x.kind == LayerKind.CYLINDER), key=lambda x: x.r_low):
        if found and layer.r_low <= max(x.r_high for x in found[-1]):
            found[-1].append(layer)
        else:
            found.append([layer])
    return found


def _innermost(layers: Sequence[LayerPlace]) -> list[LayerPlace]:
    """Return the innermost barrel layers and the discs that begin within them; without barrel all."""
    barrel = [layer for part in _barrel(layers)[:_N_BARREL_LAYERS] for layer in part]
    if not barrel:
        return list(layers)
    end = max(layer.r_high for layer in barrel)
    return [x for x in layers if x in barrel or (x.kind == LayerKind.DISC and x.r_low < end)]


def _rounded(value: float) -> float:
    """Return a value with three significant digits."""
    return float(f"{value:.{_DIGITS}g}")


def _above(edge: float) -> float:
    """Return an upper edge of the layers with a margin, rounded upwards."""
    return math.ceil((edge + _EDGE_MARGIN * abs(edge)) / _ROUNDED_TO) * _ROUNDED_TO


def _method(given: ChainConfig, config: ChainConfig, detector: Detector) -> Derived:
    """Return how seeds are looked for: by layer pairs, if there is a map of them and no cut is given that they lack."""
    default = ChainConfig().to_dict()
    of_grid = [
        f"{section}.{key}"
        for section, values in given.to_dict().items()
        for key, value in values.items()
        if section in _OF_BOTH and key not in _OF_BOTH[section] and value != default[section][key]
    ]
    if of_grid:
        return Derived("seeding.method", "grid", f"only this search has {', '.join(of_grid)}, which was given")
    try:
        layer_map = detector.layer_map(config.seeding)
    except GeometryError as error:
        return Derived("seeding.method", "grid", f"pairs of layers are not known: {str(error).partition(': set')[0]}")
    n_pairs, n_layers = len(layer_map.neighbours), len(layer_map.layers)
    return Derived(
        "seeding.method", "layer_pairs", f"particles cross {n_layers} cylinders and discs in {n_pairs} pairs"
    )


def _readout(detector: Detector) -> Derived:
    """Return the smallest error of pixels: those of one readout have one, for others it must not be too large."""
    designs = detector.arrays().designs
    is_pixel = (designs["dimensions"] == _TWO_DIMENSIONS) & (designs["is_digital"] == 0) & (designs["is_polar"] == 0)
    pixels = designs[is_pixel]
    pitch = np.minimum(pixels["pitch0"], pixels["pitch1"]).astype(np.float64)
    shift = float(np.min(pitch * pixels["threshold"] / pixels["thickness"], initial=math.inf))
    setting = "clusterization.pixel_sigma_floor"
    if not math.isfinite(shift):
        return Derived(setting, 0.0, "no sensor of two dimensions measures charges")
    why = f"a channel that just misses the threshold moves the mean of a cluster by {1000 * shift:.3g} um"
    return Derived(setting, _rounded(_OF_THRESHOLD * shift), why)


def _of_layers(detector: Detector, left: set[str]) -> Iterator[Derived]:
    """Yield the settings that follow from the layers of seeds, if any of those that are left does."""
    if any(not name.startswith("clusterization.") for name in left):
        yield from _rules(SeedingLayout(detector))


def _rules(layout: SeedingLayout) -> Iterator[Derived]:
    """Yield all settings that follow from the layers of seeds."""
    yield from _acceptance(layout)
    yield from _doublets(layout)
    yield from _weights(layout)
    yield from _counts(layout)


def _acceptance(layout: SeedingLayout) -> Iterator[Derived]:
    layers, which = layout.layers, layout.describe()
    z_low, z_high = min(x.z_low for x in layers), max(x.z_high for x in layers)
    yield Derived("seeding.z_min", -_above(-z_low), f"seeds are made of {which}, which begin at z = {z_low:.0f} mm")
    yield Derived("seeding.z_max", _above(z_high), f"these end at z = {z_high:.0f} mm")
    yield Derived("seeding.r_max", min(_above(layout.r_high), layout.next_r), f"and at r = {layout.r_high:.1f} mm")


def _doublets(layout: SeedingLayout) -> Iterator[Derived]:
    eta = f"|eta| up to {_SEEDED_ETA:g}"
    why = f"two layers in a row are at least {layout.least_dr:.3g} mm apart in r, {eta}"
    yield Derived("seeding.delta_r_min", _delta_r_min(layout), why)
    why = f"two layers with one between them are at most {layout.most_dr:.3g} mm apart in r, {eta}"
    yield Derived("seeding.delta_r_max", _rounded((1 + _MARGIN) * layout.most_dr), why)
    why = f"and {layout.most_dz:.3g} mm in z"
    yield Derived("seeding.delta_z_max", _rounded((1 + _MARGIN) * max(layout.most_dz, _SMALLEST_DZ)), why)
    material = layout.material()
    why = f"mean material from the first to the third layer, of |eta| up to {_TYPICAL_ETA:g}"
    if material == 0:
        why = "the geometry has no material; that of the Open Data Detector is assumed"
    yield Derived("seeding.rad_length_per_seed", _rounded(material or _UNKNOWN_MATERIAL), why)


def _delta_r_min(layout: SeedingLayout) -> float:
    return _rounded(max((1 - _MARGIN) * layout.least_dr, 0.0))


def _weights(layout: SeedingLayout) -> Iterator[Derived]:
    radii = [crossing.r for crossing in layout.central]
    at = ", ".join(f"{r:.0f}" for r in radii[: _PER_SEED + 1])
    yield Derived(
        "seeding.filter_delta_r_min", _rounded(_OF_DOUBLET * _delta_r_min(layout)), f"{_OF_DOUBLET:g} of delta_r_min"
    )
    if len(radii) > _PER_SEED:
        third, fourth = radii[_PER_SEED - 1 : _PER_SEED + 1]
        outer, why = third + _TO_FOURTH * (fourth - third), f"between the third and the fourth layer (r = {at} mm)"
    else:
        outer, why = _above(layout.r_high), "all tops are good: there is no fourth layer"
    yield Derived("seeding.good_bottom_min_radius", _rounded(outer), why)
    yield Derived("seeding.good_top_max_radius", _rounded(outer), why)
    inner = radii[0] + _TO_SECOND * (radii[1] - radii[0])
    why = f"between the first and the second layer (r = {at} mm)"
    yield Derived("seeding.bottom_min_radius", _rounded(inner), why)
    gap = min(b - a for a, b in pairwise(radii))
    why = f"{_OF_GAP:g} of the smallest distance between them"
    yield Derived("seed_thinning.ring_width", _rounded(_OF_GAP * gap), why)


def _counts(layout: SeedingLayout) -> Iterator[Derived]:
    n, n_of_seeds = layout.typical
    has_several = n_of_seeds > _PER_SEED
    why = f"particles cross {n_of_seeds} of the seeds' layers: {'several seeds' if has_several else 'one seed'} each"
    yield Derived("seed_thinning.min_agreeing_seeds", int(has_several), why)
    least = max(_FEWEST_MEASUREMENTS, math.ceil(n / 2))
    why = f"half of the {n} layers that particles cross, and at least {_FEWEST_MEASUREMENTS}"
    yield Derived("finding.min_measurements", least, why)
