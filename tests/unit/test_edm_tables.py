"""Collections as tables: properties, selected rows, data frames, what notebooks and `help` show."""

import sys

import numpy as np
import pytest

from tests.columns import zeros
from tests.unit.test_data_track_files import make_result
from traccc_py.data.truth import Particles
from traccc_py.edm import (
    LOC0,
    QOP,
    THETA,
    Cells,
    FitOutcome,
    Measurements,
    ModuleCells,
    Seeds,
    Tracks,
    TrackStates,
    columns_of,
    packed_index,
)
from traccc_py.errors import ConfigError
from traccc_py.wire import ServedTracks

COLLECTIONS = (Cells, ModuleCells, Measurements, Seeds, Tracks, TrackStates)


def two_tracks():
    """A positive track of p = 2 GeV at 30 degrees and a failed one."""
    perigee = np.array([[0.1, -5.0, 0.3, np.pi / 6, 0.5], [np.nan] * 5], np.float32)
    covariance = np.full((2, 15), np.nan, np.float32)
    covariance[0] = 0.0
    for k, sigma in enumerate((0.01, 0.02, 1e-3, 2e-3, 5e-3)):
        covariance[0, packed_index(k, k)] = sigma**2
    covariance[0, packed_index(THETA, QOP)] = 0.5 * 2e-3 * 5e-3
    outcome = np.array([FitOutcome.SUCCESS, FitOutcome.FITTER], np.int32)
    return zeros(Tracks, 2, perigee=perigee, perigee_covariance=covariance, fit_outcome=outcome)


def test_properties_at_the_perigee():
    tracks = two_tracks()
    for name, expected in (("d0", 0.1), ("z0", -5.0), ("phi", 0.3), ("qop", 0.5), ("p", 2.0), ("charge", 1.0)):
        assert getattr(tracks, name)[0] == pytest.approx(expected, rel=1e-6), name
    assert tracks.pt[0] == pytest.approx(1.0, rel=1e-6)
    assert tracks.eta[0] == pytest.approx(np.arctanh(np.cos(np.pi / 6)), rel=1e-6)
    assert tracks.is_fitted.tolist() == [True, False]
    assert np.isnan([tracks.pt[1], tracks.eta[1], tracks.charge[1], tracks.pt_error[1]]).all()


def test_errors_follow_the_covariance():
    tracks = two_tracks()
    assert tracks.d0_error[0] == pytest.approx(0.01)
    assert tracks.eta_error[0] == pytest.approx(2e-3 / np.sin(np.pi / 6), rel=1e-5)
    random = np.random.default_rng(1)
    covariance = [[4e-6, 5e-6], [5e-6, 25e-6]]
    theta, qop = random.multivariate_normal([np.pi / 6, 0.5], covariance, 200_000).T
    assert tracks.pt_error[0] == pytest.approx(np.std(np.sin(theta) / qop), rel=0.01)


@pytest.mark.parametrize("rows", [np.array([False, True, True]), slice(1, None), [1, 2], np.array([-2, 2])])
def test_selected_tracks_keep_their_states(rows):
    result = make_result(n_states_of_track=(3, 2, 4))
    chosen = result.tracks[rows]
    assert chosen.state_offsets.tolist() == [0, 2, 6]
    assert chosen.states.track_index.tolist() == [0, 0, 1, 1, 1, 1]
    np.testing.assert_array_equal(chosen.states.params, result.track_states.params[3:])
    np.testing.assert_array_equal(chosen.states.measurement_index, result.track_states.measurement_index[3:])
    np.testing.assert_array_equal(chosen.chi2, result.tracks.chi2[1:])
    assert len(result.tracks) == 3
    assert len(result.tracks.states) == 9


def test_tracks_may_be_reordered_repeated_and_none():
    result = make_result(n_states_of_track=(3, 2))
    states = result.track_states
    reordered = result.tracks[[1, 0, 1]]
    assert reordered.state_offsets.tolist() == [0, 2, 5, 7]
    np.testing.assert_array_equal(reordered.states.chi2, states.chi2[[3, 4, 0, 1, 2, 3, 4]])
    for empty in ([], slice(0, 0), np.zeros(2, bool)):
        none = result.tracks[empty]
        assert (len(none), len(none.states), none.state_offsets.tolist()) == (0, 0, [0])
    assert len(result.tracks[1]) == len(result.tracks[-1]) == 1


def test_results_with_selected_tracks_have_their_states():
    result = make_result(n_states_of_track=(3, 2, 4))
    chosen = result.with_tracks(result.tracks.n_measurements > 2)
    assert (len(chosen.tracks), len(chosen.track_states)) == (2, 7)
    assert chosen.tracks.states is chosen.track_states
    assert chosen.measurements is result.measurements


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.ones(3, bool), IndexError, "the mask has 3 values; Tracks has 2 rows"),
        ([0, 2], IndexError, "there is no row 2; Tracks has 2 rows"),
        (-3, IndexError, "there is no row -3"),
        ([0.5], TypeError, "expected a slice, a mask or numbers of rows"),
        ("pt", TypeError, "expected a slice, a mask or numbers of rows"),
        (np.ones((2, 2), bool), TypeError, "expected a slice, a mask or numbers of rows"),
    ],
)
def test_impossible_rows_are_refused(rows, error, message):
    with pytest.raises(error, match=message):
        make_result().tracks[rows]


def test_a_collection_is_no_single_array():
    with pytest.raises(TypeError, match=r"Tracks has columns of several types; take one of them, or to_pandas\(\)"):
        np.asarray(make_result().tracks)


def test_selected_measurements_keep_their_cells():
    measurements = zeros(
        Measurements, 3, cell_offsets=np.array([0, 2, 3, 6]), cell_indices=np.array([5, 4, 3, 2, 1, 0]),
        geometry_id=np.arange(3, dtype=np.uint64),
    )  # fmt: skip
    chosen = measurements[[2, 0]]
    assert chosen.cell_offsets.tolist() == [0, 3, 5]
    assert chosen.cell_indices.tolist() == [2, 1, 0, 5, 4]
    with pytest.raises(TypeError, match="geometry_id has n_modules rows"):
        zeros(ModuleCells, 2)[:1]


def test_tables_have_a_column_for_each_number():
    result = make_result()
    result.track_states.covariance = abs(result.track_states.covariance)
    tracks = result.tracks.to_pandas()
    assert list(tracks.columns[:3]) == ["pt", "eta", "phi"]
    assert {"pt_error", "first_loc0", "first_phi", "chi2", "n_measurements"} <= set(tracks.columns)
    assert tracks.shape[0] == 2
    np.testing.assert_array_equal(tracks["first_phi"], result.tracks.params[:, 2])
    np.testing.assert_allclose(tracks["pt"], result.tracks.pt, rtol=1e-6)
    states = result.track_states.to_pandas()
    assert list(states.columns[:4]) == ["track_index", "measurement_index", "geometry_id", "loc0"]
    np.testing.assert_array_equal(states["y"], result.track_states.global_position[:, 1])
    np.testing.assert_allclose(states["loc0_error"] ** 2, result.track_states.covariance[:, 0], rtol=1e-5)
    assert list(result.spacepoints.to_pandas().columns) == ["x", "y", "z", "measurement_index"]


def test_arrow_and_awkward_have_states_in_tracks():
    pytest.importorskip("pyarrow")
    result = make_result(n_states_of_track=(3, 0, 2))
    table = result.tracks.to_arrow()
    assert table.column("states").to_pylist()[2][1]["track_index"] == 2
    assert [len(states) for states in table.column("states").to_pylist()] == [3, 0, 2]
    np.testing.assert_array_equal(np.array(table.column("perigee").to_pylist()), result.tracks.perigee)
    array = pytest.importorskip("awkward") and result.tracks.to_awkward()
    np.testing.assert_array_equal(array.states.params[2, :, LOC0], result.track_states.params[3:, LOC0])
    assert len(result.tracks[:0].to_awkward()) == 0


def test_a_missing_library_is_named(monkeypatch):
    from traccc_py import extras
    from traccc_py.errors import ConfigError

    def no_module(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras, "import_module", no_module)
    with pytest.raises(
        ConfigError, match=r'to_arrow needs pyarrow; install it with: pip install "traccc-py\[parquet\]"'
    ):
        make_result().tracks.to_arrow()


def test_served_tracks_are_selected_with_what_came():
    state = {"state_offsets": np.array([0, 2, 3]), "state_time": np.arange(3, dtype=np.float32)}
    columns = dict.fromkeys(columns_of(Tracks))
    served = ServedTracks(**columns | {"chi2": np.array([1.0, 2.0]), "perigee": two_tracks().perigee} | state)
    chosen = served[served.chi2 > 1]
    assert chosen.state_time.tolist() == [2.0]
    assert chosen.state_geometry_id is None
    assert served.pt[0] == pytest.approx(1.0, rel=1e-6)
    assert "pt_error" not in served.to_pandas().columns
    with pytest.raises(ValueError, match="no column perigee_covariance"):
        _ = served.pt_error
    served.state_offsets = None
    with pytest.raises(TypeError, match="state_time can't be cut without state_offsets"):
        served[:1]


@pytest.mark.parametrize("kind", COLLECTIONS, ids=lambda kind: kind.__name__)
def test_help_names_every_column(kind):
    for column in columns_of(kind).values():
        assert f"    {column.name} : ndarray of shape (" in kind.__doc__
        assert column.meaning.splitlines()[0] in kind.__doc__


def test_notebooks_see_the_first_rows_and_escaped_text():
    result = make_result(n_states_of_track=(1,) * 20)
    page = result.tracks._repr_html_()
    assert "Tracks: 20 rows" in page
    assert page.count("<tr>") == 1 + 8 + 1
    assert "n_tracks" in result._repr_html_()
    assert "Particles: 0 rows" in zeros(Particles, 0)._repr_html_()
    from traccc_py.edm.html import fact_table

    assert "<b>" not in fact_table("<b>", {"<b>": "<b>"})


def test_true_particles_have_kinematics():
    particles = zeros(Particles, 1, momentum=np.array([[3.0, 4.0, 0.0]], np.float32))
    assert (particles.pt[0], particles.eta[0]) == (5.0, 0.0)
    assert particles.to_pandas()["phi"][0] == pytest.approx(np.arctan2(4, 3))


def test_plot_draws_spacepoints_and_each_track_in_both_views():
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    pyplot.switch_backend("Agg")
    result = make_result()
    axes = result.plot()
    try:
        assert [a.get_xlabel() for a in axes] == ["z [mm]", "x [mm]"]
        for view in axes:
            assert len(view.lines) == 1 + len(result.tracks)
        points = np.asarray(result.spacepoints.global_position)
        np.testing.assert_allclose(axes[0].lines[0].get_ydata(), np.hypot(points[:, 0], points[:, 1]), rtol=1e-6)
        first = result.track_states.global_position[: result.tracks.state_offsets[1]]
        np.testing.assert_allclose(axes[1].lines[1].get_xdata(), first[:, 0], rtol=1e-6)
        assert f"{len(result.tracks)} tracks" in axes[0].get_title()
        assert result.plot(axes) is axes
    finally:
        pyplot.close("all")


def test_plot_without_matplotlib_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"result.plot needs matplotlib; install it with: .*traccc-py\[plots\]"):
        make_result().plot()
