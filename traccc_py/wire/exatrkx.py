"""The six steps of exatrkx-service: their models and tensors, with the names that its ensemble has.

`docs/protocol.md` shows them. The last step takes FEATURES, too: from edges alone nobody can tell how many spacepoints
there are, so those behind the last one with an edge would have no label.
"""

from __future__ import annotations

from dataclasses import dataclass

from traccc_py.wire.tensors import FEATURES, LABELS

__all__ = ["ENSEMBLE_MODEL", "STEPS", "Step", "StepTensor", "step_tensor"]

ENSEMBLE_MODEL = "exatrkx-ensemble"


@dataclass(frozen=True, slots=True)
class StepTensor:
    """What steps give one another.

    Parameters
    ----------
    dtype : str
        NumPy type.
    triton_dtype : str
        Its name in Triton's protocol.
    dims : tuple of int
        Shape; -1 stands for a number that differs from event to event.
    meaning : str
        What it is.
    """

    dtype: str
    triton_dtype: str
    dims: tuple[int, ...]
    meaning: str

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array may have a shape."""
        return len(shape) == len(self.dims) and all(n in (-1, m) for n, m in zip(self.dims, shape, strict=True))


@dataclass(frozen=True, slots=True)
class Step:
    """One model.

    Parameters
    ----------
    model : str
        Its name.
    inputs, outputs : dict
        What each of its tensors, by name, is in the ensemble.
    """

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


_SHARED = {
    "PLACES": StepTensor("float32", "FP32", (-1, 8), "spacepoints in the embedding"),
    "PAIRS": StepTensor("int64", "INT64", (2, -1), "rows of spacepoints that are close together there"),
    "FILTER_SCORES": StepTensor("float32", "FP32", (-1, 1), "logits of the filter"),
    "EDGES": StepTensor("int64", "INT64", (2, -1), "pairs that the filter keeps"),
    "EDGE_SCORES": StepTensor("float32", "FP32", (-1,), "logits of the interaction network"),
    FEATURES.name: StepTensor(FEATURES.dtype, FEATURES.triton_dtype, FEATURES.dims, "r [m], phi [pi], z [m]"),
    LABELS.name: StepTensor(LABELS.dtype, LABELS.triton_dtype, LABELS.dims, "one for each spacepoint"),
}

#: The steps in their order.
STEPS = (
    Step("embed", {"INPUT__0": "FEATURES"}, {"OUTPUT__0": "PLACES"}),
    Step("frnn", {"INPUT0": "PLACES"}, {"OUTPUT0": "PAIRS"}),
    Step("filter", {"INPUT__0": "FEATURES", "INPUT__1": "PAIRS"}, {"OUTPUT__0": "FILTER_SCORES"}),
    Step("applyfilter", {"FILTER_SCORES": "FILTER_SCORES", "EDGE_LIST": "PAIRS"}, {"EDGE_LIST_AFTER_FILTER": "EDGES"}),
    Step("gnn", {"INPUT__0": "FEATURES", "INPUT__1": "EDGES"}, {"OUTPUT__0": "EDGE_SCORES"}),
    Step("wcc", {"INPUT0": "EDGES", "INPUT1": "EDGE_SCORES", "FEATURES": "FEATURES"}, {"OUTPUT0": "LABELS"}),
)


def step_tensor(name: str) -> StepTensor:
    """Return what a tensor of the ensemble, named as `Step` has it, looks like."""
    return _SHARED[name]
