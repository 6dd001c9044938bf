"""Memory of a model instance: an event that needs too much is refused, and the next one is answered."""

import subprocess
import sys

import pytest

# In a process of its own: a limit of memory can not be taken back by everyone.
PROGRAM = """
import sys
import numpy as np
from tests.integration.small_events import telescope_cells
from traccc_py import wire
from traccc_py.backend.processes import free_memory, limit_memory
from traccc_py.backend.service import DecodedEvent, TrackingService
from traccc_py.backend.settings import ModelSettings
from traccc_py.detector_options import DetectorOptions
from traccc_py.edm import Cells
from traccc_py.errors import CapacityError

service = TrackingService(ModelSettings(DetectorOptions("telescope"), threads=1), "cpu")
service.initialize()
small = telescope_cells(3, 1, service.chain.detector)
(expected,) = service.process([DecodedEvent(small)])
random = np.random.default_rng(1)
n = int(sys.argv[1])
ids = random.choice(service.chain.detector.geometry_ids, n)
noise = Cells(ids, *random.integers(0, 500, (2, n)), np.ones(n, np.float32), np.zeros(n, np.float32), np.zeros(n, int))
assert free_memory() > 10_000_000
limit_memory(30_000_000)
for batch in ([noise], [small, noise, small], [noise]):
    answers = service.process([DecodedEvent(event) for event in batch])
    for event, answer in zip(batch, answers, strict=True):
        if event is noise:
            assert isinstance(answer, CapacityError), answer
            print(answer)
        else:
            assert all(answer[k].tobytes() == expected[k].tobytes() for k in expected if k != "STAGE_TIMES")
"""


@pytest.mark.parametrize("n_cells", [200_000, 2_000_000])
def test_event_of_noise_beyond_the_memory_is_refused_alone(n_cells):
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(n_cells)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"the event, which has {n_cells} cells, needs more memory") == 3
