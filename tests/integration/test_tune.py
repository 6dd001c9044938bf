"""`traccc-py tune`, with few events: files for the next commands, a search that goes on, what is refused."""

import json

import pandas as pd
import pytest

from tests.unit.test_cli import call as run
from traccc_py.config import ChainConfig
from traccc_py.geometry import build_detector
from traccc_py.geometry.variance_table import load_variances

pytest.importorskip("optuna", reason="optuna is not installed: pip install traccc-py[tune]")
pytestmark = pytest.mark.slow

FEW = ["--particles", "50", "--threads", "1"]
TELESCOPE = ["--eta", "-0.2", "0.2", "--phi", "-10", "10", "--vertex-sigma", "0.1", "--calibration-particles", "2000"]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A telescope, which has no table of variances."""
    folder = tmp_path_factory.mktemp("tune") / "telescope"
    done = run("tune", "telescope", "--output", folder, "--trials", "2", *FEW, *TELESCOPE)
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_files_are_those_of_the_next_commands(tuned, tmp_path):
    folder, output = tuned
    assert {"settings.toml", "variances.json", "trials.csv", "report.html"} <= {path.name for path in folder.iterdir()}
    assert "2 settings tried" in output
    ChainConfig.from_toml(folder / "settings.toml")
    names = build_detector("telescope").design_names
    assert load_variances(folder / "variances.json", names).variances.any()
    trials = pd.read_csv(folder / "trials.csv")
    assert trials.trial.tolist() == [0, 1]
    assert trials.efficiency_muons.max() > 90
    page = (folder / "report.html").read_text()
    assert "muons, before" in page
    assert "muons, after" in page
    options = ["--config", folder / "settings.toml", "--particles", "5", "--events", "2", "--eta", "-0.1", "0.1"]
    found = run("performance", "--detector", "telescope", "--variances", folder / "variances.json", *options)
    assert found.exit_code == 0, found.output


@pytest.mark.long
def test_a_search_goes_on(tuned):
    folder, _ = tuned
    done = run("tune", "telescope", "--output", folder, "--trials", "3", *FEW, *TELESCOPE)
    assert done.exit_code == 0, done.output
    assert "2 trials of an interrupted search are there" in done.output
    numbers = [json.loads(line)["number"] for line in (folder / "trials.jsonl").read_text().splitlines()[1:]]
    assert numbers == [0, 1, 2]
    other = run("tune", "telescope", "--output", folder, "--vary", "finding.chi2_max=10:40", *FEW, *TELESCOPE)
    assert other.exit_code == 2
    assert "is of another detector, other settings or samples" in other.output


def test_what_can_not_be_is_an_error(tmp_path):
    away = ["--eta", "3", "3.1", "--phi", "170", "180", "--calibration-particles", "2000"]
    nothing = run("tune", "telescope", "--output", tmp_path / "a", "--trials", "2", *FEW, *away)
    assert nothing.exit_code == 2
    assert "nothing is found in detector 'telescope'" in " ".join(nothing.output.split())
    beyond = run("tune", "toy", "--output", tmp_path / "b", "--vary", "finding.chi2_max=-1:40")
    assert beyond.exit_code == 2
    assert "finding.chi2_max can't be -1" in beyond.output
    missing = run("performance", "--detector", "toy", "--variances", tmp_path / "none.json")
    assert missing.exit_code == 2
    assert "there is no such file" in missing.output
