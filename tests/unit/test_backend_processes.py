"""What the processes of the service tell the system."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import pytest

from traccc_py.backend.processes import living_members, wait_for_an_end

PAGES_OF_ARRAYS = """
import resource, sys
import numpy as np
from traccc_py.backend.processes import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def pages_touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(400_000, np.float32) for _ in range(20)]  # 1.6 MB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages_touched()
print(min(pages_touched() for _ in range(5)))
"""
LEAST_PAGES = 20 * 1_600_000 // (2 * 1_048_576)  # if the system's pages are large ones


def pages_of_arrays(kind):
    command = [sys.executable, "-c", PAGES_OF_ARRAYS, kind]
    fixed = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "131072"}  # else glibc learns, up to some MB
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=fixed)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_kept():
    assert pages_of_arrays("kept") == 0
    assert pages_of_arrays("given back") >= LEAST_PAGES


def test_the_end_of_a_process_is_seen_at_once():
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as one, subprocess.Popen(["sleep", "60"]) as other:
        begin = time.monotonic()
        wait_for_an_end({one.pid, other.pid}, 0.2)
        assert time.monotonic() - begin > 0.15
        assert one.pid in living_members(one.pid)
        threading.Timer(0.3, one.kill).start()
        begin = time.monotonic()
        wait_for_an_end({one.pid, other.pid}, 30)
        assert 0.2 < time.monotonic() - begin < 5
        assert living_members(one.pid) == set()  # though it is not waited for yet
        other.kill()
    begin = time.monotonic()
    wait_for_an_end({one.pid}, 30)
    assert time.monotonic() - begin < 5
