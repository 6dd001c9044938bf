"""What a real detector does not read out: dead modules, and hits that are lost.

Both are given by kinds of modules: names of volumes, as `traccc-py detector` shows them, or the beginning of several:
"pixel", "short strip", "long strip barrel"; and "all". Of several kinds that a module is of, the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from traccc_py.errors import ConfigError
from traccc_py.geometry.dead_channels import DeadChannels
from traccc_py.geometry.surfaces import decode_geometry_id
from traccc_py.simulation.settings import ALL_MODULES, KindFractions

__all__ = ["chance_of_modules", "draw_dead_modules", "draw_lost_hits"]

_DEAD_STREAM = 0x64656164  # of the sample's random numbers
_LOST_STREAM = 0x6C6F7374  # of the event's


def chance_of_modules(detector: Any, fractions: KindFractions) -> np.ndarray:
    """Return the chance of each module, (n_modules,) float64.

    Parameters
    ----------
    detector : Detector
        Its modules and the names of its volumes.
    fractions : sequence of (str, float)
        Kinds of modules, and the chance of each.

    Raises
    ------
    ConfigError
        If the detector has no modules of a kind.
    """
    volume = decode_geometry_id(detector.geometry_ids).volume
    chance = np.zeros(len(volume))
    for kind, fraction in fractions:
        numbers = [number for number, name in detector.volume_names.items() if name.startswith(kind)]
        is_of_kind = np.isin(volume, numbers) if kind != ALL_MODULES else np.ones(len(volume), bool)
        is_of_kind &= detector.surfaces.is_sensitive
        if not is_of_kind.any():
            known = _kinds(detector.volume_names.values())
            msg = f"{kind!r} is no kind of modules of {detector.name!r}; expected {known}"
            raise ConfigError(msg)
        chance[is_of_kind] = fraction
    return chance


def _kinds(names: Iterable[str]) -> str:
    """Return what a kind may be, in words."""
    known = ", ".join(repr(name) for name in dict.fromkeys(names))
    return f"{ALL_MODULES!r}" + (f", or the beginning of {known}" if known else "")


def draw_dead_modules(detector: Any, fractions: KindFractions, seed: int) -> DeadChannels:
    """Draw dead modules.

    Parameters
    ----------
    detector, fractions
        As for `chance_of_modules`.
    seed : int
        Seed. With it, modules that are dead at some fraction are so at any larger one.

    Returns
    -------
    DeadChannels
        One row for each dead module.
    """
    chance = chance_of_modules(detector, fractions)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _DEAD_STREAM))))
    return DeadChannels.of_modules(detector.geometry_ids[random.random(len(chance)) < chance])


def draw_lost_hits(chance: np.ndarray, module: np.ndarray, key: np.uint64) -> np.ndarray:
    """Draw which hits of an event leave no cells.

    Parameters
    ----------
    chance : ndarray of shape (n_modules,), float64
        Chance to lose a hit.
    module : ndarray of shape (n_hits,), int
        Module of each hit.
    key : uint64
        Key of the event's random numbers.

    Returns
    -------
    ndarray of shape (n_hits,), bool
        Whether each is lost.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence((int(key), _LOST_STREAM))))
    return random.random(len(module)) < chance[module]
