"""Single muons on the ODD through the whole chain, from cells: efficiency, duplicates, pulls, p-values.

The samples are smaller than those of `studies/performance_tables.py` (10,000 muons a momentum); the bounds allow for
their statistics: three standard deviations beyond what the full samples have to reach.
"""

from dataclasses import replace

import numpy as np
import pytest

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.geometry import build_detector
from traccc_py.performance.cluster_pulls import ClusterPulls
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.residuals import FIRST_STATE_NAMES, PERIGEE_NAMES
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

pytestmark = pytest.mark.physics

N_EVENTS, N_MUONS = 400, 5
N = N_EVENTS * N_MUONS
FINDABLE = TruthSelection(min_pt=0.0, min_modules=7, min_pixel_layers=3)
EFFICIENCY = {1.0: 0.995, 10.0: 0.998, 100.0: 0.998}
MAX_DUPLICATES = 0.005
MEAN, SIGMA = 0.05, 0.1  # bounds on pulls
MEAN_ERROR, SIGMA_ERROR = 3 / np.sqrt(N), 3 / np.sqrt(2 * N)


@pytest.fixture(scope="module")
def chain():
    config = ChainConfig()
    muon = replace(config.finding, particle="muon"), replace(config.fitting, particle="muon")
    return TrackingChain(build_detector("odd"), replace(config, finding=muon[0], fitting=muon[1]), device="cpu")


@pytest.fixture(scope="module")
def gathered(chain):
    """Summaries and pulls of measurements by momentum."""
    made, clusters, detector = {}, {}, chain.detector
    for pt in EFFICIENCY:
        gun = ParticleGunConfig(n_particles=N_MUONS, momentum=(pt, pt), vertex_sigma=(0.0125, 0.0125, 55.0))
        made[pt] = PerformanceSummary({"findable": FINDABLE}, float(detector.arrays().b_z), detector_frames(detector))
        clusters[pt] = ClusterPulls(detector, chain.config.clusterization)
        events = list(simulate_events(chain.detector, gun, 77, N_EVENTS))
        for first in range(0, N_EVENTS, 100):
            batch = events[first : first + 100]
            for event, result in zip(batch, chain.run_batch([e.cells for e in batch]), strict=True):
                made[pt].add_result(event, result)
                clusters[pt].add(event, result)
    return made, clusters


@pytest.fixture(scope="module", params=EFFICIENCY, ids=lambda pt: f"{pt:g}GeV")
def sample(request, gathered):
    return request.param, gathered[0][request.param].as_dict()


def test_efficiency_and_duplicates(sample):
    pt, numbers = sample
    counts = numbers["tracks"]["findable"]
    error = 3 * np.sqrt((1 - EFFICIENCY[pt]) / counts["n_particles"])
    assert counts["n_particles"] > 0.99 * N
    assert counts["efficiency"] > EFFICIENCY[pt] - error
    assert counts["duplicate_rate"] < MAX_DUPLICATES
    assert counts["n_fakes"] <= 0.003 * N


def test_fits_succeed(sample):
    _, numbers = sample
    outcomes = numbers["fit_outcomes"]
    assert outcomes.pop("SUCCESS") >= 0.995 * N * 0.99
    assert sum(outcomes.values()) <= 0.005 * N


@pytest.mark.parametrize(
    ("where", "names"), [("first_state_pulls", FIRST_STATE_NAMES), ("perigee_pulls", PERIGEE_NAMES)]
)
def test_pulls_are_standard_normal(sample, where, names):
    _, numbers = sample
    assert set(numbers[where]) == set(names)
    for name, fit in numbers[where].items():
        assert abs(fit["mean"]) < MEAN + MEAN_ERROR, (name, fit)
        assert abs(fit["sigma"] - 1) < SIGMA + SIGMA_ERROR, (name, fit)


def test_p_values_are_flat_on_average(sample):
    _, numbers = sample
    assert numbers["p_values"]["mean"] == pytest.approx(0.5, abs=0.05)


def not_standard_normal(pulls):
    """Classes of measurements whose fitted width is not one."""
    found = {}
    for name, fit in pulls.items():
        error = 3 / np.sqrt(2 * fit["n"])
        if not 1 - SIGMA - error < fit["sigma"] < 1 + SIGMA + error:
            found[name] = (fit["n"], fit["sigma"], fit["rms"])
    return found


def test_measurement_pulls_per_cluster_size(chain, gathered):
    """At each momentum and of all together, by design, axis and size, and by size alone."""
    clusters = gathered[1]
    together = ClusterPulls(chain.detector, chain.config.clusterization)
    for pulls in clusters.values():
        assert len(pulls.as_dict()) > 25
        assert not_standard_normal(pulls.as_dict()) == {}
        assert len(pulls.by_size()) > 10
        assert not_standard_normal(pulls.by_size()) == {}
        together += pulls
    assert len(together.as_dict()) > 30
    assert not_standard_normal(together.as_dict()) == {}
    assert not_standard_normal(together.by_size()) == {}
