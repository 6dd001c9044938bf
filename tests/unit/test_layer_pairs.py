"""Seeding by layer pairs: the map, chains against the plain definition, seeds with and without a missing layer."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from tests.reference.helices import (
    BARREL_HALF_LENGTH,
    BARREL_RADII,
    DISC_POSITIONS,
    DISC_RADII,
    simulate,
)
from tests.reference.layer_pairs import Search
from traccc_py.config import SeedingConfig, SeedThinningConfig
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.workspace import Workspace
from traccc_py.errors import GeometryError
from traccc_py.geometry import build_detector
from traccc_py.geometry.layer_map import make_layer_map
from traccc_py.geometry.records import DESIGN, LAYER, SURFACE, LayerKind
from traccc_py.kernels.seeding import chains
from traccc_py.kernels.seeding.chain_seeds import find_chain_seeds
from traccc_py.kernels.seeding.chains import MAX_HITS, MOST_CHAINS
from traccc_py.kernels.seeding.cluster_slopes import ANY_SLOPE
from traccc_py.kernels.seeding.cuts import seeding_cuts
from traccc_py.kernels.seeding.layer_points import SeedingPoints
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch

FIELD = 2.0  # T
CONFIG = SeedingConfig(
    b_field_z=FIELD,
    z_min=-2000.0,
    z_max=2000.0,
    r_max=200.0,
    delta_r_min=8.0,
    delta_r_max=150.0,
    delta_z_max=500.0,
    rad_length_per_seed=0.03,
)
THINNING = SeedThinningConfig(min_agreeing_seeds=1)
SENSOR = 1e-3  # mm, half width: layers of the toy are exact cylinders and discs


def toy():
    """The layers of `simulate` as a detector of two small sensors each, at the ends of the layer."""
    ends = [((r, -BARREL_HALF_LENGTH), (r, BARREL_HALF_LENGTH)) for r in BARREL_RADII]
    ends += [((DISC_RADII[0], side * z), (DISC_RADII[1], side * z)) for z in DISC_POSITIONS for side in (-1, 1)]
    surfaces, layers = np.zeros(2 * len(ends), SURFACE), np.zeros(len(ends), LAYER)
    surfaces["hx_min"] = surfaces["hx_max"] = surfaces["hy"] = SENSOR
    surfaces["uy"] = 1.0
    surfaces["layer"] = np.repeat(np.arange(len(ends)), 2)
    surfaces["cx"], surfaces["cz"] = np.array(ends, np.float32).reshape(-1, 2).T
    is_disc = np.arange(len(ends)) >= len(BARREL_RADII)
    surfaces["vz"], surfaces["vx"] = ~np.repeat(is_disc, 2), np.repeat(is_disc, 2)
    layers["kind"] = np.where(is_disc, LayerKind.DISC, LayerKind.CYLINDER)
    layers["is_sensitive"] = 1
    designs = np.zeros(1, DESIGN)
    designs["dimensions"] = 2
    return SimpleNamespace(surfaces=surfaces, layers=layers, designs=designs, b_z=np.float32(0))


TOY = toy()


def run(points, layer, event=None, device=None, thinning=THINNING, config=CONFIG):
    """(seeds, is_kept, workspace) of spacepoints (n, 3) without errors, which fit any direction."""
    n = len(points)
    event = np.zeros(n, np.int32) if event is None else np.asarray(event, np.int32)
    points, n_events = np.asarray(points, np.float32).reshape(-1, 3), int(event.max(initial=0)) + 1
    ws = Workspace(device or CpuDevice(1))
    rows = np.arange(n, dtype=np.int32)
    spacepoints = SpacepointBatch(points, rows, event)
    unused = np.zeros(n, np.int32)
    module = (event * len(TOY.surfaces) + 2 * np.asarray(layer)).astype(np.int32)
    errors = np.zeros((n, 3), np.float32)
    measurements = MeasurementBatch(module, errors, errors, unused, unused, unused, unused, unused, unused)
    slopes = np.tile(np.array(ANY_SLOPE, np.float32), (n, 1))
    polar = np.stack([np.hypot(points[:, 0], points[:, 1]), np.arctan2(points[:, 1], points[:, 0])], axis=1)
    given = SeedingPoints(spacepoints, measurements, polar, errors, slopes)
    layer_map = make_layer_map(TOY, config)
    for _ in range(10):
        ws.set_sizes(spacepoints=n, measurements=n)
        seeds, is_kept = find_chain_seeds(ws, given, TOY, layer_map, config, thinning, len(TOY.surfaces), n_events)
        if not ws.overflowed():
            break
    n_seeds = ws.size(ws.extent("seeds"))
    return type(seeds)(*(column[:n_seeds].copy() for column in seeds)), is_kept[:n_seeds].copy(), ws


def chains_of(ws):
    """{outermost spacepoint: chains of spacepoints from the outside in}."""
    extent = ws.extent("seeding_spacepoints")
    n = ws.size(extent)
    index = ws.array("seeding.sorted_spacepoint", extent, np.int32)[:n]
    n_chains = ws.array("seeding.n_chains", extent, np.int32)[:n]
    n_hits = ws.array("seeding.chain_n_hits", extent, np.int32, MOST_CHAINS)
    hits = ws.array("seeding.chain_hits", extent, np.int32, MOST_CHAINS * MAX_HITS)
    return {
        int(index[i]): {tuple(index[hits[i, k * MAX_HITS :][: n_hits[i, k]]].tolist()) for k in range(n_chains[i])}
        for i in np.flatnonzero(n_chains)
    }


def helix(layers=(0, 1, 2, 3), turn=0.0):
    """Points of a straight particle on barrel layers."""
    r = np.array(BARREL_RADII)[list(layers)]
    return np.stack([r * np.cos(turn), r * np.sin(turn), 0.5 * r], axis=1)


def inner_layers(layer_map):
    """[(next to it, over one)] of each layer."""
    found = []
    for layer in layer_map.layers:
        first, last = layer["first_neighbour"], layer["first_neighbour"] + layer["n_neighbours"]
        mine = layer_map.neighbours[first:last].tolist()
        found.append((mine[: layer["n_adjacent"]], mine[layer["n_adjacent"] :]))
    return found


def test_barrel_layers_follow_each_other():
    inner = inner_layers(make_layer_map(TOY, CONFIG))
    assert inner[:4] == [([], []), ([0], []), ([1], [0]), ([2], [1])]


def test_the_map_of_the_open_data_detector_has_its_pixel_layers():
    arrays = build_detector("odd").arrays()
    layer_map = make_layer_map(arrays, CONFIG)
    assert (layer_map.layers["is_disc"] == 0).sum() == 4
    assert (layer_map.layers["is_disc"] == 1).sum() == 28  # 7 discs of 2 rings on both sides
    assert (layer_map.layers["n_neighbours"] > 0).sum() == 31  # all but the innermost


def test_layers_that_a_path_crosses_in_a_row_are_in_the_map():
    """Where overlapping discs are left out of the toy, every step of every simulated particle is there."""
    points, particle, layer = simulate(400, seed=2)
    inner = inner_layers(make_layer_map(TOY, CONFIG))
    n = 0
    for k in range(400):
        mine = np.flatnonzero(particle == k)
        order = mine[np.argsort(np.hypot(*points[mine].T[:2]))]
        for a, b in pairwise(order):
            assert layer[a] in inner[layer[b]][0]
            n += 1
    assert n > 1000


def test_a_telescope_has_no_map():
    with pytest.raises(GeometryError, match=r'set seeding\.method = "grid"'):
        make_layer_map(build_detector("telescope").arrays(), CONFIG)


@pytest.mark.parametrize("sparse", [20_000, 10])
def test_chains_are_those_of_the_plain_definition(sparse, monkeypatch):
    monkeypatch.setattr(chains, "_SPARSE", sparse)
    points, _, layer = simulate(250, seed=4)
    points = np.asarray(points, np.float32)
    inner = inner_layers(make_layer_map(TOY, CONFIG))
    expected = Search(points.astype(float), layer, inner, seeding_cuts(CONFIG, 0.0), CONFIG, sparse).chains()
    found = chains_of(run(points, layer)[2])
    expected = {(i, chain) for i, chains in expected.items() for chain in chains}
    found = {(i, chain) for i, chains in found.items() for chain in chains}
    assert len(expected) > 400
    assert len(expected ^ found) <= 0.01 * len(expected)  # at the edge of a cut


def test_a_particle_has_two_seeds_and_the_one_with_all_points_is_followed_first():
    seeds, is_kept, _ = run(helix(), range(4))
    assert list(zip(seeds.bottom_index, seeds.middle_index, seeds.top_index, strict=True)) == [(0, 2, 3), (1, 2, 3)]
    assert is_kept.tolist() == [1, 0]
    assert (seeds.quality > 3.5).all()


@pytest.mark.parametrize("missing", range(4))
@pytest.mark.parametrize("min_agreeing", [1, 0])
def test_a_particle_without_a_layer_has_one_seed(missing, min_agreeing):
    layers = [k for k in range(4) if k != missing]
    seeds, is_kept, _ = run(helix(layers), layers, thinning=SeedThinningConfig(min_agreeing_seeds=min_agreeing))
    assert [column.tolist() for column in seeds[:3]] == [[0], [1], [2]]
    assert is_kept.tolist() == [1 - min_agreeing]


def test_particles_at_any_phi_are_found():
    for turn in np.linspace(-np.pi, np.pi, 65):
        assert len(run(helix(turn=turn), range(4))[1]) == 2


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_points_give_no_seed(n):
    for device in (CpuDevice(1), DeferredDevice(1)):
        assert len(run(helix()[:n], list(range(4))[:n], device=device)[1]) == 0


def test_doubled_points_and_points_outside_do_no_harm():
    points = np.concatenate([helix(), helix(), [(0, 0, 0), (34.0, 0, 5000.0)]])
    seeds, is_kept, _ = run(points, [0, 1, 2, 3, 0, 1, 2, 3, 0, 0])
    assert is_kept.sum() == 1  # both outermost points continue to the same ones
    assert not np.isin([8, 9], np.stack(seeds[:3])).any()


def test_an_event_in_a_batch_is_the_event_alone():
    events = [simulate(60, seed)[::2] for seed in (1, 2, 3)]
    event = np.repeat(np.arange(3), [len(points) for points, _ in events])
    points, layer = (np.concatenate([e[k] for e in events]) for k in (0, 1))
    batch, is_kept, _ = run(points, layer, event)
    first = 0
    for k, (points, layer) in enumerate(events):
        (alone, kept_alone, _), mine = run(points, layer), batch.event == k
        for name in ("bottom_index", "middle_index", "top_index"):
            np.testing.assert_array_equal(getattr(batch, name)[mine] - first, getattr(alone, name))
        np.testing.assert_array_equal(batch.quality[mine], alone.quality)
        np.testing.assert_array_equal(is_kept[mine], kept_alone)
        first += len(points)
    assert (np.diff(batch.event) >= 0).all()


@pytest.mark.parametrize("device", [CpuDevice(2), DeferredDevice(2)], ids=["two threads", "overflow"])
def test_same_bits_with_two_threads_and_after_overflow(device):
    points, _, layer = simulate(800, seed=5)
    one, other = run(points, layer), run(points, layer, device=device)
    assert len(one[1]) > 1000
    for a, b in zip([*one[0], one[1]], [*other[0], other[1]], strict=True):
        np.testing.assert_array_equal(a, b)
