"""Compare the GPU code of all kernels with that of another version of the package. Needs no GPU.

Usage: python studies/kernel_digest.py --output before.json        (in the other version: PYTHONPATH=OTHER_CLONE)
       python studies/kernel_digest.py --compare before.json [--dump FOLDER]

Every kernel of the chain is compiled to PTX, in a homogeneous field and, where that makes other code, in both kinds of
field maps. The digest is of the PTX without names, numbers of registers and labels, comments and versions: a kernel
that moved to another file or got another name keeps its digest; one whose parameters changed places does not. Kernels
are known by the names of their functions. With `--compare`, the exit status is 1 if any of them is not what it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from traccc_py.chain import TrackingChain
from traccc_py.config import ChainConfig
from traccc_py.device.cuda.compile import CompiledKernel, compile_all
from traccc_py.device.kernel import Kernel, registered_kernels
from traccc_py.device.signatures import record_signatures
from traccc_py.edm import Candidates, Measurements, Spacepoints, columns_of
from traccc_py.geometry import build_detector
from traccc_py.geometry.field import FieldMap, solenoid_field_map
from traccc_py.gnn.weights import untrained_weights, write_weights

#: Kernels that the default configuration leaves out are launched by the others.
CONFIGS = (
    ChainConfig(),
    ChainConfig().with_settings({"seeding.method": "grid"}),
    ChainConfig().with_settings(
        {"seeding.method": "grid", "seed_thinning.enabled": False, "ambiguity_resolution.enabled": False}
    ),
    ChainConfig().with_settings({"finder.method": "gnn"}),
    ChainConfig().with_settings({"finder.method": "gnn", "graph.constructor": "metric"}),
)
#: The kinds of field maps, which kernels are compiled for anew.
FIELD_MAPS = {
    "cylindrical": lambda: solenoid_field_map(spacing=500),
    "cartesian": lambda: FieldMap(np.full((3, 3, 3, 3), 2.0), (-1000.0,) * 3, (1000.0,) * 3),
}

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_FUNCTION = re.compile(r"\.(?:entry|func)\s+(?:\([^)]*\)\s*)?([\w$]+)")
_VARIABLE = re.compile(r"[^=;\[]*?([\w$]+)\s*[\[=;]")
_REGISTERS = re.compile(r"^\.reg \.\w+ %([A-Za-z_]+)<\d+>;\n", re.MULTILINE)
_DEBUG = re.compile(r"^\.(?:loc|file|section|version)\b.*\n", re.MULTILINE)
_IDENTIFIER = re.compile(r"(?<![%.\w$])[A-Za-z_$][\w$]*")
_LABEL = re.compile(r"\$L[\w$]*")
_BEFORE_AN_INSTRUCTION = re.compile(r"^(?:[\s{}]|[\w$]+:)*")


def recorded(detector_name: str, configs: Sequence[ChainConfig] = CONFIGS, field: str = "") -> dict[str, Any]:
    """Return the payload types of all kernels; a batch without cells launches each of them.

    Parameters
    ----------
    detector_name : str
        Name of a built-in detector with a barrel; types don't depend on it.
    configs : sequence of ChainConfig, optional
        Configurations that together launch what is asked for.
    field : str, optional
        One of `FIELD_MAPS`; by default the field is homogeneous.

    Returns
    -------
    dict of str to tuple of numba types
        Payload types by kernel name.
    """
    detector = build_detector(detector_name)
    if field:
        detector = detector.with_field_map(FIELD_MAPS[field]())

    def run(device: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "untrained.npz"
            write_weights(weights, untrained_weights(detector.arrays()))
            for config in configs:
                chosen = config.with_settings({"finder.weights": str(weights)})
                chain = TrackingChain(detector, chosen, device)
                chain.initialize()
                chain.run(_no_candidates())

    return record_signatures(run)


def _no_candidates() -> tuple[Measurements, Spacepoints, Candidates]:
    """Return an event with nothing in it, whose seeds are of track candidates."""
    none = {
        name: np.zeros((int(column.rows == "n + 1"), *column.shape), column.dtype)
        for name, column in columns_of(Measurements).items()
    }
    spacepoints = Spacepoints(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    return Measurements(**none), spacepoints, Candidates(np.zeros(1, np.int64), np.zeros(0, np.int64))


def top_level(ptx: str) -> dict[str, str]:
    """Return the text of each function and variable of a PTX module by name, and that of its directives by ""."""
    found, lines, depth = {"": ""}, [], 0
    for line in ptx.splitlines():
        lines.append(line)
        depth += line.count("{") - line.count("}")
        if len(lines) == 1 and line.startswith((".target", ".address_size", "//")):
            found[""] += f"{line}\n"
        elif depth == 0 and line.endswith((";", "}")):
            text = "\n".join(lines) + "\n"
            function = _FUNCTION.search(text)
            name = (function or _VARIABLE.match(text)).group(1)
            if not function or "{" in text or name not in found:  # not a declaration of what is defined above
                found[name] = text
        else:
            continue
        lines.clear()
    return found


def _numbered(pattern: re.Pattern[str], prefix: str, text: str) -> str:
    """Replace what a pattern finds by a prefix and the number of its first appearance."""
    numbers: dict[str, int] = {}
    return pattern.sub(lambda found: f"{prefix}{numbers.setdefault(found.group(), len(numbers))}", text)


def _without_names(name: str, text: str) -> str:
    """Return a function of a PTX module with registers, labels, parameters and local memory named by their order."""
    for kind in sorted(set(_REGISTERS.findall(text))):
        text = _numbered(re.compile(rf"%{kind}\d+\b"), f"%{kind}", text)
    text = _REGISTERS.sub("", text)
    text = _numbered(_LABEL, "L", text)
    text = re.sub(r"\b__local_depot\d+\b", "depot", text)
    return re.sub(rf"(?<![\w$]){re.escape(name)}_(param_\d+)\b", r"\1", text)


def normalised(ptx: str) -> str:
    """Return the code of a PTX module without what names, files and versions leave in it.

    Parameters
    ----------
    ptx : str
        PTX of one kernel.

    Returns
    -------
    str
        The entry point and the functions and variables it uses, in the order of their first use, numbered.
    """
    lines = (" ".join(line.split()) for line in _COMMENT.sub("", ptx).splitlines())
    found = top_level(_DEBUG.sub("", "".join(f"{line}\n" for line in lines if line)))
    (entry,) = (name for name, text in found.items() if ".entry " in text)
    order, numbers = [entry], {entry: 0}

    def number(word: re.Match[str]) -> str:
        name = word.group()
        if name not in found:
            return name
        if name not in numbers:
            numbers[name] = len(order)
            order.append(name)
        return f"symbol{numbers[name]}"

    parts = [_IDENTIFIER.sub(number, _without_names(name, found[name])) for name in order]  # order grows on the way
    return found[""] + "".join(parts)


def count_instructions(ptx: str) -> int:
    """Return the number of instructions in PTX that was normalised."""
    bodies = "".join(text[text.index("{") + 1 :] for text in top_level(ptx).values() if _FUNCTION.search(text))
    statements = (_BEFORE_AN_INSTRUCTION.sub("", statement) for statement in bodies.split(";"))
    return sum(bool(statement) and not statement.startswith(".") for statement in statements)


@dataclass(frozen=True, slots=True)
class KernelCode:
    """What is known of a kernel's GPU code: its digest and what it needs of the hardware."""

    label: str  #: the function, and the field map it is compiled for
    kernel: str  #: the kernel's name, which has that of its file
    digest: str
    instructions: int  #: of the PTX
    registers: int
    spills: int  #: [bytes]

    @property
    def resources(self) -> str:
        """Sizes as text."""
        return f"{self.instructions} instructions, {self.registers} registers, {self.spills} bytes spilled"


def normalised_code(kernel: Kernel, compiled: CompiledKernel) -> str:
    """Return a kernel's normalised PTX, and on top of it what else its machine code and its launches depend on."""
    threads = kernel.cuda.threads if kernel.cuda is not None else 0
    return f"// fuses: {kernel.fuses}, threads of a block: {threads or 'any'}\n{normalised(compiled.ptx)}"


def describe(kernel: Kernel, compiled: CompiledKernel, field: str = "") -> KernelCode:
    """Return what is known of a kernel's code."""
    code = normalised_code(kernel, compiled)
    return KernelCode(
        label=kernel.body.py_func.__name__.strip("_") + (f", {field} map" if field else ""),
        kernel=kernel.name,
        digest=hashlib.sha256(code.encode()).hexdigest()[:16],
        instructions=count_instructions(code),
        registers=compiled.registers,
        spills=compiled.spill_stores + compiled.spill_loads,
    )


def pairs(
    before: Iterable[KernelCode], after: Iterable[KernelCode]
) -> list[tuple[KernelCode | None, KernelCode | None]]:
    """Pair the kernels of two versions: by label and digest, by label and likeness of name, at last by digest alone."""
    left, right = list(before), list(after)
    found: list[tuple[KernelCode | None, KernelCode | None]] = []

    def take(rank: Any) -> None:
        ranked = [(rank(a, b), a, b) for a in left for b in right]
        for _, a, b in sorted((r for r in ranked if r[0] > 0), key=lambda r: -r[0]):
            if a in left and b in right:
                left.remove(a)
                right.remove(b)
                found.append((a, b))

    take(lambda a, b: a.label == b.label and a.digest == b.digest)
    take(lambda a, b: (a.label == b.label) * (1 + SequenceMatcher(None, a.kernel, b.kernel).ratio()))
    take(lambda a, b: a.digest == b.digest)
    return [*found, *((a, None) for a in left), *((None, b) for b in right)]


def compare(before: Iterable[KernelCode], after: Iterable[KernelCode]) -> tuple[str, bool]:
    """Return a report on what became of the kernels of a version, and whether all of them are what they were."""
    lines = defaultdict(list)
    for a, b in pairs(before, after):
        if a is None:
            lines["new"].append(f"{b.label} ({b.kernel}): {b.resources}")
        elif b is None:
            lines["gone"].append(f"{a.label} ({a.kernel})")
        elif (a.digest, a.registers, a.spills) == (b.digest, b.registers, b.spills):
            lines["equal"].append(a.label if a.label == b.label else f"{a.label}, now {b.label}")
        else:
            lines["changed"].append(f"{b.label} ({b.kernel}):\n    before {a.resources}\n    now    {b.resources}")
    report = [f"{kind} {len(lines[kind])}" for kind in ("equal", "changed", "new", "gone")]
    for kind in ("changed", "new", "gone"):
        report += [f"{kind}: {line}" for line in sorted(lines[kind])]
    report += [f"equal: {line}" for line in sorted(lines["equal"]) if ", now " in line]
    return "\n".join(report), not (lines["changed"] or lines["new"] or lines["gone"])


def compile_chain(capability: tuple[int, int]) -> list[tuple[Kernel, CompiledKernel, str]]:
    """Return all kernels of the chain and their code, with the kind of field map or "" for a homogeneous field."""
    found: list[tuple[Kernel, CompiledKernel, str]] = []
    plain: dict[str, Any] = {}
    for field in ("", *FIELD_MAPS):
        there = recorded("toy", CONFIGS[:1] if field else CONFIGS, field)
        others = {name: kinds for name, kinds in there.items() if kinds != plain.get(name)}
        compiled = compile_all(others, [capability], processes=os.cpu_count() or 1)
        found += [(registered_kernels()[one.name], one, field) for one in compiled]
        plain = plain or there
    return found


def compilers(ptx: str) -> str:
    """Return what compiled a module; others may make other code of the same kernels."""
    nvvm = re.search(r"Compiler Build ID: (\S+)", ptx)
    packages = (f"{name} {version(name)}" for name in ("numba", "numba-cuda"))
    return ", ".join([*packages, f"NVVM {nvvm.group(1) if nvvm else 'unknown'}"])


def table(codes: Sequence[KernelCode]) -> str:
    """Return the kernels as a text table."""
    lines = [f"{'kernel':40} {'digest':16} {'instructions':>12} {'registers':>9} {'spills [B]':>10}"]
    lines += [f"{c.label:40} {c.digest} {c.instructions:12} {c.registers:9} {c.spills:10}" for c in codes]
    return "\n".join(lines)


def main(
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    compare_with: Annotated[Path | None, typer.Option("--compare", help="JSON file of another version.")] = None,
    dump: Annotated[Path | None, typer.Option(help="Folder for the normalised PTX.")] = None,
    capability: Annotated[str, typer.Option(help="Compute capability.")] = "9.0",
) -> None:
    """Digest the GPU code of all kernels of the chain, or compare it with that of another version."""
    major, minor = capability.split(".")
    codes, compiled_by = [], ""
    for kernel, compiled, field in compile_chain((int(major), int(minor))):
        codes.append(describe(kernel, compiled, field))
        compiled_by = compilers(compiled.ptx)
        if dump is not None:
            dump.mkdir(parents=True, exist_ok=True)
            name = "-".join(re.findall(r"\w+", codes[-1].label))
            (dump / f"{name}-{codes[-1].digest}.ptx").write_text(normalised_code(kernel, compiled))
    codes.sort(key=lambda code: (code.label, code.kernel))
    content = {"capability": capability, "compilers": compiled_by, "kernels": [asdict(code) for code in codes]}
    if output is not None:
        output.write_text(json.dumps(content, indent=1) + "\n")
    if compare_with is None:
        print(table(codes))
        return
    former = json.loads(compare_with.read_text())
    for name in ("capability", "compilers"):
        if former[name] != content[name]:
            print(f"{name}: {former[name]} before, {content[name]} now; the same code may have another digest")
    report, is_equal = compare([KernelCode(**one) for one in former["kernels"]], codes)
    print(report)
    raise typer.Exit(0 if is_equal else 1)


if __name__ == "__main__":
    typer.run(main)
