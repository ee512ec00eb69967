"""An API server in memory, as far as a writer of statuses sees one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gwctl.api.ref import Ref

Json = dict[str, Any]


@dataclass(frozen=True)
class Live:
    uid: str
    resource_version: str
    generation: int
    status: Mapping[str, Any]


class ApiError(Exception):
    """A refusal with an HTTP status, or no answer at all (0)."""

    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


@dataclass
class MemoryApi:
    """Objects, and what of them a watch has told.

    ``follows``: the watch tells everything at once. ``errors``: what the next patches of an object are answered with.
    ``gate``: patches wait for it; ``begun`` is set when one is in flight. ``overtaken``: what someone else makes of the
    status of an object after the next patch of it, which the watch tells before the patch is answered.
    """

    objects: dict[Ref, Live] = field(default_factory=dict)
    cache: dict[Ref, Live] = field(default_factory=dict)
    follows: bool = True
    errors: dict[Ref, list[Exception]] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    overtaken: dict[Ref, Json] = field(default_factory=dict)
    patches: list[tuple[Ref, Json]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _version: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    # What happens in the cluster

    def put(self, ref: Ref, *, uid: str = "", generation: int = 0, status: Json | None = None) -> None:
        """Create or replace an object."""
        self._store(ref, Live(uid, "", generation, status or {}))

    def write(self, ref: Ref, status: Json) -> None:
        """Let someone else replace the status of an object."""
        self._store(ref, replace(self.objects[ref], status=status))

    def delete(self, ref: Ref) -> None:
        del self.objects[ref]
        if self.follows:
            del self.cache[ref]

    def tell(self) -> None:
        """Let the watch tell all that has happened."""
        self.cache = dict(self.objects)

    def _store(self, ref: Ref, live: Live) -> Live:
        self._version += 1
        self.objects[ref] = replace(live, resource_version=str(self._version), status=copy.deepcopy(live.status))
        if self.follows:
            self.cache[ref] = self.objects[ref]
        return self.objects[ref]

    # What a writer sees

    def live(self, ref: Ref) -> Live | None:
        return self.cache.get(ref)

    def live_refs(self) -> Iterable[Ref]:
        return tuple(self.cache)

    async def read(self, ref: Ref) -> Live | None:
        await asyncio.sleep(0)
        return self.objects.get(ref)

    async def patch_status(self, ref: Ref, status: Mapping[str, Any], resource_version: str) -> Live:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.begun.set()
            await asyncio.sleep(0)
            await self.gate.wait()
            if self.errors.get(ref):
                raise self.errors[ref].pop(0)
            live = self.objects.get(ref)
            if live is None:
                raise ApiError(404)
            if live.resource_version != resource_version:
                raise ApiError(409)
            self.patches.append((ref, dict(status)))
            result = self._store(ref, replace(live, status={**live.status, **status}))
            if ref in self.overtaken:
                self.write(ref, self.overtaken.pop(ref))
                self.cache[ref] = self.objects[ref]
            return result
        finally:
            self.in_flight -= 1
