"""Kernels on the host: compiled loops shared out over a pool of threads."""
