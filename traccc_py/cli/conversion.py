"""`traccc-py convert`: event files in CSV as Parquet tables of many events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from traccc_py.cli.files import check_directory
from traccc_py.cli.options import Events, Option, Skip, command, consoles, options_of
from traccc_py.data.words import counted
from traccc_py.errors import InputDataError
from traccc_py.settings import PositiveCount, Settings

__all__ = ["convert"]


@dataclass(frozen=True, slots=True)
class _ConvertOptions(Settings):
    #: folder of event files (.csv, .csv.gz)
    input: Annotated[Path, Option(metavar="DIR", is_argument=True)]
    #: folder for the tables, which gets one for each kind
    output: Annotated[Path, Option("--output", "-o", metavar="DIR")]
    events_per_file: PositiveCount = 100  #: range of event numbers of a file
    events: Events = None
    skip: Skip = 0


@command(options=options_of(_ConvertOptions))
def convert(options: _ConvertOptions) -> None:
    """Write event files as Parquet tables: a row an event, each column a list."""
    import numpy as np

    from traccc_py.data.csv_events import event_files, local_key
    from traccc_py.data.csv_table import read_table
    from traccc_py.data.layouts import LAYOUTS, reading_rules
    from traccc_py.data.parquet_files import ParquetTables

    check_directory(options.output, "--output")
    if not options.input.is_dir():
        msg = f"{options.input}: expected a folder of event files"
        raise InputDataError(msg)
    found = {kind: dict(event_files(options.input, kind)) for kind in LAYOUTS}
    numbers = sorted({number for files in found.values() for number in files})[options.skip :][: options.events]
    if not numbers:
        msg = f"{options.input}: no event is left; expected files such as event000000000-cells.csv"
        raise InputDataError(msg)
    tables = ParquetTables(options.output, options.events_per_file)
    try:
        for number in numbers:
            kinds = [kind for kind, files in found.items() if number in files]
            event = {kind: read_table(found[kind][number], reading_rules(kind)) for kind in kinds}
            if "measurements" in event:
                masks = [local_key(text) for text in event["measurements"]["local_key"]]
                event["measurements"]["local_key"] = np.array(masks, np.uint8)
            tables.add(number, event)
        tables.close()
    finally:
        tables.abandon()
    consoles()[0].print(f"{counted(len(numbers), 'event')} written to {options.output}")
