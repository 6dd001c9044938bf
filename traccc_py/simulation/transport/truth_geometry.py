"""The detector for the simulation: float64 tables of planes and passive surfaces, without navigation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.geometry.records import MATERIAL_MAP, OUTLINE, SLAB, DetectorArrays, HomogeneousField
from traccc_py.simulation.transport.field_loop import truth_field

__all__ = ["MODULE", "PASSIVE", "TruthGeometry", "arrays_of", "channel_paths", "local_vectors", "truth_geometry"]

_SLAB = SLAB.names or ()
_NUMBERS = ("hx_min", "hx_max", "hy", *_SLAB, *OUTLINE)
_INTEGERS = ("shape", "material_map", "design")

#: A planar surface: centre, axes, half widths at loc1 = -hy and +hy, half length, material, outline of annuli; design
#: below 0: it is not read out.
MODULE = np.dtype(
    [(f"{a}{b}", "f8") for a in "cuvw" for b in "xyz"] + [(n, "f8") for n in _NUMBERS] + [(n, "i8") for n in _INTEGERS]
)
#: A passive surface: kind (LayerKind), radius, z or offset along the normal, range in z or r, material.
PASSIVE = np.dtype(
    [("kind", "i8"), ("material_map", "i8")]
    + [(n, "f8") for n in ("position", "normal_x", "normal_y", "normal_z", "extent_min", "extent_max", *_SLAB)]
)


class TruthGeometry(NamedTuple):
    """Tables for the compiled loops, in few arrays, since each makes calls slower."""

    modules: Any  # (n,) MODULE, in the order of the detector's surfaces
    spheres: Any  # (n, 4) float64: centre and radius of the sphere that holds the surface [mm]
    passives: Any  # (k,) PASSIVE
    b_z: float  # along z, or that of the map at the origin [GeV / (e mm)]
    maps: Any  # (m + 1,) MATERIAL_MAP with its edges in float64, by number
    slabs: Any  # (k, 4) float64, columns of SLAB
    field: Any = None  # TruthField, where the field is not homogeneous


def _vectors(records: np.ndarray, name: str) -> np.ndarray:
    return np.stack([records[f"{name}{axis}"].astype(np.float64) for axis in "xyz"], axis=1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _modules(surfaces: np.ndarray) -> np.ndarray:
    modules = np.zeros(len(surfaces), MODULE)
    u = _unit(_vectors(surfaces, "u"))
    v = _vectors(surfaces, "v")
    v = _unit(v - np.sum(v * u, axis=1, keepdims=True) * u)
    axes = {"c": _vectors(surfaces, "c"), "u": u, "v": v, "w": np.cross(u, v)}
    for name, vectors in axes.items():
        for column, axis in enumerate("xyz"):
            modules[f"{name}{axis}"] = vectors[:, column]
    for name in (*_NUMBERS, *_INTEGERS):
        modules[name] = surfaces[name]
    return modules


def arrays_of(detector: Any) -> DetectorArrays:
    """Return the arrays of a `Detector`, or the argument if it is already arrays."""
    return detector if isinstance(detector, DetectorArrays) else detector.arrays()


def truth_geometry(detector: Any) -> TruthGeometry:
    """Extract the simulation's tables from a detector.

    Parameters
    ----------
    detector : Detector or DetectorArrays
        Detector, or its arrays.

    Returns
    -------
    TruthGeometry
        Tables.

    Notes
    -----
    Positions are the float32 values of the reconstruction, so that their rounding does not act as misalignment; the
    axes are made orthonormal again in float64.
    """
    arrays = arrays_of(detector)
    modules = _modules(arrays.surfaces)
    layers = arrays.layers[arrays.layers["is_sensitive"] == 0]
    passives = np.zeros(len(layers), PASSIVE)
    for name in PASSIVE.names or ():
        passives[name] = layers[name]
    radius = np.hypot(np.maximum(modules["hx_min"], modules["hx_max"]), modules["hy"])
    return TruthGeometry(
        modules=modules,
        spheres=np.column_stack([modules["cx"], modules["cy"], modules["cz"], radius]),
        passives=passives,
        b_z=float(arrays.b_z),
        maps=_as_doubles(arrays.material_maps),
        slabs=np.stack([arrays.slabs[name].astype(np.float64) for name in _SLAB], axis=1),
        field=None if isinstance(arrays.field, HomogeneousField) else truth_field(arrays.field),
    )


def channel_paths(
    detector: Any, module_index: np.ndarray, momentum: np.ndarray, geometry: TruthGeometry | None = None
) -> np.ndarray:
    """Return the lengths of straight paths through sensors, projected to their axes.

    Parameters
    ----------
    detector : Detector or DetectorArrays
        Detector, or its arrays.
    module_index : ndarray of shape (n,)
        Sensors.
    momentum : ndarray of shape (n, 3)
        Global directions, of any length.
    geometry : TruthGeometry, optional
        `truth_geometry` of the detector, to avoid making it.

    Returns
    -------
    ndarray of shape (n, 2), float64
        Projected lengths in channels.
    """
    arrays = arrays_of(detector)
    local = local_vectors(geometry or truth_geometry(arrays), module_index, momentum)
    designs = arrays.designs[arrays.surfaces["design"][module_index]]
    pitch = np.stack([designs["pitch0"], designs["pitch1"]], axis=1).astype(np.float64)
    return designs["thickness"].astype(np.float64)[:, None] * np.abs(local[:, :2] / local[:, 2:]) / pitch


def _as_doubles(records: np.ndarray) -> np.ndarray:
    """Return records with eight bytes for each number."""
    return records.astype(np.dtype([(name, MATERIAL_MAP[name].kind + "8") for name in MATERIAL_MAP.names or ()]))


def local_vectors(geometry: TruthGeometry, module_index: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the components along u, v, w, shape (n, 3), of global vectors (n, 3) at modules (n,)."""
    modules = geometry.modules[module_index]
    return np.stack([np.sum(_vectors(modules, name) * vectors, axis=1) for name in "uvw"], axis=1)
