"""Names of files that hold the events of a range of numbers."""

from __future__ import annotations

from pathlib import Path

__all__ = ["kind_file"]


def kind_file(folder: Path, kind: str, event: int, events_per_file: int, suffix: str) -> Path:
    """Return the file of an event's range, named as Acts names them.

    Parameters
    ----------
    folder : Path
        Folder of all kinds.
    kind : str
        What the file holds: the folder in it.
    event : int
        Event number.
    events_per_file : int
        Size of a range [1].
    suffix : str
        End of the name.

    Examples
    --------
    >>> kind_file(Path("out"), "tracks", 123, 100, ".parquet").as_posix()
    'out/tracks/tracks_000100-000200.parquet'
    """
    first = event - event % events_per_file
    return folder / kind / f"{kind}_{first:06d}-{first + events_per_file:06d}{suffix}"
