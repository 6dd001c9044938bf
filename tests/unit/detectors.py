"""Small detectors made straight from records, for tests of single stages."""

from __future__ import annotations

import numpy as np

from traccc_py.geometry.records import (
    DESIGN,
    LAYER,
    MAX_CLUSTER_SIZE,
    N_END_PATHS,
    STACK,
    SURFACE,
    DetectorArrays,
    HomogeneousField,
)

FIELD = 2.0 * 0.000299792458  # GeV / (e mm)


def make_design(n0, n1, min0, min1, pitch0, pitch1):
    """One segmentation; it has one dimension if an axis has one channel."""
    design = np.zeros(1, DESIGN)
    design["n_channels0"], design["n_channels1"] = n0, n1
    design["min0"], design["min1"] = min0, min1
    design["pitch0"], design["pitch1"] = pitch0, pitch1
    design["dimensions"] = 1 if 1 in (n0, n1) else 2
    return design


def make_detector(centres, axes_u, axes_v, designs, design_of=None, variances=None, translations=None):
    """A detector of rectangles without material, layers or navigation."""
    centres = np.asarray(centres, float)
    n = len(centres)
    surfaces = np.zeros(n, SURFACE)
    axes_u, axes_v = np.broadcast_to(axes_u, (n, 3)), np.broadcast_to(axes_v, (n, 3))
    for name, vectors in (("c", centres), ("u", axes_u), ("v", axes_v), ("w", np.cross(axes_u, axes_v))):
        for k, axis in enumerate("xyz"):
            surfaces[name + axis] = vectors[:, k]
    surfaces["hx_min"] = surfaces["hx_max"] = surfaces["hy"] = 1e4
    surfaces["design"] = 0 if design_of is None else design_of
    designs = np.concatenate(designs)
    if variances is None:
        variances = np.zeros((len(designs), 2, MAX_CLUSTER_SIZE + 1), np.float32)
    return DetectorArrays(
        surfaces=surfaces,
        layers=np.zeros(1, LAYER),
        stacks=np.zeros(1, STACK),
        bin_offsets=np.zeros(1, np.int32),
        bin_surfaces=np.zeros(0, np.int32),
        designs=designs,
        variances=np.asarray(variances, np.float32),
        path_sigmas=np.zeros((*np.shape(variances), N_END_PATHS), np.float32),
        translations=np.zeros((n, 2), np.float32) if translations is None else np.asarray(translations, np.float32),
        field=HomogeneousField(np.float32(FIELD)),
    )


def pad_module(n_modules, low_edge=-0.5, n_channels=10000):
    """`n_modules` copies of one module at the origin with square channels of 1 mm."""
    design = make_design(n_channels, n_channels, low_edge, low_edge, 1.0, 1.0)
    return make_detector(np.zeros((n_modules, 3)), (1.0, 0, 0), (0, 1.0, 0), [design])
