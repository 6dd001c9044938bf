"""Pools of processes: nothing of them outlives who started them, and Ctrl-C ends them at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from traccc_py.workers import worker_pool

# Each process says that it works, then works for longer than a test waits, and says whether it could tidy up.
PROGRAM = """
import sys, time
from pathlib import Path
from traccc_py.workers import worker_pool

def work(folder, k):
    try:
        Path(folder, f"begun{k}").touch()
        time.sleep(120)
    finally:
        Path(folder, f"tidy{k}").touch()

if __name__ == "__main__":
    with worker_pool(2, sys.argv[2]) as pool:
        for done in [pool.submit(work, sys.argv[1], k) for k in range(6)]:
            done.result()
"""


@pytest.fixture(params=["spawn", "fork"])
def program(request, tmp_path):
    """Return a program whose two processes are at work, and their ids."""
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path, request.param],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(list(tmp_path.glob("begun*"))) == 2)
    yield process, workers_of(process)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = [pid for pid in children if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(found) == 2
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_processes_end_with_one_that_is_killed(program):
    process, workers = program
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_alive, workers)), 10)


def test_processes_end_with_one_that_is_killed_though_they_are_stopped(program):
    process, workers = program
    for pid in workers:
        os.kill(int(pid), signal.SIGSTOP)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(is_alive, workers)), 10)


def test_ctrl_c_ends_all_at_once_and_they_tidy_up(program, tmp_path):
    process, workers = program
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, text = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert text.count("Traceback") == 1  # that of this program
    assert not any(map(is_alive, workers))
    assert {path.name for path in tmp_path.glob("begun*")} == {"begun0", "begun1"}  # none began another call
    assert {path.name for path in tmp_path.glob("tidy*")} == {"tidy0", "tidy1"}


def test_a_call_that_fails_lets_others_finish():
    calls = []

    def fail_beside_another():
        with worker_pool(2, "fork") as pool:
            calls.extend([pool.submit(time.sleep, 0.5), pool.submit(divmod, 1, 0)])
            calls[1].result()

    with pytest.raises(ZeroDivisionError):
        fail_beside_another()
    assert calls[0].done()
    assert calls[0].result() is None
