"""The bundled event: simulated muons in the Open Data Detector."""

from __future__ import annotations

from pathlib import Path

from traccc_py.data.csv_events import find_event_file

__all__ = ["SAMPLE_DIRECTORY", "sample_event_path"]

SAMPLE_DIRECTORY = Path(__file__).resolve().parent / "sample"  #: made by studies/make_sample_event.py


def sample_event_path(kind: str = "cells") -> Path:
    """Return the path of a file of the sample event.

    Parameters
    ----------
    kind : str, optional
        ``cells``, ``hits``, ``measurements``, ``particles_initial`` or ``measurement-simhit-map``.

    Raises
    ------
    InputDataError
        If there is no such file.
    """
    return find_event_file(SAMPLE_DIRECTORY, 0, kind)
