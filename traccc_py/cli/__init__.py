"""The command line, `traccc-py`."""

from traccc_py.cli.app import app, main

__all__ = ["app", "main"]
