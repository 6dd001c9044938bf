"""Warnings where settings don't fit the detector, and where an event gave nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from traccc_py.config import ChainConfig, SeedingConfig
from traccc_py.data.source import Source, prefix
from traccc_py.derivation import SeedingLayout
from traccc_py.device.workspace import Workspace
from traccc_py.edm import EventResult
from traccc_py.errors import GeometryError
from traccc_py.geometry import Detector
from traccc_py.geometry.layout import Crossing, LayerPlace
from traccc_py.geometry.records import LayerKind
from traccc_py.gnn.weights import read_weights
from traccc_py.kernels.gnn.metric_graph import LIMITED_POINTS

__all__ = ["Plausibility", "warn_of_limit"]

_log = logging.getLogger(__name__)

_FEW = 20  #: a single particle may leave this many measurements or seeds without being found
_SMALLEST_SHARE = 0.5  #: of the directions that have enough layers for a seed, those in which the cuts leave one
_FIELD_TOLERANCE = 0.1  #: of the field that cuts assume, relative
_LIMITED_SHARE = 0.01  #: of the spacepoints, with more neighbours than count: fewer are not worth a warning
_DENSER = 1.25  #: than the densest event of a training: more spacepoints are worth a warning
_OPEN = {"z_min": -np.inf, "z_max": np.inf, "r_max": np.inf, "delta_r_min": 0.0, "delta_r_max": np.inf,
         "delta_z_max": np.inf}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Cuts that depend on the detector, as in `SeedingConfig` [mm]."""

    z_min: float
    z_max: float
    r_max: float
    delta_r_min: float
    delta_r_max: float
    delta_z_max: float

    @classmethod
    def of(cls, config: SeedingConfig) -> _Cuts:
        """Return those of a configuration; distances of doublets are not cut on along pairs of layers."""
        is_grid = config.method == "grid"
        given = {name: getattr(config, name) for name in _OPEN if is_grid or not name.startswith("delta")}
        return cls(**_OPEN | given)

    def keep(self, crossing: Crossing) -> bool:
        """Return whether spacepoints of a crossing are used."""
        return crossing.r_range[0] < self.r_max and self.z_min <= crossing.z <= self.z_max

    def join(self, inner: Crossing, outer: Crossing) -> bool:
        """Return whether two crossings can make a doublet."""
        (inner_low, inner_high), (outer_low, outer_high) = inner.r_range, outer.r_range
        is_near = outer_low - inner_high < self.delta_r_max and abs(outer.z - inner.z) < self.delta_z_max
        return is_near and outer_high - inner_low > self.delta_r_min

    def leave_a_seed(self, path: Sequence[Crossing]) -> bool:
        """Return whether three crossings of a path can make a seed."""
        kept = [crossing for crossing in path if self.keep(crossing)]
        doublets = [(a, b) for b in range(len(kept)) for a in range(b) if self.join(kept[a], kept[b])]
        return bool({a for a, _ in doublets} & {b for _, b in doublets})


def warn_of_limit(ws: Workspace, most: int) -> None:
    """Log how many spacepoints of a graph have more neighbours in the embedding than count, if they are not few."""
    n_limited, n = (ws.size(ws.extent(name)) for name in (LIMITED_POINTS, "graph_points"))
    if n_limited > _LIMITED_SHARE * n:
        text = "%d of %d spacepoints have more than graph.max_neighbours = %d neighbours: the nearest count"
        _log.warning(text, n_limited, n, most)


class Plausibility:
    """Looks at settings and results, and logs warnings.

    Parameters
    ----------
    config : ChainConfig
        Settings, without any that are left to the detector.
    detector : Detector
        The detector.
    """

    def __init__(self, config: ChainConfig, detector: Detector) -> None:
        self._config = config
        self.misfits = tuple(_misfits(config, detector))
        #: facts of the network's training, none for seeds
        self._facts = read_weights(config.finder.weights).facts if config.finder.method == "gnn" else {}

    def warn_of_settings(self) -> None:
        """Log what of the settings does not fit the detector."""
        for problem in self.misfits:
            _log.warning("%s", problem)

    def warn_of_result(self, result: EventResult, source: Source | str | None) -> None:
        """Log how many modules are noisy, and if a stage made nothing of enough rows of the one before, and why."""
        self._warn_of_noise(result, source)
        self._warn_of_density(result, source)
        counts = [
            ("measurements", len(result.measurements), self._of_measurements),
            ("spacepoints", len(result.spacepoints), self._of_spacepoints),
            ("seeds", len(result.seeds), self._of_seeds),
            ("tracks", len(result.tracks), None),
        ]
        for (name, n, reasons), (following, n_following, _) in pairwise(counts):
            if n >= _FEW and n_following == 0 and reasons is not None:
                _log.warning("%s0 %s from %d %s: %s", prefix(source), following, n, name, "; ".join(reasons(result)))
                return

    def warn_of_limit(self, ws: Workspace) -> None:
        """Log how many spacepoints of a batch have more neighbours in the embedding than count; its sizes are known."""
        if self._config.finder.method != "gnn" or self._config.graph.constructor != "metric":
            return
        warn_of_limit(ws, self._config.graph.max_neighbours)

    def _warn_of_noise(self, result: EventResult, source: Source | str | None) -> None:
        """Log how many spacepoints make no seeds since their module has too many."""
        most = self._config.seeding.max_module_measurements
        if len(result.measurements) <= most:
            return
        in_module = np.bincount(result.measurements.module_index)
        noisy = np.flatnonzero(in_module > most)
        if len(noisy):
            n = int(in_module[noisy].sum())
            _log.warning(
                "%s%s more than seeding.max_module_measurements = %d measurements; their %d make no seeds",
                prefix(source),
                "1 module has" if len(noisy) == 1 else f"{len(noisy)} modules have",
                most,
                n,
            )

    def _warn_of_density(self, result: EventResult, source: Source | str | None) -> None:
        """Log if an event is far denser than any that the network has learned from."""
        most, n = self._facts.get("most_spacepoints"), len(result.spacepoints)
        if most is not None and n > _DENSER * most:
            _log.warning(
                "%s%d spacepoints, where the densest event that the weights %s were trained on had %d (up to %d "
                "interactions): expect fewer tracks; train weights for such events with traccc-py gnn train",
                prefix(source),
                n,
                self._config.finder.weights,
                most,
                max(self._facts["mu"]),
            )

    def _of_measurements(self, _: EventResult) -> list[str]:
        return ["none has two coordinates, which spacepoints are made of"]

    def _of_spacepoints(self, result: EventResult) -> list[str]:
        if self._config.finder.method == "gnn":
            weights = self._config.finder.weights
            return [f"the network found no candidates; are its weights, {weights}, for events like this one?"]
        seeding, position = self._config.seeding, result.spacepoints.global_position
        r, z = np.hypot(position[:, 0], position[:, 1]), position[:, 2]
        outside = [
            (r >= seeding.r_max, f"beyond seeding.r_max = {seeding.r_max:g} mm"),
            ((z < seeding.z_min) | (z > seeding.z_max), f"outside of z = {seeding.z_min:g} to {seeding.z_max:g} mm"),
        ]
        found = [f"{is_out.sum()} of them lie {what}" for is_out, what in outside if 2 * is_out.sum() > len(r)]
        return [*self.misfits, *found] or ["no three of them fit the cuts; are they of this detector and its field?"]

    def _of_seeds(self, _: EventResult) -> list[str]:
        least = self._config.finding.min_measurements
        return [*self.misfits, f"none was followed to finding.min_measurements = {least} measurements"]


def _misfits(config: ChainConfig, detector: Detector) -> Iterator[str]:
    """Yield what of the settings does not fit the detector."""
    try:
        layout = SeedingLayout(detector)
    except GeometryError as error:
        yield str(error)
        return
    if config.finder.method == "seeds":
        yield from _misfits_of_cuts(config.seeding, layout)
    least, most = config.finding.min_measurements, layout.most_crossed
    if least > most:
        yield f"finding.min_measurements is {least}; particles cross {most} layers of the detector at most"
    assumed, field = config.seeding.b_field_z, abs(detector.b_field_z)
    if assumed is not None and abs(assumed - field) > _FIELD_TOLERANCE * field:
        yield f"seeding.b_field_z is {assumed:g} T; the detector's field is {field:g} T"


def _misfits_of_cuts(config: SeedingConfig, layout: SeedingLayout) -> Iterator[str]:
    """Yield which cuts leave no seeds in most directions."""
    if _share(_Cuts.of(config), layout) >= _SMALLEST_SHARE:
        return
    names = [n for n in _OPEN if _share(replace(_Cuts(**_OPEN), **{n: getattr(config, n)}), layout) < _SMALLEST_SHARE]
    for name in names:
        yield f"{_description(name, getattr(config, name), layout)}: most particles can't have a seed"
    if not names:
        shown = ", ".join(f"{name} = {getattr(config, name):g}" for name in _OPEN)
        yield f"with seeding's {shown} mm most particles can't have a seed"


def _share(cuts: _Cuts, layout: SeedingLayout) -> float:
    return float(np.mean([cuts.leave_a_seed(path) for path in layout.paths]))


def _description(name: str, value: float, layout: SeedingLayout) -> str:
    """Return in which way a cut does not fit the layers."""
    cut = f"seeding.{name} = {value:g} mm"
    if name.startswith("delta"):
        between = f"layers in a row are {layout.least_dr:.3g} mm or more apart in r; with one between them they are"
        return f"{cut}, but {between} up to {layout.most_dr:.3g} mm in r and {layout.most_dz:.3g} mm in z"
    outside = {
        "r_max": [layer for layer in layout.layers if layer.r_low >= value],
        "z_min": [layer for layer in layout.layers if layer.z_low < value],
        "z_max": [layer for layer in layout.layers if layer.z_high > value],
    }[name]
    if not outside:
        return f"{cut} does not fit how the layers lie"
    return f"{_counted(outside, layout.layers)} lie or reach beyond {cut}"


def _counted(some: Sequence[LayerPlace], layers: Sequence[LayerPlace]) -> str:
    """Return how many of the layers of each kind some are, in words."""
    kinds = ((LayerKind.CYLINDER, "barrel layers"), (LayerKind.DISC, "discs or rings"), (LayerKind.PLANE, "planes"))
    numbers = [(sum(x.kind == kind for x in some), sum(x.kind == kind for x in layers), what) for kind, what in kinds]
    return " and ".join(f"{n} of {n_all} {what}" for n, n_all, what in numbers if n)
