"""What comes out when a hadron breaks up on a nucleus: a leading hadron, pions, and nucleons knocked out of it.

The energy is divided, so it is conserved in each interaction, but for what excites the nucleus and neutral particles:

* The leading hadron keeps a fraction x of the kinetic energy. Nucleons: x = u^1.4 for a uniform u, a mean loss of 1.4
  units of rapidity as in light nuclei; mesons lose 2. Half of the mesons and a third of the nucleons change their
  charge. Slow antibaryons annihilate, slow pions are absorbed: then nothing leads.
* Nucleons: a Poisson number of protons ("grey tracks") with mean 0.16 A^(2/3), as many neutrons, exponential in their
  kinetic energy above 30 MeV with a mean of 100 MeV, in angle as exp(0.96 cos theta).
* Pions, a third of each charge: the rest of the energy is broken like a stick, each taking a fraction with the density
  (1 - v)^(w - 1), which makes Feynman's plateau dN/dy = w and a falloff (1 - x)^(w - 1). The plateau's height gives the
  multiplicity: 2 in hydrogen, times (1 + nu) / 2 for nu collisions in the nucleus. Transverse momenta are
  exponential with a mean of 0.33 GeV.

References
----------
R. P. Feynman, Phys. Rev. Lett. 23 (1969) 1415. W. Busza, R. Ledoux, Annu. Rev. Nucl. Part. Sci. 38 (1988) 119: loss of
rapidity. J. E. Elias et al., Phys. Rev. D 22 (1980) 13: multiplicity against nu. E. Stenlund, I. Otterlund, Nucl. Phys.
B 198 (1982) 407: grey tracks. W. Thome et al., Nucl. Phys. B 129 (1977) 365: multiplicity of p p, with which tests
compare. D. Ashery et al., Phys. Rev. C 23 (1981) 2173: absorption of pions.
"""

from __future__ import annotations

import math

import numpy as np

from traccc_py.simulation.compiled import compiled, compiled_entry
from traccc_py.simulation.random_numbers import uniform_pair
from traccc_py.simulation.transport.kinematics import FIRST_PRODUCTS, NEUTRAL_PION, add_product, turned_to
from traccc_py.units import MeV, pion_mass

__all__ = ["products_of"]

_STREAM_PRODUCTS = 10
_PION, _PROTON = 211, 2212
_FIRST_BARYON_CODE = 1000
_PROTON_MASS = 0.938272  # [GeV]
_NUCLEON_LOSS, _MESON_LOSS = 1.4, 2.0  # of rapidity
_MESON_KEEPS_CHARGE, _BARYON_KEEPS_CHARGE = 0.5, 2.0 / 3.0
_ANNIHILATION_SCALE = 6.0  # of exp(-p / scale), the share of annihilations [GeV]: 0.85 at 1, 0.4 at 5, 0.2 at 10 GeV
_ABSORPTION, _ABSORPTION_SCALE = 0.6, 0.4  # share of absorbed pions at rest and its scale in kinetic energy [GeV]
_GREY, _GREY_POWER = 0.16, 2.0 / 3.0
_GREY_THRESHOLD, _GREY_MEAN = 30.0 * MeV, 100.0 * MeV
_GREY_SLOPE = 0.96
_BINDING = 8.0 * MeV
_PLATEAU = 2.0
_COLLISIONS_POWER = 0.21  # collisions in a nucleus: nu = A^0.21, 1.7 in carbon, 2.0 in silicon
_PT_SCALE = 0.165  # [GeV] of p_T exp(-p_T / scale)
_PLATEAU_SCALE = 1.0  # energies below it have a lower plateau [GeV]
_CHARGED = 2.0 / 3.0
_HALF = 0.5
_UNSEEN = 1  # code of a neutral leading hadron
_DRAWS = 4  # numbers for a product at most; they are counted from:
_FIRST_NUCLEON, _FIRST_PION, _LAST_DRAW = 8, 408, 2408


@compiled
def _at_pt(p, direction, key, identity, draw):
    """Return a vector of length p with an exponential transverse momentum; isotropic if that is more than p."""
    first, second = uniform_pair(key, identity, draw, _STREAM_PRODUCTS)
    azimuth, choice = uniform_pair(key, identity, draw + 1, _STREAM_PRODUCTS)
    pt = -_PT_SCALE * math.log(first * second)
    pz = math.sqrt(p * p - pt * pt) if pt < p else (2.0 * choice - 1.0) * p
    pt = math.sqrt(max(0.0, p * p - pz * pz))
    azimuth *= 2.0 * math.pi
    return turned_to(direction, pt * math.cos(azimuth), pt * math.sin(azimuth), pz)


@compiled
def _grey(energy, direction, key, identity, draw):
    """Return the momentum of a nucleon with a kinetic energy."""
    p = math.sqrt(energy * (energy + 2.0 * _PROTON_MASS))
    chance, azimuth = uniform_pair(key, identity, draw, _STREAM_PRODUCTS)
    low = math.exp(-_GREY_SLOPE)
    cosine = math.log(low + chance * (1.0 / low - low)) / _GREY_SLOPE
    pt = p * math.sqrt(max(0.0, 1.0 - cosine * cosine))
    azimuth *= 2.0 * math.pi
    return turned_to(direction, pt * math.cos(azimuth), pt * math.sin(azimuth), p * cosine)


@compiled
def _leading(code, kinetic, p, key, identity):
    """Return (code, kinetic energy) of the leading hadron, code 0 if there is none; _UNSEEN if it is neutral."""
    chance, keeps = uniform_pair(key, identity, 0, _STREAM_PRODUCTS)
    vanishes, _ = uniform_pair(key, identity, 1, _STREAM_PRODUCTS)
    is_baryon = abs(code) >= _FIRST_BARYON_CODE
    if is_baryon and code < 0 and vanishes < math.exp(-p / _ANNIHILATION_SCALE):
        return 0, 0.0
    if abs(code) == _PION and vanishes < _ABSORPTION * math.exp(-kinetic / _ABSORPTION_SCALE):
        return 0, 0.0
    kept = kinetic * chance ** (_NUCLEON_LOSS if is_baryon else _MESON_LOSS)
    if keeps > (_BARYON_KEEPS_CHARGE if is_baryon else _MESON_KEEPS_CHARGE):
        return (NEUTRAL_PION if abs(code) == _PION else _UNSEEN), kept
    return code, kept


@compiled
def _knock_out(rows, n, vertex, left, mass_number, direction, key, identity):
    """Add protons; return rows, their number, and the energy left."""
    waiting, draw = 2.0 * _GREY * mass_number**_GREY_POWER, _FIRST_NUCLEON
    while draw < _FIRST_PION:
        step, which = uniform_pair(key, identity, draw, _STREAM_PRODUCTS)
        share, _ = uniform_pair(key, identity, draw + 1, _STREAM_PRODUCTS)
        waiting += math.log(step)
        energy = _GREY_THRESHOLD - _GREY_MEAN * math.log(share)
        if waiting <= 0.0 or energy + _BINDING > left:
            break
        left -= energy + _BINDING
        if which < _HALF:
            momentum = _grey(energy, direction, key, identity, draw + 2)
            rows, n = add_product(rows, n, vertex, _PROTON, momentum, _STREAM_PRODUCTS, key, identity, draw + 3)
        draw += _DRAWS
    return rows, n, left


@compiled
def _make_pions(rows, n, vertex, left, mass_number, direction, key, identity):
    """Add pions until the energy is used up; return rows and their number."""
    plateau = _PLATEAU * 0.5 * (1.0 + mass_number**_COLLISIONS_POWER) * left / (left + _PLATEAU_SCALE)
    draw = _FIRST_PION
    while left > pion_mass and draw < _LAST_DRAW:
        chance, charge = uniform_pair(key, identity, draw, _STREAM_PRODUCTS)
        energy = left * (1.0 - chance ** (1.0 / plateau))
        left -= energy
        if energy > pion_mass:
            code = NEUTRAL_PION
            if charge < _CHARGED:
                code = _PION if charge < 0.5 * _CHARGED else -_PION
            p = math.sqrt(energy * energy - pion_mass * pion_mass)
            momentum = _at_pt(p, direction, key, identity, draw + 1)
            rows, n = add_product(rows, n, vertex, code, momentum, _STREAM_PRODUCTS, key, identity, draw + 3)
        draw += _DRAWS
    return rows, n


@compiled
def break_up(rows, n, vertex, code, p, mass, direction, mass_number, key, identity):
    """Add the products of a hadron of momentum p that breaks up; return rows and their number."""
    kinetic = math.sqrt(p * p + mass * mass) - mass
    leading, kept = _leading(code, kinetic, p, key, identity)
    left = kinetic - kept
    if leading == 0:
        left += mass if abs(code) == _PION else mass + _PROTON_MASS
    elif leading != _UNSEEN:
        leading_p = math.sqrt(kept * (kept + 2.0 * mass))
        momentum = _at_pt(leading_p, direction, key, identity, 2)
        rows, n = add_product(rows, n, vertex, leading, momentum, _STREAM_PRODUCTS, key, identity, 4)
    rows, n, left = _knock_out(rows, n, vertex, left, mass_number, direction, key, identity)
    return _make_pions(rows, n, vertex, left, mass_number, direction, key, identity)


@compiled_entry
def products_of(codes, masses, momenta, mass_numbers, key, identities):
    """Return rows (PRODUCT_COLUMNS) of the products of hadrons that break up, ordered by vertex.

    Each hadron has a PDG number, a mass, a momentum (3) [GeV], the mass number of the nucleus, and its identity.
    """
    rows = np.empty((FIRST_PRODUCTS, 5))
    n = 0
    for i in range(len(codes)):
        px, py, pz = momenta[i]
        p = math.sqrt(px * px + py * py + pz * pz)
        direction = (px / p, py / p, pz / p)
        rows, n = break_up(rows, n, i, codes[i], p, masses[i], direction, mass_numbers[i], key, identities[i])
    return rows[:n].copy()
