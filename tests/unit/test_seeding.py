"""Seeds: the peers' cases, the plain definition by brute force, batches, threads, overflow."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.reference import seeding as reference
from tests.reference.helices import simulate
from tests.settings import seeding_settings
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.device.workspace import Workspace
from traccc_py.kernels.seeding.cluster_slopes import ANY_SLOPE
from traccc_py.kernels.seeding.cuts import seeding_cuts
from traccc_py.kernels.seeding.seeding import find_seeds
from traccc_py.kernels.tracking.batch import SpacepointBatch
from traccc_py.units import T

EDGE = 3e-5  # relative distance from a cut within which float32 may decide otherwise
WEIGHT_TOLERANCE = 3e-4  # mm of impact parameter: the weight's unit
MAX_AMBIGUOUS = 0.1  # share of middles with something that near to a cut
FIELD = 1.99724  # T, traccc's constant
DEFAULT = seeding_settings(b_field_z=FIELD)
TRACCC = seeding_settings(b_field_z=FIELD, delta_r_min=20.0, delta_r_max=80.0, delta_z_max=450.0, min_pt=0.5)
AAS = seeding_settings(
    b_field_z=FIELD,
    z_min=-3000.0,
    z_max=3000.0,
    r_max=320.0,
    collision_region_min=-114.0,
    collision_region_max=114.0,
    min_pt=0.9,
    cot_theta_max=27.2899,
    delta_r_min=20.0,
    delta_r_max=100.0,
    impact_max=2.0,
    max_seeds_per_middle=2,
    compatible_seed_limit=1,
)


def any_slopes(n):
    """Slopes (n, 4) that any direction fits."""
    return np.tile(np.array(ANY_SLOPE, np.float32), (n, 1))


def run(points, event=None, config=None, device=None, n_events=None, slopes=None, variances=None):
    """Seeds, host arrays (n,) each, of spacepoints (n, 3)."""
    points = np.asarray(points, np.float32).reshape(-1, 3)
    event = np.zeros(len(points), np.int32) if event is None else np.asarray(event, np.int32)
    n_events = n_events or int(event.max(initial=0)) + 1
    slopes = any_slopes(len(points)) if slopes is None else np.asarray(slopes, np.float32)
    variances = np.zeros((len(points), 2)) if variances is None else variances
    variances = np.asarray(variances, np.float32)
    ws = Workspace(device or CpuDevice(1))
    spacepoints = SpacepointBatch(points, np.arange(len(points), dtype=np.int32), event)
    for _ in range(10):
        ws.set_size(ws.extent("spacepoints"), len(points))
        out = find_seeds(ws, spacepoints, variances, slopes, config or DEFAULT, 0.0, n_events)
        if not ws.overflowed():
            break
    n = ws.size(ws.extent("seeds"))
    return out.__class__(*(column[:n].copy() for column in out))


def as_dictionary(seeds):
    """Middle -> [(bottom, top, weight)], best first."""
    found = {}
    for bottom, middle, top, weight in zip(*(column.tolist() for column in seeds[:4]), strict=True):
        found.setdefault(middle, []).append((bottom, top, weight))
    return found


PEER_CASES = [
    (
        [
            (36.6706, 10.6472, 104.131),
            (94.2191, 29.6699, 113.628),
            (149.805, 47.9518, 122.979),
            (218.514, 70.3049, 134.029),
            (275.359, 88.668, 143.378),
        ],
        -1.44722,
    ),
    (
        [
            (36.301, 13.1197, 106.83),
            (93.9366, 33.7101, 120.978),
            (149.192, 52.0562, 134.678),
            (218.398, 73.1025, 151.979),
            (275.322, 89.0663, 166.229),
        ],
        -0.58509,
    ),
]


@pytest.mark.parametrize(("points", "weight"), PEER_CASES)
def test_peer_cases_give_one_seed(points, weight):
    out = run(points, config=replace(TRACCC, delta_r_max=100.0, max_pt_scattering=0.5))
    assert [column.tolist() for column in out[:3]] == [[0], [1], [2]]
    # traccc's weight without what the radii add: the top lies at 157 mm, so nothing is added
    assert out.quality[0] == pytest.approx(weight, abs=1e-3)


@pytest.mark.parametrize(
    ("config", "scattering_angle2", "diameter2"),
    [
        (replace(TRACCC, rad_length_per_seed=0.05), 2.90492e-5, 2_789_318),
        (replace(AAS, rad_length_per_seed=0.05), 8.96580e-6, 9_037_391),
    ],
)
def test_derived_thresholds(config, scattering_angle2, diameter2):
    cuts = seeding_cuts(config, 0.0)
    assert float(cuts.scattering2) == pytest.approx(9 * scattering_angle2, rel=1e-5)
    assert float(cuts.min_helix_diameter2) == pytest.approx(diameter2, rel=1e-6)
    assert float(cuts.scattering2_per_curvature2) == pytest.approx(9 * 4 * 20.25687, rel=1e-6)


def test_the_field_is_the_detectors_unless_configured():
    without = replace(TRACCC, b_field_z=None)
    for sign in (1, -1):
        assert seeding_cuts(without, sign * FIELD * T) == seeding_cuts(TRACCC, 0.5 * T)
    assert seeding_cuts(without, 1.0 * T).min_helix_diameter2 > seeding_cuts(TRACCC, 1.0 * T).min_helix_diameter2


def compare(points, event, config, slopes=None, variances=None):
    """Compare every middle whose result does not hang on rounding; return the numbers of compared and left-out ones."""
    points = np.asarray(points, np.float32).astype(float)
    found = as_dictionary(run(points, event, config, slopes=slopes, variances=variances))
    expected, loose, tight = (
        reference.find_seeds(points, event, config, slack, slopes, variances) for slack in (0.0, EDGE, -EDGE)
    )
    ambiguous = 0
    for middle in set(expected) | set(loose) | set(tight) | set(found):
        variants = [{seed[:2] for seed in seeds.get(middle, [])} for seeds in (expected, loose, tight)]
        weights = [[seed[2] for seed in seeds.get(middle, [])] for seeds in (expected, loose, tight)]
        if (
            variants[0] != variants[1]
            or variants[0] != variants[2]
            or weights[0] != weights[1]
            or weights[0] != weights[2]
        ):
            ambiguous += 1
            continue
        if np.any(np.abs(np.diff(weights[0])) < WEIGHT_TOLERANCE):
            ambiguous += 1
            continue
        assert [seed[:2] for seed in found.get(middle, [])] == [seed[:2] for seed in expected[middle]], middle
        np.testing.assert_allclose([seed[2] for seed in found[middle]], weights[0], atol=WEIGHT_TOLERANCE)
    compared = len(set(expected) | set(found)) - ambiguous
    return compared, ambiguous


@pytest.mark.parametrize("config", [DEFAULT, TRACCC, AAS], ids=["default", "traccc", "aas"])
def test_seeds_of_tracks_are_those_of_the_plain_definition(config):
    points, _, _ = simulate(220, seed=1)
    compared, ambiguous = compare(points, np.zeros(len(points), int), config)
    assert compared > 300
    assert ambiguous <= MAX_AMBIGUOUS * (compared + ambiguous)


def test_seeds_of_random_points_in_two_events_are_those_of_the_plain_definition():
    rng = np.random.default_rng(7)
    n = 1200
    r, phi = rng.uniform(20, 205, n), rng.uniform(-np.pi, np.pi, n)
    z = rng.uniform(-1, 1, n) * rng.choice([100, 400, 2100], n)
    points = np.column_stack([r * np.cos(phi), r * np.sin(phi), z])
    compared, ambiguous = compare(
        points, rng.integers(0, 2, n), replace(DEFAULT, impact_max=20.0, sigma_scattering=40.0)
    )
    assert compared > 100
    assert ambiguous <= MAX_AMBIGUOUS * (compared + ambiguous)


@pytest.mark.parametrize("smear", [0.005, 0.05, 0.5])
def test_the_polar_window_is_as_wide_as_the_errors_ask_for(smear):
    """Errors of the measurements and scattering in quadrature: the same part of the seeds, however large they are."""
    points, particle, layer = simulate(220, seed=1, smear=smear)
    is_disc = layer >= 4
    variances = np.where(is_disc[:, None], [(2 * smear) ** 2, 0.0], [0.0, (2 * smear) ** 2])
    compared, ambiguous = compare(points, np.zeros(len(points), int), DEFAULT, variances=variances)
    assert compared > 300
    assert ambiguous <= MAX_AMBIGUOUS * (compared + ambiguous)
    found = {
        taken: len(np.unique(particle[np.column_stack(run(points, config=config, variances=variances)[:3])[:, 1]]))
        for taken, config in ((True, DEFAULT), (False, replace(DEFAULT, sigma_measurement=0.0)))
    }
    assert found[True] > 0.97 * 220
    assert found[False] < found[True] or smear < 0.05


def test_doublets_fit_the_slopes_of_both_spacepoints():
    """Random ranges, forwards and backwards, narrow and wide, on both sides of the beam spot."""
    rng = np.random.default_rng(23)
    points, _, _ = simulate(700, seed=9)
    centre = np.abs(points[:, 2]) / np.hypot(points[:, 0], points[:, 1])
    low = np.maximum(centre - rng.uniform(0, 1.5, len(points)), 0)
    slopes = np.column_stack(
        [low, centre + rng.uniform(0, 1.5, len(points)), low * rng.uniform(0, 2, len(points)), low + 1]
    )
    slopes[rng.random(len(points)) < 0.3] = ANY_SLOPE
    slopes[rng.random(len(points)) < 0.05] = (1e6, 0, 1e6, 0)  # fits nothing
    slopes = slopes.astype(np.float32).astype(float)
    event = np.zeros(len(points), int)
    compared, ambiguous = compare(points, event, DEFAULT, slopes)
    assert 100 < compared < 0.9 * len(set(run(points, event).middle_index.tolist()))
    assert ambiguous <= MAX_AMBIGUOUS * (compared + ambiguous)


def _allowed_pairs(points, config):
    """Numbers of doublets that the cuts allow, whatever the bins: sum over middles of tops."""
    accepted = np.flatnonzero(reference.is_accepted(points, config))
    tops = {i: accepted[reference.allowed_doublets(points[i], points[accepted], 1, config, -EDGE)] for i in accepted}
    bottoms = {
        i: accepted[reference.allowed_doublets(points[i], points[accepted], -1, config, -EDGE)] for i in accepted
    }
    return tops, bottoms


@pytest.mark.parametrize("config", [DEFAULT, AAS], ids=["default", "aas"])
def test_no_pair_that_the_cuts_allow_is_lost_at_a_bin_edge(config):
    """Every top of every middle that has a bottom is among the doublets found."""
    rng = np.random.default_rng(11)
    n = 4000
    r, phi = rng.uniform(20, 199, n), rng.uniform(-np.pi, np.pi, n)
    points = np.column_stack([r * np.cos(phi), r * np.sin(phi), rng.uniform(-900, 900, n)]).astype(np.float32)
    ws = Workspace(CpuDevice(1))
    ws.set_size(ws.extent("spacepoints"), n)
    spacepoints = SpacepointBatch(points, np.arange(n, dtype=np.int32), np.zeros(n, np.int32))
    find_seeds(ws, spacepoints, np.zeros((n, 2), np.float32), any_slopes(n), config, 0.0, 1)
    middles = ws.size(ws.extent("seeding_spacepoints"))
    index = ws.array("seeding.sorted_spacepoint", ws.extent("seeding_spacepoints"), np.int32)[:middles]
    offsets = ws.array("seeding.top_offsets", ws.extent("seeding_spacepoints"), np.int32, extra=1)
    partner = ws.array("seeding.top_partner", ws.extent("top_doublets"), np.int32)
    tops, bottoms = _allowed_pairs(points.astype(float), config)
    n_pairs = 0
    for row, middle in enumerate(index):
        if len(bottoms[middle]):
            found = set(index[partner[offsets[row] : offsets[row + 1]]])
            assert set(tops[middle]) <= found
            n_pairs += len(tops[middle])
    assert n_pairs > 500


def test_a_triplet_across_phi_of_180_degrees_is_found():
    for turn in np.linspace(0, 2 * np.pi, 97):
        cos, sin = math.cos(turn), math.sin(turn)
        points = [(r * cos, r * sin, 2 * r) for r in (34.0, 70.0, 116.0)]
        assert [column.tolist() for column in run(points)[:3]] == [[0], [1], [2]]


def test_points_outside_the_acceptance_are_not_used():
    inside = [(34.0, 0, 68), (70.0, 0, 140), (116.0, 0, 232)]
    assert len(run(inside).event) == 1
    assert len(run(inside, config=replace(DEFAULT, r_max=116.0)).event) == 0
    assert len(run(inside, config=replace(DEFAULT, z_max=231.0)).event) == 0
    assert len(run(inside, config=replace(DEFAULT, r_max=117.0, z_max=232.0)).event) == 1


@pytest.mark.parametrize("device", [CpuDevice(1), DeferredDevice(1)], ids=["cpu", "deferred"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_points_give_no_seed(n, device):
    assert len(run([(34.0, 0, 68), (70.0, 0, 140)][:n], device=device).event) == 0


def test_points_on_the_beam_line_and_doubled_points_do_no_harm():
    points = [(0, 0, 0), (0, 0, 5), (34.0, 0, 68), (34.0, 0, 68), (70.0, 0, 140), (116.0, 0, 232), (116.0, 0, 232)]
    config = replace(DEFAULT, seed_min_weight=200.0)  # which the copies of a seed do not reach
    assert [column.tolist() for column in run(points, config=config)[:3]] == [[2], [4], [5]]


def test_an_event_in_a_batch_is_the_event_alone():
    events = [simulate(60, seed)[0] for seed in (1, 2, 3)]
    event = np.repeat(np.arange(3), [len(points) for points in events])
    batch = run(np.concatenate(events), event)
    first = 0
    for k, points in enumerate(events):
        alone, mine = run(points), batch.event == k
        for name in ("bottom_index", "middle_index", "top_index"):
            np.testing.assert_array_equal(getattr(batch, name)[mine] - first, getattr(alone, name))
        np.testing.assert_array_equal(batch.quality[mine], alone.quality)
        first += len(points)
    assert (np.diff(batch.event) >= 0).all()


@pytest.mark.parametrize("device", [CpuDevice(2), DeferredDevice(2)], ids=["two threads", "overflow"])
def test_same_bits_with_two_threads_and_after_overflow(device):
    points, _, _ = simulate(800, seed=5)
    one, other = run(points), run(points, device=device)
    assert len(one.event) > 1000
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_crowded_middle_repeats_its_search_without_a_difference(monkeypatch):
    """More bottoms than remembered slots: the second search must give what the brute force gives."""
    rng = np.random.default_rng(3)
    bottoms = [(34.0, y, 68.0 + dz) for y, dz in zip(rng.uniform(-1, 1, 60), rng.uniform(-0.2, 0.2, 60), strict=True)]
    points = np.array([*bottoms, (70.0, 0, 140), (116.0, 0.3, 232), (116.0, -0.4, 232.1), (172.0, 0.1, 344)])
    config = replace(DEFAULT, max_seeds_per_middle=40)
    compared, _ = compare(points, np.zeros(len(points), int), config)
    assert compared >= 1
