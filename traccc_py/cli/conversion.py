"""`traccc-py convert`: event files in CSV as files of many events, Parquet or HepMC3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from traccc_py.cli.files import check_directory
from traccc_py.cli.options import Events, Option, Skip, command, consoles, options_of
from traccc_py.data.words import counted
from traccc_py.errors import InputDataError
from traccc_py.settings import Choice, PositiveCount, Settings

__all__ = ["convert"]

_PARTICLES = ("particles_initial", "particles")  #: kinds of files with generated particles, the first that is there


@dataclass(frozen=True, slots=True)
class _ConvertOptions(Settings):
    #: folder of event files (.csv, .csv.gz)
    input: Annotated[Path, Option(metavar="DIR", is_argument=True)]
    #: folder for the tables, which gets one for each kind
    output: Annotated[Path, Option("--output", "-o", metavar="DIR")]
    #: parquet: all files; hepmc3: the generated particles
    form: Annotated[str, Choice(("parquet", "hepmc3")), Option("--format")] = "parquet"
    events_per_file: PositiveCount = 100  #: range of event numbers of a file
    events: Events = None
    skip: Skip = 0


@command(options=options_of(_ConvertOptions))
def convert(options: _ConvertOptions) -> None:
    """Write event files as Parquet tables, a row an event, each column a list; or generated particles as HepMC3."""
    from traccc_py.data.csv_events import event_files
    from traccc_py.data.hepmc_output import HepmcFiles
    from traccc_py.data.layouts import LAYOUTS
    from traccc_py.data.parquet_files import ParquetTables

    check_directory(options.output, "--output")
    if not options.input.is_dir():
        msg = f"{options.input}: expected a folder of event files"
        raise InputDataError(msg)
    is_hepmc = options.form == "hepmc3"
    kinds = _PARTICLES if is_hepmc else LAYOUTS
    found = {kind: dict(event_files(options.input, kind)) for kind in kinds}
    numbers = sorted({number for files in found.values() for number in files})[options.skip :][: options.events]
    if not numbers:
        example = "particles_initial" if is_hepmc else "cells"
        msg = f"{options.input}: no event is left; expected files such as event000000000-{example}.csv"
        raise InputDataError(msg)
    output: Any = (HepmcFiles if is_hepmc else ParquetTables)(options.output, options.events_per_file)
    try:
        for number in numbers:
            files = {kind: paths[number] for kind, paths in found.items() if number in paths}
            output.add(number, _generated_particles(files) if is_hepmc else _tables(files))
        output.close()
    finally:
        output.abandon()
    consoles()[0].print(f"{counted(len(numbers), 'event')} written to {options.output}")


def _tables(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the tables of an event by kind."""
    import numpy as np

    from traccc_py.data.csv_events import local_key
    from traccc_py.data.csv_table import read_table
    from traccc_py.data.layouts import reading_rules

    event = {kind: read_table(path, reading_rules(kind)) for kind, path in files.items()}
    if "measurements" in event:
        masks = [local_key(text) for text in event["measurements"]["local_key"]]
        event["measurements"]["local_key"] = np.array(masks, np.uint8)
    return event


def _generated_particles(files: Mapping[str, Path]) -> dict[str, Any]:
    from traccc_py.data.csv_table import read_table
    from traccc_py.data.layouts import reading_rules

    kind, path = next(iter(files.items()))
    return read_table(path, reading_rules(kind))
