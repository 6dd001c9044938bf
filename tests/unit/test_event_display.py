"""The event display: what is drawn, what is left out and said so, and that nothing in it can break the page."""

import json
import re

import numpy as np
import pytest

from tests.columns import zeros
from tests.unit.test_data_track_files import make_result
from traccc_py import build_detector
from traccc_py.edm import EventResult, Measurements, Seeds, Spacepoints, Tracks, TrackStates
from traccc_py.errors import ConfigError
from traccc_py.performance.event_display import EventDisplay, phoenix_event
from traccc_py.performance.scene import Limits, make_scene

pytest.importorskip("plotly")


@pytest.fixture(scope="module")
def odd():
    return build_detector("odd")


def many_tracks(n, n_states=2):
    """An event of n tracks of pT 1 to n GeV."""
    random = np.random.default_rng(1)
    perigee = np.zeros((n, 5), np.float32)
    perigee[:, 3], perigee[:, 4] = np.pi / 2, 1 / np.arange(1, n + 1)
    m = n * n_states
    measurements = zeros(Measurements, m, dimensions=np.full(m, 2, np.int32), cell_offsets=np.zeros(m + 1, np.int64))
    tracks = zeros(
        Tracks, n, perigee=perigee, fit_outcome=np.ones(n, np.int32), state_offsets=np.arange(0, m + 1, n_states)
    )
    states = zeros(
        TrackStates, m, measurement_index=np.arange(m, dtype=np.int32),
        global_position=random.normal(size=(m, 3)).astype(np.float32), track_index=np.repeat(np.arange(n), n_states),
    )  # fmt: skip
    spacepoints = Spacepoints(random.normal(size=(m, 3)).astype(np.float32), np.arange(m, dtype=np.int32))
    return EventResult(measurements, spacepoints, zeros(Seeds, n), tracks, states, m, n)


def embedded(page, name):
    """Return a value that the page has as JSON."""
    return json.loads(re.search(rf"^const {name} = (.*);$", page, re.MULTILINE)[1])


def test_a_scene_has_what_was_reconstructed(odd):
    result = make_result(n_states_of_track=(3, 2))
    scene = make_scene(result, odd)
    assert sorted(track["row"] for track in scene["tracks"]) == [0, 1]
    track = next(track for track in scene["tracks"] if track["row"] == 0)
    np.testing.assert_allclose(track["points"], result.track_states.global_position[:3], atol=0.05)
    assert track["pt"] == pytest.approx(result.tracks.pt[0], abs=1e-4)
    assert len(track["states"]) == 3
    assert [part["name"] for part in scene["detector"]["parts"]] == ["pixel", "short strip", "long strip"]
    assert not scene["has_truth"]
    assert scene["notes"] == []
    one_dimensional = [
        k for k in range(3) if result.measurements.dimensions[result.track_states.measurement_index[k]] == 1
    ]
    assert all(track["states"][k][4] is None for k in one_dimensional)


def test_large_events_are_thinned_and_it_is_said(odd):
    scene = make_scene(many_tracks(500), odd, limits=Limits(tracks=100, spacepoints=300, seeds=50))
    assert len(scene["tracks"]) == 100
    assert min(track["pt"] for track in scene["tracks"]) == pytest.approx(401)
    assert len(scene["spacepoints"]) == 250
    assert len(scene["seeds"]) == 50
    assert scene["notes"] == [
        "250 of 1,000 spacepoints are drawn: every 4th",
        "50 of 500 seeds are drawn: every 10th",
        "100 of 500 tracks are drawn: those with pT > 401.00 GeV",
    ]


def test_a_hundred_thousand_tracks_are_drawn(odd):
    display = EventDisplay(many_tracks(100_000), odd)
    assert "3,000 of 100,000 tracks are drawn" in display.scene["notes"][-1]
    assert len(display.page()) < 12_000_000
    assert embedded(display.page(), "start")["min_pt"] == pytest.approx(100_000 - 300)
    assert embedded(EventDisplay(many_tracks(5), odd).page(), "start")["min_pt"] == 0.0


def test_an_empty_event_has_a_page(odd, tmp_path):
    display = EventDisplay(many_tracks(0), odd)
    display.save(tmp_path / "empty.html")
    page = (tmp_path / "empty.html").read_text()
    assert embedded(page, "scene")["tracks"] == []
    assert "0 tracks" in page


def test_failed_fits_are_drawn_without_parameters(odd):
    result = many_tracks(3)
    result.tracks.perigee[1] = np.nan
    scene = make_scene(result, odd)
    assert scene["tracks"][-1]["row"] == 1
    assert scene["tracks"][-1]["pt"] is None
    assert scene["tracks"][-1]["start"] == [None, None, None]
    json.dumps(scene, allow_nan=False)


def test_detectors_of_planes_are_drawn():
    scene = make_scene(many_tracks(2), build_detector("telescope"))
    (part,) = scene["detector"]["parts"]
    assert part["name"] == "pixels"
    assert len(part["xy"]) > 0
    assert {len(line) for line in part["lines"]} == {5}


def test_text_can_not_end_the_script(odd):
    page = EventDisplay(many_tracks(1), odd, title="</script><script>{{scene}}").page()
    assert "<title>&lt;/script&gt;&lt;script&gt;{{scene}}</title>" in page
    assert page.count("<script>") == 2
    assert "http" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # nothing is loaded


def test_notebooks_see_a_frame(odd):
    frame = EventDisplay(make_result(), odd)._repr_html_()
    assert frame.startswith("<iframe srcdoc=")


def test_phoenix_has_tracks_and_hits():
    result = make_result(n_states_of_track=(3, 2))
    result.tracks.fit_outcome[1] = 5
    event = phoenix_event(7, result)["event 7"]
    (track,) = event["Tracks"]["Tracks"]
    assert len(track["pos"]) == 3
    np.testing.assert_allclose(track["dparams"], result.tracks.perigee[0], rtol=1e-5)
    assert event["event number"] == 7
    assert event["Hits"] == {"Spacepoints": []}
    json.dumps(event, allow_nan=False)


def test_without_plotly_the_extra_is_named(odd, monkeypatch):
    from traccc_py import extras

    def no_module(name):
        raise ModuleNotFoundError(name="plotly")

    monkeypatch.setattr(extras, "import_module", no_module)
    with pytest.raises(ConfigError, match=r'the event display needs plotly; .*"traccc-py\[display\]"'):
        EventDisplay(make_result(), odd)


def test_views_are_drawn_for_paper(odd, tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    from traccc_py.performance.views import draw_detector, draw_event

    draw_event(many_tracks(500), odd, tmp_path / "event.png", facts={"facts": "kept"})
    assert Image.open(tmp_path / "event.png").text["facts"] == "kept"
    figure = draw_event(many_tracks(500), odd)
    assert "400 of 500 tracks are drawn" in figure.get_suptitle()
    draw_event(many_tracks(0), odd, tmp_path / "empty.svg")
    draw_detector(odd, tmp_path / "odd.svg")
    text = (tmp_path / "odd.svg").read_text()
    for kind in ("pixel", "short strip", "long strip", "passive material"):
        assert f"<!-- {kind} -->" in text
    draw_detector(build_detector("telescope"), tmp_path / "telescope.png")
