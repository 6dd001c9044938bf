"""The finder of track candidates as the configuration wants it: its weights, checked."""

from __future__ import annotations

from traccc_py.config import ChainConfig
from traccc_py.geometry.records import DetectorArrays
from traccc_py.gnn.weights import check_constructor, finder_arrays, read_weights
from traccc_py.kernels.gnn.gnn_finding import FinderArrays

__all__ = ["load_finder"]


def load_finder(config: ChainConfig, detector: DetectorArrays) -> FinderArrays:
    """Return what the finder has learned, on the host.

    Parameters
    ----------
    config : ChainConfig
        Its sections `finder` and `graph` are used.
    detector : DetectorArrays
        On the host.

    Raises
    ------
    ConfigError
        If the weights can't be read, or lack what makes the graph.
    GeometryError
        If they are for another detector.
    """
    weights = read_weights(config.finder.weights)
    check_constructor(weights, config.graph.constructor, config.finder.weights)
    return finder_arrays(weights, detector)
