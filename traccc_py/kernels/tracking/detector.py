"""What track finding and fitting read of a detector: the part of their payloads that they share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.tracking.magnetic_field import field_in_precision
from traccc_py.kernels.tracking.navigation import StackRanges

__all__ = ["DetectorPayload", "detector_payload"]


class DetectorPayload(NamedTuple):
    """Arrays and numbers of a detector; the arrays are those of `geometry.records.DetectorArrays`."""

    surfaces: Any  # (n_modules,) SURFACE
    layers: Any  # (n_layers,) LAYER
    bin_offsets: Any  # (n_bins + 1,) int32
    bin_surfaces: Any  # (bin_offsets[-1],) int32
    designs: Any  # (n_designs,) DESIGN
    path_sigmas: Any  # (n_designs, 2, sizes, end paths) [mm]
    material_maps: Any  # (n_maps + 1,) MATERIAL_MAP
    slabs: Any  # (n_slabs,) SLAB
    dead_offsets: Any  # (n_modules + 1,) int32; (1,): all channels work
    dead_ranges: Any  # (dead_offsets[-1],) DEAD_RANGE
    stacks: Any  # StackRanges
    n_modules: Any  # int32
    field: Any  # HomogeneousField, CartesianField or CylindricalField [GeV / (e mm)]


def detector_payload(detector: DetectorArrays, stacks: StackRanges, real: Any) -> DetectorPayload:
    """Return what track finding and fitting read of a detector.

    Parameters
    ----------
    detector : DetectorArrays
        The detector on the device.
    stacks : StackRanges
        Ranges of its layers.
    real : type
        Floating-point type of the kernel's other scalars.
    """
    return DetectorPayload(
        surfaces=detector.surfaces,
        layers=detector.layers,
        bin_offsets=detector.bin_offsets,
        bin_surfaces=detector.bin_surfaces,
        designs=detector.designs,
        path_sigmas=detector.path_sigmas,
        material_maps=detector.material_maps,
        slabs=detector.slabs,
        dead_offsets=detector.dead_offsets,
        dead_ranges=detector.dead_ranges,
        stacks=stacks,
        n_modules=np.int32(detector.surfaces.shape[0]),
        field=field_in_precision(detector.field, real),
    )
