"""Settings of single stages, for tests of these: numbers near those of the Open Data Detector where none are given."""

from __future__ import annotations

from typing import Any

from traccc_py.config import FindingConfig, SeedingConfig, SeedThinningConfig

__all__ = ["finding_settings", "seeding_settings", "thinning_settings"]

_SEEDING = {
    "z_min": -2000.0,
    "z_max": 2000.0,
    "r_max": 200.0,
    "delta_r_min": 8.0,
    "delta_r_max": 150.0,
    "delta_z_max": 500.0,
    "rad_length_per_seed": 0.03,
    "filter_delta_r_min": 5.0,
    "good_bottom_min_radius": 150.0,
    "good_top_max_radius": 150.0,
    "bottom_min_radius": 43.0,
}


def seeding_settings(**values: Any) -> SeedingConfig:
    """Return settings of the seeding."""
    return SeedingConfig(**{**_SEEDING, **values})


def thinning_settings(**values: Any) -> SeedThinningConfig:
    """Return settings of the seed thinning."""
    return SeedThinningConfig(**{"min_agreeing_seeds": 1, "ring_width": 20.0, **values})


def finding_settings(**values: Any) -> FindingConfig:
    """Return settings of the finding."""
    return FindingConfig(**{"min_measurements": 5, **values})
