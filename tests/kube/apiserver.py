"""A small stand-in for the Kubernetes API server: it keeps objects and versions, and fails when told to.

It speaks discovery, list with pages, watch with bookmarks and compaction, create, merge patch, apply, delete, the
status subresource and optimistic locking. `tests.kube.test_contract` keeps it honest. It does not validate objects.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml
from aiohttp import web

from gwctl.kube.kind import Kind
from gwctl.providers.kubernetes import KINDS

Json = Any
Key = tuple[str, str]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

EXTRA_KINDS = (
    Kind("Lease", "leases", "coordination.k8s.io"),
    Kind("Event", "events", "events.k8s.io"),
    Kind("Secret", "secrets"),
    Kind("ConfigMap", "configmaps"),
    Kind("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io", namespaced=False),
)


class Change(NamedTuple):
    version: int
    type: str
    kind: Kind
    object: Json


class Fault(NamedTuple):
    """What happens instead of an answer to the next requests whose method and path with query contain these texts."""

    method: str
    part: str
    answer: Answer


@dataclass(eq=False)
class Watcher:
    kind: Kind
    namespace: str
    name: str
    queue: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    transport: asyncio.Transport | None = None

    def wants(self, change: Change) -> bool:
        metadata = change.object["metadata"]
        return (
            change.kind is self.kind
            and self.namespace in ("", metadata.get("namespace", ""))
            and self.name in ("", metadata["name"])
        )


class ApiServer:
    """Use it as an asynchronous context manager; ``served`` are the versions by kind, none where a CRD is missing."""

    def __init__(self) -> None:
        self.kinds = {kind.name: kind for kind in (*KINDS, *EXTRA_KINDS)}
        self.served = {name: ["v1"] for name in self.kinds}
        self.version = 100
        self.compacted = 0
        self.token = ""
        self.gone_as_status = False
        self.requests: list[str] = []
        self.watchers: list[Watcher] = []
        self._objects: dict[str, dict[Key, Json]] = {name: {} for name in self.kinds}
        self._changes: list[Change] = []
        self._pages: dict[str, list[Json]] = {}
        self._faults: list[Fault] = []
        self._pulse = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away with all connections."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, path: Path, **user: Json) -> Path:
        """Write a kubeconfig that leads here."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    # What tests do to it

    def put(self, manifest: Json) -> Json:
        """Create or replace an object, as somebody else would."""
        manifest = copy.deepcopy(manifest)
        kind = self.kinds[manifest["kind"]]
        metadata = manifest["metadata"]
        if kind.namespaced:
            metadata.setdefault("namespace", "default")
        key = (metadata.get("namespace", ""), metadata["name"])
        old = self._objects[kind.name].get(key)
        metadata["uid"] = old["metadata"]["uid"] if old else str(uuid.uuid4())
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        same = old is not None and old.get("spec") == manifest.get("spec")
        metadata["generation"] = old["metadata"]["generation"] + (not same) if old else 1
        return self._store(kind, key, manifest, "MODIFIED" if old else "ADDED")

    def remove(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object."""
        key = (namespace if self.kinds[kind].namespaced else "", name)
        self._store(self.kinds[kind], key, copy.deepcopy(self._objects[kind].pop(key)), "DELETED")

    def object(self, kind: str, name: str, namespace: str = "default") -> Json:
        """Give an object."""
        return self._objects[kind][namespace if self.kinds[kind].namespaced else "", name]

    def objects(self, kind: str) -> dict[Key, Json]:
        """Give all objects of a kind by namespace and name."""
        return self._objects[kind]

    def remove_crd(self, kind: str) -> None:
        """Stop serving a kind: its objects go, its watches end."""
        for namespace, name in list(self._objects[kind]):
            self.remove(kind, name, namespace)
        self.serve(kind)

    def serve(self, kind: str, *versions: str) -> None:
        """Serve these versions of a kind from now on, and end its watches."""
        self.served[kind] = list(versions)
        for watcher in self.watchers:
            if watcher.kind.name == kind:
                watcher.queue.put_nowait(None)

    def compact(self) -> None:
        """Forget all history: older versions and half-read lists are gone."""
        self.compacted = self.version
        self._pages.clear()

    def bookmark(self) -> None:
        """Tell every watch the current version."""
        for watcher in self.watchers:
            found = {"kind": watcher.kind.name, "metadata": {"resourceVersion": str(self.version)}}
            watcher.queue.put_nowait(_line("BOOKMARK", found))

    def send(self, kind: str, line: bytes) -> None:
        """Write something into the watches of a kind."""
        for watcher in self.watchers:
            if watcher.kind.name == kind:
                watcher.queue.put_nowait(line)

    def end_watches(self) -> None:
        """End every watch as after its time."""
        for watcher in self.watchers:
            watcher.queue.put_nowait(None)

    def drop_watches(self) -> None:
        """Cut the connection of every watch."""
        for watcher in self.watchers:
            if watcher.transport is not None:
                watcher.transport.abort()
        self.watchers.clear()

    def fail(self, method: str, part: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer the next requests with a status."""
        reason = {403: "Forbidden", 429: "TooManyRequests", 410: "Expired"}.get(status, "InternalError")

        async def answer(request: web.Request) -> web.StreamResponse:
            message = f"{request.method.lower()} is refused by the test"
            return _status(status, reason, message, headers)

        self._faults += [Fault(method, part, answer)] * times

    def answer_with(self, method: str, part: str, body: bytes, status: int = 200) -> None:
        """Answer the next request with a body."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body)

        self._faults.append(Fault(method, part, answer))

    def hang(self, method: str, part: str) -> asyncio.Event:
        """Do not answer the next request until the event is set; then fail."""
        released = asyncio.Event()

        async def answer(_: web.Request) -> web.StreamResponse:
            await released.wait()
            return _status(503, "ServiceUnavailable", "the test let go")

        self._faults.append(Fault(method, part, answer))
        return released

    def heal(self) -> None:
        """Fail no more."""
        self._faults.clear()

    async def until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until something holds that requests, watches or objects make true."""
        async with asyncio.timeout(seconds):
            while not holds():
                await self._pulse.wait()

    async def watched(self, *kinds: str) -> None:
        """Wait until each of the kinds is watched."""
        await self.until(lambda: {watcher.kind.name for watcher in self.watchers} >= set(kinds))

    def count(self, method: str, part: str) -> int:
        """Tell how many requests there were of this kind."""
        return sum(request.startswith(f"{method} ") and part in request for request in self.requests)

    # What it does

    def _moved(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()

    def _store(self, kind: Kind, key: Key, manifest: Json, change_type: str) -> Json:
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        if change_type != "DELETED":
            self._objects[kind.name][key] = manifest
        change = Change(self.version, change_type, kind, copy.deepcopy(manifest))
        self._changes.append(change)
        for watcher in self.watchers:
            if watcher.wants(change):
                watcher.queue.put_nowait(_line(change.type, change.object))
        self._moved()
        return manifest

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        text = f"{request.method} {request.path_qs}"
        self.requests.append(text)
        self._moved()
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized", "Unauthorized")
        for fault in self._faults:
            if request.method == fault.method and fault.part in request.path_qs:
                self._faults.remove(fault)
                return await fault.answer(request)
        parts = request.path.strip("/").split("/")
        group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1], parts[2:])
        if len(rest) < 2:
            return self._discover(group, *rest)
        version, *rest = rest
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource = (*rest, "", "")[:3]
        for kind in self.kinds.values():
            if (kind.group, kind.plural) == (group, plural) and version in self.served[kind.name]:
                return await self._serve(request, kind, version, (namespace, name), subresource)
        return _status(404, "NotFound", "the server could not find the requested resource")

    def _discover(self, group: str, version: str = "") -> web.Response:
        kinds = [kind for kind in self.kinds.values() if kind.group == group and self.served[kind.name]]
        versions = sorted({served for kind in kinds for served in self.served[kind.name]})
        if not version and versions:
            return _json({"kind": "APIGroup", "versions": [{"version": served} for served in versions]})
        if version in versions:
            resources = [
                {"name": kind.plural, "kind": kind.name} for kind in kinds if version in self.served[kind.name]
            ]
            return _json({"kind": "APIResourceList", "resources": resources})
        return _status(404, "NotFound", "the server could not find the requested resource")

    async def _serve(
        self, request: web.Request, kind: Kind, version: str, key: Key, subresource: str
    ) -> web.StreamResponse:
        namespace, name = key
        body = json.loads(await request.read() or b"null")
        found = self._objects[kind.name].get(key)
        match request.method:
            case "GET" if not name and "watch" in request.query:
                return await self._watch(request, kind, namespace)
            case "GET" if not name:
                return self._list(request, kind, version, namespace)
            case "POST":
                body["metadata"] = {**body["metadata"], "namespace": namespace} if namespace else body["metadata"]
                if (namespace, body["metadata"]["name"]) in self._objects[kind.name]:
                    return _status(409, "AlreadyExists", f'{kind.plural} "{body["metadata"]["name"]}" already exists')
                return _json(self.put({"apiVersion": _api_version(kind, version), "kind": kind.name, **body}), 201)
            case "PATCH" if request.content_type == "application/apply-patch+yaml" and found is None:
                return _json(self.put(body), 201)
        if found is None:
            return _status(404, "NotFound", f'{kind.plural} "{name}" not found')
        match request.method:
            case "GET" if "as=PartialObjectMetadata" in request.headers.get("Accept", ""):
                return _json({"kind": "PartialObjectMetadata", "metadata": found["metadata"]})
            case "GET":
                return _json(found)
            case "DELETE":
                uid = ((body or {}).get("preconditions") or {}).get("uid", found["metadata"]["uid"])
                if uid != found["metadata"]["uid"]:
                    return _status(409, "Conflict", "the UID in the precondition does not match")
                self.remove(kind.name, name, namespace)
                return _json({"kind": "Status", "status": "Success"})
            case "PATCH":
                wanted = body.get("metadata", {}).get("resourceVersion")
                if wanted not in (None, found["metadata"]["resourceVersion"]):
                    return _status(409, "Conflict", f"the object has been modified: {name}")
                if subresource == "status":
                    merged = {**found, "status": _merge(found.get("status"), body.get("status", {}))}
                else:
                    merged = {**_merge(found, body), **({"status": found["status"]} if "status" in found else {})}
                return _json(self.put(merged))
        return _status(405, "MethodNotAllowed", "the test's API server does not do this")

    def _list(self, request: web.Request, kind: Kind, version: str, namespace: str) -> web.Response:
        token = request.query.get("continue", "")
        if token:
            if token not in self._pages:
                return _status(410, "Expired", "The provided continue parameter is too old")
            items = self._pages.pop(token)
            listed = token.split("-")[0]
        else:
            name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
            items = [
                item
                for key, item in sorted(self._objects[kind.name].items())
                if namespace in ("", key[0]) and name in ("", key[1])
            ]
            listed = str(self.version)
        limit = int(request.query.get("limit", "0")) or len(items)
        metadata = {"resourceVersion": listed}
        if len(items) > limit:
            metadata["continue"] = f"{listed}-{uuid.uuid4()}"
            self._pages[metadata["continue"]] = items[limit:]
        page = [self._as(kind, version, item, in_list=True) for item in items[:limit]]
        api_version = _api_version(kind, version)
        return _json({"kind": f"{kind.name}List", "apiVersion": api_version, "metadata": metadata, "items": page})

    def _as(self, kind: Kind, version: str, item: Json, in_list: bool) -> Json:
        """Give an object in a version. In lists of built-in kinds, items say neither version nor kind."""
        item = {key: value for key, value in item.items() if key not in ("apiVersion", "kind")}
        if in_list and not kind.group.endswith(".networking.k8s.io"):
            return item
        return {"apiVersion": _api_version(kind, version), "kind": kind.name, **item}

    async def _watch(self, request: web.Request, kind: Kind, namespace: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        if since < self.compacted and self.gone_as_status:
            return _status(410, "Expired", f"too old resource version: {since}")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self.compacted:
            await response.write(_line("ERROR", _status_body(410, "Expired", f"too old resource version: {since}")))
            return response
        watcher = Watcher(kind, namespace, name, transport=request.transport)
        for change in self._changes:
            if change.version > since and watcher.wants(change):
                watcher.queue.put_nowait(_line(change.type, change.object))
        self.watchers.append(watcher)
        self._moved()
        try:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                    while (line := await watcher.queue.get()) is not None:
                        await response.write(line)
        finally:
            if watcher in self.watchers:
                self.watchers.remove(watcher)
            self._moved()
        return response


def _api_version(kind: Kind, version: str) -> str:
    return f"{kind.group}/{version}" if kind.group else version


def _line(change_type: str, found: Json) -> bytes:
    return json.dumps({"type": change_type, "object": found}).encode() + b"\n"


def _json(body: Json, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json")


def _status_body(code: int, reason: str, message: str) -> Json:
    return {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    response = _json(_status_body(code, reason, message), code)
    response.headers.update({name.replace("_", "-"): value for name, value in (headers or {}).items()})
    return response


def _merge(old: Json, new: Json) -> Json:
    if not isinstance(new, dict):
        return new
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
