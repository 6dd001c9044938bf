"""`studies/gpu.py` runs to its end, here on the CPU; and its comparison finds what differs."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.comparison import compare
from tests.integration.small_events import telescope, telescope_cells
from traccc_py.chain import TrackingChain
from traccc_py.device.cpu.executor import CpuDevice

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "studies.gpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def result_in(folder):
    (path,) = folder.glob("*-gpu.json")
    return json.loads(path.read_text())


def test_benchmark_checks_and_times_a_small_event(tmp_path):
    small = ["--muons", "5", "--batches", "1", "--batches", "2", "--repeats", "1"]
    done = run("--device", "cpu", *small, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    content = result_in(tmp_path)
    assert content["check"]["5 muons"]["is_good"]
    assert content["check"]["5 muons"]["same_bits_again"]
    assert [row["n_events"] for row in content["batches"]["5 muons"]] == [1, 2]
    assert {"finding_follow_seeds", "fitting_fit_track"} <= {row["kernel"] for row in content["kernels"]}
    assert content["left_out"] == []
    assert next(tmp_path.glob("*-gpu.png")).stat().st_size > 1000


def test_benchmark_names_what_there_was_no_time_for(tmp_path):
    done = run("--device", "cpu", "--muons", "3", "--batches", "1", "--minutes", "0", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert result_in(tmp_path)["left_out"] == ["the comparison of 3 muons", "3 muons, batch of 1"]


@pytest.fixture(scope="module")
def result():
    detector = telescope()
    return TrackingChain(detector, device=CpuDevice(1)).run(telescope_cells(20, 3, detector))


def test_comparison_finds_moved_parameters_and_other_measurements(result):
    assert compare(result, result).is_good
    tracks = dataclasses.replace(result.tracks, params=result.tracks.params.copy())
    tracks.params[3, 0] += 0.1 * tracks.covariance[3, 0] ** 0.5
    moved = compare(dataclasses.replace(result, tracks=tracks), result)
    assert not moved.is_good
    assert moved.largest_shift == pytest.approx(0.1, rel=1e-2)
    states = dataclasses.replace(result.track_states, measurement_index=result.track_states.measurement_index.copy())
    states.measurement_index[:50] += 1
    other = compare(dataclasses.replace(result, track_states=states), result)
    assert not other.is_good
    assert other.n_same < other.n_expected
