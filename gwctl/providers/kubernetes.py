"""A Kubernetes cluster as a source.

In: what the API server says. Out: batches, and beside them the *live* side of objects: status and resourceVersion,
which a writer of status needs and nothing else does. The surprising facts: a change of status alone is in no batch,
only told by `KubernetesSource.on_status`; a kind whose CRD is missing counts as read, but for GatewayClass and Gateway;
and an object that can no longer be read keeps its last good version, as with files.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gwctl.api.parse import UNKNOWN_FIELD, Invalid, Resource, fall_back, is_unreadable, known_versions, parse_resource
from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP
from gwctl.kube.client import KubeClient
from gwctl.kube.discovery import Discovery
from gwctl.kube.error import KubeError, NotFound
from gwctl.kube.kind import Kind
from gwctl.kube.reflector import Backoff, Observer, Pace, Reflector, Sink, Trouble
from gwctl.providers.referenced import Referenced
from gwctl.providers.source import Batch

log = logging.getLogger(__name__)


def _gateway(name: str, plural: str, namespaced: bool = True) -> Kind:
    return Kind(name, plural, GATEWAY_GROUP, known_versions(name), namespaced)


GATEWAY_KINDS = (
    _gateway("GatewayClass", "gatewayclasses", namespaced=False),
    _gateway("Gateway", "gateways"),
    _gateway("ListenerSet", "listenersets"),
    _gateway("HTTPRoute", "httproutes"),
    _gateway("GRPCRoute", "grpcroutes"),
    _gateway("TCPRoute", "tcproutes"),
    _gateway("TLSRoute", "tlsroutes"),
    _gateway("ReferenceGrant", "referencegrants"),
    _gateway("BackendTLSPolicy", "backendtlspolicies"),
)
KINDS = (
    *GATEWAY_KINDS,
    Kind("Service", "services"),
    Kind("EndpointSlice", "endpointslices", "discovery.k8s.io", page=100),
    Kind("Namespace", "namespaces", namespaced=False),
)
"""What is read. A kind of the Gateway API has a live side, but for ReferenceGrant, which has no status."""

_BY_NAME = {kind.name: kind for kind in KINDS}
_REQUIRED = frozenset({"GatewayClass", "Gateway"})
_OWN = frozenset({"Service", "EndpointSlice"})
_WITHOUT_STATUS = frozenset({"ReferenceGrant"})
_REMEDY = (
    "kubectl apply --server-side -f "
    "https://github.com/kubernetes-sigs/gateway-api/releases/latest/download/standard-install.yaml"
)


@dataclass(frozen=True, slots=True)
class Live:
    """An object as the API server has it, as far as a writer of its status is concerned."""

    uid: str
    resource_version: str
    generation: int
    status: Mapping[str, Any]


class KubernetesSource:
    """The resources of a cluster, or of some ``namespaces`` of it.

    GatewayClasses are read in any case, and Services with their endpoints in ``own_namespace`` too. Secrets are read
    where Gateways refer to them whose classes name ``controller_name``; what refers to one waits for it.
    """

    def __init__(
        self,
        client: KubeClient,
        namespaces: tuple[str, ...] = (),
        own_namespace: str = "",
        *,
        controller_name: str = "",
        observer: Observer | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._client = client
        self._namespaces = namespaces
        self._own_namespace = own_namespace
        self._observer = observer or Observer()
        self._pace = pace or Pace()
        self._discovery = Discovery(client, GATEWAY_GROUP, self._pace.missing / 2)
        self._trouble = Trouble()
        self._store = _Store(self._observer)
        self._versions: dict[str, str | None] = {}
        self._referenced = Referenced(
            client,
            self._store,
            controller_name,
            pace=self._pace,
            observer=self._observer,
            trouble=self._trouble,
            on_read=self._store.wake.set,
        )
        self._tasks = asyncio.TaskGroup()
        self._unread = {(kind.name, part) for kind in KINDS for part in self._parts(kind)}
        self._begun = False

    async def batches(self) -> AsyncIterator[Batch]:
        """See `Source.batches`. A cluster that does not answer is waited for."""
        following = asyncio.create_task(self._follow_all())
        following.add_done_callback(lambda _: self._store.wake.set())
        try:
            while True:
                await self._store.wake.wait()
                self._store.wake.clear()
                if following.done():
                    following.result()
                batch = self._take()
                if batch is not None:
                    yield batch
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def on_status(self, tell: Callable[[Ref], None]) -> None:
        """Have ``tell`` called when the status of an object, and nothing that batches tell, is another than before."""
        self._store.tell_status = tell

    def live(self, ref: Ref) -> Live | None:
        """Give the live side of an object that can have a status."""
        return self._store.live.get(ref)

    def live_refs(self) -> tuple[Ref, ...]:
        """Give all objects that can have a status."""
        return tuple(self._store.live)

    def path(self, ref: Ref) -> str | None:
        """Give the path of an object in the version that is read, None while its kind is not served."""
        version = self._versions.get(ref.kind)
        return _BY_NAME[ref.kind].path(version, ref.namespace, ref.name) if version else None

    @property
    def unread_kinds(self) -> tuple[str, ...]:
        """The kinds of which not everything has been read yet: empty from the first batch on."""
        names = {name for name, _ in self._unread}
        if not names and not self._begun and self._referenced.is_waiting(first=True):
            return self._referenced.unread_kinds
        return tuple(name for name in _BY_NAME if name in names)

    def _take(self) -> Batch | None:
        if self._unread:
            return None
        self._referenced.update(self._store.changes, self._tasks)
        if self._referenced.is_waiting(first=not self._begun):
            return None
        if not self._begun:
            self._referenced.log_unread()
        batch, self._begun = self._store.take(first=not self._begun), True
        return batch

    def _parts(self, kind: Kind) -> tuple[str, ...]:
        """The namespaces that a kind is read in one by one; an empty one is all."""
        if not self._namespaces or not (kind.namespaced or kind.name == "Namespace"):
            return ("",)
        own = self._own_namespace if kind.name in _OWN else ""
        return (*self._namespaces, own) if own and own not in self._namespaces else self._namespaces

    async def _follow_all(self) -> None:
        async with self._tasks as tasks:
            for kind in KINDS:
                for part in self._parts(kind):
                    tasks.create_task(self._follow(kind, part))

    async def _follow(self, kind: Kind, part: str) -> None:
        """Follow a kind in the version that is served as long as it is, and look for it while it is not."""
        reflector = Reflector(
            self._client,
            kind,
            _Sink(kind, self._store, lambda: self._note_read(kind, part)),
            field_selector=f"metadata.name={part}" if part and kind.name == "Namespace" else "",
            pace=self._pace,
            observer=self._observer,
            trouble=self._trouble,
        )
        refused: dict[str, NotFound] = {}
        while True:
            version = await self._find_version(kind)
            if version is None:
                reflector.clear()
                self._trouble.end(reflector)
                if kind.name not in _REQUIRED:
                    self._note_read(kind, part)
            elif version in refused:
                self._trouble.begin(reflector, kind.name, refused[version])
            else:
                try:
                    await reflector.run(kind.path(version, part))
                except NotFound as error:
                    refused = {version: error}
                    self._discovery.forget()
                    continue
            refused = {}
            await asyncio.sleep(self._pace.missing)

    async def _find_version(self, kind: Kind) -> str | None:
        backoff = Backoff(self._pace)
        while True:
            try:
                version = await self._discovery.version(kind) if kind.group == GATEWAY_GROUP else "v1"
            except KubeError as error:
                self._trouble.begin(backoff, kind.name, error)
                await backoff.wait(error)
            else:
                self._trouble.end(backoff)
                self._note_version(kind.name, version)
                return version

    def _note_version(self, kind: str, version: str | None) -> None:
        known = self._versions.get(kind, "")
        self._versions[kind] = version
        if version is None and known is not None:
            if kind in _REQUIRED:
                log.warning("the Gateway API is not installed", extra={"kind": kind, "remedy": _REMEDY})
            else:
                log.info("a kind is not served, going on without it until it is", extra={"kind": kind})
        elif version is not None and known is None:
            log.info("a kind is served now", extra={"kind": kind, "version": version})

    def _note_read(self, kind: Kind, part: str) -> None:
        self._unread.discard((kind.name, part))
        self._store.wake.set()


class _Store:
    """All objects, what is wrong with them, and what of it has changed since it was taken last."""

    def __init__(self, observer: Observer) -> None:
        self.live: dict[Ref, Live] = {}
        self.tell_status: Callable[[Ref], None] = lambda ref: None
        self.wake = asyncio.Event()
        self.changes: dict[Ref, Resource | None] = {}
        self._observer = observer
        self._resources: dict[Ref, Resource] = {}
        self._invalid: dict[Ref, tuple[Invalid, ...]] = {}
        self._counts: Counter[str] = Counter()
        self._told: tuple[Invalid, ...] = ()
        self._moved = False

    def put(self, ref: Ref, resource: Resource | None, invalid: tuple[Invalid, ...], live: Live | None) -> None:
        """Take an object as it is now; ``resource`` is None when it cannot be read."""
        changed = self._set(ref, resource)
        if invalid != self._invalid.get(ref, ()):
            self._invalid[ref] = invalid
            self.wake.set()
        before, after = self.live.get(ref), live
        if invalid and before is not None and after is not None and before.generation != after.generation:
            self._moved = True  # a status that tells what is wrong has to tell of which generation
            self.wake.set()
        if after is not None:
            self.live[ref] = after
            if not changed and before is not None and before.status != after.status:
                self.tell_status(ref)

    def drop(self, ref: Ref) -> None:
        """Take away an object."""
        self._set(ref, None)
        self.live.pop(ref, None)
        if self._invalid.pop(ref, ()):
            self.wake.set()

    def sink(self, kind: Kind, synced: Callable[[], None]) -> Sink:
        """Give what takes the objects of a kind."""
        return _Sink(kind, self, synced)

    def note_unreadable(self, ref: Ref, invalid: tuple[Invalid, ...]) -> None:
        """Take note that an object cannot be read and why; nothing: that it can, or that nobody wants to any more."""
        if invalid:
            self._invalid[ref] = invalid
        else:
            self._invalid.pop(ref, None)
        self.wake.set()

    def last_good(self, ref: Ref, uid: str) -> Resource | None:
        """Give what an object that can no longer be read was before; one of the same name is not the same object."""
        resource = self._resources.get(ref)
        return resource if resource is not None and resource.metadata.uid == uid else None

    def take(self, first: bool) -> Batch | None:
        """Give what has changed, None when nothing has, but for the first time."""
        invalid = tuple(item for ref in sorted(self._invalid) for item in self._invalid[ref])
        changes, self.changes = self.changes, {}
        moved, self._moved = self._moved, False
        if first:
            changes = {ref: resource for ref, resource in changes.items() if resource is not None}
        elif not changes and not moved and invalid == self._told:
            return None
        self._told = invalid
        return Batch(changes, invalid)

    def _set(self, ref: Ref, resource: Resource | None) -> bool:
        old = self._resources.get(ref)
        if old == resource:
            return False
        if resource is None:
            del self._resources[ref]
        else:
            self._resources[ref] = resource
        if old is None or resource is None:
            self._counts[ref.kind] += 1 if old is None else -1
            self._observer.objects(ref.kind, self._counts[ref.kind])
        self.changes[ref] = resource
        self.wake.set()
        return True


class _Sink:
    """Parses what a reflector of one kind finds. See `gwctl.kube.reflector.Sink`."""

    def __init__(self, kind: Kind, store: _Store, synced: Callable[[], None]) -> None:
        self._kind = kind
        self._store = store
        self.synced = synced

    def put(self, manifest: dict[str, Any]) -> None:
        metadata = manifest["metadata"]
        ref = self._ref(metadata.get("namespace", ""), metadata["name"])
        resource, invalid = parse_resource(manifest)
        if self._kind.group != GATEWAY_GROUP:  # a newer Kubernetes may have more fields, which nobody wrote for us
            invalid = tuple(item for item in invalid if item.reason != UNKNOWN_FIELD)
        live = None
        if self._kind.group == GATEWAY_GROUP and self._kind.name not in _WITHOUT_STATUS:
            status = manifest.get("status") or {}
            live = Live(metadata["uid"], metadata["resourceVersion"], metadata.get("generation", 0), status)
        if resource is None or is_unreadable(resource):
            resource = fall_back(resource, self._store.last_good(ref, metadata["uid"]))
        self._store.put(ref, resource, invalid, live)

    def drop(self, namespace: str, name: str) -> None:
        self._store.drop(self._ref(namespace, name))

    def _ref(self, namespace: str, name: str) -> Ref:
        return Ref(self._kind.name, namespace if self._kind.namespaced else "", name)
