"""Noise cells: how many, where, and that they carry no truth."""

import numpy as np
import pytest
from typer.testing import CliRunner

from traccc_py.cli.app import app
from traccc_py.errors import ConfigError
from traccc_py.geometry import build_detector
from traccc_py.simulation.digitization.noise import noise_cells
from traccc_py.simulation.events import read_event, simulate_event, write_event
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.random_numbers import event_key
from traccc_py.simulation.samples import SampleConfig

OCCUPANCY = (1e-6, 1e-3)
GUN = ParticleGunConfig(n_particles=20, momentum=(1.0, 10.0))


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


@pytest.fixture(scope="module")
def noise(odd):
    return noise_cells(odd.arrays(), odd.geometry_ids, event_key(3, 0), OCCUPANCY)


def channels_of(odd, cells):
    arrays = odd.arrays()
    surface = arrays.surfaces[odd.module_index(cells.geometry_id)]
    return surface, arrays.designs[surface["design"]]


def test_as_many_channels_fire_as_expected(odd, noise):
    arrays = odd.arrays()
    design = arrays.designs[arrays.surfaces["design"]]
    expected = design["n_channels0"].astype(float) * design["n_channels1"]
    _, found = channels_of(odd, noise)
    for dimensions, chance in ((2, OCCUPANCY[0]), (1, OCCUPANCY[1])):
        n = np.count_nonzero(found["dimensions"] == dimensions)
        mean = chance * expected[design["dimensions"] == dimensions].sum()
        # trapezoids lack their corners: the grids of channels are larger than the sensors
        assert 0.8 * mean < n < mean + 4 * np.sqrt(mean)
    again = noise_cells(odd.arrays(), odd.geometry_ids, event_key(3, 0), OCCUPANCY)
    np.testing.assert_array_equal(again.channel0, noise.channel0)
    other = noise_cells(odd.arrays(), odd.geometry_ids, event_key(3, 1), OCCUPANCY)
    assert not np.array_equal(other.geometry_id[:50], noise.geometry_id[:50])


def test_noise_is_above_the_threshold_and_on_the_sensor(odd, noise):
    surface, design = channels_of(odd, noise)
    is_digital = design["is_digital"] == 1
    assert (noise.activation[~is_digital] > design["threshold"][~is_digital]).all()
    assert noise.activation[~is_digital].mean() == pytest.approx(0.02, rel=0.1)
    assert (noise.activation[is_digital] == 1).all()
    assert (noise.measurement_id == -1).all()
    y = design["min1"] + (noise.channel1 + 0.5) * design["pitch1"]
    half = np.interp(y / surface["hy"], [-1, 1], [0, 1]) * (surface["hx_max"] - surface["hx_min"]) + surface["hx_min"]
    assert (np.abs(design["min0"] + (noise.channel0 + 0.5) * design["pitch0"]) <= half + 1e-3).all()


def test_cells_of_particles_keep_charge_and_truth(odd, tmp_path):
    occupancy = (1e-6, 0.03)  # so that noise meets cells of particles
    clean, noisy = (simulate_event(odd, GUN, 1, noise=n) for n in ((0.0, 0.0), occupancy))

    def keys(cells):
        return list(zip(cells.geometry_id.tolist(), cells.channel1.tolist(), cells.channel0.tolist(), strict=True))

    place = {key: k for k, key in enumerate(keys(noisy.cells))}
    assert keys(noisy.cells) == sorted(place)
    rows = np.array([place[key] for key in keys(clean.cells)])
    for name in ("activation", "measurement_id", "time"):
        np.testing.assert_array_equal(getattr(noisy.cells, name)[rows], getattr(clean.cells, name))
    sizes = np.diff(noisy.digitization.hit_offsets)
    np.testing.assert_array_equal(sizes[rows], np.diff(clean.digitization.hit_offsets))
    assert sizes.sum() == len(clean.digitization.hit_indices)
    assert (noisy.cells.measurement_id == -1).sum() == len(sizes) - len(rows) > 1000
    write_event(tmp_path, odd, noisy)
    read = read_event(tmp_path, odd, 0)
    np.testing.assert_array_equal(read.cells.measurement_id, noisy.cells.measurement_id)
    np.testing.assert_array_equal(np.diff(read.digitization.hit_offsets), np.minimum(sizes, 1))


def test_an_event_without_particles_may_have_noise(odd):
    event = simulate_event(odd, ParticleGunConfig(n_particles=0), 1, noise=OCCUPANCY)
    assert len(event.cells) > 1000
    assert len(event.digitization.hit_indices) == 0


def test_chances_are_checked():
    with pytest.raises(ConfigError, match=r"SampleConfig.noise is \[2, 0\]; expected 2 finite numbers from 0 to 1"):
        SampleConfig(GUN, noise=(2, 0))
    result = CliRunner().invoke(app, ["simulate", "--output", "x", "--noise-cells", "nan", "0"])
    assert result.exit_code == 2
    assert "--noise-cells is [nan, 0.0]; expected 2 finite numbers from 0 to 1" in result.stderr
