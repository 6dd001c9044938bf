"""`run-manifest.json` beside the results of a run: how they were made, from what, and which events are complete.

While a run is at work, `.run-events.jsonl` has a line for each event that is complete. It makes `--resume` possible and
becomes a part of the manifest at the end. Neither has times, so equal runs have equal files.

Shards of a run (`--shard I/N`) work in one folder, perhaps on different machines. Each has a journal of its own,
`.run-events-I-of-N.jsonl`, whose name ends with `.done.jsonl` when the shard is done; the last one to end writes the
manifest of all.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from traccc_py.errors import InputDataError
from traccc_py.files import write_files

__all__ = ["RECORD_NAME", "RunRecord", "Shard", "read_record"]

RECORD_NAME = "run-manifest.json"
_JOURNAL_NAME = ".run-events.jsonl"
_JOURNALS = ".run-events*.jsonl"  #: of a run, or of its shards
_FORMAT = 1
#: End of the names of files that are being written, with the process.
_TEMPORARY = re.compile(r"\.(\d+)-[0-9a-f]+\.tmp$")
_STATE, _STARTED = 0, 19  #: of a process, in the columns behind its name in /proc/N/stat
_ENDED = "ZX"  #: states in which only the entry is left, until the parent takes note of the end
_SHOWN = 3  #: differences named in an error
_NOT_COMPARED = ("versions",)  #: of the recipe, where results are replaced


class Shard(NamedTuple):
    """One of the parts of a run."""

    number: int  #: from 0
    n_shards: int

    def journal_name(self, *, is_done: bool) -> str:
        """Return the name of its journal."""
        return f".run-events-{self.number}-of-{self.n_shards}{'.done' if is_done else ''}.jsonl"


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder of results, None if there is none.

    Raises
    ------
    InputDataError
        If it can't be used.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path}: can't be read ({error}); use another folder, or remove it"
        raise InputDataError(msg) from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        msg = f"{path}: is not the manifest of a run of format {_FORMAT}; use another folder, or remove it"
        raise InputDataError(msg)
    return found


class RunRecord:
    """The record of a folder of results.

    Parameters
    ----------
    folder : Path
        The folder.
    recipe : mapping
        What results depend on: detector, settings, versions, form of the output.
    shard : Shard, optional
        The part of the run that this is.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any], shard: Shard | None = None) -> None:
        self._folder, self._shard = folder, shard
        self._journal = folder / (_JOURNAL_NAME if shard is None else shard.journal_name(is_done=False))
        self._recipe = json.loads(json.dumps(recipe))  # as it is read again
        self._done: dict[int, dict[str, Any]] = {}
        self._has_begun = False
        self._is_recorded = False  # by a complete manifest

    def begin(self, *, resume: bool) -> list[int]:
        """Check that results of other runs are not mixed with these; return the events that are complete.

        Parameters
        ----------
        resume : bool
            Go on where a run stopped, or has ended with fewer events.

        Raises
        ------
        InputDataError
            If the folder has results made in another way.
        """
        if self._shard is None:  # else they may belong to another shard, on another machine
            _remove_rests(self._folder)
        before = read_record(self._folder)
        if before is not None:
            self._compare(before["recipe"], resume=resume)
            if before["recipe"]["versions"] == self._recipe["versions"]:
                self._done = {event["event"]: event for event in before["events"]}
        for journal in self._folder.glob(_JOURNALS):
            self._done |= _journal_events(journal)
        self._is_recorded = before is not None and before["is_complete"]
        return list(self._done) if resume else []

    def _compare(self, before: Mapping[str, Any], *, resume: bool) -> None:
        left_out = () if resume else _NOT_COMPARED
        differences = list(_differences(before, self._recipe, left_out))
        if differences:
            shown = "; ".join(differences[:_SHOWN])
            more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
            msg = f"{self._folder}: has results that were made in another way: {shown}{more}; use another folder"
            raise InputDataError(msg)

    def add(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Note that events are complete."""
        if not self._has_begun:  # not before: a run that fails at once leaves nothing
            if self._shard is not None:
                (self._folder / self._shard.journal_name(is_done=True)).unlink(missing_ok=True)
            write_files({self._journal: self._lines()})
            write_files({self._folder / RECORD_NAME: self._content(is_complete=False)})
            self._has_begun = True
        self._done |= {event["event"]: dict(event) for event in events}
        with self._journal.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)

    def finish(self) -> None:
        """Write the record of a complete run; of a shard only that it is done, unless all others are."""
        if self._shard is not None and not self._finish_shard(self._shard):
            return
        write_files({self._folder / RECORD_NAME: self._content(is_complete=True)})
        _remove_rests(self._folder)
        for journal in self._folder.glob(_JOURNALS):
            journal.unlink(missing_ok=True)

    def _finish_shard(self, shard: Shard) -> bool:
        """Note that a shard is done; return whether all are, and gather what they have done."""
        if self._is_recorded and not self._has_begun:
            return False  # nothing was left to do
        if not self._has_begun:
            write_files({self._journal: self._lines()})
        self._journal.replace(self._folder / shard.journal_name(is_done=True))
        done = [self._folder / Shard(k, shard.n_shards).journal_name(is_done=True) for k in range(shard.n_shards)]
        if not all(path.exists() for path in done):
            return False
        try:
            for path in done:
                self._done |= _journal_events(path)
        except FileNotFoundError:  # another shard, which ended at the same time, has written the manifest
            return False
        return True

    def _lines(self) -> bytes:
        return "".join(json.dumps(event) + "\n" for event in self._done.values()).encode()

    def _content(self, *, is_complete: bool) -> bytes:
        events = [self._done[number] for number in sorted(self._done)] if is_complete else []
        content = {"format": _FORMAT, "is_complete": is_complete, "recipe": self._recipe, "events": events}
        return (json.dumps(content, indent=1) + "\n").encode()


def _remove_rests(folder: Path) -> None:
    """Remove files that processes were writing when they were killed."""
    for path in folder.rglob(".*.tmp"):
        found = _TEMPORARY.search(path.name)
        with suppress(FileNotFoundError):  # complete by now
            if found and not _has_written(found[1], path.stat().st_mtime):
                path.unlink()


def _has_written(process: str, changed: float) -> bool:
    """Return whether a process lives and may have changed a file at a time [s]: another may have got its number."""
    try:
        columns = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    started = booted + int(columns[_STARTED]) / os.sysconf("SC_CLK_TCK")
    return columns[_STATE] not in _ENDED and started <= changed + 1  # clocks differ by less


def _journal_events(path: Path) -> dict[int, dict[str, Any]]:
    """Return the events of a journal; a last line that a kill cut is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        found[int(event["event"])] = event
    return found


def _differences(before: Any, now: Any, left_out: Sequence[str], name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            text
            for key in keys
            if (path := f"{name}.{key}" if name else key) not in left_out
            for text in _differences(before.get(key), now.get(key), left_out, path)
        ]
    return [] if before == now else [f"{name} was {before}, now {now}"]
