"""Kernels on a GPU: compiled ahead with numba-cuda and ptxas, launched through the driver, memory from CuPy."""
