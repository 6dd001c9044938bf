"""The chain on barrels of pixels and discs of annuli whose strips fan out from a place off the beam."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.detray_documents import ANNULUS, SENSITIVE, barrel, disc, geometry, homogeneous, load, slab, surface
from traccc_py import ChainConfig, TrackingChain
from traccc_py.simulation.events import simulate_event, truth_measurements
from traccc_py.simulation.generators.gun import ParticleGunConfig

N_SECTORS = 16
R = (60.0, 160.0)
FOCAL = (3.0, 2.0)  # of the strips, from the beam: their angle to the radius is up to 3 degrees
N = 200
STRIP = 0.075 / 110  # [rad]


def annuli(z, sign):
    """A disc of annuli; every second one stands 2 mm behind and has its strips turned the other way."""
    found = []
    for k in range(N_SECTORS):
        phi = 2 * np.pi * k / N_SECTORS
        turn = np.array([[np.cos(phi), np.sin(phi), 0], [-np.sin(phi), np.cos(phi), 0], [0, 0, 1]])
        x, y = FOCAL[0], sign * (1 if k % 2 else -1) * FOCAL[1]
        place = np.array([x, y, 0]) @ turn + [0, 0, z + 2 * (k % 2)]
        found.append(surface(SENSITIVE, ANNULUS, [*R, -0.23, 0.23, 0.0, -x, -y], place, turn))
    return found


def axis(value, n, low, high):
    return {"bins": n, "type": "equidistant", "min": low, "max": high, "value": value}


def entry(volume, *axes):
    geometric = {"segmentation": {"binningdata": list(axes)}, "thickness": 0.3, "threshold": 0.005}
    return {"volume": volume, "value": {"geometric": geometric}}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("annuli")
    pixels = [*barrel(30.0, n=12, half_z=250.0), *barrel(45.0, n=16, half_z=250.0), *barrel(60.0, half_z=250.0)]
    rings = [s for z in (300.0, 350.0, 400.0) for s in disc(z, radius=70.0, n=16, half_r=50.0)]
    strips = [s for k, z in enumerate((450.0, 500.0, 550.0, 600.0, 650.0, 700.0)) for s in annuli(z, (-1) ** k)]
    n_strips = int(0.5 / STRIP)
    entries = [
        entry(1, axis("binX", 1000, -25, 25), axis("binY", 10400, -260, 260)),
        entry(2, axis("binX", 1000, -25, 25), axis("binY", 2080, -52, 52)),
        entry(3, axis("binR", 1, *R), axis("binPhi", n_strips, -n_strips * STRIP / 2, n_strips * STRIP / 2)),
    ]
    (folder / "readout.json").write_text(json.dumps({"acts-geometry-hierarchy-map": {}, "entries": entries}))
    slabs = {v: [slab(k, 0.3) for k in range(len(s))] for v, s in enumerate((pixels, rings, strips))}
    document = geometry(pixels, rings, strips)
    return load(folder, document, homogeneous(slabs), digitization=folder / "readout.json")


@pytest.fixture(scope="module")
def event(detector):
    gun = ParticleGunConfig(n_particles=N, momentum=(1.0, 5.0), eta=(2.05, 2.45), vertex_sigma=(0.01, 0.01, 10.0))
    return simulate_event(detector, gun, 7)


@pytest.fixture(scope="module")
def result(detector, event):
    return TrackingChain(detector, device="cpu", threads=2).run(event.cells)


def test_tracks_through_fans_of_strips_are_found_whole(detector, event, result):
    tracks, links = result.tracks, event.simulated
    n_hits = np.bincount(links.particle_index, minlength=N)
    n_strips = np.bincount(links.particle_index, detector.acts_ids[links.module_index] >> 56 == 3, N)
    assert n_strips.mean() > 5
    assert 0.97 * N <= len(tracks) <= N
    assert tracks.n_measurements.sum() > 0.95 * n_hits.sum()  # some hits of two muons made one cluster
    assert (tracks.n_holes == 0).mean() > 0.98
    assert (tracks.fit_outcome == 1).all()
    assert 0.5 < tracks.pval.mean() < 0.95  # the variances of traccc's formula are on the large side


def test_pulls_of_tracks_through_fans_of_strips(event, result):
    tracks = result.tracks
    momentum = event.particles.momentum
    phi = np.arctan2(momentum[:, 1], momentum[:, 0])
    theta = np.arctan2(np.hypot(momentum[:, 0], momentum[:, 1]), momentum[:, 2])
    qop = event.particles.charge / np.linalg.norm(momentum, axis=1)
    distance = np.hypot(
        np.angle(np.exp(1j * (tracks.perigee[:, None, 2] - phi))), 3 * (tracks.perigee[:, None, 3] - theta)
    )
    of_track = np.argmin(distance, axis=1)
    sigma = np.sqrt(tracks.perigee_covariance[:, [9, 14]])
    pulls = np.stack([tracks.perigee[:, 3] - theta[of_track], tracks.perigee[:, 4] - qop[of_track]], axis=1) / sigma
    for k, low in enumerate((0.4, 0.7)):
        core = np.abs(pulls[:, k]) < 5
        assert core.mean() > 0.97
        assert low < pulls[core, k].std() < 1.1
        assert abs(pulls[core, k].mean()) < 0.2


def test_measurements_on_strips_are_as_near_as_they_say(detector, event):
    made = truth_measurements(detector, event)
    surfaces = detector.arrays().surfaces[made.module_index]
    on_strip = made.dimensions == 1
    true = event.simulated.local_position[event.digitization.measurement_hit]
    focal = surfaces["focal"].astype(float)
    angle = np.arctan2(made.local_position[:, 0], made.local_position[:, 1] + focal)
    offset = made.local_position - true
    across = (np.cos(angle) * offset[:, 0] - np.sin(angle) * offset[:, 1])[on_strip]
    assert np.count_nonzero(on_strip) > 1000
    assert np.abs(np.sin(angle[on_strip])).max() > 0.15
    # within half a strip, more where clusters have two; strips are 41 to 109 um wide
    assert np.abs(across).max() < 0.08
    assert across.std() == pytest.approx(np.sqrt(made.local_variance[on_strip, 0].mean()), rel=0.35)


def test_results_do_not_depend_on_the_order_of_cells(detector, event, result):
    rng = np.random.default_rng(1)
    order = rng.permutation(len(event.cells))
    cells = replace(event.cells, **{n: getattr(event.cells, n)[order] for n in event.cells.__dataclass_fields__})
    again = TrackingChain(detector, ChainConfig(), device="cpu", threads=1).run(cells)
    np.testing.assert_array_equal(again.tracks.params, result.tracks.params)
