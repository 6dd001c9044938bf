"""`traccc-py perf-data`: cells as input of perf_analyzer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from traccc_py import wire
from traccc_py.cli.inputs import check_event_files, find_event_files
from traccc_py.cli.outputs import check_file
from traccc_py.data.csv_events import read_cells
from traccc_py.data.words import counted
from traccc_py.files import write_files

__all__ = ["write_perf_data"]


def write_perf_data(
    inputs: Sequence[str], output: Path, log: Console, *, compact: bool = False, limit: int | None = None
) -> None:
    """Write events for ``perf_analyzer --input-data``.

    Parameters
    ----------
    inputs : sequence of str
        Cells files, directories or globs.
    output : Path
        JSON file.
    log : Console
        Where the summary goes.
    compact : bool, optional
        Compact tensors, for the model of that name.
    limit : int, optional
        Number of events at most.

    Raises
    ------
    InputDataError
        If an input can't be used; nothing is written then.
    WireError
        If an event does not fit into the compact tensor.
    """
    files = find_event_files(inputs, limit=limit, kind="cells")
    check_file(output, "--output")
    check_event_files(files)
    pack = wire.pack_compact_cells if compact else wire.pack_cells
    sizes, events = [], []
    for file in files:
        cells = read_cells(file.path)
        sizes.append(len(cells))
        events.append({name: _content(values) for name, values in pack(cells).items()})
    write_files({output: json.dumps({"data": events}).encode()})
    model = wire.COMPACT_MODEL if compact else wire.MODEL
    count = f"{counted(len(files), 'event')} of {min(sizes)} to {counted(max(sizes), 'cell')}"
    log.print(f"{count}, for -m {model}, written to {output}")


def _content(values: np.ndarray) -> dict[str, list]:
    return {"content": values.ravel().tolist(), "shape": list(values.shape)}
