"""The asynchronous client."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any

from traccc_py import wire
from traccc_py.client.failures import explained, is_worth_repeating
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
from traccc_py.edm import Cells
from traccc_py.errors import ConfigError, TracccError

__all__ = ["AsyncTrackingClient"]


class AsyncTrackingClient:
    """Sends events to a server for reconstruction, in an event loop.

    Parameters
    ----------
    url : str, optional
        ``host:port``.
    protocol : str, optional
        "grpc" or "http".
    **options
        See `ClientOptions`; only `TrackingClient` can use shared memory.

    Raises
    ------
    ConfigError
        If an option has an impossible value.
    ServiceError
        If tritonclient is not installed.

    Examples
    --------
    >>> async def count(cells):
    ...     async with AsyncTrackingClient("127.0.0.1:8001") as client:
    ...         return len(await client.reconstruct(cells))
    """

    def __init__(self, url: str = "127.0.0.1:8001", protocol: str = "grpc", **options: Any) -> None:
        self.options = ClientOptions(url, protocol, **options)
        if self.options.shared_memory is not None:
            msg = f"shared_memory is {self.options.shared_memory!r}; expected None: use TrackingClient"
            raise ConfigError(msg)
        self._module = triton_module(protocol, asynchronous=True)
        self._client: Any = None
        self._facts: dict[str, str] | None = None

    async def reconstruct(self, cells: Cells) -> wire.ServedTracks:
        """Return the tracks of one event; parameters, result and errors as `TrackingClient.reconstruct`."""
        tensors = self.options.pack(cells)
        answer = await self._within_timeout(lambda: self._infer(make_inputs(self._module, tensors)))
        return wire.unpack_tracks({name: present(answer.as_numpy(name), name) for name in self.options.output_names})

    async def stream(
        self, events: Iterable[Cells], in_flight: int = 4, *, return_errors: bool = False
    ) -> AsyncIterator[wire.ServedTracks | TracccError]:
        """Yield the tracks of many events, in order; as `TrackingClient.stream`."""
        if in_flight < 1:
            msg = f"in_flight is {in_flight}; expected at least 1"
            raise ConfigError(msg)
        pending: deque[asyncio.Task[wire.ServedTracks]] = deque()
        try:
            for cells in events:
                if len(pending) == in_flight:
                    yield await _outcome(pending.popleft(), return_errors=return_errors)
                pending.append(asyncio.create_task(self.reconstruct(cells)))
            while pending:
                yield await _outcome(pending.popleft(), return_errors=return_errors)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def facts(self) -> dict[str, str]:
        """Return protocol version and detector of the server; as `TrackingClient.facts`."""
        return await self._within_timeout(lambda: self._repeat(self._read_facts))

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def __aenter__(self) -> AsyncTrackingClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _connected(self) -> Any:
        """Return the connection, made on first use: it belongs to the loop running then."""
        if self._client is None:
            if self.options.protocol == "grpc":
                more = grpc_arguments(self.options)
            elif self.options.tls is not None:
                more = {"ssl": True, "ssl_context": self.options.tls.context()}
            else:
                more = {}
            self._client = self._module.InferenceServerClient(self.options.url, **more)
        return self._client

    async def _infer(self, inputs: list[Any]) -> Any:
        if self._facts is None:
            facts = await self._repeat(self._read_facts)
            self.options = options_for_server(self.options, facts)
            self._facts = facts
        return await self._repeat(lambda: self._ask(inputs))

    async def _within_timeout(self, action: Any) -> Any:
        try:
            async with asyncio.timeout(self.options.timeout):
                return await action()
        except TimeoutError as error:
            raise explained(error, self.options) from error

    async def _read_facts(self) -> dict[str, str]:
        headers = dict(self.options.headers)
        as_json = {"as_json": True} if self.options.protocol == "grpc" else {}
        return model_facts(await self._connected().get_model_config(self.options.model, headers=headers, **as_json))

    async def _ask(self, inputs: list[Any]) -> Any:
        return await self._connected().infer(
            self.options.model,
            inputs,
            outputs=requested_outputs(self._module, self.options),
            headers=dict(self.options.headers),
            parameters=self.options.parameters or None,
            timeout=int(self.options.timeout * 1e6),  # then the server need not begin any more [us]
        )

    async def _repeat(self, action: Any) -> Any:
        """Return what ``action()`` returns; retry where that is safe."""
        pause, begin = FIRST_PAUSE, time.monotonic()
        for attempt in range(self.options.retries + 1):
            try:
                return await action()
            except (TracccError, TimeoutError):
                raise
            except Exception as error:
                is_late = time.monotonic() - begin + pause > self.options.timeout
                if attempt == self.options.retries or is_late or not is_worth_repeating(error):
                    raise explained(error, self.options) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
        raise AssertionError  # the last attempt returns or raises


async def _outcome(task: asyncio.Task[wire.ServedTracks], *, return_errors: bool) -> wire.ServedTracks | TracccError:
    try:
        return await task
    except TracccError as error:
        if return_errors:
            return error
        raise
