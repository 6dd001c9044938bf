"""The command line, with a stand-in for the chain."""

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.unit.test_data_track_files import make_result
from traccc_py.cli import app
from traccc_py.config import ChainConfig
from traccc_py.data.csv_events import read_cells, write_cells
from traccc_py.data.prepare import prepare_cells
from traccc_py.data.track_files import read_tracks
from traccc_py.device.cache import cache_directory
from traccc_py.edm import Cells
from traccc_py.errors import DeviceUnavailableError
from traccc_py.geometry import build_detector

STAGES = ("preparation", "clusterization", "fitting")


class FakeChain:
    """Checks cells as the chain does and returns results made up."""

    made = None

    def __init__(self, detector, config=None, device="auto", threads=None):
        if device.startswith("cuda"):
            raise DeviceUnavailableError("no GPU here")
        self.detector, self.config = detector, config
        self.device = types.SimpleNamespace(name="cpu", threads=threads or 4)
        self.n_runs = 0
        FakeChain.made = self

    def initialize(self):
        pass

    def run(self, cells):
        prepared = prepare_cells(cells, self.detector)
        self.n_runs += 1
        result = make_result((3,) * min(prepared.n_cells, 2), prepared.n_cells)
        result.stage_milliseconds = dict.fromkeys(STAGES, float(self.n_runs))
        return result


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def chain(cache, monkeypatch):
    module = types.ModuleType("traccc_py.chain")
    module.TrackingChain = FakeChain
    monkeypatch.setitem(sys.modules, "traccc_py.chain", module)


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def run(*arguments):
    return call("run", "--detector", "telescope", *arguments)


def write_event(folder, event, n=3, suffix=".csv"):
    ids = build_detector("telescope").geometry_ids
    channels = np.arange(n)
    cells = Cells(
        geometry_id=np.repeat(ids[:1], n),
        channel0=channels,
        channel1=channels,
        activation=np.ones(n, np.float32),
        time=np.zeros(n, np.float32),
        measurement_id=np.zeros(n, np.int64),
    )
    path = folder / f"event{event:09d}-cells{suffix}"
    write_cells(path, cells)
    return path


@pytest.fixture
def events(tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    for event in range(4):
        write_event(folder, event, n=event + 1)
    return folder


def output_events(folder):
    return sorted({int(path.name[5:14]) for path in folder.iterdir()}) if folder.exists() else []


def spoil(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- run: what it works on


def test_run_prints_counts_and_times(chain, events):
    result = run(events)
    assert result.exit_code == 0, result.output
    for word in ("Counts", "Milliseconds", "measurements", "tracks", "cluster", "total", "median", "events/s"):
        assert word in result.stdout, word


def test_run_writes_three_files_an_event(chain, events, tmp_path):
    result = run(events, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").iterdir())) == 12
    assert len(read_tracks(tmp_path / "out", 3)["track_id"]) == 2
    assert not list((tmp_path / "out").glob(".*"))


def test_run_writes_compressed_files(chain, events, tmp_path):
    run(events / "event000000002-cells.csv", "--output", tmp_path / "out", "--compress")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"event000000002-{k}.csv.gz" for k in ("measurements", "track_states", "tracks")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["."], [0, 1, 2, 3]),
        (["*cells.csv"], [0, 1, 2, 3]),
        (["event00000000[13]*"], [1, 3]),
        (["event000000002-cells.csv", "event000000001-cells.csv"], [1, 2]),
        ([".", "--skip", "1", "--events", "2"], [1, 2]),
        ([".", "event000000001-cells.csv"], [0, 1, 2, 3]),
    ],
)
def test_run_finds_events(chain, events, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(events)
    result = run(*arguments, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert output_events(tmp_path / "out") == expected


def test_run_numbers_files_without_an_event_number_by_place(chain, events, tmp_path):
    (events / "event000000001-cells.csv").rename(events / "muons.csv")
    run(events / "muons.csv", "--output", tmp_path / "out")
    assert output_events(tmp_path / "out") == [0]


def test_run_reads_gzip(chain, tmp_path):
    (tmp_path / "input").mkdir()
    write_event(tmp_path / "input", 0, suffix=".csv.gz")
    assert run(tmp_path / "input").exit_code == 0


def test_run_of_an_event_without_cells(chain, tmp_path):
    (tmp_path / "input").mkdir()
    result = run(write_event(tmp_path / "input", 0, n=0), "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(read_tracks(tmp_path / "out", 0)["track_id"]) == 0


def test_run_passes_settings_on(chain, events, tmp_path):
    config = tmp_path / "my.toml"
    config.write_text("[finding]\nchi2_max = 20\n")
    result = run(events, "--config", config, "--particle", "muon", "--threads", "2")
    assert result.exit_code == 0, result.output
    assert FakeChain.made.config == ChainConfig.from_toml(config).with_particle("muon")
    assert FakeChain.made.device.threads == 2


def test_run_writes_json(chain, events, tmp_path):
    path = tmp_path / "report" / "run.json"
    assert run(events, "--json", path, "--particle", "muon").exit_code == 0
    report = json.loads(path.read_text())
    assert [e["event"] for e in report["events"]] == [0, 1, 2, 3]
    event = report["events"][2]
    counts = ["n_cells", "n_measurements", "n_spacepoints", "n_seeds", "n_candidates", "n_tracks"]
    assert [event[name] for name in counts] == [3, 3, 0, 0, 2, 2]
    assert event["stage_milliseconds"] == dict.fromkeys(STAGES, 3.0)
    assert event["total_milliseconds"] > 0
    assert event["file"].endswith("event000000002-cells.csv")
    assert {"traccc_py", "python", "numpy", "numba"} <= report["versions"].keys()
    assert report["device"] == {"name": "cpu", "threads": 4}
    assert ChainConfig.from_dict(report["config"]) == ChainConfig().with_particle("muon")
    summary = report["summary"]
    assert summary["total_counts"]["n_cells"] == 10
    assert summary["median_stage_milliseconds"] == dict.fromkeys(STAGES, 2.5)
    totals = [e["total_milliseconds"] for e in report["events"]]
    assert summary["median_milliseconds"] == pytest.approx(np.median(totals))
    assert summary["events_per_second_after_first"] == pytest.approx(3000 / sum(totals[1:]))


def test_run_of_one_event_has_no_rate(chain, events, tmp_path):
    result = run(events, "--events", 1, "--json", tmp_path / "run.json")
    assert "events/s" not in result.stdout
    assert json.loads((tmp_path / "run.json").read_text())["summary"]["events_per_second_after_first"] is None


def test_run_tells_about_compilation_only_when_it_is_due(chain, events, cache):
    assert "compiling kernels, once" in run(events).stderr
    (cache_directory("cpu") / "kernel.nbi").touch()
    assert "compiling" not in run(events).stderr


def test_run_warns_of_merged_cells(chain, events):
    path = events / "event000000001-cells.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    result = run(path)
    assert result.exit_code == 0
    assert "1 of 3 cells repeat a channel" in " ".join(result.stderr.split())


def test_run_lists_at_most_twenty_events(chain, tmp_path):
    (tmp_path / "input").mkdir()
    for event in range(25):
        write_event(tmp_path / "input", event)
    lines = run(tmp_path / "input").stdout.splitlines()
    assert sum("..." in line for line in lines) == 2
    assert not any(line.strip("│ ").startswith("22 ") for line in lines)


# --- run: what it refuses


def assert_refused(result, *words):
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    text = " ".join(result.stderr.split())
    for word in words:
        assert word in text, (word, text)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (",1,1,0,1\n", ",1,1,0,nan\n", "line 3: column value is 'nan'; expected a finite number >= 0"),
        (",1,1,0,1\n", ",1,1,0,-1\n", "line 3: column value is '-1'"),
        (",1,1,0,1\n", ",1.5,1,0,1\n", "line 3: column channel0 is '1.5'; expected an integer"),
        (",1,1,0,1\n", ",1,1\n", "line 3: 4 values; expected 6 values"),
        (",1,1,0,1\n", ",1,99999999,0,1\n", "line 3: channel1 is 99999999, outside module"),
        ("channel0", "column0", "line 1: no column channel0"),
    ],
)
def test_run_stops_at_a_bad_event_before_its_output(chain, events, tmp_path, old, new, problem):
    spoil(events / "event000000002-cells.csv", old, new)
    result = run(events, "--output", tmp_path / "out", "--json", tmp_path / "run.json")
    assert_refused(result, "traccc-py: error: ", "event000000002-cells.csv, " + problem)
    assert output_events(tmp_path / "out") == [0, 1]
    assert len(list((tmp_path / "out").iterdir())) == 6
    assert not (tmp_path / "run.json").exists()


def test_run_names_file_and_line_of_an_unknown_module(chain, events):
    path = events / "event000000002-cells.csv"
    lines = path.read_text().splitlines()
    lines[2] = "12345" + lines[2][lines[2].index(",") :]
    path.write_text("\n".join(lines) + "\n")
    result = run(events)
    assert_refused(result, f"{path}, line 3: geometry_id is 12345, which is no sensitive module")


def test_run_refuses_an_empty_file(chain, events):
    (events / "event000000000-cells.csv").write_text("")
    assert_refused(run(events), "event000000000-cells.csv: is empty")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "no input"),
        (["none.csv"], "none.csv: there is no such file or directory"),
        (["none*.csv"], "none*.csv: matches no file"),
        ([".."], "has no file that ends in -cells.csv"),
        ([".", "--skip", "9"], "no event is left: 4 found, 9 skipped"),
        ([".", "--output", "."], "whose measurements file would be overwritten"),
        ([".", "--output", "event000000000-cells.csv"], "is a file; expected a folder"),
        ([".", "--detector", "atlas"], "'atlas' is unknown"),
        ([".", "--device", "tpu"], "expected auto, cpu, cuda or cuda:N"),
        ([".", "--device", "cuda:1"], "no GPU here"),
        ([".", "--threads", "0"], "--threads"),
        ([".", "--events", "0"], "--events"),
        ([".", "--particle", "kaon"], 'finding.particle is "kaon"'),
        ([".", "--config", "none.toml"], "none.toml: can't be read"),
        ([".", "--digitization", "none.json"], "none.json"),
    ],
)
def test_run_refuses_impossible_settings(chain, events, monkeypatch, arguments, problem):
    monkeypatch.chdir(events)
    before = sorted(path.name for path in events.parent.rglob("*"))
    assert_refused(run(*arguments), problem)
    assert sorted(path.name for path in events.parent.rglob("*")) == before


def test_run_refuses_two_files_of_one_event(chain, events, tmp_path):
    (tmp_path / "more").mkdir()
    path = write_event(tmp_path / "more", 1)
    assert_refused(run(events, path), "are both event 1")


def test_debug_shows_the_traceback(chain):
    result = run("none.csv", "--debug")
    assert result.exit_code == 1
    assert "no such file" in str(result.exception)


def test_a_full_disk_is_no_traceback(chain, events, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("traccc_py.data.track_files.write_files", fail)
    result = run(events, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "traccc-py: error: [Errno 28] No space left on device" in result.stderr


# --- other commands


def test_config_prints_what_it_reads(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(call("config").stdout)
    assert ChainConfig.from_toml(path) == ChainConfig()
    path.write_text("[finding]\nchi2_max = 20\n")
    assert "chi2_max = 20.0" in call("config", path).stdout
    path.write_text("[finding]\nchi2 = 20\n")
    assert_refused(call("config", path), f"{path}: finding.chi2 is no known key; did you mean chi2_max?")


def test_detector_prints_layers_and_draws(tmp_path):
    result = call("detector", "telescope", "--draw", tmp_path / "telescope.png")
    assert result.exit_code == 0, result.output
    assert "sensors in" in result.stdout
    assert (tmp_path / "telescope.png").read_bytes().startswith(b"\x89PNG")


def test_detector_groups_discs_unless_all_are_asked_for():
    short, long = call("detector", "odd"), call("detector", "odd", "--all")
    assert short.exit_code == long.exit_code == 0
    assert "18824 sensors in" in short.stdout
    assert len(short.stdout.splitlines()) < 45
    assert len(long.stdout.splitlines()) > 150


def test_detector_refuses_unknown_names_and_formats(tmp_path):
    assert_refused(call("detector", "atlas"), "'atlas' is unknown")
    assert_refused(call("detector", "telescope", "--draw", tmp_path / "a.doc"), "unknown format '.doc'")


def test_simulate_writes_cells_and_truth(tmp_path):
    arguments = ["simulate", "--detector", "telescope", "--events", 2, "--particles", 5, "--eta", 0, 0, "--seed", 3]
    arguments += ["--phi", 0, 0]
    result = call(*arguments, "--output", tmp_path / "a")
    assert result.exit_code == 0, result.output
    kinds = ("cells", "hits", "measurements", "particles_initial", "measurement-simhit-map")
    names = [f"event{event:09d}-{kind}.csv" for event in range(2) for kind in kinds]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted([*names, "manifest.json"])
    assert len(read_cells(tmp_path / "a" / "event000000000-cells.csv").geometry_id) > 0
    call(*arguments, "--output", tmp_path / "b", "--compress", "--threads", 1)
    first = read_cells(tmp_path / "a" / "event000000001-cells.csv")
    again = read_cells(tmp_path / "b" / "event000000001-cells.csv.gz")
    np.testing.assert_array_equal(first.activation, again.activation)


def test_simulate_refuses_impossible_guns(tmp_path):
    assert_refused(call("simulate", "--output", tmp_path / "a", "--particle", "graviton"), "graviton")
    assert_refused(call("simulate", "--output", tmp_path / "a", "--pt", 5, 1), "momentum")
    assert_refused(call("simulate"), "--output")
    assert not (tmp_path / "a").exists()


def test_calibrate_writes_a_table(tmp_path):
    path = tmp_path / "variances.json"
    result = call("calibrate", "telescope", "--particles", 300, "--output", path)
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["unit"] == "mm^2"


def test_compile_tells_where_kernels_are(chain, cache):
    result = call("compile", "--detector", "telescope", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert str(cache) in result.stdout


def test_info_lists_versions_and_devices():
    result = call("info")
    assert result.exit_code == 0, result.output
    for word in ("traccc_py", "numba", "threads", "odd, telescope, toy"):
        assert word in result.stdout


def test_no_command_shows_help():
    assert "simulate" in call().output
    assert call("--help").exit_code == 0


def test_help_loads_nothing_slow():
    code = (
        "import sys\n"
        "from traccc_py.cli import app\n"
        "try: app(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'numpy', 'pandas', 'numba', 'cupy', 'matplotlib', 'scipy', 'tritonclient'} & set(sys.modules)\n"
        "sys.exit(f'loaded {slow}' if slow else 0)\n"
    )
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert found.returncode == 0, found.stderr
    assert "--detector" in found.stdout


def test_performance_shows_and_writes_what_there_is(tmp_path):
    from rich.console import Console

    from traccc_py.cli.performance import selections, show_performance
    from traccc_py.performance.matching import Counts
    from traccc_py.performance.pulls import fit_gaussian
    from traccc_py.performance.summary import PerformanceSummary

    numbers = PerformanceSummary(build_detector("telescope"), selections("telescope", 0.5)).as_dict()
    numbers["tracks"] = {
        "reconstructable": Counts(n_particles=200, n_groups=199, n_found=198, n_duplicates=1).as_dict(),
        "all": Counts(n_particles=220, n_found=198).as_dict(),
    }
    numbers["seeds"] = {"reconstructable": Counts().as_dict(), "all": Counts().as_dict()}
    numbers["fit_outcomes"] = {"SUCCESS": 199}
    pulls = np.random.default_rng(1).normal(size=500)
    numbers["first_state_pulls"] = {"loc0": fit_gaussian(pulls).as_dict()}
    numbers["perigee_pulls"] = {"d0": fit_gaussian(np.zeros(0)).as_dict()}
    console = Console(record=True, width=120)
    show_performance(numbers, console, tmp_path / "performance.json", {"seed": 1})
    text = console.export_text()
    for word in ("99.00 %", "90.00 %", "0.51 %", "100.00 %", "loc0", "d0", "mean p-value nan"):
        assert word in text, word
    written = json.loads((tmp_path / "performance.json").read_text())
    assert written["tracks"]["reconstructable"]["efficiency"] == 0.99
    assert written["seeds"]["all"]["efficiency"] is None
    assert written["perigee_pulls"]["d0"]["sigma"] is None
    assert written["first_state_pulls"]["loc0"]["sigma"] == pytest.approx(1, abs=0.1)
