"""Translates PTX instructions that are no jumps to C; what the C means by macros stands in `c/semantics.h`."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.ptx.parser import Function, Instruction, width

__all__ = ["C_TYPES", "Site", "Translator"]

C_TYPES = {
    **{f"s{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    **{f"{kind}{bits}": f"uint{bits}_t" for kind in "ub" for bits in (8, 16, 32, 64)},
    "f32": "float",
    "f64": "double",
    "pred": "uint8_t",
}
FLOATING = ("f32", "f64")
SPECIAL = {
    "%tid.x": "c->tid",
    "%ntid.x": "c->ntid",
    "%ctaid.x": "c->cta",
    "%nctaid.x": "c->ncta",
    "%laneid": "(c->tid & 31u)",
    "%warpid": "(c->tid >> 5)",
    **{f"%{name}.{axis}": "0u" for name in ("tid", "ctaid") for axis in "yz"},
    **{f"%{name}.{axis}": "1u" for name in ("ntid", "nctaid") for axis in "yz"},
}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED_COMPARISONS = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
NEGATED = {"ne": "==", "lt": ">=", "le": ">", "gt": "<=", "ge": "<"}
LOGIC = {"and": "&", "or": "|", "xor": "^"}
APPROXIMATIONS = {  # rounded exactly here
    "rsqrt": "(float)(1.0 / __builtin_sqrt((double){}))",
    "ex2": "exp2f({})",
    "lg2": "log2f({})",
    "sin": "sinf({})",
    "cos": "cosf({})",
    "tanh": "tanhf({})",
}
ATOMICS = {
    "add": "old + {0}",
    "exch": "{0}",
    "cas": "(old == {0} ? {1} : old)",
    "min": "({0} < old ? {0} : old)",
    "max": "({0} > old ? {0} : old)",
    **{name: f"old {sign} {{0}}" for name, sign in LOGIC.items()},
}
ROUNDED_TO_INTEGER = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
ALL_COMPARISONS = {**COMPARISONS, **UNSIGNED_COMPARISONS}
FUSED = {"rn": "__builtin_fmaf", "rm": "fma_rm", "rp": "fma_rp", "rz": "fma_rz"}
SPACES = {"global": "G", "shared": "S", "local": "L", "const": "C", "generic": "G"}


@dataclass(frozen=True)
class Site:
    """An instruction that reads or writes memory."""

    line: int
    is_load: bool
    width: int  # [bytes]
    text: str


class Translator:
    """Translates the instructions of one kernel.

    Parameters
    ----------
    function : Function
        The kernel.
    kept : set of str
        Registers that stand in the thread's struct ``R``, not in variables.
    """

    def __init__(self, function: Function, kept: set[str]) -> None:
        self._function = function
        self._kept = kept
        self._parameters = {p.name: p for p in function.parameters}
        self.sites: list[Site] = []

    def variable(self, register: str) -> str:
        """Return the C name of a register."""
        name = register.strip("%").replace(".", "_")
        return f"R->{name}" if register in self._kept else name

    def predicate(self, operand: str) -> str:
        """Return a predicate, which may be negated, as C."""
        return f"!{self.read(operand[1:], 'pred')}" if operand.startswith("!") else self.read(operand, "pred")

    def condition(self, instruction: Instruction) -> str:
        """Return the condition of a guarded instruction as C."""
        assert instruction.guard is not None
        register, is_negated = instruction.guard
        return ("!" if is_negated else "") + self.variable(register)

    def statement(self, instruction: Instruction) -> str:
        """Return an instruction as C.

        Raises
        ------
        ValueError
            If it is not known.
        """
        name, *modifiers = instruction.op.split(".")
        translate = getattr(self, f"_{name}", None)
        try:
            if translate is None:
                raise KeyError(name)
            text = translate(instruction, modifiers, modifiers[-1] if modifiers else "")
        except (KeyError, StopIteration) as error:
            msg = f"{self._function.name}, line {instruction.line}: not translated: {instruction.text}"
            raise ValueError(msg) from error
        return f"if ({self.condition(instruction)}) {{ {text} }}" if instruction.guard else text

    # Operands

    def read(self, operand: str, kind: str) -> str:
        """Return an operand, read as a PTX type, as C."""
        as_kind = f"(({C_TYPES[kind]})"
        if operand in SPECIAL:
            return f"{as_kind}{SPECIAL[operand]})"
        if operand.startswith("%"):
            return self._register(operand, kind)
        if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", operand):
            bits = int(operand[2:], 16)
            return _float_literal(bits) if kind == "f32" else f"{as_kind}0x{bits:x}u)"
        if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", operand):
            return f"u2d(0x{operand[2:]}ull)"
        if re.fullmatch(r"-?(?:0x[0-9a-fA-F]+|\d+)U?", operand):
            value = int(operand.rstrip("U"), 0)
            if kind in FLOATING:
                raise KeyError(operand)
            return str(value) if kind == "pred" else f"{as_kind}{value & (1 << 64) - 1}ull)"
        return f"{as_kind}{self._place(operand)})"

    def _register(self, register: str, kind: str) -> str:
        stored, name = self._function.registers[register], self.variable(register)
        if stored == kind or (stored == kind == "pred"):
            return name
        if stored in FLOATING:
            return f"(({C_TYPES[kind]}){'f2u' if stored == 'f32' else 'd2u'}({name}))"
        if kind in FLOATING:
            return f"u2f((uint32_t){name})" if kind == "f32" else f"u2d((uint64_t){name})"
        return name if kind == "pred" else f"(({C_TYPES[kind]}){name})"

    def _place(self, name: str) -> str:
        """Return the address of a variable as C."""
        if name in self._function.shared.offsets:
            return f"(SHARED_BASE + {self._function.shared.offsets[name]})"
        if name in self._function.local.offsets:
            return f"(LOCAL_BASE + {self._function.local.offsets[name]})"
        if name in self._function.constants:
            return f"((uint64_t)(uintptr_t)constant_{name})"
        raise KeyError(name)

    def write(self, register: str, value: str, kind: str) -> str:
        """Return the assignment of a value of a PTX type to a register as C."""
        if register == "_":
            return f"(void)({value});"
        stored, name = self._function.registers[register], self.variable(register)
        if stored == kind:
            return f"{name} = {value};"
        if stored in FLOATING:
            return f"{name} = {'u2f((uint32_t)' if stored == 'f32' else 'u2d((uint64_t)'}({value}));"
        if kind in FLOATING:
            return f"{name} = {'f2u' if kind == 'f32' else 'd2u'}({value});"
        return f"{name} = ({C_TYPES[stored]})({C_TYPES[kind]})({value});"

    def _address(self, operand: str) -> tuple[str, int]:
        """Return (base, offset) of an address in brackets."""
        found = re.match(r"^(.+?)\s*([+-]\s*-?\d+)?$", operand.strip("[] "))
        assert found is not None
        return found[1].strip(), int((found[2] or "0").replace(" ", "").replace("+-", "-"))

    def _memory(self, operand: str) -> str:
        base, offset = self._address(operand)
        start = f"(uint64_t){self.variable(base)}" if base.startswith("%") else self._place(base)
        return f"({start} + ({offset}))"

    def _site(self, instruction: Instruction, *, is_load: bool, size: int) -> int:
        self.sites.append(Site(instruction.line, is_load, size, instruction.text))
        return len(self.sites) - 1

    def _floats(self, i: Instruction, modifiers: list[str], kind: str) -> tuple[Callable[[str], str], list[str]]:
        """Return how a result is finished, and the operands; denormal numbers are flushed where the PTX says so."""
        flush: Callable[[str], str] = (lambda text: f"flushed({text})") if "ftz" in modifiers else (lambda text: text)
        finish: Callable[[str], str] = (lambda text: f"saturated({flush(text)})") if "sat" in modifiers else flush
        return finish, [flush(self.read(operand, kind)) for operand in i.operands[1:]]

    # Moves and conversions

    def _mov(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        target, source = i.operands
        if target.startswith("{"):
            parts = _members(target)
            bits = width(kind) * 8 // len(parts)
            writes = [self.write(x, f"(whole >> {k * bits})", f"u{bits}") for k, x in enumerate(parts)]
            return f"{{ uint64_t whole = (uint64_t){self.read(source, kind)}; {' '.join(writes)} }}"
        if source.startswith("{"):
            parts = _members(source)
            bits = width(kind) * 8 // len(parts)
            whole = " | ".join(f"((uint64_t){self.read(x, f'u{bits}')} << {k * bits})" for k, x in enumerate(parts))
            return self.write(target, whole, kind)
        return self.write(target, self.read(source, kind), kind)

    def _cvta(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        return self._mov(i, modifiers, kind)

    def _cvt(self, i: Instruction, modifiers: list[str], source: str) -> str:
        target, _ = [m for m in modifiers if m in C_TYPES][-2:]
        rounding = next((m for m in modifiers if m in ("rn", "rz", "rm", "rp", *ROUNDED_TO_INTEGER)), "rn")
        value = self.read(i.operands[1], source)
        if source in FLOATING and target in FLOATING:
            finish, (value,) = self._floats(i, modifiers, source)
            if rounding in ROUNDED_TO_INTEGER:
                value = f"__builtin_{ROUNDED_TO_INTEGER[rounding]}{'f' if source == 'f32' else ''}({value})"
            elif rounding != "rn":
                raise KeyError(rounding)
            return self.write(i.operands[0], finish(f"(({C_TYPES[target]})({value}))"), target)
        if "sat" in modifiers:
            raise KeyError(i.op)
        if source in FLOATING:
            whole = f"__builtin_{ROUNDED_TO_INTEGER[rounding]}((double){value})"
            return self.write(i.operands[0], f"to_{target}({whole})", target)
        if target in FLOATING and rounding != "rn":
            raise KeyError(rounding)
        return self.write(i.operands[0], f"(({C_TYPES[target]})({value}))", target)

    # Arithmetic

    def _sum(self, i: Instruction, modifiers: list[str], kind: str, sign: str) -> str:
        if {"cc", "rz", "rm", "rp"} & set(modifiers):
            raise KeyError(i.op)
        if kind in FLOATING:
            finish, (x, y) = self._floats(i, modifiers, kind)
            return self.write(i.operands[0], finish(f"({x} {sign} {y})"), kind)
        unsigned = f"u{kind[1:]}"
        x, y = (self.read(operand, unsigned) for operand in i.operands[1:])
        return self.write(i.operands[0], f"({x} {sign} {y})", unsigned)

    def _add(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        return self._sum(i, modifiers, kind, "+")

    def _sub(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        return self._sum(i, modifiers, kind, "-")

    def _product(self, i: Instruction, modifiers: list[str], kind: str) -> tuple[str, str]:
        """Return the product of the first two operands that are read, and its type."""
        x, y = i.operands[1:3]
        if "wide" in modifiers:
            wide = f"{kind[0]}{2 * int(kind[1:])}"
            c = C_TYPES[wide]
            return f"(({c}){self.read(x, kind)} * ({c}){self.read(y, kind)})", wide
        if "lo" in modifiers:
            unsigned = f"u{kind[1:]}"
            return f"((uint{max(32, int(kind[1:]))}_t){self.read(x, unsigned)} * {self.read(y, unsigned)})", unsigned
        if "hi" in modifiers:
            bits = int(kind[1:])
            c = ("" if kind[0] == "s" else "unsigned ") + ("__int128" if bits == 64 else "long long")
            return f"((({c}){self.read(x, kind)} * ({c}){self.read(y, kind)}) >> {bits})", kind
        raise KeyError(i.op)

    def _mul(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        if kind in FLOATING:
            if {"rz", "rm", "rp"} & set(modifiers):
                raise KeyError(i.op)
            finish, (x, y) = self._floats(i, modifiers, kind)
            return self.write(i.operands[0], finish(f"({x} * {y})"), kind)
        return self.write(i.operands[0], *self._product(i, modifiers, kind))

    def _mad(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        product, of_product = self._product(i, modifiers, kind)
        unsigned = f"u{of_product[1:]}"
        total = f"(({C_TYPES[unsigned]}){product} + {self.read(i.operands[3], unsigned)})"
        return self.write(i.operands[0], total, unsigned)

    def _fma(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        function = next(FUSED[m] for m in modifiers if m in FUSED)
        if kind == "f64":
            function = {"__builtin_fmaf": "__builtin_fma"}[function]
        finish, operands = self._floats(i, modifiers, kind)
        return self.write(i.operands[0], finish(f"{function}({', '.join(operands)})"), kind)

    def _div(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        if kind in FLOATING:
            finish, (x, y) = self._floats(i, modifiers, kind)
            return self.write(i.operands[0], finish(f"({x} / {y})"), kind)
        x, y = (self.read(operand, kind) for operand in i.operands[1:])
        return self.write(i.operands[0], f"quotient_{kind}(c, {x}, {y})", kind)

    def _rem(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        x, y = (self.read(operand, kind) for operand in i.operands[1:])
        return self.write(i.operands[0], f"remainder_{kind}(c, {x}, {y})", kind)

    def _rcp(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        finish, (x,) = self._floats(i, modifiers, kind)
        return self.write(i.operands[0], finish(f"({'1.0f' if kind == 'f32' else '1.0'} / {x})"), kind)

    def _sqrt(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        finish, (x,) = self._floats(i, modifiers, kind)
        return self.write(i.operands[0], finish(f"__builtin_sqrt{'f' if kind == 'f32' else ''}({x})"), kind)

    def _approximation(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        if kind != "f32":
            raise KeyError(i.op)
        finish, (x,) = self._floats(i, modifiers, kind)
        return self.write(i.operands[0], finish(APPROXIMATIONS[i.op.split(".")[0]].format(x)), kind)

    _rsqrt = _ex2 = _lg2 = _sin = _cos = _tanh = _approximation

    def _extreme(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        name = i.op.split(".")[0]
        if kind in FLOATING:
            _, (x, y) = self._floats(i, modifiers, kind)
            return self.write(i.operands[0], f"{name}_{kind}({x}, {y})", kind)
        x, y = (self.read(operand, kind) for operand in i.operands[1:])
        return self.write(i.operands[0], f"({x} {'<' if name == 'min' else '>'} {y} ? {x} : {y})", kind)

    _min = _max = _extreme

    def _abs(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        if kind in FLOATING:
            finish, (x,) = self._floats(i, modifiers, kind)
            return self.write(i.operands[0], finish(f"__builtin_fabs{'f' if kind == 'f32' else ''}({x})"), kind)
        unsigned = f"u{kind[1:]}"
        x, y = self.read(i.operands[1], kind), self.read(i.operands[1], unsigned)
        return self.write(i.operands[0], f"({x} < 0 ? 0 - {y} : {y})", unsigned)

    def _neg(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        if kind in FLOATING:
            finish, (x,) = self._floats(i, modifiers, kind)
            return self.write(i.operands[0], finish(f"(-{x})"), kind)
        return self.write(i.operands[0], f"(0 - {self.read(i.operands[1], f'u{kind[1:]}')})", f"u{kind[1:]}")

    def _copysign(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        sign, value = (self.read(operand, kind) for operand in i.operands[1:])
        return self.write(i.operands[0], f"__builtin_copysign{'f' if kind == 'f32' else ''}({value}, {sign})", kind)

    # Bits, comparisons

    def _logic(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        x, y = (self.read(operand, kind) for operand in i.operands[1:])
        return self.write(i.operands[0], f"({x} {LOGIC[i.op.split('.')[0]]} {y})", kind)

    _and = _or = _xor = _logic

    def _not(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        x = self.read(i.operands[1], kind)
        return self.write(i.operands[0], f"!{x}" if kind == "pred" else f"~{x}", kind)

    def _shl(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        bits, unsigned = int(kind[1:]), f"u{kind[1:]}"
        by = self.read(i.operands[2], "u32")
        shifted = f"({by} >= {bits}u ? 0 : {self.read(i.operands[1], unsigned)} << ({by} & {bits - 1}))"
        return self.write(i.operands[0], shifted, unsigned)

    def _shr(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        bits, by = int(kind[1:]), self.read(i.operands[2], "u32")
        if kind[0] == "s":
            x = self.read(i.operands[1], kind)
            return self.write(i.operands[0], f"({x} >> ({by} >= {bits}u ? {bits - 1} : {by}))", kind)
        unsigned = f"u{kind[1:]}"
        shifted = f"({by} >= {bits}u ? 0 : {self.read(i.operands[1], unsigned)} >> ({by} & {bits - 1}))"
        return self.write(i.operands[0], shifted, unsigned)

    def _selp(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        x, y = (self.read(operand, kind) for operand in i.operands[1:3])
        return self.write(i.operands[0], f"({self.predicate(i.operands[3])} ? {x} : {y})", kind)

    def _setp(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        comparison = self._comparison(i, modifiers, kind)
        combined = next((LOGIC[m] for m in modifiers[1:-1] if m in LOGIC), None)
        yes, no = comparison, f"!{comparison}"
        if combined:
            other = self.predicate(i.operands[3])
            yes, no = f"({yes} {combined} {other})", f"({no} {combined} {other})"
        first, _, second = i.operands[0].partition("|")
        if not second:
            return self.write(first, yes, "pred")
        writes = f"{self.write(first, 'yes', 'pred')} {self.write(second, 'no', 'pred')}"
        return f"{{ uint8_t yes = {yes}, no = {no}; {writes} }}"

    def _comparison(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        how = modifiers[0]
        if kind not in FLOATING:
            if how in UNSIGNED_COMPARISONS:
                kind = f"u{kind[1:]}"
            x, y = (self.read(operand, kind) for operand in i.operands[1:3])
            return f"({x} {ALL_COMPARISONS[how]} {y})"
        flush = "ftz" in modifiers
        x, y = (f"flushed({self.read(o, kind)})" if flush else self.read(o, kind) for o in i.operands[1:3])
        if how in ("num", "nan"):
            return f"{'' if how == 'nan' else '!'}({x} != {x} || {y} != {y})"
        if how in ("ne", "equ"):  # "ne" is false, "equ" is true where one is no number
            return f"{'!' if how == 'equ' else ''}({x} < {y} || {x} > {y})"
        if how.endswith("u") and how[:-1] in NEGATED:
            return f"!({x} {NEGATED[how[:-1]]} {y})"
        return f"({x} {COMPARISONS[how]} {y})"

    def _count_bits(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        x, bits = self.read(i.operands[1], f"u{kind[1:]}"), int(kind[1:])
        if i.op.startswith("popc"):
            return self.write(i.operands[0], f"__builtin_popcountll({x})", "u32")
        return self.write(i.operands[0], f"({x} == 0 ? {bits} : __builtin_clzll({x}) - {64 - bits})", "u32")

    _popc = _clz = _count_bits

    def _field(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        name, n = i.op.split(".")[0], {"bfe": 1, "bfi": 2, "brev": 1}[i.op.split(".")[0]]
        values = [self.read(operand, kind) for operand in i.operands[1 : 1 + n]]
        places = [self.read(operand, "u32") for operand in i.operands[1 + n :]]
        return self.write(i.operands[0], f"{name}_{kind}({', '.join([*values, *places])})", kind)

    _bfe = _bfi = _brev = _field

    def _prmt(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        values = [self.read(operand, "u32") for operand in i.operands[1:]]
        return self.write(i.operands[0], f"{'_'.join(['prmt', *modifiers])}({', '.join(values)})", "u32")

    def _shf(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        values = [self.read(operand, "u32") for operand in i.operands[1:]]
        return self.write(i.operands[0], f"{'_'.join(['shf', *modifiers[:2]])}({', '.join(values)})", "u32")

    # Memory

    def _ld(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        targets = _members(i.operands[0])
        if "param" in modifiers:
            base, offset = self._address(i.operands[1])
            start = self._parameters[base].offset + offset
            places = [f"PARAMETER({C_TYPES[kind]}, {start + k * width(kind)})" for k in range(len(targets))]
            return " ".join(self.write(x, place, kind) for x, place in zip(targets, places, strict=True))
        space = next((SPACES[m] for m in modifiers if m in SPACES), "G")
        site = self._site(i, is_load=True, size=width(kind) * len(targets))
        loads = [f"LOAD_{space}({C_TYPES[kind]}, at + {k * width(kind)}, {site})" for k in range(len(targets))]
        writes = " ".join(self.write(x, load, kind) for x, load in zip(targets, loads, strict=True))
        return f"{{ uint64_t at = {self._memory(i.operands[1])}; {self._alignment(targets, kind, site)}{writes} }}"

    _ldu = _ld

    def _st(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        sources = _members(i.operands[1])
        space = next((SPACES[m] for m in modifiers if m in SPACES), "G")
        site = self._site(i, is_load=False, size=width(kind) * len(sources))
        stores = " ".join(
            f"STORE_{space}({C_TYPES[kind]}, at + {k * width(kind)}, {self.read(x, kind)}, {site});"
            for k, x in enumerate(sources)
        )
        return f"{{ uint64_t at = {self._memory(i.operands[0])}; {self._alignment(sources, kind, site)}{stores} }}"

    def _alignment(self, members: list[str], kind: str, site: int) -> str:
        return f"ALIGNED(at, {width(kind) * len(members)}, {site}); " if len(members) > 1 else ""

    def _atom(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        return self._atomic(i, modifiers, kind, i.operands[0], i.operands[1], i.operands[2:])

    def _red(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        return self._atomic(i, modifiers, kind, "_", i.operands[0], i.operands[1:])

    def _atomic(
        self, i: Instruction, modifiers: list[str], kind: str, target: str, address: str, values: list[str]
    ) -> str:
        operation = next(ATOMICS[m] for m in modifiers if m in ATOMICS)
        space = next((SPACES[m] for m in modifiers if m in SPACES), "G")
        site, c = self._site(i, is_load=False, size=width(kind)), C_TYPES[kind]
        new = operation.format(*(self.read(x, kind) for x in values))
        result = "" if target == "_" else self.write(target, "old", kind)
        return (
            f"{{ uint64_t at = {self._memory(address)}; ATOMIC_{space}(at, {width(kind)}, {site}); "
            f"{c} *place = ({c} *)at; {c} old = *place; *place = ({c})({new}); {result} }}"
        )

    def _fence(self, i: Instruction, modifiers: list[str], kind: str) -> str:
        return ";"  # threads run one at a time

    _membar = _fence


def _members(operand: str) -> list[str]:
    """Return the registers of a vector operand, or the one that it is."""
    return [part.strip() for part in operand.strip("{}").split(",")] if operand.startswith("{") else [operand]


def _float_literal(bits: int) -> str:
    (value,) = struct.unpack("<f", struct.pack("<I", bits))
    is_finite = value - value == 0
    return f"({value.hex()}f)" if is_finite else f"u2f(0x{bits:08x}u)"
