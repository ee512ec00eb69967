"""The same calls to the stand-in and, where `--kubeconfig` leads to one, to a real API server with Gateway API CRDs."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import pytest

from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP
from gwctl.kube.client import KubeClient, WatchEvent
from gwctl.kube.discovery import Discovery
from gwctl.kube.error import AlreadyExists, Conflict, Gone, Invalid, NotFound
from gwctl.kube.kind import Kind
from gwctl.kube.lease import Election, Terms
from gwctl.providers.kubernetes import KINDS, KubernetesSource
from gwctl.status.event import Event, to_manifest
from tests.kube.apiserver import EXTRA_KINDS, ApiServer, Json
from tests.providers.reader import Reader

KIND = {kind.name: kind for kind in (*KINDS, *EXTRA_KINDS)}


class Cluster(NamedTuple):
    """An API server, and a namespace in it that the test has for itself."""

    client: KubeClient
    namespace: str
    standin: ApiServer | None

    def path(self, kind: str, name: str = "") -> str:
        """Give the path of an object, or of all of a kind in the namespace."""
        return KIND[kind].path("v1", self.namespace, name)


@pytest.fixture(params=["standin", "real"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Each API server there is."""
    kubeconfig = request.config.getoption("--kubeconfig")
    if request.param == "real" and not kubeconfig:
        pytest.skip("THE STAND-IN IS NOT CHECKED AGAINST A REAL API SERVER: give --kubeconfig")
    namespace = f"gwctl-{uuid.uuid4().hex[:8]}"
    path = KIND["Namespace"].path("v1")
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    async with ApiServer() as standin:
        if request.param == "standin":
            kubeconfig = standin.kubeconfig(tmp_path / "kubeconfig")
        async with KubeClient(kubeconfig) as client:
            await client.create(path, manifest)
            yield Cluster(client, namespace, standin if request.param == "standin" else None)
            await client.delete(f"{path}/{namespace}")


def service(name: str, port: int = 80) -> Json:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port}]}}


def gateway(name: str) -> Json:
    spec = {"gatewayClassName": "none", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    return {"apiVersion": f"{GATEWAY_GROUP}/v1", "kind": "Gateway", "metadata": {"name": name}, "spec": spec}


async def test_writing(cluster: Cluster) -> None:
    client, path = cluster.client, cluster.path("Service", "a")
    created = await client.create(cluster.path("Service"), service("a"))
    with pytest.raises(AlreadyExists, match='services "a" already exists'):
        await client.create(cluster.path("Service"), service("a"))
    patched = await client.patch(path, {"metadata": {"labels": {"a": "b"}}})
    assert patched["metadata"]["labels"] == {"a": "b"}
    assert (await client.get(path)) == patched
    with pytest.raises(Conflict):
        await client.patch(
            path, {"metadata": {"resourceVersion": created["metadata"]["resourceVersion"], "labels": None}}
        )
    with pytest.raises(Conflict):
        await client.delete(path, uid=str(uuid.uuid4()))
    await client.delete(path, uid=created["metadata"]["uid"])
    for call in (client.get(path), client.delete(path), client.patch(path, {"metadata": {}})):
        with pytest.raises(NotFound, match='services "a" not found'):
            await call


async def test_applying(cluster: Cluster) -> None:
    path = cluster.path("Service", "a")
    created = await cluster.client.apply(path, service("a"))
    assert created["spec"]["ports"][0]["port"] == 80
    again = await cluster.client.apply(path, service("a"))
    assert again["metadata"]["uid"] == created["metadata"]["uid"]


async def test_a_status(cluster: Cluster) -> None:
    client, path = cluster.client, cluster.path("Gateway", "g")
    created = await client.create(cluster.path("Gateway"), gateway("g"))
    version = created["metadata"]["resourceVersion"]
    status = {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}
    written = await client.patch_status(path, status, version)
    assert written["status"]["addresses"] == status["addresses"]
    assert written["metadata"]["generation"] == created["metadata"]["generation"]
    with pytest.raises(Conflict):
        await client.patch_status(path, {"addresses": []}, version)
    unchanged = await client.patch(path, {"status": {"addresses": []}})
    assert unchanged["status"] == written["status"]
    changed = await client.patch(path, {"spec": {"gatewayClassName": "other"}})
    assert changed["metadata"]["generation"] == created["metadata"]["generation"] + 1
    assert changed["status"] == written["status"]


async def test_listing(cluster: Cluster) -> None:
    client = cluster.client
    for name in "abc":
        await client.create(cluster.path("Service"), service(name))
        await client.create(cluster.path("Gateway"), gateway(name))
    first = await client.list_page(cluster.path("Service"), limit=2)
    rest = await client.list_page(cluster.path("Service"), first["metadata"]["continue"], limit=2)
    assert [item["metadata"]["name"] for item in first["items"] + rest["items"]] == list("abc")
    assert (first["kind"], first["apiVersion"]) == ("ServiceList", "v1")
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in rest["metadata"]
    assert "kind" not in first["items"][0]
    gateways = await client.list_page(cluster.path("Gateway"), field_selector="metadata.name=b")
    assert [(item["kind"], item["metadata"]["name"]) for item in gateways["items"]] == [("Gateway", "b")]
    with pytest.raises((Invalid, Gone)):
        await client.list_page(cluster.path("Service"), "no token")


async def events_of(
    cluster: Cluster, version: str, count: int, selector: str = "", kind: str = "Service"
) -> list[WatchEvent]:
    watch = cluster.client.watch(cluster.path(kind), version, field_selector=selector)
    async with asyncio.timeout(20), aclosing(watch) as events:
        found: list[WatchEvent] = []
        async for event in events:
            found += [event] if event.type != "BOOKMARK" else []
            if len(found) == count:
                break
        return found


async def test_watching(cluster: Cluster) -> None:
    client, path = cluster.client, cluster.path("Service", "a")
    listed = await client.list_page(cluster.path("Service"))
    version = listed["metadata"]["resourceVersion"]
    await client.create(cluster.path("Service"), service("a"))
    await client.create(cluster.path("Service"), service("b"))
    await client.patch(path, {"metadata": {"labels": {"a": "b"}}})
    await client.delete(path)
    events = await events_of(cluster, version, 4)
    assert [(event.type, event.object["metadata"]["name"]) for event in events] == [
        ("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a"),
    ]  # fmt: skip
    versions = [int(event.object["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    (only,) = await events_of(cluster, version, 1, "metadata.name=b")
    assert only.object["metadata"]["name"] == "b"
    (later,) = await events_of(cluster, str(versions[2]), 1)
    assert later == events[3]


async def test_watching_from_long_ago(cluster: Cluster) -> None:
    if cluster.standin is not None:
        cluster.standin.compact()
    with pytest.raises(Gone, match="too old resource version: 1"):
        await events_of(cluster, "1", 1, kind="Gateway")  # a real one knows nothing older than the kind's CRD


async def test_discovery(cluster: Cluster) -> None:
    discovery = Discovery(cluster.client, GATEWAY_GROUP, 60.0)
    for kind in ("GatewayClass", "Gateway", "HTTPRoute"):
        assert await discovery.version(KIND[kind]) == "v1"
    assert await discovery.version(Kind("Nothing", "nothings", GATEWAY_GROUP)) is None
    assert await Discovery(cluster.client, "nothing.example", 60.0).version(KIND["Gateway"]) is None
    with pytest.raises(NotFound):
        await cluster.client.list_page(f"/apis/{GATEWAY_GROUP}/v1/nothings")


async def test_leader_election(cluster: Cluster) -> None:
    first, second = (
        Election(cluster.client, cluster.namespace, "leader", identity, terms=Terms(duration=1.0)) for identity in "ab"
    )
    for _ in range(2):
        await first.attempt()
        await second.attempt()
        assert (first.is_leader, second.is_leader) == (True, False)
    await first.release()
    await second.attempt()
    assert (first.is_leader, second.is_leader) == (False, True)
    lease = await cluster.client.get(cluster.path("Lease", "leader"))
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 1)


async def test_events(cluster: Cluster) -> None:
    event = Event(Ref("Gateway", cluster.namespace, "g"), "1", "Warning", "Invalid", "a note")
    manifest = to_manifest(event, "2026-01-01T00:00:00.000000Z", "pod-1")
    created = await cluster.client.create(cluster.path("Event"), manifest)
    assert (created["note"], created["regarding"]["name"]) == ("a note", "g")
    with pytest.raises(AlreadyExists):
        await cluster.client.create(cluster.path("Event"), manifest)


async def test_the_source(cluster: Cluster) -> None:
    client, told = cluster.client, list[Ref]()
    await client.create(cluster.path("Service"), service("a"))
    await client.create(cluster.path("Gateway"), gateway("g"))
    source = KubernetesSource(client, (cluster.namespace,))
    source.on_status(told.append)
    reader = Reader(source)
    try:
        await reader.next(20.0)
        a, g = Ref("Service", cluster.namespace, "a"), Ref("Gateway", cluster.namespace, "g")
        assert {a, g, Ref("Namespace", "", cluster.namespace)} <= set(reader.state)
        assert [item for item in reader.invalid if item.subject.namespace == cluster.namespace] == []
        await client.create(cluster.path("Service"), service("b", 81))
        await reader.until(lambda: reader.ports().get("b") == 81)
        live, path = source.live(g), source.path(g)
        assert live is not None
        assert path is not None
        status = {"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]}
        await client.patch_status(path, status, live.resource_version)
        await client.delete(path)
        await reader.until(lambda: g not in reader.state)
        assert told == [g]
        assert source.live(g) is None
    finally:
        await reader.close()
