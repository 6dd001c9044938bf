"""The options that choose a detector, with traccc's names, and the detector they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traccc_py.cli.option_groups import argument, option, takes
from traccc_py.errors import ConfigError

__all__ = ["DetectorOptions", "takes_detector"]

_DEFAULT = "odd"
_NAMES = "odd, toy or telescope."
_FORMATS = {"binary": "cvf", "cvf": "cvf", "csv": "csv"}  #: traccc's names of field formats and ours
_SWITCH = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
_DEFAULT_FIELD = 2.0  #: of detectors from files [T]


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """What the detector options say. Files that belong to others which are not named are errors."""

    name: str | None = None
    detector_file: Path | None = None
    material_files: Sequence[Path] = ()
    grid_file: Path | None = None
    digitization: str | None = None
    conditions_file: Path | None = None
    bfield_value: float | None = None
    bfield_file: Path | None = None
    bfield_format: str | None = None

    def __post_init__(self) -> None:
        if self.detector_file is None:
            for name, value in (("--material-file", self.material_files), ("--grid-file", self.grid_file)):
                if value:
                    msg = f"{name} belongs to a --detector-file, which is not given"
                    raise ConfigError(msg)
        elif self.name is not None:
            msg = f"--detector-file {self.detector_file} and the name {self.name}: expected one of them"
            raise ConfigError(msg)
        if self.bfield_file is not None and self.bfield_value is not None:
            msg = "--bfield-file and --bfield-value: expected one of them"
            raise ConfigError(msg)
        if self.bfield_file is None and self.bfield_format is not None:
            msg = "--bfield-file-format belongs to a --bfield-file, which is not given"
            raise ConfigError(msg)
        if self.bfield_format not in (None, *_FORMATS):
            msg = f"--bfield-file-format is {self.bfield_format!r}; expected one of {', '.join(_FORMATS)}"
            raise ConfigError(msg)

    @property
    def label(self) -> str:
        """Name of the detector, or its file, for reports."""
        return str(self.detector_file) if self.detector_file else self.name or _DEFAULT

    def load(self) -> Any:
        """Return the detector.

        Raises
        ------
        GeometryError
            If a name is unknown or a file can't be used.
        """
        detector = self._from_files() if self.detector_file else self._by_name()
        if self.bfield_file is not None:
            from traccc_py.geometry.field import read_field_map  # type: ignore[import-not-found, unused-ignore]

            field_format = _FORMATS[self.bfield_format] if self.bfield_format else None
            return detector.with_field_map(read_field_map(self.bfield_file, field_format))
        return detector if self.bfield_value is None else detector.with_field(self.bfield_value)

    def _by_name(self) -> Any:
        from traccc_py.geometry import build_detector

        options = {} if self.digitization is None else {"digitization": self.digitization}
        detector = build_detector(self.name or _DEFAULT, **options)
        return detector if self.conditions_file is None else detector.with_conditions(self.conditions_file)

    def _from_files(self) -> Any:
        from traccc_py.geometry import read_detray  # type: ignore[attr-defined, unused-ignore]

        return read_detray(
            self.detector_file,
            list(self.material_files) or None,
            self.grid_file,
            digitization=self.digitization,
            conditions=self.conditions_file,
            b_field_z=_DEFAULT_FIELD,
        )


def _gather(
    *, use_acts_geom_source: str, read_bfield_from_file: bool, material_files: list[Path] | None, **values: Any
) -> DetectorOptions:
    if use_acts_geom_source.lower() not in _SWITCH:
        msg = f"--use-acts-geom-source is {use_acts_geom_source!r}; expected true or false"
        raise ConfigError(msg)
    if read_bfield_from_file and values["bfield_file"] is None:
        msg = "--read-bfield-from-file needs a --bfield-file, which is not given"
        raise ConfigError(msg)
    return DetectorOptions(material_files=material_files or (), **values)


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
    help_text = f"{_NAMES} (default: {_DEFAULT})"
    named = option("name", str | None, None, "--detector", help=help_text)
    name = argument("name", str | None, None, metavar="[NAME]", help=help_text) if is_positional else named
    return takes(parameter, [name, *_FILES], _gather)
