"""What a picture of an event shows: detector, spacepoints, seeds, tracks, true particles, thinned to what is readable.

Positions are global [mm]. What is left out of large events is said in `notes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.data.words import counted
from traccc_py.edm import LOC0, LOC1, EventResult
from traccc_py.geometry.detector import Detector
from traccc_py.geometry.records import LayerKind
from traccc_py.geometry.surfaces import decode_geometry_id
from traccc_py.performance.match import TruthMatch

__all__ = ["Limits", "described", "detector_parts", "make_scene"]

_ENDS = (" barrel", " endcap -", " endcap +")  #: of names of volumes, whose beginning is the kind of sensor
_MERGED = 2.0  #: sensors whose lines differ by less are drawn once [mm]
_FEWEST_HITS = 3  #: of a true particle that is drawn
_SEED_NUMBERS = 9  #: of three positions
_CIRCLE = 49  #: points of a circle


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of an event is drawn."""

    tracks: int = 3000  #: those of highest pT
    spacepoints: int = 20_000  #: every nth
    seeds: int = 3000  #: every nth
    particles: int = 3000  #: those of highest pT


def make_scene(
    result: EventResult, detector: Detector, found: TruthMatch | None = None, limits: Limits | None = None
) -> dict[str, Any]:
    """Return what is drawn of an event, ready for JSON.

    Parameters
    ----------
    result : EventResult
        The event.
    detector : Detector
        Its detector.
    found : TruthMatch, optional
        Its tracks beside the truth.
    limits : Limits, optional
        How much is drawn.
    """
    limits = limits or Limits()
    notes: list[str] = []
    return {
        "detector": {"name": detector.name, "field": detector.b_field_z, "parts": detector_parts(detector)},
        "counts": {name: int(n) for name, n in result.counts().items()},
        "spacepoints": _spacepoints(result, limits, notes),
        "seeds": _seeds(result, limits, notes),
        "tracks": _tracks(result, found, limits, notes),
        "particles": [] if found is None else _particles(found, limits, notes),
        "has_truth": found is not None,
        "notes": notes,
    }


def _rounded(values: np.ndarray, digits: int = 1) -> list[Any]:
    """Return numbers, (n,) or (n, k), for JSON; those that don't exist are None."""
    numbers = np.round(np.asarray(values, np.float64), digits)
    is_number = np.isfinite(numbers)
    if not is_number.all():
        numbers = numbers.astype(object)
        numbers[~is_number] = None
    return list(numbers.tolist())


def _kinds_of_sensors(detector: Detector) -> np.ndarray:
    """Return the kind of each sensor: the beginning of its volume's name, else how many coordinates it measures."""
    volumes = decode_geometry_id(detector.acts_ids).volume
    dimensions = detector.designs["dimensions"][np.maximum(detector.design_of_surface, 0)]
    kinds = np.where(dimensions == 1, "strips", "pixels").astype(object)
    for volume, name in detector.volume_names.items():
        for end in _ENDS:
            if name.endswith(end):
                kinds[volumes == volume] = name.removesuffix(end)
    return kinds


def detector_parts(detector: Detector) -> list[dict[str, Any]]:
    """Return the lines of each kind of sensor in the views: segments in r-z and x-y, circles and lines in 3D."""
    surfaces, kinds = detector.surfaces, _kinds_of_sensors(detector)
    layer_kind = detector.layers["kind"][detector.layer_of_surface]
    is_barrel = layer_kind == LayerKind.CYLINDER
    width = 0.5 * (surfaces.hx_min + surfaces.hx_max)[:, None]
    along_u = np.stack([surfaces.centre - width * surfaces.u, surfaces.centre + width * surfaces.u], axis=1)
    half = surfaces.hy[:, None]
    along_v = np.stack([surfaces.centre - half * surfaces.v, surfaces.centre + half * surfaces.v], axis=1)
    rz = np.stack([along_v[..., 2], np.hypot(along_v[..., 0], along_v[..., 1])], axis=-1)
    parts = []
    for kind in dict.fromkeys(kinds[surfaces.is_sensitive].tolist()):
        of_kind = (kinds == kind) & surfaces.is_sensitive
        xy = along_u[of_kind & is_barrel][..., :2] if (of_kind & is_barrel).any() else along_u[of_kind][..., :2]
        if is_barrel.any() and not (of_kind & is_barrel).any():
            xy = xy[:0]
        layers = np.unique(detector.layer_of_surface[of_kind])
        parts.append(
            {
                "name": str(kind),
                "rz": _rounded(_once(rz[of_kind]).reshape(-1, 4)),
                "xy": _rounded(_once(xy).reshape(-1, 4)),
                "lines": [_rounded(line) for layer in layers.tolist() for line in _layer_lines(detector, layer)],
            }
        )
    return parts


def _once(segments: np.ndarray) -> np.ndarray:
    """Return segments of which no two are the same but for small shifts."""
    if len(segments) == 0:
        return segments
    key = np.round(segments.reshape(len(segments), -1) / _MERGED)
    return segments[np.sort(np.unique(key, axis=0, return_index=True)[1])]


def _layer_lines(detector: Detector, layer: int) -> list[np.ndarray]:
    """Return the circles of a layer, (n, 3) each, or the outlines of its sensors where layers are planes."""
    record, surfaces = detector.layers[layer], detector.surfaces
    rows = np.flatnonzero(detector.layer_of_surface == layer)
    angle = np.linspace(0, 2 * np.pi, _CIRCLE)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(_CIRCLE)], axis=1)
    points = surfaces[rows].points(2, 2)
    if record["kind"] == LayerKind.CYLINDER:
        radius = float(record["position"])
        return [radius * circle + [0, 0, z] for z in (points[..., 2].min(), points[..., 2].max())]
    if record["kind"] == LayerKind.DISC:
        r = np.hypot(points[..., 0], points[..., 1])
        return [radius * circle + [0, 0, float(record["position"])] for radius in (r.min(), r.max())]
    return [outline[[0, 1, 3, 2, 0]] for outline in points]


def _every(n: int, most: int, what: str, notes: list[str]) -> slice:
    """Return which of n are drawn."""
    step = max(1, -(-n // most)) if most else 1
    if step > 1:
        notes.append(f"{len(range(0, n, step)):,} of {n:,} {what} are drawn: every {step}th")
    return slice(None, None, step)


def _spacepoints(result: EventResult, limits: Limits, notes: list[str]) -> list[Any]:
    position = result.spacepoints.global_position
    return _rounded(position[_every(len(position), limits.spacepoints, "spacepoints", notes)])


def _seeds(result: EventResult, limits: Limits, notes: list[str]) -> list[Any]:
    seeds, position = result.seeds, result.spacepoints.global_position
    triplets = np.stack([seeds.bottom_index, seeds.middle_index, seeds.top_index], axis=1)
    triplets = triplets[_every(len(triplets), limits.seeds, "seeds", notes)]
    return _rounded(position[triplets].reshape(-1, _SEED_NUMBERS))


def _hardest(pt: np.ndarray, most: int, what: str, notes: list[str]) -> np.ndarray:
    """Return the rows of highest pT; those without one are last."""
    order = np.argsort(-np.nan_to_num(pt, nan=0.0), kind="stable")
    if len(order) > most:
        lowest = pt[order[most - 1]]
        notes.append(f"{most:,} of {len(order):,} {what} are drawn: those with pT > {lowest:.2f} GeV")
    return order[:most]


def _tracks(result: EventResult, found: TruthMatch | None, limits: Limits, notes: list[str]) -> list[dict[str, Any]]:
    tracks, states, measurements = result.tracks, result.track_states, result.measurements
    measured = measurements.local_position[states.measurement_index]
    residual = (measured - states.params[:, [LOC0, LOC1]]).astype(np.float64)
    residual[measurements.dimensions[states.measurement_index] == 1, 1] = np.nan
    ids = decode_geometry_id(states.geometry_id)
    names = np.stack([ids.volume, ids.layer, ids.sensitive], axis=1).tolist()
    numbers = np.column_stack([1000.0 * residual, states.chi2])
    rows = _rounded(numbers, 2)
    position = _rounded(states.global_position)
    start = np.column_stack([-tracks.d0 * np.sin(tracks.phi), tracks.d0 * np.cos(tracks.phi), tracks.z0])
    starts = _rounded(start)
    values = {name: _rounded(column, 4) for name, column in _track_facts(result).items()}
    drawn = []
    for row in _hardest(tracks.pt, limits.tracks, "tracks", notes).tolist():
        of_track = range(*tracks.state_offsets[row : row + 2].tolist())
        track: dict[str, Any] = {"row": row, **{name: column[row] for name, column in values.items()}}
        track["start"] = starts[row]
        track["points"] = [position[k] for k in of_track]
        track["states"] = [[*names[k], *rows[k]] for k in of_track]
        if found is not None:
            track["truth"] = _truth_of(found, row)
        drawn.append(track)
    return drawn


def _track_facts(result: EventResult) -> dict[str, np.ndarray]:
    tracks = result.tracks
    names = ("pt", "pt_error", "eta", "phi", "charge", "d0", "d0_error", "z0", "z0_error", "chi2", "ndf", "pval")
    facts = {name: getattr(tracks, name) for name in names}
    return facts | {name: getattr(tracks, name) for name in ("n_measurements", "n_holes", "n_shared_measurements")}


def _truth_of(found: TruthMatch, row: int) -> dict[str, Any]:
    """Return what is known of a track's particle."""
    particle = int(found.particle_index[row])
    if particle < 0:
        return {"is_matched": False}
    particles = found.truth.particles
    return {
        "is_matched": bool(found.is_matched[row]),
        "particle_id": str(particles.particle_id[particle]),  # JSON's numbers have 53 bits
        "pdg": int(particles.particle_type[particle]),
        "pt": round(float(particles.pt[particle]), 4),
        "eta": round(float(particles.eta[particle]), 4),
        "purity": round(float(found.purity[row]), 3),
        "completeness": round(float(found.completeness[row]), 3),
    }


def _particles(found: TruthMatch, limits: Limits, notes: list[str]) -> list[dict[str, Any]]:
    """Return true particles with their vertex and hits, in the order in which they left them."""
    truth = found.truth
    particles, hits = truth.particles, truth.hits
    known = np.flatnonzero(truth.particle_of_hit >= 0)
    order = known[np.lexsort((known, hits.time[known], hits.index[known], truth.particle_of_hit[known]))]
    counts = np.bincount(truth.particle_of_hit[known], minlength=len(particles))
    first = np.concatenate(([0], np.cumsum(counts)))
    position, vertex = _rounded(hits.position), _rounded(particles.vertex)
    is_found = np.zeros(len(particles) + 1, bool)
    is_found[found.particle_index[found.is_matched]] = True
    rows = np.flatnonzero((counts >= _FEWEST_HITS) & (particles.charge != 0))
    pt, eta = _rounded(particles.pt, 4), _rounded(particles.eta, 4)
    return [
        {
            "pdg": int(particles.particle_type[row]),
            "pt": pt[row],
            "eta": eta[row],
            "is_found": bool(is_found[row]),
            "points": [vertex[row], *(position[k] for k in order[first[row] : first[row + 1]].tolist())],
        }
        for row in rows[_hardest(particles.pt[rows], limits.particles, "true particles", notes)].tolist()
    ]


def described(scene: dict[str, Any]) -> str:
    """Return the counts of a scene in words."""
    counts = scene["counts"]
    return ", ".join(
        counted(counts[f"n_{name}"], noun)
        for name, noun in (("spacepoints", "spacepoint"), ("seeds", "seed"), ("tracks", "track"))
    )
