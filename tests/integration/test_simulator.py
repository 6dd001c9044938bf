"""The generated CUDA loops in Numba's simulator, against the CPU."""

import os
import subprocess
import sys

import pytest

from tests.devices.simulator import SimulatorDevice
from traccc_py.errors import DeviceUnavailableError

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

SMALL = """
import numpy as np
from tests.unit.device_kernels import run_on
from traccc_py.device.cpu.executor import CpuDevice
from tests.devices.simulator import SimulatorDevice

item = np.random.default_rng(3).integers(0, 7, 45).astype(np.int32)
for got, expected in zip(run_on(SimulatorDevice(), item), run_on(CpuDevice(1), item), strict=True):
    np.testing.assert_array_equal(got, expected)
    print(len(got))
"""

PRIMITIVES = """
import numpy as np
from traccc_py.device import scan
from traccc_py.device.grouping import group_rows
from tests.devices.simulator import SimulatorDevice
from traccc_py.device.workspace import ScanColumn, Workspace

scan._CHUNK = 128  # several chunks without many rows
ws = Workspace(SimulatorDevice())
random = np.random.default_rng(7)
rows = ws.extent("rows")
ws.set_size(rows, 500)
columns = []
for name, largest in (("a", 3), ("b", 9), ("c", 2)):
    ws.reserve(ws.extent(name), 100_000)
    values = random.integers(0, largest, rows.capacity).astype(np.int32)
    columns.append(ScanColumn(values, np.zeros(rows.capacity + 1, np.int32), ws.extent(name)))
ws.scan_together(rows, *columns)
for values, offsets, total, _ in columns:
    np.testing.assert_array_equal(offsets[:501], np.concatenate([[0], np.cumsum(values[:500])]))
    assert ws.size(total) == values[:500].sum()

few = ws.extent("few")
ws.set_size(few, 60)
key = random.integers(-1, 20, 2 * few.capacity).astype(np.int32)
groups = group_rows(ws, "g", key, few, ws.fixed("keys", 20), ws.extent("grouped"), width=2)
order = np.argsort(key[:120], kind="stable")
n = ws.size(ws.extent("grouped"))
np.testing.assert_array_equal(groups.order[:n], order[120 - n :])
print(n)
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


def test_scans_and_groups_give_what_numpy_gives():
    (n,) = simulate(PRIMITIVES)
    assert 60 < int(n) < 120


def test_simulator_that_is_off_says_how_to_turn_it_on():
    with pytest.raises(DeviceUnavailableError, match="NUMBA_ENABLE_CUDASIM=1"):
        SimulatorDevice()
