"""Kalman fit of track candidates: forward filter, backward filter, smoothing, and parameters at the beam line.

The backward filter starts from a multiple of the diagonal of the last filtered covariance; its last update is the
track's first state. No smoother starts from the wide prior of the seed: in float32 that gives negative variances at
high momentum. Inner states combine the forward filtered with the backward predicted estimate.

A state holds the parameters after its surface's material, seen outgoing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.edm.parameters import FitOutcome
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import TrackSelection
from traccc_py.kernels.finding.candidates import CandidateBatch
from traccc_py.kernels.fitting.perigee import track_at_beam_line
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedParameters
from traccc_py.kernels.tracking.helix import trigonometry
from traccc_py.kernels.tracking.kalman import chi2_survival, combine_estimates, scale_diagonal
from traccc_py.kernels.tracking.linalg import PI, wrap_angle
from traccc_py.kernels.tracking.magnetic_field import field_in_precision, local_turn
from traccc_py.kernels.tracking.measurement_variance import channel_paths, measurement_variance
from traccc_py.kernels.tracking.navigation import StackRanges, intersect_surface
from traccc_py.kernels.tracking.polar import is_polar, strip_direction, turned_covariance, turned_place, widening
from traccc_py.kernels.tracking.propagation import (
    MASSES,
    seed_track,
    transport_to_curvilinear,
    transport_to_surface,
    updated,
    with_layer_material,
    with_surface_material,
)

__all__ = ["FittedBatch", "fit_tracks"]

_ZERO = scalar(0)
_ONE = scalar(1)
_SMALLEST_RATIO = scalar(1e-3)
_TWO_DIMENSIONS = 2
_PHI, _THETA, _QOP = 2, 3, 4
_SUCCESS = np.int32(FitOutcome.SUCCESS)
_NON_POSITIVE_NDF = np.int32(FitOutcome.NON_POSITIVE_NDF)
_FITTER = np.int32(FitOutcome.FITTER)
_SMOOTHER = np.int32(FitOutcome.SMOOTHER)
_FORWARD_PROPAGATION = np.int32(FitOutcome.FORWARD_PROPAGATION)
_BACKWARD_PROPAGATION = np.int32(FitOutcome.BACKWARD_PROPAGATION)


class _Payload(NamedTuple):
    surfaces: Any
    layers: Any
    bin_offsets: Any
    bin_surfaces: Any
    designs: Any
    path_sigmas: Any
    material_maps: Any
    slabs: Any
    first_cylinder: Any
    n_cylinders: Any
    first_disc: Any
    n_discs: Any
    first_plane: Any
    n_planes: Any
    n_modules: Any
    local_position: Any  # (n_measurements, 2)
    local_variance: Any
    cluster_size: Any
    dimensions: Any
    event_module: Any
    seed_module: Any  # (n_seeds,)
    seed_params: Any
    seed_variance: Any
    candidate_seed: Any  # (n_candidates,)
    entry_offsets: Any  # (n_candidates + 1,)
    code: Any  # (n_entries,)
    path: Any
    candidate: Any  # (n_tracks,)
    state_offsets: Any  # (n_tracks + 1,)
    mass: Any
    seed_inflation: Any
    inflation: Any
    used_variance: Any  # (n_states, 2) variances of the measurements, for the direction of the forward filter
    field: Any  # see `geometry.records`
    out_measurement: Any  # (n_states,) int32
    out_state_params: Any  # (n_states, 5)
    out_state_covariance: Any  # (n_states, 15)
    out_state_chi2: Any  # (n_states,)
    out_outcome: Any  # (n_tracks,) int32
    out_params: Any  # (n_tracks, 5)
    out_covariance: Any  # (n_tracks, 15)
    out_chi2: Any
    out_ndf: Any  # (n_tracks,) int32
    out_pval: Any
    out_perigee: Any  # (n_tracks, 5)
    out_perigee_covariance: Any  # (n_tracks, 15)


class FittedBatch(NamedTuple):
    """Fitted tracks (extent "tracks") and their states (extent "track_states")."""

    measurement: Any  # (n_states,) int32
    state_params: Any  # (n_states, 5)
    state_covariance: Any  # (n_states, 15)
    state_chi2: Any  # (n_states,)
    outcome: Any  # (n_tracks,) int32
    params: Any  # (n_tracks, 5)
    covariance: Any  # (n_tracks, 15)
    chi2: Any  # (n_tracks,)
    ndf: Any  # (n_tracks,) int32
    pval: Any  # (n_tracks,)
    perigee: Any  # (n_tracks, 5)
    perigee_covariance: Any  # (n_tracks, 15)


@device_function
def _store(params, covariance, row, x, c):
    """Write parameters and covariance to a row; phi in [-pi, pi)."""
    for k in range(np.int32(5)):
        params[row, k] = x[k]
    params[row, _PHI] = wrap_angle(x[_PHI])
    for k in range(np.int32(15)):
        covariance[row, k] = c[k]


@device_function
def _load(params, covariance, row):
    """Read parameters and covariance of a row."""
    x = (params[row, 0], params[row, 1], params[row, 2], params[row, 3], params[row, 4])
    c = (
        covariance[row, 0], covariance[row, 1], covariance[row, 2], covariance[row, 3], covariance[row, 4],
        covariance[row, 5], covariance[row, 6], covariance[row, 7], covariance[row, 8], covariance[row, 9],
        covariance[row, 10], covariance[row, 11], covariance[row, 12], covariance[row, 13], covariance[row, 14],
    )  # fmt: skip
    return x, c


@device_function
def _is_sound(x, c):
    """Return whether parameters are finite and possible, and variances positive."""
    finite = x[0] + x[1] + x[2] + x[3] + x[4]
    return (
        finite - finite == _ZERO
        and c[0] > _ZERO
        and c[2] > _ZERO
        and c[5] > _ZERO
        and c[9] > _ZERO
        and c[14] > _ZERO
        and x[_QOP] != _ZERO
        and _ZERO < x[_THETA] < PI
    )


@device_function(inlined=True)
def _surface_of(p, code):
    """Return the surface of a trail entry, or -1 - layer for a passive layer."""
    if code >= 0:
        return np.int32(p.event_module[code] % p.n_modules)
    if -1 - code < p.n_modules:
        return np.int32(-1 - code)
    return np.int32(code + p.n_modules)


@device_function(inlined=True)
def _move(p, track, surface, guess):
    """Return the track on a surface (or, below 0, passive layer) about `guess` ahead, and its direction there."""
    trig = trigonometry(track[1][_PHI], track[1][_THETA])
    turn = local_turn(p.field, track[0], trig, track[1][_QOP])
    if surface < 0:
        return transport_to_curvilinear(track, trig, turn, guess, p.field)
    path, _, _ = intersect_surface(p.surfaces, surface, track[0], trig, turn, guess)
    return transport_to_surface(track, trig, turn, path, p.field, p.surfaces, surface)


@device_function(inlined=True)
def _with_material(p, track, trig, surface, sign):
    """Return the track after the material of a surface or, below 0, passive layer; and whether it survives."""
    if surface < 0:
        return with_layer_material(track, trig, p, np.int32(-1 - surface), sign)
    return with_surface_material(track, trig, p, surface, sign)


@device_function(inlined=True)
def _forward(p, track, first, end, state):
    """Filter along the trail and store filtered states; return the last track and the outcome."""
    for k in range(first, end):
        code = p.code[k]
        surface = _surface_of(p, code)
        trig = trigonometry(track[1][_PHI], track[1][_THETA])
        if k > first:
            track, trig = _move(p, track, surface, p.path[k])
        if code >= 0:
            paths = channel_paths(p.surfaces, p.designs, surface, trig)
            variance = measurement_variance(p, surface, paths, code)
            p.used_variance[state, 0], p.used_variance[state, 1] = variance
            track, _ = updated(track, p.surfaces, surface, p, code, variance)
            trig = trigonometry(track[1][_PHI], track[1][_THETA])
        track, alive = _with_material(p, track, trig, surface, _ONE)
        if not alive:
            return track, _FORWARD_PROPAGATION
        if not _is_sound(track[1], track[2]):
            return track, _FITTER
        if code >= 0:
            p.out_measurement[state] = code
            _store(p.out_state_params, p.out_state_covariance, state, track[1], track[2])
            state = np.int32(state + 1)
    return track, _SUCCESS


@device_function(inlined=True)
def _state_chi2(p, state, x, c):
    """Return the chi2 of a state's measurement against the smoothed parameters, which contain it."""
    m = p.out_measurement[state]
    variance = p.used_variance[state, 0]
    local0, local1 = p.local_position[m, 0], p.local_position[m, 1]
    residual, residual1 = local0 - x[0], local1 - x[1]
    surface = p.event_module[m] % p.n_modules
    if is_polar(p.surfaces, surface):
        sine, cosine = strip_direction(p.surfaces, surface, local0, local1)
        residual, residual1 = turned_place(residual, residual1, sine, cosine)
        variance = variance * widening(p.surfaces, surface, local0, local1, x)
        c = turned_covariance(c, sine, cosine)
    chi2 = residual * residual / max(variance - c[0], _SMALLEST_RATIO * variance)
    if p.dimensions[m] == _TWO_DIMENSIONS:
        variance = p.used_variance[state, 1]
        residual = residual1
        chi2 = chi2 + residual * residual / max(variance - c[2], _SMALLEST_RATIO * variance)
    return chi2


@device_function(inlined=True)
def _smooth(p, state, track, is_outermost, work):
    """Combine a stored forward state with the backward prediction `track`; return whether it worked."""
    x, c = _load(p.out_state_params, p.out_state_covariance, state)
    sound = True
    if not is_outermost:
        near = track[1]
        turns = near[_PHI] - x[_PHI]
        near = (near[0], near[1], x[_PHI] + wrap_angle(turns), near[3], near[4])
        x, c, sound = combine_estimates(near, track[2], x, c, work)
        _store(p.out_state_params, p.out_state_covariance, state, x, c)
    p.out_state_chi2[state] = _state_chi2(p, state, x, c)
    return sound and _is_sound(x, c)


@device_function(inlined=True)
def _backward(p, track, first, end, state, work):
    """Filter against the trail and smooth; return (track at the first surface, chi2, ndf, outcome)."""
    chi2 = _ZERO * track[1][0]
    ndf = np.int32(-5)
    track = (track[0], track[1], scale_diagonal(track[2], p.inflation), track[3], track[4])
    for back in range(end - first):
        k = np.int32(end - 1 - back)
        code = p.code[k]
        surface = _surface_of(p, code)
        trig = trigonometry(track[1][_PHI], track[1][_THETA])
        if back > 0:
            track, trig = _move(p, track, surface, -p.path[k + 1])
        if code >= 0:
            state = np.int32(state - 1)
            if k > first and not _smooth(p, state, track, back == 0, work):
                return track, chi2, ndf, _SMOOTHER
            variance = (p.used_variance[state, 0], p.used_variance[state, 1])
            track, more = updated(track, p.surfaces, surface, p, code, variance)
            chi2 = chi2 + more
            ndf = np.int32(ndf + p.dimensions[code])
            trig = trigonometry(track[1][_PHI], track[1][_THETA])
        if not _is_sound(track[1], track[2]):
            return track, chi2, ndf, _BACKWARD_PROPAGATION
        if k > first:
            track, _ = _with_material(p, track, trig, surface, -_ONE)
    _store(p.out_state_params, p.out_state_covariance, state, track[1], track[2])
    p.out_state_chi2[state] = _state_chi2(p, state, track[1], track[2])
    return track, chi2, ndf, _SUCCESS


@device_function(inlined=True)
def _blank_states(p, first, end, state):
    """Write zeros to the states of a track whose fit failed; they still name their measurements."""
    for k in range(first, end):
        if p.code[k] >= 0:
            p.out_measurement[state] = p.code[k]
            for j in range(np.int32(5)):
                p.out_state_params[state, j] = _ZERO
            for j in range(np.int32(15)):
                p.out_state_covariance[state, j] = _ZERO
            p.out_state_chi2[state] = _ZERO
            state = np.int32(state + 1)


@kernel(scratch=(Scratch(75),), grain=8)
def fit_track(i, p, work):
    """Fit track i; writes only its rows and those of its states."""
    candidate = p.candidate[i]
    if p.state_offsets[i + 1] > p.out_measurement.shape[0]:
        return
    first, end = p.entry_offsets[candidate], p.entry_offsets[candidate + 1]
    seed = p.candidate_seed[candidate]
    start = seed_track(p.surfaces, p.seed_module[seed], p.seed_params, p.seed_variance, seed, p.seed_inflation)
    track, outcome = _forward(p, start, first, end, p.state_offsets[i])
    chi2 = _ZERO * p.mass
    ndf = np.int32(0)
    if outcome == _SUCCESS:
        track, chi2, ndf, outcome = _backward(p, track, first, end, p.state_offsets[i + 1], work)
    if outcome == _SUCCESS and ndf <= 0:
        outcome = _NON_POSITIVE_NDF
    _store(p.out_params, p.out_covariance, i, track[1], track[2])
    x, c, alive = track_at_beam_line(p, track, _surface_of(p, p.code[first]))
    if outcome == _SUCCESS and not (alive and _is_sound(x, c)):
        outcome = _BACKWARD_PROPAGATION
    _store(p.out_perigee, p.out_perigee_covariance, i, x, c)
    if outcome != _SUCCESS:
        _blank_states(p, first, end, p.state_offsets[i])
    p.out_outcome[i] = outcome
    p.out_chi2[i] = chi2
    p.out_ndf[i] = ndf
    p.out_pval[i] = chi2_survival(chi2, ndf)


def _outputs(ws: Any, dtype: Any) -> FittedBatch:
    tracks, states = ws.extent("tracks"), ws.extent("track_states")
    return FittedBatch(
        ws.array("states.measurement", states, np.int32),
        ws.array("states.params", states, dtype, 5),
        ws.array("states.covariance", states, dtype, 15),
        ws.array("states.chi2", states, dtype),
        ws.array("tracks.outcome", tracks, np.int32),
        ws.array("tracks.params", tracks, dtype, 5),
        ws.array("tracks.covariance", tracks, dtype, 15),
        ws.array("tracks.chi2", tracks, dtype),
        ws.array("tracks.ndf", tracks, np.int32),
        ws.array("tracks.pval", tracks, dtype),
        ws.array("tracks.perigee", tracks, dtype, 5),
        ws.array("tracks.perigee_covariance", tracks, dtype, 15),
    )


def fit_tracks(
    ws: Any,
    candidates: CandidateBatch,
    selection: TrackSelection,
    seeds: SeedParameters,
    measurements: MeasurementBatch,
    detector: Any,
    stacks: StackRanges,
    config: Any,
) -> FittedBatch:
    """Fit the selected candidates.

    Parameters
    ----------
    ws : Workspace
        Buffers; extents "tracks" and "track_states".
    candidates : CandidateBatch
        Candidates with their trails.
    selection : TrackSelection
        Which of them to fit.
    seeds : SeedParameters
        Start parameters.
    measurements : MeasurementBatch
        Measurements of the batch.
    detector : DetectorArrays
        The detector on the device.
    stacks : StackRanges
        Ranges of its layers.
    config : FittingConfig
        Mass hypothesis and inflations.

    Returns
    -------
    FittedBatch
        One row per selected candidate; a fit that failed says so in `outcome`.
    """
    dtype = seeds.params.dtype
    out = _outputs(ws, dtype)
    payload = _Payload(
        detector.surfaces, detector.layers, detector.bin_offsets, detector.bin_surfaces, detector.designs,
        detector.path_sigmas, detector.material_maps, detector.slabs, *stacks, np.int32(detector.surfaces.shape[0]),
        measurements.local_position, measurements.local_variance, measurements.cluster_size, measurements.dimensions,
        measurements.event_module,
        seeds.module, seeds.params, seeds.variance,
        candidates.seed, candidates.entry_offsets, candidates.code, candidates.path,
        selection.candidate, selection.state_offsets,
        dtype.type(MASSES[config.particle]), dtype.type(config.seed_inflation), dtype.type(config.backward_inflation),
        ws.array("fitting.variance", ws.extent("track_states"), dtype, 2),
        field_in_precision(detector.field, dtype.type), *out,
    )  # fmt: skip
    ws.launch(fit_track, ws.extent("tracks"), payload)
    return out
