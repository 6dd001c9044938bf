"""Wording of messages."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    Parameters
    ----------
    n : int
        How many.
    noun : str
        What one of them is called.
    plural : str, optional
        The plural; by default the noun with an s.

    Examples
    --------
    >>> counted(1, "event"), counted(0, "event"), counted(2, "entry", "entries")
    ('1 event', '0 events', '2 entries')
    """
    return f"{n} {noun if n == 1 else plural or noun + 's'}"
