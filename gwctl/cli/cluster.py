"""The objects of a cluster, for commands that look at it and change nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from gwctl.api.wire import GATEWAY_GROUP
from gwctl.cli.failure import Failure
from gwctl.kube.client import KubeClient
from gwctl.kube.discovery import Discovery
from gwctl.kube.error import KubeError
from gwctl.providers.kubernetes import KINDS
from gwctl.runtime.config import Config


def read_cluster(config: Config) -> list[Mapping[str, Any]]:
    """Read every object of the Gateway API in the namespaces to watch, as JSON; kinds without a CRD have none."""
    # What goes wrong is the command's answer, so it is not logged too.
    logging.getLogger("gwctl").addHandler(logging.NullHandler())
    return asyncio.run(_read(config))


async def _read(config: Config) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    try:
        async with KubeClient() as client:
            discovery = Discovery(client, GATEWAY_GROUP, seconds=60.0)
            for kind in KINDS:
                version = await discovery.version(kind) if kind.group == GATEWAY_GROUP else None
                for namespace in (config.namespaces or ("",)) if kind.namespaced else ("",):
                    if version is not None:
                        items = await _list(client, kind.path(version, namespace))
                        found += ({**item, "kind": kind.name} for item in items)
    except KubeError as error:
        raise Failure(str(error)) from None
    return found


async def _list(client: KubeClient, path: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    token = ""
    while True:
        page = await client.list_page(path, token)
        found += page["items"]
        token = page["metadata"].get("continue", "")
        if not token:
            return found
