"""The Open Data Detector in Acts: built by its Python interface from the sensors of this package; ids both ways.

Needs `pyacts` (the extra acts). The material of each module is on its sensor, as here; beam pipe and supports, which
are passive layers here, are left out, so the detector of a comparison is `without_passive`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traccc_py.geometry.detector import Detector, assemble_detector
from traccc_py.geometry.detectors.odd import DEFAULT_FIELD, VOLUME_NAMES
from traccc_py.geometry.material.material import SILICON
from traccc_py.geometry.records import Shape
from traccc_py.geometry.surfaces import decode_geometry_id

VERSION = "48."  #: of pyacts that this is made for
_PARTS = {"Pixel": (16, 17, 18), "ShortStrip": (23, 24, 25), "LongStrip": (28, 29, 30)}
_PIXEL_DISCS = (16, 18)  #: a lookup by bins misses some of their sensors
_BEAM_PIPE, _WORLD_R, _HALF_LENGTH = 26.0, 20.0, 3200.0  # [mm]
_MARGIN = 2.0  #: of layers around their sensors [mm]
_SILICON_L0, _SILICON_A, _SILICON_Z = 465.2, 28.0855, 14.0  # interaction length [mm]
_SAME_PLACE = 3  #: decimals of positions [mm]
_MM3_PER_CM3 = 1e3


class ActsDetector(NamedTuple):
    """The detector in Acts."""

    geometry: Any
    context: Any
    ids: dict[int, int]  # ours by those of Acts


def without_passive() -> Detector:
    """Return the Open Data Detector without passive layers."""
    from traccc_py.geometry.detectors.odd import odd_surfaces

    return assemble_detector("odd", odd_surfaces(), [], "odd-current", DEFAULT_FIELD, volume_names=VOLUME_NAMES)


def import_acts() -> Any:
    """Return Acts.

    Raises
    ------
    ConfigError
        If it is not installed, or of another version.
    """
    from importlib.metadata import version

    from traccc_py.errors import ConfigError
    from traccc_py.extras import optional_module

    acts = optional_module("acts", "acts", "the comparison with Acts")
    for name in ("acts.json", "acts.examples", "acts.examples.json"):
        optional_module(name, "acts", "the comparison with Acts")
    if not (found := version("pyacts")).startswith(VERSION):
        msg = f'pyacts is {found}; expected {VERSION}*, for which this is made: pip install "traccc-py[acts]"'
        raise ConfigError(msg)
    return acts


def _surfaces(acts: Any, detector: Detector) -> list[Any]:
    """Return the sensors as surfaces of Acts."""
    s, made = detector.surfaces, []

    def vector(values: np.ndarray) -> Any:
        return acts.Vector3(*(float(x) for x in values))

    for i in range(len(s)):
        place = acts.Transform3(vector(s.centre[i]), acts.RotationMatrix3(*(vector(a[i]) for a in (s.u, s.v, s.w))))
        sizes = float(s.hx_min[i]), float(s.hx_max[i]), float(s.hy[i])
        is_trapezoid = s.shape[i] == Shape.TRAPEZOID
        bounds = acts.TrapezoidBounds(*sizes, 0.0) if is_trapezoid else acts.RectangleBounds(*sizes[1:])
        surface = acts.Surface.createPlane(place, bounds)
        surface.assignIsSensitive(True)
        made.append(surface)
    return made


def _policy(acts: Any, volume: int, *, is_disc: bool, points: np.ndarray) -> Any:
    """Return how a layer looks for its sensors: by bins, finer than they are, or one after another."""
    make, one_by_one = acts.NavigationPolicyFactory.make, acts.TryAllNavigationPolicy
    if volume in _PIXEL_DISCS:
        return make().add(one_by_one, one_by_one.Config(sensitives=True))
    by_bins = acts.SurfaceArrayNavigationPolicy
    phi = len(np.unique(np.round(np.arctan2(points[:, 1], points[:, 0]), 3)))
    if is_disc:
        bins = min(4 * len(np.unique(np.round(np.hypot(points[:, 0], points[:, 1])))), 40), min(2 * phi, 200)
    else:
        bins = min(2 * phi, 160), min(2 * len(np.unique(np.round(points[:, 2]))), 120)
    kind = by_bins.LayerType.Disc if is_disc else by_bins.LayerType.Cylinder
    config = by_bins.Config(layerType=kind, bins=bins)
    return make().add(one_by_one, one_by_one.Config(sensitives=False)).add(by_bins, config)


def build(detector: Detector) -> ActsDetector:
    """Build the detector in Acts.

    Parameters
    ----------
    detector : Detector
        The Open Data Detector.

    Raises
    ------
    ValueError
        If a sensor of Acts is none of ours.
    """
    acts = import_acts()
    context, axis = acts.GeometryContext.dangerouslyDefaultConstruct(), acts.AxisDirection
    config = acts.Blueprint.Config()
    config.envelope = acts.ExtentEnvelope(r=[0, _WORLD_R], z=[_WORLD_R, _WORLD_R])
    root = acts.Blueprint(config)
    top = root.addCylinderContainer("ODD", direction=axis.AxisR)
    pipe = acts.CylinderVolumeBounds(0, _BEAM_PIPE, _HALF_LENGTH)
    top.addStaticVolume(acts.Transform3.Identity(), pipe, name="BeamPipe")
    ids, centre = decode_geometry_id(detector.geometry_ids), detector.surfaces.centre
    surfaces = _surfaces(acts, detector)
    for name, volumes in _PARTS.items():
        part = top.addCylinderContainer(name, direction=axis.AxisZ)
        for volume in volumes:
            is_disc = volume != volumes[1]
            numbered = part.withGeometryIdentifier().setAllVolumeIdsTo(volume)
            direction = axis.AxisZ if is_disc else axis.AxisR
            container = numbered.addCylinderContainer(f"{name}_{volume}", direction=direction)
            for layer in np.unique(ids.layer[ids.volume == volume]).tolist():  # ordered outwards and along z
                rows = np.flatnonzero((ids.volume == volume) & (ids.layer == layer))
                node = container.withGeometryIdentifier().setLayerIdTo(layer).addLayer(f"{name}_{volume}_{layer}")
                node.surfaces = [surfaces[row] for row in rows]
                kinds = acts.LayerBlueprintNode.LayerType
                node.layerType = kinds.Disc if is_disc else kinds.Cylinder
                node.envelope = acts.ExtentEnvelope(r=[_MARGIN, _MARGIN], z=[_MARGIN, _MARGIN])
                node.navigationPolicyFactory = _policy(acts, volume, is_disc=is_disc, points=centre[rows])
    geometry = root.construct(acts.BlueprintOptions(), context, acts.logging.WARNING)
    return ActsDetector(geometry, context, _ids(geometry, context, detector))


def _place(position: Any) -> tuple[float, ...]:
    return tuple(round(float(position[k]), _SAME_PLACE) + 0.0 for k in range(3))


def _ids(geometry: Any, context: Any, detector: Detector) -> dict[int, int]:
    """Return our ids by those of Acts: sensors at one place are one."""
    ours = {_place(c): int(i) for c, i in zip(detector.surfaces.centre, detector.geometry_ids, strict=True)}
    found = {}
    for key, surface in geometry.geoIdSurfaceMap().items():
        if surface.isSensitive:
            found[int(key.value)] = ours.get(_place(surface.center(context)), -1)
    if -1 in found.values() or len(set(found.values())) != len(detector.geometry_ids):
        n = len(set(found.values()) - {-1})
        msg = f"{n} of {len(detector.geometry_ids)} sensors are at the places of those of Acts"
        raise ValueError(msg)
    return found


def _assignments(acts_ids: dict[int, int], detector: Detector) -> Iterator[dict[str, Any]]:
    molar = 2.329 / _SILICON_A / _MM3_PER_CM3  # [mol / mm^3]
    material = {
        "kind": "material",
        "radiation_length": SILICON.radiation_length,
        "interaction_length": _SILICON_L0,
        "relative_atomic_mass": _SILICON_A,
        "atomic_number": _SILICON_Z,
        "molar_density": molar,
        "molar_electron_density": molar * _SILICON_Z,
        "mean_excitation_energy": SILICON.excitation_energy * 1e-9,
    }
    settings = {"mapping_type": "default", "split_factor": 1.0}
    row_of = {int(i): k for k, i in enumerate(detector.geometry_ids)}
    for theirs, ours in acts_ids.items():
        parts = decode_geometry_id(np.uint64(theirs))
        target = {"volume": int(parts.volume), "layer": int(parts.layer), "sensitive": int(parts.sensitive)}
        thickness = float(detector.surfaces.slab[row_of[ours], 0]) * SILICON.radiation_length
        yield {
            "target": {"kind": "geometry-id", "geometry_id": target},
            "material": {
                "kind": "homogeneous",
                "settings": settings,
                "slab": {"material": material, "thickness": thickness},
            },
        }


def add_material(made: ActsDetector, detector: Detector, path: Path) -> None:
    """Give each sensor of Acts the radiation length of our module, as silicon, by a JSON file written to `path`."""
    acts = import_acts()
    units = {"length": "mm", "angle": "rad", "energy": "GeV", "material_amount": "mol"}
    header = {"format": "acts-material-map", "version": 1, "units": units}
    path.write_text(json.dumps({"header": header, "surfaces": list(_assignments(made.ids, detector))}))
    acts.json.TrackingGeometryMaterialJsonConverter().fromFile(path).apply(made.geometry)
