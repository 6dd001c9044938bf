"""Weights of the finder: a table of arrays in one file, with the facts of their training.

The file is an archive of NumPy arrays (`.npz`) without pickled objects. It has the layers that the map is for, pairs of
them and their windows, the weights of both networks, mostly those of the embedding with a filter of its own, and
`facts`: JSON with the version of the format, the features, the SHA-256 of the arrays, the mean numbers of interactions
it was trained for, samples, and the curve of the training.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from traccc_py.errors import ConfigError
from traccc_py.files import write_files
from traccc_py.geometry.records import DetectorArrays
from traccc_py.kernels.gnn.embedding import EMBEDDING_WIDTH, N_DIMENSIONS, OUT_COLUMNS, EmbeddingWeights
from traccc_py.kernels.gnn.gnn_finding import FinderArrays
from traccc_py.kernels.gnn.graph_construction import N_EDGE_FEATURES
from traccc_py.kernels.gnn.graph_map import LAYER_PLACE, N_VALUES, layer_places, make_graph_map
from traccc_py.kernels.gnn.graph_points import N_NODE_FEATURES
from traccc_py.kernels.gnn.networks import HIDDEN, N_STEPS, FilterWeights, NetworkWeights

__all__ = [
    "BUILT_IN",
    "Weights",
    "check_constructor",
    "embedding_shapes",
    "embedding_weights",
    "finder_arrays",
    "has_embedding",
    "read_weights",
    "untrained_weights",
    "weight_shapes",
    "write_weights",
]

FORMAT = 1  #: version of the file
FEATURES = "cells-1"  #: the table of features
_FOLDER = Path(__file__).resolve().parent / "data"
BUILT_IN = {"odd": _FOLDER / "odd.npz"}  #: weights that come with the package, by name
_MAP = ("places", "pairs", "windows")
_FACTS = "facts"


class Weights(NamedTuple):
    """Layer map, weights and facts."""

    places: np.ndarray  # (n_layers,) LAYER_PLACE
    pairs: np.ndarray  # (n_pairs, 2) int32, inner and outer layer
    windows: np.ndarray  # (n_pairs, N_VALUES, 2) float32
    arrays: dict[str, np.ndarray]  # float32, by name
    facts: dict[str, Any]


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name."""
    h, n, m = HIDDEN, N_NODE_FEATURES, N_STEPS
    shapes: dict[str, tuple[int, ...]] = {
        "filter.ends": (n, 2 * h),
        "filter.ends_bias": (2 * h,),
        "filter.edge": (N_EDGE_FEATURES, h),
        "filter.hidden": (h, h),
        "filter.hidden_bias": (h,),
        "filter.out": (h,),
        "filter.out_bias": (1,),
    }
    network: dict[str, tuple[int, ...]] = {
        "node1": (n, h),
        "node2": (h, h),
        "edge1": (N_EDGE_FEATURES, h),
        "edge2": (h, h),
        "ends": (m + 1, h, 2 * h),
        "message": (m + 1, h, h),
        "edge_update": (m, h, h),
        "edge_norm": (m, 2, h),
        "node_hidden": (m, 3 * h, h),
        "node_update": (m, h, h),
        "node_norm": (m, 2, h),
        "out1": (h, h),
        "out2": (h,),
    }
    without_bias = ("message", "edge_norm", "node_norm")
    for name, shape in network.items():
        shapes[f"network.{name}"] = shape
        if name not in without_bias:
            shapes[f"network.{name}_bias"] = (1,) if name == "out2" else (*shape[:-2], shape[-1])
    return shapes


def embedding_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of the embedding and of its filter by name; a file has all of them, or none."""
    w = EMBEDDING_WIDTH
    layers = {"first": (N_NODE_FEATURES, w), "second": (w, w), "third": (w, w), "out": (w, N_DIMENSIONS)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes |= {f"embedding.{name}": shape, f"embedding.{name}_bias": shape[1:]}
    own = {name: shape for name, shape in weight_shapes().items() if name.startswith("filter.")}
    return shapes | {f"metric_{name}": shape for name, shape in own.items()}


def check_constructor(weights: Weights, constructor: str, source: Path | str) -> None:
    """Raise if weights lack what makes a graph.

    Parameters
    ----------
    weights : Weights
        Weights.
    constructor : str
        As `graph.constructor`.
    source : path
        Where they are from.

    Raises
    ------
    ConfigError
        If they have no embedding, and are asked for it.
    """
    if constructor == "metric" and not has_embedding(weights):
        msg = (
            f'is "metric", but finder.weights {source} has no embedding; expected weights that have one: add it with '
            f"traccc-py gnn train --start {source} --learn embedding"
        )
        raise ConfigError(msg, field="graph.constructor", value="metric")


def has_embedding(weights: Weights) -> bool:
    """Return whether weights have an embedding, so that graphs can be made by it."""
    return "embedding.out" in weights.arrays


def _digest(weights: Weights) -> str:
    digest = hashlib.sha256()
    for name, values in (*zip(_MAP, weights[:3], strict=True), *sorted(weights.arrays.items())):
        digest.update(name.encode() + str(values.shape).encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def write_weights(path: Path | str, weights: Weights) -> None:
    """Write weights; version, features and digest are added to their facts.

    Parameters
    ----------
    path : path
        File.
    weights : Weights
        What to write.
    """
    facts = weights.facts | {"format": FORMAT, "features": FEATURES, "sha256": _digest(weights)}
    written: dict[str, np.ndarray] = dict(zip(_MAP, weights[:3], strict=True)) | weights.arrays
    written[_FACTS] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    beside = io.BytesIO()
    np.savez_compressed(beside, allow_pickle=False, **written)
    write_files({Path(path): beside.getvalue()})


def read_weights(source: Path | str) -> Weights:
    """Read weights.

    Parameters
    ----------
    source : path
        File, or a name of `BUILT_IN`.

    Raises
    ------
    ConfigError
        If it can't be read, or is not what `write_weights` of this version wrote.
    """
    path = BUILT_IN.get(str(source), Path(source))
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except OSError as error:
        known = ", ".join(BUILT_IN)
        msg = f"finder.weights {source}: can't be read ({error.strerror or error}); expected a file, or one of {known}"
        raise ConfigError(msg, field="finder.weights", value=str(source)) from error
    except (ValueError, TypeError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise _no_weights(source, f"is no archive of arrays: {error}") from error
    return _checked(source, found)


def _no_weights(source: Path | str, problem: str) -> ConfigError:
    msg = f"finder.weights {source}: {problem}; expected a file that traccc-py gnn train wrote"
    return ConfigError(msg, field="finder.weights", value=str(source))


def _checked(source: Path | str, found: Mapping[str, np.ndarray]) -> Weights:
    """Return weights, of arrays that are what they must be."""
    if not {*_MAP, _FACTS} <= set(found):
        raise _no_weights(source, f"lacks {', '.join(sorted({*_MAP, _FACTS} - set(found)))}")
    try:
        facts = json.loads(found[_FACTS].tobytes())
        version, features, digest = facts["format"], facts["features"], facts["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_weights(source, f"has no facts: {error}") from error
    for name, value, wanted in (("format", version, FORMAT), ("features", features, FEATURES)):
        if value != wanted:
            raise _no_weights(source, f"has {name} {value!r}, which this version does not know (it has {wanted!r})")
    arrays = {name: values for name, values in found.items() if name not in (*_MAP, _FACTS)}
    more = embedding_shapes()
    shapes = weight_shapes() | (more if set(more) & set(arrays) else {})
    for name, shape in shapes.items():
        values = arrays.get(name)
        if values is None or values.shape != shape or values.dtype != np.float32:
            has = "nothing" if values is None else f"{values.dtype} of shape {values.shape}"
            raise _no_weights(source, f"{name} is {has}, not float32 of shape {shape}")
        if not np.isfinite(values).all():
            raise _no_weights(source, f"{name} has values that are no finite numbers")
    places, pairs, windows = (found[name] for name in _MAP)
    n = len(pairs)
    is_map = (
        places.dtype == LAYER_PLACE
        and pairs.shape == (n, 2)
        and pairs.dtype == np.int32
        and windows.shape == (n, N_VALUES, 2)
        and windows.dtype == np.float32
        and bool(((pairs >= 0) & (pairs < len(places))).all())
    )
    weights = Weights(places, pairs, windows, arrays, facts)
    if not is_map or set(arrays) != set(shapes):
        raise _no_weights(source, "has a layer map, or arrays, of other shapes")
    if _digest(weights) != digest:
        raise _no_weights(source, "is damaged: its SHA-256 is another one")
    return weights


def finder_arrays(weights: Weights, detector: DetectorArrays) -> FinderArrays:
    """Return what the finder needs of weights for a detector, on the host.

    Raises
    ------
    GeometryError
        If the detector is not the one they were trained for.
    """
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, values in weights.arrays.items():
        part, _, column = name.partition(".")
        parts.setdefault(part, {})[column] = np.ascontiguousarray(values)
    embedding, embedding_filter = None, None
    if has_embedding(weights):
        embedding = embedding_weights(weights.arrays)
        embedding_filter = FilterWeights(**parts["metric_filter"])
    return FinderArrays(
        make_graph_map(detector, weights.places, weights.pairs, weights.windows),
        FilterWeights(**parts["filter"]),
        NetworkWeights(**parts["network"]),
        embedding,
        embedding_filter,
    )


def embedding_weights(arrays: Mapping[str, np.ndarray]) -> EmbeddingWeights:
    """Return the weights of the embedding, on the host; the last layer has as many columns as products are made of.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Weights by name.
    """
    more = (0, OUT_COLUMNS - N_DIMENSIONS)
    found = {name: np.ascontiguousarray(arrays[f"embedding.{name}"]) for name in EmbeddingWeights._fields}
    found |= {"out": np.pad(found["out"], ((0, 0), more)), "out_bias": np.pad(found["out_bias"], more)}
    return EmbeddingWeights(**found)


def untrained_weights(detector: DetectorArrays, seed: int = 0) -> Weights:
    """Return random weights and wide windows for any detector: to compile kernels, and for tests.

    Parameters
    ----------
    detector : DetectorArrays
        On the host.
    seed : int, optional
        Of the random numbers.

    Returns
    -------
    Weights
        With pairs of all layers that follow one another in the detector's order.
    """
    random = np.random.default_rng(seed)
    arrays = {}
    for name, shape in (weight_shapes() | embedding_shapes()).items():
        scale = 1 / np.sqrt(shape[-2]) if len(shape) > 1 else 0.1
        arrays[name] = (scale * random.standard_normal(shape)).astype(np.float32)
    for name in ("filter", "metric_filter"):
        arrays[f"{name}.ends_bias"][HIDDEN:] = 0  # of the outer ends: one bias is enough
    arrays["network.ends_bias"][:, HIDDEN:] = 0
    _, places = layer_places(detector)
    first = np.arange(max(len(places) - 1, 0), dtype=np.int32)
    pairs = np.stack([first, first + 1], axis=1)
    most = np.array([500.0, 0.2, 500.0, 250.0, 0.002, 30.0, 5.0, 5.0], np.float32)
    windows = np.tile(np.stack([-most, most], axis=1), (len(pairs), 1, 1)).astype(np.float32)
    return Weights(places, pairs, windows, arrays, {"mu": [0, 1_000_000]})
