"""The score of the TrackML challenge, hit by hit, in plain Python, from the rules of arXiv:1904.06778."""

from collections import Counter, defaultdict


def order_weight(place, n):
    """Weight of hit number `place` of n: linear between nine points along the track."""
    points = [10, 8, 6, 5, 3, 3, 3, 5, 6]
    where = place * 8 / (n - 1)
    k = min(int(where), 7)
    return points[k] + (where - k) * (points[k + 1] - points[k])


def pt_weight(pt):
    if pt < 0.05:
        return 0.0
    return 0.2 + 0.8 * min(max((pt - 0.5) / 2.5, 0.0), 1.0)


def weights(particle_of_hit, z_of_hit, pt, vz):
    """Weights of hits; -1 is noise, particles have a pT and a vertex."""
    hits = defaultdict(list)
    for hit, particle in enumerate(particle_of_hit):
        if particle >= 0:
            hits[particle].append(hit)
    found = [0.0] * len(particle_of_hit)
    for particle, own in hits.items():
        own.sort(key=lambda hit: abs(z_of_hit[hit] - vz[particle]))
        n = min(len(own), 20)
        if n < 4:
            continue
        total = sum(order_weight(k, n) for k in range(n))
        for k, hit in enumerate(own[:20]):
            found[hit] = pt_weight(pt[particle]) * order_weight(k, n) / total
    whole = sum(found)
    return [w / whole for w in found]


def score(particle_of_hit, track_of_hit, weight):
    """Weight of the hits that are on good tracks of their particles; track 0 and particle -1 are none."""
    on_track, of_particle = Counter(track_of_hit), Counter(particle_of_hit)
    common = Counter(zip(track_of_hit, particle_of_hit, strict=True))
    return sum(
        w
        for particle, track, w in zip(particle_of_hit, track_of_hit, weight, strict=True)
        if track != 0
        and particle != -1
        and 2 * common[track, particle] > on_track[track]
        and 2 * common[track, particle] > of_particle[particle]
    )
