"""Transport of covariances with a Jacobian: J C J^T."""

from __future__ import annotations

from traccc_py.device.kernel import device_function
from traccc_py.kernels.tracking.state import BoundParameters, Covariance

__all__ = ["transport_covariance", "transport_covariance_and_theta"]


@device_function
def _times_covariance(row, c):
    """Return the row vector `row` C."""
    loc0, loc1, phi, theta, qop = row
    return BoundParameters(
        loc0 * c.loc0_loc0 + loc1 * c.loc1_loc0 + phi * c.phi_loc0 + theta * c.theta_loc0 + qop * c.qop_loc0,
        loc0 * c.loc1_loc0 + loc1 * c.loc1_loc1 + phi * c.phi_loc1 + theta * c.theta_loc1 + qop * c.qop_loc1,
        loc0 * c.phi_loc0 + loc1 * c.phi_loc1 + phi * c.phi_phi + theta * c.theta_phi + qop * c.qop_phi,
        loc0 * c.theta_loc0 + loc1 * c.theta_loc1 + phi * c.theta_phi + theta * c.theta_theta + qop * c.qop_theta,
        loc0 * c.qop_loc0 + loc1 * c.qop_loc1 + phi * c.qop_phi + theta * c.qop_theta + qop * c.qop_qop,
    )


@device_function
def _product(a, b):
    """Return the scalar product of two rows."""
    return a.loc0 * b.loc0 + a.loc1 * b.loc1 + a.phi * b.phi + a.theta * b.theta + a.qop * b.qop


@device_function
def _row_of_loc0(j):
    return BoundParameters(j.loc0.loc0, j.loc1.loc0, j.phi.loc0, j.theta.loc0, j.qop.loc0)


@device_function
def _row_of_loc1(j):
    return BoundParameters(j.loc0.loc1, j.loc1.loc1, j.phi.loc1, j.theta.loc1, j.qop.loc1)


@device_function
def _row_of_phi(j):
    return BoundParameters(j.loc0.phi, j.loc1.phi, j.phi.phi, j.theta.phi, j.qop.phi)


@device_function
def _row_of_theta(j):
    return BoundParameters(j.loc0.theta, j.loc1.theta, j.phi.theta, j.theta.theta, j.qop.theta)


@device_function
def transport_covariance(j, c):
    """Return J C J^T; rows theta and q/p of J are those of the unit matrix."""
    row_loc0, row_loc1, row_phi = _row_of_loc0(j), _row_of_loc1(j), _row_of_phi(j)
    loc0, loc1, phi = _times_covariance(row_loc0, c), _times_covariance(row_loc1, c), _times_covariance(row_phi, c)
    return Covariance(
        loc0_loc0=_product(loc0, row_loc0),
        loc1_loc0=_product(loc1, row_loc0),
        loc1_loc1=_product(loc1, row_loc1),
        phi_loc0=_product(phi, row_loc0),
        phi_loc1=_product(phi, row_loc1),
        phi_phi=_product(phi, row_phi),
        theta_loc0=loc0.theta,
        theta_loc1=loc1.theta,
        theta_phi=phi.theta,
        theta_theta=c.theta_theta,
        qop_loc0=loc0.qop,
        qop_loc1=loc1.qop,
        qop_phi=phi.qop,
        qop_theta=c.qop_theta,
        qop_qop=c.qop_qop,
    )


@device_function
def transport_covariance_and_theta(j, c):
    """Return J C J^T; the row q/p of J is that of the unit matrix."""
    row_loc0, row_loc1, row_phi, row_theta = _row_of_loc0(j), _row_of_loc1(j), _row_of_phi(j), _row_of_theta(j)
    loc0, loc1 = _times_covariance(row_loc0, c), _times_covariance(row_loc1, c)
    phi, theta = _times_covariance(row_phi, c), _times_covariance(row_theta, c)
    return Covariance(
        loc0_loc0=_product(loc0, row_loc0),
        loc1_loc0=_product(loc1, row_loc0),
        loc1_loc1=_product(loc1, row_loc1),
        phi_loc0=_product(phi, row_loc0),
        phi_loc1=_product(phi, row_loc1),
        phi_phi=_product(phi, row_phi),
        theta_loc0=_product(theta, row_loc0),
        theta_loc1=_product(theta, row_loc1),
        theta_phi=_product(theta, row_phi),
        theta_theta=_product(theta, row_theta),
        qop_loc0=loc0.qop,
        qop_loc1=loc1.qop,
        qop_phi=phi.qop,
        qop_theta=theta.qop,
        qop_qop=c.qop_qop,
    )
