"""Options that choose a detector: name or files, readout, conditions and field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traccc_py.errors import GeometryError
from traccc_py.settings import Settings

if TYPE_CHECKING:
    from traccc_py.geometry import Detector

__all__ = ["DEFAULT_DETECTOR", "DetectorOptions"]

DEFAULT_DETECTOR = "odd"
_DEFAULT_FIELD = 2.0  #: of detectors from files [T]


@dataclass(frozen=True, slots=True)
class DetectorOptions(Settings):
    """Names, files and values that define a detector."""

    name: str | None = None  #: built-in detector: odd, colliderml, toy or telescope; by default, and without files, odd
    detector_file: Path | None = None  #: geometry instead of a name: detray JSON, or TrackML's detectors.csv
    material_files: tuple[Path, ...] = ()  #: its material, homogeneous or maps; may be given twice
    grid_file: Path | None = None  #: its surface grids, checked against the geometry: layers have bins of their own
    digitization: str | None = None  #: readout designs: a name or an Acts JSON file; by default the detector's
    conditions_file: Path | None = None  #: shifts of local positions, Acts JSON
    dead_channels_file: Path | None = None  #: dead modules and channels, CSV or JSON
    variances_file: Path | None = None  #: table of variances of measurements, made by calibrate or tune
    bfield_value: float | None = None  #: field along z [T]; by default the detector's, 2 T for one from files
    bfield_file: Path | None = None  #: field map
    bfield_format: str | None = None  #: its format, cvf or csv; by default its name tells
    #: axes at which the map is mirrored, as a solenoid's field: z (half), xy (quadrant), xyz (octant)
    bfield_symmetry: str | None = None
    bfield_partial: bool = False  #: the map may end before the detector: with a warning

    def resolved(self) -> DetectorOptions:
        """Return the options with absolute paths."""
        names = (
            "detector_file",
            "grid_file",
            "conditions_file",
            "dead_channels_file",
            "variances_file",
            "bfield_file",
        )
        paths = {name: path.resolve() for name in names if (path := getattr(self, name)) is not None}
        readout = self.digitization
        if readout is not None and Path(readout).is_file():
            readout = str(Path(readout).resolve())
        return replace(
            self, **paths, digitization=readout, material_files=tuple(path.resolve() for path in self.material_files)
        )

    @property
    def label(self) -> str:
        """Name of the detector, or its file, for reports."""
        return str(self.detector_file) if self.detector_file else self.name or DEFAULT_DETECTOR

    def load(self) -> Detector:
        """Return the detector.

        Raises
        ------
        GeometryError
            If a name is unknown or a file can't be used.
        InputDataError
            If the list of dead channels can't be used, or is that of another detector.
        """
        detector: Any = self._by_name() if self.detector_file is None else self._from_files(self.detector_file)
        if self.variances_file is not None:
            from traccc_py.geometry.variance_table import read_variances

            detector = detector.with_variances(read_variances(self.variances_file, detector.design_names))
        if self.dead_channels_file is not None:
            from traccc_py.data.dead_channels import read_dead_channels

            detector = detector.with_dead_channels(read_dead_channels(self.dead_channels_file))
        if self.bfield_file is not None:
            from traccc_py.geometry.field import read_field_map

            field_map = read_field_map(self.bfield_file, self.bfield_format)
            try:
                if self.bfield_symmetry is not None:
                    field_map = field_map.mirrored(self.bfield_symmetry)
                return detector.with_field_map(field_map, allow_partial=self.bfield_partial)
            except GeometryError as error:
                msg = f"{self.bfield_file}: {error}"
                raise GeometryError(msg) from error
        return detector if self.bfield_value is None else detector.with_field(self.bfield_value)

    def _by_name(self) -> Detector:
        from traccc_py.geometry import build_detector

        options = {} if self.digitization is None else {"digitization": self.digitization}
        detector = build_detector(self.name or DEFAULT_DETECTOR, **options)
        return detector if self.conditions_file is None else detector.with_conditions(self.conditions_file)

    def _from_files(self, geometry: Path) -> Detector:
        from traccc_py.geometry import read_detray, read_trackml_detector

        if geometry.name.endswith((".csv", ".csv.gz")):
            if self.material_files or self.grid_file is not None:
                msg = f"{geometry}: a detector of TrackML has no material and grid files; those are detray's"
                raise GeometryError(msg)
            detector = read_trackml_detector(geometry, digitization=self.digitization, b_field_z=_DEFAULT_FIELD)
            return detector if self.conditions_file is None else detector.with_conditions(self.conditions_file)

        return read_detray(
            geometry,
            list(self.material_files) or None,
            self.grid_file,
            digitization=self.digitization,
            conditions=self.conditions_file,
            b_field_z=_DEFAULT_FIELD,
        )
