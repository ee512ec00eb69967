"""The command line: `gwctl run validate translate explain diff version`."""

from gwctl.cli.main import main

__all__ = ["main"]
