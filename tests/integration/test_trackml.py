"""Events of TrackML's format through the commands: simulated, reconstructed, compared, submitted."""

import numpy as np
import pandas as pd
import pytest

from tests.reference import trackml as reference
from tests.trackml_files import toy_rows, write_rows
from tests.unit.test_cli import call as run

MUONS = ["--particles", "30", "--pt", "1", "10", "--eta", "-1", "1", "--beam-spot", "0.01", "0.01", "30"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A detector, events in its format, and what the chain made of them: of cells, and of hits."""
    root = tmp_path_factory.mktemp("trackml")
    detector = ["--detector-file", str(write_rows(root / "detectors.csv", toy_rows()))]
    made = run("simulate", *detector, "--format", "trackml", "--output", str(root / "events"), "--events", "2", *MUONS)
    assert made.exit_code == 0, made.output
    outputs = ["--outputs", "tracks,track_states,measurements,submission", "--particle", "muon"]
    for name, options in (("cells", []), ("hits", ["--input-kind", "trackml_hits"])):
        found = run("run", str(root / "events"), *detector, "--output", str(root / name), *outputs, *options)
        assert found.exit_code == 0, found.output
    return root


def compared(folder, name, *options):
    numbers = folder / f"{name}.json"
    detector = ["--detector-file", str(folder / "detectors.csv"), "--truth-side", "incoming"]
    events = ["--truth", str(folder / "events"), "--tracks", str(folder / name)]
    found = run("performance", *events, *detector, "--json", str(numbers), *options)
    assert found.exit_code == 0, found.output
    assert "all kinds count" in found.output
    return pd.read_json(numbers, typ="series")["results"]["traccc_py"], found.output


@pytest.mark.parametrize("name", ["cells", "hits"])
def test_muons_are_found(folder, name):
    numbers, output = compared(folder, name)
    assert numbers["tracks"]["selected"]["n_particles"] == 60
    assert numbers["tracks"]["selected"]["n_found"] >= 59
    assert numbers["tracks"]["selected"]["n_fakes"] == 0
    assert f"score of the TrackML challenge {numbers['trackml_score']:.4f}" in output


@pytest.mark.parametrize("name", ["cells", "hits"])
def test_submissions_have_the_score_that_performance_tells(folder, name):
    numbers, _ = compared(folder, name)
    scores = []
    for path in sorted((folder / name).glob("*-submission.csv")):
        submission = pd.read_csv(path)
        truth = pd.read_csv(folder / "events" / path.name.replace("submission", "truth"))
        assert list(submission.columns) == ["event_id", "hit_id", "track_id"]
        assert submission.hit_id.is_unique
        assert set(submission.hit_id) == set(truth.hit_id)
        both = truth.merge(submission, on="hit_id")
        scores.append(reference.score(both.particle_id.tolist(), both.track_id.tolist(), both.weight.tolist()))
    assert len(scores) == 2
    assert numbers["trackml_score"] == pytest.approx(np.mean(scores), abs=1e-9)
    assert numbers["trackml_score"] > 0.95


def test_other_events_have_no_submission(folder):
    found = run("run", "--sample", "--output", str(folder / "no"), "--outputs", "submission")
    assert found.exit_code == 2
    assert "--outputs has submission, which is for hits of TrackML" in found.output


def test_events_of_particle_files(folder):
    particles = sorted((folder / "events").glob("*-particles.csv"))
    detector = ["--detector-file", str(folder / "detectors.csv"), "--format", "trackml"]
    files = [option for path in particles for option in ("--particles-file", str(path))]
    made = run("simulate", *detector, "--output", str(folder / "again"), *files)
    assert made.exit_code == 0, made.output
    assert len(list((folder / "again").glob("*-hits.csv"))) == 2
    before, after = (pd.read_csv(folder / name / particles[0].name) for name in ("events", "again"))
    assert np.array_equal(before.particle_id, after.particle_id)
    assert after.nhits.sum() > 0.9 * before.nhits.sum()
    refused = run("simulate", *detector, "--output", str(folder / "no"), *files, "--events", "3")
    assert refused.exit_code == 2
    assert "--particles-file says which events there are" in refused.output


def test_samples_of_trackml_are_reconstructed_first(folder):
    found = run("performance", "--sample", str(folder / "events"), "--detector-file", str(folder / "detectors.csv"))
    assert found.exit_code == 2
    assert "holds files of TrackML; reconstruct them with 'run'" in found.output
