"""Candidates that share measurements: the better ones are kept."""
