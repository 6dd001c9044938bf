"""The generated CUDA loops in Numba's simulator, against the CPU."""

import os
import subprocess
import sys

import pytest

from traccc_py.device.simulator import SimulatorDevice
from traccc_py.errors import DeviceUnavailableError

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

SMALL = """
import numpy as np
from tests.unit.device_kernels import run_on
from traccc_py.device.cpu import CpuDevice
from traccc_py.device.simulator import SimulatorDevice

item = np.random.default_rng(3).integers(0, 7, 45).astype(np.int32)
for got, expected in zip(run_on(SimulatorDevice(), item), run_on(CpuDevice(1), item), strict=True):
    np.testing.assert_array_equal(got, expected)
    print(len(got))
"""


def simulate(code):
    """Run code in a process with the simulator on; return what it prints."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_small_kernels_give_the_results_of_the_cpu():
    n_values, n_sorted = simulate(SMALL)
    assert n_values == n_sorted
    assert int(n_values) > 45


def test_simulator_that_is_off_says_how_to_turn_it_on():
    with pytest.raises(DeviceUnavailableError, match="NUMBA_ENABLE_CUDASIM=1"):
        SimulatorDevice()
