"""The table beside others, of what is at hand: own muons, and events in TrackML's format."""

import json

import numpy as np

from studies import outside
from tests.trackml_files import toy_rows, write_rows
from traccc_py.geometry import read_trackml_detector
from traccc_py.simulation.events import simulate_event
from traccc_py.simulation.generators.gun import ParticleGunConfig
from traccc_py.simulation.trackml import write_trackml


def test_the_table_says_what_is_there_and_what_is_not(tmp_path):
    file = write_rows(tmp_path / "detectors.csv", toy_rows())
    detector = read_trackml_detector(file)
    gun = ParticleGunConfig(20, momentum=(1.0, 5.0), eta=(-1.0, 1.0), vertex_sigma=(0.01, 0.01, 30.0))
    write_trackml(tmp_path / "events", detector, simulate_event(detector, gun, 3))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{outside.BEGIN}\nof another day\n{outside.END}\nafter\n")
    outside.main(
        data=tmp_path,
        trackml=[tmp_path / "events"],
        trackml_detector=file,
        trackml_set=["seeding.min_pt=0.3"],
        acts=False,
        page=page,
        muons=2,
        output=tmp_path,
    )
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "of another day" not in text
    (path,) = tmp_path.glob("*-outside.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["program"] for row in rows[:3]] == ["traccc_py"] * 3
    assert [row["program"][:7] for row in rows[3:5]] == ["not run"] * 2
    assert rows[5]["score"] > 0.9
    assert rows[5]["efficiency"] > 95
    assert rows[6]["score"] == 0.944
    assert text.count("\n| ") == 1 + len(rows)


def test_particles_of_tracks_are_those_of_most_measurements():
    class Result:
        class measurements:
            measurement_id = np.arange(6) * 10

        class track_states:
            measurement_index = np.arange(6)
            track_index = np.array([0, 0, 0, 1, 1, 1])

        tracks = (None, None)

    particle = dict(zip(range(0, 60, 10), [7, 7, 8, 1, 2, 3], strict=True))
    majority, n_fakes = outside._majorities(Result, particle)
    assert majority.tolist() == [7, -1]
    assert n_fakes == 1
