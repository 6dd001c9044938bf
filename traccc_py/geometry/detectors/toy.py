"""detray's toy detector: four pixel barrel layers and up to seven discs on each side, for comparison with traccc.

Facts from detray 7c3f18e, tests/include/detray/test/common/build_toy_detector.hpp and factories/. Volumes are numbered
as in detray (beam pipe; negative discs, barrel layers, positive discs, each followed by a gap), plus 1 because
volume 0 of an Acts id means "all"; layer 2; sensitive from 1 in detray's order.
"""

from __future__ import annotations

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.detector import Detector, assemble_detector
from traccc_py.geometry.digitization import Design, Digitization, symmetric_axes
from traccc_py.geometry.material.material import BERYLLIUM_TML, SILICON_TML, Material
from traccc_py.geometry.records import LayerKind, Shape
from traccc_py.geometry.surfaces import PassiveSurface, Surfaces, encode_geometry_id

__all__ = ["build_toy"]

_BARREL_LAYERS = ((32.0, 16), (72.0, 32), (116.0, 52), (172.0, 78))  # radius, n_phi
_BARREL_N_Z, _BARREL_Z_STEP = 14, 70.0
_BARREL_TILT, _BARREL_STAGGER = 0.14, 0.25
_BARREL_HALF_LENGTH = 500.0
_BARREL_HALF_X, _BARREL_HALF_Y = 8.4, 36.0
_DISC_Z = (600.0, 700.0, 820.0, 960.0, 1100.0, 1300.0, 1500.0)
_RINGS = ((66.5, 40, -1.0, 3.0, 9.5), (139.5, 68, 1.0, 6.0, 10.0))  # radius, n_phi, shift in z, hx inner, hx outer
_RING_HALF_Y = 39.0
_PHI_STAGGER, _PHI_SUB_STAGGER = 2.0, 0.5
_PIPE_RADIUS, _PIPE_THICKNESS = 19.0, 0.8
_LAYER = 2
_SENSOR_THICKNESS = 0.15  #: of the active silicon [mm]
#: 50 um pixels over the largest sensor of each kind and 0.5 mm beyond.
_BARREL_AXES, _DISC_AXES = symmetric_axes(8.9, 356, 36.5, 1460), symmetric_axes(10.5, 420, 39.5, 1580)


def build_toy(
    *,
    n_barrel_layers: int = 4,
    n_endcap_layers: int = 3,
    material: Material | None = SILICON_TML,
    material_thickness: float = 1.5,
    digitization: str | Digitization | None = None,
    b_field_z: float = 2.0,
) -> Detector:
    """Build the toy detector.

    Parameters
    ----------
    n_barrel_layers : int, optional
        1 to 4.
    n_endcap_layers : int, optional
        Discs on each side, 0 to 7 (traccc's toy simulation has 7).
    material : Material or None, optional
        Of the modules; None: modules without material.
    material_thickness : float, optional
        Of the modules [mm].
    digitization : str, Digitization or None, optional
        Readout; None: 50 um square pixels.
    b_field_z : float, optional
        Field along z [T].

    Returns
    -------
    Detector
        With 2492 sensors in the full barrel and 216 in each pair of discs.

    Raises
    ------
    GeometryError
        If a number of layers is out of range.
    """
    for text, n, low, high in (
        ("n_barrel_layers", n_barrel_layers, 1, len(_BARREL_LAYERS)),
        ("n_endcap_layers", n_endcap_layers, 0, len(_DISC_Z)),
    ):
        if not low <= n <= high:
            msg = f"{text} is {n}; expected {low} to {high}"
            raise GeometryError(msg)
    slab = tuple((material or SILICON_TML).slab(material_thickness if material else 0.0))
    first_barrel = 1 + 2 * n_endcap_layers
    first_positive = first_barrel + 2 * n_barrel_layers + 1
    parts, names = [], {}
    for i in range(n_barrel_layers):
        names[first_barrel + 2 * i + 1] = "barrel"
        parts.append(_barrel_layer(i, first_barrel + 2 * i + 1, slab))
    for i in range(n_endcap_layers):
        for side, first, name in ((-1, 1, "endcap -"), (1, first_positive, "endcap +")):
            names[first + 2 * i + 1] = name
            parts += _disc(i, side, first + 2 * i + 1, slab)
    pipe_end = _DISC_Z[n_endcap_layers - 1] if n_endcap_layers else _BARREL_HALF_LENGTH
    pipe = PassiveSurface(
        "beam pipe",
        LayerKind.CYLINDER,
        _PIPE_RADIUS,
        -pipe_end,
        pipe_end,
        _PIPE_THICKNESS,
        BERYLLIUM_TML.slab(_PIPE_THICKNESS),
    )
    chosen = digitization
    if chosen is None:
        designs = [Design(0, 0, 0, _DISC_AXES, _SENSOR_THICKNESS)]
        designs += [Design(v, 0, 0, _BARREL_AXES, _SENSOR_THICKNESS) for v, name in names.items() if name == "barrel"]
        chosen = Digitization(f"toy-{n_barrel_layers}-{n_endcap_layers}", tuple(designs))
    return assemble_detector("toy", Surfaces.concatenate(parts), [pipe], chosen, b_field_z, volume_names=names)


def _barrel_layer(i_layer: int, volume: int, slab: tuple[float, ...]) -> Surfaces:
    radius, n_phi = _BARREL_LAYERS[i_layer]
    i_z, i_phi = (a.ravel() for a in np.meshgrid(np.arange(_BARREL_N_Z), np.arange(n_phi), indexing="ij"))
    phi = -np.pi + (i_phi + 0.5) * 2 * np.pi / n_phi
    r = radius + np.where(i_z % 2 == 0, _BARREL_STAGGER, -_BARREL_STAGGER)
    z = (i_z - (_BARREL_N_Z - 1) / 2) * _BARREL_Z_STEP
    zero = np.zeros_like(phi)
    u = np.stack([-np.sin(phi + _BARREL_TILT), np.cos(phi + _BARREL_TILT), zero], axis=1)
    return Surfaces.planes(
        encode_geometry_id(volume, _LAYER, 1 + np.arange(len(phi))),
        np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1),
        u,
        np.stack([zero, zero, zero + 1], axis=1),
        shape=Shape.RECTANGLE,
        hx_min=_BARREL_HALF_X,
        hx_max=_BARREL_HALF_X,
        hy=_BARREL_HALF_Y,
        thickness=_SENSOR_THICKNESS,
        slab=slab,
    )


def _disc(i_disc: int, side: int, volume: int, slab: tuple[float, ...]) -> list[Surfaces]:
    parts, first = [], 1
    for radius, n_phi, shift, hx_min, hx_max in _RINGS:
        i_phi = np.arange(n_phi)
        phi = -np.pi + (i_phi + 0.5) * 2 * np.pi / n_phi
        z = _DISC_Z[i_disc] + shift + np.where(i_phi % 2 == 0, _PHI_STAGGER, -_PHI_STAGGER)
        z += np.select([i_phi % 4 == 0, i_phi % 4 == 3], [_PHI_SUB_STAGGER, -_PHI_SUB_STAGGER], 0.0)  # noqa: PLR2004
        zero = np.zeros_like(phi)
        v = np.stack([np.cos(phi), np.sin(phi), zero], axis=1)
        w = np.stack([zero, zero, zero + side], axis=1)
        parts.append(
            Surfaces.planes(
                encode_geometry_id(volume, _LAYER, first + i_phi),
                np.stack([radius * np.cos(phi), radius * np.sin(phi), side * z], axis=1),
                np.cross(v, w),
                v,
                shape=Shape.TRAPEZOID,
                hx_min=hx_min,
                hx_max=hx_max,
                hy=_RING_HALF_Y,
                thickness=_SENSOR_THICKNESS,
                slab=slab,
            )
        )
        first += n_phi
    return parts
