"""Leader election: one of several replicas holds a Lease (coordination.k8s.io/v1), and only it writes.

In: an identity that no other process has. Out: `Election.is_leader`. The surprising facts: clocks of two machines are
never compared, a candidate only watches whether the holder still changes the Lease; and a leader that cannot renew
stops being one by its own clock, before any other may follow.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gwctl.kube.client import KubeClient
from gwctl.kube.error import Conflict, KubeError, NotFound
from gwctl.kube.kind import Kind
from gwctl.kube.reflector import Trouble

log = logging.getLogger(__name__)

_RELEASE_SECONDS = 3.0

LEASE = Kind("Lease", "leases", "coordination.k8s.io")


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds: how long a lease lasts that is not renewed, when its holder gives up, and between two tries."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


class Election:
    """One candidate for the Lease ``namespace/name``. ``on_change`` is called when it wins and when it loses."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        *,
        terms: Terms | None = None,
        on_change: Callable[[bool], None] = lambda leads: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._collection = LEASE.path("v1", namespace)
        self._name = name
        self._identity = identity
        self._terms = terms or Terms()
        self._on_change = on_change
        self._clock = clock
        self._trouble = Trouble()
        self._leads = False
        self._renewed = 0.0
        self._seen: tuple[object, object] = (None, None)
        self._seen_at = 0.0
        self.holder = ""
        """Who holds the lease, as far as is known; empty where nobody does."""

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads at this moment, however long ago it was asked to do anything."""
        return self._leads and self._seconds_left() > 0

    async def run(self) -> None:
        """Take part until cancelled; then give the lease back, so that another need not wait for its end."""
        try:
            while True:
                await self.attempt()
                seconds = self._terms.retry * random.uniform(1.0, 1.2)
                await asyncio.sleep(max(0.0, min(seconds, self._seconds_left())) if self._leads else seconds)
        finally:
            await self.release()

    async def attempt(self) -> None:
        """Acquire or renew the lease, once."""
        started = self._clock()
        holds = None
        try:
            async with asyncio.timeout(self._seconds_left() if self._leads else self._terms.renew_deadline):
                holds = await self._acquire()
            self._trouble.end(self)
        except TimeoutError:
            log.debug("the Lease was not answered in time")
        except KubeError as error:
            self._trouble.begin(self, LEASE.name, error)
        if holds:
            self._renewed = started
            self._set(True)
        elif holds is False or self._seconds_left() <= 0:
            self._set(False)

    async def release(self) -> None:
        """Stop leading, and give the lease back if the API server answers soon."""
        if self.holder not in ("", self._identity):
            return
        self._set(False)
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._give_back()
        except NotFound:
            return
        except (KubeError, TimeoutError) as error:
            log.warning("the lease could not be given back", extra={"lease": self._name, "error": str(error)})

    async def _give_back(self) -> None:
        """Whether this candidate holds the lease must be asked: its last call may have been cut off on the way."""
        while True:
            lease = await self._client.get(f"{self._collection}/{self._name}")
            if _spec(lease).get("holderIdentity") != self._identity:
                return
            with suppress(Conflict):  # that call, arriving late
                await self._write(lease, holderIdentity=None, leaseDurationSeconds=1)

    async def _acquire(self) -> bool:
        """Acquire or renew; tell whether this candidate holds the lease now. Raises `KubeError` when nobody knows."""
        try:
            lease = await self._client.get(f"{self._collection}/{self._name}")
        except NotFound:
            spec = {**self._term(), "acquireTime": _now(), "leaseTransitions": 0}
            metadata = {"name": self._name}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            await self._client.create(self._collection, body)
            self.holder = self._identity
            return True
        spec = _spec(lease)
        self.holder = spec.get("holderIdentity") or ""
        seen = (self.holder, spec.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        lasts = spec.get("leaseDurationSeconds") or self._terms.duration
        if self.holder not in ("", self._identity) and self._clock() - self._seen_at < lasts:
            return False
        taken = {}
        if self.holder != self._identity:
            taken = {"acquireTime": _now(), "leaseTransitions": (spec.get("leaseTransitions") or 0) + 1}
        await self._write(lease, **self._term(), **taken)
        self.holder = self._identity
        return True

    async def _write(self, lease: dict[str, Any], **spec: object) -> None:
        metadata = {"resourceVersion": lease["metadata"]["resourceVersion"]}
        body = {"metadata": metadata, "spec": {"renewTime": _now(), **spec}}
        await self._client.patch(f"{self._collection}/{self._name}", body)

    def _term(self) -> dict[str, Any]:
        seconds = max(1, math.ceil(self._terms.duration))
        return {"holderIdentity": self._identity, "leaseDurationSeconds": seconds, "renewTime": _now()}

    def _seconds_left(self) -> float:
        return self._renewed + self._terms.renew_deadline - self._clock()

    def _set(self, leads: bool) -> None:
        if leads != self._leads:
            self._leads = leads
            log.info("leading" if leads else "no longer leading", extra={"lease": self._name, "holder": self.holder})
            self._on_change(leads)


def _spec(lease: dict[str, Any]) -> dict[str, Any]:
    return lease.get("spec") or {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
