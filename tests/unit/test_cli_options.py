"""Options that commands share: settings and cuts, the detector; and the page that maps traccc's options."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main

from tests.unit.test_cli import FakeChain, assert_refused, call, install_fake_chain, run, write_event
from traccc_py.cli.app import EXAMPLES, app
from traccc_py.cli.settings import TRACCC_CUTS
from traccc_py.config import ChainConfig, read_config
from traccc_py.geometry.field import solenoid_field_map, write_field_map

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PAGE_OF_COMMANDS = ((DOCS / name).read_text() for name in ("from_traccc.md", "cli.md"))
COMMANDS = typer.main.get_command(app).commands


def option_names(command):
    return {name for p in COMMANDS[command].params for name in p.opts if name.startswith("-")}


def table(title):
    """Return the cells of the rows of a section's table."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def config_of(*arguments):
    """Return the settings that `config` prints."""
    result = call("config", *arguments)
    assert result.exit_code == 0, result.output
    return ChainConfig.from_dict(tomllib.loads(result.stdout))


def changed(*arguments):
    """Return the settings that differ from the default, by name."""
    plain, other = ChainConfig().to_dict(), config_of(*arguments).to_dict()
    return {f"{s}.{k}": v for s, keys in other.items() for k, v in keys.items() if plain[s][k] != v}


# --- the page


def test_every_cut_of_the_page_is_an_option_of_run_and_sets_what_the_page_says():
    rows = table("Cuts")
    assert [row[0].strip("`-") for row in rows] == [cut.name for cut in TRACCC_CUTS]
    for row, cut in zip(rows, TRACCC_CUTS, strict=True):
        assert row[0].strip("`") in option_names("run")
        assert tuple(re.findall(r"`([\w.]+)`", row[1])) == cut.keys
        if "range" in cut.name:
            text, values = "77:88", [88] if len(cut.keys) == 1 else [77, 88]
        elif "particle" in cut.name:
            text, values = "-13", ["muon"]
        else:
            text, values = "7", [7]
        assert changed(row[0].strip("`"), text) == dict(zip(cut.keys, values, strict=True)), cut.name


@pytest.mark.parametrize(
    ("title", "command"), [("Input, detector, field", "run"), ("Simulation", "simulate"), ("Throughput", "throughput")]
)
def test_every_row_of_the_page_is_an_option(title, command):
    rows = table(title)
    assert len(rows) > 5
    for row in rows:
        for name in re.findall(r"`(-[\w-]+)`", row[1] + row[2]):
            assert name in option_names(command), name


def test_what_has_no_counterpart_is_no_option():
    names = re.findall(r"`([\w-]+)`", PAGE.split("## Without counterpart")[1].split("\nAnd ")[0])
    assert len(names) > 15
    for name in names:
        assert f"--{name}" not in option_names("run"), name


@pytest.mark.parametrize("command", ["run", "simulate"])
def test_the_page_of_the_command_line_has_every_option(command):
    page = (
        PAGE_OF_COMMANDS.split(f"## {command}\n")[1].split("\n## ")[0] + PAGE_OF_COMMANDS.split("### The detector")[1]
    )
    shown = {name for p in COMMANDS[command].params if not getattr(p, "hidden", False) for name in p.opts}
    options = {name for name in shown if name.startswith("--")} - {"--help", "--debug"}
    assert len(options) > 15
    assert {name for name in options if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("command", ["simulate", "detector", "compile", "calibrate"])
def test_other_commands_have_the_detector_options_too(command):
    wanted = {row[1].strip("`") for row in table("Input, detector, field")[3:13]}
    assert wanted >= {"--detector-file", "--bfield-value"}
    assert wanted <= option_names(command)


# --- settings


def test_set_changes_one_setting_and_reads_values_as_toml():
    arguments = [
        "--set",
        "finding.chi2_max=20",
        "--set",
        "seed_thinning.enabled = false",
        "--set",
        "fitting.particle=muon",
    ]
    assert changed(*arguments) == {"finding.chi2_max": 20, "seed_thinning.enabled": False, "fitting.particle": "muon"}
    assert changed("--set", "seeding.cluster_size_tolerance=off") == {"seeding.cluster_size_tolerance": None}
    assert changed("--set", 'finding.particle="electron"') == {"finding.particle": "electron"}


def test_single_settings_come_after_the_file_and_the_particle(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[finding]\nchi2_max = 20\nmax_holes = 2\n")
    arguments = ["--config", path, "--particle", "muon", "--fit-particle-hypothesis", 11, "--chi2-max", 35]
    found = changed(*arguments)
    assert found == {
        "finding.chi2_max": 35,
        "finding.max_holes": 2,
        "finding.particle": "muon",
        "fitting.particle": "electron",
    }


def test_settings_reach_the_chain(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    install_fake_chain(monkeypatch)
    result = run(write_event(tmp_path, 0), "--config", "traccc", "--max-shared-meas", "2", "--set", "finding.min_pt=1")
    assert result.exit_code == 0, result.output
    expected = read_config("traccc").with_settings(
        {"ambiguity_resolution.max_shared_measurements": 2, "finding.min_pt": 1}
    )
    assert FakeChain.made.config == expected


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--set", "finding.chi2_max"], "--set finding.chi2_max: expected section.key=value"),
        (["--set", "chi2_max=3"], "--set chi2_max=3: expected section.key=value"),
        (["--set", "finding.chi2=3"], "--set: finding.chi2 is not a known key; did you mean chi2_max?"),
        (["--set", "find.chi2_max=3"], "--set: find is not a known section; did you mean finder?"),
        (["--set", "finding.chi2_max=x"], '--set: finding.chi2_max is "x"; expected a finite number > 0'),
        (["--set", "finding.max_holes=1.5"], "--set: finding.max_holes is 1.5; expected an integer >= 0"),
        (["--chi2-max", "x"], "--chi2-max is 'x'; expected a number"),
        (["--chi2-max", "-1"], "--chi2-max: finding.chi2_max is -1.0; expected a finite number > 0"),
        (["--track-candidates-range", "3"], "--track-candidates-range is '3'; expected MIN:MAX"),
        (
            ["--track-candidates-range", "9:3"],
            "--track-candidates-range: finding.min_measurements is 9; expected at most",
        ),
        (["--particle-hypothesis", "22"], "--particle-hypothesis is '22'; expected a PDG number out of 11, 13, 211"),
        (["--chi2-max", "3", "--set", "finding.chi2_max=4"], "--chi2-max and --set give finding.chi2_max two values"),
        (["--particle", "kaon"], '--particle is "kaon"; expected one of "pion", "muon", "electron"'),
        (["--config", "none.toml"], "none.toml: can't be read"),
    ],
)
def test_settings_that_cannot_be_used_are_named_by_their_option(arguments, problem):
    assert_refused(call("config", *arguments), problem)


def test_one_value_given_twice_is_no_contradiction():
    assert changed("--chi2-max", "20", "--set", "finding.chi2_max=20") == {"finding.chi2_max": 20}


def test_traccc_preset_has_the_defaults_of_traccc():
    """Values from the option headers of traccc v1.6.0."""
    found = config_of("traccc")
    assert found == config_of("--config", "traccc") == read_config("traccc")
    seeding, finding = found.seeding, found.finding
    assert (seeding.z_min, seeding.z_max, seeding.r_max) == (-2000, 2000, 200)
    assert (seeding.delta_r_min, seeding.delta_r_max, seeding.delta_z_max) == (20, 80, 450)
    assert (seeding.impact_max, seeding.min_pt, seeding.max_pt_scattering) == (10, 0.5, 10)
    assert (seeding.cot_theta_max, seeding.sigma_scattering, seeding.max_seeds_per_middle) == (27.2845, 3, 5)
    assert (seeding.compatible_seed_weight, seeding.compatible_seed_limit) == (200, 2)
    assert (finding.max_branches_per_seed, finding.max_branches_per_surface) == (10, 1)
    assert (finding.min_measurements, finding.max_measurements, finding.chi2_max) == (3, 100, 30)
    assert (finding.max_holes, finding.max_consecutive_holes) == (3, 1)
    assert (finding.min_p, finding.min_pt, finding.particle) == (0.1, 0.6, "pion")
    assert found.ambiguity_resolution.max_shared_measurements == 1
    assert found.ambiguity_resolution.min_measurements_per_track == 3
    assert found.fitting.backward_inflation == 1000
    assert found.clusterization.variance == "traccc"
    assert seeding.cluster_size_tolerance is None
    assert not found.seed_thinning.enabled


# --- the detector


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--material-file", "m.json"], "--material-file belongs to a --detector-file, which is not given"),
        (["--grid-file", "g.json"], "--grid-file belongs to a --detector-file"),
        (["toy", "--detector-file", "d.json"], "--detector-file d.json and the name toy: expected one of them"),
        (["--bfield-value", "2", "--bfield-file", "f.cvf"], "--bfield-file and --bfield-value: expected one of them"),
        (["--bfield-file-format", "csv"], "--bfield-file-format belongs to a --bfield-file"),
        (["--bfield-symmetry", "xyz"], "--bfield-symmetry belongs to a --bfield-file"),
        (["--bfield-partial"], "--bfield-partial belongs to a --bfield-file"),
        (["telescope", "--bfield-value", "2000"], "b_z is 2,000 T; expected less than 20 T"),
        (
            ["--bfield-file", "f", "--bfield-file-format", "root"],
            "--bfield-file-format is 'root'; expected one of binary",
        ),
        (["--read-bfield-from-file"], "--read-bfield-from-file needs a --bfield-file"),
        (["--use-acts-geom-source", "maybe"], "--use-acts-geom-source is 'maybe'; expected true or false"),
        (["telescope", "--bfield-value", "nan"], "b_z is nan; expected a finite field"),
        (["telescope", "--conditions-file", "none.json"], "none.json"),
        (["atlas"], "'atlas' is unknown"),
    ],
)
def test_detector_options_that_cannot_be_used_are_named(arguments, problem):
    assert_refused(call("detector", *arguments), problem)


def test_field_of_a_detector_by_name():
    result = call("detector", "telescope", "--bfield-value", "1.5", "--use-acts-geom-source=on")
    assert result.exit_code == 0, result.output
    assert "field 1.5 T along z" in result.stdout


def test_detector_from_files_and_back(tmp_path):
    result = call("detector", "toy", "--write", tmp_path / "toy")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "toy"
    parts = {"geometry": "--detector-file", "homogeneous_material": "--material-file", "surface_grids": "--grid-file"}
    files = {folder / f"toy_{part}.json": name for part, name in parts.items()}
    (readout,) = set(folder.iterdir()) - set(files)
    arguments = [word for path, name in files.items() for word in (name, path)] + ["--digitization-file", readout]
    again = call("detector", *arguments)
    assert again.exit_code == 0, again.output
    n_sensors = re.compile(r"(\d+) sensors in")
    assert n_sensors.search(again.stdout)[1] == n_sensors.search(call("detector", "toy").stdout)[1]


def test_field_map_of_a_file(tmp_path):
    path = tmp_path / "map.csv"
    chosen = solenoid_field_map(b_z=1.5)
    write_field_map(path, chosen)
    for options in ([], ["--bfield-file-format", "csv"], ["--read-bfield-from-file"]):
        result = call("detector", "telescope", "--bfield-file", path, *options)
        assert result.exit_code == 0, result.output
        shown = " ".join(result.stdout.split())
        assert "field 1.5 T along z at the origin; map of 24 x 127 nodes, r 0 to 1150, z -3150 to 3150 mm, " in shown
        low, high = map(float, re.search(r"mm, ([\d.e-]+) to ([\d.]+) T", shown).groups())
        assert 0.5 < low < 1 < 1.5 <= high < 2
    assert_refused(
        call("detector", "telescope", "--bfield-file", path, "--bfield-file-format", "binary"), "map.csv: byte 0"
    )
    assert_refused(call("detector", "telescope", "--bfield-file", tmp_path / "none.cvf"), "none.cvf")


# --- examples of the help


@pytest.mark.parametrize("name", EXAMPLES)
def test_help_ends_with_an_example_that_parses(name):
    words = name.split()
    shown = " ".join(call(*words, "--help").stdout.split())
    assert shown.endswith(f"Example: {EXAMPLES[name]}")
    program, *arguments = shlex.split(EXAMPLES[name])
    assert (program, arguments[: len(words)]) == ("traccc-py", words)
    command = COMMANDS[words[0]] if len(words) == 1 else COMMANDS[words[0]].commands[words[1]]
    command.make_context(name, arguments[len(words) :])


@pytest.mark.parametrize("name", ["config", "run", "detector"])
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    install_fake_chain(monkeypatch)
    result = call(*shlex.split(EXAMPLES[name])[1:])
    assert result.exit_code == 0, result.output


# --- options that mean nothing


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--sample", "s", "--particles", "3"], "--particles is for events that are simulated now, not for events of"),
        (["--sample", "s", "--seed", "1"], "--seed is for events that are simulated now"),
        (
            ["--truth", "t", "--tracks", "t", "--pt", "1", "2"],
            "--pt is for events that are simulated now",
        ),
        (
            ["--truth", "t", "--tracks", "t", "--device", "cpu"],
            "--device is for events that are simulated now or",
        ),
        (["--truth", "t", "--compare", "a=t", "--tracks-kind", "own"], "--tracks-kind belongs to --tracks"),
        (["--plot-format", "pdf"], "--plot-format belongs to --plots, which is not given"),
        (["--matching-ratio", "2"], "--matching-ratio"),
        (["--min-z", "3", "--max-z", "2"], "--min-z is 3.0; expected at most max_z, which is 2.0"),
        (["--particle", "kaon"], '--particle is "kaon"; expected one of "pion", "muon", "electron"'),
    ],
)
def test_performance_refuses_options_that_mean_nothing(arguments, problem):
    assert_refused(call("performance", "--detector", "telescope", *arguments), problem)


# --- compilation for GPUs that are not there


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--arch", "ada"], "--arch is 'ada'; expected a GPU's architecture such as sm_80"),
        (["--arch", "sm_90", "--device", "cpu"], '--device is "cpu"; expected cuda'),
    ],
)
def test_compile_refuses_impossible_architectures(arguments, problem):
    assert_refused(call("compile", "--detector", "telescope", *arguments), problem)


@pytest.mark.slow
def test_compile_writes_cubins_for_each_architecture(tmp_path, monkeypatch):
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
    from traccc_py.cli import compilation
    from traccc_py.device.signatures import record_signatures

    primitives = record_signatures(lambda _: None)
    name = min(primitives)
    monkeypatch.setattr(compilation, "_recorded", lambda *_: {name: primitives[name]})
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    for n_missing in (1, 0):
        result = call("compile", "--detector", "telescope", "--arch", "sm_80", "--arch", "90")
        assert result.exit_code == 0, result.output
        for architecture in ("sm_80", "sm_90"):
            assert f"{architecture}: 1 kernel, {n_missing} to be compiled" in result.stderr
        assert {p.parent.name[:9] for p in tmp_path.rglob(f"{name}-*.cubin")} == {"cuda-sm80", "cuda-sm90"}
    assert_refused(call("compile", "--detector", "telescope", "--arch", "sm_12"), "sm_12 is no architecture")
