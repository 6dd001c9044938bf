"""The networks of the finder in plain float64 NumPy, edge by edge as their equations say."""

import numpy as np

SUM_SCALE = 0.3
EPSILON = 1e-5


def rectified(x):
    return np.maximum(x, 0)


def normalised(x, norm):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON) * norm[0] + norm[1]


def told(nodes, edges, inner, outer, ends, ends_bias, message):
    """First layer of a network of edges; the columns of `ends` are for the inner, then for the outer node."""
    h = message.shape[1]
    sums = nodes[inner] @ ends[:, :h] + nodes[outer] @ ends[:, h:] + edges @ message
    return rectified(sums + ends_bias[:h] + ends_bias[h:])


def filter_logits(w, nodes, inner, outer, edges):
    w = {k.removeprefix("filter."): np.asarray(v, float) for k, v in w.items() if k.startswith("filter.")}
    u = told(nodes, edges, inner, outer, w["ends"], w["ends_bias"], w["edge"])
    return rectified(u @ w["hidden"] + w["hidden_bias"]) @ w["out"] + w["out_bias"]


def network_logits(w, nodes, inner, outer, edges):
    w = {k.removeprefix("network."): np.asarray(v, float) for k, v in w.items() if k.startswith("network.")}
    h = rectified(nodes @ w["node1"] + w["node1_bias"]) @ w["node2"] + w["node2_bias"]
    m = rectified(edges @ w["edge1"] + w["edge1_bias"]) @ w["edge2"] + w["edge2_bias"]
    for k in range(len(w["edge_update"])):
        u = told(h, m, inner, outer, w["ends"][k], w["ends_bias"][k], w["message"][k])
        m = normalised(m + u @ w["edge_update"][k] + w["edge_update_bias"][k], w["edge_norm"][k])
        sums = []
        for end in (outer, inner):
            total = np.zeros_like(h)
            np.add.at(total, end, m)
            sums.append(SUM_SCALE * total)
        hidden = rectified(np.concatenate([h, *sums], axis=1) @ w["node_hidden"][k] + w["node_hidden_bias"][k])
        h = normalised(h + hidden @ w["node_update"][k] + w["node_update_bias"][k], w["node_norm"][k])
    u = told(h, m, inner, outer, w["ends"][-1], w["ends_bias"][-1], w["message"][-1])
    return rectified(u @ w["out1"] + w["out1_bias"]) @ w["out2"] + w["out2_bias"]
