"""Kalman fit of track candidates: forward filter, backward filter, smoothing, and parameters at the beam line.

The backward filter starts from a multiple of the diagonal of the last filtered covariance; its last update is the
track's first state. No smoother starts from the wide prior of the seed: in float32 that gives negative variances at
high momentum. Inner states combine the forward filtered with the backward predicted estimate.

A state holds the parameters after its surface's material, seen outgoing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.config import FittingConfig
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace
from traccc_py.edm.parameters import N_COVARIANCE, N_PARAMETERS, PHI, FitOutcome
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import TrackSelection
from traccc_py.kernels.constants import ONE, PI, TWO_DIMENSIONS, ZERO
from traccc_py.kernels.finding.candidates import CandidateBatch
from traccc_py.kernels.fitting.perigee import track_at_beam_line
from traccc_py.kernels.tracking.batch import MeasurementBatch
from traccc_py.kernels.tracking.detector import DetectorPayload, detector_payload
from traccc_py.kernels.tracking.entries import (
    KINK_PARAMETERS,
    Kink,
    is_kink,
    move_to,
    surface_of,
    with_kink,
    with_material,
)
from traccc_py.kernels.tracking.kalman import COMBINATION_SCRATCH, chi2_survival, combine_estimates, scale_diagonal
from traccc_py.kernels.tracking.linalg import as_precise_as, wrap_angle
from traccc_py.kernels.tracking.measurement_variance import channel_paths, measurement_variance
from traccc_py.kernels.tracking.navigation import StackRanges, surface_axes
from traccc_py.kernels.tracking.polar import is_polar, rotated, rotated_covariance, strip_direction, widening
from traccc_py.kernels.tracking.propagation import (
    MASSES,
    local_position,
    seed_track,
    track_direction,
    updated,
)
from traccc_py.kernels.tracking.state import (
    AXIS0,
    AXIS1,
    BoundParameters,
    Local,
    Track,
    Vector,
    load_covariance,
    load_parameters,
    store_covariance,
    store_parameters,
)

__all__ = ["FittedBatch", "fit_tracks"]

_SMALLEST_RATIO = scalar(1e-3)
_SUCCESS = np.int32(FitOutcome.SUCCESS)
_NON_POSITIVE_NDF = np.int32(FitOutcome.NON_POSITIVE_NDF)
_FITTER = np.int32(FitOutcome.FITTER)
_SMOOTHER = np.int32(FitOutcome.SMOOTHER)
_FORWARD_PROPAGATION = np.int32(FitOutcome.FORWARD_PROPAGATION)
_BACKWARD_PROPAGATION = np.int32(FitOutcome.BACKWARD_PROPAGATION)

# Columns of `_Payload.predicted`.
_PARAMETERS, _COVARIANCE, _POSITION = 0, N_PARAMETERS, N_PARAMETERS + N_COVARIANCE
_CHI2, _NDF, _N_PREDICTED = _POSITION + 3, _POSITION + 4, _POSITION + 5


class FittedBatch(NamedTuple):
    """Fitted tracks (extent "tracks") and their states (extent "track_states")."""

    measurement: Any  # (n_states,) int32
    state_params: Any  # (n_states, 5)
    state_covariance: Any  # (n_states, 15)
    state_chi2: Any  # (n_states,)
    is_outlier: Any  # (n_states,) int32, 1: the measurement is too far from the others and was left out
    outcome: Any  # (n_tracks,) int32
    params: Any  # (n_tracks, 5)
    covariance: Any  # (n_tracks, 15)
    chi2: Any  # (n_tracks,)
    ndf: Any  # (n_tracks,) int32
    pval: Any  # (n_tracks,)
    perigee: Any  # (n_tracks, 5)
    perigee_covariance: Any  # (n_tracks, 15)
    n_outliers: Any  # (n_tracks,) int32
    n_kinks: Any  # (n_tracks,) int32


class _Payload(NamedTuple):
    detector: DetectorPayload
    measurements: MeasurementBatch
    candidates: CandidateBatch
    tracks: TrackSelection
    mass: Any  # [GeV]
    seed_inflation: Any  # of the seed's variances of direction, for the forward filter
    backward_inflation: Any  # of the last variances, for the backward filter
    outlier_chi2: Any  # of a state, above which its measurement may be left out
    max_outliers: Any  # int32
    kink: Kink
    used_variance: Any  # (n_states, 2) variances of the measurements, for the direction of the forward filter
    predicted: Any  # (n_states, _N_PREDICTED) scalar, what the backward filter knew before each measurement
    out: FittedBatch


class _Entries(NamedTuple):
    """Entries of a candidate, int32."""

    first: Any
    end: Any


@device_function
def _store(params, covariance, row, x, c):
    """Write parameters and covariance to a row; phi in [-pi, pi)."""
    store_parameters(params, row, 0, x)
    params[row, PHI] = wrap_angle(x.phi)
    store_covariance(covariance, row, 0, c)


@device_function
def _is_sound(x, c):
    """Return whether parameters are finite and possible, and variances positive."""
    finite = x.loc0 + x.loc1 + x.phi + x.theta + x.qop
    return (
        finite - finite == ZERO
        and c.loc0_loc0 > ZERO
        and c.loc1_loc1 > ZERO
        and c.phi_phi > ZERO
        and c.theta_theta > ZERO
        and c.qop_qop > ZERO
        and x.qop != ZERO
        and ZERO < x.theta < PI
    )


@device_function(inlined=True)
def _behind(p, track, direction, code, surface, sign):
    """Return the track behind an entry, its kink or its material; and whether it survives."""
    if is_kink(p, code):
        return with_kink(track, direction, p.kink), True
    return with_material(p, track, direction, surface, sign)


@device_function(inlined=True)
def _forward(p, track, entries, state):
    """Filter along the entries and store filtered states; return the last track and the outcome."""
    for k in range(entries.first, entries.end):
        code = p.candidates.code[k]
        surface = surface_of(p, code)
        direction = track_direction(track)
        if k > entries.first:
            track, direction = move_to(p, track, surface, p.candidates.path[k])
        if code >= 0:
            variance = measurement_variance(p, surface, channel_paths(p.detector, surface, direction), code)
            p.used_variance[state, AXIS0], p.used_variance[state, AXIS1] = variance
            if p.out.is_outlier[state] == 0:
                track, _ = updated(track, p, surface, code, variance)
                direction = track_direction(track)
        track, alive = _behind(p, track, direction, code, surface, ONE)
        if not alive:
            return track, _FORWARD_PROPAGATION
        if not _is_sound(track.params, track.covariance):
            return track, _FITTER
        if code >= 0:
            p.out.measurement[state] = code
            _store(p.out.state_params, p.out.state_covariance, state, track.params, track.covariance)
            state = np.int32(state + 1)
    return track, _SUCCESS


@device_function(inlined=True)
def _forward_from(p, candidate, entries, state):
    """Filter along the entries from a candidate's seed; return the last track and the outcome.

    Where variances lose their digits from the enlarged ones of the seed, they seldom do from its own.
    """
    surfaces, seeds = p.detector.surfaces, p.candidates.start
    module, inflation = seeds.module[candidate], p.seed_inflation
    track, outcome = seed_track(surfaces, module, seeds, candidate, inflation), _FITTER
    for _ in range(np.int32(2)):
        track, outcome = _forward(p, seed_track(surfaces, module, seeds, candidate, inflation), entries, state)
        if outcome != _FITTER:
            break
        inflation = ONE + ZERO * inflation
    return track, outcome


@device_function(inlined=True)
def _variance_used(p, state):
    """Return the variances that the forward filter took for a state's measurement."""
    return Local(loc0=p.used_variance[state, AXIS0], loc1=p.used_variance[state, AXIS1])


@device_function(inlined=True)
def _state_chi2(p, state, x, c):
    """Return the chi2 of a state's measurement against the smoothed parameters, which contain it but for outliers."""
    m = p.out.measurement[state]
    variance = _variance_used(p, state)
    local = local_position(p.measurements, m)
    residual = Local(loc0=local.loc0 - x.loc0, loc1=local.loc1 - x.loc1)
    surface = p.measurements.event_module[m] % p.detector.n_modules
    if is_polar(p.detector.surfaces, surface):
        sine, cosine = strip_direction(p.detector.surfaces, surface, local)
        residual = rotated(residual.loc0, residual.loc1, sine, cosine)
        across = variance.loc0 * widening(p.detector.surfaces, surface, local, x)
        variance = Local(loc0=across, loc1=variance.loc1)
        c = rotated_covariance(c, sine, cosine)
    sign = ONE if p.out.is_outlier[state] else -ONE
    rest = max(variance.loc0 + sign * c.loc0_loc0, _SMALLEST_RATIO * variance.loc0)
    chi2 = residual.loc0 * residual.loc0 / rest
    if p.measurements.dimensions[m] == TWO_DIMENSIONS:
        rest = max(variance.loc1 + sign * c.loc1_loc1, _SMALLEST_RATIO * variance.loc1)
        chi2 = chi2 + residual.loc1 * residual.loc1 / rest
    return chi2


@device_function(inlined=True)
def _store_prediction(p, state, track, chi2, ndf):
    """Keep what the backward filter knows before the measurement of a state."""
    array, position = p.predicted, track.position
    store_parameters(array, state, _PARAMETERS, track.params)
    store_covariance(array, state, _COVARIANCE, track.covariance)
    array[state, _POSITION], array[state, _POSITION + 1], array[state, _POSITION + 2] = position
    array[state, _CHI2] = chi2
    array[state, _NDF] = ndf


@device_function(inlined=True)
def _load_prediction(p, state):
    """Return (track, chi2, ndf) as `_store_prediction` had them."""
    array = p.predicted
    x, c = load_parameters(array, state, _PARAMETERS), load_covariance(array, state, _COVARIANCE)
    position = Vector(array[state, _POSITION], array[state, _POSITION + 1], array[state, _POSITION + 2])
    u, v = surface_axes(p.detector.surfaces, surface_of(p, p.out.measurement[state]))
    track = Track(position=position, params=x, covariance=c, u=as_precise_as(x.loc0, u), v=as_precise_as(x.loc0, v))
    return track, array[state, _CHI2], np.int32(array[state, _NDF])


@device_function(inlined=True)
def _backward(p, track, entries, state):
    """Filter against the direction of flight; return (track at the first surface, chi2, ndf, outcome, last state)."""
    chi2 = ZERO * track.params.loc0
    ndf = np.int32(-N_PARAMETERS)
    wide = scale_diagonal(track.covariance, p.backward_inflation)
    track = Track(position=track.position, params=track.params, covariance=wide, u=track.u, v=track.v)
    for back in range(entries.end - entries.first):
        k = np.int32(entries.end - 1 - back)
        code = p.candidates.code[k]
        surface = surface_of(p, code)
        direction = track_direction(track)
        if back > 0:
            track, direction = move_to(p, track, surface, -p.candidates.path[k + 1])
        if code >= 0:
            state = np.int32(state - 1)
            _store_prediction(p, state, track, chi2, ndf)
            if p.out.is_outlier[state] == 0:
                track, more = updated(track, p, surface, code, _variance_used(p, state))
                chi2 = chi2 + more
                ndf = np.int32(ndf + p.measurements.dimensions[code])
                direction = track_direction(track)
        elif is_kink(p, code):
            ndf = np.int32(ndf - KINK_PARAMETERS)
        if not _is_sound(track.params, track.covariance):
            return track, chi2, ndf, _BACKWARD_PROPAGATION, state
        if k > entries.first:
            track, _ = _behind(p, track, direction, code, surface, -ONE)
    return track, chi2, ndf, _SUCCESS, state


@device_function(inlined=True)
def _smooth(p, state, is_outermost, work):
    """Combine a stored forward state with what the backward filter predicted there; return whether it worked."""
    x = load_parameters(p.out.state_params, state, 0)
    c = load_covariance(p.out.state_covariance, state, 0)
    sound = True
    if not is_outermost:
        near = load_parameters(p.predicted, state, _PARAMETERS)
        phi = x.phi + wrap_angle(near.phi - x.phi)
        near = BoundParameters(loc0=near.loc0, loc1=near.loc1, phi=phi, theta=near.theta, qop=near.qop)
        x, c, sound = combine_estimates(near, load_covariance(p.predicted, state, _COVARIANCE), x, c, work)
        _store(p.out.state_params, p.out.state_covariance, state, x, c)
    p.out.state_chi2[state] = _state_chi2(p, state, x, c)
    return sound and _is_sound(x, c)


@device_function(inlined=True)
def _smooth_states(p, entries, first, last, end, work):
    """Smooth the states from end - 1 down to `last`, but for `first`; return the one where it failed, or -1.

    In a loop of its own: together with the filter's they are more numbers than a GPU has registers for.
    """
    ends_measured = p.candidates.code[entries.end - 1] >= 0
    for back in range(end - max(last, np.int32(first + 1))):
        state = np.int32(end - 1 - back)
        if not _smooth(p, state, back == 0 and ends_measured, work):
            return state
    return np.int32(-1)


@device_function(inlined=True)
def _worst_state(p, i, ndf):
    """Return the state of track i to be left out, -1 if there is none: the largest chi2 above the limit.

    What is left must be more than the parameters need.
    """
    worst = np.int32(-1)
    largest = p.outlier_chi2
    for state in range(p.tracks.state_offsets[i], p.tracks.state_offsets[i + 1]):
        is_free = p.out.is_outlier[state] == 0 and ndf > p.measurements.dimensions[p.out.measurement[state]]
        if is_free and p.out.state_chi2[state] > largest:
            worst = np.int32(state)
            largest = p.out.state_chi2[state]
    return worst


@device_function(inlined=True)
def _kinks(p, entries):
    """Return the number of kinks of a candidate."""
    n = np.int32(0)
    for k in range(entries.first, entries.end):
        if is_kink(p, p.candidates.code[k]):
            n = np.int32(n + 1)
    return n


@device_function(inlined=True)
def _blank_states(p, entries, state):
    """Write zeros to the states of a track whose fit failed; they still name their measurements."""
    for k in range(entries.first, entries.end):
        if p.candidates.code[k] >= 0:
            p.out.measurement[state] = p.candidates.code[k]
            for j in range(np.int32(N_PARAMETERS)):
                p.out.state_params[state, j] = ZERO
            for j in range(np.int32(N_COVARIANCE)):
                p.out.state_covariance[state, j] = ZERO
            p.out.state_chi2[state] = ZERO
            state = np.int32(state + 1)


@kernel(scratch=(Scratch(COMBINATION_SCRATCH),), grain=8)
def fit_track(i, p, work):
    """Fit track i; writes only its rows and those of its states."""
    candidate = p.tracks.candidate[i]
    if p.tracks.state_offsets[i + 1] > p.out.measurement.shape[0]:
        return
    entries = _Entries(first=p.candidates.entry_offsets[candidate], end=p.candidates.entry_offsets[candidate + 1])
    first, end = p.tracks.state_offsets[i], p.tracks.state_offsets[i + 1]
    for state in range(first, end):
        p.out.is_outlier[state] = np.int32(0)
    seeds = p.candidates.start
    track = seed_track(p.detector.surfaces, seeds.module[candidate], seeds, candidate, p.seed_inflation)
    outcome, chi2, ndf = _SUCCESS, ZERO * p.mass, np.int32(0)
    n_outliers, worst = np.int32(-1), np.int32(-1)
    while n_outliers < 0 or worst >= 0:
        if worst >= 0:
            p.out.is_outlier[worst] = np.int32(1)
        n_outliers = np.int32(n_outliers + 1)
        worst = np.int32(-1)
        track, outcome = _forward_from(p, candidate, entries, first)
        if outcome == _SUCCESS:
            track, chi2, ndf, outcome, last = _backward(p, track, entries, end)
            failed = _smooth_states(p, entries, first, last, end, work)
            if failed >= 0:
                outcome = _SMOOTHER
                track, chi2, ndf = _load_prediction(p, failed)
        if outcome == _SUCCESS:
            _store(p.out.state_params, p.out.state_covariance, first, track.params, track.covariance)
            p.out.state_chi2[first] = _state_chi2(p, first, track.params, track.covariance)
            if n_outliers < p.max_outliers:
                worst = _worst_state(p, i, ndf)
    if outcome == _SUCCESS and ndf <= 0:
        outcome = _NON_POSITIVE_NDF
    _store(p.out.params, p.out.covariance, i, track.params, track.covariance)
    x, c, alive = track_at_beam_line(p, track, surface_of(p, p.candidates.code[entries.first]))
    if outcome == _SUCCESS and not (alive and _is_sound(x, c)):
        outcome = _BACKWARD_PROPAGATION
    _store(p.out.perigee, p.out.perigee_covariance, i, x, c)
    if outcome != _SUCCESS:
        _blank_states(p, entries, p.tracks.state_offsets[i])
    p.out.n_outliers[i] = n_outliers
    p.out.n_kinks[i] = _kinks(p, entries)
    p.out.outcome[i] = outcome
    p.out.chi2[i] = chi2
    p.out.ndf[i] = ndf
    p.out.pval[i] = chi2_survival(chi2, ndf)


def _make_fitted(ws: Workspace, dtype: Any) -> FittedBatch:
    tracks, states = ws.extent("tracks"), ws.extent("track_states")
    return FittedBatch(
        measurement=ws.array("states.measurement", states, np.int32),
        state_params=ws.array("states.params", states, dtype, N_PARAMETERS),
        state_covariance=ws.array("states.covariance", states, dtype, N_COVARIANCE),
        state_chi2=ws.array("states.chi2", states, dtype),
        is_outlier=ws.array("states.is_outlier", states, np.int32),
        outcome=ws.array("tracks.outcome", tracks, np.int32),
        params=ws.array("tracks.params", tracks, dtype, N_PARAMETERS),
        covariance=ws.array("tracks.covariance", tracks, dtype, N_COVARIANCE),
        chi2=ws.array("tracks.chi2", tracks, dtype),
        ndf=ws.array("tracks.ndf", tracks, np.int32),
        pval=ws.array("tracks.pval", tracks, dtype),
        perigee=ws.array("tracks.perigee", tracks, dtype, N_PARAMETERS),
        perigee_covariance=ws.array("tracks.perigee_covariance", tracks, dtype, N_COVARIANCE),
        n_outliers=ws.array("tracks.n_outliers", tracks, np.int32),
        n_kinks=ws.array("tracks.n_kinks", tracks, np.int32),
    )


def fit_tracks(
    ws: Workspace,
    candidates: CandidateBatch,
    selection: TrackSelection,
    measurements: MeasurementBatch,
    detector: DetectorArrays,
    stacks: StackRanges,
    config: FittingConfig,
    kink: Kink,
) -> FittedBatch:
    """Fit the selected candidates.

    Parameters
    ----------
    ws : Workspace
        Buffers; extents "tracks" and "track_states".
    candidates : CandidateBatch
        Candidates with their entries.
    selection : TrackSelection
        Which of them to fit.
    measurements : MeasurementBatch
        Measurements of the batch.
    detector : DetectorArrays
        The detector on the device.
    stacks : StackRanges
        Ranges of its layers.
    config : FittingConfig
        Mass hypothesis, inflations and outliers.
    kink : Kink
        The size of kinks that track finding allowed for.

    Returns
    -------
    FittedBatch
        One row per selected candidate; a fit that failed says so in `outcome`.
    """
    dtype = candidates.chi2.dtype
    payload = _Payload(
        detector=detector_payload(detector, stacks, dtype.type),
        measurements=measurements,
        candidates=candidates,
        tracks=selection,
        mass=dtype.type(MASSES[config.particle]),
        seed_inflation=dtype.type(config.seed_inflation),
        backward_inflation=dtype.type(config.backward_inflation),
        outlier_chi2=dtype.type(config.outlier_chi2),
        max_outliers=np.int32(config.max_outliers),
        kink=kink,
        used_variance=ws.array("fitting.variance", ws.extent("track_states"), dtype, 2),
        predicted=ws.array("fitting.predicted", ws.extent("track_states"), dtype, _N_PREDICTED),
        out=_make_fitted(ws, dtype),
    )
    ws.launch(fit_track, ws.extent("tracks"), payload)
    return payload.out
