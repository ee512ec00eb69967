"""The running data plane, for commands that look at it and change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gwctl.cli.failure import Failure
from gwctl.cli.translate import LAYOUT
from gwctl.dataplane import DataPlaneError
from gwctl.dataplane.client import Client
from gwctl.dataplane.reader import read_state
from gwctl.haproxy.names import Table
from gwctl.haproxy.program import Layout
from gwctl.haproxy.state import State
from gwctl.runtime.config import Config, ConfigError

Result = TypeVar("Result")


def read_live_state(config: Config) -> tuple[State, Layout]:
    """Read what HAProxy has of gwctl's, and where the Data Plane API keeps files."""

    async def read(client: Client) -> tuple[State, Layout]:
        return await read_state(client), await _find_layout(client)

    return asyncio.run(_with_client(config, read))


async def _with_client(config: Config, use: Callable[[Client], Awaitable[Result]]) -> Result:
    try:
        async with Client(config.dataplane_url, config.dataplane_username, config.read_password()) as client:
            return await use(client)
    except (DataPlaneError, ConfigError) as error:
        raise Failure(str(error)) from None


async def _find_layout(client: Client) -> Layout:
    """Find where files are kept without storing any: from gwctl's own files, else from any."""
    maps = await client.stored("maps")
    general = await client.stored("general")
    map_path = maps.get(Table.HOSTS) or next(iter(maps.values()), f"{LAYOUT.maps}/")
    general_path = next(iter(general.values()), f"{LAYOUT.general}/")
    return Layout(map_path.rpartition("/")[0], general_path.rpartition("/")[0])
