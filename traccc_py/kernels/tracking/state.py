"""What kernels know of a track on its way, by name: vectors, directions, parameters, covariances, navigation, counters.

All are NamedTuples of scalars, which live in registers. Lengths in mm, angles in rad, momenta in GeV, charges in e.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.kernel import device_function
from traccc_py.edm.parameters import LOC0, LOC1, N_COVARIANCE, N_PARAMETERS, PHI, QOP, THETA

__all__ = [
    "AXIS0",
    "AXIS1",
    "BoundParameters",
    "Branch",
    "Counters",
    "Covariance",
    "Direction",
    "Gaps",
    "Jacobian",
    "Local",
    "Navigation",
    "Slab",
    "Track",
    "Vector",
    "load_covariance",
    "load_parameters",
    "store_covariance",
    "store_parameters",
]

AXIS0, AXIS1 = range(2)  #: columns of arrays with a value for each axis of a surface


class Vector(NamedTuple):
    """A global 3-vector: a position or displacement [mm], a unit vector, or a field [GeV / (e mm)]."""

    x: Any
    y: Any
    z: Any


class Local(NamedTuple):
    """A pair of values along the axes of a surface: lengths [mm], variances [mm^2] or numbers of channels."""

    loc0: Any
    loc1: Any


class Direction(NamedTuple):
    """The direction of a track: (sin(theta) cos(phi), sin(theta) sin(phi), cos(theta))."""

    sin_phi: Any
    cos_phi: Any
    sin_theta: Any
    cos_theta: Any


class BoundParameters(NamedTuple):
    """Track parameters on a plane, or one number for each of them."""

    loc0: Any  # [mm], along the first axis of the plane
    loc1: Any  # [mm]
    phi: Any  # [rad], of the direction
    theta: Any  # [rad]
    qop: Any  # charge over momentum [e/GeV]


class Covariance(NamedTuple):
    """The covariance of bound parameters: the lower triangle of a symmetric matrix, row by row."""

    loc0_loc0: Any
    loc1_loc0: Any
    loc1_loc1: Any
    phi_loc0: Any
    phi_loc1: Any
    phi_phi: Any
    theta_loc0: Any
    theta_loc1: Any
    theta_phi: Any
    theta_theta: Any
    qop_loc0: Any
    qop_loc1: Any
    qop_phi: Any
    qop_theta: Any
    qop_qop: Any


class Jacobian(NamedTuple):
    """Derivatives with respect to the start parameters: a column for each of them."""

    loc0: Any
    loc1: Any
    phi: Any
    theta: Any
    qop: Any


class Track(NamedTuple):
    """A track on a plane: that of a surface, or the one perpendicular to the track (curvilinear)."""

    position: Any  # Vector [mm]
    params: Any  # BoundParameters
    covariance: Any  # Covariance
    u: Any  # Vector, first axis of the plane
    v: Any  # Vector, second axis


class Slab(NamedTuple):
    """Material met at perpendicular passage; the fields of `geometry.records.SLAB`."""

    thickness_in_x0: Any  # [1]
    bethe_xi: Any  # energy scale of the Bethe formula at beta = 1 [GeV]
    excitation_energy: Any  # [GeV]
    plasma_energy: Any  # [GeV]


class Gaps(NamedTuple):
    """The place of a track in each stack of layers (`navigation`), int32."""

    cylinder: Any
    disc: Any
    plane: Any


class Navigation(NamedTuple):
    """Where track finding is between the surfaces."""

    gaps: Any  # Gaps
    bin_start: Any  # int32, first entry of the grid bin at hand
    untried: Any  # int64, a bit for each surface of that bin that is still to be tried


class Counters(NamedTuple):
    """What a branch has met so far, int32."""

    entries: Any  # measurements, surfaces without one, passive layers
    measurements: Any
    holes: Any
    consecutive_holes: Any
    ndf: Any  # sum of the dimensions of its measurements
    last_layer: Any  # the layer of its last measurement or hole


class Branch(NamedTuple):
    """A branch of the combinatorial Kalman filter."""

    track: Any  # Track
    navigation: Any  # Navigation
    counters: Any  # Counters
    chi2: Any  # sum of the predicted chi2 of its measurements
    path: Any  # path length since its last entry [mm]


@device_function
def load_parameters(array, row, first):
    """Read bound parameters from the columns of a row that begin with `first`."""
    return BoundParameters(
        loc0=array[row, first + LOC0],
        loc1=array[row, first + LOC1],
        phi=array[row, first + PHI],
        theta=array[row, first + THETA],
        qop=array[row, first + QOP],
    )


@device_function
def load_covariance(array, row, first):
    """Read a covariance from the columns of a row that begin with `first`."""
    return Covariance(
        array[row, first], array[row, first + 1], array[row, first + 2], array[row, first + 3], array[row, first + 4],
        array[row, first + 5], array[row, first + 6], array[row, first + 7], array[row, first + 8],
        array[row, first + 9], array[row, first + 10], array[row, first + 11], array[row, first + 12],
        array[row, first + 13], array[row, first + 14],
    )  # fmt: skip


@device_function
def store_parameters(array, row, first, params):
    """Write bound parameters to the columns of a row that begin with `first`."""
    for k in range(np.int32(N_PARAMETERS)):
        array[row, first + k] = params[k]


@device_function
def store_covariance(array, row, first, covariance):
    """Write a covariance to the columns of a row that begin with `first`."""
    for k in range(np.int32(N_COVARIANCE)):
        array[row, first + k] = covariance[k]
