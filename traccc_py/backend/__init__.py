"""The service: the Triton model, its repository, and what starts and watches a server."""
