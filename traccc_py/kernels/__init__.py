"""The physics of the stages, as kernels and the drivers that launch them."""
