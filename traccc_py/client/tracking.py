"""The synchronous client."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from traccc_py import wire
from traccc_py.client.failures import explained, is_worth_repeating, lost_shared_memory, needs_larger_outputs
from traccc_py.client.options import FIRST_PAUSE, LAST_PAUSE, ClientOptions
from traccc_py.client.requests import (
    grpc_arguments,
    make_inputs,
    model_facts,
    options_for_server,
    present,
    requested_outputs,
    triton_module,
)
from traccc_py.client.shared_memory import CudaRegion, SystemRegion
from traccc_py.edm import Cells
from traccc_py.errors import ConfigError, ServiceError, TracccError

__all__ = ["TrackingClient"]

_log = logging.getLogger(__name__)

_Owner: TypeAlias = tuple[int, int]  # process, thread
_OUTPUT_ATTEMPTS = 6  # doublings of the room for outputs in shared memory


class TrackingClient:
    """Sends events to a server for reconstruction.

    Parameters
    ----------
    url : str, optional
        ``host:port``.
    protocol : str, optional
        "grpc" or "http".
    **options
        See `ClientOptions`.

    Raises
    ------
    ConfigError
        If an option has an impossible value.
    ServiceError
        If tritonclient is not installed.

    Notes
    -----
    Connections are opened when needed. A client may be used by several threads.

    Examples
    --------
    >>> from traccc_py import read_cells
    >>> from traccc_py.client import TrackingClient
    >>> with TrackingClient("127.0.0.1:8001") as client:  # doctest: +SKIP
    ...     tracks = client.reconstruct(read_cells("event000000000-cells.csv"))
    """

    def __init__(self, url: str = "127.0.0.1:8001", protocol: str = "grpc", **options: Any) -> None:
        self.options = ClientOptions(url, protocol, **options)
        self._module = triton_module(protocol)
        self._free: dict[_Owner, list[_Connection]] = {}
        self._lock = threading.Lock()
        self._facts: dict[str, str] | None = None

    def reconstruct(self, cells: Cells) -> wire.ServedTracks:
        """Return the tracks of one event.

        Parameters
        ----------
        cells : Cells
            Its cells, in any order.

        Returns
        -------
        ServedTracks
            Fitted tracks, ordered as the chain orders them.

        Raises
        ------
        InputDataError
            If the server refuses the event; the message says which cell is wrong.
        WireError
            If the event does not fit into the compact tensor, or the answer is not understood.
        ServiceError
            If the server can't be reached, does not answer in time or fails.
        """
        deadline = time.monotonic() + self.options.timeout
        if self._facts is None:
            self._check_server(deadline)
        with self._connection() as connection:
            return wire.unpack_tracks(self._repeat(lambda left: connection.infer(cells, left), deadline))

    def stream(
        self, events: Iterable[Cells], in_flight: int = 4, *, return_errors: bool = False
    ) -> Iterator[wire.ServedTracks | TracccError]:
        """Yield the tracks of many events, in order.

        Parameters
        ----------
        events : iterable of Cells
            Read as needed: at most `in_flight` ahead of what was yielded.
        in_flight : int, optional
            Events in flight at a time [1], each on its own connection.
        return_errors : bool, optional
            Yield the errors of single events instead of raising them.

        Yields
        ------
        ServedTracks or TracccError
            One per event.

        Raises
        ------
        TracccError
            As `reconstruct`, unless `return_errors`.
        """
        if in_flight < 1:
            msg = f"in_flight is {in_flight}; expected at least 1"
            raise ConfigError(msg)
        pending: deque[Future[wire.ServedTracks]] = deque()
        pool = ThreadPoolExecutor(in_flight, "traccc_py-client")
        try:
            for cells in events:
                if len(pending) == in_flight:
                    yield _outcome(pending.popleft(), return_errors=return_errors)
                pending.append(pool.submit(self.reconstruct, cells))
            while pending:
                yield _outcome(pending.popleft(), return_errors=return_errors)
        finally:
            pool.shutdown(cancel_futures=True)
            self._close_connections_of_ended_threads()

    def facts(self) -> dict[str, str]:
        """Return protocol version, detector and detector fingerprint of the server.

        Returns
        -------
        dict of str to str
            Empty for servers other than this package's, such as traccc-aaS.

        Raises
        ------
        ServiceError
            If it can't be reached.
        """
        deadline = time.monotonic() + self.options.timeout
        with self._connection() as connection:
            return self._repeat(connection.facts, deadline)

    def is_ready(self) -> bool:
        """Return whether the server reports that its models are loaded."""
        with self._connection() as connection:
            try:
                return connection.is_ready()
            except Exception:
                return False

    def close(self) -> None:
        """Close all connections and free shared memory."""
        self._close_connections(lambda _: True)

    def __enter__(self) -> TrackingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_server(self, deadline: float) -> None:
        """Compare versions and leave out what the server does not have, once."""
        with self._connection() as connection:
            facts = self._repeat(connection.facts, deadline)
        self.options = options_for_server(self.options, facts)
        self._facts = facts

    @contextlib.contextmanager
    def _connection(self) -> Iterator[_Connection]:
        owner = self._owner()
        with self._lock:
            free = self._free.setdefault(owner, [])
            connection = free.pop() if free else None
        if connection is None:
            connection = _Connection(self._module, self.options)
        connection.options = self.options  # it may have been made before the server's versions were known
        try:
            yield connection
        finally:
            with self._lock:
                self._free.setdefault(owner, []).append(connection)

    def _owner(self) -> _Owner:
        """Return who may use a connection that is made now: this process; with HTTP, the thread that made it."""
        return os.getpid(), threading.get_ident() if self.options.protocol == "http" else 0

    def _close_connections(self, is_chosen: Callable[[int], bool]) -> None:
        with self._lock:
            chosen = [(pid, thread) for pid, thread in self._free if pid == os.getpid() and is_chosen(thread)]
            connections = [connection for owner in chosen for connection in self._free.pop(owner)]
        for connection in connections:
            connection.close()

    def _close_connections_of_ended_threads(self) -> None:
        living = {0, *(thread.ident for thread in threading.enumerate())}
        self._close_connections(lambda thread: thread not in living)

    def _repeat(self, action: Any, deadline: float) -> Any:
        """Return what ``action(seconds left)`` returns; retry where that is safe."""
        pause = FIRST_PAUSE
        for attempt in range(self.options.retries + 1):
            left = max(deadline - time.monotonic(), 1e-3)
            try:
                return action(left)
            except TracccError:
                raise
            except Exception as error:
                is_last = attempt == self.options.retries or time.monotonic() + pause > deadline
                if is_last or not is_worth_repeating(error):
                    raise explained(error, self.options) from error
                if attempt == 0:
                    _log.warning("%s; it is sent again", explained(error, self.options))
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
        raise AssertionError  # the last attempt returns or raises


def _outcome(future: Future[wire.ServedTracks], *, return_errors: bool) -> wire.ServedTracks | TracccError:
    try:
        return future.result()
    except TracccError as error:
        if return_errors:
            return error
        raise


class _Connection:
    """One connection, for one event at a time, with its own shared memory."""

    def __init__(self, module: Any, options: ClientOptions) -> None:
        self._module, self.options = module, options
        self._client = _connect(module, options)
        self._region: SystemRegion | CudaRegion | None = None
        if options.shared_memory == "system":
            self._region = SystemRegion(self._client, options.headers)
        elif options.shared_memory == "cuda":
            self._region = CudaRegion(self._client, options.headers, options.cuda_device)

    def infer(self, cells: Cells, timeout: float) -> dict[str, np.ndarray]:
        """Return the output tensors of an event."""
        if self._region is None:
            inputs = make_inputs(self._module, self.options.pack(cells))
            answer = self._ask(inputs, requested_outputs(self._module, self.options), timeout)
            return {name: present(answer.as_numpy(name), name) for name in self.options.output_names}
        return self._infer_shared(self._region, cells, timeout)

    def _infer_shared(self, region: SystemRegion | CudaRegion, cells: Cells, timeout: float) -> dict[str, np.ndarray]:
        names = self.options.output_names
        for _ in range(_OUTPUT_ATTEMPTS):
            inputs, outputs = region.put(self._module, partial(self.options.pack, cells), len(cells), names)
            try:
                answer = self._ask(inputs, outputs, timeout)
            except Exception as error:
                if lost_shared_memory(error):
                    region.register_again()
                elif needs_larger_outputs(error):
                    region.enlarge_outputs()
                else:
                    raise
                continue
            return {name: region.get(answer, name) for name in names}
        msg = f"the tracks of an event do not fit into shared memory at {self.options.url}"
        raise ServiceError(msg)

    def facts(self, timeout: float) -> dict[str, str]:
        """Return the model's configuration, or nothing if it may not be read."""
        headers = dict(self.options.headers)
        if self.options.protocol == "grpc":
            config = self._client.get_model_config(
                self.options.model, headers=headers, as_json=True, client_timeout=timeout
            )
        else:
            config = self._client.get_model_config(self.options.model, headers=headers)
        return model_facts(config)

    def is_ready(self) -> bool:
        """Return whether the server is ready."""
        return bool(self._client.is_model_ready(self.options.model, headers=dict(self.options.headers)))

    def close(self) -> None:
        """Close it."""
        if self._region is not None:
            self._region.close()
        with contextlib.suppress(Exception):  # of a thread that has ended
            self._client.close()

    def _ask(self, inputs: list[Any], outputs: list[Any], timeout: float) -> Any:
        more: dict[str, Any] = {"timeout": int(timeout * 1e6)}  # then the server need not begin any more [us]
        if self.options.protocol == "grpc":
            more["client_timeout"] = timeout
        return self._client.infer(
            self.options.model,
            inputs,
            outputs=outputs,
            headers=dict(self.options.headers),
            parameters=self.options.parameters or None,
            **more,
        )


def _connect(module: Any, options: ClientOptions) -> Any:
    """Return tritonclient's client."""
    if options.protocol == "grpc":
        return module.InferenceServerClient(options.url, **grpc_arguments(options))
    return module.InferenceServerClient(
        options.url,
        connection_timeout=options.timeout,
        network_timeout=options.timeout,
        ssl=options.tls is not None,
        ssl_context_factory=None if options.tls is None else options.tls.context,
    )
