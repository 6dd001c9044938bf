"""A detector on the host: surfaces, layers, bins, readout designs and field, and the arrays that kernels read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from traccc_py.edm.html import fact_table
from traccc_py.errors import GeometryError, InputDataError
from traccc_py.geometry.bins import fill_bins
from traccc_py.geometry.dead_channels import DeadChannels, DeadRanges, find_dead_ranges
from traccc_py.geometry.digitization import Digitization, get_digitization, read_conditions
from traccc_py.geometry.field import FieldMap, check_coverage, check_strength, read_field_map, warn_of_strength
from traccc_py.geometry.layer_map import LayerMap, SeedingAcceptance, SensorRanges, make_layer_map, sensor_ranges
from traccc_py.geometry.layers import SurfacePoints, derive_layers
from traccc_py.geometry.layout import LayerPlace, layer_places
from traccc_py.geometry.material.maps import MaterialMap, pack_maps
from traccc_py.geometry.navigation_cache import Navigation, cached_navigation, content_key
from traccc_py.geometry.records import OUTLINE, SLAB, SURFACE, DetectorArrays, HomogeneousField, Shape
from traccc_py.geometry.surfaces import PassiveSurface, Surfaces, decode_geometry_id, describe_geometry_id
from traccc_py.geometry.variance_table import VarianceTable, load_variances, variance_file
from traccc_py.units import T

__all__ = ["Detector", "assemble_detector"]

_MAX_LISTED = 5  #: unknown ids named in an error
_OF_DEAD = ("dead_offsets", "dead_ranges")  #: the last arrays: without dead channels, a detector is what it was
# What a layer map depends on, besides the detector.
_ACCEPTANCE = ("z_min", "z_max", "r_max", "collision_region_min", "collision_region_max", "cot_theta_max")


@dataclass(frozen=True)
class Detector:
    """A detector, made by `assemble_detector` or `build_detector`. It is immutable: `with_...` return new ones."""

    name: str
    surfaces: Surfaces  # float64 masters, ascending in their primary id; the row is the module index
    passive: tuple[PassiveSurface, ...]
    navigation: Navigation  # layers, stacks, bins
    digitization: Digitization
    b_field_z: float  # homogeneous field along z, or that of the map at the origin [T]
    variance_table: VarianceTable  # of measurements
    translations: np.ndarray  # (n_surfaces, 2) float32, added to local positions [mm]
    detray_ids: np.ndarray  # (n_surfaces,) uint64, detray's identifiers; 0 where none are known
    acts_ids: np.ndarray  # (n_surfaces,) uint64, ids that readout designs and conditions are looked up by
    volume_names: Mapping[int, str] = field(default_factory=dict)
    material_maps: tuple[MaterialMap, ...] = ()  # numbered from 1
    field_map: FieldMap | None = None  # where the field is not homogeneous
    dead_channels: DeadChannels | None = None  # what cells are not expected from

    def __repr__(self) -> str:
        """Return name, sizes and fingerprint."""
        return f"Detector({self.name!r}, {len(self.surfaces)} surfaces, {len(self.layers)} layers, {self.fingerprint})"

    def _repr_html_(self) -> str:
        """Return sizes, readout and field, for notebooks."""
        ids = decode_geometry_id(self.geometry_ids)
        names = [self.volume_names.get(volume, str(volume)) for volume in np.unique(ids.volume).tolist()]
        facts = {
            "sensors": int(np.count_nonzero(self.surfaces.is_sensitive)),
            "layers": len(self.layers),
            "volumes": ", ".join(names),
            "digitization": self.digitization.name,
            "field": f"{self.b_field_z:g} T" + ("" if self.field_map is None else " at the origin, from a map"),
            "fingerprint": self.fingerprint,
        }
        return fact_table(f"Detector {self.name}", facts)

    @property
    def geometry_ids(self) -> np.ndarray:
        """Primary ids, (n_surfaces,) uint64, ascending: Acts geometry ids where sensors have them, else detray's."""
        return self.surfaces.geometry_id

    @property
    def layers(self) -> np.ndarray:
        """Layers, (n_layers,) LAYER."""
        return self.navigation.layers

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(str(n) for n in self.navigation.layer_names)

    @property
    def layer_of_surface(self) -> np.ndarray:
        """Index of each surface's layer, (n_surfaces,) int32."""
        return self.navigation.layer_of_surface

    @cached_property
    def layer_places(self) -> tuple[LayerPlace, ...]:
        """Where the layers are, in their order."""
        return layer_places(self)

    @property
    def stacks(self) -> np.ndarray:
        """Stacks of layers, (n_stacks,) STACK."""
        return self.navigation.stacks

    @property
    def design_names(self) -> tuple[str, ...]:
        """Names of the readout designs."""
        return self.digitization.design_names

    @cached_property
    def design_of_surface(self) -> np.ndarray:
        """Index of each surface's design, (n_surfaces,) int32."""
        return _designs(self.digitization, self.acts_ids, self.surfaces.is_sensitive)

    @cached_property
    def designs(self) -> np.ndarray:
        """Readout designs, (n_designs,) DESIGN."""
        used = [self.surfaces.thickness[self.design_of_surface == i] for i in range(len(self.digitization.designs))]
        return self.digitization.records(np.array([np.median(t) if len(t) else 0.0 for t in used]))

    @property
    def variance_path(self) -> Path:
        """Path of the variance table of this detector and digitisation."""
        return variance_file(self.name, self.digitization.name)

    @cached_property
    def _arrays(self) -> DetectorArrays:
        table = self.surfaces
        records = np.zeros(len(table), SURFACE)
        for prefix, values in zip("cuvw", (table.centre, table.u, table.v, table.w), strict=True):
            for column, axis in enumerate("xyz"):
                records[prefix + axis] = values[:, column]
        for name in ("shape", "hx_min", "hx_max", "hy"):
            records[name] = getattr(table, name)
        records["layer"], records["design"] = self.layer_of_surface, self.design_of_surface
        for column, name in enumerate(SLAB.names or ()):
            records[name] = table.slab[:, column]
        for column, name in enumerate(OUTLINE):
            records[name] = table.outline[:, column]
        records["material_map"] = table.material_map
        material_maps, slabs = pack_maps(self.material_maps)
        nav = self.navigation
        homogeneous = HomogeneousField(np.float32(self.b_field_z * T))
        return DetectorArrays(
            surfaces=records,
            layers=nav.layers,
            stacks=nav.stacks,
            bin_offsets=nav.bin_offsets,
            bin_surfaces=nav.bin_surfaces,
            designs=self.designs,
            variances=self.variance_table.variances,
            path_sigmas=self.variance_table.path_sigmas,
            translations=self.translations,
            field=homogeneous if self.field_map is None else self.field_map.record(),
            material_maps=material_maps,
            slabs=slabs,
        )

    @cached_property
    def dead_ranges(self) -> DeadRanges | None:
        """Dead channels of each surface; None if there are none."""
        dead = self.dead_channels
        if dead is None or len(dead) == 0:
            return None
        return find_dead_ranges(dead, self._modules_of(dead), self._arrays)

    def _modules_of(self, dead: DeadChannels) -> np.ndarray:
        """Return the module of each row.

        Raises
        ------
        InputDataError
            If an id is not that of a sensor.
        """
        index, is_known = self._find_modules(dead.geometry_id)
        if not is_known.all():
            unknown = np.unique(dead.geometry_id[~is_known])
            n, row = len(np.unique(dead.geometry_id)), int(np.argmin(is_known))
            msg = (
                f"{dead.place(row)}: geometry_id {describe_geometry_id(dead.geometry_id[row])} is not a sensor of "
                f"detector {self.name!r}, nor are {len(unknown) - 1} others of the {n} modules listed; is it the right "
                "detector?"
            )
            raise InputDataError(msg)
        return index

    @cached_property
    def _arrays_with_dead(self) -> DetectorArrays:
        dead = self.dead_ranges
        return (
            self._arrays if dead is None else self._arrays._replace(dead_offsets=dead.offsets, dead_ranges=dead.ranges)
        )

    def arrays(self) -> DetectorArrays:
        """Return the detector as NumPy arrays for kernels (see `traccc_py.geometry.records`); do not write to them."""
        return self._arrays_with_dead

    def layer_map(self, acceptance: SeedingAcceptance) -> LayerMap:
        """Return the layers that seeds are made of, made once for each acceptance; see `make_layer_map`.

        Parameters
        ----------
        acceptance : SeedingAcceptance
            Such as `SeedingConfig`.

        Raises
        ------
        GeometryError
            If there is no such map.
        """
        key = tuple(getattr(acceptance, name) for name in _ACCEPTANCE)
        if key not in self._layer_maps:
            self._layer_maps[key] = make_layer_map(self.arrays(), acceptance, self._sensor_ranges)
        return self._layer_maps[key]

    @cached_property
    def _sensor_ranges(self) -> SensorRanges:
        return sensor_ranges(self._arrays.surfaces)

    @cached_property
    def _layer_maps(self) -> dict[tuple[float, ...], LayerMap]:
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash [16 hexadecimal digits] of everything in the detector that the reconstruction uses."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(self.geometry_ids.tobytes())
        arrays = self.arrays()
        for entry in arrays if self.dead_ranges is not None else arrays[: -len(_OF_DEAD)]:
            for column in entry if isinstance(entry, tuple) else (entry,):
                digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def module_index(self, geometry_ids: Any) -> np.ndarray:
        """Return the surfaces with the given geometry ids.

        Parameters
        ----------
        geometry_ids : array-like of int, shape (n,)
            Primary ids, or detray's where the detector has them; signed 64-bit ones are read as unsigned. An id that
            is both is taken as the primary one. Whole ids are compared.

        Returns
        -------
        ndarray of shape (n,), int32
            Module indices.

        Raises
        ------
        InputDataError
            If an id is unknown, not an integer, or that of a surface without readout.
        """
        ids = np.asarray(geometry_ids)
        if ids.size == 0:
            return np.zeros(ids.shape, np.int32)
        if ids.dtype.kind not in "iu":
            msg = f"geometry ids have dtype {ids.dtype}; expected 64-bit integers"
            raise InputDataError(msg)
        ids = ids.astype(np.uint64)
        index, is_known = self._find_modules(ids)
        if not is_known.all():
            self._raise_unknown(ids, ~is_known)
        return index

    def _find_modules(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the modules with the given ids, int32, and whether there are such."""
        index, is_known = _search(self.geometry_ids, ids)
        if not is_known.all():
            order, known_ids = self._by_detray_id
            row, has_detray_id = _search(known_ids, ids)
            index = np.where(is_known, index, order[row])
            is_known |= has_detray_id & (ids != 0)
        return index.astype(np.int32), is_known & self.surfaces.is_sensitive[index]

    @cached_property
    def _by_detray_id(self) -> tuple[np.ndarray, np.ndarray]:
        """Module indices in the order of detray's identifiers, and the identifiers."""
        order = np.argsort(self.detray_ids, kind="stable")
        return order, self.detray_ids[order]

    def _raise_unknown(self, ids: np.ndarray, is_unknown: np.ndarray) -> None:
        unknown, rows = np.unique(ids[is_unknown], return_index=True)
        rows = np.flatnonzero(is_unknown)[rows]
        first = zip(unknown[:_MAX_LISTED].tolist(), rows.tolist(), strict=False)
        listed = ", ".join(f"{describe_geometry_id(i)} in row {row}" for i, row in first)
        more = ", ..." if len(unknown) > _MAX_LISTED else ""
        msg = (
            f"{len(unknown)} geometry id(s) are not sensors of detector {self.name!r}: {listed}{more}; "
            "is it the right detector?"
        )
        raise InputDataError(msg)

    def with_field(self, b_z: float) -> Detector:
        """Return the detector with a homogeneous field of `b_z` [T] along z.

        Raises
        ------
        GeometryError
            If the field is not finite, or 20 T or more.
        """
        check_strength(b_z, "b_z")
        warn_of_strength(b_z)
        return replace(self, b_field_z=float(b_z), field_map=None)

    def with_field_map(self, map_or_path: FieldMap | str | Path, *, allow_partial: bool = False) -> Detector:
        """Return the detector in an inhomogeneous field.

        Parameters
        ----------
        map_or_path : FieldMap, str or Path
            The map, or its file (see `traccc_py.geometry.field.read_field_map`). One side of a symmetric field is
            completed by `FieldMap.mirrored`.
        allow_partial : bool, optional
            Surfaces may lie outside of the map, where the field is that of its edge; a warning says how many.

        Raises
        ------
        GeometryError
            If the file is no field map, or the map does not cover the detector.
        """
        chosen = map_or_path if isinstance(map_or_path, FieldMap) else read_field_map(map_or_path)
        check_coverage(chosen, self.surfaces.centre, self.surfaces.points(7, 3), allow_partial=allow_partial)
        warn_of_strength(chosen.strongest)
        return replace(self, b_field_z=float(chosen.at(np.zeros(3))[2]), field_map=chosen)

    def with_digitization(self, name_or_path: str | Path | Digitization) -> Detector:
        """Return the detector with other readout designs and their variance table.

        Parameters
        ----------
        name_or_path : str, Path or Digitization
            Built-in name, Acts digitisation JSON, or a `Digitization`.

        Raises
        ------
        GeometryError
            If it is unknown or broken, or a surface has no design.
        """
        chosen = get_digitization(name_or_path)
        _check_polar(chosen, _designs(chosen, self.acts_ids, self.surfaces.is_sensitive), self.surfaces)
        table = load_variances(variance_file(self.name, chosen.name), chosen.design_names)
        return replace(self, digitization=chosen, variance_table=table).with_dead_channels(self.dead_channels)

    def with_conditions(self, path: str | Path) -> Detector:
        """Return the detector with the shifts of local positions of an Acts conditions JSON."""
        shifts = np.zeros((len(self.surfaces), 2), np.float32)
        is_sensitive = self.surfaces.is_sensitive
        shifts[is_sensitive] = read_conditions(path, self.acts_ids[is_sensitive])
        return replace(self, translations=shifts)

    def with_dead_channels(self, dead: DeadChannels | None) -> Detector:
        """Return the detector with other dead channels.

        No cells are expected of them: a track that crosses them has no hole there, the error of a cluster that ends at
        them is wider, and cells on them are left out.

        Parameters
        ----------
        dead : DeadChannels or None
            The list, see `traccc_py.data.dead_channels.read_dead_channels`; None: every channel works.

        Raises
        ------
        InputDataError
            If a module is not a sensor of the detector, or a channel is not on its module.
        """
        changed = replace(self, dead_channels=dead)
        _ = changed.dead_ranges  # checks them
        return changed

    def with_variances(self, table: VarianceTable) -> Detector:
        """Return the detector with another variance table."""
        columns = [np.asarray(column, np.float32) for column in table]
        for name, column, own in zip(VarianceTable._fields, columns, self.variance_table, strict=True):
            if column.shape != own.shape:
                msg = f"{name} have shape {column.shape}; expected {own.shape}"
                raise GeometryError(msg)
        return replace(self, variance_table=VarianceTable(*columns))


def _search(sorted_ids: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of ids in a sorted array, and whether they are in it."""
    index = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return index, sorted_ids[index] == ids


def _designs(digitization: Digitization, acts_ids: np.ndarray, is_sensitive: np.ndarray) -> np.ndarray:
    """Return the design of each surface, int32; -1 for surfaces without readout."""
    found = np.full(len(acts_ids), -1, np.int32)
    found[is_sensitive] = digitization.design_of(acts_ids[is_sensitive])
    return found


def _check_polar(digitization: Digitization, design_of_surface: np.ndarray, surfaces: Surfaces) -> None:
    """Raise if a rectangle or trapezoid is read out in r and phi."""
    is_polar = np.array([d.is_polar for d in digitization.designs] + [False])
    bad = np.flatnonzero(is_polar[design_of_surface] & (surfaces.shape < Shape.ANNULUS))
    if len(bad):
        first = describe_geometry_id(surfaces.geometry_id[bad[0]])
        msg = (
            f"digitization {digitization.name!r} has the axes binR, binPhi for surface {first}, which is not an "
            f"annulus or ring ({len(bad)} such surfaces)"
        )
        raise GeometryError(msg)


def assemble_detector(
    name: str,
    surfaces: Surfaces,
    passive: Sequence[PassiveSurface],
    digitization: str | Path | Digitization,
    b_field_z: float,
    *,
    are_planes: bool = False,
    layer_keys: np.ndarray | None = None,
    volume_names: Mapping[int, str] | None = None,
    detray_ids: np.ndarray | None = None,
    acts_ids: np.ndarray | None = None,
    material_maps: Sequence[MaterialMap] = (),
) -> Detector:
    """Assemble a detector; layers and bins are derived, or taken from the cache.

    Parameters
    ----------
    name : str
        Name of the detector.
    surfaces : Surfaces
        Sensitive surfaces.
    passive : sequence of PassiveSurface
        Surfaces with material and without sensors.
    digitization : str, Path or Digitization
        Readout designs, by name or file.
    b_field_z : float
        Homogeneous field along z [T].
    are_planes : bool, optional
        Layers are parallel planes instead of cylinders and discs.
    layer_keys : ndarray of shape (n, 2), int64, optional
        Volume and number of the layer of each surface; None: those of the Acts geometry ids.
    volume_names : mapping of int to str, optional
        Names of volumes, for tables.
    detray_ids : ndarray of shape (n,), uint64, optional
        Second ids of the surfaces.
    acts_ids : ndarray of shape (n,), uint64, optional
        Ids that readout designs are looked up by; None: the geometry ids.
    material_maps : sequence of MaterialMap, optional
        Maps that surfaces and passive surfaces name by number, from 1.

    Returns
    -------
    Detector
        The detector.

    Raises
    ------
    GeometryError
        If layers interleave, a surface has no readout design, or the digitization is unknown or broken.
    """
    names = dict(volume_names or {})
    columns = [np.ascontiguousarray(getattr(surfaces, f)).tobytes() for f in surfaces.__dataclass_fields__]
    key = content_key(
        *columns,
        repr(sorted(names.items())).encode(),
        repr(list(passive)).encode(),
        str(are_planes).encode(),
        b"" if layer_keys is None else layer_keys.tobytes(),
    )

    def make() -> Navigation:
        points = SurfacePoints.of(surfaces)
        table = derive_layers(surfaces, points, passive, keys=layer_keys, are_planes=are_planes, volume_names=names)
        grid = fill_bins(surfaces, points, table)
        return Navigation(
            grid.layers,
            table.stacks,
            grid.bin_offsets,
            grid.bin_surfaces,
            table.layer_of_surface,
            np.array(table.names),
        )

    navigation = cached_navigation(name, key, len(surfaces), make)
    chosen = get_digitization(digitization)
    detector = Detector(
        name=name,
        surfaces=surfaces,
        passive=tuple(passive),
        navigation=navigation,
        digitization=chosen,
        b_field_z=float(b_field_z),
        variance_table=load_variances(variance_file(name, chosen.name), chosen.design_names),
        translations=np.zeros((len(surfaces), 2), np.float32),
        detray_ids=np.zeros(len(surfaces), np.uint64) if detray_ids is None else detray_ids,
        acts_ids=surfaces.geometry_id if acts_ids is None else acts_ids,
        volume_names=names,
        material_maps=tuple(material_maps),
    )
    _check_polar(chosen, detector.design_of_surface, surfaces)  # here, not at first use
    return detector.with_field(b_field_z)
