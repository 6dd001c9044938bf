"""Host cost of launches: the CPU executor against Numba's prange, and the packing of CUDA parameter blocks.

Run ``python benchmarks/bench_launch.py``. Medians in microseconds, compilation excluded. For prange with tbb, Numba
must find libtbb.so: ``LD_LIBRARY_PATH=.venv/lib NUMBA_THREADING_LAYER=tbb``.
"""

import collections
import os
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np

from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.kernel import Scratch, kernel, scalar
from traccc_py.device.workspace import Extent

N_ARRAYS = (5, 15, 25)
SIZES = (1, 100, 1000, 10_000, 200_000)
REPEATS = 200


@kernel(grain=64)
def _add(i, p):
    p.out_x[i] = p.a0[i] + p.a1[i]


@kernel(grain=16, scratch=(Scratch(8),))
def _uneven(i, p, s):
    for k in range(8):
        s[k] = p.out_x[i]
    for j in range(p.n_terms[i]):
        s[j & 7] += s[(j + 1) & 7] * s[(j + 3) & 7]
    p.out_x[i] = s[3]


Uneven = collections.namedtuple("Uneven", "n_terms out_x")
PAYLOADS = {n: collections.namedtuple(f"P{n}", [f"a{k}" for k in range(n - 1)] + ["out_x"]) for n in N_ARRAYS}
globals().update({made.__name__: made for made in PAYLOADS.values()})  # Numba's types refer to classes by name


def median_us(call, repeats=REPEATS):
    """Return the median time of a call [us]."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def prange_loop(body):
    """Return a parallel loop of Numba's own around a body."""

    @numba.njit(parallel=True, error_model="numpy")
    def loop(n, payload):
        for i in numba.prange(n):
            body(np.int32(i), payload)

    return loop


def bench_cpu(threads):
    """Print the cost of launches of a small body."""
    parallel = prange_loop(_add.body)
    print(f"{'arrays':>6s} {'n':>7s} {'1 thread':>9s} {f'{threads} threads':>9s} {'prange':>9s}")
    for n_arrays, made in PAYLOADS.items():
        for n in SIZES:
            payload = made(*(np.ones(n, np.float32) for _ in range(n_arrays)))
            row = []
            for n_threads in (1, threads):
                device = CpuDevice(n_threads)
                device.launch(_add, n, payload)
                row.append(median_us(lambda d=device, n=n, p=payload: d.launch(_add, n, p)))
            numba.set_num_threads(threads)
            parallel(n, payload)
            row.append(median_us(lambda n=n, p=payload: parallel(n, p)))
            print(f"{n_arrays:6d} {n:7d}" + "".join(f" {t:9.1f}" for t in row))


def bench_uneven(threads):
    """Print the time of a launch whose indices need very different times."""
    n_terms = (np.random.default_rng(1).pareto(1.2, 3000) * 2000).astype(np.int32)
    for n_threads in (1, threads):
        device = CpuDevice(n_threads)
        payload = Uneven(n_terms, np.full(len(n_terms), 0.1, scalar))
        device.launch(_uneven, len(n_terms), payload)
        time_us = median_us(lambda d=device, p=payload: d.launch(_uneven, len(n_terms), p), 30)
        print(f"uneven work, {n_threads} threads: {time_us / 1e3:.2f} ms")


def bench_cuda():
    """Print the host cost of CUDA launches with the driver's part left out."""
    from traccc_py.device.cuda.launch import Launcher

    driver = SimpleNamespace(load=lambda compiled: None, launch=lambda *arguments: None)

    def device_array(n):
        host = np.ones(n, np.float32)
        pointer = SimpleNamespace(ptr=host.ctypes.data)
        flags = SimpleNamespace(c_contiguous=True)
        return SimpleNamespace(
            dtype=host.dtype, shape=host.shape, strides=host.strides, size=n, flags=flags, data=pointer
        )

    for n_arrays, made in PAYLOADS.items():
        launcher = Launcher(driver, (9, 0), 132, device_array(1))
        extent = Extent("rows", device_array(64), 3, 1000)
        payload = made(*(device_array(1000) for _ in range(n_arrays)))
        again = median_us(lambda la=launcher, e=extent, p=payload: la.launch(_add, e, p, 0), 2000)

        def repacked(la=launcher, e=extent, p=payload):
            la.forget()
            la.launch(_add, e, p, 0)

        print(f"CUDA, {n_arrays} arrays: same payload {again:.1f} us, packed anew {median_us(repacked, 2000):.1f} us")


def bench_chain():
    """Print what a batch costs the host on CUDA, from its cells being copied to the last launch, driver left out."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import pytest

    from tests.devices.cuda_fakes import STREAMS, fake_cuda_device
    from tests.integration.small_events import telescope, telescope_cells
    from traccc_py.chain import TrackingChain
    from traccc_py.device.cuda import launch as cuda_launch
    from traccc_py.device.deferred import DeferredDevice

    detector = telescope()
    events = [telescope_cells(20, k, detector) for k in range(4)]
    model = TrackingChain(detector, device=DeferredDevice(1))
    model.run_batch(events)
    with pytest.MonkeyPatch.context() as patch:
        for graphs in (False, True):
            device = fake_cuda_device(patch, options={"uses_graphs": graphs})
            patch.setattr(cuda_launch, "compile_kernel", lambda kernel, kind, capability: kernel)
            n_launches = []
            device._launcher._driver = SimpleNamespace(
                load=lambda compiled: None, launch=lambda *arguments, n=n_launches: n.append(0)
            )
            chain = TrackingChain(detector, device=device)
            chain.initialize()
            for name, extent in model._schedule.workspace._extents.items():
                chain._schedule.workspace.reserve(chain._schedule.workspace.extent(name), extent.capacity)
            batches = chain._schedule.jobs((events, None) for _ in range(9))
            for _ in range(6):
                chain._schedule.start(next(batches))
            n_launches.clear()
            chain._schedule.start(next(batches))
            n = len(n_launches)
            jobs = iter([next(batches), next(batches)] * 50)
            time_us = median_us(lambda c=chain, j=jobs: c._schedule.start(next(j)), 100)
            print(f"CUDA, a batch of the chain: {n} launches, {time_us:.0f} us, graphs {graphs}")
    STREAMS.clear()


def main():
    """Run all parts."""
    threads = min(2, os.cpu_count() or 1)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    bench_cpu(threads)
    bench_uneven(threads)
    bench_cuda()
    bench_chain()


if __name__ == "__main__":
    main()
