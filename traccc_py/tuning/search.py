"""The search: trials of an optimiser, kept in a journal so that an interrupted one goes on.

Optuna's tree-structured Parzen estimator (Bergstra et al., NIPS 2011) proposes settings; the first trial are those
that the search begins with. Each trial reconstructs all samples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traccc_py.config import ChainConfig
from traccc_py.errors import ConfigError, GeometryError
from traccc_py.extras import optional_module
from traccc_py.files import content_digest, write_files
from traccc_py.tuning.judge import Judgement, judge, loss
from traccc_py.tuning.samples import JudgedSample
from traccc_py.tuning.space import Parameter, suggest

__all__ = ["JOURNAL_NAME", "Search", "Trial"]

JOURNAL_NAME = "trials.jsonl"
_FEWEST_FOUND = 1.0  #: efficiency below which nothing is found [%]
_STARTUP = 10  #: trials that are random


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings and what they gave."""

    number: int
    values: dict[str, float | int]
    loss: float
    efficiency: dict[str, float]
    fakes: dict[str, float]
    duplicates: dict[str, float]
    p_value: float
    milliseconds: float


class Search:
    """A search for settings.

    Parameters
    ----------
    folder : Path
        Folder of the journal.
    detector : Detector
        Detector.
    config : ChainConfig
        Settings to begin with.
    samples : sequence of JudgedSample
        What settings are judged by.
    space : sequence of Parameter
        What is varied.
    make_chain : callable
        Makes a chain of a detector and settings.
    seed : int, optional
        Seed of the optimiser.

    Raises
    ------
    ConfigError
        If Optuna is not installed, the journal is that of another search, or nothing can be found in the detector.
    """

    def __init__(
        self,
        folder: Path,
        detector: Any,
        config: ChainConfig,
        samples: Sequence[JudgedSample],
        space: Sequence[Parameter],
        make_chain: Callable[[Any, ChainConfig], Any],
        seed: int = 1,
    ) -> None:
        self._optuna = optional_module("optuna", "tune", "tune")
        self._path, self._detector, self._config = folder / JOURNAL_NAME, detector, config
        self._samples, self._space, self._make_chain, self._seed = samples, space, make_chain, seed
        self.before = self.judge({})
        # Without a particle that counts an efficiency is not a number.
        if not max(self.before.efficiency.values(), default=0.0) >= _FEWEST_FOUND:
            found = ", ".join(f"{name} {value:.1f} %" for name, value in self.before.efficiency.items())
            msg = (
                f"nothing is found in detector {detector.name!r} with the settings to begin with ({found}): do "
                "particles cross it? Try --pt, --eta, or other settings with --set"
            )
            raise ConfigError(msg)
        self.trials = self._read()

    def judge(self, values: Mapping[str, float | int], samples: Sequence[JudgedSample] | None = None) -> Judgement:
        """Return what settings give.

        Raises
        ------
        ConfigError
            If they contradict each other.
        """
        chain = self._make_chain(self._detector, self._config.with_settings(dict(values)))
        return judge(chain, self._samples if samples is None else samples)

    @property
    def _key(self) -> str:
        """Hash of what trials depend on."""
        return content_digest(
            self._detector.fingerprint,
            json.dumps(self._config.to_dict(), default=str),
            repr(self._space),
            repr([(s.name, len(s.events), s.selection) for s in self._samples]),
        )

    def _read(self) -> list[Trial]:
        """Return the trials of the journal.

        Raises
        ------
        ConfigError
            If it is that of another search, or can't be read.
        """
        if not self._path.exists():
            write_files({self._path: (json.dumps({"search": self._key}) + "\n").encode()})
            return []
        lines = self._path.read_text(encoding="utf-8").splitlines()
        try:
            head = json.loads(lines[0])
            is_same = head["search"] == self._key
            trials = [Trial(**json.loads(line)) for line in lines[1:] if line.endswith("}")]  # the last may be cut
        except (IndexError, KeyError, TypeError, ValueError) as error:
            msg = f"{self._path}: is not the journal of a search ({error!r}); use another folder, or remove it"
            raise ConfigError(msg) from error
        if not is_same:
            msg = f"{self._path}: is of another detector, other settings or samples; use another folder, or remove it"
            raise ConfigError(msg)
        if len(trials) < len(lines) - 1:
            kept = [lines[0], *lines[1 : 1 + len(trials)]]
            write_files({self._path: "".join(f"{line}\n" for line in kept).encode()})
        return trials

    def run(self, n_trials: int, seconds: float, tell: Callable[[Trial], None]) -> None:
        """Try settings until there are enough trials or the time is over.

        Parameters
        ----------
        n_trials : int
            Trials in all, those of the journal included.
        seconds : float
            Time of this call [s].
        tell : callable
            Gets each trial.
        """
        begin = time.monotonic()
        study = self._study()
        while len(self.trials) < n_trials and time.monotonic() - begin < seconds:
            asked = study.ask()
            trial = self._try(len(self.trials), suggest(asked, self._space))
            study.tell(asked, trial.loss)
            self.trials.append(trial)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: getattr(trial, name) for name in Trial.__slots__}) + "\n")
            tell(trial)

    def _study(self) -> Any:
        """Return a study with the trials that were made."""
        optuna = self._optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=self._seed + len(self.trials), n_startup_trials=_STARTUP)
        study = optuna.create_study(direction="minimize", sampler=sampler)
        kinds = optuna.distributions
        distributions = {
            p.key: kinds.IntDistribution(int(p.low), int(p.high))
            if p.is_integer
            else kinds.FloatDistribution(p.low, p.high, log=p.is_log)
            for p in self._space
        }
        for trial in self.trials:
            inside = {p.key: min(max(trial.values[p.key], p.low), p.high) for p in self._space}
            study.add_trial(optuna.trial.create_trial(params=inside, distributions=distributions, value=trial.loss))
        if not self.trials:
            study.enqueue_trial(self._given())
        return study

    def _given(self) -> dict[str, float | int]:
        """Return the settings to begin with, each as near as the space allows."""
        now = self._derived().to_dict()
        found = {}
        for p in self._space:
            section, _, name = p.key.partition(".")
            value = now[section][name]
            if isinstance(value, int | float):
                found[p.key] = min(max(value, p.low), p.high)
        return found

    def _derived(self) -> ChainConfig:
        from traccc_py.derivation import derive

        return derive(self._config, self._detector)[0]

    def _try(self, number: int, values: dict[str, float | int]) -> Trial:
        """Return a trial; settings that contradict each other lose all."""
        try:
            found = self.judge(values)
        except (ConfigError, GeometryError):
            return Trial(number, values, 100.0, {}, {}, {}, float("nan"), float("nan"))
        return Trial(
            number,
            values,
            loss(found, self.before),
            found.efficiency,
            found.fakes,
            found.duplicates,
            found.p_value,
            found.milliseconds,
        )

    @property
    def settings(self) -> ChainConfig:
        """The settings that were found, or those it began with."""
        return self._config if self.best is None else self._config.with_settings(dict(self.best.values))

    @property
    def best(self) -> Trial | None:
        """The trial with the smallest loss, None without one that is better than the settings to begin with."""
        trial = min(self.trials, key=lambda trial: trial.loss, default=None)
        return None if trial is None or trial.loss >= loss(self.before, self.before) else trial
