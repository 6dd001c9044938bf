"""Settings of tuning. Loads nothing that takes time: the command line makes options of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from traccc_py.settings import Bounds, Count, NonNegative, Positive, PositiveCount, Settings

__all__ = ["TuningSamples"]


@dataclass(frozen=True, slots=True)
class TuningSamples(Settings):
    """What settings are judged by."""

    particles: PositiveCount = 1000  #: muons; there are half as many pions
    pt: Annotated[tuple[float, float], Bounds(0)] = (0.5, 100.0)  #: range of pT, uniform in its logarithm [GeV]
    eta: Annotated[tuple[float, float], Bounds()] = (-2.5, 2.5)  #: range of eta
    phi: Annotated[tuple[float, float], Bounds()] = (-math.pi, math.pi)  #: range of phi [rad]
    vertex_sigma: Positive = 55.0  #: spread of vertices along the beam [mm]
    pileup: NonNegative = 0.0  #: mean number of collisions besides a ttbar, in events of their own; 0: there are none
    collisions: PositiveCount = 2  #: such events
    min_measurements: Count = 5  #: measurements of a particle that counts
    seed: Count = 1  #: seed of the random numbers
