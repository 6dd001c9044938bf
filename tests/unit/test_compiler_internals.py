"""The parts of Numba and numba-cuda that they promise nothing about: one that changed is named, with where it is used.

`pyproject.toml` bounds the versions. To raise a bound, run this file with the new version first, then all tests.
"""

import contextlib
from importlib.metadata import version
from typing import NamedTuple

import numba
import numpy as np
import pytest
from numba.core import entrypoints, types
from numba.core.types.containers import BaseTuple
from numba.np.numpy_support import as_dtype

from tests.unit import device_kernels
from traccc_py.device.cpu.atomic import fetch_add
from traccc_py.device.cpu.compile import compiled_for_host
from traccc_py.device.cpu.executor import without_numba_extensions
from traccc_py.device.cuda.layout import aligned, payload_type
from traccc_py.device.kernel import device_function


class Columns(NamedTuple):
    x: np.ndarray
    y: np.ndarray


COLUMNS = Columns(np.ones(4, np.float32), np.ones(4, np.float32))


@contextlib.contextmanager
def needed(part, place, distribution="numba"):
    """Name the part, the version and the place where something in the block fails."""
    try:
        yield
    except Exception as error:
        msg = f"{part} of {distribution} {version(distribution)} is not what {place} needs: {error!r}"
        pytest.fail(msg, pytrace=False)


def must(condition, what):
    """Raise if something is not so."""
    if not condition:
        raise RuntimeError(what)


def long_sum(p, i):
    total = p.x[i]
    for k in range(i):
        total += p.x[k] * p.y[i] - p.y[k]
        if total > p.y[k]:
            total -= p.x[k]
    return total


def called_twice(function):
    def caller(p, i):
        return function(p, i) + function(p, i + 1)

    return caller


def code_of(function):
    """Return the optimised LLVM code of a function of COLUMNS and an index."""
    function(COLUMNS, 1)
    (code,) = function.inspect_llvm().values()
    return code


def test_failure_names_version_and_place():
    expected = rf"the thing of numba {version('numba')} .* file.py needs: .*gone"
    with pytest.raises(pytest.fail.Exception, match=expected), needed("the thing", "file.py"):
        must(False, "gone")


def test_functions_without_reference_counting():
    with needed("njit(_nrt=False)", "device/kernel.py, device/cpu/compile.py"):
        counted = numba.njit(inline="never")(called_twice(numba.njit(inline="never")(long_sum)))
        must("NRT_incref" in code_of(counted), "there is nothing that the option would leave out")
        plain = device_function(called_twice(device_function(long_sum)))
        must("NRT_incref" not in code_of(plain), "arrays are counted in spite of the option")


def test_functions_inlined_into_each_caller():
    with needed("njit(forceinline=True)", "device/kernel.py"):
        inlined = device_function(called_twice(device_function(inlined=True)(long_sum)))
        called = [line for line in code_of(inlined).splitlines() if " call " in line and "long_sum" in line]
        must(called == [], f"the function is called in spite of the option: {called}")


def test_folder_of_the_cache_is_that_of_the_time_of_the_decoration(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    with needed("config.CACHE_DIR, Dispatcher.stats, .overloads, .compile", "device/cpu/, simulation/compiled.py"):
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "chosen"))
        function = numba.njit(cache=True)(long_sum)
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "later"))
        must(len(function.overloads) == 0, "overloads before the compilation")
        function.compile((numba.typeof(COLUMNS), types.int64))
        must(len(function.overloads) == 1, f"{len(function.overloads)} overloads after it")
        function.disable_compile()
        must(str(function.stats.cache_path).startswith(str(tmp_path / "chosen")), function.stats.cache_path)
        must(len(list((tmp_path / "chosen").rglob("*.nbi"))) == 1, "no index *.nbi where the cache is")
        must(function.py_func is long_sum, "py_func")


def test_extensions_of_other_packages_can_be_left_out(monkeypatch):
    with needed("core.entrypoints._already_initialized", "device/cpu/executor.py"):
        monkeypatch.setattr(entrypoints, "_already_initialized", False)
        monkeypatch.setattr(entrypoints.importlib_metadata, "entry_points", lambda: must(False, "they are loaded"))
        without_numba_extensions()
        numba.njit(long_sum)(COLUMNS, 1)


def test_atomic_addition():
    with needed("extending.intrinsic, context.make_array, builder.atomic_rmw", "device/cpu/atomic.py"):

        def take(array, index, step):
            return fetch_add(array, index, step)

        function, array = compiled_for_host(take), np.array([5, 7], np.int64)
        must((function(array, 1, 3), array.tolist()) == (7, [5, 10]), array)
        (code,) = function.inspect_llvm().values()
        must("atomicrmw" in code, "the addition is not atomic")


def test_types_of_payloads():
    with needed("core.types, containers.BaseTuple, numpy_support.as_dtype, from_dtype", "device/cuda/layout.py"):
        records = np.zeros(2, np.dtype([("a", np.float32), ("b", np.int32)]))
        kind = numba.typeof(Columns(records, COLUMNS.y))
        must(isinstance(kind, BaseTuple) and kind.instance_class is Columns, kind)
        must(not kind[0].dtype.aligned and aligned(kind)[0].dtype.aligned, aligned(kind))
        must(as_dtype(kind[0].dtype) == records.dtype, as_dtype(kind[0].dtype))
        must(payload_type(COLUMNS) == numba.typeof(COLUMNS), payload_type(COLUMNS))


@pytest.fixture
def cuda_parts():
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
    from traccc_py.device.cuda import compile as cuda_compile

    return cuda_compile


def test_option_of_nvvm_and_capability_of_the_device(cuda_parts, monkeypatch):
    with needed("cudadrv.nvvm.compile_ir(fma=)", "device/cuda/compile.py: _fusing", "numba-cuda"):
        from numba.cuda.cudadrv import nvvm

        seen, original = [], nvvm.compile_ir
        monkeypatch.setattr(nvvm, "compile_ir", lambda source, **o: seen.append(o["fma"]) or original(source, **o))
        for fuses in (False, True):
            (ptx, _), n_before = compile_product_and_sum(cuda_parts, fuses), len(seen)
            must(n_before > 0 and set(seen) == {fuses}, f"compile_ir was given fma={seen}")
            must(("fma.rn.f32" in ptx) == fuses, f"fma={fuses} has no effect on the PTX")
            seen.clear()


def compile_product_and_sum(cuda_compile, fuses):
    from numba import cuda

    def body(out, a):
        out[0] = a * out[0] + out[1]

    signature = (types.Array(types.float32, 1, "C"), types.float32)
    with cuda_compile._fusing(fuses):
        return cuda.compile(body, signature, device=False, cc=(9, 0), abi="numba", output="ptx")


def test_indices_that_do_not_count_from_the_end(cuda_parts):
    with needed("np.arrayobj.fix_integer_index", "device/cuda/compile.py: _without_negative_indices", "numba-cuda"):
        from numba import cuda

        def body(out, a, i):
            out[i] = a[i]

        array = types.Array(types.float32, 1, "C")
        options = {"device": False, "cc": (9, 0), "abi": "numba", "output": "ptx"}
        plain, _ = cuda.compile(body, (array, array, types.int32), **options)
        must("shr.s64" in plain, "there is nothing that would be left out")
        with cuda_parts._without_negative_indices():
            direct, _ = cuda.compile(body, (array, array, types.int32), **options)
        must("shr.s64" not in direct, "signs of indices are looked at in spite of it")


def test_device_that_nested_functions_are_compiled_for(cuda_parts):
    with needed("dispatcher.get_current_device", "device/cuda/compile.py: _without_a_device", "numba-cuda"):
        from numba.cuda import dispatcher

        before = dispatcher.get_current_device
        with cuda_parts._without_a_device((9, 0)):
            must(dispatcher.get_current_device().compute_capability == (9, 0), "the capability that is asked for")
        must(dispatcher.get_current_device is before, "it is not restored")
    with needed("cuda.compile(abi='numba', output='ptx')", "device/cuda/compile.py", "numba-cuda"):
        payload = payload_type(device_kernels.uneven_payload(2))
        ptx = cuda_parts._compile_ptx(device_kernels.HEAVY_SUM, payload, (9, 0))
        must(f".entry {device_kernels.HEAVY_SUM.name}(" in ptx, "no entry point")


def test_launch_of_the_simulator(cuda_parts):
    with needed("simulator.kernel._get_kernel_context", "device/cuda/block.py", "numba-cuda"):
        from numba.cuda.simulator.kernel import _get_kernel_context

        must(callable(_get_kernel_context), "it is no function")
