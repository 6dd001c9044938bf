"""Truth matching in plain Python, one track and one particle after the other; imports nothing of the package."""

from collections import Counter


def score(
    tracks, particles_of_measurement, is_selected, ratio=0.5, double=True, selected_fakes_only=False, strict=None
):
    """Return the counts of an event.

    `tracks` are lists of measurements (-1: hole), `particles_of_measurement` lists of particles. With `strict`, a
    ratio, tracks are matched as seeds: their purity must exceed it.
    """
    length = Counter(p for particles in particles_of_measurement for p in particles)
    n_matches = Counter()
    counts = {"n_fakes": 0, "n_without_truth": 0, "fakes_of_particle": Counter()}
    for track in tracks:
        measurements = [m for m in track if m >= 0]
        shared = Counter(p for m in measurements for p in particles_of_measurement[m])
        if not shared:
            counts["n_without_truth"] += 1
            continue
        major = min(shared, key=lambda p: (-shared[p], p))
        purity, completeness = shared[major] / len(measurements), shared[major] / length[major]
        is_matched = (
            purity > strict if strict is not None else purity >= ratio and (completeness >= ratio or not double)
        )
        if is_matched:
            n_matches[major] += 1
        elif is_selected[major] or not selected_fakes_only:
            counts["n_fakes"] += 1
            counts["fakes_of_particle"].update(shared.keys())
    selected = [p for p, used in enumerate(is_selected) if used]
    found = [p for p in selected if n_matches[p]]
    counts["n_particles"], counts["n_groups"], counts["n_found"] = len(selected), len(tracks), len(found)
    counts["n_duplicates"] = sum(n_matches[p] - 1 for p in found)
    return counts


def clusters(cells):
    """Return the clusters of cells (module, channel0, channel1) of one event: sets of rows, by flood filling."""
    place = {cell: row for row, cell in enumerate(cells)}
    left, found = set(range(len(cells))), []
    while left:
        queue, cluster = [left.pop()], set()
        while queue:
            row = queue.pop()
            cluster.add(row)
            module, x, y = cells[row]
            for near in [(module, x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                other = place.get(near)
                if other in left:
                    left.discard(other)
                    queue.append(other)
        found.append(cluster)
    return sorted(found, key=lambda rows: min((cells[r][0], cells[r][2], cells[r][1]) for r in rows))
