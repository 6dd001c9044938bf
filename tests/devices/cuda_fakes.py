"""Stand-ins for CuPy and the CUDA driver: device memory is host memory, launches run the CPU loop.

A launch is decoded from nothing but the parameter addresses and the parameter list of the PTX, as a GPU would do.
"""

import contextlib
import ctypes
import re
import sys
import types
from typing import Any

import numpy as np
from numba.core.types import Array
from numba.core.types.containers import BaseTuple
from numba.np.numpy_support import as_dtype

from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.cuda import compile as cuda_compile
from traccc_py.device.cuda import launch as cuda_launch
from traccc_py.device.cuda.executor import CudaDevice
from traccc_py.device.kernel import registered_kernels

WIDTHS = {".u8": 1, ".u16": 2, ".u32": 4, ".f32": 4, ".u64": 8, ".f64": 8}


def parameter_widths(ptx: str) -> list[int]:
    """Return the widths of the parameters of a PTX entry, in order [bytes]."""
    head = re.search(r"\.entry\s+\w+\((.*?)\)", ptx, re.DOTALL).group(1)
    return [WIDTHS[kind] for kind in re.findall(r"\.param\s+(\.\w+)", head)]


class FakeArray:
    """What `CudaDevice` uses of `cupy.ndarray`; refuses structured types, as CuPy does."""

    def __init__(self, host: np.ndarray) -> None:
        assert host.dtype.fields is None
        self.host = host
        for name in ("dtype", "shape", "strides", "size", "ndim", "nbytes"):
            setattr(self, name, getattr(host, name))
        self.flags = types.SimpleNamespace(c_contiguous=host.flags.c_contiguous)
        self.data = types.SimpleNamespace(ptr=host.ctypes.data, memset_async=self._memset)

    def _memset(self, value, n_bytes, stream):
        assert self.flags.c_contiguous
        assert n_bytes == self.nbytes
        stream.clears += 1
        stream.do(lambda: ctypes.memset(self.host.ctypes.data, value, n_bytes))

    def __len__(self):
        return len(self.host)

    def __getitem__(self, rows):
        return FakeArray(self.host[rows])

    def __setitem__(self, rows, values):
        self.host[rows] = values.host

    def reshape(self, *shape):
        assert self.flags.c_contiguous  # else CuPy copies
        return FakeArray(self.host.reshape(*shape))

    def fill(self, value):
        self.host.fill(value)

    def set(self, host, stream):
        assert (host.dtype, host.shape) == (self.dtype, self.shape)
        assert stream.entered
        assert stream.graph is None
        stream.copies += 1
        self.host[...] = host

    def get(self, stream, out, blocking):
        assert (out.dtype, out.shape) == (self.dtype, self.shape)
        assert stream.entered
        assert stream.graph is None
        assert not blocking
        out[...] = self.host


class Graph:
    """What was asked of a stream while it was captured; the stand-in for `cupy.cuda.Graph`."""

    def __init__(self):
        self.nodes = []
        self.joined = set()
        self.n_launches = 0

    def launch(self, stream):
        assert stream.graph is None
        self.n_launches += 1
        for node in self.nodes:
            node()


class Stream(contextlib.AbstractContextManager):
    """Does what it is asked for at once, in the order of asking; or later, where a test says so."""

    def __init__(self, non_blocking):
        assert non_blocking
        self.ptr = 0x5000 + 16 * len(STREAMS)
        STREAMS[self.ptr] = self
        self.entered = 0
        self.n_waits = 0
        self.clears = 0
        self.copies = 0
        self.graph = None
        self.waiting_for = []

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *error):
        self.entered -= 1

    def do(self, action):
        """Do something, or keep it for a graph."""
        if self.graph is None:
            action()
        else:
            self.graph.nodes.append(action)

    def synchronize(self):
        assert self.graph is None  # an error on CUDA
        self.n_waits += 1

    def wait_event(self, event):
        self.waiting_for.append(event.stream)
        if event.graph is not None and self.graph is None:  # as CUDA has it, what comes next is captured, too
            self.graph = event.graph
        elif event.stream.graph is not None and event.stream is not self:
            self.graph.joined.add(event.stream)

    def begin_capture(self):
        assert self.graph is None
        assert self.entered
        self.graph = Graph()

    def end_capture(self):
        graph, self.graph = self.graph, None
        for stream in STREAMS.values():
            if stream.graph is graph:
                assert stream in graph.joined  # an error on CUDA
                stream.graph = None
        return graph


STREAMS: dict[int, Stream] = {}


class Event:
    """The stand-in for `cupy.cuda.Event`."""

    def __init__(self, disable_timing):
        assert disable_timing
        self.stream = self.graph = None

    def record(self, stream):
        self.stream, self.graph = stream, stream.graph


class MemoryPool:
    """The stand-in for `cupy.cuda.MemoryPool`."""

    def __init__(self):
        self.limit = None

    def set_limit(self, size):
        self.limit = size

    def malloc(self, n_bytes):
        raise NotImplementedError


def fake_cupy(n_gpus=1, memory=1 << 30):
    """Return a module that looks like CuPy on a machine with `n_gpus` GPUs of compute capability 9.0."""
    current = [0]

    class CUDARuntimeError(RuntimeError):
        pass

    class OutOfMemoryError(MemoryError):
        pass

    class Device(contextlib.AbstractContextManager):
        compute_capability = "90"
        attributes = types.MappingProxyType({"MultiProcessorCount": 4})

        def __init__(self, index):
            self.index = index

        def __exit__(self, *error):
            pass

    pools = []

    @contextlib.contextmanager
    def using_allocator(malloc):
        pools.append(malloc.__self__)
        yield
        pools.pop()

    def allocate(make):
        def allocated(shape, dtype):
            assert not any(stream.graph for stream in STREAMS.values())  # an error while a graph is captured
            limit = pools[-1].limit
            if np.prod(shape) * np.dtype(dtype).itemsize > (memory if limit is None else limit):
                raise OutOfMemoryError("out of memory")
            return FakeArray(make(shape, dtype))

        return allocated

    def device_count():
        if n_gpus < 0:
            raise CUDARuntimeError("cudaErrorNoDevice")
        return n_gpus

    runtime = types.SimpleNamespace(
        getDeviceCount=device_count,
        getDevice=lambda: current[0],
        setDevice=lambda index: current.__setitem__(0, index),
        CUDARuntimeError=CUDARuntimeError,
    )
    cuda = types.SimpleNamespace(
        Device=Device,
        Stream=Stream,
        Event=Event,
        MemoryPool=MemoryPool,
        using_allocator=using_allocator,
        runtime=runtime,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        alloc_pinned_memory=lambda n_bytes: bytearray(n_bytes + 512),
    )
    return types.SimpleNamespace(
        __version__="14.2.0",
        cuda=cuda,
        empty=allocate(np.empty),
        zeros=allocate(np.zeros),
    )


class FakeDriver:
    """Loads cubins without a GPU and "runs" them by running the CPU loop over the memory they point to.

    Parameters
    ----------
    kinds : dict
        Payload type of each compiled kernel, by path of its cubin; to be filled by the test.
    """

    def __init__(self, kinds: dict[str, BaseTuple]) -> None:
        self.kinds = kinds
        self.launches: list[tuple[str, int, int]] = []
        self._cpu = CpuDevice(threads=1)

    def load(self, compiled: Any) -> Any:
        assert compiled.cubin[:4] == b"\x7fELF"
        return compiled.name, parameter_widths(compiled.ptx), self.kinds[compiled.path]

    def launch(self, function: Any, blocks: int, threads: int, stream: int, parameters: int) -> None:
        name, widths, kind = function
        assert blocks >= 1
        assert 1 <= threads <= 1024
        addresses = np.frombuffer((ctypes.c_uint64 * len(widths)).from_address(parameters), np.uint64)
        raw = iter([ctypes.string_at(int(a), width) for a, width in zip(addresses, widths, strict=True)])
        payload = _rebuilt(kind, raw)
        counts = _array(_COUNTS, raw)
        slot, capacity = (int(np.frombuffer(next(raw), np.int32)[0]) for _ in range(2))
        assert next(raw, None) is None
        self.launches.append((name, blocks, threads))
        STREAMS[stream].do(lambda: self._run(name, payload, counts, slot, capacity))

    def _run(self, name: str, payload: Any, counts: np.ndarray, slot: int, capacity: int) -> None:
        n = capacity if slot < 0 else min(int(counts[slot]), capacity)
        self._cpu.launch(registered_kernels()[name], n, payload)


_COUNTS = types.SimpleNamespace(dtype=np.dtype(np.int32), ndim=1)


def _rebuilt(kind: Any, raw: Any) -> Any:
    members = []
    for member in kind:
        if isinstance(member, BaseTuple):
            members.append(_rebuilt(member, raw))
        elif isinstance(member, Array):
            dtype = as_dtype(member.dtype)
            unaligned = dtype if dtype.fields is None else np.dtype(dtype.descr)  # as the CPU's loops are compiled for
            members.append(_array(types.SimpleNamespace(dtype=unaligned, ndim=member.ndim), raw))
        else:
            members.append(np.frombuffer(next(raw), as_dtype(member))[0])
    return kind.instance_class(*members)


def _array(kind: Any, raw: Any) -> np.ndarray:
    words = [int(np.frombuffer(next(raw), np.uint64)[0]) for _ in range(5 + 2 * kind.ndim)]
    meminfo, parent, n_items, item_size, address = words[:5]
    shape, strides = tuple(words[5 : 5 + kind.ndim]), tuple(words[5 + kind.ndim :])
    assert (meminfo, parent) == (0, 0)
    assert (n_items, item_size) == (int(np.prod(shape)), kind.dtype.itemsize)
    n_bytes = max(1, sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + item_size)
    memory = (ctypes.c_char * n_bytes).from_address(address)
    return np.ndarray(shape, kind.dtype, memory, strides=strides)


def fake_cuda_device(monkeypatch: Any, index: int = 0, *, options: Any = None, **cupy: Any) -> Any:
    """Return a `CudaDevice` of compute capability 9.0 on stand-ins for CuPy and the driver."""
    kinds: dict[str, BaseTuple] = {}
    compile_kernel = cuda_compile.compile_kernel

    def remembering(kernel, kind, capability):
        compiled = compile_kernel(kernel, kind, capability)
        kinds[compiled.path] = kind
        return compiled

    monkeypatch.setattr(cuda_launch, "compile_kernel", remembering)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(**cupy))
    return CudaDevice(index, FakeDriver(kinds), **(options or {}))
