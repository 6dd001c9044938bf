"""TrackML's detector: navigation against exact helices, every module met, single muons. Needs its detectors.csv."""

from dataclasses import replace

import numpy as np
import pytest

from tests.physics.test_navigation import as_float32, compare, navigate
from tests.reference.geometry import random_helices, sensor_hits
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.geometry import build_detector
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

pytestmark = pytest.mark.physics

N_MODULES = 18_728
N_EVENTS, N_MUONS = 150, 5
FINDABLE = TruthSelection(min_pt=0.0, min_modules=7)
SIGMA, SIGMA_ERROR = 0.05, 3 / np.sqrt(2 * N_EVENTS * N_MUONS)  # bound on pulls of large samples


@pytest.fixture(scope="module")
def detector(reference_data):
    path = reference_data / "trackml" / "detectors.csv.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return build_detector(path)


def test_all_modules_are_there_with_their_own_variances(detector):
    assert len(detector.geometry_ids) == N_MODULES
    assert len(detector.designs) == 15
    assert (detector.variance_table.variances[:, 0, 1] > 0).all()


@pytest.mark.parametrize(
    ("pt", "d0_sigma", "may_miss"),
    [((0.5, 10.0), 0.0, 0.0001), ((10.0, 1000.0), 0.0, 0.0001), ((0.15, 0.5), 0.0, 0.01)],
)
def test_navigation_visits_what_helices_hit(detector, pt, d0_sigma, may_miss):
    helices = random_helices(np.random.default_rng(20261130), 1000, pt, 3.5, d0_sigma)
    found = compare(detector, as_float32(helices))
    print(found)
    assert found["hits"] > 10_000
    assert found["missed"] <= may_miss * found["hits"]
    assert found["not hit"] + found["repeated"] <= 2e-4 * found["hits"]
    assert found["out of order"] == 0


def test_every_module_is_met_by_some_track(detector):
    """Tracks of 500 to 1,000 GeV towards the middle of each module."""
    centre = detector.surfaces.centre
    r = np.hypot(centre[:, 0], centre[:, 1])
    helices = random_helices(np.random.default_rng(1), N_MODULES, (500.0, 1000.0), 3.5)
    aimed = as_float32(
        helices._replace(
            origin=np.zeros((N_MODULES, 3)), phi=np.arctan2(centre[:, 1], centre[:, 0]), cot_theta=centre[:, 2] / r
        )
    )
    for found in (sensor_hits(aimed, detector.surfaces, r_max=1200.0), navigate(detector, aimed)):
        track, surface = found[:2]
        assert np.array_equal(np.unique(surface[track == surface]), np.arange(N_MODULES))


@pytest.fixture(scope="module")
def chain(detector):
    config = ChainConfig()
    muon = replace(config.finding, particle="muon"), replace(config.fitting, particle="muon")
    return TrackingChain(detector, replace(config, finding=muon[0], fitting=muon[1]), device="cpu", threads=2)


@pytest.mark.slow
@pytest.mark.parametrize("pt", [1.0, 10.0, 100.0])
def test_single_muons(chain, pt):
    gun = ParticleGunConfig(n_particles=N_MUONS, momentum=(pt, pt), vertex_sigma=(0.0125, 0.0125, 55.0))
    field = float(chain.detector.arrays().b_z)
    summary = PerformanceSummary({"findable": FINDABLE}, field, detector_frames(chain.detector))
    for event in simulate_events(chain.detector, gun, 77, N_EVENTS):
        summary.add_result(event, chain.run(event.cells))
    numbers = summary.as_dict()
    assert numbers["tracks"]["findable"]["efficiency"] >= 0.995
    assert numbers["tracks"]["findable"]["n_fakes"] == 0
    assert numbers["trackml_score"] > 0.99
    for name, fit in numbers["perigee_pulls"].items():
        assert abs(fit["sigma"] - 1) < SIGMA + SIGMA_ERROR, (name, fit["sigma"])
