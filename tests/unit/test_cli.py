"""The command line, with a stand-in for the chain."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.unit.test_data_track_files import make_result
from traccc_py.cli.app import app
from traccc_py.config import ChainConfig
from traccc_py.data.csv_events import read_cells, write_cells
from traccc_py.data.track_files import read_tracks
from traccc_py.edm import Cells
from traccc_py.errors import DeviceUnavailableError
from traccc_py.geometry import build_detector
from traccc_py.pipeline.prepare import prepare_event
from traccc_py.pipeline.prepare_cells import prepare_cells

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

    def run(self, event, source=None):
        prepare = prepare_cells if isinstance(event, Cells) else prepare_event
        prepared = prepare(event, self.detector, source)
        self.n_runs += 1
        n = len(prepared.module_index)
        result = make_result((3,) * min(n, 2), n)
        result.stage_milliseconds = dict.fromkeys(STAGES, float(self.n_runs))
        return result


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(folder))
    return folder


def install_fake_chain(monkeypatch):
    module = types.ModuleType("traccc_py.chain")
    module.TrackingChain = FakeChain
    monkeypatch.setitem(sys.modules, "traccc_py.chain", module)
    monkeypatch.setattr("traccc_py.cli.compilation.compile_missing_kernels", lambda chain, console: None)


@pytest.fixture
def chain(cache, monkeypatch):
    install_fake_chain(monkeypatch)


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
    return sorted({int(path.name[5:14]) for path in folder.glob("event*")})


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
    assert len(list((tmp_path / "out").glob("event*"))) == 12
    assert len(read_tracks(tmp_path / "out", 3)["track_id"]) == 2
    assert not list((tmp_path / "out").glob(".*"))


def test_run_writes_compressed_files(chain, events, tmp_path):
    run(events / "event000000002-cells.csv", "--output", tmp_path / "out", "--compress")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    files = [f"event000000002-{k}.csv.gz" for k in ("measurements", "track_states", "tracks")]
    assert names == [*files, "run-manifest.json"]


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


def test_run_warns_of_merged_cells(chain, events):
    path = events / "event000000001-cells.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    result = run(path)
    assert result.exit_code == 0
    assert "event000000001-cells.csv: 1 of 3 cells repeat a channel" in " ".join(result.stderr.split())


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
    ],
)
def test_run_stops_at_a_bad_event_before_its_output(chain, events, tmp_path, old, new, problem):
    spoil(events / "event000000002-cells.csv", old, new)
    result = run(events, "--output", tmp_path / "out", "--json", tmp_path / "run.json")
    assert_refused(result, "traccc-py: error: ", "event000000002-cells.csv, " + problem)
    assert output_events(tmp_path / "out") == [0, 1]
    assert len(list((tmp_path / "out").glob("event*"))) == 6
    assert not (tmp_path / "run.json").exists()


def test_run_names_file_and_line_of_an_unknown_module(chain, events):
    path = events / "event000000002-cells.csv"
    lines = path.read_text().splitlines()
    lines[2] = "12345" + lines[2][lines[2].index(",") :]
    path.write_text("\n".join(lines) + "\n")
    result = run(events)
    assert_refused(result, f"{path}, line 3: geometry_id is 12345, which is not a sensitive module")


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
        ([".", "--particle", "kaon"], '--particle is "kaon"; expected one of "pion", "muon", "electron"'),
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
    assert_refused(call("config", path), f"{path}: finding.chi2 is not a known key; did you mean chi2_max?")


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


def test_simulate_into_a_folder_with_events(tmp_path):
    arguments = ["simulate", "--detector", "telescope", "--eta", 0, 0, "--phi", 0, 0, "--output", tmp_path / "a"]
    assert call(*arguments).exit_code == 0
    again = call(*arguments)
    assert again.exit_code == 0
    assert "a: 1 event made with these settings, already there; unchanged" in again.stdout
    assert_refused(call(*arguments, "--particles", 3), "source.n_particles 10, now 3; use another folder, or overwrite")
    assert call(*arguments, "--particles", 3, "--overwrite").stdout.startswith("1 event: 3 particles")


def test_simulate_refuses_impossible_guns(tmp_path):
    for arguments, problem in (
        (["--particle", "graviton"], '--particle is "graviton"; expected one of "electron", "muon"'),
        (["--charge", "none"], '--charge is "none"; expected one of'),
        (["--pt", 5, 1], "--pt is [5.0, 1.0]; expected finite bounds, low <= high"),
        (["--eta", 0, "nan"], "--eta is [0.0, nan]"),
        (["--phi", 90, 0], "--phi is [90.0, 0.0]; expected finite bounds, low <= high"),
        (["--vertex-sigma", 0, 0, -1], "--vertex-sigma is [0.0, 0.0, -1.0]; expected 3 finite numbers >= 0"),
    ):
        assert_refused(call("simulate", "--output", tmp_path / "a", *arguments), problem)
    assert_refused(call("simulate"), "--output")
    assert not (tmp_path / "a").exists()


def test_one_is_singular(chain, tmp_path):
    folder = tmp_path / "one"
    made = call("simulate", "--detector", "telescope", "--particles", 1, "--eta", 0, 0, "--phi", 0, 0, "-o", folder)
    assert re.match("1 event: 1 particle, [0-9]+ hits, ", made.stdout), made.output
    assert "5 files of 1 event, all" in call("simulate", "--check", folder).stdout
    done = run(folder, "--threads", 1, "--output", tmp_path / "out")
    assert "cpu (1 thread) ready" in done.stderr
    assert "results of 1 event are in" in done.stderr


def test_numbers_and_their_nouns_are_written_by_one_function():
    nouns = "cell|event|error|file|hit|layer|particle|plot|sensor|thread|track"
    written_out = re.compile(rf"\{{[^{{}}]*\}} (?:{nouns})s\b(?!/)")
    for path in (Path(__file__).resolve().parents[2] / "traccc_py" / "cli").glob("*.py"):
        assert written_out.findall(path.read_text()) == [], path.name


def test_calibrate_writes_a_table(tmp_path):
    path = tmp_path / "variances.json"
    result = call("calibrate", "telescope", "--particles", 300, "--output", path)
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["units"] == {"variance": "mm^2", "sigmas": "mm"}


def test_compile_tells_where_kernels_are(chain, cache):
    result = call("compile", "--detector", "telescope", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert str(cache) in result.stdout


def test_info_lists_versions_and_devices():
    result = call("info")
    assert result.exit_code == 0, result.output
    for word in ("traccc_py", "numba", "thread", "odd, telescope, toy"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["run", "EVENT", "--detector", "telescope", "--json", "FILE/run.json"], "FILE/run.json"),
        (["run", "EVENT", "--detector", "telescope", "--json", "FOLDER"], "FOLDER"),
        (["run", "EVENT", "--detector", "telescope", "--output", "FILE/out"], "FILE/out"),
        (["detector", "telescope", "--draw", "FILE/a.png"], "FILE/a.png"),
        (["detector", "telescope", "--write", "FILE/a"], "FILE/a"),
        (["simulate", "--output", "FILE/a"], "FILE/a"),
        (["calibrate", "telescope", "--output", "FILE/a.json"], "FILE/a.json"),
    ],
)
def test_outputs_that_cannot_be_written_are_named_before_anything_is_done(chain, tmp_path, arguments, path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "in").mkdir()
    names = {"FILE": tmp_path / "file", "FOLDER": tmp_path / "folder", "EVENT": write_event(tmp_path / "in", 0)}
    FakeChain.made = None

    def resolved(text):
        for name, value in names.items():
            text = text.replace(name, str(value))
        return text

    result = call(*map(resolved, arguments))
    assert result.exit_code == 1, result.output
    assert f" {resolved(path)}: " in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert FakeChain.made is None


def test_version():
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("traccc-py ")


def test_no_command_shows_help():
    assert "simulate" in call().output
    assert call("--help").exit_code == 0


def test_help_loads_nothing_slow():
    code = (
        "import sys\n"
        "from traccc_py.cli.app import app\n"
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

    from tests.performance_events import event_of, links_of, particles_at, tracks_of
    from traccc_py.cli.performance import Evaluation
    from traccc_py.cli.performance_report import report_performance
    from traccc_py.performance.definitions import simulation_selections
    from traccc_py.performance.summary import PerformanceSummary
    from traccc_py.performance.tracks import EventTracks

    links = links_of([[0]] * 8 + [[1]] * 8 + [[2]] * 2)
    event = event_of(particles_at([1.0] * 3, [0.0, 1.0, 2.0], [0.0] * 3), [0] * 8 + [1] * 8 + [2] * 2)
    tracks = tracks_of([range(8), range(4), [8, 9, 0]])
    summary = PerformanceSummary(simulation_selections("toy", {}), 1.0)
    summary.add(event, EventTracks(links, tracks, tracks_of([[0, 1, 2], [8, 9, 10]])))
    results = {"mine": summary.as_dict()}
    console = Console(record=True, width=120, markup=False)
    path = tmp_path / "performance.json"
    log = Console(record=True, force_terminal=False)
    report_performance(results, console, log, Evaluation(json=path, per_bin=True), {"seed": 1})
    text = " ".join(console.export_text().split())
    for words in (
        "definition traccc", "efficiency 50.00 +28.87 -28.87 % 33.33", "duplicates / found particles 100.00 %",
        "fakes / tracks 33.33 %", "seed efficiency 100.00", "successful fits - -", ">= 0.5",
        "Duplicates per found versus pT [GeV], reconstructable",
    ):  # fmt: skip
        assert words in text, words
    written = json.loads(path.read_text())
    assert written["sample"] == {"seed": 1}
    numbers = written["results"]["mine"]
    assert numbers["tracks"]["reconstructable"]["efficiency"] == 0.5
    assert numbers["versus"]["all"]["eta"]["efficiency"]["value"][0] is None
    assert numbers["first_state_pulls"] == {}


@pytest.mark.parametrize("is_terminal", [True, False])
def test_performance_says_that_it_draws(tmp_path, monkeypatch, is_terminal):
    from rich.console import Console

    from traccc_py.cli import performance_report as performance
    from traccc_py.cli.performance import Evaluation

    monkeypatch.setattr(performance, "print_performance", lambda *_, **__: None)
    monkeypatch.setattr(performance, "draw_performance", lambda *_: [tmp_path / "a.png"])
    monkeypatch.setattr(performance, "performance_page", lambda *_: "<html>")
    console, log = Console(record=True), Console(record=True, force_terminal=is_terminal)
    options = Evaluation(plots=tmp_path, report=tmp_path / "page.html")
    performance.report_performance({}, console, log, options, {"n_events": 1, "seed": 1})
    told = log.export_text()
    assert told.index("drawing plots") < told.index("drawing the plots of the report")
    assert "1 plot written to" in console.export_text()
