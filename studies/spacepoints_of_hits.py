"""Write spacepoints at the true positions of hits, as traccc's seeding example makes them, with their measurements.

traccc's `read_spacepoints` takes positions from the hits file, not from the measurements. To compare the chains on the
same input, the folder this writes is given to ``traccc-py run --input-kind spacepoints``.

Usage: python -m studies.spacepoints_of_hits TRUTH_FOLDER OUTPUT_FOLDER
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from traccc_py.data.csv_events import (
    event_file_name,
    event_number,
    find_event_file,
    read_hits,
    read_measurement_hit_map,
    read_measurements,
)
from traccc_py.data.spacepoint_files import write_spacepoints
from traccc_py.edm import Spacepoints


def convert(truth: Path, number: int, output: Path) -> None:
    """Write one event."""
    source = find_event_file(truth, number, "measurements")
    measurements = read_measurements(source)
    hits = read_hits(find_event_file(truth, number, "hits"))
    links = read_measurement_hit_map(find_event_file(truth, number, "measurement-simhit-map"))
    measurement, first = np.unique(links.measurement_id, return_index=True)
    position = hits.position[links.hit_id[first]].astype(np.float32)
    spacepoints = Spacepoints(position, measurement.astype(np.int32))
    shutil.copy(source, output / source.name)
    write_spacepoints(output / event_file_name(number, "spacepoints"), spacepoints, measurements)


def main(
    truth: Annotated[Path, typer.Argument(help="Folder with hits, measurements and the map between them.")],
    output: Annotated[Path, typer.Argument(help="Folder for spacepoints and copies of the measurements.")],
) -> None:
    """Convert all events of a folder."""
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(truth.glob("event*-hits.csv*")):
        number = event_number(path)
        if number is not None:
            convert(truth, number, output)


if __name__ == "__main__":
    typer.run(main)
