"""The Triton models of the ensemble of exatrkx-service: `embed`, `frnn`, `filter`, `applyfilter`, `gnn` and `wcc`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from traccc_py.backend.exatrkx import LabelModel
from traccc_py.config import ChainConfig
from traccc_py.device.base import Device
from traccc_py.errors import WireError
from traccc_py.geometry import Detector
from traccc_py.pipeline.label_steps import LabelSteps
from traccc_py.wire.exatrkx import STEPS, step_tensor

__all__ = ["TritonPythonModel"]


class TritonPythonModel(LabelModel):
    """One step; which one, the name of the model says."""

    def prepare(self, args: dict[str, str], detector: Detector, config: ChainConfig, device: Device) -> None:
        """Make the step, and let it work on an example."""
        (self._step,) = (step for step in STEPS if step.model == args["model_name"])
        steps = LabelSteps(detector, config, device)
        work: dict[str, Callable[..., np.ndarray]] = {
            "embed": steps.embed,
            "frnn": steps.neighbours,
            "filter": steps.filter_scores,
            "applyfilter": steps.kept_edges,
            "gnn": steps.edge_scores,
            "wcc": steps.labels,
        }
        self._work = work[self._step.model]
        steps.warm_up(only=self._work)

    def answer(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what the step gives."""
        found = self._work(*(self._received(tensors, name) for name in self._step.inputs))
        (name,) = self._step.outputs
        return {name: found}

    def _received(self, tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
        spec = step_tensor(self._step.inputs[name])
        if name not in tensors:
            msg = f"{name} is missing; got {', '.join(sorted(tensors)) or 'nothing'}"
            raise WireError(msg)
        array = tensors[name]
        if array.dtype != np.dtype(spec.dtype) or not spec.fits(array.shape):
            shape = ", ".join("n" if n < 0 else str(n) for n in spec.dims)
            msg = f"{name} is {array.dtype} of shape {array.shape}; expected {spec.dtype} of shape ({shape})"
            raise WireError(msg)
        return array
