"""Writes the C of a kernel: for threads that run from barrier to barrier, or for one basic block at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.ptx.instructions import C_TYPES, Site, Translator
from tests.ptx.parser import END, Block, Function, Instruction, registers_in

__all__ = ["Source", "source_of_blocks", "source_of_threads"]


@dataclass(frozen=True)
class Source:
    """C of a kernel, and its instructions that access memory, by the number that the C gives them."""

    text: str
    sites: list[Site]


def _reads_and_writes(instruction: Instruction) -> tuple[list[str], list[str]]:
    reads, writes = [], []
    for k, operand in enumerate(instruction.operands):
        is_target = k == 0 and instruction.has_result and not operand.startswith("[")
        (writes if is_target else reads).extend(registers_in(operand))
    if instruction.guard:
        reads += [instruction.guard[0], *writes]  # what is not written keeps its value
    return reads, writes


def _of_one_block(function: Function) -> set[str]:
    """Return the registers that one basic block writes, and no other reads: they need no place in the struct."""
    blocks: dict[str, set[int]] = {}
    carried = set()
    for number, block in enumerate(function.blocks):
        written: set[str] = set()
        for instruction in block.instructions:
            reads, writes = _reads_and_writes(instruction)
            carried |= {register for register in reads if register not in written}
            written |= set(writes)
            for register in (*reads, *writes):
                blocks.setdefault(register, set()).add(number)
            if instruction.op.startswith("bar.red"):
                carried |= set(writes)  # written when the thread goes on, in another call
    return {register for register in function.registers if len(blocks.get(register, ())) <= 1} - carried


def _declared(function: Function, registers: Iterable[str]) -> str:
    """Return declarations of the variables of registers."""
    by_type: dict[str, list[str]] = {}
    for register in sorted(registers):
        by_type.setdefault(C_TYPES[function.registers[register]], []).append(register.strip("%").replace(".", "_"))
    return "\n".join(f"  {kind} {', '.join(names)};" for kind, names in sorted(by_type.items()))


def _constants(function: Function) -> str:
    return "".join(
        f"static const {C_TYPES[kind]} constant_{name}[] = {{{', '.join(values)}}};\n"
        for name, (kind, values) in function.constants.items()
    )


def _at_reduction(translate: Translator, barrier: Instruction) -> tuple[str, str]:
    """Return the C before and after a barrier that combines a predicate of all threads."""
    how = barrier.op.split(".")[2]
    own = translate.predicate(barrier.operands[-1])
    before = f"{{ int own = {own}; c->block->any |= own; c->block->all &= own; c->block->n += own; }}"
    result, kind = {"or": ("was_any", "pred"), "and": ("were_all", "pred"), "popc": ("n_were", "u32")}[how]
    return before, translate.write(barrier.operands[0], f"c->block->{result}", kind)


def _at_barrier(translate: Translator, barrier: Instruction) -> tuple[str, str]:
    """Return the C before and after a barrier."""
    assert barrier.guard is None
    return _at_reduction(translate, barrier) if barrier.op.startswith("bar.red") else ("", "")


def _body(translate: Translator, block: Block) -> list[str]:
    return [f"    {translate.statement(i)}" for i in block.instructions if not i.is_control]


def source_of_threads(function: Function) -> Source:
    """Return C with ``thread_run``: a thread goes on to the next barrier (1), the end (0) or a trap (-1)."""
    if function.has_barriers and function.local.size:
        msg = f"{function.name} has barriers and local memory, which is not translated"
        raise ValueError(msg)
    own = _of_one_block(function) if function.has_barriers else set(function.registers)
    kept = set(function.registers) - own
    translate = Translator(function, kept)
    lines = [
        _constants(function),
        f"typedef struct {{\n{_declared(function, kept)}\n  int at;\n}} Registers;",
        "static int thread_run(Context *c, Registers *R) {",
        _declared(function, own),
    ]
    if function.local.size:
        lines += [f"  LOCAL_MEMORY({function.local.size})"]
    barriers = [k for k, block in enumerate(function.blocks) if block.control and block.control.is_barrier]
    if barriers:
        lines += [f"  switch (R->at) {{ {' '.join(f'case {k + 1}: goto after{k};' for k in barriers)} }}"]
    for k, block in enumerate(function.blocks):
        lines += [f"block{k}: ;", *_body(translate, block)]
        if block.control:
            lines += _jumps(translate, function, block.control, k)
    return Source("\n".join([*lines, "  return 0;\n}"]), translate.sites)


def _jumps(translate: Translator, function: Function, control: Instruction, number: int) -> list[str]:
    only_if = f"if ({translate.condition(control)}) " if control.guard else ""
    if control.is_barrier:
        before, after = _at_barrier(translate, control)
        return [f"    {before} R->at = {number + 1}; return 1;", f"after{number}: ; {after}"]
    if control.op.startswith("bra"):
        return [f"    {only_if}goto block{function.numbers[control.operands[0]]};"]
    return [f"    {only_if}return {-1 if control.op == 'trap' else 0};"]


def source_of_blocks(function: Function) -> Source:
    """Return C with ``block_run``, which gives the block that follows: -1 at the end, -2 - k at the barrier of block k.

    ``after_barrier`` gives the block that follows a barrier.
    """
    own = _of_one_block(function)
    kept = set(function.registers) - own
    translate = Translator(function, kept)
    lines = [
        _constants(function),
        f"typedef struct {{\n{_declared(function, kept)}\n  int at;",
        f"  char local[{max(1, function.local.size)}] __attribute__((aligned(16)));\n}} Registers;",
        "#undef LOCAL_BASE\n#define LOCAL_BASE ((uint64_t)(uintptr_t)R->local)",
        "static int block_run(Context *c, Registers *R, int at) {\n  switch (at) {",
    ]
    after_barriers = []
    for k, block in enumerate(function.blocks):
        used = {r for i in block.instructions for operand in i.operands for r in registers_in(operand)}
        lines += [f"  case {k}: {{", _declared(function, used & own), *_body(translate, block)]
        following = k + 1 if k + 1 < len(function.blocks) else END
        control = block.control
        if control is None:
            lines.append(f"    return {following}; }}")
        elif control.is_barrier:
            before, after = _at_barrier(translate, control)
            lines.append(f"    {before} return {-2 - k}; }}")
            after_barriers.append(f"  case {k}: {after} return {k + 1};")
        elif control.op == "trap":
            lines.append("    c->trapped = 1; return -1; }")
        else:
            target = function.numbers[control.operands[0]] if control.op.startswith("bra") else END
            chosen = f"{translate.condition(control)} ? {target} : {following}" if control.guard else str(target)
            lines.append(f"    return {chosen}; }}")
    lines += ["  }\n  return -1;\n}", "static int after_barrier(Context *c, Registers *R, int barrier) {"]
    lines += ["  switch (barrier) {", *after_barriers, "  }\n  return -1;\n}"]
    return Source("\n".join(lines), translate.sites)
