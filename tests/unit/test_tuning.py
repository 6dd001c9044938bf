"""The search of settings: what may be varied, what is judged, and searches that are interrupted."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from traccc_py.config import ChainConfig
from traccc_py.derivation import derive
from traccc_py.errors import ConfigError
from traccc_py.geometry import build_detector
from traccc_py.settings import settings_of
from traccc_py.tuning.judge import Judgement, loss
from traccc_py.tuning.report import settings_toml, trial_table
from traccc_py.tuning.search import JOURNAL_NAME, Search
from traccc_py.tuning.space import SPACE, Parameter, parse_parameter, suggest

pytest.importorskip("optuna", reason="optuna is not installed: pip install traccc-py[tune]")

OPTIMUM = {"finding.chi2_max": 20.0, "seeding.impact_max": 4.0}
SPACE_OF_TWO = (Parameter("finding.chi2_max", 10.0, 40.0, is_log=True), Parameter("seeding.impact_max", 1.0, 10.0))


def judgement(efficiency, fakes=0.0, milliseconds=100.0, p_value=0.5):
    one = {"muons": efficiency}
    return Judgement(one, {"muons": fakes}, {"muons": 0.0}, p_value, milliseconds, {})


class Valley(Search):
    """A search in which the efficiency falls off around one optimum."""

    n_judged = 0

    def judge(self, values, samples=None):
        Valley.n_judged += 1
        config = self._config.with_settings(dict(values))
        if config.finding.chi2_max > 39:
            msg = "a setting contradicts another"
            raise ConfigError(msg)
        off = np.log(config.finding.chi2_max / 20.0) ** 2 + np.log(config.seeding.impact_max / 4.0) ** 2
        return judgement(100.0 - 10.0 * off)


@pytest.fixture
def detector():
    return SimpleNamespace(name="none", fingerprint="0" * 16)


def search(folder, detector, kind=Valley, space=SPACE_OF_TWO, config=None):
    return kind(folder, detector, config or ChainConfig(), [], space, None)


@pytest.fixture(autouse=True)
def derived(monkeypatch):
    monkeypatch.setattr(Search, "_derived", lambda self: self._config)


def test_the_usual_space_is_one_of_settings_and_has_those_of_the_odd_inside():
    config = derive(ChainConfig(), build_detector("odd"))[0].to_dict()
    for p in SPACE:
        section, _, name = p.key.partition(".")
        setting = next(s for s in settings_of(type(getattr(ChainConfig(), section))) if s.name == name)
        assert all(setting.accepts(int(v) if p.is_integer else v) for v in (p.low, p.high))
        assert p.is_integer == (setting.kind is int)
        assert p.low <= config[section][name] <= p.high


def test_ranges_are_parsed():
    assert parse_parameter("finding.chi2_max=10:40") == Parameter("finding.chi2_max", 10, 40, is_log=True)
    assert parse_parameter("finding.max_holes=1:4") == Parameter("finding.max_holes", 1, 4, is_integer=True)
    assert not parse_parameter("seeding.sigma_scattering=0:4").is_log


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("finding.chi=1:2", "there is no setting 'finding.chi'"),
        ("nothing.chi2_max=1:2", "there is no setting"),
        ("finding.chi2_max", "expected KEY=LOW:HIGH"),
        ("finding.chi2_max=1:x", "expected KEY=LOW:HIGH"),
        ("finding.chi2_max=40:10", "the smaller one first"),
        ("finding.chi2_max=0:10", "can't be 0; expected a finite number > 0"),
        ("finding.chi2_max=1:inf", "can't be inf"),
        ("finding.max_holes=1:2.5", "expected two different integers"),
        ("finding.particle=1:2", "expected two different"),
    ],
)
def test_ranges_that_can_not_be_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_parameter(text)


def test_values_are_those_of_the_trial():
    trial = SimpleNamespace(suggest_float=lambda key, low, high, log: high, suggest_int=lambda key, low, high: low)
    found = suggest(trial, SPACE)
    assert found["finding.measurements_per_hole"] == 0
    assert found["finding.chi2_max"] == 50.0


def test_a_loss_is_less_with_more_found_less_fakes_and_less_time():
    before = judgement(99.0, fakes=1.0)
    assert loss(before, before) == pytest.approx(1.5)
    assert loss(judgement(99.5, fakes=1.0), before) < loss(before, before)
    assert loss(judgement(99.0, fakes=0.5), before) < loss(before, before)
    assert loss(judgement(99.0, fakes=1.0, milliseconds=50), before) == pytest.approx(1.3)
    assert loss(judgement(99.0, fakes=1.0, p_value=0.4), before) == pytest.approx(1.7)
    assert loss(judgement(0.0, p_value=float("nan")), before) > 100


def test_the_optimum_is_found(tmp_path, detector):
    found = search(tmp_path, detector)
    found.run(60, 60.0, lambda trial: None)
    assert len(found.trials) == 60
    assert found.trials[0].values == {"finding.chi2_max": 25.0, "seeding.impact_max": 3.0}  # the defaults come first
    assert found.best.efficiency["muons"] > 99.5
    for key, value in OPTIMUM.items():
        assert found.best.values[key] == pytest.approx(value, rel=0.3)
    assert found.settings.finding.chi2_max == found.best.values["finding.chi2_max"]


def test_settings_outside_of_the_space_begin_at_its_edge(tmp_path, detector):
    given = ChainConfig().with_settings({"finding.chi2_max": 5.0, "seeding.impact_max": 30.0})
    found = search(tmp_path, detector, config=given)
    found.run(1, 60.0, lambda trial: None)
    assert found.trials[0].values == {"finding.chi2_max": 10.0, "seeding.impact_max": 10.0}


def test_an_interrupted_search_goes_on(tmp_path, detector):
    class Interrupted(Valley):
        def judge(self, values, samples=None):
            if Valley.n_judged == 12:
                raise KeyboardInterrupt
            return super().judge(values, samples)

    Valley.n_judged = 0
    first = search(tmp_path, detector, Interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.run(30, 60.0, lambda trial: None)
    assert len(first.trials) == 11
    path = tmp_path / JOURNAL_NAME
    path.write_text(path.read_text()[:-30])  # as if the machine had stopped while it was written
    told = []
    again = search(tmp_path, detector)
    assert len(again.trials) == 10
    again.run(30, 60.0, told.append)
    assert [trial.number for trial in told] == list(range(10, 30))
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()[1:]] == list(range(30))


def test_the_journal_of_another_search_is_refused(tmp_path, detector):
    search(tmp_path, detector)
    with pytest.raises(ConfigError, match="is of another detector, other settings or samples"):
        search(tmp_path, detector, space=SPACE_OF_TWO[:1])
    with pytest.raises(ConfigError, match="is of another detector"):
        search(tmp_path, detector, config=ChainConfig().with_particle("muon"))
    (tmp_path / JOURNAL_NAME).write_text("nothing\n")
    with pytest.raises(ConfigError, match="is not the journal of a search"):
        search(tmp_path, detector)


def test_a_detector_in_which_nothing_is_found_is_an_error(tmp_path, detector):
    class Empty(Valley):
        def judge(self, values, samples=None):
            return judgement(0.0)

    with pytest.raises(ConfigError, match="nothing is found in detector 'none'"):
        search(tmp_path, detector, Empty)


def test_settings_that_contradict_each_other_lose(tmp_path, detector):
    found = search(tmp_path, detector, space=(Parameter("finding.chi2_max", 39.5, 40.0),))
    found.run(3, 60.0, lambda trial: None)
    assert [trial.loss for trial in found.trials] == [100.0] * 3
    assert found.best is None
    assert found.settings == ChainConfig()


def test_time_ends_a_search(tmp_path, detector):
    found = search(tmp_path, detector)
    found.run(1000, 0.0, lambda trial: None)
    assert found.trials == []


def test_what_is_kept(tmp_path, detector):
    found = search(tmp_path, detector)
    found.run(25, 60.0, lambda trial: None)
    text = settings_toml(found)
    assert f"tuned, trial {found.best.number}" in text
    (tmp_path / "settings.toml").write_text(text)
    assert ChainConfig.from_toml(tmp_path / "settings.toml") == found.settings
    table = trial_table(found.trials)
    assert table["trial"].tolist() == list(range(25))
    assert np.nanmax(table["efficiency_muons"]) == pytest.approx(found.best.efficiency["muons"])
    assert table["finding.chi2_max"][0] == 25.0
