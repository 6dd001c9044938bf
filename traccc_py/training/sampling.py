"""Samples of simulated events for training and for evaluation, which never share a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from traccc_py.geometry import Detector
from traccc_py.simulation.samples import find_sample, make_sample
from traccc_py.simulation.settings import CollisionConfig, SampleConfig

__all__ = ["HELD_OUT_SEED", "MIXTURE", "WIDE", "Wide", "ensure_sample"]


class Wide(NamedTuple):
    """Events with collisions far from the middle."""

    part: float  # of the number of the others
    pileup: int
    sigma_z: float  # [mm]


#: Part of the events by their mean number of interactions. One of 200 has as many edges as ten of 30.
MIXTURE = {20: 0.12, 30: 0.3, 60: 0.12, 100: 0.11, 200: 0.35}
#: Besides, a part of the events has its collisions spread out farther, so that the finder knows the whole region.
WIDE = Wide(part=0.12, pileup=20, sigma_z=150.0)
HELD_OUT_SEED = 1_000_000  #: seeds from here on are for evaluation; those of training are below


def ensure_sample(
    folder: Path,
    detector: Detector,
    pileup: int,
    n_events: int,
    seed: int,
    report: Callable[[str], None],
    sigma_z: float | None = None,
) -> Path:
    """Simulate top quark pairs with pile-up, unless the folder has them.

    Parameters
    ----------
    folder : Path
        Folder of samples; each has one of its own in it.
    detector : Detector
        Where particles fly.
    pileup : int
        Mean number of collisions besides the hard one [1].
    n_events : int
        Number of events [1].
    seed : int
        Of the random numbers.
    report : callable
        Called with lines for the user.
    sigma_z : float, optional
        Spread of the collisions along the beam, by default the simulation's own [mm].

    Returns
    -------
    Path
        The sample's folder.
    """
    place = folder / f"mu{pileup}-seed{seed}-n{n_events}"
    source = CollisionConfig(process="ttbar", pileup=float(pileup))
    if sigma_z is not None:
        place = place.with_name(f"{place.name}-z{sigma_z:g}")
        source = replace(source, vertex_sigma=(*source.vertex_sigma[:2], sigma_z))
    config = SampleConfig.of_collisions(source, seed)
    if find_sample(place, detector, config, n_events) is None:
        report(f"simulating {n_events} events with mu = {pileup} into {place}")
        for _ in make_sample(place, detector, config, n_events):
            pass
    return place
