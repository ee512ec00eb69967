"""Sends Events, by the leader alone. They are worth nothing when late: what cannot be sent is dropped and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from gwctl.status.event import Event, to_manifest

log = logging.getLogger(__name__)


class EventApi(Protocol):
    """What the recorder needs of Kubernetes. Errors may have ``status``, the HTTP status of a refusal."""

    async def create_event(self, namespace: str, manifest: Mapping[str, Any]) -> None:
        """Create an Event (events.k8s.io/v1). 409: there is one of that name."""
        ...


class EventRecorder:
    """Takes Events without ever waiting and sends them one by one.

    ``instance`` names this process, as its pod. ``count`` is told what became of each: ``sent``, ``known`` (it is
    there already), ``dropped`` or ``failed``. At most ``limit`` wait.
    """

    def __init__(
        self,
        api: EventApi,
        instance: str,
        *,
        is_leader: Callable[[], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        count: Callable[[str], None] = lambda result: None,
        limit: int = 256,
    ) -> None:
        self._api = api
        self._instance = instance
        self._is_leader = is_leader
        self._clock = clock
        self._count = count
        self._queue: asyncio.Queue[Event] = asyncio.Queue(limit)

    def record(self, events: Iterable[Event]) -> None:
        """Have Events sent, as many as there is room for; none by those who do not lead."""
        if not self._is_leader():
            return
        for event in events:
            try:
                self._queue.put_nowait(event)
            except asyncio.QueueFull:
                self._count("dropped")

    async def run(self) -> None:
        """Send until cancelled."""
        failing = False
        while True:
            event = await self._queue.get()
            try:
                if self._is_leader():
                    now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                    await self._api.create_event(event.namespace, to_manifest(event, now, self._instance))
                    self._count("sent")
                    failing = False
            except Exception as error:
                if getattr(error, "status", None) == 409:
                    self._count("known")
                    failing = False
                else:
                    self._count("failed")
                    level = logging.DEBUG if failing else logging.WARNING
                    log.log(level, "cannot send an Event", extra={"object": str(event.subject), "error": str(error)})
                    failing = True
            finally:
                self._queue.task_done()

    async def settle(self) -> None:
        """Wait until every Event that was taken is sent or given up."""
        await self._queue.join()
