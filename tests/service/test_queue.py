"""The queue of a real server: what nobody waits for is not computed, small events pass large ones."""

import threading
import time

import numpy as np
import pytest

from studies.common import muon_gun
from tests.service.test_concurrency import counters
from traccc_py import wire
from traccc_py.client import TrackingClient
from traccc_py.simulation.events import simulate_event

grpc_client = pytest.importorskip("tritonclient.grpc")
http_client = pytest.importorskip("tritonclient.http")

N_MUONS = 7500  # some 260,000 cells: two do not fit into a batch
N_CANCELLED = 20


@pytest.fixture(scope="module")
def large(detector):
    cells = simulate_event(detector, muon_gun(N_MUONS), 5).cells
    assert len(cells) > 250_000
    return cells


def inputs(module, cells):
    made = []
    for spec, values in zip(wire.STANDARD_INPUTS, wire.pack_cells(cells).values(), strict=True):
        made.append(module.InferInput(spec.name, list(values.shape), spec.triton_dtype))
        made[-1].set_data_from_numpy(values)
    return made


class Busy:
    """Keeps the server busy with large events."""

    def __init__(self, url, cells, n_clients):
        self._stop, self.seconds, self.sizes = threading.Event(), [], set()
        self._threads = [threading.Thread(target=self._run, args=(url, cells)) for _ in range(n_clients)]

    def _run(self, url, cells):
        with TrackingClient(url, timeout=120) as client:
            while not self._stop.is_set():
                begin = time.monotonic()
                self.sizes.add(len(client.reconstruct(cells)))
                self.seconds.append(time.monotonic() - begin)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_cancelled_calls_are_not_computed(server, grpc_url, large):
    """Formerly each took its time, and all others waited."""
    before = counters(server)
    with Busy(grpc_url, large, 2) as busy, grpc_client.InferenceServerClient(grpc_url) as client:
        time.sleep(0.5)
        made = inputs(grpc_client, large)
        calls = [client.async_infer(wire.MODEL, made, lambda *_: None) for _ in range(N_CANCELLED)]
        time.sleep(0.05)  # they arrive, and few are computed
        for call in calls:
            call.cancel()
        time.sleep(0.2)
        with TrackingClient(grpc_url, timeout=60) as other:
            begin = time.monotonic()
            other.reconstruct(large)
            waited = time.monotonic() - begin
    after = counters(server)
    done = {name: after[name] - before[name] for name in after}
    assert done["traccc_py_withdrawn_total"] >= N_CANCELLED / 2  # formerly none; some are in progress or done
    assert waited < (N_CANCELLED / 2) * min(busy.seconds) / 2
    assert len(busy.sizes) == 1
    assert done["traccc_py_failed_total"] == done["traccc_py_refused_total"] == 0


@pytest.mark.parametrize("model", [wire.MODEL, wire.COMPACT_MODEL])
def test_late_requests_are_not_computed(server, grpc_url, http_url, large, sample_cells, model):
    """The time that the sender allows is a parameter of the request; closed HTTP connections are not told to models."""
    if model == wire.MODEL:
        made = inputs(http_client, large)
    else:
        values = wire.pack_compact_cells(large)["CELLS"]
        made = [http_client.InferInput("CELLS", list(values.shape), "UINT8")]
        made[0].set_data_from_numpy(values)
    before = counters(server)
    with Busy(grpc_url, large, 2), http_client.InferenceServerClient(http_url) as client:
        time.sleep(0.5)
        with pytest.raises(Exception, match=r"the event waited for .* s; its sender allows 0\.001 s"):
            client.infer(model, made, timeout=1000)
    assert counters(server)["traccc_py_withdrawn_total"] == before["traccc_py_withdrawn_total"] + 1


def test_small_events_pass_large_ones(server, grpc_url, large, sample_cells):
    """Four clients send large events; a small one waits for one of them, not for all."""
    with Busy(grpc_url, large, 4) as busy, TrackingClient(grpc_url, timeout=60) as client:
        time.sleep(1)
        seconds = []
        for _ in range(15):
            begin = time.monotonic()
            assert len(client.reconstruct(sample_cells)) == 20
            seconds.append(time.monotonic() - begin)
    one_large = np.median(busy.seconds) / 4  # they take turns
    assert np.median(seconds) < 1.5 * one_large
