"""Annuli and rings that are read out in r and phi: positions, filter and simulation against detray's own frame."""

import json
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from tests.reference import kalman as reference
from tests.smearing import smear_hits
from tests.unit.detray_documents import ANNULUS, RING, SENSITIVE, barrel, geometry, load, surface
from tests.unit.test_clusterization import run as make_measurements
from tests.unit.test_dead_channels import rows
from tests.unit.test_kalman import covariance_of, local_of, parameters_of, random_covariance
from traccc_py.errors import ConfigError, GeometryError
from traccc_py.geometry import write_detray
from traccc_py.geometry.detray.read import read_detray
from traccc_py.kernels.tracking.dead_channels import may_cross_dead_channels
from traccc_py.kernels.tracking.detector import detector_payload
from traccc_py.kernels.tracking.kalman import predicted_chi2
from traccc_py.kernels.tracking.polar import rotated, rotated_covariance, strip_direction, widening
from traccc_py.kernels.tracking.propagation import local_position, on_surface, updated
from traccc_py.kernels.tracking.state import Local
from traccc_py.simulation.calibration import calibrate_variances
from traccc_py.simulation.digitization.channel_loop import HitArrays, divide_paths
from traccc_py.simulation.digitization.digitization import PATH_LENGTHS, digitization_geometry
from traccc_py.simulation.generators.gun import ParticleGunConfig, generate_particles
from traccc_py.simulation.transport.transport import transport

BOUNDARIES = [384.5, 498.2, 0.6, 0.75, 0.1, 4.0, -3.0]  # skewed: 4 and -3 mm off the beam
MIDDLE = 0.1 + (0.6 + 0.75) / 2
PLACE = np.array([3.0, -2.0, 700.0])
AXES = np.array([[np.cos(0.3), np.sin(0.3), 0], [np.sin(0.3), -np.cos(0.3), 0], [0, 0, -1]])
N_STRIPS = 1000
PHI = (0.69, 0.86)  # of the channels, around 0.7 to 0.85


def binning(value, n, low, high):
    return {"bins": n, "option": "open", "type": "equidistant", "min": low, "max": high, "value": value}


def readout(folder, *axes, volume=1, name="readout"):
    """An Acts digitisation file with one entry."""
    geometric = {"segmentation": {"binningdata": list(axes)}, "thickness": 0.3, "digital": False}
    entries = [{"volume": volume, "value": {"geometric": geometric}}]
    path = folder / f"{name}.json"
    top = {"acts-geometry-hierarchy-map": {"format-version": 0, "value-identifier": "d"}, "entries": entries}
    path.write_text(json.dumps(top))
    return path


def strips(folder, n_r=1):
    return readout(folder, binning("binR", n_r, 380.0, 500.0), binning("binPhi", N_STRIPS, *PHI))


def annulus(folder, n_r=1):
    document = geometry([surface(SENSITIVE, ANNULUS, BOUNDARIES, PLACE, AXES)])
    return load(folder, document, digitization=strips(folder, n_r))


def in_file_frame(detector, local):
    """r and phi, in the polar frame of the file, of local positions on the first surface."""
    s = detector.surfaces
    offset = s.centre[0] + local[:, :1] * s.u[0] + local[:, 1:] * s.v[0] - PLACE
    x, y, z = (offset @ AXES.T).T
    assert np.abs(z).max() < 1e-9
    return np.hypot(x, y), np.arctan2(y, x)


@pytest.mark.parametrize("n_r", [1, 24])
def test_channels_are_those_of_the_files_frame(tmp_path, n_r):
    detector = annulus(tmp_path, n_r)
    assert detector.designs["dimensions"].tolist() == [1 if n_r == 1 else 2]
    rng = np.random.default_rng(1)
    channels = np.stack([rng.integers(0, n_r, 50), rng.choice(N_STRIPS // 3, 50, replace=False) * 3], axis=1)
    made = make_measurements([(0, *c, 1.0) for c in channels], detector.arrays())
    r, phi = in_file_frame(detector, made["local_position"].astype(float))
    by_phi = channels[np.argsort(channels[:, 1])]
    pitch = (PHI[1] - PHI[0]) / N_STRIPS
    np.testing.assert_allclose(np.sort(phi), PHI[0] + (by_phi[:, 1] + 0.5) * pitch, atol=3e-7)
    np.testing.assert_allclose(made["local_variance"][:, 0], (r * pitch) ** 2 / 12, rtol=1e-4)
    if n_r == 1:
        np.testing.assert_allclose(made["local_position"][:, 1], 0.0, atol=1e-3)  # the middle of the sensor
    else:
        width = 120.0 / n_r
        np.testing.assert_allclose(r[np.argsort(phi)], 380.0 + (by_phi[:, 0] + 0.5) * width, atol=2e-4)
        np.testing.assert_allclose(made["local_variance"][:, 1], width**2 / 12, rtol=1e-5)


def test_shifts_of_conditions_are_in_r_and_phi(tmp_path):
    entry = {"volume": 1, "value": {"geometric": {"segmentation": {"binningdata": {"shift": [5.0, 0.01]}}}}}
    path = tmp_path / "conditions.json"
    path.write_text(json.dumps({"acts-geometry-hierarchy-map": {}, "entries": [entry]}))
    detector = annulus(tmp_path, 24)
    places = [
        in_file_frame(detector, make_measurements([(0, 3, 500, 1.0)], d.arrays())["local_position"].astype(float))
        for d in (detector, detector.with_conditions(path))
    ]
    np.testing.assert_allclose(places[1][0] - places[0][0], 5.0, atol=1e-3)
    np.testing.assert_allclose(places[1][1] - places[0][1], 0.01, atol=1e-6)


def near_dead(detector, local, band):
    """Which places on the first surface are in dead channels, or within `band` [mm] of them."""
    payload = detector_payload(detector.arrays(), None, np.float32)
    bands = Local(np.float32(band), np.float32(band))
    return np.array([may_cross_dead_channels(payload, 0, Local(*x), bands) for x in local.astype(np.float32)])


@pytest.mark.parametrize("band", [0.0, 2.0])
def test_dead_channels_in_r_and_phi_are_where_they_are_in_the_files_frame(tmp_path, band):
    detector = annulus(tmp_path, 24)
    dead = rows((detector.geometry_ids[0], 6, 9, 300, 399))  # of 5 mm and 0.17 mrad
    local = np.random.default_rng(2).uniform((-70, -60), (70, 60), (3000, 2))
    r, phi = in_file_frame(detector, local)
    pitch = (PHI[1] - PHI[0]) / N_STRIPS
    edges = 380.0 + 5.0 * np.array([6, 10]), PHI[0] + pitch * np.array([300, 400])
    outside = np.maximum(
        np.maximum(edges[0][0] - r, r - edges[0][1]), r * np.maximum(edges[1][0] - phi, phi - edges[1][1])
    )
    found = near_dead(detector.with_dead_channels(dead), local, band)
    is_clear = np.abs(outside - band) > 0.01
    np.testing.assert_array_equal(found[is_clear], outside[is_clear] < band)
    assert found.sum() > 20
    all_phi = near_dead(detector.with_dead_channels(rows((detector.geometry_ids[0], 6, 9, -1, -1))), local, band)
    np.testing.assert_array_equal(all_phi, (r > edges[0][0] - band) & (r < edges[0][1] + band))


def test_dead_channels_of_a_ring_go_on_across_pi(tmp_path):
    document = geometry([surface(SENSITIVE, RING, [20.0, 80.0], PLACE, AXES)])
    axes = binning("binR", 6, 20.0, 80.0), binning("binPhi", 360, -np.pi, np.pi)
    detector = load(tmp_path, document, digitization=readout(tmp_path, *axes))
    ends = rows(*((detector.geometry_ids[0], 0, 5, first, first + 9) for first in (0, 350)))
    angle = np.radians(np.arange(0.5, 360.0, 1.0))
    local = 50.0 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    _, phi = in_file_frame(detector, local)
    found = near_dead(detector.with_dead_channels(ends), local, 0.0)
    np.testing.assert_array_equal(found, np.abs(phi) > np.radians(170))
    assert found.sum() == 20


def test_clusters_in_r_and_phi_that_dead_channels_cut_off(tmp_path):
    detector = annulus(tmp_path, 24)
    cluster = [(0, 3, 500, 1.0), (0, 3, 501, 1.0)]
    plain = make_measurements(cluster, detector.arrays())
    for dead, axis in (((0, 23, 502, 510), 0), ((0, 2, 400, 600), 1)):
        told = detector.with_dead_channels(rows((detector.geometry_ids[0], *dead)))
        found = make_measurements(cluster, told.arrays())
        sizes = [2, 1]  # across the strips comes first
        sizes[axis] *= -1
        assert found["cluster_size"].tolist() == [sizes]
        r = in_file_frame(detector, found["local_position"].astype(float))[0]
        width = 5.0 if axis else r * (PHI[1] - PHI[0]) / N_STRIPS
        added = found["local_variance"] - plain["local_variance"]
        assert added[0, axis] == pytest.approx(width**2 / 12, rel=1e-3)
        assert added[0, 1 - axis] == 0


def test_files_keep_the_frame_of_the_channels(tmp_path):
    detector = annulus(tmp_path)
    files = write_detray(detector, tmp_path / "again")
    again = read_detray(files["geometry"], digitization=files["digitization"])
    assert again.digitization.designs[0].is_polar
    np.testing.assert_array_equal(again.designs, detector.designs)
    np.testing.assert_allclose(again.surfaces.outline, detector.surfaces.outline, atol=1e-9)
    assert again.surfaces.outline[0, 6] == pytest.approx(MIDDLE)


class Surfaces(NamedTuple):
    surfaces: Any


class Measurements(NamedTuple):
    local_position: Any
    dimensions: Any


class Payload(NamedTuple):
    detector: Surfaces
    measurements: Measurements


@numba.njit
def run_updated(p, x, c, variance):
    track, chi2 = updated(on_surface(p.detector.surfaces, 0, x, c), p, 0, 0, variance)
    return track.params, track.covariance, chi2


@numba.njit
def run_chi2(p, x, c, variance):
    surfaces, local = p.detector.surfaces, local_position(p.measurements, 0)
    sine, cosine = strip_direction(surfaces, 0, local)
    residual = rotated(local.loc0 - x.loc0, local.loc1 - x.loc1, sine, cosine)
    variance = Local(variance.loc0 * widening(surfaces, 0, local, x), variance.loc1)
    return predicted_chi2(residual, variance, p.measurements.dimensions[0], rotated_covariance(c, sine, cosine))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_update_is_that_of_a_distance_from_the_strip(tmp_path, dimensions, dtype):
    detector = annulus(tmp_path)
    surfaces = detector.arrays().surfaces
    focal = float(surfaces["focal"][0])
    rng = np.random.default_rng(dimensions)
    scales = np.array([0.3, 8.0, 1e-3, 2e-3, 1e-2])
    for _ in range(50):
        covariance = random_covariance(rng, scales)
        x = rng.normal(size=5) * scales
        measured = np.array([rng.uniform(-30, 30), rng.uniform(-40, 40)])
        x[:2] += measured
        variance = np.array([0.02**2, 2.0**2])
        ray = measured + np.array([0, focal])
        along = ray / np.linalg.norm(ray)
        across = np.array([along[1], -along[0]])
        ratio2 = np.sum((x[:2] + np.array([0, focal])) ** 2) / (ray @ ray)
        h = np.zeros((dimensions, 5))
        h[:, :2] = np.array([across, along])[:dimensions]
        v = np.diag([variance[0] * ratio2, variance[1]][:dimensions])
        residual = h[:, :2] @ (measured - x[:2])
        s = h @ covariance @ h.T + v
        gain = covariance @ h.T @ np.linalg.inv(s)
        expected_x, expected_c = x + gain @ residual, (np.eye(5) - gain @ h) @ covariance
        expected_chi2 = residual @ np.linalg.solve(s, residual)
        measurements = Measurements(measured[None].astype(dtype), np.array([dimensions], np.int32))
        p = Payload(Surfaces(surfaces), measurements)
        arguments = p, parameters_of(x, dtype), covariance_of(covariance, dtype), local_of(variance, dtype)
        found_x, found_c, chi2 = run_updated(*arguments)
        tolerance = {np.float32: 2e-3, np.float64: 1e-6}[dtype]
        sigma = np.sqrt(np.diag(expected_c))
        assert np.abs((found_x - expected_x) / sigma).max() < tolerance
        correlation = (reference.unpacked(np.array(found_c)) - expected_c) / np.outer(sigma, sigma)
        assert np.abs(correlation).max() < 5 * tolerance
        assert chi2 == pytest.approx(expected_chi2, rel=5 * tolerance, abs=1e-3)
        assert run_chi2(*arguments) == pytest.approx(expected_chi2, rel=5 * tolerance, abs=1e-3)


def sampled_channels(detector, n_axes, limits, local, step, n=50_000):
    """Length in each channel of the path local +- step / 2, by sampling; channels as the file's frame counts them."""
    points = local + (np.arange(n)[:, None] / n + 0.5 / n - 0.5) * step[:2]
    r, phi = in_file_frame(detector, points)
    (r_low, r_high), (phi_low, phi_high) = limits
    phi = phi_low + np.mod(phi - phi_low, 2 * np.pi)
    at = np.floor([(r - r_low) / (r_high - r_low) * n_axes[0], (phi - phi_low) / (phi_high - phi_low) * n_axes[1]])
    inside = ((at >= 0) & (at < np.array(n_axes)[:, None])).all(axis=0)
    a = detector.surfaces.outline[0]
    beam = np.hypot(points[:, 0] - a[1], points[:, 1] - a[2])
    inside &= (a[3] <= beam) & (beam <= a[4]) & (np.abs(np.arctan2(points[:, 0], points[:, 1] + a[0])) <= a[5])
    found, counts = np.unique(at[:, inside].astype(int), axis=1, return_counts=True)
    return {tuple(c): k / n * np.linalg.norm(step) for c, k in zip(found.T.tolist(), counts.tolist(), strict=True)}


@pytest.mark.parametrize("shape", ["strips", "pads", "ring"])
def test_paths_are_divided_at_the_borders_of_polar_channels(tmp_path, shape):
    if shape == "ring":
        axes = binning("AxisR", 40, 15.0, 90.0), binning("AxisPhi", 300, -np.pi, np.pi)
        document = geometry([surface(SENSITIVE, RING, [20.0, 80.0], PLACE, AXES)])
        detector = load(tmp_path, document, digitization=readout(tmp_path, *axes))
        n_axes, limits = (40, 300), ((15.0, 90.0), (-np.pi, np.pi))
    else:
        n_axes, limits = (1 if shape == "strips" else 400, N_STRIPS), ((380.0, 500.0), PHI)
        detector = annulus(tmp_path, n_axes[0])
    rng = np.random.default_rng(3)
    s, n = detector.surfaces, 60
    local = rng.uniform(-1.02, 1.02, (n, 2)) * [s.hx_min[0], s.hy[0]]  # some beyond the edges
    direction = np.column_stack([rng.uniform(-4, 4, (n, 2)), rng.choice([-1.0, 1.0], n)])
    one = np.ones(n)
    hits = HitArrays(
        np.zeros(n, np.int64), local, direction, np.arange(n, dtype=np.uint64), np.zeros(n, np.int64), one, one
    )
    rows = divide_paths(digitization_geometry(detector, smearing=False), hits, np.uint64(1), PATH_LENGTHS)
    thickness = float(detector.designs["thickness"][0])
    n_met = 0
    for i in range(n):  # borders are float32: to 1e-5 mm
        expected = sampled_channels(detector, n_axes, limits, local[i], thickness * direction[i] / abs(direction[i, 2]))
        found = {(int(a), int(b)): length for _, a, b, length in rows[rows[:, 0] == i]}
        length = thickness * np.linalg.norm(direction[i])
        assert all(
            found.get(c, 0.0) == pytest.approx(expected.get(c, 0.0), abs=1e-3 * length) for c in found | expected
        )
        assert np.count_nonzero(rows[:, 0] == i) == len(found)
        n_met += len(expected)
    assert n_met > 90


@pytest.mark.parametrize(
    ("axes", "problem"),
    [
        ((("binR", 1), ("binY", 9)), r"binningdata: has the axes \['binR', 'binY'\]; expected binR, binPhi"),
        ((("binPhi", 9), ("binR", 1)), r"binningdata: has the axes \['binPhi', 'binR'\]; expected binR, binPhi"),
        ((("binR", 9), ("binPhi", 1)), r"binningdata: has one bin along phi; sensors that measure r only are not"),
        ((("binX", 1), ("binY", 9)), r"binningdata: has one bin along axis 0; sensors that measure local 1 only"),
    ],
)
def test_axes_that_cannot_be_used_are_named(tmp_path, axes, problem):
    path = readout(tmp_path, *(binning(name, n, 0.1, 1.0) for name, n in axes))
    with pytest.raises(GeometryError, match=problem):
        load(tmp_path, geometry([surface(SENSITIVE, ANNULUS, BOUNDARIES, PLACE, AXES)]), digitization=path)


def test_rectangles_have_no_polar_readout_and_calibration_no_polar_tables(tmp_path):
    with pytest.raises(GeometryError, match=r"'readout' has the axes .* for surface .*not an annulus or ring"):
        load(tmp_path, geometry(barrel(50.0)), digitization=strips(tmp_path))
    with pytest.raises(GeometryError, match="not an annulus or ring"):
        load(tmp_path, geometry(barrel(50.0))).with_digitization(strips(tmp_path))
    detector = annulus(tmp_path)
    with pytest.raises(ConfigError, match="polar axes"):
        calibrate_variances(detector)
    muons = generate_particles(ParticleGunConfig(n_particles=500, eta=(1.15, 1.35), momentum=(5.0, 5.0)), 1)
    hits = transport(detector, muons, np.uint64(1))
    assert len(hits) > 0
    with pytest.raises(GeometryError, match="annuli or rings can't be smeared"):
        smear_hits(detector, hits, np.uint64(1), 0.1, 0.1)
