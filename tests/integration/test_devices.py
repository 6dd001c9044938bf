"""The chain on each device against the chain on one CPU thread. On a machine without a GPU only the CPU is left."""

import numpy as np
import pytest

from tests.integration.small_events import columns, telescope, telescope_cells
from traccc_py.chain import TrackingChain
from traccc_py.device import get_device
from traccc_py.geometry.field import solenoid_field_map

N_TRACKS = (4, 0, 30, 1)  # per event of a batch
# Contraction to fused multiply-add makes the last bits of CUDA's results differ. Fitted parameters of these tracks have
# errors of at least 1e-5 relative to their size.
RELATIVE, ABSOLUTE, ABSOLUTE_OF_CHI2 = 1e-3, 1e-5, 1e-2


@pytest.fixture(scope="module", params=["homogeneous", "map"])
def detector(request):
    return telescope() if request.param == "homogeneous" else telescope().with_field_map(solenoid_field_map())


@pytest.fixture(scope="module")
def events(detector):
    return [telescope_cells(n, n, detector) for n in N_TRACKS]


@pytest.fixture(scope="module")
def expected(detector, events):
    return TrackingChain(detector, device=get_device("cpu", threads=1)).run_batch(events)


def test_chain_gives_the_tracks_of_one_cpu_thread(device, detector, events, expected):
    results = TrackingChain(detector, device=device).run_batch(events)
    for result, right in zip(results, expected, strict=True):
        found, wanted = columns(result), columns(right)
        for name, column in wanted.items():
            if column.dtype.kind == "f":  # chi2 divides rounding of positions by small errors
                absolute = ABSOLUTE_OF_CHI2 if name.endswith("chi2") else ABSOLUTE
                np.testing.assert_allclose(found[name], column, rtol=RELATIVE, atol=absolute, err_msg=name)
            else:
                np.testing.assert_array_equal(found[name], column, err_msg=name)
