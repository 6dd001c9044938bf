"""The networks as ONNX files, for servers and libraries that run such files.

Inputs are those of the pipelines of ExaTrkX: NODES and EDGE_FEATURES as in `kernels.gnn`, EDGES of two rows of node
numbers; the output SCORES is from 0 to 1. Sums over a node's edges are ScatterElements that add: without
``reduction="add"`` only one edge of each node would count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.extras import optional_module
from traccc_py.files import write_files
from traccc_py.gnn.weights import Weights
from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES
from traccc_py.kernels.gnn.networks import HIDDEN, N_STEPS, SUM_SCALE

__all__ = ["FILTER_FILE", "NETWORK_FILE", "export_onnx", "filter_model", "network_model"]

OPSET = 18  #: the first whose ScatterElements may add without a remark
_IR_VERSION = 9
_EPSILON = 1e-5  # of the normalisation
FILTER_FILE, NETWORK_FILE = "filter.onnx", "gnn.onnx"


class _Graph:
    """Nodes of an ONNX graph under construction."""

    def __init__(self, weights: Weights, part: str) -> None:
        self._onnx = optional_module("onnx", "onnx", "the export")
        self._part, self._arrays = part, weights.arrays
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add a constant; return its name."""
        self._constants[name] = values
        return name

    def weight(self, name: str, *index: Any) -> str:
        """Add (a part of) an array of weights; return its name."""
        values = self._arrays[f"{self._part}.{name}"]
        label = "_".join([name, *(str(k) for k in index)])
        return self.constant(label, np.ascontiguousarray(values[index] if index else values))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def layer(self, x: str, name: str, *index: Any, is_rectified: bool = False) -> str:
        """Add a layer with bias; return the name of its output."""
        made = self.add("Add", self.add("MatMul", x, self.weight(name, *index)), self.weight(f"{name}_bias", *index))
        return self.add("Relu", made) if is_rectified else made

    def ends(self) -> tuple[str, str]:
        """Return the names of the inner and of the outer nodes of the edges."""
        zero, one = (self.constant(name, np.array(k, np.int64)) for name, k in (("first", 0), ("second", 1)))
        return self.add("Gather", "EDGES", zero, axis=0), self.add("Gather", "EDGES", one, axis=0)

    def of_edges(self, of_nodes: str, inner: str, outer: str, of_edge: str) -> str:
        """Add the first layer of a network of edges: what both ends and the edge say, rectified."""
        middle, last = (self.constant(name, np.array([k], np.int64)) for name, k in (("h", HIDDEN), ("h2", 2 * HIDDEN)))
        zero, axis = self.constant("zero", np.array([0], np.int64)), self.constant("axis", np.array([1], np.int64))
        from_inner = self.add("Gather", self.add("Slice", of_nodes, zero, middle, axis), inner, axis=0)
        from_outer = self.add("Gather", self.add("Slice", of_nodes, middle, last, axis), outer, axis=0)
        return self.add("Relu", self.add("Add", self.add("Add", of_edge, from_inner), from_outer))

    def score(self, hidden: str, name: str) -> str:
        """Add the last layer and the sigmoid."""
        weights = self.constant(f"{name}_column", self._arrays[f"{self._part}.{name}"][:, None])
        logit = self.add("Add", self.add("MatMul", hidden, weights), self.weight(f"{name}_bias"))
        return self.add("Sigmoid", self.add("Squeeze", logit, self.constant("axis", np.array([1], np.int64))))

    def model(self, output: str) -> Any:
        """Return the model, checked."""
        helper, numpy_helper, kinds = self._onnx.helper, self._onnx.numpy_helper, self._onnx.TensorProto
        self._nodes.append(helper.make_node("Identity", [output], ["SCORES"]))
        graph = helper.make_graph(
            self._nodes,
            self._part,
            [
                helper.make_tensor_value_info("NODES", kinds.FLOAT, ["nodes", N_NODE_FEATURES]),
                helper.make_tensor_value_info("EDGES", kinds.INT64, [2, "edges"]),
                helper.make_tensor_value_info("EDGE_FEATURES", kinds.FLOAT, ["edges", N_EDGE_FEATURES]),
            ],
            [helper.make_tensor_value_info("SCORES", kinds.FLOAT, ["edges"])],
            [numpy_helper.from_array(values, name) for name, values in self._constants.items()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="traccc-py")
        self._onnx.checker.check_model(model, full_check=True)
        return model


def filter_model(weights: Weights) -> Any:
    """Return the filter of edges as an ONNX model; a score of 0.5 is its cut.

    Raises
    ------
    ConfigError
        If onnx is not installed.
    """
    g = _Graph(weights, "filter")
    inner, outer = g.ends()
    of_edge = g.add("MatMul", "EDGE_FEATURES", g.weight("edge"))
    hidden = g.of_edges(g.layer("NODES", "ends"), inner, outer, of_edge)
    return g.model(g.score(g.layer(hidden, "hidden", is_rectified=True), "out"))


def network_model(weights: Weights) -> Any:
    """Return the interaction network as an ONNX model.

    Raises
    ------
    ConfigError
        If onnx is not installed.
    """
    g = _Graph(weights, "network")
    inner, outer = g.ends()
    nodes = g.layer(g.layer("NODES", "node1", is_rectified=True), "node2")
    edges = g.layer(g.layer("EDGE_FEATURES", "edge1", is_rectified=True), "edge2")
    none = g.add("Mul", nodes, g.constant("nothing", np.zeros(1, np.float32)))
    scale = g.constant("scale", np.array([SUM_SCALE], np.float32))
    axis = g.constant("axis", np.array([1], np.int64))
    indices = [
        g.add("Expand", g.add("Unsqueeze", end, axis), g.constant("row", np.array([1, HIDDEN], np.int64)))
        for end in (outer, inner)
    ]

    def norm(x: str, name: str, step: int) -> str:
        weight, bias = g.weight(name, step, 0), g.weight(name, step, 1)
        return g.add("LayerNormalization", x, weight, bias, axis=-1, epsilon=_EPSILON)

    def told(step: int) -> str:
        of_edge = g.add("MatMul", edges, g.weight("message", step))
        return g.of_edges(g.layer(nodes, "ends", step), inner, outer, of_edge)

    for step in range(N_STEPS):
        edges = norm(g.add("Add", edges, g.layer(told(step), "edge_update", step)), "edge_norm", step)
        sums = [
            g.add("Mul", g.add("ScatterElements", none, index, edges, axis=0, reduction="add"), scale)
            for index in indices
        ]
        hidden = g.layer(g.add("Concat", nodes, *sums, axis=1), "node_hidden", step, is_rectified=True)
        nodes = norm(g.add("Add", nodes, g.layer(hidden, "node_update", step)), "node_norm", step)
    return g.model(g.score(g.layer(told(N_STEPS), "out1", is_rectified=True), "out2"))


def export_onnx(weights: Weights, folder: Path) -> list[Path]:
    """Write both networks as ONNX files.

    Parameters
    ----------
    weights : Weights
        What to export.
    folder : Path
        Made if needed.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ConfigError
        If onnx is not installed.
    """
    models = {FILTER_FILE: filter_model(weights), NETWORK_FILE: network_model(weights)}
    folder.mkdir(parents=True, exist_ok=True)
    write_files({folder / name: model.SerializeToString() for name, model in models.items()})
    return [folder / name for name in models]
