"""A track kinks in a passive layer between two sensors: it is followed on from there, not from the last sensor."""

import numpy as np
import pytest

from tests.smearing import smear_hits
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, FindingConfig, FittingConfig
from traccc_py.data.truth import Particles
from traccc_py.edm import FitOutcome
from traccc_py.geometry import build_detector
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import TransportConfig, transport
from traccc_py.simulation.transport.truth_geometry import truth_geometry
from traccc_py.units import muon_mass

RADIUS = 475.0  # [mm], of a passive cylinder: 114 mm behind the second layer of short strips, 25 mm before the third
P, PHI, THETA = 2.0, 0.4, 1.3  # [GeV], [rad]
CURVATURE = 0.299792458e-3 * 2.0 / (P * np.sin(THETA))  # [1/mm], of a negative particle in 2 T
ANGLES = (0.03, -0.05)  # [rad]; a kink gives 0.05 GeV, which is 0.025 here


def muon(position, phi):
    momentum = P * np.array([np.sin(THETA) * np.cos(phi), np.sin(THETA) * np.sin(phi), np.cos(THETA)])
    return Particles(
        particle_id=np.ones(1, np.uint64), particle_type=np.full(1, 13, np.int32), process=np.zeros(1, np.int32),
        vertex=np.array([position]), time=np.zeros(1), momentum=momentum[None], mass=np.full(1, muon_mass),
        charge=-np.ones(1),
    )  # fmt: skip


def place_at(radius):
    """Return position and phi of the muon from the origin where it leaves a cylinder."""
    length = 2 / CURVATURE * np.arcsin(radius * CURVATURE / 2)  # of a circle through the axis, to its chord
    phi = PHI + CURVATURE * length
    x = (np.sin(phi) - np.sin(PHI)) / CURVATURE
    y = (np.cos(PHI) - np.cos(phi)) / CURVATURE
    return [x, y, length / np.tan(THETA)], phi


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


def hits_of(odd, particles):
    config = TransportConfig(scattering=False, energy_loss=False)
    return transport(odd, particles, event_key(1, 0), config, geometry=truth_geometry(odd))


def kinked(odd, angle):
    """Return the measurements of a muon that kinks by an angle at `RADIUS`, and how many of them are before it."""
    place, phi = place_at(RADIUS)
    whole, behind = hits_of(odd, muon([0, 0, 0], PHI)), hits_of(odd, muon(place, phi + angle))
    is_before = np.hypot(*whole.hits.position[:, :2].T) < RADIUS
    before = whole.select(is_before)
    if angle == 0:  # the two parts are of one track
        assert np.abs(whole.select(~is_before).hits.position - behind.hits.position).max() < 0.02
    measurements, _ = smear_hits(odd, type(whole).concatenated([before, behind]), event_key(2, 0), 0.02, 0.3)
    return measurements, len(before)


def find(odd, measurements, **finding):
    config = ChainConfig(finding=FindingConfig(particle="muon", **finding), fitting=FittingConfig(particle="muon"))
    return TrackingChain(odd, config, device="cpu", threads=1).run(measurements)


@pytest.mark.parametrize("angle", [0.0, *ANGLES])
def test_a_track_goes_on_from_the_passive_layer_in_which_it_kinks(odd, angle):
    measurements, _ = kinked(odd, angle)
    tracks = find(odd, measurements).tracks
    assert tracks.fit_outcome.tolist() == [FitOutcome.SUCCESS]
    assert tracks.n_measurements.tolist() == [len(measurements)]
    assert tracks.n_kinks.tolist() == [int(angle != 0)]
    assert tracks.pval[0] > 1e-3


def test_what_follows_does_not_fit_from_the_last_sensor(odd):
    measurements, n_before = kinked(odd, ANGLES[1])
    assert find(odd, measurements, kink_places=1).tracks.n_measurements.tolist() == [n_before]
