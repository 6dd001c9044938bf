"""Read detray's material files (homogeneous slabs and maps), and check surface grids.

A slab in a file has radiation length, atomic mass and number, and density. The mean excitation energy is detray's own
for such materials, 16 eV Z^0.9 (ATL-SOFT-PUB-2008-003); the plasma energy is that of the electron density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from traccc_py.geometry.detray.schema import MAX_LENGTH, DetrayGeometry, DetrayShape, DetrayTag, ordered
from traccc_py.geometry.json_node import JsonNode
from traccc_py.geometry.material.maps import MaterialMap
from traccc_py.geometry.material.material import PLASMA_CONSTANT
from traccc_py.geometry.records import MapKind
from traccc_py.units import bethe_constant, eV

__all__ = [
    "DENSITY_UNIT",
    "EXCITATION_CONSTANT",
    "EXCITATION_POWER",
    "SurfaceMaterial",
    "add_material",
    "check_surface_grids",
]

DENSITY_UNIT = 5.60958860e20  #: 1 g / cm^3 in GeV / mm^3 (c^2 / e, CODATA 2018)
EXCITATION_CONSTANT = 16 * eV
EXCITATION_POWER = 0.9
_SLAB_TYPE, _ROD_TYPE = 6, 7
_N_PARAMETERS = 7
_MAX_DENSITY = 1e3  #: [g / cm^3]
_MIN_CHARGE, _MAX_CHARGE = 0.1, 200.0
_MIN_MASS_PER_CHARGE = 0.1  #: 1.01 for hydrogen, about 2 for all others; much less would be a mistake
_MIN_X0 = 1e-3  #: [mm]
_MIN_RANGE = 1e-9  #: of an axis
_MAX_LINK = 2**64 - 1
_MAX_MAP_BINS = 2**20
_MAX_GRID_BINS = 2**31 - 1
_GRAM_PER_CM3 = 1e-3  #: in g / mm^3
_PLANES = {DetrayShape.RECTANGLE, DetrayShape.TRAPEZOID}
_DISCS = {DetrayShape.RING, DetrayShape.ANNULUS}
_CYLINDERS = {DetrayShape.CYLINDER, DetrayShape.CONCENTRIC_CYLINDER}
#: Type of a map -> coordinates, and shapes it fits.
_MAP_TYPES = {
    0: (MapKind.POLAR, _DISCS),
    1: (MapKind.CARTESIAN, _PLANES),
    3: (MapKind.CYLINDER, _CYLINDERS),
    4: (MapKind.CYLINDER, _CYLINDERS),
}
_ARC_MAP = 4  #: its first axis is r phi [mm]
_N_AXES = 2
_NO_MATERIAL = (0.0, 1.0, 1.0, 0.0, 0.0)


@dataclass(slots=True)
class SurfaceMaterial:
    """Material of the surfaces of a geometry file."""

    slab: np.ndarray  # (n_surfaces, 4) float64, columns of Slab; 0: none
    maps: dict[int, MaterialMap] = field(default_factory=dict)  # by surface, in the surface's own coordinates


def add_material(top: JsonNode, tag: str, geometry: DetrayGeometry, material: SurfaceMaterial) -> None:
    """Read a material file into `material`.

    Parameters
    ----------
    top : JsonNode
        Top level of the file.
    tag : str
        Its tag, "homogeneous_material" or "material_maps".
    geometry : DetrayGeometry
        The surfaces it belongs to.
    material : SurfaceMaterial
        Is filled.

    Raises
    ------
    GeometryError
        With file and key path, if it breaks the format, or a surface gets material twice.
    """
    if tag == DetrayTag.HOMOGENEOUS:
        _add_homogeneous(top, geometry, material)
    else:
        _add_maps(top, geometry, material)


def _volume(node: JsonNode, geometry: DetrayGeometry) -> int:
    return node.at("volume_link").integer(0, len(geometry.volume_names) - 1)


def _surface(node: JsonNode, volume: int, geometry: DetrayGeometry, material: SurfaceMaterial) -> int:
    """Return the global index of the surface with a given number within its volume."""
    first, end = geometry.first_surface[volume : volume + 2].tolist()
    if end == first:
        node.fail(f"is {node.shown()}, but volume {volume} has no surfaces")
    surface = int(first + node.integer(0, end - first - 1))
    if surface in material.maps or material.slab[surface].any():
        node.fail(f"surface {surface - first} of volume {volume} has material already")
    return surface


def _add_homogeneous(top: JsonNode, geometry: DetrayGeometry, material: SurfaceMaterial) -> None:
    surfaces, parameters, seen = [], [], set()
    for volume_node in top.at("data.volumes").items():
        volume = _volume(volume_node, geometry)
        entries = volume_node.get("surface_material") or volume_node.get("material_slabs")
        for node in ordered(entries.items(), "index_in_coll") if entries is not None else []:
            kind = node.get("type")
            if kind is not None and kind.integer(0, 8) == _ROD_TYPE:
                kind.fail("is 7, a rod; only slabs (6) are supported")
            index = node.at("surface_idx")
            surface = _surface(index, volume, geometry, material)
            if surface in seen:
                index.fail(f"surface {index.value} of volume {volume} has material already")
            seen.add(surface)
            surfaces.append(surface)
            parameters.append(_parameters(node))
    material.slab[surfaces] = _slabs(parameters)


def _parameters(node: JsonNode) -> tuple[float, float, float, float, float]:
    """Return (thickness, X0, A, Z, density in g / cm^3) of a slab record; without material thickness is 0."""
    thickness = node.at("thickness")
    t = thickness.number(MAX_LENGTH)
    if t < 0:
        thickness.fail(f"is {thickness.shown()}; expected 0 mm or more")
    params = node.at("material.params")
    found = params.value
    if isinstance(found, list) and found and (found[0] is None or found[0] == math.inf):
        return _NO_MATERIAL  # vacuum: JSON has no infinity, so libraries write null instead
    values = params.numbers(_N_PARAMETERS)
    x0, _, a, z, density = values[:5]
    if t == 0 or (z == 0 and density == 0):
        return _NO_MATERIAL
    density /= DENSITY_UNIT
    is_possible = x0 > _MIN_X0 and _MIN_CHARGE <= z <= _MAX_CHARGE and a >= _MIN_MASS_PER_CHARGE * z
    if not (is_possible and 0 <= density <= _MAX_DENSITY):
        params.fail(
            f"is {values}; expected X0 > {_MIN_X0} mm, L0, atomic mass >= {_MIN_MASS_PER_CHARGE} x atomic number, "
            f"atomic number {_MIN_CHARGE:g} to {_MAX_CHARGE:g}, a density of 0 to {_MAX_DENSITY * DENSITY_UNIT:.3g} "
            "GeV / mm^3, molar density, state"
        )
    return t, x0, a, z, density


def _slabs(parameters: list[tuple[float, float, float, float, float]]) -> np.ndarray:
    """Return slabs (n, 4) of rows (thickness, X0, A, Z, density)."""
    t, x0, a, z, density = np.array(parameters, np.float64).reshape(-1, 5).T
    electron_density = density * z / a
    xi = 0.5 * bethe_constant * electron_density * _GRAM_PER_CM3 * t
    out = np.stack(
        [t / x0, xi, EXCITATION_CONSTANT * z**EXCITATION_POWER, PLASMA_CONSTANT * np.sqrt(electron_density)], axis=1
    )
    return np.where((xi > 0)[:, None], out, 0.0)


def _add_maps(top: JsonNode, geometry: DetrayGeometry, material: SurfaceMaterial) -> None:
    for volume_node in top.at("data.grids").items():
        volume = _volume(volume_node, geometry)
        for grid in volume_node.at("grid_data").items():
            owner = grid.at("owner_link")
            surface = _surface(owner, volume, geometry, material)
            material.maps[surface] = _read_map(grid, surface, geometry)


def _read_map(grid: JsonNode, surface: int, geometry: DetrayGeometry) -> MaterialMap:
    type_node = grid.at("grid_link.type")
    grid.at("grid_link.index").integer(0, _MAX_LINK)
    kind, shapes = _MAP_TYPES.get(type_node.integer(0, 8), (None, set()))
    mask = geometry.masks[surface][0]
    if kind is None or mask.shape not in shapes:
        type_node.fail(f"is {type_node.shown()}, which does not fit the {mask.shape.name.lower()} of its surface")
    (n0, low0, high0), (n1, low1, high1) = _axes(grid, _MAX_MAP_BINS)
    if type_node.value == _ARC_MAP:
        low0, high0 = low0 / mask.boundaries[0], high0 / mask.boundaries[0]
    slabs = np.zeros((n0 * n1, 4))
    places, parameters = [], []
    for i0, i1, content in _bins(grid, n0, n1):
        slab = content.items()
        if len(slab) != 1:
            content.fail(f"has {len(slab)} slabs; expected one")
        places.append(i0 + n0 * i1)
        parameters.append(_parameters(slab[0]))
    slabs[places] = _slabs(parameters)
    return MaterialMap(kind, (n0, n1), (low0, low1), (high0, high1), slabs)


def _axes(grid: JsonNode, max_bins: int) -> list[tuple[int, float, float]]:
    """Return (number of bins, lower edge, upper edge) of the two axes of a grid."""
    axes = grid.at("axes").items()
    if len(axes) != _N_AXES:
        grid.at("axes").fail(f"has {len(axes)} axes; expected {_N_AXES}")
    found = []
    for label, axis in enumerate(axes):
        axis.at("label").integer(label, label)
        axis.at("bounds").integer(0, 2)
        is_irregular = axis.at("binning").integer(0, 1) == 1
        n = axis.at("bins").integer(1, max_bins)
        edges = axis.at("edges")
        count = n + 1 if is_irregular and isinstance(edges.value, list) and len(edges.value) != _N_AXES else _N_AXES
        values = edges.numbers(count, MAX_LENGTH)
        if not all(a < b for a, b in pairwise(values)) or not values[-1] - values[0] > _MIN_RANGE:
            edges.fail("does not ascend")
        found.append((n, float(values[0]), float(values[-1])))
    if found[0][0] * found[1][0] > max_bins:
        grid.at("axes").fail(f"has {found[0][0]} x {found[1][0]} bins; expected at most {max_bins}")
    return found


def _bins(grid: JsonNode, n0: int, n1: int) -> list[tuple[int, int, JsonNode]]:
    """Return indices and content of a grid's bins."""
    found, seen = [], set()
    for node in grid.at("bins").items():
        place = node.at("loc_index")
        indices = place.items()
        if len(indices) != _N_AXES:
            place.fail(f"has {len(indices)} indices; expected {_N_AXES}")
        i0, i1 = indices[0].integer(0, n0 - 1), indices[1].integer(0, n1 - 1)
        if (i0, i1) in seen:
            place.fail(f"is [{i0}, {i1}], as that of a bin before")
        seen.add((i0, i1))
        found.append((i0, i1, node.at("content")))
    return found


def check_surface_grids(top: JsonNode, geometry: DetrayGeometry) -> None:
    """Check a file of surface grids; they are not used, since `traccc_py.geometry.bins` makes its own bins.

    Raises
    ------
    GeometryError
        With file and key path, if it breaks the format or lists surfaces that do not exist.
    """
    for volume_node in top.at("data.grids").items():
        volume = _volume(volume_node, geometry)
        n_surfaces = int(np.diff(geometry.first_surface[volume : volume + 2])[0])
        for grid in volume_node.at("grid_data").items():
            grid.at("owner_link").integer(0, _MAX_LINK)
            grid.at("grid_link.type").integer(0, 6)
            (n0, _, _), (n1, _, _) = _axes(grid, _MAX_GRID_BINS)
            for _, _, content in _bins(grid, n0, n1):
                for surface in content.items():
                    surface.integer(0, n_surfaces - 1)
