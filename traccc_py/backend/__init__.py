"""The Triton model (not there yet)."""
