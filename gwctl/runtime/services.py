"""Writes the Services that Gateways need, while this replica is the leader.

The surprising fact: it plans anew only when the API server's events have shown what it wrote before. A plan upon an
older view could give one listener slot to two Gateways.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.graph.gatewayservice import owner_of, service_ref, slots_of
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


_CALM_SECONDS = 600.0
"""After this long without a try of the same change it is no repetition."""


@dataclass(slots=True)
class _Attempt:
    """The last try of a change: when it began, how often in a row, and why it failed, empty where it did not."""

    change: ServiceChange
    begun: float
    number: int
    error: str = ""

    @property
    def next(self) -> float:
        """When the same may be tried again."""
        return self.begun + min(_FIRST_RETRY_SECONDS * 2.0 ** min(self.number - 1, 10), _LONGEST_RETRY_SECONDS)


class ServiceWriter:
    """Keeps the Services of Gateways as they should be.

    ``exists`` tells whether there is a Gateway, also one that cannot be read. ``on_error`` is called when `errors` are
    others than before, ``count`` with what became of a write.
    """

    def __init__(
        self,
        client: KubeClient,
        settings: ServiceSettings,
        is_leader: Callable[[], bool],
        on_error: Callable[[], None] = lambda: None,
        count: Callable[[str], None] = lambda result: None,
        exists: Callable[[Ref], bool] = lambda gateway: False,
    ) -> None:
        self._client = client
        self._settings = settings
        self._is_leader = is_leader
        self._on_error = on_error
        self._count = count
        self._exists = exists
        self._pipeline: Pipeline | None = None
        self._changed = asyncio.Event()
        self._errors: dict[Ref, str] = {}
        self._attempts: dict[Ref, _Attempt] = {}
        self._timer: asyncio.TimerHandle | None = None
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
        """Look again without delay, as when leadership has come."""
        self._attempts.clear()
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._pipeline is None:
                    continue
                self._note_slots(self._pipeline)
                if self._is_leader():
                    await self._work(self._pipeline)
        finally:
            self._stop_timer()

    async def _work(self, pipeline: Pipeline) -> None:
        now = time.monotonic()
        self._freed = {slot: until for slot, until in self._freed.items() if until > now}
        self._attempts = {ref: last for ref, last in self._attempts.items() if now < last.begun + _CALM_SECONDS}
        changes = plan_services(pipeline.graph, pipeline.snapshot, self._settings, self._freed, self._exists)
        written: list[Ref] = []
        for change in changes:
            if not self._is_leader():
                break
            if self._must_wait(change):
                continue
            attempt = self._attempts[change.ref] = self._begin(change)
            try:
                await self._write(change, pipeline)
                written.append(change.ref)
                self._count("written")
            except KubeError as error:
                log.error("cannot write a Service", extra={"change": str(change), "error": str(error)})
                self._count("failed")
                attempt.error = f"{change.ref} cannot be written: {error}"
        self._tell({change.gateway: self._attempts[change.ref].error for change in changes if self._counts(change)})
        self._look_again_for(changes)
        await self._wait_until_seen(written, pipeline)

    # Attempts

    def _begin(self, change: ServiceChange) -> _Attempt:
        before = self._attempts.get(change.ref)
        again = before is not None and before.change == change
        return _Attempt(change, time.monotonic(), before.number + 1 if before is not None and again else 1)

    def _must_wait(self, change: ServiceChange) -> bool:
        """Slow down where a change is refused, or where somebody undoes it, again and again."""
        attempt = self._attempts.get(change.ref)
        return attempt is not None and attempt.change == change and time.monotonic() < attempt.next

    def _look_again_for(self, changes: Iterable[ServiceChange]) -> None:
        """Look again when the first of the changes is due that may have to be tried again."""
        self._stop_timer()
        due = [attempt.next for change in changes if (attempt := self._attempts.get(change.ref)) is not None]
        if due:
            self._timer = asyncio.get_running_loop().call_later(min(due) - time.monotonic(), self._changed.set)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _counts(self, change: ServiceChange) -> bool:
        """Tell whether a Gateway's own Service could not be written; no traffic depends on an alias."""
        own = change.ref == service_ref(change.gateway, self._settings.namespace)
        attempt = self._attempts.get(change.ref)
        return own and isinstance(change, ApplyService) and attempt is not None and attempt.error != ""

    def _tell(self, errors: dict[Ref, str]) -> None:
        if errors != self._errors:
            self._errors = errors
            self._on_error()

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
