"""Settings that suit a detector: samples, what is searched, the search, and what is kept of it."""
