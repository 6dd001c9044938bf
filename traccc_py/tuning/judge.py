"""What settings are worth: efficiency, fakes, duplicates and time on samples, as one number."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from traccc_py.performance.frames import detector_frames
from traccc_py.performance.summary import PerformanceSummary
from traccc_py.tuning.samples import JudgedSample

__all__ = ["Judgement", "judge", "loss"]

_FAKES, _DUPLICATES = 0.5, 0.5  #: a per cent of fakes, or duplicates, weighs as much as this per cent of efficiency
_TIME = 0.2  #: and so does twice the time
_PVALUE = 2.0  #: and a mean p-value of muons that is 1 off 0.5
_HALF = 0.5


class Judgement(NamedTuple):
    """What settings give on the samples."""

    efficiency: dict[str, float]  # by sample [%]
    fakes: dict[str, float]  # per track [%]
    duplicates: dict[str, float]
    p_value: float  # mean of muons
    milliseconds: float  # processor time of all events
    summaries: dict[str, PerformanceSummary]


def judge(chain: Any, samples: Sequence[JudgedSample]) -> Judgement:
    """Reconstruct the samples.

    Parameters
    ----------
    chain : TrackingChain
        Ready to run.
    samples : sequence of JudgedSample
        Events.
    """
    detector = chain.detector
    efficiency, fakes, duplicates, summaries = {}, {}, {}, {}
    seconds = 0.0
    for sample in samples:
        summary = PerformanceSummary(
            {"selected": sample.selection}, float(detector.arrays().b_z), detector_frames(detector)
        )
        for event in sample.events:
            begin = time.process_time()
            result = chain.run(event.cells)
            seconds += time.process_time() - begin
            summary.add_result(event, result)
        counts = summary.samples["selected"].tracks
        efficiency[sample.name] = 100 * counts.efficiency
        fakes[sample.name] = 100 * counts.fakes_per_group if counts.n_groups else 0.0
        duplicates[sample.name] = 100 * counts.duplicates_per_group if counts.n_groups else 0.0
        summaries[sample.name] = summary
    pval, is_good = (summaries["muons"].track_rows[name] for name in ("pval", "is_good"))
    good = pval[is_good > 0]
    p_value = float(np.mean(good)) if len(good) else float("nan")
    return Judgement(efficiency, fakes, duplicates, p_value, 1e3 * seconds, summaries)


def loss(found: Judgement, before: Judgement) -> float:
    """Return what settings lose, in per cent of efficiency: less is better.

    Parameters
    ----------
    found : Judgement
        Of the settings.
    before : Judgement
        Of the settings the search began with, which times are compared to.
    """
    n = len(found.efficiency)
    lost = sum(100 - value for value in found.efficiency.values()) / n
    lost += _FAKES * sum(found.fakes.values()) / n + _DUPLICATES * sum(found.duplicates.values()) / n
    lost += _TIME * float(np.log2(max(found.milliseconds, 1e-3) / max(before.milliseconds, 1e-3)))
    off = found.p_value - _HALF
    return lost + _PVALUE * abs(off if np.isfinite(off) else _HALF)
