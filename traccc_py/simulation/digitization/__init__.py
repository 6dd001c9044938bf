"""Hits to cells."""
