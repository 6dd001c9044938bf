"""What basic blocks cost on a GPU, roughly: instructions of the hardware, and cycles of the longest dependent chain."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.ptx.parser import Function, registers_in

__all__ = ["block_costs"]

L1_HIT, L2_HIT = 35, 300  # cycles of a load; from HBM it would be 600 to 700
_SHARED, _ATOMIC, _SHARED_ATOMIC, _BARRIER, _CONVERSION, _STEP = 30, 700, 60, 30, 10, 5  # cycles

#: Instructions of the hardware for one of the PTX, where it isn't one: addresses have 64 bits, in two registers.
COST = {
    **dict.fromkeys(("div.rn.f32", "div.f32", "sqrt.rn.f32"), 9),
    "rcp.rn.f32": 6,
    "div.s64": 70,
    "div.u64": 65,
    "rem.s64": 75,
    "rem.u64": 70,
    "div.s32": 22,
    "div.u32": 18,
    "rem.s32": 24,
    "rem.u32": 20,
    **dict.fromkeys(("mul.lo.s64", "mad.lo.s64", "min.s64", "max.s64", "cvt.rn.f32.s64"), 4),
    **dict.fromkeys((f"{name}.s64" for name in ("add", "sub", "shr", "neg", "selp")), 2),
    **dict.fromkeys((f"{name}.b64" for name in ("shl", "shr", "selp", "and", "or", "not")), 2),
    **dict.fromkeys(("shr.u64", "selp.u64"), 2),
    **dict.fromkeys((f"setp.{name}.s64" for name in ("lt", "gt", "eq", "ge", "le", "ne")), 2),
    # Moves and operands that another instruction takes along.
    **dict.fromkeys((f"mov.{kind}" for kind in ("u64", "b64", "u32", "b32", "f32", "u16", "pred")), 0),
    **dict.fromkeys(("neg.f32", "abs.f32", "cvta.to.global.u64", "cvt.u32.u64", "cvt.u64.u32"), 0),
    **dict.fromkeys((f"ld.param.{kind}" for kind in ("u64", "u32", "s32", "f32")), 0),
}
LATENCY = {
    **dict.fromkeys(("div.rn.f32", "sqrt.rn.f32"), 45),
    "rcp.rn.f32": 35,
    "div.s64": 250,
    "div.u64": 250,
    "rem.s64": 280,
    "rem.u64": 280,
    "div.s32": 90,
    "div.u32": 80,
    "rem.s32": 95,
    "rem.u32": 85,
    **dict.fromkeys(("rcp.approx.ftz.f32", "ex2.approx.ftz.f32"), 20),
}


@cache
def _latency(op: str, of_load: int) -> int:
    name, *modifiers = op.split(".")
    if name == "ld":
        return of_load if "global" in modifiers else 0 if "param" in modifiers else _SHARED
    if name == "atom":
        return _ATOMIC if "global" in modifiers else _SHARED_ATOMIC
    if name == "bar":
        return _BARRIER
    if name == "cvt":
        return _CONVERSION
    return LATENCY.get(op, _STEP * min(2, COST.get(op, 1)))


def block_costs(function: Function) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each basic block: instructions, cycles where loads come from L2, cycles where they come from L1."""
    cost = [sum(COST.get(i.op, 1) for i in block.instructions) for block in function.blocks]
    far, near = ([_chain(block, load) for block in function.blocks] for load in (L2_HIT, L1_HIT))
    return np.array(cost, np.uint32), np.maximum(far, cost).astype(np.uint32), np.maximum(near, cost).astype(np.uint32)


def _chain(block, of_load: int) -> int:
    """Return the length of the longest chain of instructions that need each other's results [cycles]."""
    ready: dict[str, int] = {}
    longest = 0
    for i in block.instructions:
        needed = [
            register
            for k, operand in enumerate(i.operands)
            if not (k == 0 and i.has_result) or operand.startswith("[")
            for register in registers_in(operand)
        ]
        if i.guard:
            needed.append(i.guard[0])
        end = max((ready.get(register, 0) for register in needed), default=0) + _latency(i.op, of_load)
        if i.has_result and i.operands:
            ready.update(dict.fromkeys(registers_in(i.operands[0]), end))
        longest = max(longest, end)
    return longest
