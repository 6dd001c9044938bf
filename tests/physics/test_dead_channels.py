"""Dead modules and channels of the ODD: muons that are found all the same, errors of clusters that are cut off."""

import numpy as np
import pytest

from traccc_py.chain import TrackingChain
from traccc_py.geometry import build_detector
from traccc_py.geometry.dead_channels import ALL, DeadChannels
from traccc_py.performance.definitions import TRACCC, TruthSelection
from traccc_py.performance.matching import Counts, count_matches, match_tracks
from traccc_py.performance.selection import select_particles
from traccc_py.performance.tracks import tracks_of_result
from traccc_py.performance.truth import link_digitization, simulated_truth
from traccc_py.simulation.digitization.failures import draw_dead_modules
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig

pytestmark = pytest.mark.physics

GUN = ParticleGunConfig(500, momentum=(1.0, 10.0), vertex_sigma=(0.0125, 0.0125, 55.0))
FINDABLE = TruthSelection(min_pt=0.0, min_modules=7, min_pixel_layers=3)
STRIPE, DISTANCE = 2, 14  # [channels]
PULLS = (0.6, 1.05)  # rms; errors may be too large
PIXEL_BARREL = 17


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


def run(detector, cells):
    return TrackingChain(detector, device="cpu", threads=1).run(cells)


def links_of(event, measurements):
    truth = simulated_truth(event)
    return truth, link_digitization(measurements, event.digitization, truth.particle_of_hit)


def counts_of(event, result):
    truth, links = links_of(event, result.measurements)
    matches = match_tracks(tracks_of_result(result), links, len(event.particles), TRACCC)
    return count_matches(matches, select_particles(truth, links, FINDABLE), TRACCC)


def test_a_chain_that_knows_what_is_dead_finds_what_it_can(odd):
    told = odd.with_dead_channels(draw_dead_modules(odd, (("all", 0.1),), 1))
    event = simulate_event(told, GUN, 3)
    not_told, knows = (counts_of(event, run(detector, event.cells)) for detector in (odd, told))
    assert isinstance(knows, Counts)
    assert knows.n_particles == not_told.n_particles > 400
    assert knows.efficiency > 0.985
    assert not_told.efficiency < knows.efficiency
    assert knows.fakes_per_group < 0.005


def stripes(odd, axis):
    """Return dead stripes across every sensor."""
    n_channels = odd.designs[f"n_channels{axis}"][odd.design_of_surface]
    ids, first = [], []
    for channel in range(5, int(n_channels.max()), DISTANCE):
        has_stripe = n_channels > channel + STRIPE
        ids.append(odd.geometry_ids[has_stripe])
        first.append(np.full(np.count_nonzero(has_stripe), channel))
    ranges = np.concatenate(first)[:, None] + [0, STRIPE - 1]
    every = np.full_like(ranges, ALL)
    return DeadChannels(np.concatenate(ids), *((every, ranges) if axis else (ranges, every)))


@pytest.mark.parametrize("axis", [0, 1])
def test_errors_of_clusters_that_are_cut_off_hold(odd, axis):
    told = odd.with_dead_channels(stripes(odd, axis))
    event = simulate_event(told, GUN, 1)
    found, plain = (run(detector, event.cells).measurements for detector in (told, odd))
    _, links = links_of(event, found)
    rows = np.flatnonzero((np.diff(links.offsets) == 1) & (found.local_variance != plain.local_variance)[:, axis])
    hit, module = links.hit_index[links.offsets[rows]], found.module_index[rows]
    surface, design = odd.arrays().surfaces[module], odd.designs[odd.design_of_surface[module]]
    along, across = (
        np.abs(sum(event.simulated.hits.momentum[hit, k] * surface[name + "xyz"[k]] for k in range(3)))
        for name in ("uv"[axis], "w")
    )
    pitch = design[f"pitch{axis}"]
    hidden = np.maximum(design["thickness"] * along / across / pitch + 0.5 - found.cluster_size[rows, axis], 0)
    sigma = np.sqrt(found.local_variance[rows, axis] + (hidden * pitch / 2) ** 2)
    residual = found.local_position[rows, axis] - event.simulated.local_position[hit, axis]
    is_barrel = (odd.geometry_ids[module] >> np.uint64(56)) == PIXEL_BARREL
    for chosen in (is_barrel, ~is_barrel):
        assert np.count_nonzero(chosen) > 300
        assert PULLS[0] < np.sqrt(np.mean((residual / sigma)[chosen] ** 2)) < PULLS[1]
    if axis:  # one channel more would not do for the long clusters of the barrel
        alone = residual / np.sqrt(found.local_variance[rows, axis])
        assert np.sqrt(np.mean(alone[is_barrel] ** 2)) > 3
