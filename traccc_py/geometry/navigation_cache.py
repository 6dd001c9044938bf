"""Cache layers and bins of a detector on disk, keyed by their inputs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from traccc_py.device.cache import cache_root, keep, read_kept
from traccc_py.files import content_digest, package_sources, source_digest
from traccc_py.geometry.records import LAYER, STACK

__all__ = ["Navigation", "cached_navigation", "content_key"]

_SOURCES = [f"geometry/{name}.py" for name in ("bins", "layers", "records", "surfaces", "navigation_cache")]


@dataclass(frozen=True, slots=True)
class Navigation:
    """Layers, stacks and bins of a detector."""

    layers: np.ndarray  # (n_layers,) LAYER
    stacks: np.ndarray  # (n_stacks,) STACK
    bin_offsets: np.ndarray  # (n_bins + 1,) int32
    bin_surfaces: np.ndarray  # (bin_offsets[-1],) int32
    layer_of_surface: np.ndarray  # (n_surfaces,) int32
    layer_names: np.ndarray  # (n_layers,) str

    def is_sound(self, n_surfaces: int) -> bool:
        """Return whether types, sizes and indices fit together."""
        dtypes = (LAYER, STACK, np.dtype(np.int32), np.dtype(np.int32), np.dtype(np.int32))
        columns = [getattr(self, f.name) for f in fields(self)]
        if any(c.ndim != 1 for c in columns) or any(c.dtype != d for c, d in zip(columns, dtypes, strict=False)):
            return False
        n_layers = len(self.layers)
        if (
            not n_layers
            or not len(self.stacks)
            or len(self.layer_names) != n_layers
            or len(self.layer_of_surface) != n_surfaces
        ):
            return False
        n_bins = int((self.layers["n_phi"] * self.layers["n_other"]).sum())
        if len(self.bin_offsets) != n_bins + 1 or self.bin_offsets[-1] != len(self.bin_surfaces):
            return False
        in_range = self.bin_surfaces.min() >= 0 and self.bin_surfaces.max() < n_surfaces
        return bool(in_range and self.layer_of_surface.min() >= 0 and self.layer_of_surface.max() < n_layers)


@cache
def _code_digest() -> str:
    return source_digest(package_sources(_SOURCES), np.__version__)


def content_key(*parts: bytes) -> str:
    """Return a key [16 hexadecimal digits] of the inputs, the code that processes them, and NumPy's version."""
    return content_digest(_code_digest(), *parts)


def cached_navigation(name: str, key: str, n_surfaces: int, make: Callable[[], Navigation]) -> Navigation:
    """Return the navigation stored under `key`; make and store it if there is none or the file is damaged."""
    file = cache_root() / f"navigation-{name}-{key}.npz"
    found = _load(file, n_surfaces)
    if found is None:
        found = make()
        _store(file, found)
    return found


def _load(file: Path, n_surfaces: int) -> Navigation | None:
    content = read_kept(file)
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            found = Navigation(*(archive[f.name] for f in fields(Navigation)))
    except Exception:  # a damaged archive may raise nearly anything; it is replaced
        return None
    return found if found.is_sound(n_surfaces) else None


def _store(file: Path, navigation: Navigation) -> None:
    content = io.BytesIO()
    np.savez(content, **{f.name: getattr(navigation, f.name) for f in fields(navigation)})
    keep({file: content.getvalue()})
