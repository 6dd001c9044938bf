import numpy as np
import pytest

from traccc_py.data.truth import Hits
from traccc_py.geometry import build_detector
from traccc_py.simulation.digitization.digitization import digitization_geometry, digitize
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.transport.transport import SimulatedHits
from traccc_py.simulation.transport.truth_geometry import truth_geometry

KEY = event_key(1, 0)
PATH_TOLERANCE = 1e-5  # [mm] borders of channels are float32


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


@pytest.fixture(scope="module")
def truth(odd):
    return truth_geometry(odd)


def module_of(odd, volume):
    return int(np.flatnonzero((odd.geometry_ids >> np.uint64(56)) == volume)[0])


def hits_at(odd, truth, module, local, direction):
    """One hit per row of local position and local direction, each of its own particle."""
    local, direction = np.atleast_2d(local).astype(float), np.atleast_2d(direction).astype(float)
    n = len(local)
    record = truth.modules[module]
    axes = np.array([[record[f"{a}{b}"] for b in "xyz"] for a in "uvw"])
    zero = np.zeros(n)
    hits = Hits(
        particle_id=np.arange(n, dtype=np.uint64),
        geometry_id=np.full(n, odd.geometry_ids[module]),
        position=np.zeros((n, 3)),
        time=zero,
        momentum=direction @ axes,
        energy=zero,
        delta_momentum=np.zeros((n, 3)),
        delta_energy=zero,
        index=np.zeros(n, np.int64),
    )
    return SimulatedHits(hits, np.arange(n), np.full(n, module, np.int32), local)


def test_perpendicular_path_fires_one_channel(odd, truth):
    module = module_of(odd, 17)
    made = digitize(odd, hits_at(odd, truth, module, (0.51, -0.32), (0, 0, 1)), KEY, smearing=False)
    # pitch 0.05 from -8.4 and -36: (8.4 + 0.51) / 0.05 = 178.2, (36 - 0.32) / 0.05 = 713.6
    assert (made.cells.channel0.tolist(), made.cells.channel1.tolist()) == ([178], [713])
    assert made.cells.activation[0] == pytest.approx(0.125, abs=PATH_TOLERANCE)
    assert made.cells.geometry_id[0] == odd.geometry_ids[module]
    assert (made.hit_indices.tolist(), made.measurement_hit.tolist()) == ([0], [0])


def test_path_lengths_add_up_to_the_path_in_the_sensor(odd, truth):
    rng = np.random.default_rng(1)
    module = module_of(odd, 17)
    odd_exact = odd.with_digitization("odd-2024")
    direction = np.column_stack([rng.normal(size=(200, 2)) * (0.3, 3.0), rng.choice([-1, 1], 200)])
    for i in range(200):
        local = rng.uniform(-1, 1, 2) * (7.0, 34.0)
        simulated = hits_at(odd, truth, module, local, direction[i])
        geometry = (truth, digitization_geometry(odd_exact, smearing=False))
        made = digitize(odd, simulated, KEY, geometry=geometry)
        path = 0.125 * np.linalg.norm(direction[i]) / abs(direction[i, 2])
        lost = 0.01 * (1 + 2 * len(made.cells))  # channels below the threshold
        assert path - lost <= made.cells.activation.sum(dtype=float) <= path + PATH_TOLERANCE
        steps = np.abs(np.diff(made.cells.channel1))
        assert steps.max(initial=0) <= 1


def test_charge_is_shared_symmetrically_between_two_channels(odd, truth):
    module = module_of(odd, 17)
    slope = 0.04 / 0.125  # crosses 0.04 mm of loc0
    for side in (1, -1):
        made = digitize(odd, hits_at(odd, truth, module, (0.5, 0.02), (side * slope, 0, 1)), KEY, smearing=False)
        assert made.cells.channel0.tolist() == [177, 178]  # 0.5 is the border of channels 177 and 178
        assert made.cells.activation[0] == pytest.approx(made.cells.activation[1], abs=PATH_TOLERANCE)
    left = digitize(odd, hits_at(odd, truth, module, (0.49, 0.02), (slope, 0, 1)), KEY, smearing=False).cells
    right = digitize(odd, hits_at(odd, truth, module, (0.51, 0.02), (slope, 0, 1)), KEY, smearing=False).cells
    np.testing.assert_allclose(left.activation, right.activation[::-1], atol=PATH_TOLERANCE)
    # 0.03 of 0.04 mm lie in the left channel
    assert left.activation[0] / left.activation.sum() == pytest.approx(0.75, abs=1e-4)


def test_direction_of_flight_does_not_matter(odd, truth):
    module = module_of(odd, 17)
    there = digitize(odd, hits_at(odd, truth, module, (1.3, 2.7), (0.4, 1.5, 1)), KEY, smearing=False).cells
    back = digitize(odd, hits_at(odd, truth, module, (1.3, 2.7), (-0.4, -1.5, -1)), KEY, smearing=False).cells
    np.testing.assert_array_equal(there.channel1, back.channel1)
    np.testing.assert_allclose(there.activation, back.activation, atol=PATH_TOLERANCE)


def test_several_particles_add_up_in_a_channel(odd, truth):
    module = module_of(odd, 17)
    simulated = hits_at(odd, truth, module, [(0.51, -0.32), (0.52, -0.33), (3.0, 3.0)], [(0, 0, 1)] * 3)
    made = digitize(odd, simulated, KEY, smearing=False)
    assert made.cells.activation[0] == pytest.approx(0.25, abs=PATH_TOLERANCE)
    assert made.hit_indices[made.hit_offsets[0] : made.hit_offsets[1]].tolist() == [0, 1]
    assert made.cells.measurement_id.tolist() == [0, 2]
    assert made.measurement_hit.tolist() == [0, 1, 2]


def test_cells_come_ordered_and_each_once(odd, truth):
    rng = np.random.default_rng(2)
    module = module_of(odd, 17)
    simulated = hits_at(
        odd, truth, module, rng.uniform(-3, 3, (300, 2)), np.column_stack([rng.normal(size=(300, 2)), np.ones(300)])
    )
    cells = digitize(odd, simulated, KEY).cells
    key = cells.channel1 * 336 + cells.channel0
    assert (np.diff(key) > 0).all()


def test_strips_are_digital_and_one_dimensional(odd, truth):
    module = module_of(odd, 29)
    made = digitize(odd, hits_at(odd, truth, module, (0.1, 20.0), (0.5, 2.0, 1)), KEY)
    assert set(made.cells.channel1.tolist()) == {0}
    assert set(made.cells.activation.tolist()) == {1.0}
    assert made.cells.channel0.tolist() == [192]  # (48 + 0.1) / 0.25 = 192.4, the path covers +-0.0625 mm


def test_paths_outside_the_sensor_are_lost(odd, truth):
    barrel = module_of(odd, 17)
    half = digitize(odd, hits_at(odd, truth, barrel, (8.4, 0.02), (0.2, 0, 1)), KEY, smearing=False).cells
    assert half.activation.sum() == pytest.approx(0.0625 * np.hypot(1, 0.2), abs=PATH_TOLERANCE)
    trapezoid = module_of(odd, 16)
    record = truth.modules[trapezoid]
    hx, hy = record["hx_min"], record["hy"]
    inside = digitize(odd, hits_at(odd, truth, trapezoid, (hx - 0.1, -hy + 0.1), (0, 0, 1)), KEY)
    outside = digitize(odd, hits_at(odd, truth, trapezoid, (hx + 0.1, -hy + 0.1), (0, 0, 1)), KEY)
    assert (len(inside.cells), len(outside.cells)) == (1, 0)
    parallel = digitize(odd, hits_at(odd, truth, barrel, (0, 0), (1, 0, 0)), KEY)
    assert len(parallel.cells) == 0


def test_threshold_drops_small_signals_and_noise_has_its_width(odd, truth):
    module = module_of(odd, 17)
    # 0.005 mm of the path lie in the left channel
    simulated = hits_at(odd, truth, module, (0.5 + 0.0196, 0.02), (0.32, 0, 1))
    assert len(digitize(odd, simulated, KEY, smearing=False).cells) == 1
    many = hits_at(
        odd, truth, module, np.column_stack([np.arange(300) * 0.05 - 7.475, np.full(300, 0.02)]), [(0, 0, 1)] * 300
    )
    activation = digitize(odd, many, KEY).cells.activation
    assert len(activation) == 300
    assert activation.std() == pytest.approx(0.015, rel=4 / np.sqrt(600))
    assert activation.mean() == pytest.approx(0.125, abs=4 * 0.015 / np.sqrt(300))
    np.testing.assert_array_equal(activation, digitize(odd, many, KEY).cells.activation)
    assert not np.array_equal(activation, digitize(odd, many, event_key(2, 0)).cells.activation)


def test_local_shifts_move_channels(odd, truth):
    module = module_of(odd, 17)
    simulated = hits_at(odd, truth, module, (0.51, -0.32), (0, 0, 1))
    arrays = odd.arrays()
    shifted = arrays._replace(translations=np.full_like(arrays.translations, 0.1))
    geometry = (truth, digitization_geometry(shifted, smearing=False))
    made = digitize(odd, simulated, KEY, geometry=geometry)
    assert (made.cells.channel0.tolist(), made.cells.channel1.tolist()) == ([176], [711])


def test_no_hits_make_no_cells(odd, truth):
    nothing = hits_at(odd, truth, module_of(odd, 17), np.zeros((0, 2)), np.zeros((0, 3)))
    made = digitize(odd, nothing, KEY)
    assert len(made.cells) == 0
    assert made.hit_offsets.tolist() == [0]
