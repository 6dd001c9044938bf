"""Greedy ambiguity resolution, one removal after the other; imports nothing of the package."""

from collections import Counter


def resolve(tracks, pvals, min_measurements=3, max_shared=1):
    """Return the indices of the tracks that are kept.

    While any track shares `max_shared` measurements or more with others, that one of them with the largest share of
    shared measurements is removed; of equal ones that with the smallest p-value, then the last. A measurement that a
    track holds twice counts twice in its length and in what it shares.
    """
    live = {i: Counter(t) for i, t in enumerate(tracks) if len(t) >= min_measurements}
    owners = {}
    for i, measurements in live.items():
        for m in measurements:
            owners.setdefault(m, set()).add(i)
    shared = {i: sum(n for m, n in t.items() if len(owners[m]) > 1) for i, t in live.items()}
    while removable := [i for i, n in shared.items() if n >= max_shared]:
        worst = max(removable, key=lambda i: (shared[i] / len(tracks[i]), -pvals[i], i))
        for m in live.pop(worst):
            owners[m].discard(worst)
            if len(owners[m]) == 1:
                (rest,) = owners[m]
                shared[rest] -= live[rest][m]
        del shared[worst]
    return sorted(live)
