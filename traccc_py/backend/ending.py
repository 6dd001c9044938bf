"""How `serve` tells its models that it ends: Triton takes requests of open connections as long as these are there."""

from __future__ import annotations

from pathlib import Path

from traccc_py.backend.service import BusyError

__all__ = ["EndingFile"]

_NAME = "ending"


class EndingFile:
    """A file beside the model repository that is there from the end of a service on.

    Parameters
    ----------
    models : Path
        The repository.
    """

    def __init__(self, models: Path) -> None:
        self._path = models.parent / _NAME

    @classmethod
    def of_model(cls, folder: str) -> EndingFile:
        """Return the one that the model in a folder of the repository looks for."""
        return cls(Path(folder).parent)

    def check(self) -> None:
        """Raise, for one request, if the service ends.

        Raises
        ------
        BusyError
            If it does; the event may be sent to another one.
        """
        if self._path.exists():
            msg = "the service ends; send the event again, to another one"
            raise BusyError(msg)

    def write(self) -> None:
        """Say that the service ends."""
        self._path.touch()

    def remove(self) -> None:
        """Say that it does not, or no more."""
        self._path.unlink(missing_ok=True)
