"""Host cost of launches: the CPU executor against Numba's prange, and the packing of CUDA parameter blocks.

Usage: python -m studies.launch_cost [--threads 2] [--repeats 200]

Medians in microseconds, compilation excluded. For prange with tbb, Numba must find libtbb.so:
``LD_LIBRARY_PATH=.venv/lib NUMBA_THREADING_LAYER=tbb``.
"""

from __future__ import annotations

import collections
import itertools
import statistics
import time
from types import SimpleNamespace

import numba
import numpy as np
import typer

from studies.common import OUTPUT, Output, Repeats, Threads, write_results
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.kernel import Scratch, kernel, scalar
from traccc_py.device.workspace import Extent

N_ARRAYS = (5, 15, 25)
SIZES = (1, 100, 1000, 10_000, 200_000)


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


def median_us(call, repeats):
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


def bench_cpu(threads, repeats):
    """Return the cost of launches of a small body [us]."""
    rows = []
    parallel = prange_loop(_add.body)
    print(f"{'arrays':>6s} {'n':>7s} {'1 thread':>9s} {f'{threads} threads':>9s} {'prange':>9s}")
    for n_arrays, made in PAYLOADS.items():
        for n in SIZES:
            payload = made(*(np.ones(n, np.float32) for _ in range(n_arrays)))
            row = []
            for n_threads in (1, threads):
                device = CpuDevice(n_threads)
                device.launch(_add, n, payload)
                row.append(median_us(lambda d=device, n=n, p=payload: d.launch(_add, n, p), repeats))
            numba.set_num_threads(threads)
            parallel(n, payload)
            row.append(median_us(lambda n=n, p=payload: parallel(n, p), repeats))
            print(f"{n_arrays:6d} {n:7d}" + "".join(f" {t:9.1f}" for t in row))
            rows.append(dict(zip(("arrays", "n", "one_thread", "threads", "prange"), (n_arrays, n, *row), strict=True)))
    return rows


def bench_uneven(threads, repeats):
    """Return the time of a launch whose indices need very different times, by number of threads [us]."""
    found = {}
    n_terms = (np.random.default_rng(1).pareto(1.2, 3000) * 2000).astype(np.int32)
    for n_threads in (1, threads):
        device = CpuDevice(n_threads)
        payload = Uneven(n_terms, np.full(len(n_terms), 0.1, scalar))
        device.launch(_uneven, len(n_terms), payload)
        found[n_threads] = median_us(lambda d=device, p=payload: d.launch(_uneven, len(n_terms), p), repeats)
        print(f"uneven work, {n_threads} threads: {found[n_threads] / 1e3:.2f} ms")
    return found


def bench_cuda(repeats):
    """Return the host cost of CUDA launches with the driver's part left out [us], by number of arrays."""
    from traccc_py.device.cuda.launch import Launcher

    found = {}
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
        again = median_us(lambda la=launcher, e=extent, p=payload: la.launch(_add, e, p, 0), repeats)

        def repacked(la=launcher, e=extent, p=payload):
            la.forget()
            la.launch(_add, e, p, 0)

        found[n_arrays] = {"same_payload": again, "packed_anew": median_us(repacked, repeats)}
        print(
            f"CUDA, {n_arrays} arrays: same payload {again:.1f} us, packed anew {found[n_arrays]['packed_anew']:.1f} us"
        )
    return found


def bench_chain(repeats=100):
    """Return what a batch costs the host on CUDA, from its cells being copied to the last launch, driver left out."""
    import pytest

    from tests.devices.cuda_fakes import STREAMS, fake_cuda_device
    from tests.integration.small_events import telescope, telescope_cells
    from traccc_py.chain import TrackingChain
    from traccc_py.device.cuda import launch as cuda_launch
    from traccc_py.device.deferred import DeferredDevice
    from traccc_py.pipeline.stages import Stages

    detector = telescope()
    events = [telescope_cells(20, k, detector) for k in range(4)]
    model = TrackingChain(detector, device=DeferredDevice(1))
    model.run_batch(events)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for graphs in (False, True):
            device = fake_cuda_device(patch, options={"uses_graphs": graphs})
            patch.setattr(cuda_launch, "compile_kernel", lambda kernel, kind, capability: kernel)
            n_launches = []
            device._launcher._driver = SimpleNamespace(
                load=lambda compiled: None, launch=lambda *arguments, n=n_launches: n.append(0)
            )
            chain = TrackingChain(detector, device=device)
            # Not `initialize`: launches do nothing here, so there would be no results to cut into events.
            chain._schedule._stages = Stages(device, detector, chain.config)
            for name, extent in model._schedule.workspace._store.extents.items():
                chain._schedule.workspace.reserve(chain._schedule.workspace.extent(name), extent.capacity)
            batches = chain._schedule.jobs((events, None) for _ in range(9))
            for _ in range(6):
                chain._schedule.start(next(batches))
            n_launches.clear()
            chain._schedule.start(next(batches))
            n = len(n_launches)
            jobs = itertools.cycle([next(batches), next(batches)])
            time_us = median_us(lambda c=chain, j=jobs: c._schedule.start(next(j)), repeats)
            print(f"CUDA, a batch of the chain: {n} launches, {time_us:.0f} us, graphs {graphs}")
            found.append({"graphs": graphs, "launches": n, "microseconds": time_us})
    STREAMS.clear()
    return found


def main(threads: Threads = 2, repeats: Repeats = 200, output: Output = OUTPUT) -> None:
    """Measure all parts."""
    content = {
        "launches": bench_cpu(threads, repeats),
        "uneven": bench_uneven(threads, repeats),
        "cuda": bench_cuda(repeats),
        "batch": bench_chain(repeats),
    }
    write_results(output, "launch_cost", content)


if __name__ == "__main__":
    typer.run(main)
