"""Seeds of what no track has: particles with too few layers of the seeding, batches, where chains begin."""

from dataclasses import replace

import numpy as np
import pytest

from tests.integration.small_events import columns
from traccc_py.chain import TrackingChain
from traccc_py.config import SeedingConfig, read_config
from traccc_py.derivation import derive
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.edm import columns_of
from traccc_py.errors import ConfigError
from traccc_py.geometry import build_detector
from traccc_py.geometry.layer_map import make_late_map
from traccc_py.geometry.surfaces import decode_geometry_id
from traccc_py.kernels.seeding.cuts import late_config
from traccc_py.simulation.events import simulate_event, simulate_events
from traccc_py.simulation.generators.gun import ParticleGunConfig

N_MUONS = 100
PIXEL_BARREL, LAYERS_LEFT = 17, (2, 4)  # of 2, 4, 6, 8
FIRST_SHORT_STRIP_RADIUS = 300.0  # between the first two barrel layers of short strips [mm]


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def events(detector):
    """Central muons that left two measurements in pixels."""
    gun = ParticleGunConfig(N_MUONS, momentum=(1.0, 10.0), eta=(-0.8, 0.8), vertex_sigma=(0.01, 0.01, 50.0))
    return [left(event.cells) for event in simulate_events(detector, gun, 5, 2)]


def left(cells):
    place = decode_geometry_id(cells.geometry_id)
    rows = (place.volume != PIXEL_BARREL) | np.isin(place.layer, LAYERS_LEFT)
    return type(cells)(**{name: getattr(cells, name)[rows] for name in columns_of(type(cells))})


@pytest.fixture(scope="module")
def chain(detector):
    return TrackingChain(detector, device="cpu", threads=1)


def test_muons_with_two_pixel_layers_are_found(chain, events, detector):
    for event in events:
        result = chain.run(event)
        assert len(result.tracks) >= 0.98 * N_MUONS
        assert (result.tracks.n_measurements >= 7).all()
        assert (result.track_states.measurement_index >= 0).all()
    off = read_config(None)
    off = replace(off, seeding=replace(off.seeding, late_points=0))
    assert len(TrackingChain(detector, off, device="cpu", threads=1).run(events[0]).tracks) < 0.1 * N_MUONS


def test_a_batch_has_what_its_events_have(chain, events):
    """Candidates of both searches are merged by event."""
    batch = [events[0], events[1], events[0]]
    for event, together in zip(batch, chain.run_batch(batch), strict=True):
        alone = columns(chain.run(event))
        for name, column in columns(together).items():
            np.testing.assert_array_equal(column, alone[name], err_msg=name)


class OtherOrder(CpuDevice):
    """Does second what comes first elsewhere."""

    def side_by_side(self, aside, function):
        result = function()
        aside()
        return result


def test_nothing_depends_on_which_of_the_seeds_are_followed_first(chain, events, detector):
    """On CUDA those of the second pass and late ones are followed in two streams."""
    other = TrackingChain(detector, device=OtherOrder(1))
    core = ParticleGunConfig(200, momentum=(1.0, 20.0), eta=(0.0, 0.2), phi=(0.0, 0.2), vertex_sigma=(0.01, 0.01, 1.0))
    for event in (*events, simulate_event(detector, core, 5).cells):
        right = columns(chain.run(event))
        for name, column in columns(other.run(event)).items():
            np.testing.assert_array_equal(column, right[name], err_msg=name)
    workspace = other._schedule.workspace
    assert workspace.size(workspace.extent("retried_seeds")) > 0
    assert workspace.size(workspace.scope("late", ()).extent("kept_seeds")) > 0


def test_seeds_are_told_with_the_others(chain, events):
    result = chain.run(events[0])
    points = result.spacepoints.global_position
    radius = np.hypot(*points[result.seeds.top_index].T[:2])
    assert (radius > FIRST_SHORT_STRIP_RADIUS).sum() >= 0.98 * N_MUONS


def late_map_of(detector):
    seeding = derive(read_config(None), detector)[0].seeding
    return make_late_map(detector.layer_map(seeding), detector.layer_map(late_config(seeding)))


def test_chains_begin_two_layers_beyond_those_of_the_seeding(detector):
    seeding = derive(read_config(None), detector)[0].seeding
    layers = late_map_of(detector).layers
    radius = layers["low"][layers["is_disc"] == 0]
    begins = layers["most_points"][layers["is_disc"] == 0] > 0
    assert begins.tolist() == (radius > FIRST_SHORT_STRIP_RADIUS).tolist()
    in_pixels = (layers["is_disc"] == 1) & (layers["other_max"] < seeding.r_max)
    assert not layers["most_points"][in_pixels].any()
    assert (layers["n_first"] <= layers["n_adjacent"]).all()


def test_the_map_of_all_layers_stays_as_it_is(detector):
    """The detector keeps it for others."""
    seeding = derive(read_config(None), detector)[0].seeding
    everywhere = detector.layer_map(late_config(seeding))
    before = [column.copy() for column in everywhere]
    assert late_map_of(detector) is not None
    for column, old in zip(everywhere, before, strict=True):
        np.testing.assert_array_equal(column, old)


def test_a_detector_without_such_layers_has_no_such_search():
    detector = build_detector("toy")
    assert late_map_of(detector) is None


@pytest.mark.parametrize("n", [1, 2, 3, -1])
def test_shorter_chains_are_refused(n):
    with pytest.raises(ConfigError, match="late_points"):
        SeedingConfig(late_points=n)
