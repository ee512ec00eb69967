"""Objects that are read because others refer to them: Secrets with certificates, ConfigMaps with authorities.

In: what there is of what refers. Out: a reflector for each Secret and ConfigMap that it refers to and may, and none for
any other. The surprising fact: each is a list and a watch of its namespace with the field
selector ``metadata.name``, which Kubernetes allows to who has rights on this one name only; so nothing that is of no
concern is ever asked for (docs/adr/0007).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from gwctl.api.parse import Invalid, Resource
from gwctl.api.ref import Ref
from gwctl.graph.referenced import MOST_CONFIG_MAPS, REFERRING, find_referenced
from gwctl.kube.client import KubeClient
from gwctl.kube.error import Forbidden, Gone, KubeError, NotFound, Refused
from gwctl.kube.kind import Kind
from gwctl.kube.reflector import Observer, Pace, Reflector, Sink, Trouble
from gwctl.snapshot import Snapshot

log = logging.getLogger(__name__)

KINDS = {"Secret": Kind("Secret", "secrets"), "ConfigMap": Kind("ConfigMap", "configmaps")}
"""What is read where something refers to it."""

_LONGEST_HOLD = 5.0
"""Seconds for which what refers to a Secret may wait for it: long enough for any answer, short where there is none."""

_SOME = 5


class Objects(Protocol):
    """Where objects are put, and what is wrong with them."""

    def sink(self, kind: Kind, synced: Callable[[], None]) -> Sink:
        """Give what takes the objects of a kind."""

    def note_unreadable(self, ref: Ref, invalid: tuple[Invalid, ...]) -> None:
        """Take note that an object cannot be read and why; nothing: that it can."""


class Referenced:
    """Follows what is referred to; ``on_read`` is called whenever something that was waited for may have come."""

    def __init__(
        self,
        client: KubeClient,
        objects: Objects,
        controller_name: str,
        *,
        pace: Pace,
        observer: Observer,
        trouble: Trouble,
        on_read: Callable[[], None],
    ) -> None:
        self._client = client
        self._objects = objects
        self._controller_name = controller_name
        self._pace = pace
        self._observer = observer
        self._on_read = on_read
        self._trouble = trouble
        self._snapshot = Snapshot()
        self._followers: dict[Ref, _Follower] = {}
        self._left_out: Mapping[str, int] = {}
        self._hold_until = 0.0
        self._first_until: float | None = None

    def update(self, changes: Mapping[Ref, Resource | None], tasks: asyncio.TaskGroup) -> None:
        """Take in changes of what refers, and follow what is referred to from now on."""
        relevant = {ref: resource for ref, resource in changes.items() if ref.kind in REFERRING}
        if not relevant:
            return
        self._snapshot = self._snapshot.apply(relevant)
        wanted, left_out = find_referenced(self._snapshot, self._controller_name)
        self._note_left_out(left_out)
        for ref in self._followers.keys() - wanted:
            self._trouble.end(self._followers.pop(ref).stop())
        new = sorted(wanted - self._followers.keys())
        for ref in new:
            self._followers[ref] = self._follow(ref, tasks)
        if new:
            self._hold_until = time.monotonic() + _LONGEST_HOLD
            asyncio.get_running_loop().call_later(_LONGEST_HOLD, self._on_read)
            if self._first_until is None:
                self._first_until = time.monotonic() + self._pace.begin
                asyncio.get_running_loop().call_later(self._pace.begin, self._on_read)

    @property
    def unread_kinds(self) -> tuple[str, ...]:
        """The kinds of which something has not been read yet."""
        unread = {ref.kind for ref, follower in self._followers.items() if not follower.is_read}
        return tuple(kind for kind in KINDS if kind in unread)

    def is_waiting(self, first: bool) -> bool:
        """Tell whether something is to be waited for that has not been read yet: at ``first`` much longer."""
        until = self._first_until if first and self._first_until is not None else self._hold_until
        return time.monotonic() < until and bool(self.unread_kinds)

    def log_unread(self) -> None:
        """Say without what there is a beginning."""
        unread = sorted(str(ref) for ref, follower in self._followers.items() if not follower.is_read)
        if unread:
            some = ", ".join(unread[:_SOME]) + (f" and {len(unread) - _SOME} more" if len(unread) > _SOME else "")
            log.warning("beginning without objects that the Kubernetes API does not give", extra={"objects": some})

    def _note_left_out(self, left_out: Mapping[str, int]) -> None:
        for namespace in sorted(left_out.keys() - self._left_out.keys()):
            log.warning(
                "BackendTLSPolicies of a namespace refer to too many ConfigMaps: those of the youngest are not read",
                extra={"namespace": namespace, "read": MOST_CONFIG_MAPS, "left_out": left_out[namespace]},
            )
        for namespace in sorted(self._left_out.keys() - left_out.keys()):
            log.info(
                "all ConfigMaps of a namespace's BackendTLSPolicies are read again", extra={"namespace": namespace}
            )
        self._left_out = left_out

    def _follow(self, ref: Ref, tasks: asyncio.TaskGroup) -> _Follower:
        follower, kind = _Follower(ref, self._objects, self._on_read), KINDS[ref.kind]
        reflector = Reflector(
            self._client,
            kind,
            self._objects.sink(kind, follower.note_read),
            field_selector=f"metadata.name={ref.name}",
            pace=self._pace,
            observer=self._observer,
            trouble=self._trouble,
            on_error=follower.note_error,
        )
        follower.start(reflector, tasks, self._pace.missing)
        return follower


class _Follower:
    """One object that is followed."""

    def __init__(self, ref: Ref, objects: Objects, on_read: Callable[[], None]) -> None:
        self.is_read = False
        self._ref = ref
        self._objects = objects
        self._on_read = on_read
        self._told: tuple[Invalid, ...] = ()
        self._reflector: Reflector | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, reflector: Reflector, tasks: asyncio.TaskGroup, missing: float) -> None:
        self._reflector = reflector
        self._task = tasks.create_task(self._run(reflector, missing))

    def stop(self) -> Reflector:
        """Follow it no more, and forget what is in it."""
        assert self._task is not None and self._reflector is not None
        self._task.cancel()
        self._reflector.clear()
        self._tell(())
        return self._reflector

    def note_read(self) -> None:
        self._tell(())
        self._finish()

    def note_error(self, error: KubeError) -> None:
        """Whoever is refused for good waits in vain, so nobody else does. A version that is too old is no refusal."""
        if isinstance(error, Refused) and not error.transient and not isinstance(error, Gone):
            message = f"cannot be read: the Kubernetes API refuses it with status {error.status}"
            if isinstance(error, Forbidden):
                message = "cannot be read: let gwctl's service account get, list and watch it"
            self._tell((Invalid(self._ref, "", message),))
            self._finish()

    def _tell(self, invalid: tuple[Invalid, ...]) -> None:
        if invalid != self._told:
            self._told = invalid
            self._objects.note_unreadable(self._ref, invalid)

    def _finish(self) -> None:
        if not self.is_read:
            self.is_read = True
            self._on_read()

    async def _run(self, reflector: Reflector, missing: float) -> None:
        while True:
            try:
                await reflector.run(KINDS[self._ref.kind].path("v1", self._ref.namespace))
            except NotFound as error:
                self.note_error(error)
                await asyncio.sleep(missing)
