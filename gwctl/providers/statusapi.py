"""The cluster as writers of statuses and Events see it: `StatusApi` and `EventApi` upon the source and its client.

What is live comes from the source's own watches, so that nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gwctl.api.ref import Ref
from gwctl.kube.client import KubeClient
from gwctl.kube.error import NotFound
from gwctl.providers.kubernetes import KubernetesSource, Live

_EVENTS = "/apis/events.k8s.io/v1/namespaces/{}/events"


class KubernetesStatusApi:
    """Implements `gwctl.status.writer.StatusApi` and `gwctl.status.recorder.EventApi`. Raises `KubeError`."""

    def __init__(self, source: KubernetesSource, client: KubeClient) -> None:
        self._source = source
        self._client = client

    def live(self, ref: Ref) -> Live | None:
        """See `StatusApi.live`."""
        return self._source.live(ref)

    def live_refs(self) -> Iterable[Ref]:
        """See `StatusApi.live_refs`."""
        return self._source.live_refs()

    async def read(self, ref: Ref) -> Live | None:
        """See `StatusApi.read`."""
        try:
            return _live(await self._client.get(self._path(ref)))
        except NotFound:
            return None

    async def patch_status(self, ref: Ref, status: Mapping[str, Any], resource_version: str) -> Live:
        """See `StatusApi.patch_status`."""
        return _live(await self._client.patch_status(self._path(ref), status, resource_version))

    async def create_event(self, namespace: str, manifest: Mapping[str, Any]) -> None:
        """See `EventApi.create_event`."""
        await self._client.create(_EVENTS.format(namespace), manifest)

    def _path(self, ref: Ref) -> str:
        path = self._source.path(ref)
        if path is None:
            raise NotFound(f"{ref.kind} is not served", 404, "NotFound")
        return path


def _live(manifest: Mapping[str, Any]) -> Live:
    metadata = manifest["metadata"]
    status = manifest.get("status") or {}
    return Live(metadata["uid"], metadata["resourceVersion"], metadata.get("generation", 0), status)
