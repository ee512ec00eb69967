"""An error that keeps a command from telling anything."""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """What was asked for cannot be told. Status 1 says that there is something to tell, so this is 2."""

    exit_code = 2
