"""Write detectors as detray's JSON files: geometry with closed volumes, material, surface grids, and the readout."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.geometry.detector import Detector
from traccc_py.geometry.detray.content import DetrayContent, detray_content
from traccc_py.geometry.detray.schema import DetrayTag
from traccc_py.geometry.json_node import write_json
from traccc_py.geometry.surfaces import decode_geometry_id

__all__ = ["write_detray"]

_VERSION = "detray - 0.111.0"


def write_detray(detector: Detector, directory: str | Path, *, compress: bool = False) -> dict[str, Path]:
    """Write a detector as detray's JSON files.

    Parameters
    ----------
    detector : Detector
        Detector.
    directory : str or Path
        Folder; it is made if there is none. Files of the same names are replaced.
    compress : bool, optional
        Write ``.json.gz``.

    Returns
    -------
    dict of str to Path
        "geometry", "homogeneous_material", "surface_grids" and "digitization"; "material_maps" and "conditions" where
        the detector has maps or shifts.

    Notes
    -----
    `read_detray` returns the same detector from them if the sensors have Acts ids: ids, positions, layers, bins,
    material, readout. Without Acts ids the sensors get new identifiers, since these contain volume numbers, and volumes
    are new. The thickness of the active silicon is part of the readout. Fields are not in these files.

    Each layer has its own volume. The volumes tile a cylinder and are closed by portals, which have no material;
    layers that no plane or cylinder separates share a volume without a grid. A telescope is one cuboid. Volumes, and
    sensors in them, follow the order of the sensors' ids: traccc's CPU programs need it. A grid lists the sensors of a
    volume in each bin that they overlap, seen from the z axis. Materials are effective ones: X0, density and Z of a
    slab give its radiation lengths and mean energy loss by detray's formulas; L0 is a rough estimate. The files follow
    the format that traccc v1.6.0 writes, without the optional identifiers of surfaces.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    content = detray_content(detector)
    files = {
        DetrayTag.GEOMETRY: _geometry(content),
        DetrayTag.HOMOGENEOUS: _homogeneous(content),
        DetrayTag.GRIDS: _grids(content.surface_grids),
    }
    if content.material_maps:
        files[DetrayTag.MAPS] = _grids(content.material_maps)
    written = {
        tag: write_json(
            folder / f"{detector.name}_{tag}.json", _with_header(detector.name, tag, *parts), compress=compress
        )
        for tag, parts in files.items()
    }
    readout = folder / f"{detector.digitization.name}.json"
    written["digitization"] = write_json(readout, _digitization(detector), compress=compress)
    if np.any(detector.translations):
        shifts = folder / f"{detector.name}_conditions.json"
        written["conditions"] = write_json(shifts, _conditions(detector), compress=compress)
    return written


def _with_header(name: str, tag: str, counts: dict[str, int], data: dict[str, Any]) -> dict[str, Any]:
    common = {"version": _VERSION, "detector": name, "date": datetime.now(UTC).date().isoformat(), "tag": tag}
    return {"header": {"common": common, **counts}, "data": data}


def _geometry(content: DetrayContent) -> tuple[dict[str, int], dict[str, Any]]:
    counts = {"volume_count": len(content.volumes), "surface_count": sum(len(v["surfaces"]) for v in content.volumes)}
    return counts, {"volumes": content.volumes}


def _homogeneous(content: DetrayContent) -> tuple[dict[str, int], dict[str, Any]]:
    volumes = [{"volume_link": i, "surface_material": slabs} for i, slabs in enumerate(content.slabs)]
    n = sum(len(slabs) for slabs in content.slabs)
    return {"slab_count": n, "rod_count": 0, "slab_surface_count": n, "rod_surface_count": 0}, {"volumes": volumes}


def _grids(by_volume: dict[int, list[dict[str, Any]]]) -> tuple[dict[str, int], dict[str, Any]]:
    grids = [{"volume_link": volume, "grid_data": grids} for volume, grids in sorted(by_volume.items())]
    return {"grid_count": sum(len(g) for g in by_volume.values())}, {"grids": grids}


def _hierarchy_map(entries: list[dict[str, Any]]) -> dict[str, Any]:
    kind = {"format-version": 0, "value-identifier": "digitization-configuration"}
    return {"acts-geometry-hierarchy-map": kind, "entries": entries}


def _entry(numbers: tuple[int, int, int], geometric: dict[str, Any]) -> dict[str, Any]:
    keys = {k: n for k, n in zip(("volume", "layer", "sensitive"), numbers, strict=True) if n}
    return {**keys, "value": {"geometric": geometric}}


def _digitization(detector: Detector) -> dict[str, Any]:
    entries = []
    for design, record in zip(detector.digitization.designs, detector.designs, strict=True):
        axes = [
            {
                "bins": a.n_channels,
                "min": a.minimum,
                "max": a.maximum,
                "option": "open",
                "type": "equidistant",
                "value": f,
            }
            for a, f in zip(design.axes, ("binR", "binPhi") if design.is_polar else ("binX", "binY"), strict=True)
        ]
        geometric = {
            "segmentation": {"binningdata": axes},
            "thickness": float(record["thickness"]) if design.thickness is None else design.thickness,
            "threshold": design.threshold,
            "digital": design.is_digital,
            "charge-smearing": {"type": "Gauss", "mean": 0.0, "stddev": design.charge_smearing},
        }
        entries.append(_entry((design.volume, design.layer, design.sensitive), geometric))
    return _hierarchy_map(entries)


def _conditions(detector: Detector) -> dict[str, Any]:
    ids = decode_geometry_id(detector.acts_ids)
    entries = [
        _entry((v, la, s), {"segmentation": {"binningdata": {"shift": shift}}})
        for v, la, s, shift, is_sensitive in zip(
            ids.volume.tolist(),
            ids.layer.tolist(),
            ids.sensitive.tolist(),
            detector.translations.astype(float).tolist(),
            detector.surfaces.is_sensitive.tolist(),
            strict=True,
        )
        if is_sensitive
    ]
    return _hierarchy_map(entries)
