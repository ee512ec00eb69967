"""Which versions of a group's kinds the API server serves.

In: discovery, one small document for each version of the group. Out: the version to use of a kind, None while its
CRD is missing. The surprising fact: nobody tells when a CRD appears. A watch on CustomResourceDefinitions would, and
would need a right on the whole cluster and megabytes of schemas; discovery is open to every client, and it is only
asked while something is missing or has been answered with 404 (docs/adr/0005-own-reflector.md).
"""

from __future__ import annotations

import asyncio
import time

from gwctl.kube.client import Json, KubeClient
from gwctl.kube.error import Malformed, NotFound
from gwctl.kube.kind import Kind, newest


class Discovery:
    """Knows one group. What it has read counts for ``seconds``."""

    def __init__(self, client: KubeClient, group: str, seconds: float) -> None:
        self._client = client
        self._path = f"/apis/{group}"
        self._seconds = seconds
        self._served: dict[str, set[str]] = {}
        self._stale_at = 0.0
        self._lock = asyncio.Lock()

    async def version(self, kind: Kind) -> str | None:
        """Give the version of a kind to use, None when none that can be read is served. Raises `KubeError`."""
        async with self._lock:
            if time.monotonic() >= self._stale_at:
                self._served = await self._read()
                self._stale_at = time.monotonic() + self._seconds
        return newest(kind.versions & self._served.get(kind.name, set()))

    def forget(self) -> None:
        """Ask again next time."""
        self._stale_at = 0.0

    async def _read(self) -> dict[str, set[str]]:
        served: dict[str, set[str]] = {}
        for version in await self._names(self._path, "versions", "version"):
            for kind in await self._names(f"{self._path}/{version}", "resources", "kind"):
                served.setdefault(kind, set()).add(version)
        return served

    async def _names(self, path: str, field: str, key: str) -> list[str]:
        try:
            document: Json = await self._client.get(path)
        except NotFound:
            return []
        try:
            return [str(item[key]) for item in document[field]]
        except (KeyError, TypeError):
            raise Malformed(f"GET {path}: the answer has no {field}") from None
