"""Regions of interest: which modules a track of a window in eta, phi and z can cross."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from traccc_py.errors import ConfigError
from traccc_py.geometry.detector import Detector

__all__ = ["Region", "modules_of_region"]

_POINTS = 3  #: along each axis of a module: middle, edges and corners
_GEV_PER_T_MM = 0.299792458e-3
_HIGHLAND = 0.0136  #: [GeV]; angle of scattering per sqrt(thickness in radiation lengths), times momentum
_RADIATION_LENGTHS = 1.0  #: in the way of a track, more than trackers have where it matters
_DEVIATIONS = 3.0  #: of that angle


@dataclass(frozen=True, slots=True)
class Region:
    """A window of tracks, by their parameters at the beam line.

    Attributes
    ----------
    eta, z : tuple of float
        From, to [1], [mm].
    phi : tuple of float
        From, to, counterclockwise [rad]: (3, -3) is the narrow window around pi.
    min_pt : float
        Smallest pT [GeV].
    max_d0 : float
        Largest distance from the beam line [mm].

    Raises
    ------
    ConfigError
        If a number is not finite, a range is empty, or pT or distance are not positive.
    """

    eta: tuple[float, float]
    phi: tuple[float, float]
    z: tuple[float, float] = (-150.0, 150.0)
    min_pt: float = 1.0
    max_d0: float = 10.0

    def __post_init__(self) -> None:
        numbers = (*self.eta, *self.phi, *self.z, self.min_pt, self.max_d0)
        if not all(map(math.isfinite, numbers)):
            msg = f"{self} has a number that is not finite"
            raise ConfigError(msg)
        for name, (low, high) in {"eta": self.eta, "z": self.z}.items():
            if low >= high:
                msg = f"{name} of the region is {low:g} to {high:g}; expected the lower end first"
                raise ConfigError(msg)
        if self.min_pt <= 0 or self.max_d0 <= 0:
            msg = f"min_pt and max_d0 of the region are {self.min_pt:g}, {self.max_d0:g}; expected positive numbers"
            raise ConfigError(msg)

    @property
    def phi_width(self) -> float:
        """Width in phi [rad], above 0 and at most 2 pi."""
        low, high = self.phi
        return 2 * math.pi if high - low >= 2 * math.pi else (high - low) % (2 * math.pi) or 2 * math.pi

    def contains(self, eta: Any, phi: Any, z: Any) -> np.ndarray:
        """Return which tracks are in it, (n,) bool, by their eta, phi [rad] and z [mm] at the beam line."""
        eta, phi, z = np.asarray(eta), np.asarray(phi), np.asarray(z)
        is_in = (self.eta[0] <= eta) & (eta <= self.eta[1]) & (self.z[0] <= z) & (z <= self.z[1])
        return is_in & (np.mod(phi - self.phi[0], 2 * np.pi) <= self.phi_width)


def modules_of_region(detector: Detector, region: Region) -> np.ndarray:
    """Return which modules a track of a region can cross.

    A track of the region is a helix in the strongest field that the detector has, from a point near the beam line; its
    angles may be off by three times the scattering in one radiation length. Modules are boxes in r, phi and z, so that
    some modules more are chosen, and none less.

    Parameters
    ----------
    detector : Detector
        The detector.
    region : Region
        The window.

    Returns
    -------
    ndarray of shape (n_surfaces,), bool
        Modules, as rows of `Detector.geometry_ids`. Cells of them:
        ``cells[chosen[detector.module_index(cells.geometry_id)]]``.
    """
    points = detector.surfaces.points(_POINTS, _POINTS)
    x, y, z = np.moveaxis(points, -1, 0)
    r_low, r_high = _radii(x, y)
    angle = _DEVIATIONS * _HIGHLAND * math.sqrt(_RADIATION_LENGTHS) / region.min_pt
    field = abs(detector.b_field_z) if detector.field_map is None else detector.field_map.strongest
    radius = region.min_pt / (_GEV_PER_T_MM * field) if field else math.inf  # of the circle of the softest track
    turn = np.arcsin(np.minimum(1.0, (r_high + region.max_d0) / (2 * radius)))
    aside = turn + angle + np.arctan2(region.max_d0, np.maximum(r_low - region.max_d0, 1e-9))
    is_near = _overlaps_in_phi(x, y, region, aside) | (r_low <= region.max_d0)
    path = 2 * radius * turn if field else r_high + region.max_d0  # longest arc to the outer edge
    low, high = _slopes(region.eta, angle)
    shortest = np.maximum(r_low - region.max_d0, 0.0)
    z_low = region.z[0] + np.minimum(low * shortest, low * path)
    z_high = region.z[1] + np.maximum(high * shortest, high * path)
    return np.asarray(is_near & (z_low <= z.max(1)) & (z.min(1) <= z_high) & detector.surfaces.is_sensitive)


def _radii(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and largest radius of modules; a plane comes closer to the axis than a grid of its points."""
    r = np.hypot(x, y)
    size = np.hypot(np.ptp(x, axis=1), np.ptp(y, axis=1)) / (2 * (_POINTS - 1))
    return np.maximum(r.min(1) - size, 0.0), r.max(1)


def _overlaps_in_phi(x: np.ndarray, y: np.ndarray, region: Region, aside: np.ndarray) -> np.ndarray:
    """Return which modules overlap the window in phi, made wider by an angle on each side."""
    middle = np.arctan2(y.mean(1), x.mean(1))
    off = np.mod(np.arctan2(y, x) - middle[:, None] + np.pi, 2 * np.pi) - np.pi
    half = np.abs(off).max(1) + aside + region.phi_width / 2
    centre = region.phi[0] + region.phi_width / 2
    return np.abs(np.mod(middle - centre + np.pi, 2 * np.pi) - np.pi) <= half


def _slopes(eta: tuple[float, float], angle: float) -> tuple[float, float]:
    """Return the least and largest cotangent of theta, with theta off by an angle."""
    thetas = [2 * math.atan(math.exp(-e)) for e in eta]
    low, high = min(thetas[0] + angle, math.pi - 1e-3), max(thetas[1] - angle, 1e-3)
    return 1 / math.tan(low), 1 / math.tan(high)
