"""The field of a finite solenoid.

References
----------
N. Derby, S. Olbert, Am. J. Phys. 78 (2010) 229: field of a finite solenoid. R. Bulirsch, Numer. Math. 13 (1969) 305:
the complete elliptic integral `cel`.
"""

from __future__ import annotations

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.field.map import FieldMap

__all__ = ["solenoid_field_map"]

_CEL_PRECISION = 1e-12
_MAX_CEL_STEPS = 30


def _cel(kc: np.ndarray, p: np.ndarray | float, c: float, s: np.ndarray | float) -> np.ndarray:
    """Return Bulirsch's integral of (c cos^2 + s sin^2) / (cos^2 + p sin^2) / sqrt(cos^2 + kc^2 sin^2), for p > 0."""
    root = np.sqrt(p)
    low = s / root
    high, low, root = c + low / root, 2 * (low + c * kc / root), root + kc / root
    mean, product, last = 1 + kc, kc, np.ones_like(kc)
    for _ in range(_MAX_CEL_STEPS):
        if (np.abs(last - kc) <= last * _CEL_PRECISION).all():
            break
        kc = 2 * np.sqrt(product)
        product = kc * mean
        step = product / root
        high, low, root = high + low / root, 2 * (low + high * step), root + step
        last, mean = mean, mean + kc
    return np.asarray(np.pi / 2 * (low + high * mean) / (mean * (mean + root)))


def solenoid_field_map(
    b_z: float = 2.0,
    *,
    radius: float = 1200.0,
    half_length: float = 3000.0,
    r_max: float = 1150.0,
    z_max: float = 3150.0,
    spacing: float = 50.0,
) -> FieldMap:
    """Return the field of a finite solenoid (a cylindrical current sheet around the z axis) as an (r, z) map.

    Parameters
    ----------
    b_z : float, optional
        Field along z at the centre [T].
    radius, half_length : float, optional
        Of the sheet [mm].
    r_max, z_max : float, optional
        Extent of the map; r_max below the radius of the sheet [mm].
    spacing : float, optional
        Largest distance between nodes [mm].

    Returns
    -------
    FieldMap
        The map; it satisfies Maxwell's equations except for the interpolation.

    Raises
    ------
    GeometryError
        If a length is not positive or the map reaches the sheet.
    """
    lengths = (radius, half_length, r_max, z_max, spacing)
    if not (np.isfinite([b_z, *lengths]).all() and min(lengths) > 0 and r_max < radius):
        msg = (
            f"a solenoid of {b_z} T with (radius, half_length, r_max, z_max, spacing) = {lengths}; expected a finite "
            "field, lengths > 0 and r_max < radius"
        )
        raise GeometryError(msg)
    r = np.linspace(0, r_max, int(np.ceil(r_max / spacing)) + 1)
    z = np.linspace(-z_max, z_max, 2 * int(np.ceil(z_max / spacing)) + 1)
    rho, along = np.meshgrid(r, z, indexing="ij")
    gamma = (radius - rho) / (radius + rho)
    b_r, b_along = np.zeros_like(rho), np.zeros_like(rho)
    for sign in (1, -1):
        end = along + sign * half_length
        to_far = np.hypot(end, rho + radius)
        kc = np.hypot(end, radius - rho) / to_far
        b_r += sign * radius / to_far * _cel(kc, 1.0, 1.0, -1.0)
        b_along += sign * radius / (radius + rho) * end / to_far * _cel(kc, gamma**2, 1.0, gamma)
    values = np.stack([b_r, b_along], axis=-1)
    values[0, :, 0] = 0
    at_centre = np.pi * half_length / np.hypot(half_length, radius)
    return FieldMap((values * b_z / at_centre).astype(np.float32), (0.0, -z_max), (r[1] - r[0], z[1] - z[0]))
