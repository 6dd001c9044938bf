"""A telescope: parallel square planes, one after another."""

from __future__ import annotations

import math

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.detector import Detector, assemble_detector
from traccc_py.geometry.digitization import Design, Digitization, symmetric_axes
from traccc_py.geometry.material.material import SILICON_TML, Material
from traccc_py.geometry.records import Shape
from traccc_py.geometry.surfaces import Surfaces, encode_geometry_id

__all__ = ["build_telescope"]

_AXES = {"x": 0, "y": 1, "z": 2}
_VOLUME = 1
_PIXEL_PITCH = 0.05  #: [mm]
_MAX_PLANES = 2000  #: layer numbers in Acts ids have 12 bits and steps of 2


def build_telescope(
    *,
    n_planes: int = 9,
    spacing: float = 20.0,
    first_offset: float = 20.0,
    half_length: float = 100.0,
    axis: str = "x",
    material: Material | None = SILICON_TML,
    material_thickness: float = 0.5,
    sensor_thickness: float = 0.15,
    digitization: str | Digitization | None = None,
    b_field_z: float = 2.0,
) -> Detector:
    """Build a telescope.

    Parameters
    ----------
    n_planes : int, optional
        Number of planes, 1 or more.
    spacing : float, optional
        Distance between planes [mm].
    first_offset : float, optional
        Position of the first plane along the axis [mm].
    half_length : float, optional
        Half the side of the square planes [mm].
    axis : {"x", "y", "z"}, optional
        Normal of the planes; local axes are the next two in cyclic order: normal x has u = y, v = z.
    material : Material or None, optional
        Of the planes; None: no material.
    material_thickness : float, optional
        Of the planes [mm].
    sensor_thickness : float, optional
        Of the active silicon [mm].
    digitization : str, Digitization or None, optional
        Readout; None: 50 um square pixels.
    b_field_z : float, optional
        Field along z [T].

    Returns
    -------
    Detector
        Plane i has volume 1, layer 2 (i + 1), sensitive 1 in its geometry id.

    Raises
    ------
    GeometryError
        If a value is impossible.
    """
    if axis not in _AXES:
        msg = f"axis is {axis!r}; expected 'x', 'y' or 'z'"
        raise GeometryError(msg)
    if n_planes not in range(1, _MAX_PLANES + 1):
        msg = f"n_planes is {n_planes!r}; expected an integer from 1 to {_MAX_PLANES}"
        raise GeometryError(msg)
    if not all(0 < value < math.inf for value in (spacing, half_length, sensor_thickness)):
        msg = (
            f"spacing {spacing}, half_length {half_length} and sensor_thickness {sensor_thickness} must be > 0 mm and "
            "finite"
        )
        raise GeometryError(msg)
    if not 0 <= material_thickness < math.inf:
        msg = f"material_thickness is {material_thickness} mm; expected a finite number >= 0"
        raise GeometryError(msg)
    i_normal = _AXES[axis]
    offsets = first_offset + spacing * np.arange(n_planes)
    unit = np.eye(3)
    surfaces = Surfaces.planes(
        encode_geometry_id(_VOLUME, 2 * (1 + np.arange(n_planes)), 1),
        offsets[:, None] * unit[i_normal],
        np.tile(unit[(i_normal + 1) % 3], (n_planes, 1)),
        np.tile(unit[(i_normal + 2) % 3], (n_planes, 1)),
        shape=Shape.RECTANGLE,
        hx_min=half_length,
        hx_max=half_length,
        hy=half_length,
        thickness=sensor_thickness,
        slab=tuple((material or SILICON_TML).slab(material_thickness if material else 0.0)),
    )
    n_pixels = math.ceil(round(2 * half_length / _PIXEL_PITCH, 6))
    half_grid = n_pixels * _PIXEL_PITCH / 2
    design = Design(0, 0, 0, symmetric_axes(half_grid, n_pixels, half_grid, n_pixels), sensor_thickness)
    chosen = Digitization("telescope", (design,)) if digitization is None else digitization
    parts = Surfaces.concatenate([surfaces])
    return assemble_detector(
        "telescope", parts, [], chosen, b_field_z, are_planes=True, volume_names={_VOLUME: "plane"}
    )
