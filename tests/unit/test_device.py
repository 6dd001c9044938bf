"""`get_device` and the CPU executor."""

import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import traccc_py.device as devices
from tests.unit.device_kernels import HEAVY_SUM, run_on, uneven_payload
from traccc_py.device import get_device
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.kernel import kernel
from traccc_py.errors import DeviceUnavailableError


def test_importing_the_package_loads_no_compiler():
    code = "import sys, traccc_py.device; print([m for m in ('numba', 'cupy', 'numba_cuda') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_cpu_is_made_with_the_threads_asked_for():
    device = get_device("cpu", threads=3)
    assert (device.name, device.threads) == ("cpu", 3)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        get_device(name)


def test_threads_below_one_are_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        get_device("cpu", threads=0)


def test_missing_packages_are_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda module: module != "cupy")
    with pytest.raises(DeviceUnavailableError, match=r"not found: cupy; .*traccc-py\[cuda13\].*traccc-py\[cuda12\]"):
        get_device("cuda:1")


def test_auto_is_the_cpu_where_cupy_is_missing(monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda module: module != "cupy")
    assert get_device("auto").name == "cpu"


def test_auto_says_why_a_gpu_is_not_used(monkeypatch, caplog):
    def unusable(index, options):
        raise DeviceUnavailableError("no driver")

    monkeypatch.setattr(devices, "_is_installed", lambda module: True)
    monkeypatch.setattr(devices, "_gpu", unusable)
    assert get_device("auto", threads=1).name == "cpu"
    assert "no driver" in caplog.text


def test_auto_takes_a_gpu_that_works(monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda module: True)
    monkeypatch.setattr(devices, "_gpu", lambda index, options: f"gpu {index}")
    assert get_device("auto") == "gpu 0"


def test_same_bits_for_any_number_of_threads():
    item = np.random.default_rng(1).integers(0, 7, 5000).astype(np.int32)
    one, three = (run_on(CpuDevice(threads), item) for threads in (1, 3))
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


def test_every_index_of_uneven_work_runs_once_on_many_threads():
    payload = uneven_payload()
    expected = uneven_payload()
    CpuDevice(threads=1).launch(HEAVY_SUM, len(expected.x), expected)
    device = CpuDevice(threads=5)
    for _ in range(3):
        payload.out_sum[:] = np.nan
        device.launch(HEAVY_SUM, len(payload.x), payload)
        np.testing.assert_array_equal(payload.out_sum, expected.out_sum)


def test_scratch_follows_the_precision_of_the_payload():
    single, double = uneven_payload(50), uneven_payload(50, np.float64)
    device = CpuDevice(threads=1)
    for payload in (single, double):
        device.launch(HEAVY_SUM, 50, payload)
    np.testing.assert_allclose(single.out_sum, double.out_sum, rtol=1e-4, atol=1e-4)
    assert np.any(double.out_sum != double.out_sum.astype(np.float32))


def test_a_second_device_has_the_code_of_the_first_and_costs_of_its_own():
    """It is loaded once in a process, for a precision when that is first asked for, be it for no rows."""
    payload, double = uneven_payload(50), uneven_payload(50, np.float64)
    one, other = CpuDevice(threads=1), CpuDevice(threads=1)
    one.launch(HEAVY_SUM, 50, payload)
    other.launch(HEAVY_SUM, 0, double)
    first, second = one.compiled(HEAVY_SUM, payload), other.compiled(HEAVY_SUM, double)
    assert first.function is second.function
    assert len(first.function.overloads) >= 2
    assert first is not second
    first.measured(1.0)
    assert second.cost < 0.1


def test_launches_from_several_python_threads():
    device = CpuDevice(threads=2)
    expected = uneven_payload()
    device.launch(HEAVY_SUM, len(expected.x), expected)

    def work(_):
        payload = uneven_payload()
        device.launch(HEAVY_SUM, len(payload.x), payload)
        return payload.out_sum

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(work, range(12)):
            np.testing.assert_array_equal(result, expected.out_sum)


def test_launch_after_a_fork():
    payload = uneven_payload()
    device = CpuDevice(threads=2)
    device.launch(HEAVY_SUM, len(payload.x), payload)
    again = uneven_payload()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: the parent has threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # a deadlock must not outlive the test
        device.launch(HEAVY_SUM, len(again.x), again)
        os._exit(0 if np.array_equal(again.out_sum, payload.out_sum) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_error_of_a_body_that_does_not_compile_reaches_the_caller():
    @kernel()
    def _broken(i, p):
        p.out_sum[i] = p.no_such_field[i]

    with pytest.raises(Exception, match="no_such_field"):
        CpuDevice(threads=2).launch(_broken, 3, uneven_payload(3))


def test_empty_range_launches_nothing():
    payload = uneven_payload(3)
    CpuDevice().launch(HEAVY_SUM, 0, payload)
    assert not payload.out_sum.any()
