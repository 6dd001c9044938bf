"""Greedy ambiguity resolution: traccc's cases, a sequential reference, batches of events, ties."""

import numpy as np
import pytest

from tests.batches import candidate_batch, make_workspace
from tests.reference.ambiguity import resolve
from traccc_py.config import AmbiguityResolutionConfig
from traccc_py.kernels.ambiguity_resolution.ambiguity_resolution import resolve_ambiguities

# Tracks (p-value, measurements) and those accepted: test cases of traccc v1.6.0, which differs in nothing but how
# remaining ties are broken. Lists with repeated measurements are meant so.
CASES = {
    0: ([(0.23, [5, 1, 11, 3]), (0.85, [12, 10, 9, 8, 7, 6]), (0.42, [4, 2, 13])], [0, 1, 2]),
    1: ([(0.12, [5, 14, 1, 11, 18, 16, 3]), (0.53, [3, 6, 5, 13])], [0]),
    2: ([(0.8, [1, 3, 5, 11]), (0.9, [3, 5, 6, 13])], [1]),
    3: (
        [
            (0.2, [5, 1, 11, 3]), (0.5, [6, 2]), (0.4, [3, 21, 12, 6, 19, 14]), (0.1, [13, 16, 2, 7, 11]),
            (0.3, [1, 7, 8]), (0.6, [1, 3, 11, 22]),
        ],
        [2, 3],
    ),
    5: ([(0.2, [1, 2, 1, 1]), (0.5, [3, 2, 1]), (0.4, [2, 4, 5, 7, 2]), (0.1, [6, 6, 6, 6])], [1, 3]),
    6: (
        [
            (0.2, [7, 3, 5, 7, 7, 7, 2]), (0.5, [2]), (0.4, [8, 9, 7, 2, 3, 4, 3, 7]), (0.1, [8, 9, 0, 8, 1, 4, 6]),
            (0.9, [10, 3, 2]),
        ],
        [0, 3],
    ),
    7: ([(0.173853, [10, 3, 6, 8]), (0.548019, [3, 3, 1]), (0.276757, [2, 8, 5, 4])], [2]),
    8: (
        [
            (0.0623132, [10, 4]), (0.207417, [6, 7, 5]), (0.325736, [8, 2, 2]), (0.581643, [5, 7, 9, 7]),
            (0.389551, [1, 9, 3, 0]),
        ],
        [1, 2, 4],
    ),
    9: ([(0.542984, [0, 4, 8, 1, 1]), (0.583695, [10, 6, 8, 7]), (0.280232, [4, 1, 8, 10])], [0]),
    10: (
        [
            (0.399106, [14, 51]), (0.43899, [80, 35, 41, 55]), (0.0954247, [73, 63, 49, 89]),
            (0.158046, [81, 22, 58, 54, 91]), (0.349878, [97, 89, 80]),
        ],
        [1, 2, 3],
    ),
    11: ([(0.95, [56, 87]), (0.894, [64, 63]), (0.824, [70, 17]), (0.862, [27, 0]), (0.871, [27, 19])], []),
    12: (
        [
            (0.948, [17, 6, 1, 69, 78]), (0.609, [17]), (0.453, [84, 45, 81, 69]), (0.91, [54, 64, 49, 96, 40]),
            (0.153, [59, 57, 84, 27, 64]),
        ],
        [0, 3],
    ),
    13: (
        [
            (0.211, [46, 92, 74, 58]), (0.694, [15, 78, 9]), (0.432, [15, 4, 58, 68]), (0.958, [38, 93, 68]),
            (0.203, [57, 64, 57, 36]), (0.118, [4, 85, 65, 14]),
        ],
        [0, 1, 3, 4, 5],
    ),
    14: ([(0.932, [8, 4, 3]), (0.263, [1, 1, 9, 3]), (0.876, [1, 2, 5]), (0.058, [2, 0, 4, 7])], [0, 2]),
    15: ([(0.293, [2, 0, 4]), (0.362, [8, 4, 9, 3]), (0.011, [9, 4, 8, 4]), (0.843, [8, 7, 1])], [0, 3]),
    16: (
        [
            (0.622598, [95, 24, 62, 83, 67]), (0.541774, [6, 52, 57, 87, 75]), (0.361033, [14, 52, 29, 79, 89]),
            (0.622598, [57, 85, 63, 90]), (0.481157, [80, 45, 94]),
        ],
        [0, 2, 3, 4],
    ),
    17: (
        [(0.17975, [7, 4, 10, 3, 0]), (0.924326, [0, 0, 9]), (0.0832954, [0, 2, 0]), (0.303148, [0, 6, 4, 5, 5])],
        [3],
    ),
}  # fmt: skip

# Number of tracks, shortest and longest, number of measurements, whether a track may repeat one.
RANDOM = {
    "simple": (5, 3, 5, 11, False),
    "standard": (2000, 1, 10, 1000, False),
    "standard, repeats": (2000, 1, 10, 1000, True),
    "sparse": (5000, 3, 10, 1_000_000, False),
    "sparse, repeats": (2000, 3, 10, 60_000, True),
    "dense": (1500, 3, 10, 101, False),
    "dense, repeats": (1500, 3, 10, 101, True),
    "long": (300, 3, 300, 3000, True),
}


def selected(events, n_measurements, threads=2, max_shared=1, **config):
    """Candidates accepted and first states, for events that are lists of (p-value, measurements)."""
    tracks = [(p, np.array(t) + k * n_measurements, k) for k, event in enumerate(events) for p, t in event]
    ws = make_workspace(threads, events=len(events), measurements=len(events) * n_measurements)
    code = np.concatenate([t for _, t, _ in tracks]) if tracks else np.zeros(0, int)
    batch = candidate_batch(
        ws,
        code,
        np.zeros(len(code)),
        [len(t) for _, t, _ in tracks],
        [p for p, _, _ in tracks],
        [k for *_, k in tracks],
    )
    # One module holds all measurements of an event.
    event_modules = np.arange(len(events) + 1, dtype=np.int32) * np.int32(n_measurements)
    cuts = AmbiguityResolutionConfig(max_shared_measurements=max_shared, **config)
    found = resolve_ambiguities(ws, batch, event_modules, 1, cuts)
    n = ws.size(ws.extent("tracks"))
    states = found.state_offsets[: n + 1].copy() if tracks else np.zeros(1, np.int32)
    assert ws.size(ws.extent("track_states")) == states[-1]
    return found.candidate[:n].tolist(), np.diff(states).tolist()


def random_event(name, seed):
    n, shortest, longest, n_measurements, repeats = RANDOM[name]
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, n)
    draw = (lambda k: rng.integers(0, n_measurements, k)) if repeats else (lambda k: _distinct(rng, n_measurements, k))
    pvals = rng.random(n).astype(np.float32).astype(float)
    return [(p, draw(k)) for p, k in zip(pvals, lengths, strict=True)]


def _distinct(rng, n_measurements, k):
    found = np.unique(rng.integers(0, n_measurements, 2 * k))
    return rng.permutation(found)[:k] if len(found) >= k else rng.permutation(n_measurements)[:k]


def expected(event, **options):
    return resolve([list(t) for _, t in event], [np.float32(p) for p, _ in event], **options)


@pytest.mark.parametrize("case", list(CASES))
def test_cases_of_traccc(case):
    tracks, accepted = CASES[case]
    found, n_states = selected([tracks], 100)
    assert found == accepted
    assert n_states == [len(tracks[i][1]) for i in accepted]


@pytest.mark.parametrize("case", list(CASES))
def test_reference_gives_the_same_for_the_cases_of_traccc(case):
    tracks, accepted = CASES[case]
    assert expected(tracks) == accepted


def test_short_tracks_are_dropped_first():
    assert selected([CASES[0][0]], 100, min_measurements_per_track=5)[0] == [1]


@pytest.mark.parametrize("name", list(RANDOM))
def test_random_tracks_are_resolved_as_one_by_one(name):
    event = random_event(name, 42)
    found, n_states = selected([event], RANDOM[name][3])
    assert found == expected(event)
    assert n_states == [len(event[i][1]) for i in found]
    assert name == "simple" or 0 < len(found) < len(event)


@pytest.mark.parametrize("max_shared", [2, 3, 5])
@pytest.mark.parametrize("name", ["standard", "dense", "dense, repeats", "long"])
def test_random_tracks_that_may_share_some(name, max_shared):
    event = random_event(name, 7)
    found, _ = selected([event], RANDOM[name][3], max_shared=max_shared)
    assert found == expected(event, max_shared=max_shared)
    assert len(found) > len(expected(event))


def test_tracks_that_share_less_than_the_limit_are_left_alone():
    event = [(0.1, [1, 2, 3, 4]), (0.2, [3, 4, 5, 6]), (0.3, [6, 7, 8, 9])]
    assert selected([event], 10, max_shared=4)[0] == [0, 1, 2]
    assert selected([event], 10, max_shared=3)[0] == [0, 2]
    assert selected([event], 10, max_shared=1)[0] == [0, 2]


@pytest.mark.parametrize("max_shared", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_small_random_cases(seed, max_shared):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        n, n_measurements = rng.integers(1, 12), int(rng.integers(3, 30))
        event = [(float(np.float32(rng.integers(0, 4) / 4)), rng.integers(0, n_measurements, rng.integers(1, 7)))
                 for _ in range(n)]  # fmt: skip
        assert selected([event], n_measurements, max_shared=max_shared)[0] == expected(event, max_shared=max_shared)


def test_events_of_a_batch_are_resolved_as_alone():
    n_measurements = 400
    rng = np.random.default_rng(3)
    events = []
    for n in (120, 0, 1, 300, 77):
        events.append([(float(np.float32(rng.random())), _distinct(rng, n_measurements, rng.integers(3, 10)))
                       for _ in range(n)])  # fmt: skip
    found, _ = selected(events, n_measurements)
    first, alone = 0, []
    for event in events:
        alone += [first + i for i in selected([event], n_measurements)[0]]
        first += len(event)
    assert found == alone
    assert len(found) < first


def test_threads_do_not_change_the_result():
    events = [random_event("dense", seed)[:300] for seed in range(8)]
    assert selected(events, 101, threads=1) == selected(events, 101, threads=4)


def test_of_equal_tracks_the_last_goes():
    event = [(0.5, [1, 2, 3, 4]), (0.5, [3, 4, 5, 6]), (0.5, [7, 8, 9, 1])]
    assert selected([event], 10)[0] == expected(event)
    twins = [(0.5, [1, 2, 3])] * 4
    assert selected([twins], 10)[0] == [0]


def test_the_smaller_p_value_goes_of_tracks_that_share_as_much():
    for low in range(3):
        event = [(0.1 if i == low else 0.9, [i, 3 + i, 9]) for i in range(2)] + [(0.95, [6, 7, 8])]
        assert selected([event], 10)[0] == expected(event)
    assert selected([[(0.1, [0, 1, 9]), (0.9, [2, 3, 9])]], 10)[0] == [1]


def test_a_chain_of_shared_measurements_takes_several_rounds():
    """Each removal frees the next neighbour but one: the rounds may not run ahead of each other."""
    n = 400
    event = [(i / n, [3 * i, 3 * i + 1, 3 * i + 2, 3 * (i + 1)]) for i in range(n)]
    found, _ = selected([event], 3 * n + 3)
    assert found == expected(event)
    assert n / 3 < len(found) < 2 * n / 3 + 1


def test_disabled_keeps_all_that_are_long_enough():
    found, n_states = selected([CASES[6][0]], 100, enabled=False)
    assert found == [0, 2, 3, 4]
    assert n_states == [7, 8, 7, 3]


def test_no_candidates_and_one_candidate():
    assert selected([[]], 10) == ([], [])
    assert selected([[(0.0, [1, 2, 3])]], 10) == ([0], [3])
