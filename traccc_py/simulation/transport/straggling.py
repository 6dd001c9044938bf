"""Fluctuations of the energy loss: collisions with electrons, those above a limit one by one.

The number of collisions with a transfer above T is xi / beta^2 (1 / T - 1 / T_max), to first order. Below the limit
they are a mean and a Gaussian, above it they are drawn singly, up to the largest transfer that kinematics allow. With
about ten single ones the sum is Landau's distribution in thin layers, Vavilov's and a Gaussian in thick ones, and its
mean is Bethe's.

References
----------
PDG 2024, sections 34.2.2, 34.2.7 and 34.2.9: largest transfer, delta rays (eq. 34.9), most probable loss and width. H.
Bichsel, Rev. Mod. Phys. 60 (1988) 663.
"""

from __future__ import annotations

import math

from traccc_py.simulation.compiled import compiled
from traccc_py.simulation.random_numbers import normal_pair, uniform_pair
from traccc_py.units import electron_mass

__all__ = ["LIMIT_PER_XI", "largest_transfer", "single_transfer", "straggled_loss", "transfers_below"]

LIMIT_PER_XI = 0.1  #: collisions above this times xi / beta^2 are drawn singly: about ten in a layer
_STREAM_CORE = 2
_STREAM_TRANSFERS = 8
_MOST_TRANSFERS = 64  # draws kept for one layer; with a mean of ten, more do not happen
_MAX_CORE = 3.0  # Gaussian widths by which the core may differ from its mean


@compiled
def largest_transfer(p, mass):
    """Return the largest energy [GeV] that a particle can give to an electron."""
    bg = p / mass
    ratio = electron_mass / mass
    return 2.0 * electron_mass * bg * bg / (1.0 + 2.0 * math.sqrt(1.0 + bg * bg) * ratio + ratio * ratio)


@compiled
def single_transfer(chance, limit, largest):
    """Return an energy between `limit` and `largest` with a density ~ 1 / T^2 for a uniform `chance`."""
    return 1.0 / (1.0 / largest + chance * (1.0 / limit - 1.0 / largest))


@compiled
def transfers_below(mean, scale, limit, largest, beta2):
    """Return (mean loss, variance) of the collisions below `limit`; `scale` is xi / beta^2 [GeV], `mean` Bethe's loss.

    The density of transfers is scale / T^2 (1 - beta^2 T / largest); the collisions above the limit are drawn without
    the factor in brackets and thinned by it.
    """
    above = scale * (math.log(largest / limit) - beta2 * (1.0 - limit / largest))
    return mean - above, scale * limit


@compiled
def straggled_loss(mean, p, mass, charge, xi, key, identity, draw):
    """Return an energy loss [GeV] in a layer with Bethe's `xi` and `mean` loss."""
    bg = p / mass
    beta2 = bg * bg / (1.0 + bg * bg)
    scale, largest = xi * charge * charge / beta2, largest_transfer(p, mass)
    limit = min(LIMIT_PER_XI * scale, largest)
    core, variance = transfers_below(mean, scale, limit, largest, beta2)
    normal, _ = normal_pair(key, identity, draw, _STREAM_CORE)
    loss = max(0.0, core + min(max(normal, -_MAX_CORE), _MAX_CORE) * math.sqrt(variance))
    left, k = scale * (1.0 / limit - 1.0 / largest), 0
    while k < _MOST_TRANSFERS:
        number = draw * _MOST_TRANSFERS + k
        step, kept = uniform_pair(key, identity, number, _STREAM_TRANSFERS)
        left += math.log(step)
        if left <= 0.0:
            break
        chance, _ = uniform_pair(key, identity, number, _STREAM_TRANSFERS + (1 << 16))
        transfer = single_transfer(chance, limit, largest)
        if kept > beta2 * transfer / largest:
            loss += transfer
        k += 1
    return loss
