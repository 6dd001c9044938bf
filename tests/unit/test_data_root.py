"""ROOT files: trees in the branches of Acts, whole or not there."""

import numpy as np
import pytest

from tests.unit.test_data_track_files import make_result
from traccc_py.edm import QOP, THETA, packed_index

uproot = pytest.importorskip("uproot")
ak = pytest.importorskip("awkward")

from traccc_py.data.root_output import ROOT_KINDS, RootOutput  # noqa: E402 (after the check)


def written(folder, events, events_per_file=100):
    output = RootOutput(folder, list(ROOT_KINDS), events_per_file)
    for number, result in events.items():
        result.track_states.covariance = abs(result.track_states.covariance)
        result.tracks.perigee_covariance = abs(result.tracks.perigee_covariance)
        output.add(number, result, None)
    output.close()
    return output


def test_trees_have_what_was_reconstructed(tmp_path):
    events = {3: make_result((3, 2)), 4: make_result(()), 7: make_result((4,), seed=2)}
    output = written(tmp_path, events)
    summary, states = (
        uproot.open(f"{path}:{tree}") for path, tree in zip(output.files_of(3), ROOT_KINDS.values(), strict=True)
    )
    assert summary["event_nr"].array().tolist() == [3, 4, 7]
    assert summary["nStates"].array().tolist() == [[3, 2], [], [4]]
    tracks = events[3].tracks
    np.testing.assert_array_equal(summary["eLOC0_fit"].array()[0], tracks.perigee[:, 0])
    np.testing.assert_allclose(
        summary["err_eQOP_fit"].array()[0] ** 2, tracks.perigee_covariance[:, packed_index(QOP, QOP)], rtol=1e-5
    )
    expected = tracks.perigee_covariance[:, packed_index(THETA, QOP)]
    for name in ("cov_eTHETA_eQOP", "cov_eQOP_eTHETA"):
        np.testing.assert_array_equal(summary[name].array()[0], expected)
    assert states["event_nr"].array().tolist() == [3, 3, 7]
    assert ak.num(states["chi2"].array()).tolist() == [3, 2, 4]
    np.testing.assert_array_equal(
        ak.flatten(states["g_x_smt"].array()[:2]), events[3].track_states.global_position[:, 0]
    )
    one_dimensional = ak.flatten(states["dim_hit"].array()) == 1
    assert ak.all(np.isnan(ak.flatten(states["l_y_hit"].array())) == one_dimensional)


def test_events_of_two_ranges_are_in_two_files(tmp_path):
    output = written(tmp_path, {1: make_result((3,)), 2: make_result((2,))}, events_per_file=2)
    for number, n_states in ((1, [[3]]), (2, [[2]])):
        assert uproot.open(f"{output.files_of(number)[0]}:tracksummary")["nStates"].array().tolist() == n_states


def test_many_events_go_to_the_tree_in_pieces(tmp_path, monkeypatch):
    from traccc_py.data import root_output

    monkeypatch.setattr(root_output, "_EVENTS_AT_ONCE", 2)
    output = written(tmp_path, {k: make_result((k + 1,)) for k in range(5)})
    tree = uproot.open(f"{output.files_of(0)[0]}:tracksummary")
    assert tree["nMeasurements"].array().tolist() == [[k + 1] for k in range(5)]


def test_what_was_abandoned_is_gone(tmp_path):
    output = RootOutput(tmp_path, ["tracks"], 100)
    output.add(0, make_result(), None)
    output.abandon()
    assert list((tmp_path / "tracksummary").iterdir()) == []
