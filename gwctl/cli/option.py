"""Options of commands, made from the one table in `gwctl.runtime.config`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gwctl.runtime.config import CONFIG_VARIABLE, OPTIONS, Config, ConfigError, load_config

Command = TypeVar("Command", bound=Callable[..., Any])

DATA_PLANE = ("dataplane_url", "dataplane_username", "dataplane_password", "dataplane_password_file")
STATE = ("http_slots", "tcp_slots", "ipv6", "http3", "proxy_protocol_from")
"""What the state that manifests ask for depends on beside them, where no cluster gives out listener slots."""


def config_options(*fields: str) -> Callable[[Command], Command]:
    """Give a command ``--config`` and the flags of these options."""

    def decorate(command: Command) -> Command:
        for field in reversed(fields):
            option = OPTIONS[field]
            default = f"; default {option.default}" if option.default else ""
            text = f"{option.description} [{option.variable}{default}]"
            metavar = field.rpartition("_")[2].upper()
            command = click.option(option.flag, field, metavar=metavar, help=text)(command)
        path = click.Path(path_type=Path, dir_okay=False)
        text = f"a YAML file with options, named as the flags are [{CONFIG_VARIABLE}]"
        return click.option("--config", "config_file", type=path, help=text)(command)

    return decorate


def read_config(config_file: Path | None, flags: dict[str, Any]) -> Config:
    """Put the configuration together from a command's flags, the environment and the file."""
    try:
        return load_config(flags, os.environ, config_file)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


manifests_option = click.option(
    "-f",
    "--file",
    "manifests",
    type=click.Path(path_type=Path),
    required=True,
    help="a manifest, or a directory that is searched for manifests",
)


def output_option(default: str, *choices: str) -> Callable[[Command], Command]:
    """Give a command ``-o``."""
    return click.option(
        "-o", "--output", type=click.Choice(choices), default=default, show_default=True, help="how to print"
    )
