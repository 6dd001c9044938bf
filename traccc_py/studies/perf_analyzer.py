"""perf_analyzer as a second load generator: how it is run, and what its time stamps say.

Its own numbers are not used: `--request-count` divides by whole seconds, its windows may begin cold, and a range of
concurrencies in one call changes the mix of events (docs/operations.md).
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traccc_py import wire
from traccc_py.client.options import ClientOptions
from traccc_py.edm import Cells
from traccc_py.errors import ServiceError
from traccc_py.studies.load import LoadRun, Request

__all__ = ["find_perf_analyzer", "perf_analyzer_data", "read_profile", "run_perf_analyzer"]

_NANOSECONDS = 1e-9
_LAST_LINES = 5
_SECONDS_MORE = 60.0  #: its start and end
_TIMES_LONGER = 10  #: than a window


def find_perf_analyzer() -> str | None:
    """Return the program in PATH; None if there is none."""
    return shutil.which("perf_analyzer")


def perf_analyzer_data(events: Sequence[Cells], *, compact: bool = False) -> dict[str, Any]:
    """Return events as its input data."""
    options = ClientOptions(compact=compact)
    entries = []
    for cells in events:
        tensors = options.pack(cells)
        entries.append(
            {
                name: {"content": values.ravel().tolist(), "shape": list(values.shape)}
                for name, values in tensors.items()
            }
        )
    return {"data": entries}


def read_profile(text: str, concurrency: int, warm_up: float) -> LoadRun:
    """Return what the file of `--profile-export-file` says.

    Parameters
    ----------
    text : str
        The file.
    concurrency : int
        Concurrency of the call [1]; the file must be of that alone.
    warm_up : float
        Time at the start that does not count [s].

    Raises
    ------
    ServiceError
        If it is not such a file, or of another concurrency or several.
    """
    try:
        experiments = json.loads(text)["experiments"]
        levels = [experiment["experiment"]["value"] for experiment in experiments]
        requests = [_request(entry) for experiment in experiments for entry in experiment["requests"]]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"the profile of perf_analyzer can't be read ({error!r}); expected that of --profile-export-file"
        raise ServiceError(msg) from error
    if levels != [concurrency]:
        msg = f"perf_analyzer measured at concurrency {levels}; expected {concurrency} alone"
        raise ServiceError(msg)
    begins, ends = [request.begin for request in requests], [request.end for request in requests]
    begin = min(begins, default=0.0) + warm_up
    end = max(ends, default=begin)
    measured = [request for request in requests if request.end >= begin]
    return LoadRun("perf_analyzer", concurrency, begin, max(end, begin + _NANOSECONDS), math.nan, measured)


def _request(entry: dict[str, Any]) -> Request:
    begin, answers = entry["timestamp"] * _NANOSECONDS, entry["response_timestamps"]
    is_good = bool(answers) and entry.get("success", True) and not entry.get("has_error", False)
    end = answers[-1] * _NANOSECONDS if answers else begin
    return Request(begin, end, is_good, "" if is_good else "perf_analyzer counted no answer")


def run_perf_analyzer(
    program: str, url: str, events: Sequence[Cells], concurrency: int, *, seconds: float, warm_up: float, compact: bool
) -> LoadRun:
    """Measure one concurrency in one call; parameters as `generate_load`.

    Raises
    ------
    ServiceError
        If it fails, with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="traccc-py-perf-") as name:
        folder = Path(name)
        (folder / "events.json").write_text(json.dumps(perf_analyzer_data(events, compact=compact)))
        model = wire.COMPACT_MODEL if compact else wire.MODEL
        words = ["-m", model, "-i", "grpc", "-u", url, "--input-data", str(folder / "events.json"), "--async"]
        words += ["--concurrency-range", str(concurrency), "-p", str(round(1e3 * (seconds + warm_up))), "-r", "3"]
        words += ["-s", "999", "--profile-export-file", str(folder / "profile.json")]  # one window, whatever it varies
        limit = _SECONDS_MORE + _TIMES_LONGER * (seconds + warm_up)
        try:
            done = subprocess.run([program, *words], capture_output=True, text=True, timeout=limit, check=False)
        except OSError as error:
            msg = f"{program} can't be run: {error}"
            raise ServiceError(msg) from error
        except subprocess.TimeoutExpired as error:
            msg = f"{program} did not end within {limit:.0f} s"
            raise ServiceError(msg) from error
        profile = folder / "profile.json"
        if done.returncode != 0 or not profile.exists():
            lines = " / ".join((done.stderr + done.stdout).strip().splitlines()[-_LAST_LINES:])
            msg = f"{program} ended with code {done.returncode}: {lines}"
            raise ServiceError(msg)
        return read_profile(profile.read_text(), concurrency, warm_up)
