"""Seed thinning: no particle is lost, few seeds are left, the rule is the greedy one, batches, threads."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference import seed_thinning as reference
from tests.reference.helices import simulate
from tests.settings import seeding_settings, thinning_settings
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.seeding.cluster_slopes import ANY_SLOPE
from traccc_py.kernels.seeding.seeding import find_seeds
from traccc_py.kernels.seeding.thinning import thin_seeds
from traccc_py.kernels.tracking.batch import MeasurementBatch, SpacepointBatch
from traccc_py.units import T

RING = thinning_settings().ring_width
MAX_SEEDS_PER_PARTICLE = 1.2
MANY_SEEDS = seeding_settings(delta_z_max=800.0)  # for each particle
MAX_LOST = 1e-3  # share of particles; two tracks that cross a layer at the same place can take each other's seeds


def run(points, modules, event=None, *, seeding=MANY_SEEDS, device=None, least=0, **thinning):
    """(found, kept) seeds, host arrays."""
    points = np.asarray(points, np.float32)
    n = len(points)
    event = np.zeros(n, np.int32) if event is None else np.asarray(event, np.int32)
    config = thinning_settings(min_agreeing_seeds=least, **thinning)
    unused = np.zeros(n, np.int32)
    slopes = np.tile(np.array(ANY_SLOPE, np.float32), (n, 1))
    spacepoints = SpacepointBatch(points, np.arange(n, dtype=np.int32), event)
    measurements = MeasurementBatch(np.asarray(modules, np.int32), *(unused for _ in range(8)))
    variances = np.full((n, 2), 0.01**2, np.float32)
    ws = Workspace(device or CpuDevice(1))
    for _ in range(12):
        ws.set_sizes(spacepoints=n, events=int(event.max(initial=0)) + 1)
        found = find_seeds(ws, spacepoints, variances, slopes, seeding, 2.0 * T, int(event.max(initial=0)) + 1)
        is_kept = thin_seeds(ws, found, spacepoints, measurements, config)
        if not ws.overflowed():
            break
    size = ws.size(ws.extent("seeds"))
    found = found.__class__(*(column[:size].copy() for column in found))
    return found, found.__class__(*(column[is_kept[:size] == 1] for column in found))


def triplets_of(seeds):
    return np.column_stack(seeds[:3])


@pytest.mark.parametrize(("n_tracks", "seed"), [(500, 3), (5000, 4)])
def test_every_particle_keeps_a_good_seed_with_its_innermost_hit(n_tracks, seed):
    points, particle, layer = simulate(n_tracks, seed)
    found, kept = run(points, reference.toy_modules(points, layer))
    radius = np.hypot(points[:, 0], points[:, 1])
    before, after = (
        reference.innermost(triplets_of(s), reference.purity(triplets_of(s), particle), radius) for s in (found, kept)
    )
    lost = set(before) - set(after)
    moved_out = [p for p in after if after[p] > before[p] + RING]
    n_pure = np.sum(reference.purity(triplets_of(kept), particle) >= 0)
    assert len(before) > 0.97 * n_tracks
    assert len(lost) <= MAX_LOST * len(before)
    assert len(moved_out) <= MAX_LOST * len(before)
    assert n_pure <= MAX_SEEDS_PER_PARTICLE * len(before)
    assert len(found.event) > 6 * len(before)


def test_without_thinning_all_seeds_are_kept():
    points, _, layer = simulate(50, 6)
    found, kept = run(points, reference.toy_modules(points, layer), enabled=False)
    for a, b in zip(found, kept, strict=True):
        np.testing.assert_array_equal(a, b)


STRAIGHT = [(r, 0, 2 * r) for r in (34.0, 70.0, 116.0, 172.0)]


def test_one_straight_track_keeps_one_seed_from_the_innermost_hit():
    found, kept = run(STRAIGHT, range(4))
    assert len(found.event) > 1
    assert len(kept.event) == 1
    assert kept.bottom_index.tolist() == [0]


def test_seeds_with_different_hits_of_one_module_exclude_each_other():
    points = [*STRAIGHT[:3], (116.0, 0.05, 232.0)]
    seeding = seeding_settings(seed_min_weight=0.0)  # both tops give a seed
    found, kept = run(points, [0, 1, 2, 2], seeding=seeding)
    assert sorted(found.top_index.tolist()) == sorted(kept.top_index.tolist()) == [2, 3]
    _, kept = run(points, [0, 1, 2, 3], seeding=seeding)
    assert len(kept.event) == 1


def test_a_seed_with_too_few_that_agree_is_not_among_the_first():
    for least, n_kept in ((0, 1), (1, 0)):
        found, kept = run(STRAIGHT[:3], range(3), least=least)
        assert (len(found.event), len(kept.event)) == (1, n_kept)
    points, _, layer = simulate(150, 8)
    modules = reference.toy_modules(points, layer)
    found, all_kept = run(points, modules)
    agrees, _ = _agreement(found, points, modules, thinning_settings())
    n_agreeing = {tuple(t): n for t, n in zip(triplets_of(found).tolist(), agrees.sum(axis=1), strict=True)}
    for least in (1, 4):
        kept = run(points, modules, least=least)[1]
        expected = [t for t in triplets_of(all_kept).tolist() if n_agreeing[tuple(t)] >= least]
        assert triplets_of(kept).tolist() == expected
        assert len(expected) < len(all_kept.event)


def _agreement(found, points, modules, config):
    """Who agrees with whom, by the text of the module, in float64."""
    triplets = triplets_of(found)
    n = len(triplets)
    x, y, z = points[triplets].transpose(2, 0, 1)
    chord = np.hypot(x[:, 1:] - x[:, :1], y[:, 1:] - y[:, :1])
    third = np.hypot(x[:, 2] - x[:, 1], y[:, 2] - y[:, 1])
    cross = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    curvature = -2 * cross / (chord[:, 0] * chord[:, 1] * third)  # Menger; positive for clockwise tracks
    cot = (z[:, 2] - z[:, 0]) / (chord[:, 1] * (1 + (curvature * chord[:, 1]) ** 2 / 24))
    r = np.hypot(x[:, 0], y[:, 0])
    to_top = np.arctan2(y[:, 2] - y[:, 0], x[:, 2] - x[:, 0])
    phi = to_top + np.arcsin(curvature * chord[:, 1] / 2) + curvature * r
    agrees = np.zeros((n, n), bool)
    for a in range(n):
        c = np.maximum(np.abs(curvature[a]), np.abs(curvature))
        turn = (phi[a] - phi + np.pi) % (2 * np.pi) - np.pi
        sin2 = 1 / (1 + np.minimum(cot[a] ** 2, cot**2))
        alike = np.abs(curvature[a] - curvature) <= config.curvature_tolerance + config.curvature_scattering * c
        alike &= np.abs(turn) <= config.phi_tolerance + config.phi_scattering * c
        alike &= np.abs(cot[a] - cot) * sin2 <= config.theta_tolerance + config.theta_scattering * c
        same = (triplets[a][:, None, None] == triplets.T[None]).any(axis=(0, 1))
        excluded = (modules[triplets[a]][:, None, None] == modules[triplets].T[None]) & (
            triplets[a][:, None, None] != triplets.T[None]
        )
        agrees[a] = alike & same & ~excluded.any(axis=(0, 1))
    np.fill_diagonal(agrees, False)
    return agrees, r


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"curvature_tolerance": 1e-6, "curvature_scattering": 0.0},
        {"phi_tolerance": 0.002, "phi_scattering": 1.0},
        {"theta_tolerance": 1e-5, "theta_scattering": 0.0},
        {"ring_width": 200.0},
    ],
    ids=lambda settings: next(iter(settings), "default"),
)
def test_the_rounds_give_the_greedy_choice(settings):
    config = thinning_settings(**settings)
    points, _, layer = simulate(150, 8)
    points = points.astype(np.float32).astype(float)
    modules = reference.toy_modules(points, layer)
    found, kept = run(points, modules, **settings)
    agrees, r = _agreement(found, points, modules, config)
    keys = (*triplets_of(found).T[::-1], -found.quality, -agrees.sum(axis=1), np.floor(r / config.ring_width))
    rank = np.empty(len(r), int)
    rank[np.lexsort(keys)] = np.arange(len(r))
    expected = triplets_of(found)[reference.greedy(rank, agrees)]
    np.testing.assert_array_equal(triplets_of(kept), expected)
    assert (triplets_of(run(points, modules)[1]).tolist() == expected.tolist()) == (not settings)


def test_a_seed_with_a_kink_drops_only_seeds_with_its_own_bottom():
    points = [(34.0, 0, 68.07), *STRAIGHT[1:]]
    wide = {"theta_tolerance": 1.0}
    assert sorted(run(points, range(4), **wide)[1].bottom_index.tolist()) == [0, 1]
    assert run(points, range(4), kink_tolerance=1.0, **wide)[1].bottom_index.tolist() == [0]


@pytest.mark.parametrize("device", [CpuDevice(1), DeferredDevice(1)], ids=["cpu", "deferred"])
def test_no_seed_and_one_seed(device):
    assert len(run(np.zeros((0, 3)), [], device=device)[1].event) == 0
    assert triplets_of(run(STRAIGHT[:3], range(3), device=device)[1]).tolist() == [[0, 1, 2]]


def test_an_event_in_a_batch_is_the_event_alone():
    events = [simulate(60, seed) for seed in (1, 2, 3)]
    sizes = [len(points) for points, _, _ in events]
    modules = [reference.toy_modules(points, layer) for points, _, layer in events]
    shifted = np.concatenate([m + 10**6 * k for k, m in enumerate(modules)])
    _, batch = run(np.concatenate([e[0] for e in events]), shifted, np.repeat(np.arange(3), sizes))
    for k, (points, _, _) in enumerate(events):
        _, alone = run(points, modules[k])
        np.testing.assert_array_equal(triplets_of(batch)[batch.event == k] - sum(sizes[:k]), triplets_of(alone))


@pytest.mark.parametrize("device", [CpuDevice(2), DeferredDevice(2)], ids=["two threads", "overflow"])
def test_same_bits_with_two_threads_and_after_overflow(device):
    points, _, layer = simulate(1000, 5)
    modules = reference.toy_modules(points, layer)
    for a, b in zip(run(points, modules)[1], run(points, modules, device=device)[1], strict=True):
        np.testing.assert_array_equal(a, b)
