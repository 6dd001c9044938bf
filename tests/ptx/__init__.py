"""The PTX of the kernels, executed on the CPU: what a GPU would do, without one.

`parser` reads the PTX that numba-cuda and NVVM emit, `instructions` and `source` translate it to C, `library` has gcc
compile that. `device` is a `CudaDevice` whose kernels are run so: launches, parameter blocks and buffers are the
package's own, below them there are stand-ins for CuPy (`memory`) and for the driver (`driver`), which can check every
access to memory (`checks`) and count what a GPU would spend (`statistics`, `model`).

Not translated, as no kernel has them: calls, shuffles, votes, textures. The translator stops there with an error.
"""
