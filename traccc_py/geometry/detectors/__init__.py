"""Detectors that come with the package."""
