"""Bodies that blocks of threads run on CUDA, in Numba's simulator, against the plain bodies: the same bits."""

import pytest

from tests.integration.test_simulator import simulate

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install traccc-py[cuda13]")

RESOLUTION = """
import numpy as np
import tests.batches
import tests.unit.test_ambiguity_resolution as cases
from tests.devices.checking_device import CheckingDevice

device = CheckingDevice("ambiguity_resolution_resolve_event")
tests.batches.cpu_device = lambda threads: device
resolve = cases.resolve_ambiguities


def until_it_fits(ws, *arguments):
    while True:
        found = resolve(ws, *arguments)
        if not ws.overflowed():
            return found


cases.resolve_ambiguities = until_it_fits
for tracks, accepted in cases.CASES.values():
    assert cases.selected([tracks], 100)[0] == accepted
events = [cases.random_event("dense, repeats", seed)[:40] for seed in range(3)]
for max_shared in (1, 3):
    found, _ = cases.selected([events[0], [], *events[1:]], 101, max_shared=max_shared)
    expected, first = [], 0
    for event in events:
        expected += [first + i for i in cases.expected(event, max_shared=max_shared)]
        first += len(event)
    assert found == expected
chain = [(i / 24, [3 * i, 3 * i + 1, 3 * i + 2, 3 * (i + 1)]) for i in range(24)]
assert cases.selected([chain], 75)[0] == cases.expected(chain)
print(device.checked["ambiguity_resolution_resolve_event"])
"""

CLUSTERS = """
import numpy as np
from tests.unit import test_clusterization as cases
from tests.devices.checking_device import CheckingDevice
from tests.unit.detectors import pad_module
from scipy import ndimage

device = CheckingDevice("clusterization_label_cells", "clusterization_number_measurements")
random = np.random.default_rng(2)
rows, n_clusters = [], []
for module, (size, filled) in enumerate([(12, 0.5), (1, 0.0), (20, 0.3), (9, 0.9), (14, 0.6), (3, 1.0)]):
    image = random.random((size, size)) < filled
    n_clusters.append(ndimage.label(image, np.ones((3, 3)))[1])
    rows += [(module, a, b, 1.0) for a, b in np.argwhere(image)]
found = cases.run(rows, pad_module(6), device=device)
assert np.diff(found["offsets"]).tolist() == n_clusters
print(*(device.checked[f"clusterization_{name}"] for name in ("label_cells", "number_measurements")))
"""

THINNING = """
import numpy as np
from tests.reference.helices import simulate
from tests.reference.seed_thinning import toy_modules
from tests.devices.checking_device import CheckingDevice
from tests.unit.test_seed_thinning import run, triplets_of
from traccc_py.device.cpu.executor import CpuDevice
from traccc_py.kernels.seeding import thinning as seed_thinning

points, _, layer = simulate(8, 3)
points = np.concatenate([points, points[::-1]])
modules = np.concatenate([toy_modules(points[: len(layer)], layer)] * 2)
modules[len(layer) :] = modules[: len(layer)][::-1]
event = np.repeat([0, 2], len(layer))
_, expected = run(points, modules, event)
seed_thinning._N_ROUNDS = 0  # all of it is left to the block
device = CheckingDevice("seeding_thinning_settle_event", "grouping_count_members")
found, kept = run(points, modules, event, device=device)
np.testing.assert_array_equal(triplets_of(kept), triplets_of(expected))
print(len(found.event), len(kept.event), device.checked["seeding_thinning_settle_event"])
"""


@pytest.mark.slow
def test_resolution_by_blocks_is_the_sequential_one():
    (n,) = simulate(RESOLUTION)
    assert int(n) >= 20


@pytest.mark.slow
def test_clusters_found_by_blocks_are_those_found_one_by_one():
    assert [int(n) > 0 for n in simulate(CLUSTERS)] == [True, True]


@pytest.mark.slow
def test_seeds_settled_by_blocks_are_those_settled_one_by_one():
    n_found, n_kept, n_checked = (int(n) for n in simulate(THINNING))
    assert n_found > 4 * n_kept > 0
    assert n_checked > 0
