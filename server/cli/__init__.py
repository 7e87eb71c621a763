"""The command line, ``lethe``."""

from server.cli.main import main

__all__ = ["main"]
