"""Configuration: validation and TOML."""

import dataclasses

import numpy as np
import pytest

from traccc_py.config import ChainConfig, FindingConfig, FittingConfig, SeedingConfig, read_config
from traccc_py.errors import ConfigError
from traccc_py.settings import AUTO, settings_of

SECTIONS = {f.name: f.default_factory for f in dataclasses.fields(ChainConfig)}
FIELDS = [(section, f.name) for section, made in SECTIONS.items() for f in dataclasses.fields(made)]


ANY_TEXT = {"finder.weights"}
CAN_BE_OFF = {"seeding.cluster_size_tolerance", "seeding.b_field_z"}
CAN_BE_AUTO = {
    f"{section}.{s.name}": s.kind for section, made in SECTIONS.items() for s in settings_of(made) if s.can_be_auto
}


_OTHER_TEXTS = {
    "calibrated": "traccc",
    "pion": "muon",
    AUTO: "grid",
    "seeds": "gnn",
    "odd": "my.npz",
    "layer_map": "metric",
    "walkthrough": "junction_removal",
}


def default_of(section, name):
    """The default value, a number where it is left to the detector."""
    default = getattr(getattr(ChainConfig(), section), name)
    if CAN_BE_AUTO.get(f"{section}.{name}") is str:
        return default
    return CAN_BE_AUTO[f"{section}.{name}"](30 if name.endswith("_max") else 3) if default is AUTO else default


def changed(value):
    if value is None:
        return 1.5
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return _OTHER_TEXTS[value]
    return value + 1 if isinstance(value, int) else value * 1.0625 + 0.001


def test_default_survives_a_round_trip(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(ChainConfig().to_toml())
    assert read_config(path) == ChainConfig() == read_config(None)


def test_every_field_survives_a_round_trip(tmp_path):
    default = ChainConfig()
    other = ChainConfig(
        **{
            name: type(section)(**{k: changed(default_of(name, k)) for k in dataclasses.asdict(section)})
            for name in SECTIONS
            for section in [getattr(default, name)]
        }
    )
    path = tmp_path / "config.toml"
    path.write_text(other.to_toml())
    assert ChainConfig.from_toml(path) == other
    for section, name in FIELDS:
        assert getattr(getattr(other, section), name) != getattr(getattr(default, section), name), (section, name)


def test_off_is_none_in_python(tmp_path):
    path = tmp_path / "config.toml"
    for key in CAN_BE_OFF:
        off = ChainConfig().with_settings({key: "off"})
        assert off == ChainConfig().with_settings({key: None}) == ChainConfig.from_dict(off.to_dict())
        assert off.with_settings({key: 1.5}) != off
        path.write_text(off.to_toml())
        assert f'{key.partition(".")[2]} = "off"' in path.read_text()
        assert read_config(path) == off


def test_what_is_left_to_the_detector_is_auto(tmp_path):
    path = tmp_path / "config.toml"
    assert len(CAN_BE_AUTO) > 10
    for key, kind in CAN_BE_AUTO.items():
        section, _, name = key.partition(".")
        assert getattr(getattr(ChainConfig(), section), name) is AUTO
        given = ChainConfig().with_settings({key: "grid" if kind is str else 7})
        assert type(getattr(getattr(given, section), name)) is kind
        assert given.with_settings({key: "auto"}) == ChainConfig()
        path.write_text(given.with_settings({key: "auto"}).to_toml())
        assert f'{name} = "auto"' in path.read_text()
        assert read_config(path) == ChainConfig()
    with pytest.raises(ConfigError, match=r'seeding\.min_pt is "auto"; expected a finite number > 0$'):
        ChainConfig().with_settings({"seeding.min_pt": "auto"})


def test_no_setting_of_the_traccc_preset_is_left_to_the_detector():
    assert not [v for values in read_config("traccc").to_dict().values() for v in values.values() if v is AUTO]


def test_to_toml_says_what_every_key_means():
    lines = ChainConfig().to_toml().splitlines()
    keys = [line for line in lines if " = " in line]
    assert len(keys) == len(FIELDS)
    assert [line for line in keys if "  # " not in line] == []


def test_missing_keys_keep_their_defaults(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[finding]\nchi2_max = 20\n")
    config = read_config(path)
    assert config == ChainConfig(finding=FindingConfig(chi2_max=20.0))
    assert isinstance(config.finding.chi2_max, float)


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_every_field_rejects_wrong_types(section, name):
    default = default_of(section, name)
    wrong = ["text", 1.5, None, [1]] if isinstance(default, (bool, int)) else ["text", True, None, [1]]
    wrong = [1, True, "neutrino", None] if isinstance(default, str) else wrong
    if f"{section}.{name}" in ANY_TEXT:
        wrong[wrong.index("neutrino")] = ""
    if f"{section}.{name}" in CAN_BE_OFF:
        wrong.remove(None)
    for value in [*wrong, *([1] if isinstance(default, bool) else [])]:
        with pytest.raises(ConfigError, match=rf"^{section}\.{name} is .*; expected "):
            ChainConfig.from_dict({section: {name: value}})


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_every_number_rejects_values_out_of_range(section, name):
    default = default_of(section, name)
    if isinstance(default, (bool, str)):
        pytest.skip("no number")
    has_no_limit = name in ("z_min", "z_max", "collision_region_min", "collision_region_max")
    default = 1.0 if default is None else default
    values = [float("nan"), float("inf")] if isinstance(default, float) else []
    for value in values if has_no_limit else [*values, -1 * type(default)(1)]:
        with pytest.raises(ConfigError, match=rf"{section}\.{name} is {value}"):
            ChainConfig.from_dict({section: {name: value}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[seeding]\nmin_pt = -1\n", r"seeding\.min_pt is -1\.0; expected a finite number > 0"),
        ("[seeding]\nmin_p = 1\n", r"seeding\.min_p is not a known key; did you mean min_pt\?"),
        ("[seeding]\nwibble = 1\n", r"seeding\.wibble is not a known key; known: method, z_min"),
        ("[seding]\nmin_pt = 1\n", r"seding is not a known section; did you mean seeding\?"),
        ("seeding = 3\n", r"seeding is 3; expected a section \[seeding\]"),
        ("[finding]\nmax_holes = 1.0\n", r"finding\.max_holes is 1\.0; expected an integer >= 0"),
        ("[finding]\nmax_holes = true\n", r"finding\.max_holes is true; expected an integer >= 0"),
        ("[finding]\nparticle = 'kaon'\n", r'finding\.particle is "kaon"; expected one of "pion", "muon", "electron"'),
        ("[seed_thinning]\nenabled = 1\n", r"seed_thinning\.enabled is 1; expected true or false"),
        ("[seeding]\nthinning = true\n", r"seeding\.thinning is not a known key; it is seed_thinning\.enabled now"),
        ("[seeding]\nb_field_z = 0\n", r'seeding\.b_field_z is 0\.0; expected a finite number > 0 and < 20 or "off"'),
        (
            "[seeding]\nr_max = 'off'\n",
            r'seeding\.r_max is "off"; expected a finite number > 0 or "auto"$',
        ),
        ("[seeding]\nmin_pt = 'off'\n", r'seeding\.min_pt is "off"; expected a finite number > 0$'),
        (
            "[seeding]\nz_min = 3000\nz_max = 2000\n",
            r"seeding\.z_min is 3000\.0; expected less than z_max, which is 2",
        ),
        (
            "[seeding]\ndelta_r_max = 8\ndelta_r_min = 8\n",
            r"seeding\.delta_r_min is 8\.0; expected less than delta_r",
        ),
        ("[finding]\nmin_measurements = 50\n", r"finding\.min_measurements is 50; expected at most max_measurements"),
        ("[fitting]\nbackward_inflation = 1\n", r"fitting\.backward_inflation is 1\.0; expected a finite number > 1"),
        ("[parameter_estimation]\ninflation = 0\n", r"parameter_estimation\.inflation is 0"),
        ("[seeding\n", r"is not valid TOML"),
        ("[seeding]\nmin_pt = 1\nmin_pt = 2\n", r"is not valid TOML"),
    ],
)
def test_from_toml_names_file_key_and_value(tmp_path, text, message):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"my\.toml: {message}"):
        read_config(path)


def test_from_toml_names_a_file_that_cant_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: can't be read \(No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: is not valid TOML"):
        read_config(tmp_path / "binary.toml")


def test_configurations_are_checked_when_made_and_frozen():
    with pytest.raises(ConfigError, match=r"finding\.chi2_max is 0; expected a finite number > 0"):
        FindingConfig(chi2_max=0)
    with pytest.raises(ConfigError, match=r"seeding\.min_pt"):
        dataclasses.replace(SeedingConfig(), min_pt=0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SeedingConfig().min_pt = 1.0
    assert FindingConfig(chi2_max=np.float32(3), max_holes=np.int64(2)).max_holes == 2


def test_with_particle_sets_finding_and_fit():
    config = ChainConfig().with_particle("muon")
    assert config.finding == FindingConfig(particle="muon")
    assert config.fitting == FittingConfig(particle="muon")
    assert config.seeding == SeedingConfig()
    with pytest.raises(ConfigError, match=r"finding\.particle is \"kaon\""):
        ChainConfig().with_particle("kaon")


@pytest.mark.parametrize(
    "setting",
    [
        {"seeding.min_pt": 1e-30},
        {"seeding.min_pt": 1e30},
        {"seeding.late_points": 2**31},
        {"finding.max_holes": 3_000_000_000},
        {"ambiguity_resolution.min_measurements_per_track": 10**12},
        {"fitting.seed_inflation": 1e300},
        {"parameter_estimation.sigma_loc0": 1e-30},
    ],
)
def test_numbers_that_32_bits_do_not_hold_are_refused(setting):
    with pytest.raises(ConfigError, match="at most 2147483647 if it is whole, else 0 or of a size from 1e-12 to 1e"):
        ChainConfig().with_settings(setting)
