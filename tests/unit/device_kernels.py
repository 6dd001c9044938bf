"""A small chain of kernels for the tests of devices: records, nested payloads, scratch, scans, groups."""

from typing import Any, NamedTuple

import numpy as np

from traccc_py.device.grouping import group_rows
from traccc_py.device.kernel import Scratch, device_function, kernel, scalar
from traccc_py.device.workspace import Workspace

ITEM = np.dtype([("weight", "f4"), ("group", "i4"), ("offset", "f4")])
TWO = scalar(2)


class Tables(NamedTuple):
    items: Any  # (n_items,) ITEM
    factors: Any  # (n_items, 2) scalar


class CountPayload(NamedTuple):
    tables: Tables
    item: Any  # (n_rows,) int32
    doubled: Any  # bool
    limit: Any  # int32
    out_n: Any  # (n_rows,) int32


class FillPayload(NamedTuple):
    tables: Tables
    item: Any  # (n_rows,) int32
    offsets: Any  # (n_rows + 1,) int32
    scale: Any  # scalar
    out_value: Any  # (n_out,) scalar
    out_key: Any  # (n_out,) int32


class GatherPayload(NamedTuple):
    value: Any  # (n_out,) scalar
    order: Any  # (n_out,) int32
    out_sorted: Any  # (n_out,) scalar


@device_function
def weighted(a, b):
    """Return a * b + 2."""
    return a * b + TWO


@kernel(grain=4)
def _count(i, p):
    n = p.tables.items[p.item[i]].group
    n = np.int32(2 * n if p.doubled else n)
    p.out_n[i] = min(n, p.limit)


@kernel(scratch=(Scratch(4), Scratch(4, np.int32)), grain=4)
def _fill(i, p, values, keys):
    if p.offsets[i + 1] > p.out_value.shape[0]:
        return
    item = p.item[i]
    for k in range(4):
        values[k] = weighted(p.tables.factors[item, k % 2], p.tables.items[item].weight) + scalar(k)
        keys[k] = (7 * item + 3 * k) % 5
    for j in range(p.offsets[i], p.offsets[i + 1]):
        k = (j - p.offsets[i]) % 4
        p.out_value[j] = values[k] * p.scale
        p.out_key[j] = keys[k]


@kernel(grain=4)
def _gather(i, p):
    p.out_sorted[i] = p.value[p.order[i]]


def make_tables(device, n_items=7):
    """Return tables in the device's memory."""
    items = np.zeros(n_items, ITEM)
    items["weight"] = np.linspace(0.5, 2.0, n_items)
    items["group"] = np.arange(n_items) % 4
    factors = np.linspace(-1, 1, 2 * n_items).reshape(n_items, 2).astype(np.float32)
    return Tables(device.to_device(items), device.to_device(factors))


def run_stages(workspace: Workspace, tables: Tables, item: np.ndarray):
    """Run the chain once; return (values, sorted values) on the host and the number of passes it took."""
    rows, out = workspace.extent("rows"), workspace.extent("out")
    workspace.set_size(rows, len(item))
    row_item = workspace.put("rows.item", rows, item)
    n_passes = 0
    while n_passes == 0 or workspace.overflowed():
        n_passes += 1
        n = workspace.array("rows.n", rows, np.int32)
        offsets = workspace.array("rows.offsets", rows, np.int32, extra=1)
        workspace.launch(_count, rows, CountPayload(tables, row_item, np.bool_(True), np.int32(5), n))
        workspace.scan(n, rows, offsets, out)
        value = workspace.array("out.value", out, np.float32)
        key = workspace.array("out.key", out, np.int32)
        in_order = workspace.array("out.sorted", out, np.float32)
        workspace.launch(_fill, rows, FillPayload(tables, row_item, offsets, scalar(3), value, key))
        groups = group_rows(workspace, "out", key, out, workspace.fixed("keys", 5), workspace.extent("grouped"))
        workspace.launch(_gather, out, GatherPayload(value, groups.order, in_order))
    n_out = workspace.size(out)
    values, sorted_values = workspace.device.fetch(value[:n_out], in_order[:n_out])
    return values.copy(), sorted_values.copy(), n_passes


class HeavyPayload(NamedTuple):
    n_terms: Any  # (n,) int32
    x: Any  # (n,) scalar
    out_sum: Any  # (n,) scalar


@kernel(scratch=(Scratch(4),), grain=1)
def _heavy_sum(i, p, partial):
    for k in range(4):
        partial[k] = p.x[i]
    for j in range(p.n_terms[i]):
        partial[j & 3] = weighted(partial[(j + 1) & 3], p.x[i]) / TWO
    p.out_sum[i] = (partial[0] + partial[1]) + (partial[2] + partial[3])


def uneven_payload(n=500, dtype=np.float32):
    """Return a payload whose indices need very different times."""
    random = np.random.default_rng(5)
    n_terms = (random.pareto(1.2, n) * 500).clip(max=200_000).astype(np.int32)
    return HeavyPayload(n_terms, random.uniform(-0.4, 0.4, n).astype(dtype), np.zeros(n, dtype))


COUNT, FILL, GATHER, HEAVY_SUM = _count, _fill, _gather, _heavy_sum


def run_on(device, item):
    """Run the chain on a device of its own; return values and sorted values."""
    return run_stages(Workspace(device), make_tables(device), item)[:2]
