"""Readout of sensors: built-in designs, and readers for Acts digitisation and conditions files.

Both files are Acts geometry hierarchy maps: entries name a volume, layer and sensitive number, where a missing number
or 0 means all; the most specific entry counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traccc_py.errors import GeometryError
from traccc_py.geometry.json_node import JsonNode, read_json
from traccc_py.geometry.records import DESIGN
from traccc_py.geometry.surfaces import decode_geometry_id, describe_geometry_id

__all__ = [
    "Axis",
    "Design",
    "Digitization",
    "builtin_digitizations",
    "get_digitization",
    "read_conditions",
    "read_digitization",
    "symmetric_axes",
]

_MAP = "acts-geometry-hierarchy-map"
_BINNING = "value.geometric.segmentation.binningdata"
_UNSUPPORTED_KEYS = ("boundary", "approach", "extra")
_N_AXES = 2
_POLAR = (("binR", "AxisR"), ("binPhi", "AxisPhi"))  #: names of axes of annuli and rings
_MAX_CHANNELS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Axis:
    """Equidistant channels along one local axis."""

    n_channels: int
    minimum: float  # [mm]; of angles [rad]
    maximum: float

    @property
    def pitch(self) -> float:
        """Width of a channel [mm]; of angles [rad]."""
        return (self.maximum - self.minimum) / self.n_channels


@dataclass(frozen=True, slots=True)
class Design:
    """Readout of the sensors with a (volume, layer, sensitive); 0 means all."""

    volume: int
    layer: int
    sensitive: int
    axes: tuple[Axis, Axis]
    thickness: float | None = None  # of the active silicon [mm]; None: the sensor's
    threshold: float = 0.0  # smallest activation that fires [mm]
    charge_smearing: float = 0.0  # Gaussian noise of an activation [mm]
    is_digital: bool = False
    is_polar: bool = False  # axes are r and phi around the focal point of an annulus or ring

    @property
    def name(self) -> str:
        """Key in variance tables: the non-zero numbers, as in ``17/2``."""
        numbers = [self.volume, self.layer, self.sensitive]
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers.pop()
        return "/".join(str(n) for n in numbers)

    @property
    def dimensions(self) -> int:
        """Number of coordinates it measures."""
        return 1 if 1 in (self.axes[0].n_channels, self.axes[1].n_channels) else _N_AXES


@dataclass(frozen=True, slots=True)
class Digitization:
    """The readout designs of a detector."""

    name: str
    designs: tuple[Design, ...]

    @property
    def design_names(self) -> tuple[str, ...]:
        """Names of the designs, in their order."""
        return tuple(d.name for d in self.designs)

    def design_of(self, geometry_ids: np.ndarray) -> np.ndarray:
        """Return the index of each surface's design, int32.

        Raises
        ------
        GeometryError
            If a surface has none.
        """
        found = _look_up([(d.volume, d.layer, d.sensitive) for d in self.designs], geometry_ids)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            msg = (
                f"digitization {self.name!r} has no entry for surface {describe_geometry_id(geometry_ids[missing[0]])} "
                f"({len(missing)} such surfaces); add one for its volume"
            )
            raise GeometryError(msg)
        return found

    def records(self, sensor_thickness: np.ndarray) -> np.ndarray:
        """Return the designs as DESIGN records; `sensor_thickness` [mm] serves those without their own."""
        out = np.zeros(len(self.designs), DESIGN)
        for record, design, thickness in zip(out, self.designs, sensor_thickness, strict=True):
            for i, axis in enumerate(design.axes):
                record[f"n_channels{i}"], record[f"min{i}"], record[f"pitch{i}"] = (
                    axis.n_channels,
                    axis.minimum,
                    axis.pitch,
                )
            record["dimensions"] = design.dimensions
            record["thickness"] = thickness if design.thickness is None else design.thickness
            record["threshold"], record["charge_smearing"] = design.threshold, design.charge_smearing
            record["is_digital"], record["is_polar"] = design.is_digital, design.is_polar
        return out


def _look_up(keys: Sequence[tuple[int, int, int]], geometry_ids: np.ndarray) -> np.ndarray:
    """Return the index of the most specific key that fits each id, -1 where none does."""
    ids = decode_geometry_id(geometry_ids)
    columns = (ids.volume, ids.layer, ids.sensitive)
    found = np.full(len(geometry_ids), -1, np.int32)
    best = np.full(len(geometry_ids), -1, np.int32)
    for i, key in enumerate(keys):
        depth = max((level + 1 for level, number in enumerate(key) if number), default=0)
        if any(number == 0 for number in key[:depth]):
            continue  # Acts drops numbers from the end only: a wildcard before a number never matches
        fits = np.ones(len(geometry_ids), bool)
        for column, number in zip(columns, key[:depth], strict=False):
            fits &= column == number
        fits &= best < depth
        found[fits], best[fits] = i, depth
    return found


def symmetric_axes(half_0: float, n_0: int, half_1: float, n_1: int) -> tuple[Axis, Axis]:
    """Return axes with `n` channels from -`half` to +`half` [mm]."""
    return Axis(n_0, -half_0, half_0), Axis(n_1, -half_1, half_1)


def builtin_digitizations() -> dict[str, Digitization]:
    """Return the built-in designs by name.

    "odd-2024": of the traccc events simulated in 2024 (krasznaa/acts-odd-simulations-for-traccc). "odd-current": Acts
    and OpenDataDetector 5 (late 2025).
    """
    volumes_of_kinds = {
        "pixel disc": (16, 18),
        "pixel barrel": (17,),
        "short strip disc": (23, 25),
        "short strip barrel": (24,),
        "long strip disc": (28, 30),
        "long strip barrel": (29,),
    }
    thickness = {"pixel": 0.125, "short": 0.2, "long": 0.25}
    pixels = {"pixel disc": symmetric_axes(16.5, 660, 34.0, 1360), "pixel barrel": symmetric_axes(8.4, 336, 36.0, 1440)}
    in_2024 = pixels | {
        "short strip disc": symmetric_axes(56.4, 752, 78.0, 130),
        "short strip barrel": symmetric_axes(24.0, 320, 54.0, 90),
        "long strip disc": symmetric_axes(70.0, 280, 78.0, 1),
        "long strip barrel": symmetric_axes(48.0, 384, 54.0, 1),
    }
    current = pixels | {
        "short strip disc": symmetric_axes(56.4, 1410, 78.0, 312),
        "short strip barrel": symmetric_axes(24.0, 600, 54.0, 216),
        "long strip disc": symmetric_axes(70.0, 1120, 78.0, 1),
        "long strip barrel": symmetric_axes(48.0, 960, 54.0, 1),
    }
    made = {}
    for name, axes, smearing in (("odd-2024", in_2024, 0.015), ("odd-current", current, 0.01)):
        designs = [
            Design(volume, 0, 0, axes[kind], thickness[kind.split()[0]], 0.01, smearing, "strip" in kind)
            for kind, volumes in volumes_of_kinds.items()
            for volume in volumes
        ]
        made[name] = Digitization(name, tuple(sorted(designs, key=lambda d: d.volume)))
    return made


def get_digitization(name_or_path: str | Path | Digitization) -> Digitization:
    """Return a built-in digitization by name, or that of an Acts JSON file.

    Parameters
    ----------
    name_or_path : str, Path or Digitization
        "odd-2024", "odd-current", or a file ending in ``.json`` or ``.json.gz``.

    Returns
    -------
    Digitization
        The designs.

    Raises
    ------
    GeometryError
        If there is no such name, or the file is broken.
    """
    if isinstance(name_or_path, Digitization):
        return name_or_path
    builtin = builtin_digitizations()
    if str(name_or_path) in builtin:
        return builtin[str(name_or_path)]
    if str(name_or_path).endswith((".json", ".json.gz")):
        return read_digitization(name_or_path)
    msg = f"digitization {str(name_or_path)!r} is neither one of {sorted(builtin)} nor a .json or .json.gz file"
    raise GeometryError(msg)


def _read_entries(path: str | Path) -> list[tuple[tuple[int, int, int], JsonNode]]:
    """Return keys and entries of a geometry hierarchy map."""
    top = read_json(path)
    top.at(_MAP)
    entries = top.at("entries").items()
    if not entries:
        top.fail("'entries' is empty")
    keyed = [(_entry_key(entry), entry) for entry in entries]
    seen: set[tuple[int, int, int]] = set()
    for key, entry in keyed:
        if key in seen:
            entry.fail(f"volume, layer, sensitive {key} have an entry already")
        seen.add(key)
    return keyed


def _entry_key(entry: JsonNode) -> tuple[int, int, int]:
    for name in _UNSUPPORTED_KEYS:
        node = entry.get(name)
        if node is not None and node.value != 0:
            node.fail(f"is {node.value!r}; entries can only differ in volume, layer and sensitive")
    limits = (("volume", 0xFF), ("layer", 0xFFF), ("sensitive", 0xFFFFF))
    nodes = [(entry.get(name), limit) for name, limit in limits]
    volume, layer, sensitive = (0 if node is None else node.integer(0, limit) for node, limit in nodes)
    return volume, layer, sensitive


def read_digitization(path: str | Path) -> Digitization:
    """Read an Acts digitisation file.

    Parameters
    ----------
    path : str or Path
        JSON, may be gzipped (``.gz``).

    Returns
    -------
    Digitization
        One design per entry, named after the file.

    Raises
    ------
    GeometryError
        With file and key path, if the file is missing or broken or has a segmentation that is not equidistant.
    """
    designs = [_read_design(key, entry.at("value.geometric")) for key, entry in _read_entries(path)]
    return Digitization(Path(path).name.removesuffix(".gz").removesuffix(".json"), tuple(designs))


def _read_design(key: tuple[int, int, int], geometric: JsonNode) -> Design:
    binning = geometric.at("segmentation.binningdata")
    axes = [_read_axis(node) for node in binning.items()]
    if len(axes) != _N_AXES:
        binning.fail(f"has {len(axes)} axes; expected 2 (give an axis that is not read out 1 bin)")
    is_polar = _is_polar(binning)
    if axes[1 if is_polar else 0].n_channels == 1:
        what = "phi; sensors that measure r" if is_polar else "axis 0; sensors that measure local 1"
        binning.fail(f"has one bin along {what} only are not supported")
    thickness, digital = geometric.get("thickness"), geometric.get("digital")
    if digital is not None and not isinstance(digital.value, bool):
        digital.fail(f"is {digital.value!r}; expected true or false")
    return Design(
        *key,
        axes=(axes[0], axes[1]),
        thickness=None if thickness is None else _not_negative(thickness),
        threshold=0.0 if (node := geometric.get("threshold")) is None else _not_negative(node),
        charge_smearing=_read_smearing(geometric.get("charge-smearing")),
        is_digital=digital is not None and digital.value,
        is_polar=is_polar,
    )


def _is_polar(binning: JsonNode) -> bool:
    """Return whether the axes are r and phi; they may have no names."""
    names = [None if (name := node.get("value")) is None else name.value for node in binning.items()]
    is_of_polar = [any(name in axis for axis in _POLAR) for name in names]
    if not any(is_of_polar):
        return False
    if not all(name in axis for name, axis in zip(names, _POLAR, strict=True)):
        binning.fail(f"has the axes {names}; expected binR, binPhi for annuli and rings, or neither of them")
    return True


def _read_axis(node: JsonNode) -> Axis:
    kind = node.at("type").value
    if kind != "equidistant":
        node.at("type").fail(f"is {kind!r}; only 'equidistant' binning is supported")
    n_channels = node.at("bins").integer(1, _MAX_CHANNELS)
    minimum, maximum = node.at("min").number(), node.at("max").number()
    if not minimum < maximum:
        node.fail(f"min is {minimum}, max is {maximum}; expected min < max")
    return Axis(n_channels, minimum, maximum)


def _not_negative(node: JsonNode) -> float:
    value = node.number()
    if value < 0:
        node.fail(f"is {value}; expected 0 or more")
    return value


def _read_smearing(node: JsonNode | None) -> float:
    if node is None:
        return 0.0
    kind = node.at("type").value
    if kind != "Gauss":
        node.at("type").fail(f"is {kind!r}; only 'Gauss' is supported")
    return _not_negative(node.at("stddev"))


def read_conditions(path: str | Path, geometry_ids: np.ndarray) -> np.ndarray:
    """Read the shifts of local positions from an Acts conditions file.

    Parameters
    ----------
    path : str or Path
        JSON, may be gzipped. A digitisation file serves as well: its shifts are 0.
    geometry_ids : ndarray of shape (n,), uint64
        Surfaces.

    Returns
    -------
    ndarray of shape (n, 2), float64
        Shift to be added to local positions [mm].

    Raises
    ------
    GeometryError
        With file and key path, if the file is missing or broken or lacks a surface.
    """
    entries = _read_entries(path)
    shifts = np.array([_read_shift(entry.at(_BINNING)) for _, entry in entries], np.float64)
    found = _look_up([key for key, _ in entries], geometry_ids)
    missing = np.flatnonzero(found < 0)
    if len(missing):
        surface = describe_geometry_id(geometry_ids[missing[0]])
        msg = f"{path}: entries: none for surface {surface} ({len(missing)} such surfaces)"
        raise GeometryError(msg)
    return shifts[found]


def _read_shift(node: JsonNode) -> Iterable[float]:
    if isinstance(node.value, list):
        return (0.0, 0.0)
    shift = node.at("shift").items()
    if len(shift) != _N_AXES:
        node.at("shift").fail(f"has {len(shift)} values; expected 2")
    return [s.number() for s in shift]
