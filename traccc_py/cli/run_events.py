"""The events of `traccc-py run`: read, reconstructed and written in turn, or by several processes."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from traccc_py.cli.event_reader import EventReader
from traccc_py.cli.report import EventRecord
from traccc_py.errors import CapacityError
from traccc_py.workers import worker_pool

if TYPE_CHECKING:
    from traccc_py.cli.files import EventFile
    from traccc_py.data.event_output import EventOutput

__all__ = ["EventRunner", "run_groups"]

_MILLISECONDS = 1000.0


@dataclass(slots=True)
class EventRunner:
    """What an event needs."""

    chain: Any
    reader: EventReader
    output: EventOutput | None

    def run(self, files: Sequence[EventFile]) -> list[EventRecord]:
        """Read, reconstruct and write events; their files are complete at the end.

        Raises
        ------
        TracccError, OSError
            If an event can't be read, reconstructed or written; files that are not complete are removed.
        """
        try:
            records = [self._run_event(file) for file in files]
            if self.output is not None:
                begin = time.perf_counter()
                self.output.close()
                records[-1].write_milliseconds += _MILLISECONDS * (time.perf_counter() - begin)
        except BaseException:
            if self.output is not None:
                self.output.abandon()
            raise
        return records

    def _run_event(self, file: EventFile) -> EventRecord:
        begin = time.perf_counter()
        found = self.reader.read(file)
        read = time.perf_counter()
        result = self.chain.run(found.event, found.source)
        done = time.perf_counter()
        if self.output is not None:
            self.output.add(file.event, result, found.particle_of_measurement, found.hit_id)
        return EventRecord(
            event=file.event,
            file=str(file.path),
            kind=file.kind,
            counts=result.counts(),
            stage_milliseconds=dict(result.stage_milliseconds),
            read_milliseconds=_MILLISECONDS * (read - begin),
            total_milliseconds=_MILLISECONDS * (done - read),
            write_milliseconds=_MILLISECONDS * (time.perf_counter() - done),
        )


_runner: EventRunner | None = None  # of this process, as it was when it was forked


def _run_in_worker(files: Sequence[EventFile]) -> list[EventRecord]:
    assert _runner is not None
    return _runner.run(files)


def run_groups(runner: EventRunner, groups: Sequence[Sequence[EventFile]], workers: int) -> Iterator[list[EventRecord]]:
    """Yield the records of groups of events whose files become complete together.

    Parameters
    ----------
    runner : EventRunner
        Runs them.
    groups : sequence of sequence of EventFile
        Groups, yielded in the order in which they end.
    workers : int
        Processes; they share the compiled kernels of this one, which must have started no threads.

    Raises
    ------
    TracccError, OSError
        That of the first event that fails; groups at work then end before.
    """
    if workers == 1:
        for group in groups:
            yield runner.run(group)
        return
    global _runner  # noqa: PLW0603 (what processes inherit)
    _runner = runner
    gc.freeze()  # else each process looks through, and so copies, the compiler's objects
    try:
        with worker_pool(workers, "fork") as pool:
            for done in as_completed([pool.submit(_run_in_worker, group) for group in groups]):
                yield done.result()
    except BrokenProcessPool as error:
        msg = "a process that reconstructs events was killed: is there too little memory? Try fewer --workers"
        raise CapacityError(msg) from error
    finally:
        _runner = None
        gc.unfreeze()
