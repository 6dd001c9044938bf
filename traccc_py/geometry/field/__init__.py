"""Inhomogeneous magnetic fields: maps, their files, and the field of a solenoid."""

from traccc_py.geometry.field.coverage import check_coverage
from traccc_py.geometry.field.files import FIELD_MAP_FORMATS, read_field_map, write_field_map
from traccc_py.geometry.field.map import FieldMap
from traccc_py.geometry.field.solenoid import solenoid_field_map
from traccc_py.geometry.field.strength import MAX_FIELD, check_strength, likely_units, warn_of_strength

__all__ = [
    "FIELD_MAP_FORMATS",
    "MAX_FIELD",
    "FieldMap",
    "check_coverage",
    "check_strength",
    "likely_units",
    "read_field_map",
    "solenoid_field_map",
    "warn_of_strength",
    "write_field_map",
]
