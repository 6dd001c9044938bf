"""Transport in field maps against helices and against SciPy's integrator, in float32 as run and in float64."""

import numba
import numpy as np
import pytest

from tests.reference.field_tracks import TESLA, bound_to_bound, direction_of, integrate, numerical_jacobian
from tests.reference.transport import helix_point
from tests.unit.test_helix import as_vector, random_frame
from traccc_py.geometry.field import FieldMap, solenoid_field_map
from traccc_py.kernels.tracking.covariance import transport_covariance_and_theta
from traccc_py.kernels.tracking.helix import direction_of as kernel_direction
from traccc_py.kernels.tracking.magnetic_field import field_and_gradient, field_at, field_in_precision, local_curvature
from traccc_py.kernels.tracking.runge_kutta import FieldColumn, bound_jacobian, follow_field
from traccc_py.kernels.tracking.state import Covariance, Direction, Jacobian, Vector

PRECISIONS = [np.float32, np.float64]


@numba.njit
def at(field, position):
    return field_at(field, position)


@numba.njit
def with_gradient(field, position):
    return field_and_gradient(field, position)


@numba.njit
def curvature_of(field, position, phi, theta, qop):
    return local_curvature(field, position, kernel_direction(phi, theta), qop)


@numba.njit
def to_path(field, position, phi, theta, qop, path, u0, v0):
    zero = path - path
    return follow_field(
        field, position, kernel_direction(phi, theta), qop, path, zero, Vector(zero, zero, zero), False, u0, v0
    )


@numba.njit
def to_plane(field, position, phi, theta, qop, path, distance, normal, u0, v0, u1, v1):
    d, t, bend, columns = follow_field(
        field, position, kernel_direction(phi, theta), qop, path, distance, normal, True, u0, v0
    )
    rho = np.sqrt(t.x * t.x + t.y * t.y)
    return d, t, bound_jacobian(columns, t, bend, u1, v1, Direction(t.y / rho, t.x / rho, rho, t.z))


@numba.njit
def covariance_of(columns, c):
    return transport_covariance_and_theta(columns, c)


def homogeneous_map(kind, b_z=2.0):
    """The same field everywhere, as a map."""
    if kind == "xyz":
        values = np.zeros((3, 3, 5, 3))
        values[..., 2] = b_z
        return FieldMap(values, (-2000.0, -2000.0, -4000.0), (2000.0, 2000.0, 2000.0))
    values = np.zeros((3, 5, 2))
    values[..., 1] = b_z
    return FieldMap(values, (0.0, -4000.0), (1000.0, 2000.0))


def cartesian(field, spacing):
    """A map in x, y, z of a map in r, z."""
    nodes = [np.arange(-low, low + 1, spacing) for low in (1100.0, 1100.0, 3100.0)]
    grid = np.stack(np.meshgrid(*nodes, indexing="ij"), axis=-1)
    return FieldMap(field.at(grid), tuple(n[0] for n in nodes), (spacing,) * 3)


@pytest.fixture(scope="module")
def solenoid():
    return solenoid_field_map()


@pytest.fixture(scope="module", params=["rz", "xyz"])
def any_map(request, solenoid):
    return solenoid if request.param == "rz" else cartesian(solenoid, 100.0)


def random_starts(n, seed, p_range=(0.5, 100.0)):
    """Positions in the tracker, and directions roughly away from its centre."""
    rng = np.random.default_rng(seed)
    theta = 2 * np.arctan(np.exp(-rng.uniform(-3, 3, n)))
    phi = rng.uniform(-np.pi, np.pi, n)
    reach = rng.uniform(30, np.minimum(600 / np.sin(theta), 2600 / np.abs(np.cos(theta))))
    t = np.array([direction_of(p, a) for p, a in zip(phi, theta, strict=True)])
    position = reach[:, None] * t + rng.uniform(-5, 5, (n, 3))
    qop = rng.choice([-1, 1], n) / np.exp(rng.uniform(*np.log(p_range), n))
    return position, phi, theta, qop, rng


@pytest.mark.parametrize("kind", ["rz", "xyz"])
def test_interpolation_is_that_of_the_map(kind, solenoid):
    field = solenoid if kind == "rz" else cartesian(solenoid, 100.0)
    record = field.record()
    rng = np.random.default_rng(1)
    points = rng.uniform([-1300, -1300, -3400], [1300, 1300, 3400], (500, 3))
    points[:5] = [[0, 0, 0], [0, 0, 100], [1e-3, 0, -50], [0, 5000, 0], [0, 0, 9000]]
    expected = field.at(points)
    found = np.array([at(record, as_vector(p, np.float32)) for p in points]) / TESLA
    assert np.abs(found - expected).max() < 5e-6
    assert record.b_z == pytest.approx(2 * TESLA, rel=1e-6)


def test_gradient_is_the_slope_of_the_field(any_map):
    record = field_in_precision(any_map.record(), np.float64)
    rng = np.random.default_rng(2)
    h = 1e-3
    for point in rng.uniform([-700, -700, -3000], [700, 700, 3000], (300, 3)):
        _, *gradient = with_gradient(record, as_vector(point, float))
        for axis in range(3):
            shift = h * np.eye(3)[axis]
            slope = np.subtract(at(record, Vector(*(point + shift))), at(record, Vector(*(point - shift)))) / (2 * h)
            assert np.abs(slope - gradient[axis]).max() < 1e-9, point


def test_a_position_that_is_no_number_is_no_crash(any_map):
    assert len(at(any_map.record(), Vector(np.float32(np.nan), np.float32(0), np.float32(0)))) == 3


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("kind", ["rz", "xyz"])
def test_homogeneous_map_gives_helices(kind, dtype):
    record = field_in_precision(homogeneous_map(kind).record(), dtype)
    position, phi, theta, qop, rng = random_starts(300, 3, (1.0, 100.0))
    worst = np.zeros(2)
    for k in range(len(phi)):
        angles = [dtype(a) for a in (phi[k], theta[k], qop[k])]
        u, v = (as_vector(a, dtype) for a in random_frame(direction_of(phi[k], theta[k]), rng))
        path = dtype(rng.choice([-1, 1]) * 1000)
        start = as_vector(position[k], dtype)
        d, t, _, _ = to_path(record, start, *angles, path, u, v)
        exact, angle = helix_point(np.zeros(3), *(float(a) for a in angles), 2 * TESLA, float(path))
        worst = np.maximum(worst, [np.abs(d - exact).max(), np.abs(t - direction_of(angle, theta[k])).max()])
    assert worst[0] < 1e-3
    assert worst[1] < 2e-6


def test_tracks_in_a_solenoid_agree_with_scipy(any_map):
    position, phi, theta, qop, rng = random_starts(40, 4)
    worst = np.zeros(2)
    for k in range(len(phi)):
        angles = [np.float32(a) for a in (phi[k], theta[k], qop[k])]
        start = np.float32(position[k])
        path = rng.uniform(20, 600)
        u, v = random_frame(direction_of(phi[k], theta[k]), rng)
        end, exact = integrate(any_map.at, start.astype(float), direction_of(*map(float, angles[:2])), angles[2], path)
        for dtype in PRECISIONS:
            record = field_in_precision(any_map.record(), dtype)
            d, t, _, _ = to_path(
                record,
                as_vector(start, dtype),
                *map(dtype, angles),
                dtype(path),
                as_vector(u, dtype),
                as_vector(v, dtype),
            )
            worst = np.maximum(worst, [np.abs(d - (end - start)).max(), np.abs(t - exact).max()])
    assert worst[0] < 1e-3  # mm
    assert worst[1] < 5e-6


@pytest.mark.parametrize("kind", ["homogeneous", "solenoid"])
def test_plane_and_jacobian_agree_with_numerical_derivatives(kind, solenoid):
    field = solenoid if kind == "solenoid" else homogeneous_map("rz")
    position, phi, theta, qop, rng = random_starts(12, 5)
    for k in range(len(phi)):
        start = (position[k], *random_frame(direction_of(phi[k], theta[k]), rng))
        params = np.array([*rng.uniform(-5, 5, 2), phi[k], theta[k], qop[k]])
        origin = start[0] + params[0] * start[1] + params[1] * start[2]
        length = rng.uniform(50, 500)
        target, t1 = integrate(field.at, origin, direction_of(phi[k], theta[k]), qop[k], length)
        u1, v1 = random_frame(t1, rng)
        end = (target + rng.uniform(-1, 1) * u1 + rng.uniform(-1, 1) * v1, u1, v1)
        exact = bound_to_bound(field.at, params, start, end, length)
        expected = numerical_jacobian(field.at, params, start, end, length)
        guess = length * rng.uniform(0.98, 1.02)  # what a helix is wrong by
        for dtype in PRECISIONS:
            compare_on_plane(
                field_in_precision(field.record(), dtype), dtype, params, start, end, guess, exact, expected
            )


def compare_on_plane(record, dtype, params, start, end, guess, exact, expected):
    """Compare position, direction and Jacobian on a plane with those expected."""
    there, u1, v1 = end
    origin, normal = start[0] + params[0] * start[1] + params[1] * start[2], np.cross(u1, v1)
    d, t, columns = to_plane(
        record, as_vector(origin, dtype), *(dtype(a) for a in params[2:]), dtype(guess),
        dtype((origin - there) @ normal), *(as_vector(a, dtype) for a in (normal, start[1], start[2], u1, v1)),
    )  # fmt: skip
    offset = origin + np.array(d) - there
    assert np.abs(offset @ np.array([u1, v1, normal]).T - [*exact[:2], 0]).max() < 1e-3
    assert np.arctan2(np.hypot(t[0], t[1]), t[2]) == pytest.approx(exact[3], abs=2e-6)
    length = abs(guess)
    # Elements are compared relative to the natural size of their units: lengths by the path, curvature by 1/p.
    scale = np.outer([1, 1, 1 / length, 1 / length], [1, 1, length, length, length**2 * 2 * TESLA])
    assert np.abs((np.array(columns, float).T - expected[:4]) / scale).max() < 1e-3


def test_plane_out_of_reach_is_left_alone(solenoid):
    """A track that turns back before a plane ends at some distance from it, after a bounded number of steps."""
    one = np.float32(1)
    zero = np.float32(0)
    x, y, z = Vector(one, zero, zero), Vector(zero, one, zero), Vector(zero, zero, one)
    qop = np.float32(1 / 0.3)  # a circle of 500 mm radius
    d, *_ = to_plane(
        solenoid.record(), Vector(zero, zero, zero), zero, np.float32(np.pi / 2), qop, np.float32(800),
        np.float32(-900), x, y, z, y, z,
    )  # fmt: skip
    assert np.isfinite(d).all()
    assert d[0] - 900 < -300


def test_local_curvature_is_the_change_of_phi(any_map):
    record = field_in_precision(any_map.record(), np.float64)
    position, phi, theta, qop, _ = random_starts(50, 6)
    for k in range(len(phi)):
        h = 0.01
        _, after = integrate(any_map.at, position[k], direction_of(phi[k], theta[k]), qop[k], h)
        _, before = integrate(any_map.at, position[k], direction_of(phi[k], theta[k]), qop[k], -h)
        change = np.arctan2(before[0] * after[1] - before[1] * after[0], before[:2] @ after[:2]) / (2 * h)
        found = curvature_of(record, Vector(*position[k]), phi[k], theta[k], qop[k])
        assert found == pytest.approx(change, rel=1e-4, abs=1e-10)


def test_covariance_transport_equals_matrix_product():
    rng = np.random.default_rng(3)
    columns = rng.normal(size=(5, 4))
    jacobian = np.vstack([columns.T, [0, 0, 0, 0, 1]])
    root = rng.normal(size=(5, 5))
    covariance = root @ root.T
    lower = np.tril_indices(5)
    found = covariance_of(Jacobian(*(FieldColumn(*column) for column in columns)), Covariance(*covariance[lower]))
    assert np.allclose(found, (jacobian @ covariance @ jacobian.T)[lower], rtol=1e-12)
