"""Measurements to spacepoints, seeds and their track parameters."""
