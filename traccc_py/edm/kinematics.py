"""What is usually asked of tracks: pT, eta, phi, charge, d0, z0 and errors at the point closest to the beam line.

Everything is computed in double precision from the columns `perigee` and `perigee_covariance` of `Tracks`, and is NaN
where the fit failed or the track does not come close to the beam line.
"""

from __future__ import annotations

import numpy as np

from traccc_py.edm.parameters import LOC0, LOC1, PHI, QOP, THETA, FitOutcome, packed_index

__all__ = ["PERIGEE_TABLE", "PerigeeProperties", "pseudorapidity"]

#: Properties that tables of tracks have, in order.
PERIGEE_TABLE = ("pt", "eta", "phi", "theta", "qop", "charge", "d0", "z0")
_WITHOUT_ERROR = ("charge",)


def pseudorapidity(theta: np.ndarray) -> np.ndarray:
    """Return eta of polar angles [rad]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.log(np.tan(0.5 * np.asarray(theta, np.float64)))


class PerigeeProperties:
    """Properties of tracks at the perigee, each (n,) float64."""

    __slots__ = ()

    perigee: np.ndarray
    perigee_covariance: np.ndarray
    fit_outcome: np.ndarray

    def _of_perigee(self, component: int) -> np.ndarray:
        return _present(self.perigee, "perigee")[:, component].astype(np.float64)

    def _covariance_of(self, row: int, column: int) -> np.ndarray:
        packed = _present(self.perigee_covariance, "perigee_covariance")
        return packed[:, packed_index(row, column)].astype(np.float64)

    def _error_of(self, component: int) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.sqrt(self._covariance_of(component, component))

    @property
    def is_fitted(self) -> np.ndarray:
        """Whether the fit succeeded, (n,) bool."""
        return _present(self.fit_outcome, "fit_outcome") == FitOutcome.SUCCESS

    @property
    def d0(self) -> np.ndarray:
        """Transverse impact parameter at the beam line [mm]."""
        return self._of_perigee(LOC0)

    @property
    def z0(self) -> np.ndarray:
        """Coordinate z of the point closest to the beam line [mm]."""
        return self._of_perigee(LOC1)

    @property
    def phi(self) -> np.ndarray:
        """Azimuth of the direction [rad]."""
        return self._of_perigee(PHI)

    @property
    def theta(self) -> np.ndarray:
        """Polar angle [rad]."""
        return self._of_perigee(THETA)

    @property
    def qop(self) -> np.ndarray:
        """Charge over momentum [e/GeV]."""
        return self._of_perigee(QOP)

    @property
    def eta(self) -> np.ndarray:
        """Pseudorapidity [1]."""
        return pseudorapidity(self.theta)

    @property
    def p(self) -> np.ndarray:
        """Momentum [GeV]."""
        with np.errstate(divide="ignore"):
            return 1.0 / np.abs(self.qop)

    @property
    def pt(self) -> np.ndarray:
        """Transverse momentum [GeV]."""
        return np.sin(self.theta) * self.p

    @property
    def charge(self) -> np.ndarray:
        """Charge [e]: -1 or 1."""
        return np.sign(self.qop)

    @property
    def d0_error(self) -> np.ndarray:
        """Standard deviation of d0 [mm]."""
        return self._error_of(LOC0)

    @property
    def z0_error(self) -> np.ndarray:
        """Standard deviation of z0 [mm]."""
        return self._error_of(LOC1)

    @property
    def phi_error(self) -> np.ndarray:
        """Standard deviation of phi [rad]."""
        return self._error_of(PHI)

    @property
    def theta_error(self) -> np.ndarray:
        """Standard deviation of theta [rad]."""
        return self._error_of(THETA)

    @property
    def qop_error(self) -> np.ndarray:
        """Standard deviation of charge over momentum [e/GeV]."""
        return self._error_of(QOP)

    @property
    def eta_error(self) -> np.ndarray:
        """Standard deviation of eta [1]."""
        return self.theta_error / np.sin(self.theta)

    @property
    def pt_error(self) -> np.ndarray:
        """Standard deviation of pT [GeV], to first order, with the correlation of theta and charge over momentum."""
        by_theta, by_qop = np.cos(self.theta) * self.p, -self.pt / self.qop
        variance = (
            by_theta**2 * self._covariance_of(THETA, THETA)
            + 2.0 * by_theta * by_qop * self._covariance_of(THETA, QOP)
            + by_qop**2 * self._covariance_of(QOP, QOP)
        )
        with np.errstate(invalid="ignore"):
            return np.sqrt(variance)

    def _perigee_table(self) -> dict[str, np.ndarray]:
        """Return the properties, then their errors where there are covariances, as float32 by name."""
        names = list(PERIGEE_TABLE)
        covariance: np.ndarray | None = self.perigee_covariance  # the service does not send it
        if covariance is not None:
            names += [f"{name}_error" for name in PERIGEE_TABLE if name not in _WITHOUT_ERROR]
        return {name: getattr(self, name).astype(np.float32) for name in names}


def _present(values: np.ndarray | None, name: str) -> np.ndarray:
    """Return a column, unless the service did not send it."""
    if values is None:
        msg = f"the tracks have no column {name}: it was not asked for, or is never sent by the service"
        raise ValueError(msg)
    return values
