"""The load generator: so many requests on the way at a time, from one event loop.

Messages are made before, as they go on the wire, and of an answer only the tracks are looked at. In some studies the
generator shares the cores of the service, and what it uses is lost there: making its messages was a third of that.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from traccc_py import wire
from traccc_py.client.options import ClientOptions
from traccc_py.client.requests import grpc_arguments, make_input, triton_module
from traccc_py.edm import Cells
from traccc_py.studies.load import LoadRun, Request

__all__ = ["generate_label_load", "generate_load"]

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_MOST_CHANNELS = 16
_PAUSE = 0.1  #: after an error [s]
_LONGEST = 10.0  #: times the wanted seconds that slow requests may take
_REQUESTS_EACH = 3  #: of each place on the way, at least


class _Requests(NamedTuple):
    """What is sent: the tensors of each event, packed before."""

    model: str
    tensors: list[dict[str, np.ndarray]]
    outputs: Sequence[str]  # none: all
    parameters: Mapping[str, str]
    compared: str  # the output that must be the same each time

    def messages(self, module: Any) -> list[bytes]:
        """Return the request of each event, as gRPC sends it."""
        return [self._message(module, tensors) for tensors in self.tensors]

    def _message(self, module: Any, tensors: Mapping[str, np.ndarray]) -> bytes:
        request = module.service_pb2.ModelInferRequest(model_name=self.model)
        for name, values in tensors.items():
            given = make_input(module, name, values)
            request.inputs.add(name=name, datatype=given.datatype(), shape=given.shape())
            request.raw_input_contents.append(values.tobytes())
        for name in self.outputs:
            request.outputs.add(name=name)
        for name, text in self.parameters.items():
            request.parameters[name].string_param = text
        return request.SerializeToString()


class _Loop:
    """The state of one measurement."""

    def __init__(self, options: ClientOptions, given: _Requests, timeout: float) -> None:
        self._options, self._compared = options, given.compared
        self._module = triton_module("grpc", asynchronous=True)
        self._messages = given.messages(self._module)
        self._timeout, self._turns = timeout, itertools.count()
        self._answers: dict[int, bytes] = {}
        self.requests: list[Request] = []
        self.is_over = False

    def _channel(self) -> Any:
        """Return a connection."""
        channel_options = grpc_arguments(self._options)["channel_args"]
        return self._module.grpc.aio.insecure_channel(self._options.url, options=channel_options)

    async def work(self, channel: Any) -> None:
        """Send one event after another, until it is over."""
        parse = self._module.service_pb2.ModelInferResponse.FromString
        ask = channel.unary_unary(_METHOD, response_deserializer=parse)
        while not self.is_over:
            number = next(self._turns) % len(self._messages)
            begin = time.monotonic()
            error = await self._send(ask, number)
            self.requests.append(Request(begin, time.monotonic(), not error, error))
            if error:
                await asyncio.sleep(_PAUSE)

    async def _send(self, ask: Any, number: int) -> str:
        """Return why there is no right answer, "" if there is one."""
        try:
            answer = await ask(self._messages[number], timeout=self._timeout)
            found = self._module.InferResult(answer).as_numpy(self._compared)
        except self._module.grpc.RpcError as error:
            return f"{error.code()}: {error.details()}"
        except Exception as error:  # of any kind: it is counted, and the study goes on
            return f"{type(error).__name__}: {error}"
        if found is None:
            return f"{self._compared} is missing"
        content = np.ascontiguousarray(found).tobytes()
        return "" if self._answers.setdefault(number, content) == content else "the answer is not that of before"

    async def run(self, concurrency: int, warm_up: float, seconds: float) -> LoadRun:
        """Measure."""
        n_channels = min(concurrency, _MOST_CHANNELS)
        channels = [self._channel() for _ in range(n_channels)]
        tasks = [asyncio.create_task(self.work(channels[k % n_channels])) for k in range(concurrency)]
        try:
            await self._wait(warm_up, concurrency)
            self.requests.clear()
            begin, system, processor = time.monotonic(), time.time(), time.process_time()
            await self._wait(seconds, _REQUESTS_EACH * concurrency)
            end, system, processor = time.monotonic(), time.time() - system, time.process_time() - processor
            measured = [request for request in self.requests if request.end < end]
        finally:
            self.is_over = True
            await asyncio.gather(*tasks, return_exceptions=True)
            for channel in channels:
                await channel.close()
        return LoadRun("asyncio", concurrency, begin, end, system, measured, processor / (end - begin))

    async def _wait(self, seconds: float, n_requests: int) -> None:
        """Wait for some time, and longer if there were few requests."""
        begin = time.monotonic()
        while (spent := time.monotonic() - begin) < seconds or (
            len(self.requests) < n_requests and spent < _LONGEST * seconds
        ):
            await asyncio.sleep(min(0.05, seconds))


def generate_load(
    url: str,
    events: Sequence[Cells],
    concurrency: int,
    *,
    seconds: float,
    warm_up: float,
    timeout: float = 60.0,
    **options: Any,
) -> LoadRun:
    """Send events to a service in turn, so many at a time.

    Parameters
    ----------
    url : str
        Its address of gRPC, ``host:port``.
    events : sequence of Cells
        Events.
    concurrency : int
        Requests on the way at a time [1].
    seconds, warm_up : float
        Measured time, and time before it that does not count [s]; the first lasts longer where there were few answers.
    timeout : float, optional
        How long an answer may take [s].
    **options
        Of `ClientOptions`, such as `compact`.

    Returns
    -------
    LoadRun
        Errors are among its requests, also answers that differ from the first one of the same event.

    Raises
    ------
    ServiceError
        If tritonclient is not installed.
    """
    chosen = ClientOptions(url, **options)
    tensors = [dict(chosen.pack(cells)) for cells in events]
    given = _Requests(chosen.model, tensors, chosen.output_names, chosen.parameters, wire.OUTPUTS[0].name)
    return asyncio.run(_Loop(chosen, given, timeout).run(concurrency, warm_up, seconds))


def generate_label_load(
    url: str,
    model: str,
    tables: Sequence[np.ndarray],
    concurrency: int,
    *,
    seconds: float,
    warm_up: float,
    timeout: float = 60.0,
) -> LoadRun:
    """Send tables of spacepoints to a model that labels them, so many at a time.

    Parameters
    ----------
    url : str
        Address of gRPC of the service, ``host:port``.
    model : str
        Name of the model.
    tables : sequence of ndarray
        FEATURES of events.
    concurrency, seconds, warm_up, timeout
        As in `generate_load`.
    """
    tensors = [{wire.FEATURES.name: table} for table in tables]
    given = _Requests(model, tensors, (), {}, wire.LABELS.name)
    return asyncio.run(_Loop(ClientOptions(url), given, timeout).run(concurrency, warm_up, seconds))
