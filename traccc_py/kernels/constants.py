"""Numbers of kernels in single precision (a Python float would make every sum it takes part in a float64); columns."""

from __future__ import annotations

import math

from traccc_py.device.kernel import scalar

__all__ = [
    "EIGHT",
    "FOUR",
    "HALF",
    "HALF_PI",
    "INFINITY",
    "ONE",
    "PI",
    "QUARTER",
    "SIX",
    "TWELFTH",
    "TWO",
    "TWO_DIMENSIONS",
    "TWO_PI",
    "X",
    "Y",
    "Z",
    "ZERO",
]

ZERO = scalar(0)
ONE = scalar(1)
TWO = scalar(2)
FOUR = scalar(4)
SIX = scalar(6)
EIGHT = scalar(8)
HALF = scalar(0.5)
QUARTER = scalar(0.25)
TWELFTH = scalar(1 / 12)  #: variance of a uniform distribution of width one
PI = scalar(math.pi)
HALF_PI = scalar(math.pi / 2)
TWO_PI = scalar(2 * math.pi)
INFINITY = scalar(1e30)  #: [mm], farther than anything
TWO_DIMENSIONS = 2  #: dimensions of a measurement of both local coordinates
X, Y, Z = range(3)  #: columns of global positions
