"""The records of a detector, as NumPy structured types that kernels of both devices read.

All lengths in mm, energies in GeV. All fields are four bytes wide, so the records have no padding.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "DESIGN",
    "END_PATH_STEP",
    "LAYER",
    "MATERIAL_MAP",
    "MAX_CLUSTER_SIZE",
    "N_END_PATHS",
    "OUTLINE",
    "SLAB",
    "STACK",
    "SURFACE",
    "CartesianField",
    "CylindricalField",
    "DetectorArrays",
    "HomogeneousField",
    "LayerKind",
    "MapKind",
    "Shape",
]

LARGEST = 0  #: "size" of the largest sigma of all sizes, the first of its row in `DetectorArrays.path_sigmas`
MAX_CLUSTER_SIZE = 16  #: largest cluster size (in channels along an axis) in the variance table
#: Sigmas are tabulated at end paths (a path's projected length, in channels, less the channels of the cluster between
#: its first and its last one) of 0 to N_END_PATHS - 1 steps.
N_END_PATHS = 17
END_PATH_STEP = 0.25


class Shape(IntEnum):
    """Outline of a planar surface, in its local frame."""

    RECTANGLE = 0
    TRAPEZOID = 1
    ANNULUS = 2  #: between two circles around the beam and two lines through a focal point
    RING = 3  #: between two circles around the centre


class LayerKind(IntEnum):
    """Kind of a layer's reference surface."""

    CYLINDER = 0  #: around the z axis; position = radius
    DISC = 1  #: perpendicular to the z axis; position = z
    PLANE = 2  #: perpendicular to a fixed normal (telescopes); position = offset along the normal


class MapKind(IntEnum):
    """Coordinates of a material map."""

    CARTESIAN = 0  #: loc0, loc1
    POLAR = 1  #: r, phi on a plane: around the centre, for an annulus around its focal point
    CYLINDER = 2  #: phi, z


_SLAB = [
    ("thickness_in_x0", "f4"),  # thickness / radiation length, for perpendicular passage [1]
    ("bethe_xi", "f4"),  # 0.5 K (Z/A) rho thickness: energy scale of the Bethe formula at beta = 1 [GeV]
    ("excitation_energy", "f4"),  # mean excitation energy I [GeV]
    ("plasma_energy", "f4"),  # hbar omega_p, for the density effect [GeV]
]

#: The material at one point: a slab crossed at normal incidence.
SLAB = np.dtype(_SLAB)

#: Material that varies over a surface: bin (i0, i1) is slabs[first_slab + i0 + n0 * i1], i = (coordinate - low) scale.
MATERIAL_MAP = np.dtype(
    [
        ("kind", "i4"),  # MapKind
        ("first_slab", "i4"),
        ("n0", "i4"),
        ("n1", "i4"),
        ("low0", "f4"),  # lower edge; angles are taken within pi of the middle of their axis
        ("low1", "f4"),
        ("scale0", "f4"),  # 1 / width of a bin
        ("scale1", "f4"),
        ("middle", "f4"),  # of the axis of angles [rad]
    ]
)

#: Outline of an annulus or ring beyond its bounding box (hx, hy); 0 for other shapes. See `surfaces.Annulus`.
OUTLINE = ("focal", "beam_x", "beam_y", "r_min", "r_max", "half_opening", "phi_middle")

#: One planar surface. Global = centre + loc0 * u + loc1 * v; w = u x v is the normal.
SURFACE = np.dtype(
    [(f"{a}{b}", "f4") for a in "cuvw" for b in "xyz"]
    + [
        ("shape", "i4"),
        ("hx_min", "f4"),  # half width at loc1 = -hy
        ("hx_max", "f4"),  # half width at loc1 = +hy
        ("hy", "f4"),
        ("layer", "i4"),  # index of its layer
        ("design", "i4"),  # index of its digitisation design; -1: it has material and no readout
        *_SLAB,
        ("material_map", "i4"),  # number of the map that replaces the slab; 0: none
        *((name, "f4") for name in OUTLINE),
    ]
)

#: One layer: a reference surface, its extent and the grid that lists the sensitive surfaces near a point of it.
LAYER = np.dtype(
    [
        ("kind", "i4"),  # LayerKind
        ("position", "f4"),  # radius, z, or offset along the normal
        ("normal_x", "f4"),
        ("normal_y", "f4"),
        ("normal_z", "f4"),
        ("extent_min", "f4"),  # cylinder: z, disc: r; margins included. Planes have no limits
        ("extent_max", "f4"),
        ("is_sensitive", "i4"),  # 0: passive, has material of its own and no surfaces
        ("n_phi", "i4"),  # bins in phi over [-pi, pi), circular; 1 for planes
        ("n_other", "i4"),  # bins in z (cylinder) or r (disc)
        ("other_min", "f4"),
        ("other_max", "f4"),
        ("first_bin", "i4"),  # bin (i_phi, i_other) is bin_offsets[first_bin + i_phi * n_other + i_other]
        *_SLAB,  # passive layers only
        ("material_map", "i4"),  # number of the map that replaces the slab; 0: none
    ]
)

#: Layers of one kind in order of position; a track crosses them in this or in reverse order.
STACK = np.dtype([("kind", "i4"), ("first_layer", "i4"), ("n_layers", "i4")])

#: One digitisation design: a sensor's segmentation. Local position of a channel's centre = min + (channel + 0.5) pitch.
DESIGN = np.dtype(
    [
        ("n_channels0", "i4"),
        ("n_channels1", "i4"),
        ("min0", "f4"),
        ("min1", "f4"),
        ("pitch0", "f4"),
        ("pitch1", "f4"),
        ("dimensions", "i4"),  # 2, or 1 where one axis has a single channel (it measures loc0, or phi, only)
        ("thickness", "f4"),  # of the active silicon
        ("threshold", "f4"),  # smallest activation (path length in mm) that fires
        ("charge_smearing", "f4"),  # Gaussian noise of an activation [mm]
        ("is_digital", "i4"),  # 1: activations are 0 or 1
        ("is_polar", "i4"),  # 1: axes are r [mm] and phi [rad] around the focal point of an annulus or ring
    ]
)

#: A rectangle of dead channels of one surface. At the edge of the readout it ends nowhere.
DEAD_RANGE = np.dtype(
    [
        ("first0", "i4"),  # channels, the last one included
        ("last0", "i4"),
        ("first1", "i4"),
        ("last1", "i4"),
        ("min0", "f4"),  # its edges along the axes of the channels [mm]; of angles [rad]
        ("max0", "f4"),
        ("min1", "f4"),
        ("max1", "f4"),
    ]
)

_NO_MAP = np.zeros(1, MATERIAL_MAP)  # kernels can't take empty arrays
_NO_SLAB = np.zeros(1, SLAB)
_NO_DEAD_OFFSETS = np.zeros(1, np.int32)
_NO_DEAD_RANGE = np.zeros(1, DEAD_RANGE)


class HomogeneousField(NamedTuple):
    """A homogeneous field along z. Kernels distinguish the types of field by the number of members."""

    b_z: Any  # scalar [GeV / (e mm)]


class CartesianField(NamedTuple):
    """A field on a regular grid in x, y, z, linear between nodes; outside it is that of the nearest point inside."""

    b_z: Any  # scalar, at the origin [GeV / (e mm)]
    values: Any  # (nx, ny, nz, 3) float32, Bx, By, Bz [GeV / (e mm)]
    x_min: Any  # scalar, the first node [mm]
    y_min: Any
    z_min: Any
    nodes_per_x: Any  # scalar, inverse of the distance between nodes [1/mm]
    nodes_per_y: Any
    nodes_per_z: Any


class CylindricalField(NamedTuple):
    """A field without dependence on phi and without phi component, on a regular grid in r and z.

    It has Br / r instead of Br, so that Bx = x Br / r needs no direction, which is undefined on the axis.
    """

    b_z: Any  # scalar, at the origin [GeV / (e mm)]
    values: Any  # (nr, nz, 2) float32, Br / r [GeV / (e mm^2)], Bz [GeV / (e mm)]; the first row is at r = 0
    z_min: Any  # scalar, the first node [mm]
    nodes_per_r: Any  # scalar, inverse of the distance between nodes [1/mm]
    nodes_per_z: Any


class DetectorArrays(NamedTuple):
    """A detector as device arrays, made once, in `TrackingChain.initialize`."""

    surfaces: Any  # (n_surfaces,) SURFACE, ordered by geometry id; the index of a surface is its module index
    layers: Any  # (n_layers,) LAYER, ordered by stack, then position
    stacks: Any  # (n_stacks,) STACK
    bin_offsets: Any  # (n_bins + 1,) int32
    bin_surfaces: Any  # (bin_offsets[-1],) int32, surface indices, ascending in a bin
    designs: Any  # (n_designs,) DESIGN
    variances: Any  # (n_designs, 2, MAX_CLUSTER_SIZE + 1) float32, variance [mm^2] by axis and cluster size; 0: none
    path_sigmas: Any  # (n_designs, 2, MAX_CLUSTER_SIZE + 1, N_END_PATHS) float32, sigma [mm] by end path; 0: none
    translations: Any  # (n_surfaces, 2) float32, shift added to local positions [mm]
    field: Any  # HomogeneousField, CartesianField or CylindricalField, float32
    material_maps: Any = _NO_MAP  # (n_maps + 1,) MATERIAL_MAP, by number; 0: none
    slabs: Any = _NO_SLAB  # (n_slabs,) SLAB, of all maps
    dead_offsets: Any = _NO_DEAD_OFFSETS  # (n_surfaces + 1,) int32, first of each surface's dead_ranges; (1,): all live
    dead_ranges: Any = _NO_DEAD_RANGE  # (dead_offsets[-1],) DEAD_RANGE

    @property
    def b_z(self) -> Any:
        """Field along z at the origin, float32 [GeV / (e mm)]."""
        return self.field.b_z
