"""The client where things go wrong around it: forks, dead servers, odd columns, deadlines."""

import asyncio
import contextlib
import multiprocessing
import os
import re
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.integration.small_events import telescope, telescope_cells
from tests.service.conftest import url
from traccc_py import TrackingChain, wire
from traccc_py.backend.ports import free_port
from traccc_py.cli.app import app
from traccc_py.client.failures import explained, is_worth_repeating, needs_larger_outputs
from traccc_py.client.options import ClientOptions
from traccc_py.edm import Cells
from traccc_py.errors import InputDataError, ServiceError, TracccError

client_module = pytest.importorskip("traccc_py.client")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException
TrackingClient = client_module.TrackingClient

FORK_SECONDS = 20
DOWN_SECONDS = 6  # gRPC tries at 0, 1.0, 2.6, 5.2 and 9.3 s, with a fifth of them at random
RECONNECT_SECONDS = 2.8


def in_forked_child(function):
    """Return what a function returns in a forked child; fail if it hangs."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, repr(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    deadline = time.monotonic() + FORK_SECONDS
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    with os.fdopen(reader) as file:
        return file.read()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("how", ["same client", "new client", "new client after close"])
def test_http_works_in_a_forked_child(http_url, sample_cells, how):
    with TrackingClient(http_url, "http", timeout=10, retries=0) as client:
        n = len(client.reconstruct(sample_cells))
        if how == "new client after close":
            client.close()

        def ask():
            if how == "same client":
                return len(client.reconstruct(sample_cells))
            with TrackingClient(http_url, "http", timeout=10, retries=0) as other:
                return len(other.reconstruct(sample_cells))

        assert in_forked_child(ask) == repr(n)
        assert len(client.reconstruct(sample_cells)) == n  # the connection is still its own


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_forked_child_leaves_shared_memory_to_its_parent(sharing_server, sample_cells):
    with TrackingClient(url(sharing_server, "http"), "http", shared_memory="system") as client:
        n = len(client.reconstruct(sample_cells))
        in_forked_child(client.close)
        assert len(client.reconstruct(sample_cells)) == n


def ask_once(url, cells):
    with TrackingClient(url, "http", timeout=10) as client:
        return len(client.reconstruct(cells))


def test_http_works_in_a_spawned_child(http_url, sample_cells):
    with TrackingClient(http_url, "http") as client:
        n = len(client.reconstruct(sample_cells))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(ask_once, (http_url, sample_cells)).get(60) == n


@pytest.fixture
def dead_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_dead_server_is_given_up_soon(server, tmp_path, monkeypatch, sample_cells):
    """Formerly each event of hundreds was tried in turn; the error came at the end."""
    from traccc_py.client import tracking

    monkeypatch.setattr(tracking, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(tracking, "LAST_PAUSE", 0.02)
    ask, asked = tracking._Connection._ask, []

    def dying(self, *arguments):
        asked.append(1)
        if len(asked) > 2:
            raise ConnectionRefusedError(111, "Connection refused")
        return ask(self, *arguments)

    monkeypatch.setattr(tracking._Connection, "_ask", dying)
    from traccc_py.data.sample import sample_event_path

    url = f"127.0.0.1:{server.ports.http}"
    options = ["--http", "--repeat", "718", "--in-flight", "1", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["client", str(sample_event_path()), "-u", url, *options])
    assert done.exit_code == 2
    output = " ".join(done.output.split())
    assert "given up: 3 events in a row failed; 713 were not sent" in output
    assert "5 events, 40 tracks, 3 errors" in output
    assert len(list(tmp_path.glob("*tracks.csv"))) == 1  # what came is written


def test_dead_server_is_said_at_once(dead_url, sample_cells, caplog):
    client, begin = TrackingClient(dead_url, "http", timeout=30), time.monotonic()

    def ask():
        with pytest.raises(ServiceError):
            client.reconstruct(sample_cells)

    thread = threading.Thread(target=ask)
    thread.start()
    while "can't be reached" not in caplog.text:
        assert time.monotonic() - begin < 2
        time.sleep(0.01)
    assert "it is sent again" in caplog.text
    thread.join()


@pytest.mark.parametrize(
    "text",
    ["the event waited for 2.1 s; its sender allows 2 s", "the request was cancelled", "the event waited for ..."],
)
@pytest.mark.parametrize("status", ["400", "499", "StatusCode.CANCELLED"])
def test_late_events_are_not_refused_ones(text, status):
    """Triton 2.51 sends 400 for both by HTTP; values are left out where memory is shared."""
    text = text.replace("for ...", "for ... s; its sender allows ... s")
    for prefix in ("", "in ensemble 'traccc-gpu-compact', "):
        error = InferenceServerException(prefix + text, status=status)
        assert not is_worth_repeating(error)
        found = explained(error, ClientOptions(timeout=2))
        assert isinstance(found, ServiceError)
        assert f"did not answer within 2 s: {text}" in str(found)


def test_refused_events_stay_refused():
    text = "cells row 3 (counted from 0): geometry_id is 77"
    assert isinstance(explained(InferenceServerException(text, status="400"), ClientOptions()), InputDataError)


def test_a_server_without_room_is_asked_again_not_for_more():
    """The message is much like that of outputs that do not fit into the client's shared memory."""
    full = InferenceServerException(
        "Failed to increase the shared memory pool size for key 'x' to 67108864 bytes: No space left on device"
    )
    small = InferenceServerException(
        "shared memory size specified with the request for output 'TRK_PARAMS' (640 bytes) should be at least 800 bytes"
    )
    assert is_worth_repeating(full)
    assert not needs_larger_outputs(full)
    assert needs_larger_outputs(small)


@pytest.mark.parametrize("ask", ["once", "asynchronously"])
def test_another_port_of_the_server_is_told_to_be_one(server, sample_cells, ask):
    """That of metrics answers everything, with nothing that is JSON."""
    function = {"once": ask_once, "asynchronously": ask_asynchronously}[ask]
    with pytest.raises(ServiceError, match=r"can't be reached: .*is this its HTTP port \(8000 by default\)\?"):
        function(f"127.0.0.1:{server.ports.metrics}", sample_cells)


def ask_asynchronously(url, cells):
    async def ask():
        async with client_module.AsyncTrackingClient(url, "http", timeout=10) as client:
            return await client.reconstruct(cells)

    return asyncio.run(ask())


def changed(cells, **columns):
    return replace(cells, **columns)


BAD = {
    "cells.channel0 has type float64; expected integers": lambda c: {"channel0": c.channel0 + 0.5},
    "cells.channel1 has type float32; expected integers": lambda c: {"channel1": c.channel1.astype(np.float32)},
    "cells.geometry_id has type float64; expected integers": lambda c: {"geometry_id": c.geometry_id.astype(float)},
    "cells.activation has type bool; expected numbers": lambda c: {"activation": c.activation > 0},
    "cells.time has shape (3,); expected (": lambda c: {"time": c.time[:3]},
    "cells.channel0 has shape (3,); expected (": lambda c: {"channel0": c.channel0[:3]},
    "cells.channel1 has shape (": lambda c: {"channel1": c.channel1[:, np.newaxis]},
}


@pytest.mark.parametrize("compact", [False, True], ids=["standard", "compact"])
@pytest.mark.parametrize("message", BAD)
def test_columns_are_checked_as_the_chain_checks_them(message, compact):
    good = telescope_cells(3, 1, telescope())
    bad = changed(good, **BAD[message](good))
    with pytest.raises(InputDataError, match=re.escape(message)):
        ClientOptions(compact=compact).pack(bad)
    with pytest.raises(InputDataError, match=re.escape(message)):
        TrackingChain(telescope(), device="cpu", threads=1).run(bad)


@pytest.mark.parametrize("compact", [False, True], ids=["standard", "compact"])
@pytest.mark.parametrize("wide", [0, 5000])
def test_byte_order_of_columns_does_not_matter(compact, wide):
    cells = telescope_cells(3, 1, telescope())
    cells = changed(cells, channel0=(cells.channel0 + wide).astype(np.int32))
    swapped = Cells(
        *(np.asarray(getattr(cells, n)).astype(getattr(cells, n).dtype.newbyteorder(">")) for n in Cells.__slots__)
    )
    expected, found = (ClientOptions(compact=compact).pack(c) for c in (cells, swapped))
    assert set(expected) == set(found)
    for name, values in expected.items():
        assert values.tobytes() == found[name].tobytes()


def test_time_left_is_told_to_the_server(http_url, sample_cells, monkeypatch):
    from traccc_py.client import tracking

    told, ask = [], tracking._Connection._ask

    def noted(self, inputs, outputs, timeout):
        infer = self._client.infer
        monkeypatch.setattr(self._client, "infer", lambda *a, **k: (told.append(k["timeout"]), infer(*a, **k))[1])
        return ask(self, inputs, outputs, timeout)

    monkeypatch.setattr(tracking._Connection, "_ask", noted)
    with TrackingClient(http_url, "http", timeout=7) as client:
        client.reconstruct(sample_cells)
    assert 5e6 < told[0] <= 7e6


def test_one_chain_in_two_threads_is_an_error():
    chain, cells = TrackingChain(telescope(), device="cpu", threads=1), telescope_cells(50, 1, telescope())
    expected = wire.pack_result(chain.run(cells))
    outcomes, go = [], threading.Barrier(2)

    def use():
        go.wait()
        for _ in range(30):
            try:
                outcomes.append(wire.pack_result(chain.run(cells)))
            except TracccError as error:
                outcomes.append(error)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
    errors = [o for o in outcomes if isinstance(o, TracccError)]
    assert errors
    assert all("being used by another thread" in str(error) for error in errors)
    for tensors in (o for o in outcomes if not isinstance(o, TracccError)):
        assert all(tensors[n].tobytes() == expected[n].tobytes() for n in expected if n != "STAGE_TIMES")


def test_batches_of_a_chain_that_another_thread_uses_are_an_error():
    chain, cells = TrackingChain(telescope(), device="cpu", threads=1), telescope_cells(3, 1, telescope())
    chain.run(cells)
    found = []

    def other():
        for use in (lambda: chain.run(cells), lambda: next(chain.run_batches([[cells]])), chain.initialize):
            try:
                found.append(use())
            except TracccError as error:
                found.append(str(error))

    def batches():
        yield [cells]
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        yield [cells]

    assert len(list(chain.run_batches(batches()))) == 2
    assert len(found) == 3
    assert all("being used by another thread" in str(text) for text in found)


def test_grpc_connects_again_soon_after_a_server_was_down():
    """By itself gRPC waits for longer and longer before it tries again."""
    port = free_port("127.0.0.1")

    def ask():
        with contextlib.suppress(TracccError), TrackingClient(f"127.0.0.1:{port}", timeout=20, retries=100) as client:
            client.facts()

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(DOWN_SECONDS)
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(20)
        begin = time.monotonic()
        connection, _ = server.accept()
        waited = time.monotonic() - begin
        connection.close()
    thread.join()
    assert waited < RECONNECT_SECONDS
