"""A device that runs every kernel with a body for CUDA twice: in Numba's simulator and as the CPU does."""

from operator import attrgetter

import numpy as np

from tests.devices.simulator import SimulatorDevice
from traccc_py.device.cuda.layout import leaves
from traccc_py.device.deferred import DeferredDevice

#: What a kernel leaves in no order that matters: lists of work in progress.
WORK_SPACE = {
    "ambiguity_resolution_resolve_event": (
        *("owners.n", "owners.offsets", "owners.candidate", "n_shared", "active"),
        *("worst.key", "worst.key_of", "worst.candidate_of", "worst.next_active"),
    ),
    "clusterization_label_cells": ("out_last",),
    "grouping_count_members": ("place",),
    "seeding_thinning_decide_seeds": ("state",),  # how far a pass comes depends on who is seen deciding
}


def copied(payload):
    """Return a payload with arrays of its own; arrays that were the same stay the same."""
    twins = {}

    def twin(value):
        if isinstance(value, tuple):
            return type(value)(*(twin(member) for member in value))
        if isinstance(value, np.ndarray):
            return twins.setdefault(id(value), value.copy())
        return value

    return twin(payload)


class CheckingDevice(DeferredDevice):
    """Runs kernels on the CPU, and asserts that the bodies for CUDA of some of them give the same bits.

    Parameters
    ----------
    *names : str
        Kernels that are run twice; the simulator is slow.
    """

    def __init__(self, *names):
        super().__init__(threads=1)
        self._names = names
        self._simulator = SimulatorDevice()
        self.checked = {}

    def launch(self, kernel, extent, payload):
        if kernel.name not in self._names or self._size(extent) == 0:
            super().launch(kernel, extent, payload)
            return
        simulated = copied(payload)
        self._simulator.launch(kernel, extent, simulated)
        super().launch(kernel, extent, payload)
        skipped = [attrgetter(name)(payload) for name in WORK_SPACE.get(kernel.name, ())]
        for got, expected in zip(leaves(simulated), leaves(payload), strict=True):
            if not any(expected is array for array in skipped):
                np.testing.assert_array_equal(got, expected, err_msg=kernel.name)
        self.checked[kernel.name] = self.checked.get(kernel.name, 0) + 1
