"""Requests and connections with tritonclient."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from traccc_py import wire
from traccc_py.client.options import FIRST_PAUSE, LAST_PAUSE, ClientOptions
from traccc_py.errors import ServiceError

__all__ = [
    "grpc_arguments",
    "make_input",
    "make_inputs",
    "model_facts",
    "options_for_server",
    "present",
    "requested_outputs",
    "triton_module",
]

_LARGEST_MESSAGE = 2**31 - 1  # of gRPC [bytes]
_SPECS = {spec.name: spec for spec in (*wire.STANDARD_INPUTS, *wire.COMPACT_INPUTS, wire.FEATURES)}


def triton_module(protocol: str, *, asynchronous: bool = False) -> Any:
    """Return tritonclient's module for a protocol.

    Raises
    ------
    ServiceError
        If it is not installed.
    """
    name = f"tritonclient.{protocol}" + (".aio" if asynchronous else "")
    try:
        module = importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # tritonclient raises RuntimeError for missing packages
        msg = f'{name} can\'t be imported ({error}); install it with pip install "traccc-py[client]"'
        raise ServiceError(msg) from error
    if name == "tritonclient.http":
        _survive_forks()
    return module


@cache
def _survive_forks() -> None:
    """Give child processes an event loop of their own, once: with its parent's, HTTP requests would wait for ever."""
    os.register_at_fork(after_in_child=importlib.import_module("gevent").reinit)


def requested_outputs(module: Any, options: ClientOptions) -> list[Any]:
    """Return tritonclient's objects for the requested outputs."""
    return [module.InferRequestedOutput(name) for name in options.output_names]


def model_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return protocol version, detector and its fingerprint from a model's configuration; empty for other servers."""
    content = config.get("config", config)  # gRPC wraps it
    parameters = content.get("parameters", {})
    return {name: str(value.get("string_value", "")) for name, value in parameters.items()}


def options_for_server(options: ClientOptions, facts: Mapping[str, str]) -> ClientOptions:
    """Return the options without the tensors that came after the server, unless they were asked for by name.

    Raises
    ------
    ServiceError
        If the server expects later input than this client makes, or has not what was asked for.
    """
    expected = _number(facts, "protocol_version", wire.INPUT_VERSION)
    if expected > wire.INPUT_VERSION:
        msg = (
            f"the server at {options.url} takes input of version {expected}, this client makes version "
            f"{wire.INPUT_VERSION}: use a newer traccc-py here"
        )
        raise ServiceError(msg)
    version = _number(facts, wire.OUTPUT_VERSION_PARAMETER, 1)
    missing = {spec.name: spec.since for spec in wire.OUTPUTS if spec.since > version} if facts else {}
    unmet = [name for name in options.output_names if name in missing]
    if not unmet:
        return options
    if options.outputs is not None:
        msg = (
            f"the server at {options.url} has outputs of version {version}, and {unmet[0]} came with version "
            f"{missing[unmet[0]]}: use a newer traccc-py there, or do not ask for it"
        )
        raise ServiceError(msg)
    return replace(options, outputs=[name for name in options.output_names if name not in missing])


def _number(facts: Mapping[str, str], name: str, default: int) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdigit() else default


def make_input(module: Any, name: str, values: np.ndarray) -> Any:
    """Return tritonclient's object for an input, without its values."""
    return module.InferInput(name, list(values.shape), _SPECS[name].triton_dtype)


def make_inputs(module: Any, tensors: Mapping[str, np.ndarray]) -> list[Any]:
    """Return tritonclient's objects for inputs that are sent in the request."""
    inputs = []
    for name, values in tensors.items():
        inputs.append(make_input(module, name, values))
        inputs[-1].set_data_from_numpy(values)
    return inputs


def present(array: np.ndarray | None, name: str) -> np.ndarray:
    """Return an output tensor.

    Raises
    ------
    ServiceError
        If the server left it out.
    """
    if array is None:
        msg = f"the server left out {name}, which was asked for"
        raise ServiceError(msg)
    return array


def grpc_arguments(options: ClientOptions) -> dict[str, Any]:
    """Return the options of the gRPC clients: of encryption, and when to connect again.

    By itself gRPC waits for up to two minutes before it tries again to reach a server that was down, and meanwhile
    refuses what is sent.
    """
    pauses = {"initial": FIRST_PAUSE, "max": LAST_PAUSE}
    channel = [(f"grpc.{name}_reconnect_backoff_ms", int(seconds * 1e3)) for name, seconds in pauses.items()]
    channel += [(f"grpc.max_{what}_message_length", _LARGEST_MESSAGE) for what in ("send", "receive")]
    tls = options.tls
    if tls is None:
        return {"channel_args": channel}
    files = {"root_certificates": tls.ca, "private_key": tls.key, "certificate_chain": tls.certificate}
    encrypted = {name: None if path is None else str(path) for name, path in files.items()}
    return {"channel_args": channel, "ssl": True, **encrypted}
