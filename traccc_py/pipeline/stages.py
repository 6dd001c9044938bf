"""The stages of the chain, in order, for a batch whose input is on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.config import ChainConfig
from traccc_py.device.base import Device
from traccc_py.device.workspace import Workspace
from traccc_py.edm import STAGES
from traccc_py.errors import CapacityError, GeometryError
from traccc_py.geometry import Detector, DetectorArrays
from traccc_py.geometry.field import likely_units
from traccc_py.geometry.layer_map import LayerMap, make_late_map
from traccc_py.geometry.records import LayerKind
from traccc_py.geometry.variance_table import path_sigmas
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import resolve_ambiguities
from traccc_py.kernels.clusterization.clusterization import form_measurements
from traccc_py.kernels.finding.finding import find_tracks
from traccc_py.kernels.finding.layers import MAX_SURFACES_IN_BIN
from traccc_py.kernels.fitting.fitting import fit_tracks
from traccc_py.kernels.gnn.candidate_seeds import PointLists, find_candidate_seeds, put_off_outer_seeds
from traccc_py.kernels.gnn.gnn_finding import FinderArrays, find_point_lists
from traccc_py.kernels.seeding.chain_seeds import find_chain_seeds, find_late_seeds
from traccc_py.kernels.seeding.chains import Density
from traccc_py.kernels.seeding.cluster_slopes import find_cluster_slopes
from traccc_py.kernels.seeding.cuts import late_config
from traccc_py.kernels.seeding.layer_points import SeedingPoints
from traccc_py.kernels.seeding.parameter_estimation import estimate_parameters
from traccc_py.kernels.seeding.seeding import find_seeds
from traccc_py.kernels.seeding.spacepoint_formation import form_spacepoints
from traccc_py.kernels.seeding.spacepoint_variances import find_spacepoint_variances
from traccc_py.kernels.seeding.thinning import thin_seeds
from traccc_py.kernels.tracking.batch import CellBatch, MeasurementBatch, SeedBatch, SeedParameters, SpacepointBatch
from traccc_py.kernels.tracking.entries import kink_of
from traccc_py.kernels.tracking.navigation import StackRanges
from traccc_py.pipeline.finder import load_finder
from traccc_py.pipeline.prepare import PreparedEvent
from traccc_py.pipeline.results import BatchOutput
from traccc_py.pipeline.upload import upload_candidates, upload_measurements, upload_spacepoints

__all__ = ["StageClock", "StageInput", "Stages", "on_device"]

Lap = Callable[[str], None]  # see `StageClock.lap`
_SMALLEST_FIELD = 0.1  # [T]
_WITH_SPACEPOINTS = ("seeding", "parameter_estimation")  # stages that events with spacepoints start with


@dataclass(slots=True)
class StageInput:
    """Events of a batch that start with the same stage."""

    first_stage: str
    prepared: Sequence[PreparedEvent]
    cells: CellBatch | None  # on the device, where the chain starts with cells


class StageClock:
    """Wall time per stage, exact where the device can be waited for at no cost.

    Parameters
    ----------
    device : Device
        Waited for at the end of each stage, where that costs nothing.
    limit : float, optional
        How long all stages but the last may take there [s].
    """

    def __init__(self, device: Device, limit: float | None = None) -> None:
        self._device, self._limit = device, limit
        self._last = time.perf_counter()
        self.milliseconds: dict[str, float] = {}

    def resume(self) -> None:
        """Ignore the time since the last lap."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage.

        Raises
        ------
        CapacityError
            If all together took longer than allowed, and this is not the last stage.
        """
        if self._device.sizes_are_on_host:
            self._device.synchronize()
        now = time.perf_counter()
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now
        seconds = sum(self.milliseconds.values()) * 1e-3
        if self._limit is not None and self._device.sizes_are_on_host and stage != STAGES[-1] and seconds > self._limit:
            msg = (
                f"the reconstruction took {seconds:.1f} s up to the stage {stage}; expected at most {self._limit:g} s: "
                "is the event of noise, or has it very hot modules?"
            )
            raise CapacityError(msg)


class Stages:
    """The stages, with the detector in device memory and the configuration.

    Parameters
    ----------
    device : Device
        Where the kernels run.
    detector : Detector
        Copied to device memory.
    config : ChainConfig
        Configuration of the stages.

    Raises
    ------
    ConfigError
        If weights of the finder can't be read.
    GeometryError
        If the kernels can't work with the detector, or weights are for another one.
    """

    def __init__(self, device: Device, detector: Detector, config: ChainConfig) -> None:
        host = detector.arrays()
        _check_field(detector)
        _check_bins(host)
        host = host._replace(path_sigmas=path_sigmas(host, config.clusterization))
        self.detector: DetectorArrays = on_device(device, host)
        self._stacks = _stack_ranges(host.stacks)
        self._layer_map: LayerMap | None = None
        self._late_map: LayerMap | None = None  # all layers
        self._finder: FinderArrays | None = None
        if config.finder.method == "gnn":
            self._finder = on_device(device, load_finder(config, host))
        elif config.seeding.method == "layer_pairs":
            layer_map = detector.layer_map(config.seeding)
            self._layer_map = on_device(device, layer_map)
            if config.seeding.late_points > 0:
                late_map = make_late_map(layer_map, detector.layer_map(late_config(config.seeding)))
                self._late_map = late_map and on_device(device, late_map)
        self.n_modules = len(detector.geometry_ids)
        self.config = config

    def run(self, ws: Workspace, given: StageInput, clock: StageClock) -> BatchOutput:
        """Launch all stages from the first one that the events need.

        Parameters
        ----------
        ws : Workspace
            Buffers; the sizes of "events", "event_modules" and "cells" must be set.
        given : StageInput
            The events.
        clock : StageClock
            Measures the time of each stage.

        Returns
        -------
        BatchOutput
            Collections in device memory.
        """
        detector, config, stacks, n_modules = self.detector, self.config, self._stacks, self.n_modules
        measurements, spacepoints = self._form_spacepoints(ws, given, clock)
        n_events, seed_the_rest = len(given.prepared), None
        if given.first_stage == "parameter_estimation":
            lists = upload_candidates(ws, given.prepared)
            seeds, is_kept = self._seeds_of(ws, lists, measurements, spacepoints)
        elif self._finder is not None:
            lists = find_point_lists(
                ws, spacepoints, measurements, detector, self._finder, config.graph, n_modules, n_events, clock.lap
            )
            seeds, is_kept = self._seeds_of(ws, lists, measurements, spacepoints)
        else:
            points = self._seeding_points(ws, measurements, spacepoints)
            seeds, is_kept = self._find_seeds(ws, points, n_events)
            if self._late_map is not None:
                seed_the_rest = _LateSeeds(self, self._late_map, points, n_events, clock.lap)
        clock.lap("seeding")
        parameters = self.estimate(ws, seeds, spacepoints, measurements)
        clock.lap("parameter_estimation")
        links = spacepoints.measurement_index
        candidates = find_tracks(
            ws, seeds, is_kept, parameters, links, measurements, detector, stacks, config.finding, seed_the_rest
        )
        clock.lap("finding")
        selection = resolve_ambiguities(ws, candidates, measurements.offsets, n_modules, config.ambiguity_resolution)
        clock.lap("ambiguity_resolution")
        kink = kink_of(config.finding, parameters.params.dtype.type)
        fitted = fit_tracks(ws, candidates, selection, measurements, detector, stacks, config.fitting, kink)
        clock.lap("fitting")
        late = None if seed_the_rest is None else seed_the_rest.seeds
        return BatchOutput(measurements, spacepoints, seeds, late, candidates, selection, fitted)

    def estimate(
        self, ws: Workspace, seeds: SeedBatch, spacepoints: SpacepointBatch, measurements: MeasurementBatch
    ) -> SeedParameters:
        """Return the track parameters of seeds."""
        config = self.config.parameter_estimation
        return estimate_parameters(ws, seeds, spacepoints, measurements, self.detector, config, self.n_modules)

    def _seeding_points(
        self, ws: Workspace, measurements: MeasurementBatch, spacepoints: SpacepointBatch
    ) -> SeedingPoints:
        """Return the spacepoints with all that the seeding wants to know of them."""
        seeding = self.config.seeding
        slopes = find_cluster_slopes(
            ws,
            spacepoints,
            measurements,
            self.detector,
            self.n_modules,
            seeding.cluster_size_tolerance,
            seeding.r_max,
            seeding.max_module_measurements,
        )
        polar, variances = find_spacepoint_variances(ws, spacepoints, measurements, self.detector, self.n_modules)
        return SeedingPoints(spacepoints, measurements, polar, variances, slopes)

    def _find_seeds(self, ws: Workspace, points: SeedingPoints, n_events: int) -> tuple[SeedBatch, Any]:
        """Return the seeds, by the method of the configuration, and which are followed first."""
        detector, seeding, thinning = self.detector, self.config.seeding, self.config.seed_thinning
        if self._layer_map is None:
            seeds = find_seeds(
                ws, points.spacepoints, points.variances, points.slopes, seeding, float(detector.b_z), n_events
            )
            return seeds, thin_seeds(ws, seeds, points.spacepoints, points.measurements, thinning)
        short_in = tuple(Density) if self._late_map is None else (Density.SPARSE,)
        return find_chain_seeds(
            ws, points, detector, self._layer_map, seeding, thinning, self.n_modules, n_events, short_in
        )

    def _seeds_of(
        self, ws: Workspace, lists: PointLists, measurements: MeasurementBatch, spacepoints: SpacepointBatch
    ) -> tuple[SeedBatch, Any]:
        """Return the seeds of track candidates, and which are followed first."""
        seeds = find_candidate_seeds(ws, lists, spacepoints, measurements, self.detector, self.n_modules)
        is_kept = thin_seeds(ws, seeds, spacepoints, measurements, self.config.seed_thinning)
        if self.config.seed_thinning.enabled:
            put_off_outer_seeds(ws, is_kept)
        return seeds, is_kept

    def _form_spacepoints(
        self, ws: Workspace, given: StageInput, clock: StageClock
    ) -> tuple[MeasurementBatch, SpacepointBatch]:
        """Run the stages before seeding that the events still need."""
        if given.cells is not None:
            clock.lap("preparation")
            measurements = form_measurements(ws, given.cells, self.detector, self.config.clusterization)
            clock.lap("clusterization")
        else:
            measurements = upload_measurements(ws, given.prepared, self.n_modules)
            clock.lap("preparation")
        if given.first_stage in _WITH_SPACEPOINTS:
            spacepoints = upload_spacepoints(ws, given.prepared)
            clock.lap("preparation")
        else:
            spacepoints = form_spacepoints(ws, measurements, self.detector, self.n_modules)
            clock.lap("spacepoint_formation")
        return measurements, spacepoints


class _LateSeeds:
    """Makes seeds of the spacepoints that no track has, for `find_tracks`."""

    def __init__(self, stages: Stages, layer_map: LayerMap, points: SeedingPoints, n_events: int, lap: Lap) -> None:
        self._stages, self._layer_map, self._points = stages, layer_map, points
        self._n_events, self._lap = n_events, lap
        self.seeds: SeedBatch | None = None  #: those that were made

    def __call__(self, ws: Workspace, is_used: Any) -> tuple[SeedParameters, Any]:
        """Return their parameters, and which are followed."""
        stages, points = self._stages, self._points
        self._lap("finding")
        self.seeds, is_kept = find_late_seeds(
            ws,
            points,
            stages.detector,
            self._layer_map,
            stages.config.seeding,
            is_used,
            stages.n_modules,
            self._n_events,
        )
        self._lap("seeding")
        parameters = stages.estimate(ws, self.seeds, points.spacepoints, points.measurements)
        self._lap("parameter_estimation")
        return parameters, is_kept


def _check_field(detector: Detector) -> None:
    """Raise for a field that seeds can't get their momentum from."""
    if abs(detector.b_field_z) >= _SMALLEST_FIELD:
        return
    field = (0.0, 0.0, detector.b_field_z) if detector.field_map is None else detector.field_map.at(np.zeros(3))
    strength = float(np.linalg.norm(field))
    hint = likely_units(strength)
    if strength >= _SMALLEST_FIELD:
        hint = f"it is ({field[0]:.3g}, {field[1]:.3g}, {field[2]:.3g}) T, so turn the axes or columns of the map"
    elif hint:
        hint = f"its numbers would make {hint}; convert them"
    else:
        hint = "seeds get their momentum from the curvature"
    msg = (
        f"the field along z at the origin is {detector.b_field_z:.3g} T; expected at least {_SMALLEST_FIELD} T: {hint}"
    )
    raise GeometryError(msg)


def _check_bins(arrays: DetectorArrays) -> None:
    """Raise for bins that the kernels can't work with."""
    largest = int(np.diff(arrays.bin_offsets).max(initial=0))
    if largest > MAX_SURFACES_IN_BIN:
        msg = (
            f"a bin of a layer's grid lists {largest} surfaces; expected at most {MAX_SURFACES_IN_BIN}: use finer bins"
        )
        raise GeometryError(msg)


def _stack_ranges(stacks: np.ndarray) -> StackRanges:
    """Return the ranges of the layers by kind."""
    found = {int(s["kind"]): (np.int32(s["first_layer"]), np.int32(s["n_layers"])) for s in stacks}
    none = (np.int32(0), np.int32(0))
    ranges = [found.get(int(kind), none) for kind in (LayerKind.CYLINDER, LayerKind.DISC, LayerKind.PLANE)]
    return StackRanges(*(value for pair in ranges for value in pair))


def on_device(device: Device, arrays: Any) -> Any:
    """Return a (nested) tuple of arrays and scalars with its arrays in device memory."""
    members = (
        on_device(device, a) if isinstance(a, tuple) else device.to_device(a) if isinstance(a, np.ndarray) else a
        for a in arrays
    )
    return type(arrays)(*members)
