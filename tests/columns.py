"""Collections for tests, filled from the table of columns: a column that is added needs no edit of them."""

from __future__ import annotations

import numpy as np

from traccc_py.edm import columns_of


def zeros(collection, n, **columns):
    """`collection` of n rows: the given columns, and zeros of its types for all others."""
    made = {}
    for name, column in columns_of(collection).items():
        rows = n + 1 if column.rows == "n + 1" else n
        made[name] = np.zeros((rows, *column.shape), column.dtype)
    return collection(**(made | columns))
