"""The entry point. Errors of the user and of the system are one sentence; tracebacks are for faults of gwctl.

Exit status: 0 for success, 1 for "there are problems" or "there are differences", 2 for wrong usage.
"""

from __future__ import annotations

import click

from gwctl import __version__
from gwctl.cli.diff import diff
from gwctl.cli.explain import explain
from gwctl.cli.run import run
from gwctl.cli.status import status
from gwctl.cli.translate import translate
from gwctl.cli.validate import validate

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=_SETTINGS)
@click.version_option(__version__, "--version", message="gwctl %(version)s")
def main() -> None:
    """Kubernetes Gateway API on HAProxy, without reloads.

    Every option may also be given as a variable (GWCTL_HTTP_SLOTS for --http-slots) or in a file (--config),
    where it is called as the flag is. A flag goes before a variable, a variable before the file.
    """


@click.command()
def version() -> None:
    """Print gwctl's version."""
    click.echo(f"gwctl {__version__}")


for command in (run, validate, translate, explain, diff, status, version):
    main.add_command(command)
