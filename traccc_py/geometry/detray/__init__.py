"""Detectors from and to detray's JSON files."""
