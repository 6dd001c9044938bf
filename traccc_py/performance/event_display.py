"""An event as one interactive HTML page that works offline, and as Phoenix's JSON.

The page has plotly.js in it, from the Python package plotly (extra ``display``).

References
----------
HSF/phoenix, guides/developers/event_data_format.md: Tracks with pos and dparams, Hits as positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.data.truth import Hits
from traccc_py.edm import EventResult
from traccc_py.extras import optional_module
from traccc_py.files import write_files
from traccc_py.geometry.detector import Detector
from traccc_py.performance.match import TruthMatch
from traccc_py.performance.scene import Limits, described, make_scene

__all__ = ["EventDisplay", "phoenix_event"]

_TEMPLATE = Path(__file__).with_name("display.html")
_SHOWN_AT_FIRST = 300  #: tracks
_HEIGHT = 760  #: in notebooks [pixels]


class EventDisplay:
    """A picture of an event, for notebooks and files.

    Parameters
    ----------
    result : EventResult
        The event.
    detector : Detector
        Its detector.
    found : TruthMatch, optional
        Its tracks beside the truth (`traccc_py.match`).
    title : str, optional
        Title.
    min_pt : float, optional
        Smallest pT [GeV] of tracks and particles shown at first; by default such that a few hundred tracks are.
    max_eta : float, optional
        Largest |eta| of them.
    limits : Limits, optional
        How much of a large event is in the page.

    Raises
    ------
    ConfigError
        If plotly is not installed.
    """

    def __init__(
        self,
        result: EventResult,
        detector: Detector,
        found: TruthMatch | None = None,
        *,
        title: str = "Event display",
        min_pt: float | None = None,
        max_eta: float = 4.0,
        limits: Limits | None = None,
    ) -> None:
        self._library = optional_module("plotly.offline", "display", "the event display").get_plotlyjs()
        self.scene = make_scene(result, detector, found, limits)
        self._title = title
        self._start = {"min_pt": _readable_pt(self.scene) if min_pt is None else min_pt, "max_eta": max_eta}

    def page(self) -> str:
        """Return the HTML page."""
        facts = f"{self.scene['detector']['name']}, {self.scene['detector']['field']:g} T: {described(self.scene)}"
        content = {
            "title": escape(self._title),
            "facts": escape(facts),
            "scene": _embedded(self.scene),
            "start": _embedded(self._start),
            "library": self._library,
        }
        first, *rest = _TEMPLATE.read_text(encoding="utf-8").split("{{")
        pieces = [first]
        for part in rest:  # once, so that nothing in the content is taken for a place
            name, _, text = part.partition("}}")
            pieces += [content[name], text]
        return "".join(pieces)

    def save(self, path: str | Path) -> None:
        """Write the page to a file."""
        write_files({Path(path): self.page().encode()})

    def _repr_html_(self) -> str:
        """Return the page in a frame, for notebooks."""
        return f'<iframe srcdoc="{escape(self.page())}" style="width:100%;height:{_HEIGHT}px;border:0"></iframe>'


def _readable_pt(scene: dict[str, Any]) -> float:
    """Return a smallest pT [GeV] with which lines can be told apart."""
    tracks = scene["tracks"]  # from the highest pT
    return float(tracks[_SHOWN_AT_FIRST]["pt"] or 0.0) if len(tracks) > _SHOWN_AT_FIRST else 0.0


def _embedded(content: Any) -> str:
    """Return JSON that can't end the script it stands in."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def phoenix_event(
    event: int, result: EventResult, found: TruthMatch | None = None, run: int = 0
) -> Mapping[str, Mapping[str, Any]]:
    """Return an event in Phoenix's format: tracks, spacepoints and, with truth, true hits and particles.

    Parameters
    ----------
    event : int
        Event number.
    result : EventResult
        The event.
    found : TruthMatch, optional
        Its tracks beside the truth.
    run : int, optional
        Run number.
    """
    tracks = result.tracks[result.tracks.is_fitted]
    states = tracks.states
    assert states is not None
    position = np.round(states.global_position.astype(np.float64), 3).tolist()
    perigee = np.round(tracks.perigee.astype(np.float64), 7).tolist()
    drawn = [
        {
            "pos": position[a:b],
            "dparams": perigee[k],
            "chi2": float(tracks.chi2[k]),
            "dof": float(tracks.ndf[k]),
            "pT": float(tracks.pt[k]),
        }
        for k, (a, b) in enumerate(
            zip(tracks.state_offsets[:-1].tolist(), tracks.state_offsets[1:].tolist(), strict=True)
        )
    ]
    hits = {"Spacepoints": np.round(result.spacepoints.global_position.astype(np.float64), 3).tolist()}
    if found is not None:
        hits["True hits"] = _true_positions(found.truth.hits)
    name = f"event {event}"
    return {name: {"event number": event, "run number": run, "Tracks": {"Tracks": drawn}, "Hits": hits}}


def _true_positions(hits: Hits) -> Any:
    known = np.isfinite(hits.position).all(axis=1)
    return np.round(hits.position[known].astype(np.float64), 3).tolist()
