"""Which versions of the Gateway API the CRDs of a cluster come from.

In: annotations of each CRD, read by name, which takes a right to these few and no others. The surprising fact: a CRD
is a large document; asked for as metadata alone it is a small one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from gwctl.kube.client import KubeClient
from gwctl.kube.error import Forbidden, KubeError, NotFound
from gwctl.kube.kind import Kind
from gwctl.kube.reflector import Backoff, Pace, Trouble

_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ANNOTATION = "gateway.networking.k8s.io/bundle-version"
_CHANNEL = "gateway.networking.k8s.io/channel"
_AGAIN_SECONDS = 300.0


class BundleVersions:
    """Knows ``found``: the versions, an empty text for a CRD that names none; None while gwctl cannot read them.

    ``channels``: ``standard`` or ``experimental``, of all CRDs that say so. ``has_looked``: whether there was an
    answer, if only that gwctl may not ask. ``on_change`` is called then, and whenever something is another.
    """

    def __init__(
        self,
        client: KubeClient,
        kinds: Iterable[Kind],
        on_change: Callable[[], None],
        *,
        pace: Pace | None = None,
        seconds: float = _AGAIN_SECONDS,
    ) -> None:
        self.found: frozenset[str] | None = None
        self.channels: frozenset[str] = frozenset()
        self.has_looked = False
        self._client = client
        self._names = [f"{kind.plural}.{kind.group}" for kind in kinds]
        self._on_change = on_change
        self._pace = pace or Pace()
        self._seconds = seconds
        self._trouble = Trouble()

    async def run(self) -> None:
        """Read them until cancelled, since nobody tells of a change: every few minutes, soon while there are none."""
        backoff = Backoff(self._pace)
        while True:
            try:
                self._note(*await self._read())
            except KubeError as error:
                self._trouble.begin(self, "CustomResourceDefinition", error)
                if not error.transient:
                    self._note(self.found, self.channels)
                await backoff.wait(error)
            else:
                self._trouble.end(self)
                backoff.reset()
                await asyncio.sleep(self._pace.missing if self.found == frozenset() else self._seconds)

    def _note(self, found: frozenset[str] | None, channels: frozenset[str]) -> None:
        if self.has_looked and (found, channels) == (self.found, self.channels):
            return
        self.found, self.channels, self.has_looked = found, channels, True
        self._on_change()

    async def _read(self) -> tuple[frozenset[str] | None, frozenset[str]]:
        versions, channels = set(), set()
        for name in self._names:
            try:
                annotations = await self._client.get_annotations(f"{_PATH}/{name}")
            except NotFound:
                continue
            except Forbidden:
                return None, frozenset()
            versions.add(annotations.get(_ANNOTATION, ""))
            channels.add(annotations.get(_CHANNEL, ""))
        return frozenset(versions), frozenset(channels - {""})
