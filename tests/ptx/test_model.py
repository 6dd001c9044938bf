"""Known answers of the model of a GPU, and of the translation of PTX."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from studies.gpu_model import described, with_batch
from tests.ptx.costs import L1_HIT, L2_HIT, block_costs
from tests.ptx.device import ptx_device
from tests.ptx.driver import Loaded
from tests.ptx.library import WHY_NOT, compiled_library
from tests.ptx.memory import Memory
from tests.ptx.model import LAUNCH, Estimate, estimate, resident_blocks, total
from tests.ptx.parser import parse
from tests.ptx.statistics import Statistics

PTX = """
.version 8.0
.target sm_90
.address_size 64
.visible .entry sum(.param .u64 sum_param_0, .param .u32 sum_param_1)
{
    .reg .pred %p<3>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<6>;
    .shared .align 4 .b32 part[64];
    ld.param.u64 %rd1, [sum_param_0];
    ld.param.u32 %r1, [sum_param_1];
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd2, %r2, 4;
    add.s64 %rd3, %rd1, %rd2;
    mov.u64 %rd4, part;
    add.s64 %rd5, %rd4, %rd2;
    ld.global.u32 %r3, [%rd3];
    st.shared.u32 [%rd5], %r3;
    bar.sync 0;
    setp.ne.s32 %p1, %r2, 0;
    @%p1 bra $L_end;
    mov.u32 %r4, 0;
$L_next:
    ld.shared.u32 %r5, [%rd5];
    add.s32 %r4, %r4, %r5;
    add.s64 %rd5, %rd5, 4;
    add.s32 %r1, %r1, -1;
    setp.gt.s32 %p2, %r1, 0;
    @%p2 bra $L_next;
    st.global.u32 [%rd1], %r4;
$L_end:
    ret;
}
"""


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_a_block_adds_its_numbers_and_is_counted():
    function, memory = parse(PTX), Memory(1 << 20)
    assert function.shared.size == 256
    assert [block.next for block in function.blocks] == [[1], [5, 2], [3], [3, 4], [5], [-1]]
    values = memory.allocate(40, np.uint32, is_clear=True)
    values[:] = np.arange(40)
    block = np.array([values.ctypes.data, 40], np.uint64)
    library = compiled_library(function, "mix")
    pointer = ctypes.c_void_p(block.ctypes.data)
    assert library.code.run_mixed(pointer, 1, 40, ctypes.c_uint64(3), ctypes.c_uint8(0xA5), 8) == 0
    assert values[0] == sum(range(40))
    library = compiled_library(function, "count")

    class Compiled:
        name, registers, shared = "sum", 16, 256

    values[:] = 1
    counted = Statistics(memory, Loaded(Compiled, function), library.sites, 1, 40)
    assert library.code.run_warps(pointer, 1, 40, counted.pointer) == 0
    assert values[0] == 40
    of_threads = counted.thread_instructions.astype(int)
    assert of_threads[0] > 40 * 5 > 10 * of_threads[1] > 0
    assert len(set(of_threads[1:])) == 1
    # Two warps: 32 + 8 lanes load 5 sectors, one lane stores to one of them.
    loads, stores = counted.requests[0], counted.requests[-1]
    assert (loads, stores, counted.n_touched) == (2, 1, 5)
    assert (counted.lanes[0], counted.sectors[0]) == (40, 5)
    one = estimate(counted)
    assert one.efficiency < 0.5
    assert one.time == one.latency == one.longest


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_a_load_that_is_waited_for_costs_what_its_cache_takes():
    cost, far, near = block_costs(parse(PTX))
    assert far[0] - near[0] == L2_HIT - L1_HIT
    assert cost[3] == 4 + 2 + 1  # of the loop: the sum of addresses takes two


@pytest.mark.parametrize(
    ("registers", "threads", "shared", "blocks"),
    [(32, 128, 0, 16), (255, 128, 0, 2), (150, 32, 0, 13), (24, 32, 0, 32), (32, 1024, 0, 2), (32, 32, 100 * 1024, 2)],
)
def test_blocks_of_a_multiprocessor(registers, threads, shared, blocks):
    assert resident_blocks(registers, threads, shared) == blocks


def test_times_are_added_with_what_launches_cost():
    one = Estimate("a_kernel", (3, 32), 90, 0.5, 40, 1e-6, 7e-6, 7e-6, 4e-6, 2e-6, 3e-6, 0.5, 0.25)
    assert total([one, one]) == pytest.approx(2 * (7e-6 + LAUNCH))

    class Result:
        n_cells, seeds, tracks = 12, range(3), range(2)

    text = described("an event", 2, [one, one], [], Result)
    assert "in a batch of 2: 0.02 ms, 0.01 ms an event" in text
    assert "| `a_kernel` | 2 | 14 | 3 x 32 | 90 | 50 % | 1 | 7 | 7 | 2 | 3 | 50 % | 25 % | 40 |" in text


def test_launches_side_by_side_take_as_long_as_the_longer_ones_or_as_what_they_share():
    def one(latency, held):
        return Estimate("a_kernel", (3, 32), 90, 0.5, 40, 1e-6, latency, latency, held, 2e-6, 3e-6, 0.5, 0.25)

    few = [one(50e-6, 1e-6), one(20e-6, 1e-6), one(30e-6, 1e-6), one(9e-6, 1e-6)]
    assert total(few, [(0, 1, 3)]) == pytest.approx((20e-6 + 30e-6 + 2 * LAUNCH) + LAUNCH + (9e-6 + LAUNCH))
    many = [one(50e-6, 45e-6), one(50e-6, 45e-6)]
    assert total(many, [(0, 1, 2)]) == pytest.approx(90e-6 + LAUNCH)


def test_a_number_behind_a_file_is_the_size_of_its_batch():
    assert with_batch("mu20/cells.csv:8", [1, 2]) == (Path("mu20/cells.csv"), [8])
    assert with_batch("mu20/cells.csv", [1, 2]) == (Path("mu20/cells.csv"), [1, 2])
    assert with_batch("C:/cells.csv", [1]) == (Path("C:/cells.csv"), [1])


def test_what_is_not_translated_is_an_error():
    with pytest.raises(ValueError, match="not translated"):
        compiled_library(parse(PTX.replace("add.s32 %r4, %r4, %r5", "shfl.sync.idx.b32 %r4, %r4, 0, 31, -1")), "run")
    with pytest.raises(ValueError, match="expected one"):
        parse("")


def test_device_memory_ends():
    with pytest.raises(MemoryError, match="used up"):
        ptx_device(size=1 << 10).empty(1 << 20, np.uint8)
