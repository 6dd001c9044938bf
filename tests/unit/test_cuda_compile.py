"""CUDA code of small kernels, without a GPU: parameters, loads, precision, resources, cache."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.devices.cuda_fakes import parameter_widths
from tests.unit import device_kernels
from tests.unit.damages import DAMAGES
from traccc_py.device import cache
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.device.cuda import compile as cuda_compile
from traccc_py.device.cuda.compile import (
    compile_all,
    compile_kernel,
    float64_instructions,
    missing_kernels,
    resource_table,
)
from traccc_py.device.cuda.layout import ParameterLayout, aligned, payload_type
from traccc_py.device.kernel import kernel, registered_kernels
from traccc_py.device.signatures import record_signatures
from traccc_py.errors import DeviceUnavailableError, TracccError

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

CAPABILITY = (8, 0)
HEADER = 5  # words of an array's parameters in front of its shape; the last one is the address
PRIMITIVES = {f"grouping_{part}_members" for part in ("count", "place", "order")} | {
    "scan_chunks",
}
MINE = ("device_kernels_count", "device_kernels_fill", "device_kernels_gather")


@pytest.fixture(scope="module")
def signatures():
    return record_signatures(lambda device: device_kernels.run_on(device, np.arange(9, dtype=np.int32) % 7))


@pytest.fixture(scope="module")
def compiled(signatures):
    kernels = registered_kernels()
    return {name: compile_kernel(kernels[name], signatures[name][0], CAPABILITY) for name in signatures}


def test_recording_finds_each_kernel_and_those_behind_scan_and_sort(signatures):
    assert set(signatures) == {*MINE, *PRIMITIVES}
    assert all(len(kinds) == 1 for kinds in signatures.values())


def test_recording_counts_launches_over_nothing():
    found = record_signatures(lambda device: device_kernels.run_on(device, np.zeros(0, np.int32)))
    assert set(MINE) <= set(found)


def test_recording_tells_payload_types_apart():
    def run(device):
        for dtype in (np.float32, np.float64, np.float32):
            device.launch(device_kernels.HEAVY_SUM, 2, device_kernels.uneven_payload(2, dtype))

    assert len(record_signatures(run)["device_kernels_heavy_sum"]) == 2


@pytest.mark.parametrize("name", MINE)
def test_parameters_of_the_ptx_are_those_of_the_layout(signatures, compiled, name):
    layout = ParameterLayout.of(aligned(signatures[name][0]))
    assert parameter_widths(compiled[name].ptx) == list(layout.sizes)
    assert all(offset % width == 0 for offset, width in zip(layout.offsets, layout.sizes, strict=True))


@pytest.mark.parametrize("name", MINE)
def test_memory_is_addressed_through_the_data_parameters_only(signatures, compiled, name):
    layout = ParameterLayout.of(aligned(signatures[name][0]))
    data, position = set(), 0
    kinds = iter([*_array_dimensions(aligned(signatures[name][0])), 1, None, None])
    for n_dimensions in kinds:
        if n_dimensions is not None:
            data.add(position + HEADER - 1)
        position += 1 if n_dimensions is None else HEADER + 2 * n_dimensions
    assert position == len(layout.formats)
    ptx = compiled[name].ptx
    loaded = dict(re.findall(r"ld\.param\.u64\s+(%rd\d+), \[\w+_param_(\d+)\]", ptx))
    addressed = {int(loaded[register]) for register in re.findall(r"cvta\.to\.global\.u64\s+%rd\d+, (%rd\d+)", ptx)}
    assert addressed
    assert addressed <= data


def _array_dimensions(kind):
    for member in kind:
        if hasattr(member, "ndim"):
            yield member.ndim
        elif hasattr(member, "fields"):
            yield from _array_dimensions(member)
        else:
            yield None


def test_records_are_loaded_by_the_word_not_by_the_byte(compiled):
    assert not re.findall(r"ld\.global\.u8", compiled["device_kernels_fill"].ptx)


def test_records_that_are_not_aligned_stay_so():
    packed = np.dtype([("a", "i1"), ("b", "f4")])
    kind = payload_type((np.zeros(2, packed), np.zeros(2, device_kernels.ITEM)))
    assert [member.dtype.aligned for member in kind] == [False, True]


def test_small_kernels_need_no_spills_and_no_double_precision(compiled):
    print("\n" + resource_table(list(compiled.values())))
    for one in compiled.values():
        assert (one.spill_stores, one.spill_loads) == (0, 0)
        assert 0 < one.registers <= 255
        assert float64_instructions(one.ptx) == []


def test_scratch_has_the_precision_of_the_payload():
    kinds = [payload_type(device_kernels.uneven_payload(2, dtype)) for dtype in (np.float32, np.float64)]
    single, double = (compile_kernel(device_kernels.HEAVY_SUM, kind, CAPABILITY) for kind in kinds)
    assert double.stack == 4 * 8
    assert float64_instructions(single.ptx) == []
    assert "add.f64" in float64_instructions(double.ptx)


class _OneArray(NamedTuple):
    out_x: Any


@kernel()
def _widens(i, p):
    p.out_x[i] = 0.1 * p.out_x[i] + 0.3


@kernel()
def _library_sine(i, p):
    p.out_x[i] = math.sin(p.out_x[i])


@pytest.mark.parametrize("careless", [_widens, _library_sine])
def test_double_precision_that_slips_in_is_found(careless):
    kind = payload_type(_OneArray(np.zeros(2, np.float32)))
    assert float64_instructions(compile_kernel(careless, kind, CAPABILITY).ptx)


def test_float64_instructions_are_told_from_moves_and_comments():
    words = ".reg .f64 %fd<3>;\n// mul.f64 in words\n\tmov.b64 %rd1, 0;\n"
    ptx = words + "  @%p1 fma.rn.f64 %fd1, %fd2;\n cvt.f64.f32 %fd1, %f1;"
    assert float64_instructions(ptx) == ["fma.rn.f64", "cvt.f64.f32"]


def test_report_of_the_assembler_is_read():
    report = (
        "ptxas info    : Function properties for f\n"
        "    96 bytes stack frame, 40 bytes spill stores, 44 bytes spill loads\n"
        "ptxas info    : Used 255 registers, used 0 barriers, 96 bytes cumulative stack size, 512 bytes smem"
    )
    expected = {"registers": 255, "stack": 96, "spill_stores": 40, "spill_loads": 44, "shared": 512}
    assert cuda_compile._resources(report) == expected


def test_broken_ptx_is_refused_with_the_kernels_name():
    with pytest.raises(TracccError, match=r"ptxas failed on my_kernel for sm_80"):
        cuda_compile._assemble("nonsense", CAPABILITY, "my_kernel", fuses=True)


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ({None: (164, 0), 160: (159, 0), 152: (152, 8)}, 159),
        ({None: (164, 0), 160: (160, 4)}, 164),
        ({None: (164, 4), 160: (158, 4), 152: (152, 8)}, 158),
        ({None: (140, 0), 136: (130, 0), 128: (127, 0)}, 127),
        ({None: (128, 0)}, 128),
        ({None: (164, 0), 160: (164, 0)}, 164),
    ],
)
def test_registers_are_given_up_until_memory_would_take_some(monkeypatch, reports, expected):
    def assembled(ptx, capability, name, *, fuses, most=None):
        registers, spills = reports[most]
        return b"", {"registers": registers, "stack": 0, "spill_stores": spills, "spill_loads": 0}

    monkeypatch.setattr(cuda_compile, "_assembled", assembled)
    assert cuda_compile._assemble("", CAPABILITY, "my_kernel", fuses=True)[1]["registers"] == expected


def test_missing_assembler_names_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda_compile, "_ptxas", cuda_compile._ptxas.__wrapped__)
    monkeypatch.setattr("cuda.pathfinder.find_nvidia_binary_utility", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeviceUnavailableError, match=r"ptxas was not found .*traccc-py\[cuda13\]"):
        cuda_compile._ptxas()


def test_second_compilation_comes_from_the_cache(signatures, compiled, monkeypatch):
    def no_compiler(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(cuda_compile, "_compile_ptx", no_compiler)
    again = compile_kernel(device_kernels.COUNT, signatures["device_kernels_count"][0], CAPABILITY)
    assert again == compiled["device_kernels_count"]


def test_two_processes_fill_an_empty_cache(signatures, compiled, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    some = {name: signatures[name] for name in MINE[:2]}
    found = compile_all(some, [CAPABILITY], processes=2)
    assert [one.name for one in found] == list(MINE[:2])
    assert all(one.path.startswith(str(tmp_path)) for one in found)
    assert all(one.registers == compiled[one.name].registers for one in found)


@pytest.mark.parametrize("suffix", [".cubin", ".ptx", ".json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entry_is_compiled_again_and_replaced(signatures, compiled, tmp_path, monkeypatch, damage, suffix):
    name = "device_kernels_count"
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    monkeypatch.setattr(cuda_compile, "_compile_ptx", lambda *_: compiled[name].ptx)
    assembled = []
    real = cuda_compile._assemble
    monkeypatch.setattr(cuda_compile, "_assemble", lambda *a, **k: assembled.append(a) or real(*a, **k))
    some = {name: signatures[name]}
    first = compile_all(some, [CAPABILITY])
    assert missing_kernels(some, CAPABILITY) == {}
    DAMAGES[damage](Path(first[0].path).with_suffix(suffix))
    assert list(missing_kernels(some, CAPABILITY)) == [name]
    assert compile_all(some, [CAPABILITY]) == first
    assert compile_all(some, [CAPABILITY]) == first
    assert len(assembled) == 2


def test_entry_that_cannot_be_written_stays_in_memory(signatures, compiled, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRACCC_PY_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(cache, "_edited_since_loaded", lambda sources: False)
    monkeypatch.setattr(cache, "_unkept", {})
    some, told = {name: signatures[name] for name in MINE[:2]}, []
    found = compile_all(some, [CAPABILITY], processes=2, on_compiled=told.append)
    assert [one.registers for one in found] == [compiled[one.name].registers for one in found]
    assert sorted(told) == sorted(MINE[:2])
    monkeypatch.setattr(cuda_compile, "_compile_ptx", None)
    assert compile_all(some, [CAPABILITY]) == found
    (record,) = caplog.records
    assert f"going on without the cache in {tmp_path / 'file'}" in record.getMessage()


def test_payload_of_something_else_is_refused():
    class Odd(NamedTuple):
        word: str

    with pytest.raises(TypeError, match="kernels take arrays, numbers and tuples"):
        ParameterLayout.of(payload_type(Odd("text")))


def test_compiling_leaves_the_cpu_alone(compiled):
    payload = device_kernels.uneven_payload(3)
    CpuDevice(threads=1).launch(device_kernels.HEAVY_SUM, 3, payload)
    assert payload.out_sum.any()
