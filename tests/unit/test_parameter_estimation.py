"""Seed parameters: the peers' helices, exact helices at all momenta, the covariance, batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.reference.helices import position_at
from tests.unit.detectors import FIELD, pad_module
from traccc_py.config import ParameterEstimationConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.workspace import Workspace
from traccc_py.edm import LOC0, LOC1, PHI, QOP, THETA
from traccc_py.geometry.records import HomogeneousField
from traccc_py.kernels.seeding.parameter_estimation import estimate_parameters
from traccc_py.kernels.tracking.batch import MeasurementBatch, SeedBatch, SpacepointBatch


def run(points, b_z=FIELD, config=None, threads=1, local=None, variance=None):
    """Parameters and variances of seeds given as points (n, 3 spacepoints, 3)."""
    points = np.asarray(points, float).reshape(-1, 3, 3)
    n = len(points)
    index = np.arange(n, dtype=np.int32)
    local = np.zeros((3 * n, 2)) if local is None else local
    variance = np.full((3 * n, 2), 1e-4) if variance is None else variance
    modules = np.arange(3 * n, dtype=np.int32) % 5 + 5 * np.repeat(index % 2, 3)
    unused = np.zeros(3 * n, np.int32)
    measurements = MeasurementBatch(
        modules, local.astype(np.float32), variance.astype(np.float32), unused, unused, unused, unused, unused, unused
    )
    spacepoints = SpacepointBatch(points.reshape(-1, 3).astype(np.float32), np.arange(3 * n, dtype=np.int32), unused)
    seeds = SeedBatch(3 * index, 3 * index + 1, 3 * index + 2, np.zeros(n, np.float32), index % 2)
    ws = Workspace(CpuDevice(threads))
    ws.set_size(ws.extent("seeds"), n)
    detector = pad_module(5)._replace(field=HomogeneousField(np.float32(b_z)))
    out = estimate_parameters(ws, seeds, spacepoints, measurements, detector, config or ParameterEstimationConfig(), 5)
    return out.__class__(*(column[:n].copy() for column in out))


@pytest.mark.parametrize("charge", [-1, 1])
def test_peer_case(charge):
    points = np.array([(35.35269, 0.37473, 35.35534), (70.68950, 1.49874, 70.71068), (105.99454, 3.37153, 106.06602)])
    points[:, 1] *= -charge
    out = run([points])
    assert abs(1 / abs(out.params[0, QOP]) - math.sqrt(2)) < 2e-4
    assert out.params[0, QOP] == pytest.approx(charge * 0.7071068, abs=1e-4)
    assert out.params[0, PHI] == pytest.approx(-charge * 0.0211985, abs=1e-6)
    assert out.params[0, THETA] == pytest.approx(math.pi / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("points", "phi", "theta", "qop"),
    [
        (
            [(36.6706, 10.6472, 104.131), (94.2191, 29.6699, 113.628), (149.805, 47.9518, 122.979)],
            0.3200042,
            1.4138782,
            0.0413137,
        ),
        (
            [(36.301, 13.1197, 106.83), (93.9366, 33.7101, 120.978), (149.192, 52.0562, 134.678)],
            0.3546761,
            1.3417100,
            0.6133428,
        ),
    ],
)
def test_peer_seeds(points, phi, theta, qop):
    out = run([points])
    np.testing.assert_allclose(out.params[0, [PHI, THETA, QOP]], [phi, theta, qop], rtol=2e-4, atol=2e-6)


def _helices(pt, n=400):
    rng = np.random.default_rng(5)
    curvature = rng.choice([-1, 1], n) * FIELD / pt
    phi, cot, z0 = rng.uniform(-np.pi, np.pi, n), rng.uniform(-8, 8, n), rng.normal(0, 50, n)
    s = np.array([34.0, 70.0, 116.0])[:, None]
    x, y, z = position_at(phi, cot, curvature, 0.0, z0, s)
    points = np.stack([x, y, z], axis=2).transpose(1, 0, 2)
    return points, phi - curvature * 34.0, cot, curvature


@pytest.mark.parametrize(("pt", "tolerance"), [(0.3, 1e-4), (1.0, 1e-4), (10.0, 1e-3), (100.0, 1e-2)])
def test_exact_helices_are_recovered_in_float32(pt, tolerance):
    points, phi, cot, curvature = _helices(pt)
    out = run(points)
    p = pt * np.sqrt(1 + cot**2)
    np.testing.assert_allclose(out.params[:, QOP], np.sign(curvature) / p, rtol=tolerance)
    turn = (out.params[:, PHI] - phi + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turn).max() < 2e-6
    np.testing.assert_allclose(1 / np.tan(out.params[:, THETA].astype(float)), cot, atol=2e-5)


def test_charge_follows_the_direction_of_the_field():
    points, _, _, curvature = _helices(1.0)
    out = run(points, b_z=-FIELD)
    np.testing.assert_array_equal(np.sign(out.params[:, QOP]), -np.sign(curvature))


def test_local_position_module_and_event_are_those_of_the_bottom():
    points, *_ = _helices(1.0, 6)
    local = np.random.default_rng(0).normal(size=(18, 2))
    out = run(points, local=local)
    np.testing.assert_array_equal(out.params[:, [LOC0, LOC1]], local[::3].astype(np.float32))
    assert out.module.tolist() == [0, 3, 1, 4, 2, 0]
    assert out.event.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("pt", [1.0, 20.0])
def test_variances_are_those_of_smeared_points(pt):
    """Spread of the parameters of one helix whose points are measured again and again, transversely and in z."""
    sigma, n = 0.02, 20_000
    rng = np.random.default_rng(8)
    s = np.array([34.0, 60.0, 116.0])
    curvature = FIELD / pt
    across = sigma * rng.normal(size=(n, 3))
    x, y, z = position_at(0.0, 1.2, curvature, 0.0, 0.0, s)
    direction = -curvature * s
    points = np.stack([x - across * np.sin(direction), y + across * np.cos(direction),
                       z + sigma * rng.normal(size=(n, 3))], axis=2)  # fmt: skip
    config = ParameterEstimationConfig(inflation=1.0, sigma_scattering=0.0, sigma_pt_scattering=0.0)
    out = run(points, config=config, variance=np.full((3 * n, 2), sigma**2) * [0.5, 1.0])
    spread = out.params[:, [PHI, THETA]].astype(float).std(axis=0)
    spread[1] *= math.sqrt(1 + 1.2**2)  # the estimate is for an error perpendicular to the track, not along z
    np.testing.assert_allclose(np.sqrt(out.variance[:, [PHI, THETA]]).mean(axis=0), spread, rtol=0.03)
    qop = out.params[:, QOP].astype(float)
    assert np.sqrt(out.variance[:, QOP].mean()) == pytest.approx(qop.std(), rel=0.03)


def test_variances_of_material_fall_with_momentum_and_are_inflated():
    points, _, cot, curvature = _helices(2.0, 50)
    config = ParameterEstimationConfig(sigma_loc0=0.5, inflation=4.0, sigma_scattering=0.003, sigma_pt_scattering=0.1)
    out = run(points, config=config, variance=np.zeros((150, 2)))
    sin2, qopt2 = 1 / (1 + cot**2), (curvature / FIELD) ** 2
    direction = 16 * 0.003**2 * qopt2
    np.testing.assert_allclose(out.variance[:, [LOC0, LOC1]], [[0.25, 1.0]] * 50)
    np.testing.assert_allclose(out.variance[:, [PHI, THETA]], np.stack([direction, direction], axis=1), rtol=1e-3)
    var_qop = 16 * 0.1**2 * qopt2 * sin2 + direction * qopt2 * sin2 * cot**2
    np.testing.assert_allclose(out.variance[:, QOP], var_qop, rtol=1e-3)


def test_straight_seeds_get_a_finite_momentum():
    out = run([[(34, 0, 1), (70, 0, 2), (116, 0, 3)]])
    assert np.isfinite(out.params).all()
    assert out.params[0, QOP] != 0


def test_no_seed_one_seed_and_two_threads():
    assert len(run(np.zeros((0, 3, 3))).params) == 0
    points, *_ = _helices(1.0, 20_000)
    one, two = run(points), run(points, threads=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(run(points[7:8]).params[0, PHI:], one.params[7, PHI:])
