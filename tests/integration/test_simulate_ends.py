"""`traccc-py simulate --workers`: Ctrl-C ends it at once and quietly, and nothing of it outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

SECONDS = 300.0  # it may have to be compiled


def wait_for(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def simulation(tmp_path):
    """Return a simulation of many events, of which some are made, and its processes."""
    folder = tmp_path / "events"
    words = ["--events", "3000", "--particles", "5", "--workers", "2", "--output", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "traccc_py", "simulate", *words],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: len(list(folder.glob("event*-cells.csv"))) >= 3)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(workers) >= 2
        yield process, workers, folder
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_workers_end_with_a_simulation_that_is_killed(simulation):
    process, workers, folder = simulation
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_alive, workers)), 10)
    n_files = len(list(folder.iterdir()))
    time.sleep(0.5)
    assert len(list(folder.iterdir())) == n_files


def test_ctrl_c_ends_a_simulation_quietly(simulation):
    process, workers, folder = simulation
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    begin = time.monotonic()
    _, text = process.communicate(timeout=60)
    assert time.monotonic() - begin < 40  # on a busy machine
    assert process.returncode == 130
    assert "Traceback" not in text
    assert not any(map(is_alive, workers))
    assert not list(folder.glob(".*.tmp"))
