"""Samples of simulated events for training and for evaluation, which never share a seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from traccc_py.geometry import Detector
from traccc_py.simulation.samples import find_sample, make_sample
from traccc_py.simulation.settings import CollisionConfig, SampleConfig

__all__ = ["HELD_OUT_SEED", "MIXTURE", "ensure_sample"]

#: Part of the events by their mean number of interactions. Dense events are many graphs each.
MIXTURE = {20: 0.2, 30: 0.4, 60: 0.2, 100: 0.14, 200: 0.06}
HELD_OUT_SEED = 1_000_000  #: seeds from here on are for evaluation; those of training are below


def ensure_sample(
    folder: Path, detector: Detector, pileup: int, n_events: int, seed: int, report: Callable[[str], None]
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

    Returns
    -------
    Path
        The sample's folder.
    """
    place = folder / f"mu{pileup}-seed{seed}-n{n_events}"
    source = CollisionConfig(process="ttbar", pileup=float(pileup))
    config = SampleConfig.of_collisions(source, seed)
    if find_sample(place, detector, config, n_events) is None:
        report(f"simulating {n_events} events with mu = {pileup} into {place}")
        for _ in make_sample(place, detector, config, n_events):
            pass
    return place
