"""Writes the Services that Gateways need, while this replica is the leader.

The surprising fact: it plans anew only when the API server's events have shown what it wrote before. A plan upon an
older view could give one listener slot to two Gateways.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.graph.gatewayservice import owner_of, slots_of
from gwctl.infrastructure.service import ApplyService, ServiceChange, ServiceSettings, plan_services
from gwctl.kube.client import KubeClient
from gwctl.kube.error import KubeError, NotFound
from gwctl.runtime.pipeline import Pipeline

log = logging.getLogger(__name__)

_SEEN_SECONDS = 5.0
_FIRST_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 30.0
_FREED_SECONDS = 60.0
"""How long a slot that became free is not given out again: replicas learn of a change at different moments."""


class ServiceWriter:
    """Keeps the Services of Gateways as they should be.

    ``on_error`` is called when `errors` are others than before, ``count`` with what became of a write.
    """

    def __init__(
        self,
        client: KubeClient,
        settings: ServiceSettings,
        is_leader: Callable[[], bool],
        on_error: Callable[[], None] = lambda: None,
        count: Callable[[str], None] = lambda result: None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._is_leader = is_leader
        self._on_error = on_error
        self._count = count
        self._pipeline: Pipeline | None = None
        self._changed = asyncio.Event()
        self._errors: dict[Ref, str] = {}
        self._used: frozenset[int] = frozenset()
        self._freed: dict[int, float] = {}

    @property
    def errors(self) -> Mapping[Ref, str]:
        """Why the Service of a Gateway could not be written."""
        return self._errors

    def update(self, pipeline: Pipeline) -> None:
        """Take the latest view in."""
        self._pipeline = pipeline
        self._changed.set()

    def wake(self) -> None:
        """Look again, as when leadership has come."""
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        delay = _FIRST_RETRY_SECONDS
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._pipeline is None:
                continue
            self._note_slots(self._pipeline)
            if not self._is_leader():
                continue
            if await self._work(self._pipeline):
                delay = _FIRST_RETRY_SECONDS
            else:
                asyncio.get_running_loop().call_later(delay, self._changed.set)
                delay = min(delay * 2, _LONGEST_RETRY_SECONDS)

    async def _work(self, pipeline: Pipeline) -> bool:
        now = time.monotonic()
        self._freed = {slot: until for slot, until in self._freed.items() if until > now}
        changes = plan_services(pipeline.graph, pipeline.snapshot, self._settings, self._freed)
        errors: dict[Ref, str] = {}
        written: list[Ref] = []
        for change in changes:
            try:
                await self._write(change, pipeline)
                written.append(change.ref)
                self._count("written")
            except KubeError as error:
                log.error("cannot write a Service", extra={"change": str(change), "error": str(error)})
                self._count("failed")
                errors.setdefault(change.gateway, f"{change.ref} cannot be written: {error}")
        if errors != self._errors:
            self._errors = errors
            self._on_error()
        if not errors:
            await self._wait_until_seen(written, pipeline)
        return not errors

    async def _write(self, change: ServiceChange, pipeline: Pipeline) -> None:
        path = f"/api/v1/namespaces/{change.ref.namespace}/services/{change.ref.name}"
        if isinstance(change, ApplyService):
            await self._client.apply(path, change.manifest)
        else:
            live = pipeline.snapshot.services[change.ref]
            try:
                await self._client.delete(path, live.metadata.uid)
            except NotFound:
                return
        log.info("wrote a Service", extra={"change": str(change)})

    async def _wait_until_seen(self, written: list[Ref], before: Pipeline) -> None:
        """Wait until events show what was written; a write that changed nothing shows nothing."""
        if not written:
            return
        try:
            async with asyncio.timeout(_SEEN_SECONDS):
                while any(self._service(ref) is before.snapshot.services.get(ref) for ref in written):
                    await self._changed.wait()
                    self._changed.clear()
        except TimeoutError:
            pass
        self._changed.set()

    def _service(self, ref: Ref) -> Service | None:
        assert self._pipeline is not None
        return self._pipeline.snapshot.services.get(ref)

    def _note_slots(self, pipeline: Pipeline) -> None:
        services = pipeline.snapshot.services.values()
        used = frozenset(slot for service in services if owner_of(service) for slot in slots_of(service).values())
        self._freed |= dict.fromkeys(self._used - used, time.monotonic() + _FREED_SECONDS)
        self._used = used
