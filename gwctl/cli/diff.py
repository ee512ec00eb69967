"""``gwctl diff``: what ``gwctl run`` would do to the running HAProxy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gwctl.cli.live import read_live_state
from gwctl.cli.manifests import read_pipeline
from gwctl.cli.option import DATA_PLANE, STATE, config_options, manifests_option, read_config
from gwctl.haproxy import plan
from gwctl.haproxy.desired import Pools, build_state


@click.command(short_help="Print what `run` would do to the running HAProxy.")
@manifests_option
@config_options("gateway_controller_name", *DATA_PLANE, *STATE)
def diff(manifests: Path, config_file: Path | None, **flags: Any) -> None:
    """Print the plan that brings the running HAProxy to the state that manifests ask for; apply nothing.

    The exit status is 0 when there is nothing to do, 1 when there is, 2 when that cannot be told.
    """
    config = read_config(config_file, flags)
    pipeline = read_pipeline(manifests, config.gateway_controller_name).pipeline
    actual, layout = read_live_state(config)
    layout = replace(layout, listening=config.listening)
    pools = Pools(config.http_slots, config.tcp_slots)
    desired = build_state(pipeline.routing, pipeline.tables, actual, layout, pools).state
    found = plan.diff(desired, actual)
    if not found:
        click.echo("no differences")
        return
    click.echo(str(found))
    reload = f"a reload ({', '.join(found.transaction.reasons)})" if found.transaction else "no reload"
    number = len(found.operations)
    click.echo(f"{number} operation{'' if number == 1 else 's'} at runtime, {reload}")
    raise click.exceptions.Exit(1)
