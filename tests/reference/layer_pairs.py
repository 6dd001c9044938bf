"""Chains of spacepoints by the plain definitions, in float64: every point of a layer is tried, without cells."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.seeding import allowed_doublets

LONG, MOST_HITS, MOST_CHAINS = 4, 8, 3
SURE_COST = 1.0
SHORT_COST, SHARING_COST, SHORT_IMPACT = 1.5, 0.5, 1.5
SMALLEST_DR = 2.0
DZ_MARGIN, PHI_MARGIN = 0.1, 0.002
CURVATURE_TOLERANCE, CURVATURE_SCATTERING = 0.0001, 0.25


class Search:
    """The search of one event.

    Parameters
    ----------
    points, layer
        Positions (n, 3) and layers (n,).
    inner
        Layers inside each layer: (those next to it, those over one).
    cuts
        `SeedingCuts`, for what scattering and curvature allow.
    config
        The settings these come from; the spacepoints have no errors and fit any direction.
    sparse
        Spacepoints of an event with fewer of which short chains may cost more.
    """

    def __init__(self, points, layer, inner, cuts, config, sparse=20_000):
        self.sparse = sparse
        self.points, self.layer, self.inner, self.config = np.asarray(points, float), layer, inner, config
        self.r, self.phi = np.hypot(self.points[:, 0], self.points[:, 1]), np.arctan2(points[:, 1], points[:, 0])
        self.z = self.points[:, 2]
        self.scattering2, self.per_curvature2 = float(cuts.scattering2), float(cuts.scattering2_per_curvature2)
        self.high_pt2, self.per_diameter = float(cuts.scattering2_high_pt), float(cuts.min_helix_diameter2) ** -0.5
        self.impact_scale = min(math.sqrt(self.scattering2) * self.r.min(), config.impact_max)
        self.impact = config.impact_max

    def chains(self):
        """Return {outermost point: [chain]}, chains from the outside in."""
        found = {i: [] for i in range(len(self.r))}
        for i, kept in found.items():
            self._add_chains_of(i, False, frozenset(), kept)
        every = [chain for chains in found.values() for chain in chains]
        used = frozenset(point for n, cost, hits in every if n > LONG or cost <= SURE_COST for point in hits)
        if len(self.r) >= self.sparse:
            self.impact = min(SHORT_IMPACT * self.impact_scale, self.config.impact_max)
        self.short_cost = SHORT_COST * max(self.sparse / len(self.r), 1.0)
        for i in set(found) - used:
            self._add_chains_of(i, True, used, found[i])
        return {i: {tuple(hits) for _, _, hits in chains} for i, chains in found.items() if chains}

    def _on(self, layers):
        return np.flatnonzero(np.isin(self.layer, list(layers)))

    def _add_chains_of(self, i, is_second, used, kept):
        next_to, over_one = self.inner[self.layer[i]]
        config = self.config
        for k in [*next_to, *(over_one if is_second else [])]:
            others = self._on([k])
            wide = {"delta_r_min": SMALLEST_DR, "delta_r_max": 1e9, "delta_z_max": 1e9, "impact_max": self.impact}
            allowed = allowed_doublets(self.points[i], self.points[others], -1, _changed(config, **wide))
            for j in others[allowed]:
                if not (is_second and j in used):
                    self._follow(i, j, is_second, used, kept)

    def _follow(self, i, j, is_second, used, kept):
        next_to, over_one = self.inner[self.layer[j]]
        n_before = len(kept)
        for layers in (next_to, over_one if is_second else []):
            if layers is over_one and len(kept) > n_before:
                break
            for k in self._continuing(i, j, layers):
                triplet = self._triplet(i, j, k)
                if triplet is None:
                    continue
                hits, cost = self._extended([i, j, k], *triplet)
                if len(hits) >= LONG or (is_second and cost <= (SHARING_COST if k in used else self.short_cost)):
                    _keep(kept, (len(hits), cost, hits))

    def _extended(self, hits, curvature, cost):
        costs = [cost]
        tolerance = CURVATURE_TOLERANCE + CURVATURE_SCATTERING * abs(curvature)
        while len(hits) < MOST_HITS:
            for layers in self.inner[self.layer[hits[-1]]]:
                found = []
                for k in self._continuing(*hits[-2:], layers):
                    triplet = self._triplet(*hits[-2:], k)
                    if triplet is not None and abs(triplet[0] - curvature) <= tolerance:
                        found.append((triplet[1], k))
                if found:
                    break
            else:
                break
            cost, k = min(found)
            costs.append(cost)
            hits = [*hits, int(k)]
        return hits, sum(costs) / len(costs)

    def _continuing(self, outer, middle, layers):
        """Points on layers near the path of the link from `outer` to `middle`."""
        inner = self._on(layers)
        r, z, phi = self.r, self.z, self.phi
        slope = (z[outer] - z[middle]) / (r[outer] - r[middle])
        bend = _turned(phi[outer] - phi[middle]) / (r[outer] - r[middle])
        curvature = min(abs(bend) + self.impact / (r[outer] * r[middle]), self.per_diameter)
        scattering2 = max(self.per_curvature2 * curvature**2, self.high_pt2)
        tolerance = math.sqrt(scattering2 * (1 + slope**2)) + 0.5 * (r[outer] * curvature) ** 2 * abs(slope)
        dr = r[middle] - r[inner]
        near = np.abs(z[middle] - z[inner] - slope * dr) <= tolerance * dr + DZ_MARGIN
        lever = (r[outer] - r[inner]) * dr / (r[inner] * r[middle] * r[outer])
        allowed = self.impact * lever + math.sqrt(scattering2) * dr / r[inner] + PHI_MARGIN
        near &= np.abs(_turned(phi[middle] - phi[inner] - bend * dr)) <= allowed
        return inner[near & (dr > SMALLEST_DR)]

    def _triplet(self, outer, middle, inner):
        """Return (curvature 1/(2 R), cost) of three points, None if the cuts do not allow them."""
        a, b, c = self.points[inner], self.points[middle], self.points[outer]
        bottom, top = (b - a) / math.hypot(*(b - a)[:2]), (c - b) / math.hypot(*(c - b)[:2])
        centre = _centre(a[:2], b[:2], c[:2])
        radius = math.hypot(*(centre - b[:2]))
        (x1, y1), (x2, y2) = b[:2] - a[:2], c[:2] - b[:2]
        turn = np.sign(x1 * y2 - y1 * x2)
        scattering2 = max(self.per_curvature2 / (4 * radius**2), self.high_pt2)
        tolerance2 = min(scattering2, self.scattering2) * (1 + top[2] ** 2)
        mismatch2 = (bottom[2] - top[2]) ** 2
        impact = abs(math.hypot(*centre) - radius)
        if mismatch2 > tolerance2 or impact > self.impact or 2 * radius * self.per_diameter < 1:
            return None
        return turn / (2 * radius), mismatch2 / tolerance2 + impact / self.impact_scale


def _changed(config, **values):
    return type(config)(**{name: values.get(name, getattr(config, name)) for name in type(config).__slots__})


def _turned(angle):
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _centre(a, b, c):
    """Centre of the circle through three points."""
    matrix = 2 * np.array([b - a, c - a])
    return np.linalg.solve(matrix, [b @ b - a @ a, c @ c - a @ a])


def _keep(kept, chain):
    """Put a chain in the place of a worse one: of the same particle, else where there is room, else the last."""
    n, cost, hits = chain
    place = None
    for rank, (other_n, other_cost, other) in enumerate(kept):
        is_better = (n, -cost) > (other_n, -other_cost)
        if set(hits[1:]) & set(other[1:]):
            if is_better:
                kept[rank] = chain
            return
        if is_better and len(kept) == MOST_CHAINS:
            place = rank
    if len(kept) < MOST_CHAINS:
        kept.append(chain)
    elif place is not None:
        kept[place] = chain
