"""What the processes of the service tell the system."""

import ctypes
import os
import subprocess
import sys

import pytest

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
