"""The PTX of the whole chain, executed on the CPU with all checks of memory, against the CPU device; a small event.

Faults that are put into the PTX, or into memory, must be found: else the checks would say nothing.
"""

import re

import numpy as np
import pytest

from tests.integration.small_events import columns, telescope, telescope_cells
from tests.ptx.device import ptx_device
from tests.ptx.library import WHY_NOT
from tests.ptx.wanted import lists_of_measurements, unwanted
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.data.csv_events import read_cells
from traccc_py.data.sample import sample_event_path
from traccc_py.geometry import build_detector

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

METHODS = ("grid", "layer_pairs")


@pytest.fixture(scope="module")
def detector():
    return build_detector("odd")


@pytest.fixture(scope="module")
def cells():
    return read_cells(sample_event_path())


def chain_on(device, detector, method="grid"):
    return TrackingChain(detector, ChainConfig().with_settings({"seeding.method": method}), device=device)


@pytest.fixture(scope="module")
def expected(detector, cells):
    """Return what the CPU device finds, by method of seeding."""
    return {method: chain_on("cpu", detector, method).run(cells) for method in METHODS}


def assert_same_bits(found, expected):
    expected = columns(expected)
    for name, column in columns(found).items():
        np.testing.assert_array_equal(column, expected[name], err_msg=name)


def assert_clean(device):
    assert device.ptx.statuses == {}
    assert unwanted(device.ptx.problems) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_ptx_finds_what_the_cpu_finds_in_any_order_and_memory_is_used_well(detector, cells, expected, method):
    results = []
    for seed in (0, 1):
        device = ptx_device("check", seed=seed)
        chain = chain_on(device, detector, method)
        chain.run(cells)  # buffers grow
        arrays = chain._schedule.workspace._store.arrays
        for name, array in arrays.items():  # what the last event left must not matter
            if not name.startswith("input"):
                device.ptx.memory.forget(getattr(array, "storage", array).host)
        results.append(chain.run(cells))
        assert_clean(device)
        assert len(arrays) > 50
        assert device.ptx.n_launches > 100
    assert lists_of_measurements(results[0]) == lists_of_measurements(expected[method])
    assert len(results[0].tracks) == 20
    assert_same_bits(results[1], results[0])


@pytest.fixture(scope="module")
def small():
    """Return detector, cells and what is to be found, of an event that is checked within a second."""
    detector = telescope()
    cells = telescope_cells(30, 4, detector)
    expected = lists_of_measurements(TrackingChain(detector, device="cpu").run(cells))
    assert len(expected) > 20
    return detector, cells, expected


def broken(kernel, pattern, replacement, count=0):
    """Return a change of the PTX of a kernel, which must hit something."""

    def change(name, ptx):
        if name != kernel:
            return ptx
        changed, n = re.subn(pattern, replacement, ptx, count=count)
        assert n > 0
        return changed

    return change


def swapped(name, ptx):
    """Exchange two parameters: the addresses of two arrays of spacepoints."""
    if name != "seeding_fill_seeds":
        return ptx
    first, second = re.findall(r"ld\.param\.u64\s+%rd\d+, \[(\w+_param_\d+)\]", ptx)[:2]
    return ptx.replace(f"[{first}]", "[*]").replace(f"[{second}]", f"[{first}]").replace("[*]", f"[{second}]")


def without_a_barrier(name, ptx):
    """Leave out a barrier of a scan's sums over a block, between reading and writing what other threads read."""
    if name != "scan_chunks":
        return ptx
    parts = ptx.split("bar.sync")
    assert len(parts) > 6
    return "bar.sync".join(parts[:4]) + "membar.cta;//" + "bar.sync".join(parts[4:])


FAULTS = {
    "two parameters exchanged": swapped,
    "a barrier left out": without_a_barrier,
    "a store beyond its array": broken(
        "seeding_spacepoint_formation_fill_spacepoints",
        r"(st\.global\.f32\s+)\[(%rd\d+)(?:\+\d+)?\]",
        r"\1[\2+1048576]",
    ),
    "one index too many": broken("seeding_parameter_estimation_estimate_parameters", r"setp\.ge\.s64", "setp.gt.s64"),
    "counted without an atomic addition": broken(
        "grouping_count_members",
        r"atom\.global\.add\.u32\s+(%r\d+), \[(%rd\d+)\], 1;",
        r"ld.global.u32 \1, [\2]; add.s32 %r9, \1, 1; st.global.u32 [\2], %r9;",
    ),
}


class FaultFoundError(Exception):
    """What comes behind a fault may take for ever."""


def stop_at(problems):
    if unwanted(problems):
        raise FaultFoundError


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_code_is_found(small, fault):
    detector, cells, expected = small
    device = ptx_device("check", seed=2, change=FAULTS[fault])
    device.ptx.on_problems = stop_at
    found = None
    try:
        found = TrackingChain(detector, device=device).run(cells)
    except Exception as error:  # a size that nothing can have, mostly
        print(type(error).__name__, error)
    problems = unwanted(device.ptx.problems)
    print(*problems[:4], device.ptx.statuses, sep="\n")
    is_right = found is not None and lists_of_measurements(found) == expected
    assert problems or device.ptx.statuses or not is_right


def test_without_a_fault_nothing_is_found(small):
    detector, cells, expected = small
    device = ptx_device("check", seed=2)
    assert lists_of_measurements(TrackingChain(detector, device=device).run(cells)) == expected
    assert_clean(device)


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("uninitialised", lambda memory, rows: memory.state.__setitem__(rows, 1)),
        ("out of bounds", lambda memory, rows: memory.state.__setitem__(rows, 0)),
    ],
)
def test_memory_that_may_not_be_read_is_noticed(small, kind, spoil):
    detector, cells, _ = small
    device = ptx_device("check")
    chain = TrackingChain(detector, device=device)
    chain.initialize()
    surfaces = device.ptx.memory.of(chain._schedule._stages.detector.surfaces.storage.host)
    spoil(device.ptx.memory, slice((surfaces.start + surfaces.stop) // 2, surfaces.stop))
    chain.run(cells)
    assert kind in {problem.kind for problem in unwanted(device.ptx.problems)}
