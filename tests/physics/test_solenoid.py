"""Muons in the field of a solenoid through the whole chain: as in a homogeneous field, and worse without the map.

`traccc-py performance --bfield-file` takes larger samples.
"""

from dataclasses import replace

import numpy as np
import pytest

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.geometry import build_detector
from traccc_py.geometry.field import solenoid_field_map
from traccc_py.performance.definitions import TruthSelection
from traccc_py.performance.frames import detector_frames
from traccc_py.performance.residuals import FIRST_STATE_NAMES, PERIGEE_NAMES
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.simulation.events import simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

pytestmark = [pytest.mark.physics, pytest.mark.slow]

N_EVENTS, N_MUONS = 80, 5
N = N_EVENTS * N_MUONS
FINDABLE = TruthSelection(min_pt=0.0, min_modules=7, min_pixel_layers=3)
MIN_EFFICIENCY = 0.99
MEAN, SIGMA = 0.05, 0.1  # bounds on pulls
MEAN_ERROR, SIGMA_ERROR = 3 / np.sqrt(N), 3 / np.sqrt(2 * N)


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd").with_field_map(solenoid_field_map())


@pytest.fixture(scope="module")
def events(detector):
    gun = ParticleGunConfig(n_particles=N_MUONS, momentum=(1.0, 20.0), vertex_sigma=(0.0125, 0.0125, 55.0))
    return list(simulate_events(detector, gun, 78, N_EVENTS))


def reconstructed(detector, events):
    config = ChainConfig()
    muon = replace(config.finding, particle="muon"), replace(config.fitting, particle="muon")
    chain = TrackingChain(detector, replace(config, finding=muon[0], fitting=muon[1]), device="cpu")
    summary = PerformanceSummary({"findable": FINDABLE}, float(detector.arrays().b_z), detector_frames(detector))
    for event, result in zip(events, chain.run_batch([e.cells for e in events]), strict=True):
        summary.add_result(event, result)
    return summary.as_dict()


@pytest.fixture(scope="module")
def numbers(detector, events):
    return reconstructed(detector, events)


def test_efficiency(numbers):
    counts = numbers["tracks"]["findable"]
    assert counts["n_particles"] > 0.98 * N
    assert counts["efficiency"] > MIN_EFFICIENCY
    assert counts["duplicate_rate"] < 0.01
    assert counts["n_fakes"] <= 0.005 * N
    assert numbers["fit_outcomes"]["SUCCESS"] >= 0.99 * N


@pytest.mark.parametrize(
    ("where", "names"), [("first_state_pulls", FIRST_STATE_NAMES), ("perigee_pulls", PERIGEE_NAMES)]
)
def test_pulls_are_standard_normal(numbers, where, names):
    assert set(numbers[where]) == set(names)
    for name, fit in numbers[where].items():
        assert abs(fit["mean"]) < MEAN + MEAN_ERROR, (name, fit)
        assert abs(fit["sigma"] - 1) < SIGMA + SIGMA_ERROR, (name, fit)
    assert numbers["p_values"]["mean"] == pytest.approx(0.5, abs=0.06)


def test_a_homogeneous_field_is_worse(detector, events, numbers):
    """The sample tells the two fields apart: without the map p-values are too small and q/p is off."""
    wrong = reconstructed(detector.with_field(2.0), events)
    assert wrong["p_values"]["mean"] < numbers["p_values"]["mean"] - 0.1
    assert wrong["first_state_pulls"]["qop"]["rms"] > 1.5 * numbers["first_state_pulls"]["qop"]["rms"]
