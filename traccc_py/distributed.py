"""Events by the workers of a Dask cluster: each keeps a chain, and what is lost with a worker is done again.

Any `distributed.Client` will do: of a `LocalCluster`, of dask-jobqueue on Slurm or HTCondor, of a cluster at hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traccc_py.config import ChainConfig
from traccc_py.detector_options import DetectorOptions
from traccc_py.edm import EventResult
from traccc_py.extras import optional_module

if TYPE_CHECKING:
    from traccc_py.chain import TrackingChain
    from traccc_py.cli.files import EventFile
    from traccc_py.cli.reconstruction import RunOptions

__all__ = ["ChainRecipe", "get_chain", "reconstruct", "run"]

_RETRIES = 3  #: of a task that fails; tasks of workers that end are repeated by Dask itself

_kept = threading.local()  # a chain is for one thread


@dataclass(frozen=True, slots=True)
class ChainRecipe:
    """How a worker makes its chain.

    Attributes
    ----------
    detector : DetectorOptions or str
        The detector, or its name. Files that it names must be readable by workers.
    config : ChainConfig, optional
        Settings.
    device : str
        "cpu", "cuda" or "cuda:N".
    threads : int
        CPU threads of a chain [1].
    """

    detector: DetectorOptions | str = "odd"
    config: ChainConfig | None = None
    device: str = "cpu"
    threads: int = 1

    def options(self) -> DetectorOptions:
        """Return what chooses the detector."""
        return DetectorOptions(self.detector) if isinstance(self.detector, str) else self.detector

    def make(self) -> TrackingChain:
        """Return a chain that has compiled nothing yet."""
        from traccc_py.chain import TrackingChain

        return TrackingChain(self.options().load(), self.config, self.device, self.threads)


def get_chain(recipe: ChainRecipe) -> TrackingChain:
    """Return the chain of this thread, made and initialised at its first call with a recipe."""
    if getattr(_kept, "recipe", None) != recipe:
        chain = recipe.make()
        chain.initialize()
        _kept.recipe, _kept.chain = recipe, chain
    return _kept.chain


def _reconstruct_batch(
    recipe: ChainRecipe, events: Sequence[Any], function: Callable[[list[EventResult]], Any] | None
) -> Any:
    results = get_chain(recipe).run_batch(events)
    return results if function is None else function(results)


def reconstruct(
    client: Any,
    batches: Sequence[Sequence[Any]],
    recipe: ChainRecipe | None = None,
    function: Callable[[list[EventResult]], Any] | None = None,
) -> list[Any]:
    """Submit batches of events, one a task.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    batches : sequence of sequence of Cells, Measurements or (Measurements, Spacepoints)
        Events of each batch.
    recipe : ChainRecipe, optional
        How workers make their chains.
    function : callable, optional
        Makes, on the worker, what is wanted of the results of a batch; by default all of them come back.

    Returns
    -------
    list of distributed.Future
        One per batch; results do not depend on the workers.

    Examples
    --------
        from distributed import Client
        futures = reconstruct(Client(), batches, function=count_tracks)
        sum(Client.gather(futures))
    """
    chosen = recipe or ChainRecipe()
    return [
        client.submit(_reconstruct_batch, chosen, list(events), function, pure=False, retries=_RETRIES)
        for events in batches
    ]


def _run_groups(
    recipe: ChainRecipe, options: RunOptions, groups: Sequence[Sequence[EventFile]]
) -> list[dict[str, Any]]:
    from traccc_py.cli.event_reader import EventReader
    from traccc_py.cli.reconstruction import output_of
    from traccc_py.cli.run_events import EventRunner

    chain = get_chain(recipe)
    runner = EventRunner(chain, EventReader(chain.detector), output_of(options))
    return [record.facts() for group in groups for record in runner.run(group)]


def run(
    client: Any,
    inputs: Sequence[str | Path],
    output: str | Path,
    recipe: ChainRecipe | None = None,
    *,
    events: int | None = None,
    resume: bool = False,
    groups_per_task: int = 8,
    **options: Any,
) -> int:
    """Do what `traccc-py run` does, byte for byte, by the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
        The cluster. Its workers must see the files under the same names.
    inputs : sequence of str or Path
        Event files, folders of them, or globs.
    output : str or Path
        Folder of the results.
    recipe : ChainRecipe, optional
        How workers make their chains.
    events : int, optional
        Number of events at most [1].
    resume : bool, optional
        Leave out events that a run like this one has completed.
    groups_per_task : int, optional
        Files of one kind of results that a task writes [1]: of events in CSV, else of `events_per_file` events.
    **options
        Others of `traccc-py run`: `format`, `outputs`, `compress`, `events_per_file`, `skip`, `input_kind`.

    Returns
    -------
    int
        Events that were reconstructed now.

    Raises
    ------
    TracccError, OSError
        As `traccc-py run`; the events that are complete then stay so, for `resume`.
    """
    from traccc_py.cli.files import check_event_files, check_output_directory, find_event_files
    from traccc_py.cli.reconstruction import RunOptions, groups_of, output_of, record_of

    as_completed = optional_module("distributed", "dask", "traccc_py.distributed").as_completed
    chosen, made = recipe or ChainRecipe(), Path(output).resolve()
    names = tuple(map(str, inputs))
    settings = RunOptions(inputs=names, output=made, events=events, resume=resume, **options)
    files = find_event_files(names, settings.skip, events, settings.input_kind, with_tables=True)
    check_output_directory(made, files)
    check_event_files(files)
    record, writer = record_of(settings, chosen.make(), chosen.options()), output_of(settings)
    assert record is not None
    assert writer is not None
    done = {event for event in record.begin(resume=resume) if all(path.exists() for path in writer.files_of(event))}
    groups = groups_of([file for file in files if file.event not in done], settings)
    tasks = [groups[k : k + groups_per_task] for k in range(0, len(groups), groups_per_task)]
    futures = [client.submit(_run_groups, chosen, settings, task, pure=False, retries=_RETRIES) for task in tasks]
    n_events = 0
    try:
        for future in as_completed(futures):
            facts = future.result()
            record.add(facts)
            n_events += len(facts)
    except BaseException:
        client.cancel(futures)
        raise
    record.finish()
    return n_events
