"""Settings that follow from the detector, and warnings where settings don't fit it."""

import logging
from dataclasses import replace
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from tests.scaled import scaled
from traccc_py.config import ChainConfig, FinderConfig, read_config
from traccc_py.derivation import SeedingLayout, derive
from traccc_py.errors import GeometryError
from traccc_py.geometry import build_detector
from traccc_py.geometry.detector import assemble_detector
from traccc_py.geometry.layout import Line, apart, crossings
from traccc_py.gnn.weights import untrained_weights, write_weights
from traccc_py.pipeline.plausibility import Plausibility
from traccc_py.settings import AUTO


@cache
def detector(name):
    """A detector by name: toy with 7 discs on each side, or as many times its size, or with three layers."""
    if name == "three layers":
        return build_detector("toy", n_barrel_layers=3, n_endcap_layers=0)
    if name.startswith("toy"):
        toy = build_detector("toy", n_endcap_layers=7)
        return scaled(toy, float(name[len("toy x ") :])) if " x " in name else toy
    return build_detector(name)


@cache
def settings(name):
    """Derived settings by section and key."""
    return {setting: value for setting, value, _ in derive(ChainConfig(), detector(name))[1]}


LENGTHS = [
    "z_min",
    "z_max",
    "r_max",
    "delta_r_min",
    "delta_r_max",
    "delta_z_max",
    "filter_delta_r_min",
    "good_bottom_min_radius",
    "good_top_max_radius",
    "bottom_min_radius",
]


def test_nothing_is_left_open_and_every_number_has_a_reason():
    for name in ("odd", "toy", "telescope", "three layers"):
        config, derived = derive(ChainConfig(), detector(name))
        values = {f"{s}.{k}": v for s, keys in config.to_dict().items() for k, v in keys.items()}
        assert AUTO not in values.values()
        assert {d.setting: d.value for d in derived}.items() <= values.items()
        assert len(derived) == 16
        assert all(len(d.why) > 10 for d in derived)
        assert derive(config, detector(name)) == (config, ())


def test_the_open_data_detector_gets_what_was_found_to_work_best_there():
    """docs/odd_configuration.md: values of scans, to the steps of these."""
    found = settings("odd")
    assert found["seeding.z_max"] == -found["seeding.z_min"] == 1560  # pixels end at 1524
    assert found["seeding.r_max"] == 180  # they end at 174, and strips begin at 228
    assert found["seeding.delta_r_min"] == pytest.approx(8, abs=0.5)
    assert 110 <= found["seeding.delta_r_max"] <= 150
    assert found["seeding.delta_z_max"] == pytest.approx(500, abs=10)
    assert found["seeding.rad_length_per_seed"] == pytest.approx(0.03, abs=0.002)
    assert found["seeding.filter_delta_r_min"] == pytest.approx(5, abs=0.5)
    assert found["seeding.good_top_max_radius"] == found["seeding.good_bottom_min_radius"] == pytest.approx(150, abs=1)
    assert found["seeding.bottom_min_radius"] == pytest.approx(43, abs=0.5)
    assert found["seed_thinning.ring_width"] == pytest.approx(20, abs=1)
    assert found["seed_thinning.min_agreeing_seeds"] == 1
    assert found["finding.min_measurements"] == 5
    assert found["clusterization.pixel_sigma_floor"] == 0.005


def test_seeds_are_found_by_layer_pairs_where_the_detector_has_them():
    for name in ("odd", "toy", "toy x 2.5", "three layers"):
        assert settings(name)["seeding.method"] == "layer_pairs", name
    found = {d.setting: d for d in derive(ChainConfig(), detector("telescope"))[1]}["seeding.method"]
    assert found.value == "grid"
    assert "9 of the 9 layers that seeds could be made of are planes" in found.why


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"seeding.delta_r_max": 100, "seed_thinning.ring_width": 15}, "delta_r_max, seed_thinning.ring_width, which"),
        ({"seeding.max_seeds_per_middle": 3}, "only this search has seeding.max_seeds_per_middle"),
        ({"seeding.r_max": 20.0}, "no line from the collision region crosses three layers"),
    ],
)
def test_seeds_are_found_by_triplets_where_their_cuts_are_given_or_pairs_lead_nowhere(given, why):
    config, derived = derive(ChainConfig().with_settings(given), detector("toy"))
    assert config.seeding.method == "grid"
    assert why in next(d.why for d in derived if d.setting == "seeding.method")


@pytest.mark.parametrize("given", [{"seeding.impact_max": 2.0}, {"seed_thinning.enabled": False}])
def test_cuts_that_pairs_have_too_leave_the_search(given):
    assert derive(ChainConfig().with_settings(given), detector("toy"))[0].seeding.method == "layer_pairs"


@pytest.mark.parametrize("method", ["grid", "layer_pairs"])
def test_the_search_that_is_given_stays(method):
    given = ChainConfig().with_settings({"seeding.method": method, "seeding.delta_r_max": 100})
    config, derived = derive(given, detector("odd"))
    assert config.seeding.method == method
    assert "seeding.method" not in {d.setting for d in derived}


def test_four_layers_are_enough_for_a_track_of_the_toy_detector():
    found = settings("toy")
    assert found["finding.min_measurements"] == 3
    assert found["seeding.r_max"] == 190
    assert found["seeding.z_max"] == 1540


@pytest.mark.parametrize("factor", [2.5, 0.5])
def test_lengths_grow_with_the_detector(factor):
    plain, other = settings("toy"), settings(f"toy x {factor}")
    for name in LENGTHS:
        rounding = 30 if name in ("z_min", "z_max", "r_max") else 0.5
        assert other[f"seeding.{name}"] == pytest.approx(factor * plain[f"seeding.{name}"], abs=rounding, rel=0.005), (
            name
        )
    assert other["seed_thinning.ring_width"] == pytest.approx(factor * plain["seed_thinning.ring_width"], rel=0.01)
    for name in ("finding.min_measurements", "seed_thinning.min_agreeing_seeds", "seeding.rad_length_per_seed"):
        assert other[name] == pytest.approx(plain[name], rel=0.01), name


def test_a_telescope():
    found = settings("telescope")
    assert found["seeding.delta_r_min"] < 20 < found["seeding.delta_r_max"]  # planes every 20 mm
    assert found["seeding.delta_r_max"] >= 40
    assert found["seeding.r_max"] > np.hypot(180, 100)
    assert 3 <= found["finding.min_measurements"] <= 5


@pytest.mark.parametrize("options", [{"half_length": 2.0}, {"axis": "z"}, {"axis": "z", "first_offset": -220.0}])
def test_a_narrow_telescope_and_telescopes_along_the_beam(options):
    found = derive(ChainConfig(), build_detector("telescope", **options))[0]
    seeding = found.seeding
    points = build_detector("telescope", **options).surfaces.centre
    assert seeding.z_min < points[:, 2].min() <= points[:, 2].max() < seeding.z_max
    assert seeding.delta_z_max > (20 if "axis" in options else 2.0 * 2 * 20 / 180)
    assert seeding.delta_r_min < seeding.delta_r_max


def test_a_detector_aside_of_the_origin_is_seen_from_below_it():
    telescope = build_detector("telescope")
    shifted = telescope.surfaces.centre + np.array([0.0, 0.0, 1000.0])
    aside = assemble_detector(
        "aside", replace(telescope.surfaces, centre=shifted), [], telescope.digitization, 2.0, are_planes=True
    )
    found = derive(ChainConfig(), aside)[0]
    assert found.seeding.z_min <= 900 < 1100 <= found.seeding.z_max
    assert found.seeding.delta_r_max == settings("telescope")["seeding.delta_r_max"]


def with_pixels(**columns):
    """The Open Data Detector with other columns of the designs of its pixels."""
    arrays = detector("odd").arrays()
    designs = arrays.designs.copy()
    is_pixel = (designs["dimensions"] == 2) & (designs["is_digital"] == 0)
    for name, value in columns.items():
        designs[name][is_pixel] = value
    return SimpleNamespace(arrays=lambda: arrays._replace(designs=designs))


@pytest.mark.parametrize(
    ("columns", "floor"),
    [
        ({}, 0.005),
        ({"charge_smearing": 0.0}, 0.005),
        ({"pitch0": 0.1, "pitch1": 0.025}, 0.0025),
        ({"thickness": 0.3}, 0.00208),
        ({"thickness": [0.125, 0.125, 0.25]}, 0.0025),
        ({"threshold": 0.0}, 0.0),
        ({"is_digital": 1}, 0.0),
        ({"is_polar": 1}, 0.0),
    ],
)
def test_the_smallest_error_of_pixels_follows_from_their_readout(columns, floor):
    given = ChainConfig().with_settings({k: v for k, v in settings("odd").items() if not k.startswith("cluster")})
    config, derived = derive(given, with_pixels(**columns))
    assert [d.setting for d in derived] == ["clusterization.pixel_sigma_floor"]
    assert config.clusterization.pixel_sigma_floor == derived[0].value == pytest.approx(floor)


def test_with_three_layers_one_seed_is_enough():
    found = settings("three layers")
    assert found["seed_thinning.min_agreeing_seeds"] == 0
    assert found["finding.min_measurements"] == 3
    assert found["seeding.good_top_max_radius"] >= found["seeding.r_max"]


def test_what_is_given_stays():
    given = {"seeding.r_max": 150.0, "finding.min_measurements": 4, "seeding.z_min": -700.0}
    config, derived = derive(ChainConfig().with_settings(given), detector("toy"))
    assert {s for s, _, _ in derived} == settings("toy").keys() - given.keys()
    expected = {**settings("toy"), **given}
    assert {f"{s}.{k}": v for s, keys in config.to_dict().items() for k, v in keys.items()}.items() >= expected.items()


def test_two_layers_are_an_error_that_says_how_many_there_are():
    two = build_detector("toy", n_barrel_layers=2, n_endcap_layers=0)
    with pytest.raises(GeometryError, match=r"crosses 3 layers that measure two coordinates, .* 2 of .* 2 layers do"):
        derive(ChainConfig(), two)


def test_without_material_that_of_the_open_data_detector_is_assumed():
    empty = build_detector("telescope", material=None)
    found = {d.setting: d for d in derive(ChainConfig(), empty)[1]}["seeding.rad_length_per_seed"]
    assert found.value == 0.03
    assert "no material" in found.why


def test_seeds_are_made_of_pixels_where_there_are_strips():
    layout = SeedingLayout(detector("odd"))
    assert layout.describe() == "4 barrel layers and 28 discs or rings"
    assert all("pixel" in layer.name for layer in layout.layers)
    assert layout.typical[0] > layout.typical[1] >= 4


def test_a_line_crosses_the_barrel_from_the_inside_out():
    layers = [layer for layer in detector("odd").layer_places if layer.dimensions]
    met = crossings(layers, Line(0.1))
    assert [c.layer.name.split()[0] for c in met] == ["pixel"] * 4 + ["short"] * 4 + ["long"] * 2
    assert all(a.r < b.r and abs(a.z - 0.1 * a.r) < 1e-9 for a, b in pairwise(met))


def test_overlapping_rings_count_once():
    pixels = SeedingLayout(detector("odd")).layers
    in_overlap = crossings(pixels, Line(np.sinh(2.9)))
    assert len(apart(in_overlap)) < len(in_overlap)
    z = [c.z for c in apart(in_overlap) if c.z > 600]
    assert min(np.diff(z)) > 90


# --- warnings


def warnings(config, name):
    """Warnings of settings for a detector."""
    return Plausibility(derive(config, detector(name))[0], detector(name)).misfits


def test_settings_that_fit_have_no_warning():
    for name in ("odd", "toy", "toy x 2.5", "toy x 0.5", "telescope", "three layers"):
        assert warnings(ChainConfig(), name) == ()
    assert warnings(read_config("traccc"), "odd") == warnings(read_config("traccc"), "toy") == ()


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"seeding.r_max": 200}, "toy x 2.5", "2 of 4 barrel layers lie or reach beyond seeding.r_max = 200 mm"),
        ({"seeding.delta_r_max": 30}, "toy", "seeding.delta_r_max = 30 mm, but layers in a row are"),
        ({"seeding.delta_r_min": 90}, "odd", "seeding.delta_r_min = 90 mm, but layers in a row are"),
        ({"seeding.z_max": -100, "seeding.z_min": -101}, "odd", "beyond seeding.z_max = -100 mm"),
        ({"finding.min_measurements": 9}, "three layers", "finding.min_measurements is 9; particles cross 3 layers"),
        ({"seeding.b_field_z": 3.8}, "odd", "seeding.b_field_z is 3.8 T; the detector's field is 2 T"),
    ],
)
def test_settings_that_do_not_fit_are_named(given, name, expected):
    found = warnings(ChainConfig().with_settings(given), name)
    assert any(expected in text for text in found), found


class Result:
    """As much of a result as warnings look at."""

    def __init__(self, measurements=0, spacepoints=(), seeds=0, tracks=0):
        self.measurements = OnModules(np.resize(np.arange(100), measurements))
        self.seeds, self.tracks = range(seeds), range(tracks)
        self.spacepoints = Positions(spacepoints)


class OnModules:
    """Measurements."""

    def __init__(self, module_index):
        self.module_index = module_index

    def __len__(self):
        return len(self.module_index)


class Positions:
    """Spacepoints."""

    def __init__(self, positions):
        self.global_position = np.array(positions, np.float32).reshape(-1, 3)

    def __len__(self):
        return len(self.global_position)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            Result(515, [(300.0, 0, 0)] * 515),
            "a.csv: 0 seeds from 515 spacepoints: 515 of them lie beyond",
        ),
        (Result(40, [(100.0, 0, 0)] * 40), "a.csv: 0 seeds from 40 spacepoints: no three of them fit the cuts"),
        (Result(40, [(100.0, 0, 9e3)] * 40), "40 of them lie outside of z = -1540 to 1540 mm"),
        (Result(40), "a.csv: 0 spacepoints from 40 measurements: none has two coordinates"),
        (Result(40, [(100.0, 0, 0)] * 40, 40), "a.csv: 0 tracks from 40 seeds: none was followed to finding.min_meas"),
        (Result(40, [(100.0, 0, 0)] * 40, 40, 1), ""),
        (Result(5, [(100.0, 0, 0)] * 5), ""),
        (Result(), ""),
    ],
)
def test_an_event_that_gave_nothing_says_why(result, expected, caplog):
    plausibility = Plausibility(derive(ChainConfig(), detector("toy"))[0], detector("toy"))
    with caplog.at_level(logging.WARNING):
        plausibility.warn_of_result(result, "a.csv")
    assert expected in caplog.text
    assert bool(caplog.records) == bool(expected)


@pytest.mark.parametrize(("n", "is_told"), [(12, False), (13, True)])
def test_events_denser_than_those_of_the_training_are_told(tmp_path, caplog, n, is_told):
    weights = untrained_weights(detector("toy").arrays())
    path = tmp_path / "my.npz"
    write_weights(path, weights._replace(facts={"mu": [20, 200], "most_spacepoints": 10}))
    config = derive(ChainConfig(finder=FinderConfig(method="gnn", weights=str(path))), detector("toy"))[0]
    with caplog.at_level(logging.WARNING):
        Plausibility(config, detector("toy")).warn_of_result(Result(40, [(100.0, 0, 0)] * n, 1, 1), "a.csv")
    told = f"a.csv: {n} spacepoints, where the densest event that the weights {path} were trained on had 10 (up to 200"
    assert (told in caplog.text) == bool(caplog.records) == is_told


def test_noisy_modules_are_told(caplog):
    plausibility = Plausibility(derive(ChainConfig(), detector("toy"))[0], detector("toy"))
    result = Result(9000, [(100.0, 0, 0)] * 40, 1, 1)
    with caplog.at_level(logging.WARNING):
        plausibility.warn_of_result(result, "a.csv")
        assert not caplog.records
        result.measurements.module_index[:2500] = 3
        plausibility.warn_of_result(result, "a.csv")
    n = np.bincount(result.measurements.module_index)[3]
    text = f"a.csv: 1 module has more than seeding.max_module_measurements = 2000 measurements; their {n} make no seeds"
    assert [record.getMessage() for record in caplog.records] == [text]
