"""The options that choose a detector, with traccc's names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from traccc_py.cli.option_groups import argument, option, takes
from traccc_py.detector_options import DEFAULT_DETECTOR, DetectorOptions
from traccc_py.errors import ConfigError

__all__ = ["takes_detector"]

_NAMES = "odd, toy or telescope."
_FORMATS = {"binary": "cvf", "cvf": "cvf", "csv": "csv"}  #: traccc's names of field formats and ours
_SWITCH = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


def _check(options: DetectorOptions) -> None:
    """Refuse files that belong to others which are not named, and two values for one thing."""
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


def _gather(
    *, use_acts_geom_source: str, read_bfield_from_file: bool, material_files: list[Path] | None, **values: Any
) -> DetectorOptions:
    if use_acts_geom_source.lower() not in _SWITCH:
        msg = f"--use-acts-geom-source is {use_acts_geom_source!r}; expected true or false"
        raise ConfigError(msg)
    if read_bfield_from_file and values["bfield_file"] is None:
        msg = "--read-bfield-from-file needs a --bfield-file, which is not given"
        raise ConfigError(msg)
    field_format = values.pop("bfield_format")
    if field_format not in (None, *_FORMATS):
        msg = f"--bfield-file-format is {field_format!r}; expected one of {', '.join(_FORMATS)}"
        raise ConfigError(msg)
    options = DetectorOptions(
        material_files=tuple(material_files or ()),
        bfield_format=None if field_format is None else _FORMATS[field_format],
        **values,
    )
    _check(options)
    return options


_FILES = [
    option("detector_file", Path | None, None, "--detector-file", metavar="FILE", help="detray geometry JSON."),
    option(
        "material_files",
        list[Path] | None,
        None,
        "--material-file",
        metavar="FILE",
        help="Its material: homogeneous or maps; may be given twice.",
    ),
    option("grid_file", Path | None, None, "--grid-file", metavar="FILE", help="Its surface grids; checked only."),
    option(
        "digitization",
        str | None,
        None,
        "--digitization",
        "--digitization-file",
        help="Readout designs: a name or an Acts JSON file. (default: the detector's)",
    ),
    option(
        "conditions_file", Path | None, None, "--conditions-file", metavar="FILE", help="Shifts of local positions."
    ),
    option("bfield_value", float | None, None, "--bfield-value", metavar="T", help="Field along z [T]."),
    option("bfield_file", Path | None, None, "--bfield-file", metavar="FILE", help="Field map, .cvf or .csv."),
    option("bfield_format", str | None, None, "--bfield-file-format", help="binary or csv. (default: by its name)"),
    option(
        "bfield_symmetry",
        str | None,
        None,
        "--bfield-symmetry",
        metavar="AXES",
        help="Mirror the map, as a solenoid's field: z (half), xy (quadrant), xyz (octant).",
    ),
    option(
        "bfield_partial", bool, False, "--bfield-partial", help="The map may end before the detector: with a warning."
    ),
    # Accepted so that traccc's command lines work; ids of both kinds are recognised, and a file that is named is read.
    option("use_acts_geom_source", str, "true", "--use-acts-geom-source", hidden=True),
    option("read_bfield_from_file", bool, False, "--read-bfield-from-file", hidden=True),
]


def takes_detector(
    parameter: str, *, is_positional: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the detector options, as a `DetectorOptions`.

    Parameters
    ----------
    parameter : str
        Parameter that receives it.
    is_positional : bool, optional
        The name of the detector is an argument instead of ``--detector``.
    """
    help_text = f"{_NAMES} (default: {DEFAULT_DETECTOR})"
    named = option("name", str | None, None, "--detector", help=help_text)
    name = argument("name", str | None, None, metavar="[NAME]", help=help_text) if is_positional else named
    return takes(parameter, [name, *_FILES], _gather)
