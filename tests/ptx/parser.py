"""Reads the PTX of one kernel: parameters, registers, memory it declares, and its instructions in basic blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

__all__ = ["END", "Block", "Function", "Instruction", "Parameter", "parse", "registers_in", "split_operands", "width"]

END = -1  # what follows the last instruction of a thread

_REGISTER = re.compile(r"%[a-zA-Z_]\w*(?:\.[xyz])?")
_NUMBERED = re.compile(r"%([a-zA-Z_]+)(\d+)$")
_SPECIAL = ("%tid", "%ntid", "%ctaid", "%nctaid", "%laneid", "%warpid")
_CONTROL = ("bra", "ret", "exit", "bar.", "barrier.", "trap", "brx")
_BARRIERS = ("bar.sync", "bar.red", "barrier")
_VARIABLE = re.compile(r"\.(?:shared|local)\s+\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?")
_CONSTANT = re.compile(r"\.(?:const|global)\s+\.align\s+\d+\s+\.(\w+)\s+([\w$]+)\[\d*\]\s*=\s*\{([^}]*)\}")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?$")


def width(kind: str) -> int:
    """Return the size of a PTX type [bytes]."""
    return 1 if kind == "pred" else int(kind[1:]) // 8


def registers_in(text: str) -> list[str]:
    """Return the registers that an operand names; those that the hardware sets are left out."""
    return [r for r in _REGISTER.findall(text) if not r.startswith(_SPECIAL)]


def split_operands(text: str) -> list[str]:
    """Split a list at the commas outside of brackets."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [*parts, current.strip()] if current.strip() else parts


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel and its place in the block that a launch packs [bytes]."""

    name: str
    kind: str
    offset: int
    size: int


@dataclass(frozen=True)
class Instruction:
    """One instruction; `guard` is (predicate, negated) or None."""

    op: str
    operands: list[str]
    guard: tuple[str, bool] | None
    line: int
    text: str

    @property
    def is_control(self) -> bool:
        """Whether it ends a basic block."""
        return self.op.startswith(_CONTROL)

    @property
    def is_barrier(self) -> bool:
        """Whether threads of a block wait for each other there."""
        return self.op.startswith(_BARRIERS)

    @property
    def has_result(self) -> bool:
        """Whether the first operand is written."""
        return not (
            self.op.startswith(("st", "red", "membar", "fence", "bar.sync")) or self.op.startswith(_CONTROL[:3])
        )


@dataclass
class Block:
    """Instructions without a jump between them, and the numbers of the blocks that may follow (`END`: none)."""

    label: str | None
    instructions: list[Instruction] = field(default_factory=list)
    next: list[int] = field(default_factory=list)

    @property
    def control(self) -> Instruction | None:
        """The last instruction, if it decides what follows."""
        return self.instructions[-1] if self.instructions and self.instructions[-1].is_control else None


@dataclass
class Memory:
    """Variables in one space: their offsets, and the space they take [bytes]."""

    offsets: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def declare(self, found: re.Match[str]) -> None:
        """Give a declared variable a place."""
        alignment, kind, name, length = int(found[1]), found[2], found[3], int(found[4] or 1)
        start = -(-self.size // alignment) * alignment
        self.offsets[name] = start
        self.size = start + length * width(kind)


@dataclass(eq=False)
class Function:
    """A kernel; equal to itself alone."""

    name: str
    parameters: list[Parameter]
    registers: dict[str, str]  # name -> type it is stored as
    blocks: list[Block]
    numbers: dict[str, int]  # label -> block
    shared: Memory
    local: Memory
    constants: dict[str, tuple[str, list[str]]]  # name -> (type, values)

    @property
    def parameter_bytes(self) -> int:
        """Size of the block of parameters [bytes]."""
        return max((p.offset + p.size for p in self.parameters), default=0)

    @property
    def has_barriers(self) -> bool:
        """Whether threads wait for each other."""
        return any(i.is_barrier for block in self.blocks for i in block.instructions)


@cache
def parse(ptx: str) -> Function:
    """Read the PTX of one kernel; once.

    Raises
    ------
    ValueError
        If it is not understood: functions that are called, unknown declarations, not exactly one kernel.
    """
    lines = [re.sub(r"//.*", "", line).strip() for line in ptx.splitlines()]
    shared, constants = Memory(), {}
    found: list[tuple[str, list[Parameter], list[tuple[int, str]]]] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if re.match(r"(?:\.\w+\s+)*\.shared\s+\.align", line):
            shared.declare(_matched(_VARIABLE.search(line), line))
        elif re.search(r"\.(?:const|global)\s+\.align", line) and "=" in line:
            constant = _matched(_CONSTANT.search(line), line)
            constants[constant[2]] = constant[1], [value.strip() for value in constant[3].split(",")]
        elif ".func" in line:
            msg = f"line {at + 1}: the PTX has a function that is called, which is not translated: {line}"
            raise ValueError(msg)
        elif ".entry" in line:
            head, at = _until_brace(lines, at)
            body, at = _body(lines, at + 1)
            name = _matched(re.search(r"\.entry\s+([\w$]+)\s*\((.*?)\)", head), head)
            found.append((name[1], _parameters(name[2]), body))
        at += 1
    if len(found) != 1:
        msg = f"the PTX has {len(found)} kernels, expected one"
        raise ValueError(msg)
    return _Body(shared, constants).function(*found[0])


def _matched(found: re.Match[str] | None, text: str) -> re.Match[str]:
    if found is None:
        msg = f"not understood: {text[:200]}"
        raise ValueError(msg)
    return found


def _until_brace(lines: list[str], at: int) -> tuple[str, int]:
    """Return the head of a kernel, and the line of its opening brace."""
    head = lines[at]
    while "{" not in head:
        at += 1
        head += " " + lines[at]
    return head, at


def _body(lines: list[str], at: int) -> tuple[list[tuple[int, str]], int]:
    """Return the numbered lines of a kernel up to its closing brace; braces alone on a line are scopes."""
    body, depth = [], 1
    while True:
        depth += (lines[at] == "{") - (lines[at] == "}")
        if depth == 0:
            return body, at
        body.append((at, lines[at]))
        at += 1


def _parameters(text: str) -> list[Parameter]:
    found, end = [], 0
    for declaration in split_operands(text):
        match = _matched(_PARAMETER.match(declaration), declaration)
        size = width(match[2]) * int(match[4] or 1)
        alignment = int(match[1] or width(match[2]))
        start = -(-end // alignment) * alignment
        found.append(Parameter(match[3], match[2], start, size))
        end = start + size
    return found


def _stored_as(kind: str) -> str:
    return kind if kind in ("f32", "f64", "pred") else f"b{width(kind) * 8}"


class _Body:
    """Reads the body of a kernel: registers have scopes, statements span lines or share one."""

    def __init__(self, shared: Memory, constants: dict[str, tuple[str, list[str]]]) -> None:
        self._shared, self._local, self._constants = shared, Memory(), constants
        self._registers: dict[str, str] = {}
        self._families: dict[str, str] = {}  # %f<9> declares %f0 ... %f8
        self._scopes: list[dict[str, str]] = [{}]
        self._n_scopes = 0

    def function(self, name: str, parameters: list[Parameter], lines: list[tuple[int, str]]) -> Function:
        """Return the kernel with its instructions in basic blocks."""
        blocks, current = [], Block(None)
        for number, statement in _statements(lines):
            read = self._read(number, statement)
            if isinstance(read, str):
                if current.instructions or current.label:
                    blocks.append(current)
                current = Block(read)
            elif read is not None:
                current.instructions.append(read)
                if read.is_control:
                    blocks.append(current)
                    current = Block(None)
        if current.instructions or current.label:
            blocks.append(current)
        numbers = {block.label: k for k, block in enumerate(blocks) if block.label}
        for k, block in enumerate(blocks):
            block.next = _following(block, k, len(blocks), numbers)
        return Function(name, parameters, self._registers, blocks, numbers, self._shared, self._local, self._constants)

    def _read(self, number: int, statement: str) -> Instruction | str | None:
        """Return an instruction or a label, or None after a declaration or a brace."""
        if statement == "{":
            self._scopes.append({})
            self._n_scopes += 1
            return None
        if statement == "}":
            self._scopes.pop()
            return None
        if statement.endswith(":"):
            return statement[:-1]
        text = statement.rstrip(";").strip()
        if text.startswith(".reg"):
            self._declare_registers(text)
            return None
        if text.startswith((".local", ".shared")):
            memory = self._local if text.startswith(".local") else self._shared
            memory.declare(_matched(_VARIABLE.match(text), text))
            return None
        guard = None
        guarded = re.match(r"@(!?)(%\w+)\s+(.*)$", text)
        if guarded:
            guard, text = (self._renamed(guarded[2]), guarded[1] == "!"), guarded[3]
        parts = _matched(re.match(r"([\w.:]+)\s*(.*)$", text), text)
        return Instruction(parts[1], split_operands(self._renamed(parts[2])), guard, number + 1, text)

    def _declare_registers(self, text: str) -> None:
        declared = _matched(re.match(r"\.reg\s+\.(\w+)\s+(.*)$", text), text)
        for name in split_operands(declared[2]):
            family = re.match(r"%([a-zA-Z_]+)<\d+>$", name)
            if family:
                self._families[family[1]] = _stored_as(declared[1])
                continue
            unique = name if len(self._scopes) == 1 else f"%scope{self._n_scopes}_{name.strip('%')}"
            self._scopes[-1][name] = unique
            self._registers[unique] = _stored_as(declared[1])

    def _renamed(self, text: str) -> str:
        """Replace names of registers in scopes by unique ones."""
        return _REGISTER.sub(lambda match: self._known(match[0]), text)

    def _known(self, name: str) -> str:
        if name.startswith(_SPECIAL):
            return name
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        numbered = _NUMBERED.match(name)
        if numbered is None or numbered[1] not in self._families:
            msg = f"unknown register {name}"
            raise ValueError(msg)
        self._registers.setdefault(name, self._families[numbered[1]])
        return name


def _statements(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return (line, statement): instructions and declarations with their semicolon, labels with colon, braces."""
    found, current = [], ""
    for number, line in lines:
        if line in ("{", "}"):
            found.append((number, line))
            continue
        for part in re.split(r"(?<=;)", line):
            text = part.strip()
            label = re.match(r"^([$\w]+):\s*(.*)$", text)
            if label and not current:
                found.append((number, f"{label[1]}:"))
                text = label[2]
            if not text or re.match(r"\.(?:pragma|loc|file)\b", text):
                continue
            current = f"{current} {text}".strip()
            if current.endswith(";"):
                found.append((number, current))
                current = ""
    return found


def _following(block: Block, number: int, n_blocks: int, numbers: dict[str, int]) -> list[int]:
    """Return the numbers of the blocks that may follow a block."""
    falls_to = number + 1 if number + 1 < n_blocks else END
    control = block.control
    if control is None or control.is_barrier:
        return [falls_to]
    if control.op.startswith("bra"):
        return [numbers[control.operands[0]], *([falls_to] if control.guard else [])]
    if control.op.startswith(("ret", "exit")):
        return [END, *([falls_to] if control.guard else [])]
    if control.op == "trap":
        return [END]
    msg = f"line {control.line}: not translated: {control.text}"
    raise ValueError(msg)
