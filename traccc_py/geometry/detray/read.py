"""Detectors from detray's JSON files: geometry, material, surface grids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.detector import Detector, assemble_detector
from traccc_py.geometry.detray.material import SurfaceMaterial, add_material, check_surface_grids
from traccc_py.geometry.detray.schema import (
    DetrayGeometry,
    DetrayTag,
    SurfaceKind,
    parse_geometry,
    read_header,
)
from traccc_py.geometry.detray.surfaces import PlanarSurfaces, passive_surfaces, planar_surfaces
from traccc_py.geometry.digitization import Axis, Design, Digitization, get_digitization
from traccc_py.geometry.json_node import JsonNode, paused_collector, read_json
from traccc_py.geometry.layer_keys import acts_layer_keys, are_parallel_planes, layer_keys, plane_keys
from traccc_py.geometry.layers import SurfacePoints
from traccc_py.geometry.material.maps import MaterialMap
from traccc_py.geometry.surfaces import Surfaces, decode_geometry_id, encode_geometry_id

__all__ = ["read_detray"]

_NO_SOURCE = (0, 2**64 - 1)
_MAX_ACTS_VOLUME = 255
_SENSOR_THICKNESS = 0.15  #: of the active silicon, if the digitisation has none [mm]
_PIXEL_PITCH = 0.05  #: [mm]
_EDGE = 0.5  #: that pixels reach beyond the largest sensor [mm]
_UNSAFE = re.compile(r"[^\w .+-]", re.ASCII)
_NAME_LENGTH = 64
_LAYER_NUMBER = re.compile(r" \d+/\d+(?: ring \d+)?$")


def read_detray(
    geometry_file: str | Path,
    material_file: str | Path | Sequence[str | Path] | None = None,
    grid_file: str | Path | None = None,
    *,
    digitization: str | Path | Digitization | None = None,
    conditions: str | Path | None = None,
    b_field_z: float = 2.0,
) -> Detector:
    """Read a detector from detray's JSON files (``.json`` or ``.json.gz``).

    Parameters
    ----------
    geometry_file : str or Path
        Geometry.
    material_file : str, Path, or sequence of them, optional
        Homogeneous material and material maps, distinguished by their headers.
    grid_file : str or Path, optional
        Surface grids. They are checked, but not used: navigation has its own bins.
    digitization : str, Path or Digitization, optional
        Readout designs by name or file; None: 50 um square pixels.
    conditions : str or Path, optional
        Acts conditions file with shifts of local positions.
    b_field_z : float, optional
        Homogeneous field along z [T].

    Returns
    -------
    Detector
        Named as in the files. Its primary ids are the Acts ids of the sensors ("source") if all have one and no two the
        same, else detray's identifiers; `Detector.module_index` understands both. Surfaces are in the order of their
        primary ids.

    Raises
    ------
    GeometryError
        With file and key path, if a file breaks the format or does not belong to the geometry; if a sensor is curved;
        if the surfaces can't be laid out in layers.

    Notes
    -----
    Layers are those of the Acts ids (volume, layer) if a track can cross them one after another and all planes are
    sensors, else see `layer_keys`.
    Cylinders around the z axis and discs with material, portals among them, become passive layers; other planar
    surfaces with material join a layer as surfaces without readout. Passive surfaces without material are left out.
    Without Acts ids, readout designs are looked up by the number of detray's volume plus 1.
    """
    with paused_collector():
        top, geometry, material = _read_files(geometry_file, material_file, grid_file)
    chosen = None if digitization is None else get_digitization(digitization)
    try:
        detector = _build(top, geometry, material, chosen, b_field_z)
    except GeometryError as error:
        if str(error).startswith(str(top.file)):
            raise
        msg = f"{top.file}: data: {error}"
        raise GeometryError(msg) from error
    return detector if conditions is None else detector.with_conditions(conditions)


def _read_files(
    geometry_file: str | Path,
    material_file: str | Path | Sequence[str | Path] | None,
    grid_file: str | Path | None,
) -> tuple[JsonNode, DetrayGeometry, SurfaceMaterial]:
    top = read_json(geometry_file)
    geometry = parse_geometry(top)
    material = SurfaceMaterial(np.zeros((len(geometry.kind), 4)))
    for path in _paths(material_file):
        node = read_json(path)
        tag = _checked_tag(node, [DetrayTag.HOMOGENEOUS, DetrayTag.MAPS], geometry)
        add_material(node, tag, geometry, material)
    if grid_file is not None:
        node = read_json(grid_file)
        _checked_tag(node, [DetrayTag.GRIDS], geometry)
        check_surface_grids(node, geometry)
    return top, geometry, material


def _paths(files: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    if files is None:
        return []
    return [files] if isinstance(files, str | Path) else list(files)


def _checked_tag(node: JsonNode, tags: Sequence[str], geometry: DetrayGeometry) -> str:
    tag, name = read_header(node, tags)
    if name != geometry.name:
        node.at("header.common.detector").fail(f"is {name!r}, but the geometry is that of {geometry.name!r}")
    return tag


def _build(
    top: JsonNode,
    geometry: DetrayGeometry,
    material: SurfaceMaterial,
    digitization: Digitization | None,
    b_field_z: float,
) -> Detector:
    maps: list[MaterialMap] = []
    planar = planar_surfaces(geometry, material, maps)
    is_sensitive = geometry.kind[planar.index] == SurfaceKind.SENSITIVE
    if not is_sensitive.any():
        top.at("data.volumes").fail("has no sensitive surface")
    detray_ids = geometry.identifiers[planar.index]
    source = geometry.source[planar.index]
    has_source = ~np.isin(source, np.array(_NO_SOURCE, np.uint64))
    is_acts = bool(has_source[is_sensitive].all()) and len(np.unique(source[is_sensitive])) == is_sensitive.sum()
    primary = np.where(is_sensitive & is_acts, source, detray_ids)
    order = np.argsort(primary, kind="stable")
    surfaces = _surfaces(planar, primary, is_sensitive)[order]
    surfaces.validate()
    volume = geometry.volume[planar.index][order]
    acts_ids = source[order] if is_acts else encode_geometry_id(np.minimum(volume + 1, _MAX_ACTS_VOLUME), 0, 0)
    keys, are_planes = _keys(surfaces, acts_ids, volume, is_acts=is_acts)
    chosen = _default_digitization(surfaces, acts_ids) if digitization is None else digitization
    return assemble_detector(
        _safe_name(geometry.name),
        surfaces,
        passive_surfaces(geometry, material, maps),
        chosen,
        b_field_z,
        are_planes=are_planes,
        layer_keys=keys,
        volume_names=_volume_names(geometry, keys[:, 0], volume),
        detray_ids=detray_ids[order],
        acts_ids=acts_ids,
        material_maps=maps,
    )


def _safe_name(name: str) -> str:
    """Return the detector's name without characters that are unsuitable in file names."""
    return _UNSAFE.sub("_", name)[:_NAME_LENGTH] or "detector"


def _surfaces(planar: PlanarSurfaces, ids: np.ndarray, is_sensitive: np.ndarray) -> Surfaces:
    return Surfaces(
        geometry_id=ids,
        centre=planar.centre,
        u=planar.u,
        v=planar.v,
        w=np.cross(planar.u, planar.v),
        shape=planar.shape,
        hx_min=planar.half_lengths[:, 0],
        hx_max=planar.half_lengths[:, 1],
        hy=planar.half_lengths[:, 2],
        thickness=np.full(len(ids), _SENSOR_THICKNESS),
        slab=planar.slab,
        material_map=planar.material_map,
        outline=planar.outline,
        is_sensitive=is_sensitive,
    )


def _keys(surfaces: Surfaces, acts_ids: np.ndarray, volume: np.ndarray, *, is_acts: bool) -> tuple[np.ndarray, bool]:
    """Return layer keys (n, 2), and whether layers are planes."""
    points = SurfacePoints.of(surfaces)
    if are_parallel_planes(surfaces):
        ids = decode_geometry_id(acts_ids)
        keys = np.stack([ids.volume, ids.layer], axis=1)
        places = plane_keys(surfaces)
        same = np.unique(np.column_stack([keys, places]), axis=0)
        is_one_to_one = len(same) == len(np.unique(keys, axis=0)) == len(np.unique(places, axis=0))
        return (keys if is_acts and is_one_to_one else places), True
    keys_of_ids = acts_layer_keys(surfaces, points, acts_ids) if is_acts and surfaces.is_sensitive.all() else None
    return (layer_keys(surfaces, points, volume) if keys_of_ids is None else keys_of_ids), False


def _volume_names(geometry: DetrayGeometry, key: np.ndarray, volume: np.ndarray) -> dict[int, str]:
    """Return a name for each volume number of the layer keys: that of its detray volumes, without counters."""
    names = {}
    for number in np.unique(key).tolist():
        found = {_LAYER_NUMBER.sub("", geometry.volume_name(v)) for v in np.unique(volume[key == number])}
        if len(found) == 1 and (name := found.pop()):
            names[number] = name
    return names


def _default_digitization(surfaces: Surfaces, acts_ids: np.ndarray) -> Digitization:
    """Return square pixels over the largest sensor of each volume."""
    volumes = decode_geometry_id(acts_ids).volume
    designs = []
    for volume in np.unique(volumes[surfaces.is_sensitive]).tolist():
        members = surfaces.is_sensitive & (volumes == volume)
        half_x = float(np.maximum(surfaces.hx_min, surfaces.hx_max)[members].max())
        half_y = float(surfaces.hy[members].max())
        designs.append(Design(volume, 0, 0, (_pixels(half_x), _pixels(half_y)), _SENSOR_THICKNESS))
    return Digitization("pixels", tuple(designs))


def _pixels(half_length: float) -> Axis:
    n = int(np.ceil(round(2 * (half_length + _EDGE) / _PIXEL_PITCH, 6)))
    return Axis(n, -n * _PIXEL_PITCH / 2, n * _PIXEL_PITCH / 2)
