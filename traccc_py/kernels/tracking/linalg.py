"""Small linear algebra and trigonometry for kernels: scalars and vectors in and out, float32 throughout."""

from __future__ import annotations

import math

import numpy as np

from traccc_py.device.kernel import device_function, scalar
from traccc_py.kernels.constants import HALF, ONE, PI, TWO_PI, ZERO
from traccc_py.kernels.tracking.state import Vector

__all__ = [
    "add",
    "add_scaled",
    "as_precise_as",
    "cross",
    "dot",
    "number_as_precise_as",
    "radius_of",
    "scaled",
    "sinc_pair",
    "sincos",
    "wrap_angle",
]

# pi/2 in three parts, so that the reduced argument keeps full float32 accuracy (Cody and Waite, 1980).
_TWO_OVER_PI = scalar(2 / math.pi)
_HALF_PI_HIGH = scalar(1.5703125)
_HALF_PI_MIDDLE = scalar(4.837512969970703e-4)
_HALF_PI_LOW = scalar(math.pi / 2 - 1.5703125 - 4.837512969970703e-4)

# Taylor coefficients: on |x| <= pi/4 the first one left out is below 1e-9 (sine) and 1e-10 (cosine).
_S3, _S5, _S7, _S9 = (scalar(c) for c in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
_C2, _C4, _C6, _C8, _C10 = (scalar(c) for c in (-1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800))

# sin(x)/x and its derivative divided by x, as series in x^2.
_SMALL = scalar(0.5)
_K2, _K4, _K6, _K8 = (scalar(c) for c in (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
_D0, _D2, _D4, _D6, _D8 = (scalar(c) for c in (-1 / 3, 1 / 30, -1 / 840, 1 / 45360, -1 / 3991680))


@device_function
def sincos(x):
    """Return (sin x, cos x) for |x| up to a few thousand, without the float64 path of CUDA's sinf."""
    quarters = x * _TWO_OVER_PI
    n_quarters = np.int32(quarters + (HALF if quarters >= ZERO else -HALF))  # the nearest: floor() is a call on CPUs
    turns = scalar(n_quarters)
    r = ((x - turns * _HALF_PI_HIGH) - turns * _HALF_PI_MIDDLE) - turns * _HALF_PI_LOW
    r2 = r * r
    s = r + r * r2 * (_S3 + r2 * (_S5 + r2 * (_S7 + r2 * _S9)))
    c = ONE + r2 * (_C2 + r2 * (_C4 + r2 * (_C6 + r2 * (_C8 + r2 * _C10))))
    quadrant = n_quarters & 3
    if quadrant == 0:
        return s, c
    if quadrant == 1:
        return c, -s
    if quadrant == 2:  # noqa: PLR2004
        return -s, -c
    return -c, s


@device_function
def sinc_pair(x):
    """Return (sin(x)/x, (d/dx sin(x)/x)/x); both are even and finite at 0."""
    x2 = x * x
    if abs(x) < _SMALL:
        sinc = ONE + x2 * (_K2 + x2 * (_K4 + x2 * (_K6 + x2 * _K8)))
        slope = _D0 + x2 * (_D2 + x2 * (_D4 + x2 * (_D6 + x2 * _D8)))
        return sinc, slope
    s, c = sincos(x)
    sinc = s / x
    return sinc, (c - sinc) / x2


@device_function
def wrap_angle(angle):
    """Return the angle in [-pi, pi)."""
    if -PI <= angle < PI:
        return angle
    return angle - TWO_PI * scalar(np.int32(math.floor((angle + PI) / TWO_PI)))


@device_function
def number_as_precise_as(like, x):
    """Return x in the type of `like` where that is more precise."""
    # Never so, as the compiler knows: in single precision nothing is left of it. It gives both returns one type.
    if (like != like) & (like == like):
        return like
    return x


@device_function
def as_precise_as(like, a):
    """Return a vector in the type of the number `like`: tracks in double precision meet float32 records of surfaces."""
    return Vector(
        x=number_as_precise_as(like, a.x), y=number_as_precise_as(like, a.y), z=number_as_precise_as(like, a.z)
    )


@device_function
def dot(a, b):
    """Return the scalar product of two vectors."""
    return a.x * b.x + a.y * b.y + a.z * b.z


@device_function
def cross(a, b):
    """Return the vector product of two vectors."""
    return Vector(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)


@device_function
def add(a, b):
    """Return a + b."""
    return Vector(a.x + b.x, a.y + b.y, a.z + b.z)


@device_function
def add_scaled(a, scale, b):
    """Return a + scale b."""
    return Vector(a.x + scale * b.x, a.y + scale * b.y, a.z + scale * b.z)


@device_function
def scaled(scale, a):
    """Return scale a."""
    return Vector(scale * a.x, scale * a.y, scale * a.z)


@device_function
def radius_of(a):
    """Return the distance of a position from the z axis."""
    return math.sqrt(a.x * a.x + a.y * a.y)
