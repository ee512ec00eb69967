"""Writes statuses: the latest desired ones in, merge patches of status subresources out, by the leader alone.

Level-based: what is to be done with an object is decided from its desired and its live status when its turn comes, so
nothing is lost by what was skipped. The surprising fact: a status that was computed from an older generation of an
object than the live one is never written; it waits until the graph has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from gwctl.api.ref import Ref
from gwctl.status.merge import has_own_entries, merge_status, release
from gwctl.status.status import Status, Statuses

log = logging.getLogger(__name__)

_CONFLICTS = 5
"""How often a write is tried anew upon what others wrote meanwhile before the object waits."""

_CALM_SECONDS = 600.0
"""After this long without a write, what others wrote is mended at once again."""


class Live(Protocol):
    """An object as the API server has it, as far as its status is concerned."""

    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def status(self) -> Mapping[str, Any]: ...


class StatusApi(Protocol):
    """What the writer needs of Kubernetes.

    Errors of the coroutines may have ``status``, the HTTP status of a refusal (409: another resourceVersion, 404: no
    such object), and ``retry_after``, the seconds that the API server asks to wait. All others are tried again too.
    """

    def live(self, ref: Ref) -> Live | None:
        """Give an object as it was last seen, None when there is none."""
        ...

    def live_refs(self) -> Iterable[Ref]:
        """Give every object that can have a status, ours or not."""
        ...

    async def read(self, ref: Ref) -> Live | None:
        """Read an object from the API server, None when there is none."""
        ...

    async def patch_status(self, ref: Ref, status: Mapping[str, Any], resource_version: str) -> Live:
        """Merge into the status of an object while it still has that version; give the object after that."""
        ...


def backoff(attempt: int) -> float:
    """Give the seconds to wait before the next attempt, the first being 1: from half a second to a minute."""
    return float(min(60.0, 0.5 * 2.0 ** min(attempt - 1, 10)) * random.uniform(0.8, 1.2))


@dataclass(slots=True)
class _Record:
    """What is remembered of one object."""

    failures: int = 0
    timer: asyncio.TimerHandle | None = None
    # What our last write made of which version, for as long as the API has not told of it.
    base: str = ""
    result: Live | None = None
    # The last write said this, then; ``repairs``: how often in a row the same had to be said again.
    written: Status | None = None
    written_at: float = 0.0
    repairs: int = 0


class StatusWriter:
    """Keeps the status of every object of ours as it should be.

    ``is_leader`` is asked before every write. ``count`` is told of each write: the kind and what became of it
    (``written``, ``conflict``, ``gone``, ``failed``). At most ``limit`` writes are in flight.
    """

    def __init__(
        self,
        api: StatusApi,
        controller_name: str,
        *,
        is_leader: Callable[[], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        count: Callable[[str, str], None] = lambda kind, result: None,
        backoff: Callable[[int], float] = backoff,
        limit: int = 8,
    ) -> None:
        self._api = api
        self._controller_name = controller_name
        self._is_leader = is_leader
        self._clock = clock
        self._count = count
        self._backoff = backoff
        self._limit = limit
        self._statuses: Statuses | None = None
        self._records: dict[Ref, _Record] = {}
        self._queue: asyncio.Queue[Ref] = asyncio.Queue()
        self._queued: set[Ref] = set()
        self._busy: set[Ref] = set()
        # Objects of which the graph does not know the live generation yet.
        self._waiting: set[Ref] = set()

    def update(self, statuses: Statuses) -> None:
        """Take the latest statuses in; those before are forgotten."""
        before, self._statuses = self._statuses, statuses
        waiting, self._waiting = self._waiting, set()
        if before is None:
            self.check_all()
            return
        old, new = before.by_ref, statuses.by_ref
        changed: Set[Ref] = statuses.changed
        if statuses.base is not old:
            changed = {ref for ref in old.keys() | new.keys() if old.get(ref) is not new.get(ref)}
        for ref in changed | waiting:
            record = self._records.get(ref)
            if record is not None and not record.failures:
                self._stop_timer(record)
            self._enqueue(ref)

    def check(self, ref: Ref) -> None:
        """Look at an object again, because its live status is another than before."""
        self._enqueue(ref)

    def check_all(self) -> None:
        """Look at everything again, without delay: for when leadership has come."""
        if self._statuses is None or not self._is_leader():
            return
        for record in self._records.values():
            self._stop_timer(record)
        for ref in {*self._statuses.by_ref, *self._api.live_refs()}:
            self._enqueue(ref)

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._limit):
                    tasks.create_task(self._work())
        finally:
            for record in self._records.values():
                self._stop_timer(record)

    async def settle(self) -> None:
        """Wait until nothing is left that can be done now."""
        await self._queue.join()

    # The queue

    def _enqueue(self, ref: Ref) -> None:
        record = self._records.get(ref)
        if ref not in self._queued and (record is None or record.timer is None):
            self._queued.add(ref)
            # An object that is being written goes into the queue when that is done.
            if ref not in self._busy:
                self._queue.put_nowait(ref)

    def _enqueue_later(self, ref: Ref, record: _Record, seconds: float) -> None:
        def wake() -> None:
            record.timer = None
            self._enqueue(ref)

        self._stop_timer(record)
        record.timer = asyncio.get_running_loop().call_later(seconds, wake)
        self._queued.discard(ref)

    @staticmethod
    def _stop_timer(record: _Record) -> None:
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None

    async def _work(self) -> None:
        while True:
            ref = await self._queue.get()
            self._queued.discard(ref)
            self._busy.add(ref)
            try:
                await self._try(ref)
            finally:
                self._busy.discard(ref)
                if ref in self._queued:
                    self._queue.put_nowait(ref)
                self._queue.task_done()

    # One object

    async def _try(self, ref: Ref) -> None:
        try:
            await self._write(ref)
        except Exception as error:
            self._count(ref.kind, "failed")
            record = self._records.setdefault(ref, _Record())
            record.failures += 1
            level = logging.WARNING if record.failures == 1 else logging.DEBUG
            log.log(level, "cannot write a status", extra={"object": str(ref), "error": str(error) or repr(error)})
            asked = getattr(error, "retry_after", None)
            self._enqueue_later(ref, record, max(self._backoff(record.failures), asked or 0.0))
        else:
            if ref in self._records:
                self._records[ref].failures = 0

    async def _write(self, ref: Ref) -> None:
        live = self._latest(ref)
        for _ in range(_CONFLICTS):
            if live is None:
                self._forget(ref)
                return
            desired = self._desired(ref, live)
            if desired is None or not self._is_leader():
                return
            now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            new = merge_status(
                desired, live.status, namespace=ref.namespace, controller_name=self._controller_name, now=now
            )
            if new is None or self._must_wait(ref, desired):
                return
            seen = self._api.live(ref)
            try:
                result = await self._api.patch_status(ref, new, live.resource_version)
            except Exception as error:
                match getattr(error, "status", None):
                    case 404:
                        self._count(ref.kind, "gone")
                        live = None
                    case 409:
                        self._count(ref.kind, "conflict")
                        live = await self._api.read(ref)
                    case _:
                        raise
            else:
                self._count(ref.kind, "written")
                self._remember(ref, desired, result, older=(live, seen))
                return
        raise _Contended(f"others wrote the object {_CONFLICTS} times meanwhile")

    def _latest(self, ref: Ref) -> Live | None:
        """Give an object as it was last seen, or as our own write left it when that is newer."""
        live, record = self._api.live(ref), self._records.get(ref)
        if record is not None and record.result is not None and live is not None:
            if live.resource_version == record.base:
                return record.result
            record.result = None
        return live

    def _desired(self, ref: Ref, live: Live) -> Status | None:
        """Give what the status of an object should say, None when there is nothing to say or it is too early."""
        if self._statuses is None:
            return None
        desired = self._statuses.by_ref.get(ref)
        if desired is None:
            if not has_own_entries(live.status, self._controller_name):
                return None
            seen = self._statuses.outcome.resource(ref)
            desired = release(live.status, seen.metadata.uid, seen.metadata.generation) if seen is not None else None
        if desired is None or desired.uid != live.uid or desired.generation < live.generation:
            self._waiting.add(ref)
            return None
        return desired

    def _must_wait(self, ref: Ref, desired: Status) -> bool:
        """Slow down where someone else undoes again and again what we write."""
        record = self._records.get(ref)
        if record is None or record.written is None or record.written != desired:
            return False
        since = asyncio.get_running_loop().time() - record.written_at
        delay = self._backoff(record.repairs) if record.repairs else 0.0
        if since >= delay:
            return False
        self._enqueue_later(ref, record, delay - since)
        return True

    def _remember(self, ref: Ref, desired: Status, result: Live, older: Iterable[Live | None]) -> None:
        """Note a write, and what it made of the object while the API tells of nothing but versions ``older`` than that.

        It may tell of what another wrote after us before our write is answered.
        """
        now = asyncio.get_running_loop().time()
        record = self._records.setdefault(ref, _Record())
        again = record.written == desired and now - record.written_at < _CALM_SECONDS
        record.repairs = record.repairs + 1 if again else 0
        record.written, record.written_at = desired, now
        seen = self._api.live(ref)
        if seen is not None and seen.resource_version in {item.resource_version for item in older if item is not None}:
            record.base, record.result = seen.resource_version, result

    def _forget(self, ref: Ref) -> None:
        record = self._records.pop(ref, None)
        if record is not None:
            self._stop_timer(record)


class _Contended(Exception):
    """Others write an object all the time."""
