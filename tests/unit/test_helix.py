"""Helix positions, crossings and Jacobians against float64 references."""

import numba
import numpy as np
import pytest

from tests.reference.transport import bound_to_bound, helix_point, numerical_jacobian
from traccc_py.kernels.tracking.covariance import transport_covariance
from traccc_py.kernels.tracking.helix import (
    HelixColumn,
    direction_of,
    helix_displacement,
    helix_jacobian,
    path_to_beam_line,
    path_to_cylinder,
    path_to_plane,
)
from traccc_py.kernels.tracking.state import Covariance, Jacobian, Vector
from traccc_py.units import T

B_Z = 2.0 * T
POSITION_TOLERANCE = 3e-4  # [mm], 0.3 um
ULPS = 4


@numba.njit
def displace(phi, theta, curvature, path):
    return helix_displacement(direction_of(phi, theta), curvature, path)


@numba.njit
def to_cylinder(x, y, phi, theta, curvature, radius, is_far):
    return path_to_cylinder(x, y, direction_of(phi, theta), curvature, radius, is_far)


@numba.njit
def to_plane(offset, phi, theta, curvature, normal, guess):
    return path_to_plane(offset, direction_of(phi, theta), curvature, normal, guess)


@numba.njit
def to_beam_line(x, y, phi, theta, curvature):
    return path_to_beam_line(x, y, direction_of(phi, theta), curvature)


@numba.njit
def jacobian(phi, theta, curvature, path, b_z, u0, v0, u1, v1):
    return helix_jacobian(direction_of(phi, theta), curvature, path, b_z, u0, v0, u1, v1)


@numba.njit
def transport(columns, c):
    return transport_covariance(columns, c)


def random_tracks(n, seed, pt_range=(0.3, 500.0)):
    """Float32 directions and curvatures, exactly representable in the float64 reference."""
    rng = np.random.default_rng(seed)
    pt = np.exp(rng.uniform(*np.log(pt_range), n))
    theta = np.float32(2 * np.arctan(np.exp(-rng.uniform(-3, 3, n))))
    phi = np.float32(rng.uniform(-np.pi, np.pi, n))
    qop = np.float32(rng.choice([-1, 1], n) * np.sin(theta) / pt)
    return phi, theta, qop, rng


def random_frame(normal, rng):
    """Random axes u, v of a plane with about the given normal."""
    w = normal + rng.normal(0, 0.1, 3)
    w /= np.linalg.norm(w)
    u = np.cross(w, rng.normal(0, 1, 3))
    u /= np.linalg.norm(u)
    return u, np.cross(w, u)


def as_vector(vector, dtype):
    return Vector(*(dtype(v) for v in vector))


def test_helix_position_agrees_with_float64_within_0p3_um():
    phi, theta, qop, rng = random_tracks(20_000, 1)
    path = np.float32(np.exp(rng.uniform(np.log(1.0), np.log(1500.0), len(phi))))
    worst = 0.0
    for k in range(len(phi)):
        curvature = np.float32(-qop[k] * np.float32(B_Z))
        moved = np.array(displace(phi[k], theta[k], curvature, path[k]), dtype=float)
        exact, _ = helix_point(
            np.zeros(3), float(phi[k]), float(theta[k]), -float(curvature) / B_Z, B_Z, float(path[k])
        )
        allowed = max(POSITION_TOLERANCE, ULPS * np.spacing(np.float32(path[k])))
        worst = max(worst, np.abs(moved - exact).max() / allowed)
    assert worst < 1, f"worst position difference is {worst:.2f} of what is allowed"


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-3), (np.float64, 1e-5)])
def test_jacobian_agrees_with_numerical_derivatives(dtype, tolerance):
    phi, theta, qop, rng = random_tracks(400, 2, (0.5, 100.0))
    phi, theta, qop = (a.astype(float) for a in (phi, theta, qop))
    for k in range(len(phi)):
        t = np.array(displace(phi[k], theta[k], 0.0, 1.0), dtype=float)
        start = (rng.uniform(-300, 300, 3), *random_frame(t, rng))
        params = np.array([*rng.uniform(-5, 5, 2), phi[k], theta[k], qop[k]], dtype=float)
        length = rng.uniform(50, 500)
        position = start[0] + params[0] * start[1] + params[1] * start[2]
        target, angle = helix_point(position, phi[k], theta[k], qop[k], B_Z, length)
        t1 = np.array([np.sin(theta[k]) * np.cos(angle), np.sin(theta[k]) * np.sin(angle), np.cos(theta[k])])
        u1, v1 = random_frame(t1, rng)
        end = (target + rng.uniform(-1, 1) * u1 + rng.uniform(-1, 1) * v1, u1, v1)
        exact = numerical_jacobian(params, start, end, B_Z, length)
        curvature = dtype(-qop[k] * B_Z)
        axes = [as_vector(a, dtype) for a in (start[1], start[2], u1, v1)]
        _, _, columns = jacobian(dtype(phi[k]), dtype(theta[k]), curvature, dtype(length), dtype(B_Z), *axes)
        found = np.array(columns, dtype=float).T
        # Elements are compared relative to the natural size of their units: lengths by the path, curvature by 1/p.
        scale = np.outer([1, 1, 1 / length], [1, 1, length, length, length**2 * B_Z])
        assert np.abs((found - exact[:3]) / scale).max() < tolerance
        assert np.allclose(exact[3], [0, 0, 0, 1, 0])


def test_covariance_transport_equals_matrix_product():
    rng = np.random.default_rng(3)
    columns = rng.normal(size=(5, 3))
    jacobian_matrix = np.vstack([columns.T, [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]])
    root = rng.normal(size=(5, 5))
    covariance = root @ root.T
    lower = np.tril_indices(5)
    found = transport(Jacobian(*(HelixColumn(*column) for column in columns)), Covariance(*covariance[lower]))
    expected = (jacobian_matrix @ covariance @ jacobian_matrix.T)[lower]
    assert np.allclose(found, expected, rtol=1e-12)


def test_path_to_plane_reaches_the_plane():
    phi, theta, qop, rng = random_tracks(3000, 4, (0.5, 100.0))
    for k in range(len(phi)):
        length = float(rng.uniform(1, 400))
        target, angle = helix_point(np.zeros(3), float(phi[k]), float(theta[k]), float(qop[k]), B_Z, length)
        t1 = np.array([np.sin(theta[k]) * np.cos(angle), np.sin(theta[k]) * np.sin(angle), np.cos(theta[k])])
        u, v = random_frame(t1, rng)
        normal = as_vector(np.cross(u, v), np.float32)
        offset = as_vector(-target, np.float32)
        path = to_plane(offset, phi[k], theta[k], np.float32(-qop[k] * B_Z), normal, np.float32(0))
        assert path == pytest.approx(length, abs=5e-3, rel=1e-5)


def test_path_to_cylinder_outwards_and_after_the_turning_point():
    phi, theta, qop, rng = random_tracks(3000, 5, (0.15, 100.0))
    n_far = 0
    for k in range(len(phi)):
        r, angle = rng.uniform(30, 500), phi[k] + rng.uniform(-0.5, 0.5)
        x, y = np.float32(r * np.cos(angle)), np.float32(r * np.sin(angle))
        is_far = bool(k % 2)
        radius = np.float32(rng.uniform(20, r) if is_far else rng.uniform(r, 1000))
        curvature = np.float32(-qop[k] * B_Z)
        path = to_cylinder(x, y, phi[k], theta[k], curvature, radius, is_far)
        if path > 1e29:
            continue
        n_far += is_far
        end, _ = helix_point(
            np.array([x, y, 0.0], dtype=float),
            float(phi[k]),
            float(theta[k]),
            -float(curvature) / B_Z,
            B_Z,
            float(path),
        )
        assert path >= 0
        # A crossing after the turn may be metres away: the rounding of the turning angle grows with the path.
        assert np.hypot(end[0], end[1]) == pytest.approx(radius, abs=1e-3 + 2e-6 * path * (1 + 4 * is_far))
    assert n_far > 100


def test_path_to_cylinder_out_of_reach_gives_no_crossing():
    curvature = np.float32(-B_Z / 0.1)  # a radius of curvature of 167 mm at theta = pi/2
    path = to_cylinder(
        np.float32(30), np.float32(0), np.float32(0), np.float32(np.pi / 2), curvature, np.float32(900), False
    )
    assert path > 1e29


def test_path_to_beam_line_is_the_closest_point():
    phi, theta, qop, rng = random_tracks(500, 6, (0.3, 100.0))
    for k in range(len(phi)):
        start = np.array([rng.uniform(30, 80), 0, 0])
        angle = np.float32(rng.uniform(-0.5, 0.5))
        curvature = np.float32(-qop[k] * B_Z)
        path = float(to_beam_line(np.float32(start[0]), np.float32(0), angle, theta[k], curvature))
        end, direction = helix_point(start, float(angle), float(theta[k]), -float(curvature) / B_Z, B_Z, path)
        assert path < 0
        assert abs(end[0] * np.cos(direction) + end[1] * np.sin(direction)) < 1e-3


def test_transport_there_and_back_returns_to_the_start():
    start = (np.array([30.0, 0, 0]), np.array([0.0, 1, 0]), np.array([0.0, 0, 1]))
    end = (np.array([100.0, 10, 20]), np.array([0.0, 1, 0]), np.array([0.0, 0, 1]))
    params = np.array([0.5, -0.3, 0.1, 1.4, 0.8])
    there = bound_to_bound(params, start, end, B_Z, 70.0)
    back = bound_to_bound(there, end, start, B_Z, -70.0)
    assert np.allclose(back, params, atol=1e-12)
