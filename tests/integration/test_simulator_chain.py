"""The whole chain where sizes stay on the device: CPU loops, Numba's CUDA simulator, `CudaDevice` without a GPU."""

import numpy as np
import pytest

from tests.devices.cuda_fakes import fake_cuda_device
from tests.integration.small_events import columns, telescope, telescope_cells
from tests.integration.test_simulator import simulate
from traccc_py.chain import TrackingChain
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.deferred import DeferredDevice
from traccc_py.geometry.field import solenoid_field_map

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

N_TRACKS = (4, 0, 30, 1)  # per event of a batch

SIMULATED = """
import numpy as np
from tests.integration.small_events import columns, telescope, telescope_cells
from traccc_py.chain import TrackingChain
from traccc_py.device.cpu.executor import CpuDevice
from tests.devices.simulator import SimulatorDevice

detector = telescope()
events = [telescope_cells(n, n, detector) for n in (20, 0, 1)]
devices = CpuDevice(1), SimulatorDevice(block_bodies=False)
expected, got = (TrackingChain(detector, device=device).run_batch(events) for device in devices)
for a, b in zip(expected, got, strict=True):
    b = columns(b)
    for name, column in columns(a).items():
        np.testing.assert_array_equal(column, b[name], err_msg=name)
    print(len(a.tracks))
"""


@pytest.fixture(scope="module")
def detector():
    return telescope()


@pytest.fixture(scope="module")
def events(detector):
    return [telescope_cells(n, n, detector) for n in N_TRACKS]


@pytest.fixture(scope="module")
def expected(detector, events):
    results = TrackingChain(detector, device=CpuDevice(1)).run_batch(events)
    assert [len(result.tracks) for result in results] == list(N_TRACKS)
    return [columns(result) for result in results]


def assert_same(results, expected):
    for result, columns_expected in zip(results, expected, strict=True):
        found = columns(result)
        for name, column in columns_expected.items():
            np.testing.assert_array_equal(found[name], column, err_msg=name)


def test_chain_with_sizes_on_the_device_gives_the_bits_of_the_cpu(detector, events, expected):
    chain = TrackingChain(detector, device=DeferredDevice(2))
    for _ in range(2):  # with growing buffers, then without
        assert_same(chain.run_batch(events), expected)


def test_chain_through_the_cuda_device_gives_the_bits_of_the_cpu(detector, events, expected, monkeypatch):
    chain = TrackingChain(detector, device=fake_cuda_device(monkeypatch))
    for _ in range(2):
        assert_same(chain.run_batch(events), expected)


@pytest.mark.long
def test_chain_in_a_field_map_through_the_cuda_device_gives_the_bits_of_the_cpu(detector, events, monkeypatch):
    in_map = detector.with_field_map(solenoid_field_map())
    results = TrackingChain(in_map, device=CpuDevice(1)).run_batch(events)
    assert [len(result.tracks) for result in results] == list(N_TRACKS)
    chain = TrackingChain(in_map, device=fake_cuda_device(monkeypatch))
    assert_same(chain.run_batch(events), [columns(result) for result in results])


def test_stages_on_cuda_never_wait_for_the_device(detector, events, monkeypatch):
    device = fake_cuda_device(monkeypatch)
    chain = TrackingChain(detector, device=device)
    chain.initialize()
    stages, waits = chain._schedule._stages, []
    run_stages = stages.run

    def counting(*arguments):
        before = device.stream.n_waits
        out = run_stages(*arguments)
        waits.append(device.stream.n_waits - before)
        return out

    monkeypatch.setattr(stages, "run", counting)
    chain.run_batch(events)
    assert len(waits) > 1  # the buffers grew
    assert set(waits) == {0}


@pytest.mark.slow
def test_chain_in_the_simulator_gives_the_bits_of_the_cpu():
    assert simulate(SIMULATED) == ["20", "0", "1"]
