"""Small HTML tables, which notebooks show for collections, results, detectors and chains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

__all__ = ["fact_table", "row_table"]

_MOST_ROWS = 8  #: of a collection that are shown
_DIGITS = 6
_CAPTION = '<caption style="caption-side:top;text-align:left;white-space:nowrap">{}</caption>'


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.{_DIGITS}g}"
    return escape(str(value))


def _row(cells: Iterable[Any], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"


def fact_table(caption: str, facts: Mapping[str, Any]) -> str:
    """Return names and values, one a row.

    Parameters
    ----------
    caption : str
        Text above the table.
    facts : mapping of str to object
        What the rows are.
    """
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{_text(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table>{_CAPTION.format(escape(caption))}<tbody>{rows}</tbody></table>"


def row_table(caption: str, columns: Mapping[str, np.ndarray]) -> str:
    """Return the first rows of columns of one length.

    Parameters
    ----------
    caption : str
        Text above the table.
    columns : mapping of str to ndarray of shape (n,)
        Columns by name.
    """
    n = len(next(iter(columns.values()))) if columns else 0
    shown: Sequence[Sequence[Any]] = [values[:_MOST_ROWS].tolist() for values in columns.values()]
    body = [_row((k, *cells)) for k, cells in enumerate(zip(*shown, strict=True))]
    if n > _MOST_ROWS:
        body.append(_row(["..."] * (len(columns) + 1)))
    head = _row(("", *columns), "th")
    return f"<table>{_CAPTION.format(escape(caption))}<thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
