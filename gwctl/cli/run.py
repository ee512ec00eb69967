"""``gwctl run``: the controller."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gwctl.cli.option import config_options, read_config
from gwctl.dataplane import DataPlaneError
from gwctl.kube.error import KubeError
from gwctl.providers.source import SourceError
from gwctl.runtime import supervisor
from gwctl.runtime.config import OPTIONS, Config, ConfigError
from gwctl.runtime.health import Health, ListenError
from gwctl.runtime.log import set_up_logging

log = logging.getLogger(__name__)


@click.command(short_help="Program HAProxy from resources until stopped.")
@config_options(*OPTIONS)
def run(config_file: Path | None, **flags: Any) -> None:
    """Program HAProxy from resources, and keep it so until stopped by SIGTERM or SIGINT."""
    config = read_config(config_file, flags)
    path = Path(config.source.removeprefix("file:"))
    if config.source != "kubernetes" and not path.exists():
        raise click.ClickException(f"{path}: no such file or directory")
    set_up_logging(config.log_level, config.log_format)
    try:
        asyncio.run(_run(config))
    except (SourceError, ListenError, ConfigError, DataPlaneError, KubeError) as error:
        raise click.ClickException(str(error)) from None
    except BaseExceptionGroup as group:
        expected = [error for error in _leaves(group) if isinstance(error, SourceError | DataPlaneError | KubeError)]
        if not expected:
            raise
        raise click.ClickException(str(expected[0])) from None


async def _run(config: Config) -> None:
    health = Health()
    task = asyncio.ensure_future(supervisor.run(config, health))
    loop = asyncio.get_running_loop()
    stopped = False

    def stop(delay: float) -> None:
        nonlocal stopped
        if stopped or not delay:
            task.cancel()
        else:
            log.info("stopping, but serving on for a while", extra={"seconds": delay})
            loop.call_later(delay, task.cancel)
        stopped = True
        health.stop()

    # Whoever presses Ctrl-C waits for no load balancer; nor does whoever signals twice.
    loop.add_signal_handler(signal.SIGTERM, stop, config.shutdown_delay)
    loop.add_signal_handler(signal.SIGINT, stop, 0.0)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
