"""What `traccc-py tune` found beside the best of a scan by hand, on the events of that search and on others.

Usage: traccc-py tune toy --output tuned_toy --particles 2000 --trials 25
       python -m studies.tuned_by_hand --folder tuned_toy --particles 2000 [--detector detectors.csv]

By hand one setting after the other takes the value with the smallest loss, the former ones being kept, on a coarse
grid. The loss is that of the search without its price of time, which other work on the machine makes
noise. Both results are then compared on events that neither has seen.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from studies.common import OUTPUT, Detector, Output, Threads, write_results
from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig, read_config
from traccc_py.geometry import build_detector
from traccc_py.geometry.variance_table import load_variances
from traccc_py.tuning.judge import Judgement, judge, loss
from traccc_py.tuning.samples import JudgedSample, load_samples
from traccc_py.tuning.settings import TuningSamples

GRID: dict[str, tuple[float, ...]] = {
    "finding.chi2_max": (15.0, 40.0),
    "finding.measurements_per_hole": (0, 1, 3),
    "seeding.impact_max": (1.5, 6.0, 10.0),
    "clusterization.pixel_sigma_floor": (0.001, 0.002, 0.005),
}
_OTHER_SEED = 1000  # as in traccc-py tune


class Judge:
    """Judges settings on samples; each once."""

    def __init__(self, detector: Any, samples: list[JudgedSample], threads: int) -> None:
        self._detector, self._samples, self._threads = detector, samples, threads
        self._known: dict[ChainConfig, Judgement] = {}

    def __call__(self, config: ChainConfig) -> Judgement:
        """Return what settings give."""
        if config not in self._known:
            chain = TrackingChain(self._detector, config, device="cpu", threads=self._threads)
            self._known[config] = judge(chain, self._samples)
        return self._known[config]

    def loss(self, config: ChainConfig) -> float:
        """Return their loss without that of time."""
        found = self(config)
        return loss(found, found)

    @property
    def n_judged(self) -> int:
        """How many settings were judged."""
        return len(self._known)


def by_hand(judged: Judge) -> ChainConfig:
    """Return the best settings of the scan."""
    best = ChainConfig()
    for key, values in GRID.items():
        best = min([best, *(best.with_settings({key: value}) for value in values)], key=judged.loss)
    return best


def row(name: str, found: Judgement) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "settings": name,
        **{f"{sample} %": value for sample, value in found.efficiency.items()},
        **{f"fakes of {sample} %": value for sample, value in found.fakes.items()},
        "mean p": found.p_value,
        "loss": loss(found, found),
    }


def main(
    folder: Annotated[Path, typer.Option(help="Folder that traccc-py tune wrote.")],
    particles: Annotated[int, typer.Option(help="--particles of that search.")] = 1000,
    detector: Detector = "toy",
    threads: Threads = 1,
    output: Output = OUTPUT,
) -> None:
    """Compare."""
    chosen = build_detector(detector)
    if (folder / "variances.json").exists():
        chosen = chosen.with_variances(load_variances(folder / "variances.json", chosen.design_names))
    options = TuningSamples(particles=particles)
    other = replace(options, seed=options.seed + _OTHER_SEED)
    seen = Judge(chosen, load_samples(folder / "samples", chosen, options, threads), threads)
    unseen = Judge(chosen, load_samples(folder / "other_samples", chosen, other, threads), threads)
    found = {"default": ChainConfig(), "tune": read_config(folder / "settings.toml"), "by hand": by_hand(seen)}
    rows = []
    for events, judged in (("of the search", seen), ("others", unseen)):
        for name, config in found.items():
            rows.append({"events": events, **row(name, judged(config))})
    print("|", " | ".join(rows[0]), "|\n|" + "---|" * len(rows[0]))
    for one in rows:
        print("|", " | ".join(x if isinstance(x, str) else f"{x:.3f}" for x in one.values()), "|")
    default = ChainConfig().to_dict()
    chosen_by_hand = {
        f"{section}.{key}": value
        for section, values in found["by hand"].to_dict().items()
        for key, value in values.items()
        if value != default[section][key]
    }
    print(f"by hand, {seen.n_judged - 2} settings tried: {chosen_by_hand}")
    write_results(output, "tuned_by_hand", {"detector": Path(detector).name, "rows": rows, "by_hand": chosen_by_hand})


if __name__ == "__main__":
    typer.run(main)
