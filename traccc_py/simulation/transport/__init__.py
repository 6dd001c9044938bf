"""Particles through the detector, in float64 and independent of the kernels."""
