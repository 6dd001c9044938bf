"""The command line, `traccc-py`."""

from traccc_py.cli.app import main

__all__ = ["main"]
