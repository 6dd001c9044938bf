"""The Triton model `exatrkx`: positions of spacepoints in, labels out, with the tensors of exatrkx-service.

One label for each spacepoint: those of a candidate share theirs, all others have labels of their own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from traccc_py import wire
from traccc_py.backend.ending import EndingFile
from traccc_py.backend.label_settings import label_config
from traccc_py.backend.logs import TritonHandler
from traccc_py.backend.service import BusyError
from traccc_py.backend.settings import SETTINGS_FILE, ModelSettings
from traccc_py.backend.triton_tensors import from_triton, to_triton
from traccc_py.config import ChainConfig
from traccc_py.device import get_device
from traccc_py.device.base import Device
from traccc_py.errors import TracccError
from traccc_py.geometry import Detector
from traccc_py.pipeline.labelling import SpacepointLabeller

__all__ = ["LabelModel", "TritonPythonModel"]

_log = logging.getLogger(__name__)


class LabelModel:
    """One model instance of those that answer with arrays; the server creates it and calls the methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Put detector and weights on the device and compile the kernels.

        Parameters
        ----------
        args : dict
            Kind, device and folder of this instance.

        Raises
        ------
        TritonModelException
            If a setting can't be used.
        """
        self._ending = EndingFile.of_model(args["model_repository"])
        logger = logging.getLogger("traccc_py")
        logger.handlers = [TritonHandler(pb_utils.Logger)]
        logger.setLevel(logging.INFO)
        device = f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
        try:
            values = json.loads(Path(args["model_repository"], args["model_version"], SETTINGS_FILE).read_text())
            settings = ModelSettings.from_parameters(values)
            made = get_device(device, threads=settings.threads)
            self.prepare(args, settings.detector.load(), label_config(settings), made)
        except (TracccError, OSError, ValueError) as error:
            msg = f"{args['model_instance_name']}: {error}"
            raise pb_utils.TritonModelException(msg) from error

    def prepare(self, args: dict[str, str], detector: Detector, config: ChainConfig, device: Device) -> None:
        """Make what answers requests, and let it answer one."""
        raise NotImplementedError

    def answer(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors of an answer; raise a `TracccError` if the request can't be used."""
        raise NotImplementedError

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return an answer for each request; a bad one gets an error, and others are not affected."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        try:
            self._ending.check()
            answer = self.answer({tensor.name(): from_triton(tensor) for tensor in request.inputs()})
            return pb_utils.InferenceResponse([to_triton(name, array) for name, array in answer.items()])
        except TracccError as error:
            _log.warning("refused: %s", error)
            code = (
                pb_utils.TritonError.UNAVAILABLE if isinstance(error, BusyError) else pb_utils.TritonError.INVALID_ARG
            )
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
        except Exception:
            _log.exception("spacepoints could not be labelled")
            text = "the spacepoints could not be labelled; the server's log says why"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, pb_utils.TritonError.INTERNAL))


class TritonPythonModel(LabelModel):
    """The whole pipeline in one model."""

    def prepare(self, args: dict[str, str], detector: Detector, config: ChainConfig, device: Device) -> None:
        """Make the labeller, and let it label an example."""
        self._labeller = SpacepointLabeller(detector, config, device)
        self._labeller.warm_up()

    def answer(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the labels."""
        return {wire.LABELS.name: self._labeller.label(wire.received(tensors, wire.FEATURES))}
