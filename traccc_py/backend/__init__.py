"""The service: the Triton model, the model repository, the launcher and the watchdog of the server."""
