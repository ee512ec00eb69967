"""List and watch: one collection of the API server followed for ever, whatever happens to the connection.

In: pages and events. Out: calls of a `Sink`, one for each object that is another than before. The surprising fact: all
that is kept is the resourceVersion of each object; it tells, after a new list, what changed and what is gone, so that
what did not change is neither parsed nor told again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from gwctl.kube.client import KubeClient
from gwctl.kube.error import Forbidden, Gone, KubeError, Malformed, NotFound, Unreachable
from gwctl.kube.kind import Kind

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes what a reflector finds."""

    def put(self, manifest: dict[str, Any]) -> None:
        """Take an object that is new or another than before."""

    def drop(self, namespace: str, name: str) -> None:
        """Take note that an object is gone."""

    def synced(self) -> None:
        """Take note that a list was read to its end."""


class Observer:
    """What may be counted; does nothing itself."""

    def event(self, kind: str, event: str) -> None:
        """Note an event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK."""

    def listed(self, kind: str, cause: str) -> None:
        """Note that a list begins, and why: the ``start``, a version ``expired``, an event was ``malformed``."""

    def watch_error(self, kind: str, error: str) -> None:
        """Note that a list or watch failed with an error of that class."""

    def objects(self, kind: str, count: int) -> None:
        """Note how many objects of a kind there are."""


_OFTEN = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. After a failure ``first``, doubled each time up to ``longest``; ``refused`` where a right is missing.

    An API server that has just started refuses everything for a moment, so that does not begin with a long wait either.

    ``watch``: how long one watch lasts, up to twice that. One that ends before ``at_once`` counts as a failure whatever
    it told, since the next may be like it. ``silence``: after which a watch counts as dead.
    ``missing``: between two looks for a CRD. ``begin``: for how long the first batch waits for what others refer to.
    """

    first: float = 0.2
    longest: float = 5.0
    refused: float = 30.0
    watch: float = 240.0
    at_once: float = 1.0
    silence: float = 150.0
    missing: float = 10.0
    begin: float = 60.0


class Trouble:
    """Logs what fails once, and its end, and nothing between, for all that share it.

    What may pass by itself is one trouble whatever it concerns, and none before it has failed twice in a row; a missing
    right is one for each kind, after four times: an API server that starts refuses this and that for some seconds.
    """

    def __init__(self) -> None:
        self._times: Counter[object] = Counter()
        self._failing: dict[object, tuple[str, str]] = {}

    def begin(self, who: object, kind: str, error: KubeError) -> None:
        """Note that something failed. Of an API server that cannot be reached the client tells."""
        if isinstance(error, Gone | Unreachable):
            return
        self._times[who] += 1
        if self._times[who] < (_OFTEN if isinstance(error, Forbidden) else 2 if error.transient else 1):
            return
        trouble = type(error).__name__, "" if error.transient else kind
        if trouble not in self._failing.values():
            level, message = logging.WARNING, "the Kubernetes API fails"
            if isinstance(error, Forbidden):
                level, message = logging.ERROR, "not allowed by the Kubernetes API"
            log.log(level, message, extra={"kind": kind, "error": str(error)})
        self._failing[who] = trouble

    def end(self, who: object) -> None:
        """Note that it works."""
        del self._times[who]
        trouble = self._failing.pop(who, None)
        if trouble is not None and trouble not in self._failing.values():
            log.info("the Kubernetes API works again", extra={"trouble": " ".join(trouble).strip()})


class Backoff:
    """How long to wait after failures in a row. Another kind of failure is the first of its row."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._next = pace.first
        self._kind: type[KubeError] | None = None

    def reset(self) -> None:
        """Start anew."""
        self._next = self._pace.first

    def next(self, error: KubeError) -> float:
        """Give the seconds to wait: with jitter, and at least what the API server asks for."""
        if type(error) is not self._kind:
            self.reset()
            self._kind = type(error)
        longest = self._pace.refused if isinstance(error, Forbidden) else self._pace.longest
        seconds, self._next = min(self._next, longest), min(self._next * 2, longest)
        return max(seconds * random.uniform(0.5, 1.0), error.retry_after or 0.0)

    async def wait(self, error: KubeError) -> None:
        """Wait so long."""
        await asyncio.sleep(self.next(error))


class Reflector:
    """Follows one collection, or the part of it that ``field_selector`` selects. ``on_error`` learns of failures."""

    def __init__(
        self,
        client: KubeClient,
        kind: Kind,
        sink: Sink,
        *,
        field_selector: str = "",
        pace: Pace,
        observer: Observer,
        trouble: Trouble,
        on_error: Callable[[KubeError], None] = lambda error: None,
    ) -> None:
        self._client = client
        self._kind = kind.name
        self._page = kind.page
        self._sink = sink
        self._selector = field_selector
        self._pace = pace
        self._observer = observer
        self._trouble = trouble
        self._on_error = on_error
        self._backoff = Backoff(pace)
        self._known: dict[tuple[str, str], str] = {}
        self._version = ""

    async def run(self, path: str) -> None:
        """Follow the collection at a path until cancelled. Raises `NotFound` when nothing is served there."""
        self._version, cause = "", "start"
        while True:
            try:
                if not self._version:
                    self._observer.listed(self._kind, cause)
                    await self._list(path)
                await self._watch(path)
            except NotFound:
                raise
            except KubeError as error:
                if isinstance(error, Gone | Malformed):
                    self._version, cause = "", "expired" if isinstance(error, Gone) else "malformed"
                self._observer.watch_error(self._kind, type(error).__name__)
                self._trouble.begin(self, self._kind, error)
                self._on_error(error)
                await self._backoff.wait(error)

    def clear(self) -> None:
        """Drop everything: the kind is no longer there."""
        for key in list(self._known):
            self._drop(key)

    async def _list(self, path: str) -> None:
        seen: set[tuple[str, str]] = set()
        version = token = ""
        while True:
            page = await self._client.list_page(path, token, field_selector=self._selector, limit=self._page)
            try:
                metadata, items = page["metadata"], page.pop("items")
                version = version or str(metadata["resourceVersion"])
                kind, api_version = page["kind"].removesuffix("List"), page["apiVersion"]
                token = metadata.get("continue") or ""
                items.reverse()
            except (KeyError, TypeError, AttributeError):
                raise Malformed(f"GET {path}: the answer is no list") from None
            while items:  # raw JSON goes as it is read
                item = items.pop()
                seen.add(self._put({"apiVersion": api_version, "kind": kind, **item}))
                await asyncio.sleep(0)
            if not token:
                break
        for key in self._known.keys() - seen:
            self._drop(key)
        self._version = version
        self._trouble.end(self)
        self._sink.synced()

    async def _watch(self, path: str) -> None:
        started = time.monotonic()
        events = self._client.watch(
            path,
            self._version,
            field_selector=self._selector,
            seconds=self._pace.watch * random.uniform(1.0, 2.0),
            silence=self._pace.silence,
        )
        async with aclosing(events):
            async for event in events:
                self._observer.event(self._kind, event.type)
                self._take(event.type, event.object)
                self._trouble.end(self)
                if time.monotonic() - started >= self._pace.at_once:
                    self._backoff.reset()
        if time.monotonic() - started < self._pace.at_once:
            raise Unreachable(f"GET {path}: the watch ended at once")
        self._backoff.reset()
        self._trouble.end(self)

    def _take(self, event: str, found: dict[str, Any]) -> None:
        match event:
            case "ADDED" | "MODIFIED":
                self._put(found)
            case "DELETED":
                self._drop(_identify(found)[0])
            case "BOOKMARK":
                pass
            case _:
                raise Malformed(f"there is no event {event[:20]!r}")
        self._version = _identify(found)[1]

    def _put(self, manifest: dict[str, Any]) -> tuple[str, str]:
        key, version = _identify(manifest)
        if self._known.get(key) != version:
            self._known[key] = version
            self._sink.put(manifest)
        return key

    def _drop(self, key: tuple[str, str]) -> None:
        if self._known.pop(key, None) is not None:
            self._sink.drop(*key)


def _identify(manifest: dict[str, Any]) -> tuple[tuple[str, str], str]:
    """Give (namespace, name) and the resourceVersion; a bookmark has only the latter."""
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("resourceVersion"), str):
        raise Malformed("an object has no resourceVersion")
    return (metadata.get("namespace") or "", metadata.get("name") or ""), metadata["resourceVersion"]
