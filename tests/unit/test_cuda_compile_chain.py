"""Every kernel of the chain, compiled for CUDA without a GPU: precision, registers, spills, parameters."""

import os
import sys

import pytest

from studies.kernel_digest import CONFIGS, recorded
from tests.devices.cuda_fakes import parameter_widths
from traccc_py.device.cuda.compile import compile_all, float64_instructions, resource_table
from traccc_py.device.cuda.layout import ParameterLayout, aligned
from traccc_py.device.kernel import registered_kernels

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

CAPABILITIES = [(8, 0), (9, 0), (10, 0)]
MAX_SPILLED_IN_MAPS = 64  # [bytes], of track finding in a map in x, y, z: it needs a few registers more than there are
MAX_REGISTERS = 255
REGISTERS_OF_A_BLOCK = 65536
MAX_SHARED = 48 * 1024  # bytes, without opting in to more
MAX_PARAMETER_BYTES = 4000  #: CUDA's limit is 4096 before compute capability 7.0 and drivers of CUDA 12.1
DOUBLE_PRECISION_ALLOWED: dict[str, str] = {}  #: kernel: reason


#: Kernels that transport tracks, compiled for one capability in each kind of field map.
IN_MAPS = {"cylindrical": (8, 0), "cartesian": (9, 0)}
TRANSPORTING = (
    *("finding_follow_seeds", "finding_starts_move_start", "finding_kinks_resume_at_kink"),
    "fitting_fit_track",
)


@pytest.fixture(scope="module")
def signatures():
    return recorded("toy")


def in_map(kind):
    """Return the payload types of all kernels in a field map."""
    return recorded("toy", CONFIGS[:1], kind)


@pytest.fixture(scope="module")
def compiled(signatures):
    return compile_all(signatures, CAPABILITIES, processes=min(2, os.cpu_count() or 1))


def test_every_kernel_of_the_package_is_recorded(signatures):
    of_chain = {
        name
        for name, kernel in registered_kernels().items()
        if kernel.body.py_func.__module__.startswith(("traccc_py.kernels.", "traccc_py.device."))
    }
    assert of_chain - set(signatures) == set()


def test_each_kernel_has_one_payload_type(signatures):
    assert {name: kinds for name, kinds in signatures.items() if len(kinds) != 1} == {}


@pytest.mark.parametrize("kind", IN_MAPS)
def test_a_field_map_changes_the_types_of_what_reads_it_alone(signatures, kind):
    found = in_map(kind)
    changed = {name for name in found if found[name] != signatures[name]}
    assert changed == {*TRANSPORTING, "seeding_parameter_estimation_estimate_parameters"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cylindrical", pytest.param("cartesian", marks=pytest.mark.long)])
def test_kernels_in_field_maps_are_sound(kind, capsys):
    found = in_map(kind)
    compiled = compile_all({name: found[name] for name in TRANSPORTING}, [IN_MAPS[kind]])
    with capsys.disabled():
        sys.stdout.write(f"\n{resource_table(compiled)}\n")
    for one in compiled:
        assert max(one.spill_stores, one.spill_loads) <= MAX_SPILLED_IN_MAPS, one
        assert one.registers <= MAX_REGISTERS, one
        assert float64_instructions(one.ptx) == []
        assert "ld.global.u8" not in one.ptx
        layout = ParameterLayout.of(aligned(found[one.name][0]))
        assert parameter_widths(one.ptx) == list(layout.sizes)
        assert layout.offsets[-1] + layout.sizes[-1] <= MAX_PARAMETER_BYTES


def test_types_do_not_depend_on_the_detector(signatures):
    assert recorded("odd") == signatures


@pytest.mark.slow
def test_no_kernel_spills_or_works_in_double_precision(compiled, capsys):
    with capsys.disabled():
        sys.stdout.write(f"\n{resource_table(compiled)}\n")
    spilling = [one for one in compiled if one.spill_stores or one.spill_loads]
    widened = {one.name: float64_instructions(one.ptx) for one in compiled if float64_instructions(one.ptx)}
    assert spilling == []
    assert {name: found for name, found in widened.items() if name not in DOUBLE_PRECISION_ALLOWED} == {}
    assert set(DOUBLE_PRECISION_ALLOWED) <= set(widened)
    assert all(0 < one.registers <= MAX_REGISTERS for one in compiled)


@pytest.mark.slow
def test_blocks_fit_a_multiprocessor(compiled):
    kernels = registered_kernels()
    with_blocks = [one for one in compiled if kernels[one.name].cuda is not None and kernels[one.name].cuda.threads]
    assert len(with_blocks) >= 6 * len(CAPABILITIES)
    for one in with_blocks:
        assert one.registers * kernels[one.name].cuda.threads <= REGISTERS_OF_A_BLOCK, one.name
        assert one.shared <= MAX_SHARED, one.name


@pytest.mark.slow
def test_parameters_are_those_that_launches_pack(signatures, compiled):
    for one in compiled:
        layout = ParameterLayout.of(aligned(signatures[one.name][0]))
        assert parameter_widths(one.ptx) == list(layout.sizes), one.name
        assert layout.offsets[-1] + layout.sizes[-1] <= MAX_PARAMETER_BYTES, one.name


@pytest.mark.slow
def test_geometry_records_are_loaded_by_the_word(compiled):
    for one in compiled:
        assert "ld.global.u8" not in one.ptx, one.name


def test_kernels_that_count_and_those_that_fill_round_alike(compiled):
    """A product and a sum in one instruction would be rounded once, in one of the two kernels perhaps."""
    pairs = ("doublets_count_tops", "doublets_fill_tops", "triplets_count_triplets", "triplets_select_triplets")
    names = {f"seeding_{name}" for name in pairs}
    edges = {f"gnn_graph_construction_{name}" for name in ("count_edges", "fill_edges")}  # of the other finder
    near = ("find_cells", "find_near", "count_pairs", "fill_pairs", "find_outward")
    edges |= {f"gnn_metric_graph_{name}" for name in near}
    assert {name for name, kernel in registered_kernels().items() if not kernel.fuses} == names | edges
    assert {one.name for one in compiled if one.name in names} == names
    fusing = {one.name for one in compiled if "fma." in one.ptx}
    assert not fusing & names
    assert "fitting_fit_track" in fusing
