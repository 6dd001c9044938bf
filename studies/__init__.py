"""Studies: what the chain takes and what it finds, as programs that tests run on tiny samples. See README.md."""
