"""Forms of results: the same numbers from CSV and Parquet, by one process or several, whole or after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from traccc_py.cli.app import app
from traccc_py.cli.run_record import RunRecord
from traccc_py.data.track_files import OUTPUTS as ALL_OUTPUTS
from traccc_py.data.track_files import SUBMISSION, read_track_states, read_tracks
from traccc_py.errors import InputDataError

OUTPUTS = tuple(name for name in ALL_OUTPUTS if name != SUBMISSION)  # that is of TrackML's hits

pq = pytest.importorskip("pyarrow.parquet")

N_EVENTS = 6


def call(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


def contents(folder):
    """Return the files of a folder by name, and their bytes; the manifest says where the input was."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def is_alive(process):
    """Return whether a process is there, and not only its entry in the table of processes."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    call("simulate", "--output", folder / "csv", "--events", N_EVENTS, "--particles", 30, "--pt", 1, 10)
    call("convert", folder / "csv", "--output", folder / "tables", "--events-per-file", 4)
    return folder


@pytest.fixture(scope="module")
def whole(sample):
    """Return the results of one process, in both forms."""
    made = {}
    for form in ("csv", "parquet"):
        made[form] = sample / f"whole-{form}"
        call(
            "run", sample / "csv", "--output", made[form], "--format", form, "--outputs", ",".join(OUTPUTS),
            "--events-per-file", 2, "--threads", 2,
        )  # fmt: skip
    return made


def test_both_forms_have_the_same_numbers(whole):
    rows = pq.read_table(whole["parquet"] / "tracks").to_pylist()
    states = pq.read_table(whole["parquet"] / "track_states").to_pylist()
    assert [row["event_id"] for row in rows] == list(range(N_EVENTS))
    for row, of_states in zip(rows, states, strict=True):
        table = read_tracks(whole["csv"], row["event_id"])
        np.testing.assert_array_equal(np.float32(row["z0"]), table["z0"])
        np.testing.assert_array_equal(np.float32(row["phi"]), table["perigee_phi"])
        np.testing.assert_array_equal(np.float32(row["cov_d0_z0"]), table["cov_d0_z0"])
        of_csv = read_track_states(whole["csv"], row["event_id"])
        np.testing.assert_array_equal(of_states["measurement_id"], of_csv["measurement_id"])
        np.testing.assert_array_equal(np.concatenate(row["measurement_ids"]), of_csv["measurement_id"])


def test_performance_of_both_forms_is_the_same(sample, whole, tmp_path):
    numbers = {}
    for form in ("csv", "parquet"):
        path = tmp_path / f"{form}.json"
        call("performance", "--truth", sample / "csv", "--tracks", whole[form], "--json", path)
        numbers[form] = json.loads(path.read_text())["results"]
    assert numbers["csv"] == numbers["parquet"]
    assert numbers["csv"]["traccc_py"]["tracks"]["selected"]["efficiency"] > 0.9


def test_root_has_the_same_numbers(sample, whole):
    uproot = pytest.importorskip("uproot")
    call("run", sample / "csv", "--output", sample / "root", "--format", "root", "--workers", 2, "--device", "cpu")
    path = sample / "root" / "tracksummary" / "tracksummary_000000-000100.root"
    tree = uproot.open(f"{path}:tracksummary").arrays(["event_nr", "eTHETA_fit", "nMeasurements"])
    assert tree.event_nr.tolist() == list(range(N_EVENTS))
    for k in range(N_EVENTS):
        table = read_tracks(whole["csv"], k)
        np.testing.assert_array_equal(tree.eTHETA_fit[k], table["perigee_theta"])
        np.testing.assert_array_equal(tree.nMeasurements[k], table["n_measurements"])


def test_tables_as_input_give_what_files_give(sample, whole):
    call("run", sample / "tables", "--output", sample / "from-tables", "--outputs", ",".join(OUTPUTS))
    for name, content in contents(sample / "from-tables").items():
        if name.startswith("event"):
            assert content == contents(whole["csv"])[name], name
    call("run", sample / "tables", "--input-kind", "measurements", "--output", sample / "from-measurements", "-n", 1)
    assert len(read_tracks(sample / "from-measurements", 0)["track_id"]) > 20


# What a run imports that takes long, and how often it compiles.
START = """
import sys
from numba.core.dispatcher import _FunctionCompiler
from traccc_py.cli.app import app

compile_core, calls = _FunctionCompiler._compile_core, []
_FunctionCompiler._compile_core = lambda self, *a: calls.append(self.py_func.__name__) or compile_core(self, *a)
app(sys.argv[1:], standalone_mode=False)
print(calls, sorted({"pandas", "awkward"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("source", "form"), [("csv", "csv"), ("tables", "parquet")])
def test_a_run_compiles_and_imports_nothing_that_it_does_not_need(sample, whole, source, form, tmp_path):
    words = ["run", sample / source, "--output", tmp_path / "out", "--format", form, "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", START, *map(str, words)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] []"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_several_processes_write_the_same_bytes(sample, whole, form, tmp_path):
    call(
        "run", sample / "csv", "--output", tmp_path / "out", "--format", form, "--outputs", ",".join(OUTPUTS),
        "--events-per-file", 2, "--workers", 2, "--device", "cpu",
    )  # fmt: skip
    assert contents(tmp_path / "out") == contents(whole[form])


def test_seeds_are_of_the_measurements(sample, whole):
    import pandas as pd

    seeds = pd.read_csv(whole["csv"] / "event000000000-seeds.csv")
    ids = pd.read_csv(whole["csv"] / "event000000000-measurements.csv").measurement_id
    assert len(seeds) > 20
    assert seeds[["bottom_measurement_id", "middle_measurement_id", "top_measurement_id"]].isin(set(ids)).all(axis=None)


@pytest.mark.parametrize(("form", "workers"), [("csv", 1), ("parquet", 1), ("parquet", 2)])
def test_a_killed_run_is_resumed_with_the_same_bytes(sample, whole, form, workers, tmp_path):
    out = tmp_path / "out"
    words = [
        "run", sample / "csv", "--output", out, "--format", form, "--outputs", ",".join(OUTPUTS),
        "--events-per-file", 2, "--workers", workers, "--threads", 2 if workers == 1 else 1, "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "traccc_py", *map(str, words)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    journal = out / ".run-events.jsonl"
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(children) == (workers if workers > 1 else 0)
    while any(map(is_alive, children)):
        assert time.monotonic() < deadline, "workers live on after their parent"
        time.sleep(0.1)
    n_done = journal.read_text().count("\n")
    assert json.loads((out / "run-manifest.json").read_text())["is_complete"] is False
    text = call(*words, "--resume")
    assert f"of {N_EVENTS} are complete" in text
    assert contents(out) == contents(whole[form])
    assert n_done < N_EVENTS
    again = call(*words, "--resume")
    assert f"{N_EVENTS} events of {N_EVENTS} are complete" in again


@pytest.mark.parametrize("writer", ["ended", "not yet reaped", "another now", "at work"])
def test_files_of_killed_processes_are_removed(tmp_path, writer):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    rest = tmp_path / "tracks" / f".tracks_000000-000100.parquet.{process.pid}-0123abcd.tmp"
    rest.parent.mkdir()
    rest.write_text("cut")
    try:
        if writer == "another now":  # its number had been that of the process that wrote the file
            os.utime(rest, times=(time.time() - 60,) * 2)
        elif writer != "at work":
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its entry stays
            if writer == "ended":
                process.wait()
        RunRecord(tmp_path, {"versions": {}}).begin(resume=True)
        assert rest.exists() == (writer == "at work")
    finally:
        process.kill()
        process.communicate()


def test_other_settings_are_not_mixed_in(sample, tmp_path):
    call("run", sample / "csv", "-n", 1, "--output", tmp_path / "out")
    text = call("run", sample / "csv", "-n", 2, "--output", tmp_path / "out", "--set", "finding.chi2_max=20", code=2)
    assert "has results that were made in another way: config.finding.chi2_max was" in text
    text = call("run", sample / "csv", "--output", tmp_path / "out", "--bfield-value", "2.1", code=2)
    assert "detector.fingerprint was" in text
    call("run", sample / "csv", "--skip", 1, "-n", 1, "--output", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run-manifest.json").read_text())
    assert [event["event"] for event in record["events"]] == [0, 1]


def test_a_damaged_manifest_is_refused(tmp_path):
    for content in ("{", "[]", '{"format": 99}'):
        (tmp_path / "run-manifest.json").write_text(content)
        with pytest.raises(InputDataError, match="use another folder, or remove it"):
            RunRecord(tmp_path, {"versions": {}}).begin(resume=True)


def test_an_error_in_a_worker_ends_the_run(sample, tmp_path):
    import shutil

    shutil.copytree(sample / "csv", tmp_path / "bad")
    path = tmp_path / "bad" / "event000000003-cells.csv"
    path.write_text(path.read_text().replace("\n", "\n1", 2))
    text = call("run", tmp_path / "bad", "--output", tmp_path / "out", "--workers", 2, "--device", "cpu", code=2)
    assert "event000000003-cells.csv, line" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outputs", "tracks,hits"], "--outputs has 'hits'; expected some of tracks, track_states"),
        (["--format", "root", "--outputs", "seeds"], "expected some of tracks, track_states, which --format root has"),
        (["--resume"], "--resume is true; expected an --output"),
        (["--format", "parquet", "--compress"], "--compress is true; expected --format csv"),
    ],
)
def test_options_that_mean_nothing_are_refused(arguments, message):
    assert message in call("run", "--sample", *arguments, code=2)


def test_performance_takes_the_detector_of_the_tracks(sample, tmp_path):
    call(
        "run",
        sample / "csv",
        "--bfield-value",
        2.2,
        "--digitization",
        "odd-current",
        "-n",
        2,
        "--output",
        tmp_path / "out",
    )
    words = [
        "performance",
        "--truth",
        sample / "csv",
        "--tracks",
        tmp_path / "out",
        "-n",
        2,
        "--json",
        tmp_path / "n.json",
    ]
    assert "not this one" not in call(*words)
    facts = json.loads((tmp_path / "n.json").read_text())["sample"]["detector_facts"]
    assert (facts["digitization"], facts["field"]) == ("odd-current", "2.2 T")
    assert "2.2 T, which is not this one (odd, odd-2024, 2 T)" in call(*words, "--detector", "odd")


def test_performance_has_single_settings(tmp_path):
    words = ["performance", "--events", 1, "--particles", 5, "--json", tmp_path / "n.json"]
    call(*words, "--set", "finding.chi2_max=20")
    assert json.loads((tmp_path / "n.json").read_text())["sample"]["config"]["finding"]["chi2_max"] == 20
    text = call("performance", "--truth", "a", "--tracks", "b", "--set", "finding.chi2_max=20", code=2)
    assert "--set is for" in text


def test_a_reader_that_leaves_keeps_no_file_from_being_written(tmp_path):
    words = ["performance", "--events", "1", "--particles", "5", "--per-bin", "--json", str(tmp_path / "n.json")]
    first = f"{sys.executable} -m traccc_py {' '.join(words)} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", first], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Broken" not in done.stderr
    assert json.loads((tmp_path / "n.json").read_text())["results"]


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_says_what_is_complete(sample, tmp_path, workers):
    words = [
        "run",
        str(sample / "csv"),
        "--output",
        str(tmp_path / "out"),
        "--workers",
        str(workers),
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "traccc_py", *words],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("event*-tracks.csv")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, text = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it ended before the signal came")
    assert process.returncode == 130
    assert f"of {N_EVENTS} events complete in" in text
    assert "--resume goes on" in text
    assert "Traceback" not in text
    assert not list((tmp_path / "out").rglob(".*.tmp"))


def test_a_worker_that_is_killed_ends_the_run(sample, tmp_path, monkeypatch):
    from traccc_py.cli import run_events

    monkeypatch.setattr(run_events.EventRunner, "run", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    text = call("run", sample / "csv", "--output", tmp_path / "out", "--workers", 2, "--device", "cpu", code=2)
    assert "was killed: is there too little memory" in text


def shard(sample, out, form, name, *more, code=0):
    return call(
        "run", sample / "csv", "--output", out, "--format", form, "--outputs", ",".join(OUTPUTS),
        "--events-per-file", 2, "--threads", 1, "--device", "cpu", "--shard", name, *more, code=code,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_shards_in_any_order_write_the_same_bytes(sample, whole, form, tmp_path):
    """Three shards of three files of two events; four of them have none for the last."""
    n = {"csv": 4, "parquet": 4}[form]
    out = tmp_path / "out"
    for index in (2, 0, 3):
        shard(sample, out, form, f"{index}/{n}")
        assert json.loads((out / "run-manifest.json").read_text())["is_complete"] is False
        assert (out / f".run-events-{index}-of-{n}.done.jsonl").exists()
    shard(sample, out, form, f"1/{n}")
    assert contents(out) == contents(whole[form])
    text = shard(sample, out, form, f"1/{n}", "--resume")  # again: there is nothing to do, and nothing changes
    assert "are complete, and left out" in text
    assert contents(out) == contents(whole[form])


def test_a_shard_that_is_run_again_replaces_its_results(sample, whole, tmp_path):
    out = tmp_path / "out"
    for name in ("0/2", "1/2"):
        shard(sample, out, "csv", name)
    (out / "event000000000-tracks.csv").unlink()
    shard(sample, out, "csv", "0/2")
    assert json.loads((out / "run-manifest.json").read_text())["is_complete"] is False  # the other may follow
    shard(sample, out, "csv", "1/2", "--resume")
    assert contents(out) == contents(whole["csv"])


def test_a_killed_shard_is_resumed_beside_a_running_one(sample, whole, tmp_path):
    out = tmp_path / "out"
    shard(sample, out, "csv", "1/2")
    journal = out / ".run-events-0-of-2.jsonl"
    lines = (out / ".run-events-1-of-2.done.jsonl").read_text().splitlines(keepends=True)
    # What a kill leaves: complete events in the journal, a line that is cut, a file that was being written here or
    # elsewhere.
    (out / "event000000000-tracks.csv").write_bytes((whole["csv"] / "event000000000-tracks.csv").read_bytes())
    first = json.loads((whole["csv"] / "run-manifest.json").read_text())["events"][0]
    journal.write_text(json.dumps(first) + "\n" + lines[0][:20])
    rest = out / ".event000000002-tracks.csv.4194305-0123abcd.tmp"  # of a process that can't be here
    rest.write_text("cut")
    for kind in OUTPUTS:
        (out / f"event000000000-{kind}.csv").write_bytes((whole["csv"] / f"event000000000-{kind}.csv").read_bytes())
    text = shard(sample, out, "csv", "0/2", "--resume")
    assert "1 event of 3 are complete" in text
    assert contents(out) == contents(whole["csv"])


@pytest.mark.parametrize("name", ["2/2", "x", "1", "-1/2", "1/0"])
def test_impossible_shards(sample, name, tmp_path):
    text = shard(sample, tmp_path / "out", "csv", name, code=2)
    assert f"--shard is '{name}'; expected I/N with I from 0 to N - 1" in text


def test_shards_need_a_folder_in_common(sample):
    assert "expected an --output, which all shards have" in call("run", sample / "csv", "--shard", "0/2", code=2)
