"""Between the chain and its kernels: events are prepared, uploaded, run through the stages, cut into results."""
