"""The command line: `gwctl run validate translate explain diff status version`."""

from gwctl.cli.main import main

__all__ = ["main"]
