"""Kinematics of products of decays and interactions, and the rows in which they are kept.

References
----------
PDG 2024, section 49: Lorentz transformations (eq. 49.1), two-body decays (eq. 49.17).
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.random_numbers import uniform_pair

__all__ = [
    "FIRST_PRODUCTS",
    "NEUTRAL_PION",
    "NEUTRAL_PION_MASS",
    "PHOTON",
    "PRODUCT_COLUMNS",
    "add_product",
    "momentum_in_rest",
    "turned_by",
    "turned_to",
    "two_bodies",
]

#: Columns of rows of products: the vertex, PDG number, momentum.
PRODUCT_COLUMNS = ("vertex", "code", "px", "py", "pz")
FIRST_PRODUCTS = 256  #: rows
NEUTRAL_PION, PHOTON = 111, 22  #: PDG numbers
NEUTRAL_PION_MASS = 0.1349768  #: [GeV]


@compiled
def turned_to(direction, px, py, pz):
    """Return a vector given along axes whose third is a direction, along the global ones."""
    dx, dy, dz = direction
    transverse = math.hypot(dx, dy)
    ex, ey = (-dy / transverse, dx / transverse) if transverse > 0.0 else (1.0, 0.0)
    fx, fy, fz = -dz * ey, dz * ex, dx * ey - dy * ex
    return px * ex + py * fx + pz * dx, px * ey + py * fy + pz * dy, py * fz + pz * dz


@compiled
def turned_by(direction, cosine, azimuth):
    """Return a unit direction at an angle of the given cosine to another one."""
    sine = math.sqrt(max(0.0, 1.0 - cosine * cosine))
    return turned_to(direction, sine * math.cos(azimuth), sine * math.sin(azimuth), cosine)


@compiled
def momentum_in_rest(mass, first, second):
    """Return the momentum of either of two products in the frame of their mother."""
    return math.sqrt(max(0.0, (mass**2 - (first + second) ** 2) * (mass**2 - (first - second) ** 2))) / (2.0 * mass)


@compiled
def _isotropic(p, stream, key, identity, draw):
    chance, azimuth = uniform_pair(key, identity, draw, stream)
    pz = (2.0 * chance - 1.0) * p
    pt = math.sqrt(p * p - pz * pz)
    azimuth *= 2.0 * math.pi
    return pt * math.cos(azimuth), pt * math.sin(azimuth), pz


@compiled
def _boosted(vector, mass, frame, frame_mass):
    """Return a momentum given in the rest frame of another particle, in the frame where that has momentum `frame`."""
    x, y, z = frame
    energy = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2 + mass * mass)
    frame_energy = math.sqrt(x * x + y * y + z * z + frame_mass * frame_mass)
    along = (x * vector[0] + y * vector[1] + z * vector[2]) / (frame_mass * (frame_energy + frame_mass))
    scale = along + energy / frame_mass
    return vector[0] + scale * x, vector[1] + scale * y, vector[2] + scale * z


@compiled
def two_bodies(frame, mass, first, second, stream, key, identity, draw):
    """Return the momenta of two products of masses `first` and `second`."""
    x, y, z = _isotropic(momentum_in_rest(mass, first, second), stream, key, identity, draw)
    return _boosted((x, y, z), first, frame, mass), _boosted((-x, -y, -z), second, frame, mass)


@compiled
def _add_row(rows, n, vertex, code, momentum):
    if n == len(rows):
        rows = np.concatenate((rows, np.empty_like(rows)))
    rows[n, 0], rows[n, 1] = vertex, code
    rows[n, 2], rows[n, 3], rows[n, 4] = momentum
    return rows, n + 1


@compiled
def add_product(rows, n, vertex, code, momentum, stream, key, identity, draw):
    """Write a row, of a neutral pion those of its photons; return the rows (maybe a larger array) and their number."""
    if code != NEUTRAL_PION:
        return _add_row(rows, n, vertex, code, momentum)
    first, second = two_bodies(momentum, NEUTRAL_PION_MASS, 0.0, 0.0, stream, key, identity, draw)
    rows, n = _add_row(rows, n, vertex, PHOTON, first)
    return _add_row(rows, n, vertex, PHOTON, second)
