"""Tables of the documentation made from the code: columns, tensors, options, settings.

`python -m tests.docs_tables` renews them.

They stand between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from typer.models import ArgumentInfo

from traccc_py import wire
from traccc_py.cli.app import app
from traccc_py.config import ChainConfig
from traccc_py.data.layouts import LAYOUTS
from traccc_py.edm import (
    STAGES,
    Cells,
    Measurements,
    ModuleCells,
    Seeds,
    Spacepoints,
    Tracks,
    TrackStates,
    columns_of,
)
from traccc_py.settings import settings_of, shown
from traccc_py.wire.exatrkx import ENSEMBLE_MODEL, STEPS, step_tensor

DOCS = Path(__file__).resolve().parents[1] / "docs"
COLLECTIONS = (Cells, ModuleCells, Measurements, Spacepoints, Seeds, Tracks, TrackStates)
_BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MOST_NAMES = 8  # of components that are listed one by one


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("|  |", "| |")


def _with_unit(text: str, units: Iterable[str]) -> str:
    known = list(dict.fromkeys(unit for unit in units if unit not in ("1", "product of both")))
    return f"{text} [{', '.join(known)}]" if known else text


def collection_table(collection: type) -> str:
    """Return the columns of a collection."""
    rows = []
    for column in columns_of(collection).values():
        shape = ", ".join((column.rows, *map(str, column.shape)))
        names = ", ".join(component.name for component in column.components)
        meaning = _with_unit(column.meaning, [number.unit for number in column.numbers])
        meaning += f": {names}" if names and len(column.components) <= _MOST_NAMES else ""
        rows.append((column.name, f"{column.dtype} ({shape})", meaning, column.tensor or ""))
    has_tensors = any(row[-1] for row in rows)
    heads = ("column", "type", "meaning", "tensor of the service")
    return _table(heads if has_tensors else heads[:-1], rows if has_tensors else [row[:-1] for row in rows])


def collection_tables() -> str:
    """Return the tables of all collections, each with its name and what its rows are."""
    parts = []
    for collection in COLLECTIONS:
        summary = (collection.__doc__ or "").partition("\n")[0]
        parts.append(f"### {collection.__name__}\n\n{summary}\n\n{collection_table(collection)}")
    return "\n" + "\n".join(parts) + "\n"


def file_table(kind: str) -> str:
    """Return the columns of a kind of file."""
    rows = []
    for column in LAYOUTS[kind]:
        csv = column.csv
        assert csv is not None
        kind_of = "text" if csv.is_text else column.dtype
        if csv.minimum is not None:
            kind_of += f", >= {csv.minimum:g}" if csv.maximum is None else f", {csv.minimum:g} to {csv.maximum}"
        if csv.default is not None:
            kind_of += f", optional: {csv.default}"
        names = [f"{name} (or {csv.aliases[name]})" if name in csv.aliases else name for name in column.csv_names]
        if csv.parts:
            names[0] += f" (or {', '.join(f'{name} of {n_bits} bits' for name, n_bits in csv.parts)})"
        units = [column.numbers[k].unit for k in column.csv_names.values()]
        rows.append((", ".join(names), kind_of, _with_unit(csv.meaning or column.meaning, units)))
    return _table(("column", "type", "meaning"), rows)


def tensor_table(specs: Sequence[wire.TensorSpec]) -> str:
    """Return tensors with their types, shapes and columns."""
    rows = []
    for spec in specs:
        shape = ", ".join("n" if d < 0 else str(d) for d in spec.dims)
        names = ", ".join(_with_unit(f"`{c.name}`", [c.unit]) for c in spec.columns)
        if len(spec.columns) > _MOST_NAMES:
            names = spec.meaning
        elif spec.meaning:
            names = f"{names}: {spec.meaning}"
        rows.append((f"`{spec.name}`", spec.triton_dtype, f"[{shape}]", f"a {spec.rows}", names, str(spec.since)))
    heads = ("tensor", "type", "shape", "a row is", "columns", "since version")
    return _table(heads, rows) if specs is wire.OUTPUTS else _table(heads[:-1], [row[:-1] for row in rows])


def model_table() -> str:
    """Return the models that clients see with their tensors."""

    def names(specs: Iterable[wire.TensorSpec]) -> str:
        return ", ".join(spec.name for spec in specs)

    rows = [
        (f"`{wire.MODEL}`", f"{names(wire.STANDARD_INPUTS)}; or {names(wire.COMPACT_INPUTS)}", names(wire.OUTPUTS)),
        (f"`{wire.COMPACT_MODEL}`", names(wire.COMPACT_INPUTS), "the same"),
    ]
    return _table(("model", "inputs", "outputs"), rows)


def label_model_table() -> str:
    """Return the models that label spacepoints with their tensors."""

    def shown_tensors(names: dict[str, str]) -> str:
        parts = []
        for name, shared in names.items():
            spec = step_tensor(shared)
            shape = ", ".join("n" if d < 0 else str(d) for d in spec.dims)
            parts.append(f"{name} {spec.triton_dtype} [{shape}]: {spec.meaning}")
        return "; ".join(parts)

    whole = {wire.FEATURES.name: wire.FEATURES.name}, {wire.LABELS.name: wire.LABELS.name}
    models = {wire.EXATRKX_MODEL: whole, ENSEMBLE_MODEL: whole} | {s.model: (s.inputs, s.outputs) for s in STEPS}
    rows = [(f"`{model}`", *map(shown_tensors, tensors)) for model, tensors in models.items()]
    return _table(("model", "inputs", "output"), rows)


def version_table() -> str:
    """Return the versions of inputs and outputs."""
    rows = [
        ("`protocol_version`", str(wire.INPUT_VERSION), "of the input; rises when an older server would misread it"),
        (
            f"`{wire.OUTPUT_VERSION_PARAMETER}`",
            str(wire.OUTPUT_VERSION),
            "of the outputs; rises with each new tensor. Those that are there never change",
        ),
    ]
    return _table(("parameter of a model's configuration", "now", "version"), rows)


def _commands() -> dict[str, Any]:
    found = {str(command.name): command.callback for command in app.registered_commands}
    for group in app.registered_groups:
        found |= {f"{group.name} {c.name}": c.callback for c in group.typer_instance.registered_commands}
    return found


def command_table() -> str:
    """Return what each command does."""
    rows = [(f"`{name}`", (function.__doc__ or "").splitlines()[0]) for name, function in _commands().items()]
    return _table(("command", ""), rows)


def option_table(command: str, *, of_detectors: bool = False) -> str:
    """Return the options of a command: its own, or those that choose a detector."""
    rows = []
    for parameter in inspect.signature(_commands()[command]).parameters.values():
        if get_origin(parameter.annotation) is not Annotated or parameter.name == "debug":
            continue
        _, about = get_args(parameter.annotation)
        if about.hidden or parameter.name.startswith(("detector_", "chosen_")) != of_detectors:
            continue
        is_argument = isinstance(about, ArgumentInfo)
        names = (about.metavar,) if is_argument else (about.default, *about.param_decls)  # Typer's first name
        text = ", ".join(f"`{name}`" for name in names)
        rows.append((text, _default(parameter.default), about.help.replace("|", "\\|")))
    return _table(("option", "default", ""), rows)


def _default(default: Any) -> str:
    """Return the default value of an option."""
    if isinstance(default, tuple):
        return " ".join(f"{value:g}" for value in default)
    if isinstance(default, str):
        return f"`{default}`"
    if isinstance(default, float):
        return f"{default:g}"
    return str(default) if isinstance(default, int) and not isinstance(default, bool) else ""


def setting_table() -> str:
    """Return all settings of the chain."""
    rows = []
    for section in dataclasses.fields(ChainConfig):
        for setting in settings_of(type(getattr(ChainConfig(), section.name))):
            default = "off" if setting.default is None else shown(setting.default)
            meaning = setting.meaning.replace("|", "\\|")
            values = setting.expected.removeprefix("a finite number").strip()
            rows.append((f"`{section.name}.{setting.name}`", default, values, meaning))
    return _table(("setting", "default", "values", ""), rows)


def blocks() -> dict[str, str]:
    """Return the content of each generated block by name."""
    files = {f"file-{kind}": file_table(kind) for kind in LAYOUTS if kind != "particles"}  # as particles_initial
    return {
        "collections": collection_tables(),
        **files,
        "models": model_table(),
        "label-models": label_model_table(),
        "inputs": tensor_table((*wire.STANDARD_INPUTS, *wire.COMPACT_INPUTS)),
        "outputs": tensor_table(wire.OUTPUTS),
        "stages": ", ".join(STAGES) + "\n",
        "versions": version_table(),
        "commands": command_table(),
        "options-of-detectors": option_table("run", of_detectors=True),
        **{
            f"options-{name.replace(' ', '-')}": option_table(name)
            for name in _commands()
            if name not in ("config", "info")
        },
        "settings": setting_table(),
    }


def renewed(text: str) -> str:
    """Return a page with its generated blocks made anew."""
    made = blocks()
    return _BLOCK.sub(lambda found: found[1] + made[found[2]] + found[3], text)


def main() -> None:
    """Renew the pages."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
