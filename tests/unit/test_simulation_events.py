import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from traccc_py.config import ChainConfig
from traccc_py.data.csv_events import (
    event_file_name,
    read_cells,
    read_hits,
    read_measurement_hit_map,
    read_measurements,
    read_particles,
)
from traccc_py.derivation import derive
from traccc_py.errors import ConfigError
from traccc_py.geometry import build_detector
from traccc_py.geometry.records import MAX_CLUSTER_SIZE
from traccc_py.geometry.variance_table import END_PATHS, path_sigmas, sigma_of_path
from traccc_py.performance.statistics import fit_gaussian
from traccc_py.simulation.calibration import (
    CalibrationConfig,
    calibrate_variances,
    cluster_residuals,
    end_path_sigmas,
    robust_variance,
)
from traccc_py.simulation.events import read_event, simulate_event, simulate_events, truth_measurements, write_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

GUN = ParticleGunConfig(n_particles=30, momentum=(1.0, 10.0), vertex_sigma=(0.0125, 0.0125, 55.0))
REFERENCE = os.environ.get("TRACCC_PY_REFERENCE_DATA")


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


def test_event_k_is_the_same_whatever_else_is_simulated(odd):
    events = list(simulate_events(odd, GUN, seed=7, n_events=3))
    alone = simulate_event(odd, GUN, 7, 2, threads=2)
    np.testing.assert_array_equal(events[2].cells.activation, alone.cells.activation)
    np.testing.assert_array_equal(events[2].cells.channel1, alone.cells.channel1)
    assert not np.array_equal(events[0].particles.momentum, events[1].particles.momentum)


def test_truth_measurements_are_near_their_hits(odd):
    event = simulate_event(odd, GUN, 7)
    measurements = truth_measurements(odd, event)
    hit = event.digitization.measurement_hit
    residual = measurements.local_position - event.simulated.local_position[hit]
    pixel = np.isin(measurements.geometry_id >> np.uint64(56), [16, 17, 18])
    assert np.median(np.abs(residual[pixel])) < 0.015
    np.testing.assert_array_equal(np.unique(event.cells.measurement_id), np.arange(len(measurements)))
    assert measurements.n_cells.sum() == len(event.digitization.hit_indices)


@pytest.mark.parametrize("compress", [False, True])
def test_written_files_read_back(odd, tmp_path, compress):
    event = simulate_event(odd, GUN, 7, 3)
    paths = write_event(tmp_path / "new", odd, event, compress=compress)
    assert all(path.exists() for path in paths)
    folder = tmp_path / "new"

    def path(kind):
        return folder / event_file_name(3, kind, compress=compress)

    cells = read_cells(path("cells"))
    np.testing.assert_array_equal(cells.geometry_id, event.cells.geometry_id)
    np.testing.assert_array_equal(cells.channel1, event.cells.channel1)
    np.testing.assert_allclose(cells.activation, event.cells.activation, rtol=1e-6)
    hits, particles = read_hits(path("hits")), read_particles(path("particles_initial"))
    np.testing.assert_allclose(hits.momentum, event.simulated.hits.momentum, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(hits.particle_id, event.simulated.hits.particle_id)
    np.testing.assert_allclose(particles.momentum, event.particles.momentum, rtol=1e-5)
    links = read_measurement_hit_map(path("measurement-simhit-map"))
    measurements = read_measurements(path("measurements"), odd)
    assert len(links) == len(measurements)
    np.testing.assert_array_equal(hits.geometry_id[links.hit_id], measurements.geometry_id)


def test_robust_variance_ignores_the_tail():
    sample = np.append(np.random.default_rng(1).normal(size=10_000), np.full(20, 100.0))
    assert robust_variance(sample, 0.995) == pytest.approx(1.0, abs=0.06)
    assert robust_variance(np.array([2.0, -2.0]), 1.0) == 4.0


def test_calibration_of_the_barrel_gives_pulls_of_one(odd):
    gun = ParticleGunConfig(
        momentum=(1.0, 100.0), momentum_distribution="log", eta=(-1.5, 1.5), vertex_sigma=(0.01, 0.01, 55)
    )
    config = CalibrationConfig(n_particles=2000, gun=gun, min_clusters=300)
    result = calibrate_variances(odd, config)
    barrel = odd.design_names.index("17")
    variances, path_sigmas = result.table
    assert (variances[:, 1][odd.designs["dimensions"] == 1] == 0).all()
    known = variances > 0
    assert (path_sigmas[known] > 0).all()
    assert not path_sigmas[~known].any()
    assert known[barrel, 0, 1:3].all()
    assert known[barrel, 1, 1:4].all()
    assert (np.abs(result.pull_rms[known] - 1) < 0.1).all()
    assert (result.n_clusters[known] >= 300).all()
    assert not known[..., 0].any()
    # a size of one is at most as wide as the pitch
    assert np.sqrt(variances[barrel, :, 1]).max() < 0.05 / np.sqrt(12)
    with pytest.raises(ConfigError, match="central_fraction"):
        CalibrationConfig(central_fraction=0.2)


def test_sigmas_by_end_path_follow_the_width_of_a_box():
    # two digital strips: the path crosses the border somewhere on its length
    rng = np.random.default_rng(4)
    path = rng.uniform(0.02, 0.6, 20_000)
    residual = 0.1 * path * rng.uniform(-0.5, 0.5, len(path))
    sigmas = end_path_sigmas(residual, path, 0.1, CalibrationConfig())
    np.testing.assert_allclose(sigmas[1:3], 0.1 * END_PATHS[1:3] / np.sqrt(12), rtol=0.05)
    assert sigmas[0] < 2e-4 + CalibrationConfig().min_sigma
    # the same from its other end; where the box has no width, clusters at the sensor's edge have
    sigmas_from_two = end_path_sigmas(residual, 2 - path, 0.1, CalibrationConfig())
    np.testing.assert_allclose(sigmas_from_two[6:8], sigmas[2:0:-1], rtol=1e-6)
    assert sigmas_from_two[8] == pytest.approx(0.01)
    # no clusters: as the nearest end path that has some, but not below what the ends allow; longer ones miss a part
    np.testing.assert_allclose(sigmas[4], 0.1 / np.sqrt(12), rtol=1e-6)
    assert (sigmas[3:9] >= sigmas[2]).all()
    np.testing.assert_allclose(np.diff(sigmas[8:]), 0.5 * 0.1 * 0.25, rtol=1e-6)


def test_clusters_of_hits_that_share_cells_are_left_out_and_pieces_are_marked(odd):
    event = simulate_event(odd, replace(GUN, n_particles=300), 7)
    residuals = cluster_residuals(odd, event.simulated, event.digitization)
    assert 0.9 * len(event.simulated) < residuals.is_whole.sum() <= len(event.simulated)
    end_path = residuals.path - (residuals.size - 2)
    assert end_path[residuals.is_whole].min() > -1e-3  # a path can't make more channels than it crosses
    piece = ~residuals.is_whole
    assert 0 < piece.sum() < 0.02 * len(piece)
    assert (end_path[piece].max(axis=1) > 2).all()  # something is missing of each
    crowd = ParticleGunConfig(n_particles=400, momentum=(50.0, 50.0), eta=(0.0, 0.01), phi=(0.0, 0.01))
    crowded = simulate_event(odd, crowd, 7)
    assert len(cluster_residuals(odd, crowded.simulated, crowded.digitization).design) < 0.9 * len(crowded.simulated)


def _residuals_by_class(odd, gun, sizes):
    """Return design, axis, sizes and the rows of all classes of 300 clusters and more."""
    event = simulate_event(odd, replace(gun, n_particles=5000), 11)
    residuals = cluster_residuals(odd, event.simulated, event.digitization)
    classes = []
    for design in range(len(odd.designs)):
        for axis in range(int(odd.designs["dimensions"][design])):
            for first, end in itertools.pairwise(sizes):
                size = residuals.size[:, axis]
                rows = (residuals.design == design) & (size >= first) & (size < end)
                if rows.sum() >= 300:
                    classes.append(((design, axis, first), rows))
    return residuals, classes


def test_stored_variances_have_pulls_of_one(odd):
    known = odd.variance_table.variances[:, :, 1:] > 0
    assert known[:, 0, :2].all(), "run `traccc-py calibrate odd`"
    residuals, classes = _residuals_by_class(odd, CalibrationConfig().gun, [*range(1, MAX_CLUSTER_SIZE + 1), np.inf])
    assert len(classes) > 25
    for where, rows in classes:
        whole = rows & residuals.is_whole
        pull = residuals.residual[whole, where[1]] / np.sqrt(odd.variance_table.variances[where])
        assert pull[np.abs(pull) < 4].std() == pytest.approx(1.0, abs=0.1), where


@pytest.mark.parametrize(
    ("momentum", "eta", "n_classes"),
    [((0.6, 100.0), (-2.5, 2.5), 20), ((0.15, 0.5), (-3.5, 3.5), 30), ((0.6, 100.0), (2.5, 3.5), 10)],
)
def test_stored_sigmas_have_pulls_of_one(odd, momentum, eta, n_classes):
    gun = replace(CalibrationConfig().gun, momentum=momentum, eta=eta)
    table = path_sigmas(odd.arrays(), derive(ChainConfig(), odd)[0].clusterization)
    residuals, classes = _residuals_by_class(odd, gun, [*range(1, MAX_CLUSTER_SIZE + 1), 20, 25, 32, 48])
    assert len(classes) > n_classes
    for where, rows in classes:
        axis = where[1]
        column = (residuals.design[rows], axis, residuals.size[rows, axis], residuals.path[rows, axis])
        pull = residuals.residual[rows, axis] / sigma_of_path(table, odd.designs, *column)
        assert fit_gaussian(pull).sigma == pytest.approx(1.0, abs=0.12), where
        assert pull.std() < 1.2, where


@pytest.mark.skipif(REFERENCE is None, reason="TRACCC_PY_REFERENCE_DATA is not set")
def test_cells_look_like_those_of_a_real_event(odd):
    # the muons of an independent fit of the real event, simulated again and again
    folder = Path(REFERENCE) / "odd_real"
    real = read_cells(next(folder.glob("*-cells.csv")))
    tracks = np.genfromtxt(
        next(folder.glob("*simplefit_tracks.csv")), delimiter=",", names=True, dtype=None, encoding=None
    )
    used = {int(hit.split(":")[3]) for track in tracks for hit in str(track[-1]).split()}
    rows = np.isin(real.measurement_id, list(used))
    gun = ParticleGunConfig(n_particles=1)
    pixel = {}
    for name, cells in (("real", real), ("simulated", _repeat(odd, tracks, gun))):
        chosen = rows if name == "real" else np.ones(len(cells), bool)
        barrel = chosen & ((cells.geometry_id >> np.uint64(56)) == 17)
        _, n_cells = np.unique(cells.measurement_id[barrel], return_counts=True)
        pixel[name] = (
            n_cells.mean(),
            np.median(n_cells),
            cells.activation[barrel].mean(),
            cells.activation[barrel].std(),
        )
    # 149 clusters in the real event
    assert pixel["real"][0] == pytest.approx(pixel["simulated"][0], abs=0.7)
    assert pixel["real"][1] == pytest.approx(pixel["simulated"][1], abs=1)
    assert pixel["real"][2] == pytest.approx(pixel["simulated"][2], rel=0.1)
    assert pixel["real"][3] == pytest.approx(pixel["simulated"][3], rel=0.15)


def _repeat(odd, tracks, gun, n_copies=40):
    from traccc_py.data.truth import Particles
    from traccc_py.simulation.digitization.digitization import digitize
    from traccc_py.simulation.random_numbers import event_key
    from traccc_py.simulation.transport.transport import transport

    rng = np.random.default_rng(1)
    n = len(tracks) * n_copies
    phi, cot, z, pt, curvature = (
        np.repeat(tracks[name], n_copies) for name in ("phi0", "cot_theta", "z0_mm", "pt_GeV_at_2T", "curvature_per_mm")
    )
    phi, z = phi + rng.uniform(-0.02, 0.02, n), z + rng.uniform(-2, 2, n)
    particles = Particles(
        particle_id=np.arange(1, n + 1, dtype=np.uint64),
        particle_type=np.full(n, 13, np.int32),
        process=np.zeros(n, np.int32),
        vertex=np.column_stack([0 * z, 0 * z, z]),
        time=np.zeros(n),
        momentum=np.column_stack([pt * np.cos(phi), pt * np.sin(phi), pt * cot]),
        mass=np.full(n, 0.1056583755),
        charge=-np.sign(curvature),
    )
    return digitize(odd, transport(odd, particles, event_key(1, 0)), event_key(1, 0)).cells


def test_ids_of_particles_in_five_columns_are_read_back(tmp_path):
    telescope = build_detector("telescope")
    event = simulate_event(telescope, ParticleGunConfig(n_particles=3), 1, 0)
    write_event(tmp_path, telescope, event, particle_id_fields=True)
    hits = (tmp_path / "event000000000-hits.csv").read_text()
    assert hits.startswith(
        "particle_id_pv,particle_id_sv,particle_id_part,particle_id_gen,particle_id_subpart,geometry_id"
    )
    again = read_event(tmp_path, telescope, 0)
    assert again.particles.particle_id.tolist() == event.particles.particle_id.tolist()
    assert again.simulated.particle_index.tolist() == event.simulated.particle_index.tolist()
