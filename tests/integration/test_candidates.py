"""Track candidates of any finder as the start of the chain: spacepoints of a candidate go to tracks."""

from pathlib import Path

import numpy as np
import pytest

from tests.integration.test_determinism import assert_same_bits
from traccc_py import InputDataError, TrackingChain, read_cells
from traccc_py.data.csv_table import format_table
from traccc_py.data.sample import sample_event_path
from traccc_py.data.spacepoint_files import read_prototracks
from traccc_py.edm import Candidates, Spacepoints


@pytest.fixture(scope="module")
def chain():
    return TrackingChain("odd", device="cpu", threads=2)


@pytest.fixture(scope="module")
def found(chain):
    """Return the chain's own result of the bundled event."""
    return chain.run(read_cells(sample_event_path()))


@pytest.fixture(scope="module")
def candidates(found):
    """Return the spacepoints of each track, one track a spacepoint, as candidates."""
    label = np.full(len(found.measurements), -1)
    states = found.track_states
    label[states.measurement_index] = states.track_index
    return Candidates.of_labels(label[found.spacepoints.measurement_index])


def shuffled(candidates, n_spacepoints, seed):
    """Return candidates, their points and the spacepoints themselves in another order, and that of the spacepoints."""
    random = np.random.default_rng(seed)
    rows = random.permutation(n_spacepoints)
    new = np.empty(n_spacepoints, np.int64)
    new[rows] = np.arange(n_spacepoints)
    parts = [new[part] for part in np.split(candidates.spacepoint_index, candidates.offsets[1:-1])]
    parts = [random.permutation(parts[k]) for k in random.permutation(len(parts))]
    offsets = np.concatenate(([0], np.cumsum([len(part) for part in parts])))
    return Candidates(offsets, np.concatenate(parts)), rows


def test_candidates_of_tracks_give_these_tracks_again(chain, found, candidates):
    again = chain.run((found.measurements, found.spacepoints, candidates))
    before = {tuple(found.track_states.measurement_index[a:b]) for a, b in pairs(found.tracks)}
    after = {tuple(again.track_states.measurement_index[a:b]) for a, b in pairs(again.tracks)}
    assert len(before & after) >= 0.9 * len(before)
    assert 0 < len(again.seeds) <= 8 * len(candidates)
    assert (again.tracks.fit_outcome == 1).all()


def pairs(tracks):
    return zip(tracks.state_offsets[:-1], tracks.state_offsets[1:], strict=True)


def test_a_particle_is_found_behind_the_spacepoints_of_another(chain, found, candidates):
    # Its first three spacepoints are in no candidate: only seeds behind the third are of this particle.
    layer = chain.detector.arrays().surfaces["layer"][found.measurements.module_index]
    measurement, position = found.spacepoints.measurement_index, found.spacepoints.global_position
    on_same_layers = {}
    for points in np.split(candidates.spacepoint_index, candidates.offsets[1:-1]):
        outward = points[np.argsort(np.linalg.norm(position[points], axis=1))]
        on_layer = layer[measurement[outward]]
        if len(outward) >= 7 and len(set(on_layer[:7])) == 7:
            on_same_layers.setdefault(tuple(on_layer[:7]), []).append(outward[:7])
    first, second = max(on_same_layers.values(), key=len)[:2]
    mixed = Candidates(np.array([0, 7]), np.concatenate([first[:3], second[3:]]))
    result = chain.run((found.measurements, found.spacepoints, mixed))
    tracks = [result.track_states.measurement_index[a:b] for a, b in pairs(result.tracks)]
    for points in (first[:3], second[3:]):
        assert any(np.isin(measurement[points], track).all() for track in tracks)


def test_order_batch_and_threads_do_not_matter(chain, found, candidates):
    event = (found.measurements, found.spacepoints, candidates)
    expected = chain.run(event)
    other, rows = shuffled(candidates, len(found.spacepoints), 1)
    points = found.spacepoints[rows]
    none = (found.measurements, found.spacepoints, Candidates(np.zeros(1, np.int64), np.zeros(0, np.int64)))
    batch = chain.run_batch([none, (found.measurements, points, other), event])
    assert len(batch[0].tracks) == 0
    for result in batch[1:]:
        assert_same_bits(result, expected)
    assert_same_bits(TrackingChain("odd", device="cpu", threads=1).run(event), expected)


@pytest.mark.parametrize(
    ("offsets", "points", "message"),
    [
        ([0, 3], [0, 1, 10**6], "candidate 0 .* has spacepoint 1000000; expected 0 to"),
        ([0, 3], [0, 1, -1], "candidate 0 .* has spacepoint -1; expected 0 to"),
        ([0, 3, 6], [0, 1, 2, 3, 4, 2], "candidate 1 .* has spacepoint 2, which is in a candidate already"),
        ([0, 3, 5], [0, 1, 2, 3, 4], "candidate 1 .* has 2 spacepoints; expected at least 3"),
        ([0, 3, 2], [0, 1, 2], "don't cut spacepoint_index"),
        ([0, 4], [0, 1, 2], "don't cut spacepoint_index"),
        ([0.0, 3.0], [0, 1, 2], "don't cut spacepoint_index"),
        ([], [], "don't cut spacepoint_index"),
    ],
)
def test_impossible_candidates_are_named(chain, found, offsets, points, message):
    bad = Candidates(np.array(offsets), np.array(points))
    with pytest.raises(InputDataError, match=message):
        chain.run((found.measurements, found.spacepoints, bad))


def test_an_event_without_spacepoints_has_no_tracks(chain, found):
    nothing = Spacepoints(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    result = chain.run((found.measurements, nothing, Candidates(np.zeros(1, np.int64), np.zeros(0, np.int64))))
    assert len(result.tracks) == len(result.seeds) == 0


def test_labels_make_candidates():
    made = Candidates.of_labels(np.array([7, -1, 2, 7, 2, 9, 7, 2, -1]))
    assert made.offsets.tolist() == [0, 3, 6]
    assert made.spacepoint_index.tolist() == [2, 4, 7, 0, 3, 6]
    assert len(made) == 2
    assert len(Candidates.of_labels(np.zeros(0, np.int64))) == 0


def write_prototracks(path: Path, measurement_id, track_id):
    path.write_bytes(format_table({"measurement_id": measurement_id, "track_id": track_id}))


def test_prototracks_of_a_file_are_read(tmp_path, chain, found, candidates):
    m = found.measurements
    point = candidates.spacepoint_index
    track = np.repeat(np.arange(len(candidates)), np.diff(candidates.offsets)) * 3 + 11
    path = tmp_path / "event000000000-prototracks.csv"
    write_prototracks(path, m.measurement_id[found.spacepoints.measurement_index[point]], track)
    points, read = read_prototracks(path, m, chain.detector)
    assert np.array_equal(points.measurement_index, found.spacepoints.measurement_index)
    assert np.allclose(points.global_position, found.spacepoints.global_position, atol=1e-3)
    assert read.offsets.tolist() == candidates.offsets.tolist()
    assert np.array_equal(np.sort(read.spacepoint_index), np.sort(point))


def test_a_measurement_of_two_prototracks_is_named(tmp_path, chain, found):
    path = tmp_path / "event000000000-prototracks.csv"
    write_prototracks(path, found.measurements.measurement_id[[0, 1, 0]], np.array([1, 1, 2]))
    with pytest.raises(
        InputDataError, match="line 4: column measurement_id is '0'; expected a measurement that is in no"
    ):
        read_prototracks(path, found.measurements, chain.detector)
