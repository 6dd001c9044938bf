"""Trigonometry and small vectors of the kernels against NumPy in double precision."""

import numba
import numpy as np
import pytest
from numba import types

from traccc_py.kernels.tracking.linalg import cross, dot, sinc_pair, sincos, wrap_angle
from traccc_py.kernels.tracking.state import Vector

EPS = float(np.finfo(np.float32).eps)
REDUCTION = 1e-9  # of the argument: what taking off multiples of pi/2 costs


@numba.njit
def both(function, x, first, second):
    for i in range(len(x)):
        first[i], second[i] = function(x[i])


@numba.njit
def wrapped(x, out):
    for i in range(len(x)):
        out[i] = wrap_angle(x[i])


def pair(function, x):
    first, second = np.empty_like(x), np.empty_like(x)
    both(function, x, first, second)
    return first.astype(float), second.astype(float)


def arguments(limit, n=100_001):
    """Numbers of both signs between 1e-8 and `limit`, zero, and multiples of pi/4 with their neighbours."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-limit, limit, n), np.exp(rng.uniform(np.log(1e-8), np.log(limit), n)), [0.0]])
    turns = np.arange(-200, 201) * np.pi / 4
    x = np.concatenate([x, turns[np.abs(turns) <= limit]]).astype(np.float32)
    return np.concatenate([x, -x, np.nextafter(x, np.float32(np.inf))])


@pytest.mark.parametrize(("limit", "ulps"), [(3.2, 1.0), (30.0, 1.0), (3000.0, 1.5)])
def test_sincos_agrees_with_numpy_to_a_rounding(limit, ulps):
    x = arguments(limit)
    s, c = pair(sincos, x)
    allowed = ulps * EPS + REDUCTION * np.abs(x)
    assert (np.abs(s - np.sin(x.astype(float))) <= allowed).all()
    assert (np.abs(c - np.cos(x.astype(float))) <= allowed).all()


def test_sine_of_small_angles_is_relatively_exact():
    x = arguments(0.5)
    x = x[np.abs(x) > 1e-30]
    s, _ = pair(sincos, x)
    assert (np.abs(s / np.sin(x.astype(float)) - 1) <= 1.5 * EPS).all()


def test_sincos_in_double_precision_is_a_reference():
    x = arguments(30.0).astype(float)
    s, c = pair(sincos, x)
    assert np.abs(s - np.sin(x)).max() < 1e-8
    assert np.abs(c - np.cos(x)).max() < 1e-8


def exact_slope(x):
    """(cos x - sin x / x) / x^2, by its series where the difference loses digits."""
    series, term = np.zeros_like(x), np.full_like(x, -1 / 3)
    for k in range(1, 12):
        series += term
        term = term * -(x**2) * (k + 1) / (k * (2 * k + 2) * (2 * k + 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        closed = (np.cos(x) - np.sin(x) / x) / x**2
    return np.where(np.abs(x) < 2, series, closed)


def test_series_of_the_slope_meets_the_closed_form():
    x = np.array([1.9, 1.99])
    assert np.allclose(exact_slope(x), (np.cos(x) - np.sin(x) / x) / x**2, rtol=1e-12)


def test_sinc_pair_agrees_with_numpy():
    x = arguments(10.0)
    sinc, slope = pair(sinc_pair, x)
    exact = x.astype(float)
    assert np.abs(sinc - np.sinc(exact / np.pi)).max() < 2 * EPS
    # The closed form starts at 0.5, where a rounding of the difference counts 1/x^2 times.
    assert np.abs(slope - exact_slope(exact)).max() < 8 * EPS


def test_sinc_pair_is_continuous_where_the_series_ends():
    below, above = np.float32(0.49999997), np.float32(0.5)
    sinc, slope = pair(sinc_pair, np.array([below, above], np.float32))
    assert abs(sinc[1] - sinc[0]) < 2 * EPS
    assert abs(slope[1] - slope[0]) < 8 * EPS


def test_wrap_angle_stays_in_range_and_keeps_the_direction():
    x = arguments(100.0)
    out = np.empty_like(x)
    wrapped(x, out)
    assert out.min() >= np.float32(-np.pi) - EPS * 100
    assert out.max() <= np.float32(np.pi) + EPS * 100
    turns = (out.astype(float) - x) / (2 * np.pi)
    assert np.abs(turns - np.rint(turns)).max() * 2 * np.pi < 4 * EPS * 100
    inside = np.abs(x) < 3.14
    assert (out[inside] == x[inside]).all()


def test_products_of_vectors():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 3))
    assert dot(Vector(*a), Vector(*b)) == pytest.approx(a @ b)
    assert cross(Vector(*a), Vector(*b)) == pytest.approx(tuple(np.cross(a, b)))


VECTOR = types.NamedUniTuple(types.float32, 3, Vector)


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (sincos, (types.float32,)),
        (sinc_pair, (types.float32,)),
        (wrap_angle, (types.float32,)),
        (dot, (VECTOR, VECTOR)),
        (cross, (VECTOR, VECTOR)),
    ],
)
def test_single_precision_stays_single(function, signature):
    function.compile(signature)
    returned = function.overloads[signature].signature.return_type
    found = set(returned) if isinstance(returned, types.BaseTuple) else {returned}
    assert found == {types.float32}
