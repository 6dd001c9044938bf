"""Magnetic fields that change from place to place: maps, their files, and the field of a solenoid."""

from traccc_py.geometry.field.files import FIELD_MAP_FORMATS, read_field_map, write_field_map
from traccc_py.geometry.field.map import FieldMap
from traccc_py.geometry.field.solenoid import solenoid_field_map

__all__ = ["FIELD_MAP_FORMATS", "FieldMap", "read_field_map", "solenoid_field_map", "write_field_map"]
