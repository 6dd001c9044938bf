"""The options that choose a detector, with traccc's names, and `traccc-py detector`."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from traccc_py.cli.files import check_directory, check_figure
from traccc_py.cli.options import Group, Option, command, consoles, options_of
from traccc_py.detector_options import DetectorOptions
from traccc_py.errors import ConfigError

__all__ = ["DETECTOR", "DETECTOR_BY_POSITION", "detector"]

_FORMATS = {"binary": "cvf", "cvf": "cvf", "csv": "csv"}  #: traccc's names of field formats and ours
_SWITCH = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


def _field_format(name: str) -> str:
    if name not in _FORMATS:
        msg = f"--bfield-file-format is {name!r}; expected one of {', '.join(_FORMATS)}"
        raise ConfigError(msg)
    return _FORMATS[name]


def _checked(**values: Any) -> DetectorOptions:
    """Refuse files that belong to others which are not named, and two values for one thing."""
    options = DetectorOptions(**values)
    if options.detector_file is None:
        for name, value in (("--material-file", options.material_files), ("--grid-file", options.grid_file)):
            if value:
                msg = f"{name} belongs to a --detector-file, which is not given"
                raise ConfigError(msg)
    elif options.name is not None:
        msg = f"--detector-file {options.detector_file} and the name {options.name}: expected one of them"
        raise ConfigError(msg)
    if options.bfield_file is not None and options.bfield_value is not None:
        msg = "--bfield-file and --bfield-value: expected one of them"
        raise ConfigError(msg)
    of_map = {
        "--bfield-file-format": options.bfield_format,
        "--bfield-symmetry": options.bfield_symmetry,
        "--bfield-partial": options.bfield_partial,
    }
    for name, setting in of_map.items():
        if options.bfield_file is None and setting:
            msg = f"{name} belongs to a --bfield-file, which is not given"
            raise ConfigError(msg)
    return options


def _hidden(name: str, kind: Any, default: Any) -> inspect.Parameter:
    info = Annotated[kind, typer.Option(f"--{name.replace('_', '-')}", hidden=True)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=info)


#: Accepted so that traccc's command lines work; ids of both kinds are recognised, and a file that is named is read.
_OF_TRACCC = [_hidden("use_acts_geom_source", str, "true"), _hidden("read_bfield_from_file", bool, False)]


def _detector(name: Option) -> Group:
    options = options_of(
        DetectorOptions,
        _checked,
        name=name,
        detector_file=Option(metavar="FILE"),
        material_files=Option("--material-file", metavar="FILE"),
        grid_file=Option(metavar="FILE"),
        digitization=Option("--digitization", "--digitization-file"),
        conditions_file=Option(metavar="FILE"),
        dead_channels_file=Option("--dead-channels", metavar="FILE"),
        variances_file=Option("--variances", metavar="FILE"),
        bfield_value=Option(metavar="T"),
        bfield_file=Option(metavar="FILE"),
        bfield_format=Option(
            "--bfield-file-format",
            meaning="its format: binary (covfie, .cvf) or csv; by default its name tells",
            convert=_field_format,
        ),
        bfield_symmetry=Option(metavar="AXES"),
    )

    def gather(*, use_acts_geom_source: str, read_bfield_from_file: bool, **values: Any) -> DetectorOptions:
        if use_acts_geom_source.lower() not in _SWITCH:
            msg = f"--use-acts-geom-source is {use_acts_geom_source!r}; expected true or false"
            raise ConfigError(msg)
        if read_bfield_from_file and values["bfield_file"] is None:
            msg = "--read-bfield-from-file needs a --bfield-file, which is not given"
            raise ConfigError(msg)
        chosen: DetectorOptions = options.gather(**values)
        return chosen

    return Group([*options.parameters, *_OF_TRACCC], gather, options.names, options.paths)


#: Give a command a `DetectorOptions`.
DETECTOR = _detector(Option("--detector"))
DETECTOR_BY_POSITION = _detector(Option(metavar="[NAME]", is_argument=True))


@dataclass(frozen=True, slots=True)
class _ShowOptions:
    draw: Annotated[Path | None, Option(metavar="FILE")] = None  #: draw the r-z and x-y views (.png, .pdf, .svg)
    write: Annotated[Path | None, Option(metavar="DIR")] = None  #: write it as detray JSON and digitisation files
    each: Annotated[bool, Option("--all")] = False  #: list each layer, not the discs of an endcap together


@command(chosen=DETECTOR_BY_POSITION, options=options_of(_ShowOptions))
def detector(chosen: DetectorOptions, options: _ShowOptions) -> None:
    """Show the layers of a detector: radii, sensors, material."""
    from traccc_py.cli.detector_table import layer_table, summary_line

    if options.draw is not None:
        check_figure(options.draw, "--draw")
    if options.write is not None:
        check_directory(options.write, "--write")
    found, console = chosen.load(), consoles()[0]
    console.print(layer_table(found, each=options.each))
    console.print(summary_line(found))
    if options.draw is not None:
        from traccc_py.performance.views import draw_detector

        draw_detector(found, options.draw)
        console.print(f"drawn to {options.draw}")
    if options.write is not None:
        from traccc_py.data.dead_channels import write_dead_channels
        from traccc_py.geometry import write_detray

        write_detray(found, options.write, compress=False)
        if found.dead_channels is not None:
            write_dead_channels(options.write / "dead_channels.csv", found.dead_channels)
        console.print(f"written to {options.write}")
