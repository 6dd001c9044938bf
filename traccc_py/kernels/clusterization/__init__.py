"""Cells to clusters and measurements."""
