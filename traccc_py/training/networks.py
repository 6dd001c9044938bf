"""The networks in PyTorch: the filter of edges and the interaction network, with the weights of `gnn.weights`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES
from traccc_py.kernels.gnn.networks import HIDDEN, N_STEPS, SUM_SCALE

__all__ = ["EdgeFilter", "InteractionNetwork", "arrays_of", "load_arrays"]


class _Ends(nn.Module):
    """First layer of a network of edges: weights of the features of both ends and of the edge, one bias."""

    def __init__(self, n_node: int, n_edge: int) -> None:
        super().__init__()
        self.inner = nn.Linear(n_node, HIDDEN)
        self.outer = nn.Linear(n_node, HIDDEN, bias=False)
        self.edge = nn.Linear(n_edge, HIDDEN, bias=False)

    def forward(self, x: Any, ends: Any, e: Any) -> Any:
        return functional.relu(
            self.inner(x).index_select(0, ends[0]) + self.outer(x).index_select(0, ends[1]) + self.edge(e)
        )


class EdgeFilter(nn.Module):
    """Logits of edges, from the features of an edge and of its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = _Ends(N_NODE_FEATURES, N_EDGE_FEATURES)
        self.hidden = nn.Linear(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)

    def forward(self, x: Any, ends: Any, e: Any) -> Any:
        """Return the logits of the edges of features `e` between the nodes `ends` of features `x`."""
        return self.out(functional.relu(self.hidden(self.ends(x, ends, e)))).squeeze(1)


class InteractionNetwork(nn.Module):
    """Logits of edges, after steps in which edges and nodes learn of each other."""

    def __init__(self, steps: int = N_STEPS) -> None:
        super().__init__()
        h = HIDDEN
        self.node1, self.node2 = nn.Linear(N_NODE_FEATURES, h), nn.Linear(h, h)
        self.edge1, self.edge2 = nn.Linear(N_EDGE_FEATURES, h), nn.Linear(h, h)
        self.ends = nn.ModuleList(_Ends(h, h) for _ in range(steps + 1))
        self.edge_update = nn.ModuleList(nn.Linear(h, h) for _ in range(steps))
        self.edge_norm = nn.ModuleList(nn.LayerNorm(h) for _ in range(steps))
        self.node_hidden = nn.ModuleList(nn.Linear(3 * h, h) for _ in range(steps))
        self.node_update = nn.ModuleList(nn.Linear(h, h) for _ in range(steps))
        self.node_norm = nn.ModuleList(nn.LayerNorm(h) for _ in range(steps))
        self.out1, self.out2 = nn.Linear(h, h), nn.Linear(h, 1)

    def forward(self, x: Any, ends: Any, e: Any) -> Any:
        """Return the logits of the edges of features `e` between the nodes `ends` of features `x`."""
        h = self.node2(functional.relu(self.node1(x)))
        m = self.edge2(functional.relu(self.edge1(e)))
        index = [end.unsqueeze(1).expand(-1, h.shape[1]) for end in ends]
        for k, update in enumerate(self.edge_update):
            m = self.edge_norm[k](m + update(self.ends[k](h, ends, m)))
            none = torch.zeros_like(h)
            from_inner, from_outer = (none.scatter_add(0, index[end], m) * SUM_SCALE for end in (1, 0))
            hidden = functional.relu(self.node_hidden[k](torch.cat([h, from_inner, from_outer], 1)))
            h = self.node_norm[k](h + self.node_update[k](hidden))
        return self.out2(functional.relu(self.out1(self.ends[-1](h, ends, m)))).squeeze(1)


def _linear(layer: Any) -> np.ndarray:
    return layer.weight.detach().numpy().T.copy()


def _ends(layer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights (n, 2 HIDDEN) of both ends, their bias, and weights of the edge."""
    bias = np.concatenate([layer.inner.bias.detach().numpy(), np.zeros(HIDDEN, np.float32)])
    return np.concatenate([_linear(layer.inner), _linear(layer.outer)], axis=1), bias, _linear(layer.edge)


def _bias(layer: Any) -> np.ndarray:
    return layer.bias.detach().numpy().copy()


def arrays_of(edge_filter: EdgeFilter, network: InteractionNetwork, filter_logit: float) -> dict[str, np.ndarray]:
    """Return the weights of both networks as arrays, by the names of `gnn.weights`.

    Parameters
    ----------
    edge_filter : EdgeFilter
        The filter.
    network : InteractionNetwork
        The network.
    filter_logit : float
        Logit of the filter that becomes a score of 0.5.
    """
    ends, bias, edge = _ends(edge_filter.ends)
    found = {
        "filter.ends": ends,
        "filter.ends_bias": bias,
        "filter.edge": edge,
        "filter.hidden": _linear(edge_filter.hidden),
        "filter.hidden_bias": _bias(edge_filter.hidden),
        "filter.out": _linear(edge_filter.out)[:, 0],
        "filter.out_bias": _bias(edge_filter.out) - np.float32(filter_logit),
    }
    for name in ("node1", "node2", "edge1", "edge2", "out1"):
        layer = getattr(network, name)
        found |= {f"network.{name}": _linear(layer), f"network.{name}_bias": _bias(layer)}
    found |= {"network.out2": _linear(network.out2)[:, 0], "network.out2_bias": _bias(network.out2)}
    parts = zip(*(_ends(layer) for layer in network.ends), strict=True)
    for name, values in zip(("ends", "ends_bias", "message"), parts, strict=True):
        found[f"network.{name}"] = np.stack(values)
    for name in ("edge_update", "node_hidden", "node_update"):
        layers = getattr(network, name)
        found[f"network.{name}"] = np.stack([_linear(layer) for layer in layers])
        found[f"network.{name}_bias"] = np.stack([_bias(layer) for layer in layers])
    for name in ("edge_norm", "node_norm"):
        layers = getattr(network, name)
        found[f"network.{name}"] = np.stack([np.stack([n.weight.detach().numpy(), _bias(n)]) for n in layers])
    return found


def _set(layer: Any, weights: np.ndarray, bias: np.ndarray | None = None) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(np.atleast_2d(weights.T))))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))


def _set_ends(layer: Any, ends: np.ndarray, bias: np.ndarray, edge: np.ndarray) -> None:
    _set(layer.inner, ends[:, :HIDDEN], bias[:HIDDEN])
    _set(layer.outer, ends[:, HIDDEN:])
    _set(layer.edge, edge)


def load_arrays(arrays: dict[str, np.ndarray]) -> tuple[EdgeFilter, InteractionNetwork]:
    """Return networks with given weights, the inverse of `arrays_of`."""
    a = arrays
    edge_filter, network = EdgeFilter(), InteractionNetwork(len(a["network.edge_update"]))
    _set_ends(edge_filter.ends, a["filter.ends"], a["filter.ends_bias"], a["filter.edge"])
    for name in ("hidden", "out"):
        _set(getattr(edge_filter, name), a[f"filter.{name}"], a[f"filter.{name}_bias"])
    for name in ("node1", "node2", "edge1", "edge2", "out1", "out2"):
        _set(getattr(network, name), a[f"network.{name}"], a[f"network.{name}_bias"])
    for k, layer in enumerate(network.ends):
        _set_ends(layer, a["network.ends"][k], a["network.ends_bias"][k], a["network.message"][k])
    for name in ("edge_update", "node_hidden", "node_update"):
        for k, layer in enumerate(getattr(network, name)):
            _set(layer, a[f"network.{name}"][k], a[f"network.{name}_bias"][k])
    for name in ("edge_norm", "node_norm"):
        for k, layer in enumerate(getattr(network, name)):
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(a[f"network.{name}"][k, 0]))
                layer.bias.copy_(torch.from_numpy(a[f"network.{name}"][k, 1]))
    return edge_filter, network
