"""Numbers of kernels in single precision: a Python float would make a float64 of every sum it takes part in."""

from __future__ import annotations

import math

from traccc_py.device.kernel import scalar

__all__ = ["EIGHT", "FOUR", "HALF", "HALF_PI", "ONE", "PI", "QUARTER", "SIX", "TWELFTH", "TWO", "TWO_PI", "ZERO"]

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
