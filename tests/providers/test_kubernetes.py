"""The source that reads a cluster, against the stand-in API server."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gwctl.api.parse import Invalid, is_unreadable
from gwctl.api.ref import Ref
from gwctl.kube.client import KubeClient
from gwctl.kube.reflector import Observer, Pace
from gwctl.providers.kubernetes import KINDS, KubernetesSource, Live
from tests.kube.apiserver import ApiServer
from tests.providers.reader import Reader

PACE = Pace(first=0.01, longest=0.04, refused=0.02, missing=0.02)
RARELY = Pace(first=0.01, longest=0.04, missing=600.0)
V1 = "gateway.networking.k8s.io/v1"
CLASS = {
    "apiVersion": V1,
    "kind": "GatewayClass",
    "metadata": {"name": "c"},
    "spec": {"controllerName": "gwctl.io/gateway-controller"},
}


def service(name: str, port: int = 80, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": port}], **spec}}


def tcp_route(name: str, port: int = 80) -> dict[str, Any]:
    spec = {"rules": [{"backendRefs": [{"name": "s", "port": port}]}]}
    return {"apiVersion": V1, "kind": "TCPRoute", "metadata": {"name": name}, "spec": spec}


def ref(name: str, kind: str = "Service", namespace: str = "default") -> Ref:
    return Ref(kind, namespace, name)


@asynccontextmanager
async def reading(source: KubernetesSource, first: bool = True) -> AsyncIterator[Reader]:
    reader = Reader(source)
    try:
        if first:
            await reader.next()
        yield reader
    finally:
        await reader.close()


def source_of(client: KubeClient, *namespaces: str, observer: Observer | None = None) -> KubernetesSource:
    return KubernetesSource(client, namespaces, pace=PACE, observer=observer)


# Batches


async def test_the_first_batch_is_everything(client: KubeClient, server: ApiServer) -> None:
    server.put(CLASS)
    server.put(service("a"))
    server.put(service("a", namespace="other"))
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other", "labels": {"a": "b"}}})
    async with reading(source_of(client)) as reader:
        assert set(reader.state) == {
            ref("c", "GatewayClass", ""), ref("a"), ref("a", namespace="other"), ref("other", "Namespace", ""),
        }  # fmt: skip
        assert reader.invalid == ()


async def test_an_empty_cluster_is_a_state_too(client: KubeClient) -> None:
    async with reading(source_of(client)) as reader:
        assert reader.seen[0].changes == {}


async def test_nothing_comes_before_all_is_read(client: KubeClient, server: ApiServer) -> None:
    server.put(CLASS)
    released = server.hang("GET", "endpointslices")
    source = source_of(client)
    assert source.unread_kinds == tuple(kind.name for kind in KINDS)
    async with reading(source, first=False) as reader:
        pending = asyncio.ensure_future(reader.next())
        await server.watched(*(kind.name for kind in KINDS if kind.name != "EndpointSlice"))
        assert source.unread_kinds == ("EndpointSlice",)
        assert not pending.done()
        released.set()
        assert set((await pending).changes) == {ref("c", "GatewayClass", "")}
        assert not source.unread_kinds


async def test_what_comes_and_goes_before_the_first_batch_is_in_none(client: KubeClient, server: ApiServer) -> None:
    server.put(service("goes"))
    released = server.hang("GET", "endpointslices")
    async with reading(source_of(client), first=False) as reader:
        pending = asyncio.ensure_future(reader.next())
        await server.watched("Service")
        server.remove("Service", "goes")
        server.put(service("marker"))
        released.set()
        assert None not in (await pending).changes.values()
        await reader.until(lambda: ref("marker") in reader.state)
        assert reader.ports() == {"marker": 80}


async def test_a_burst_is_one_batch_and_the_latest_counts(client: KubeClient, server: ApiServer) -> None:
    async with reading(source_of(client)) as reader:
        await server.watched("Service", "TCPRoute")
        for port in range(1, 50):
            server.put(service("busy", port))
        server.put(service("gone"))
        server.remove("Service", "gone")
        server.put(service("last"))
        await reader.until(lambda: ref("last") in reader.state)
        assert reader.ports() == {"busy": 49, "last": 80}
        server.put(service("busy", 100))
        await reader.next()
        assert len(reader.seen[-1].changes) == 1


async def test_a_consumer_that_is_busy_gets_all_that_happened_at_once(client: KubeClient, server: ApiServer) -> None:
    counter = Counting()
    async with reading(source_of(client, observer=counter)) as reader:
        await server.watched("Service")
        for port in range(1, 50):
            server.put(service("busy", port))
        server.put(service("other"))
        await counter.until("event Service ADDED", 2)
        batch = await reader.next()
        assert set(batch.changes) == {ref("busy"), ref("other")}
        assert reader.ports() == {"busy": 49, "other": 80}


async def test_a_connection_that_breaks_changes_nothing(client: KubeClient, server: ApiServer) -> None:
    server.put(service("a"))
    server.put(service("b"))
    async with reading(source_of(client)) as reader:
        await server.watched("Service")
        server.compact()
        server.drop_watches()
        await server.watched("Service")
        server.put(service("marker"))
        batch = await reader.next()
        assert set(batch.changes) == {ref("marker")}


async def test_leaving_ends_every_watch(client: KubeClient, server: ApiServer) -> None:
    async with reading(source_of(client)):
        await server.watched(*(kind.name for kind in KINDS))
    await server.until(lambda: not server.watchers)
    assert server.watchers == []


async def test_an_api_server_that_is_away_at_the_start_is_waited_for(
    server: ApiServer, client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    server.put(service("a"))
    counter = Counting()
    await server.stop()
    async with reading(source_of(client, observer=counter), first=False) as reader:
        pending = asyncio.ensure_future(reader.next())
        await counter.until("error Service Unreachable", 2)
        await server.start()
        assert set((await pending).changes) == {ref("a")}
    assert [record.message for record in caplog.records] == [
        "the Kubernetes API server does not answer",
        "the Kubernetes API server answers again",
    ]


# What cannot be read


async def test_what_is_wrong_is_told_with_each_batch(client: KubeClient, server: ApiServer) -> None:
    server.put(tcp_route("r", port=-1))
    async with reading(source_of(client)) as reader:
        assert is_unreadable(reader.state[ref("r", "TCPRoute")])
        wrong = Invalid(ref("r", "TCPRoute"), "spec.rules[0].backendRefs[0].port", "must be at least 1, not -1")
        assert reader.invalid == (wrong,)
        server.put(service("a"))
        await reader.next()
        assert reader.invalid == (wrong,)
        await server.watched("TCPRoute")
        server.put(tcp_route("r"))
        await reader.next()
        assert set(reader.state) == {ref("a"), ref("r", "TCPRoute")}
        assert not reader.invalid


async def test_the_last_good_version_stays_for_the_same_object_only(client: KubeClient, server: ApiServer) -> None:
    server.put(tcp_route("r"))
    async with reading(source_of(client)) as reader:
        await server.watched("TCPRoute")
        server.put(tcp_route("r", port=-1))
        batch = await reader.next()
        assert (batch.changes, len(batch.invalid)) == ({}, 1)
        server.drop_watches()
        server.remove("TCPRoute", "r")
        server.put(tcp_route("r", port=-2))
        server.compact()
        batch = await reader.next()
        assert is_unreadable(batch.changes[ref("r", "TCPRoute")])
        assert (len(batch.changes), len(batch.invalid)) == (1, 1)
        await server.watched("TCPRoute")
        server.remove("TCPRoute", "r")
        assert (await reader.next()).invalid == ()


async def test_an_unreadable_object_that_is_edited_is_told_again_with_the_same_error(
    client: KubeClient, server: ApiServer
) -> None:
    server.put(tcp_route("r"))
    source = source_of(client)
    async with reading(source) as reader:
        await server.watched("TCPRoute")
        for expected in ("first", "second"):
            route = tcp_route("r", port=-1)
            route["spec"]["rules"][0]["name"] = expected
            generation = server.put(route)["metadata"]["generation"]
            batch = await reader.next()
            assert (batch.changes, len(batch.invalid)) == ({}, 1)
            live = source.live(ref("r", "TCPRoute"))
            assert live is not None and live.generation == generation


async def test_fields_that_a_newer_kubernetes_has_are_no_mistake_of_the_user(
    client: KubeClient, server: ApiServer
) -> None:
    server.put(service("a", newField=1))
    route = tcp_route("r")
    route["spec"]["newField"] = 1
    server.put(route)
    async with reading(source_of(client)) as reader:
        assert [(item.subject, item.field) for item in reader.invalid] == [(ref("r", "TCPRoute"), "spec.newField")]
        assert set(reader.state) == {ref("a"), ref("r", "TCPRoute")}


# CRDs


async def test_a_missing_kind_is_picked_up_when_it_appears(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    server.serve("TCPRoute")
    source = source_of(client)
    async with reading(source) as reader:
        assert reader.state == {}
        assert source.path(ref("r", "TCPRoute")) is None
        server.serve("TCPRoute", "v1alpha2")
        server.put(tcp_route("r"))
        await reader.until(lambda: ref("r", "TCPRoute") in reader.state)
        path = "/apis/gateway.networking.k8s.io/v1alpha2/namespaces/default/tcproutes/r"
        assert source.path(ref("r", "TCPRoute")) == path
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "a kind is not served, going on without it until it is"),
        ("INFO", "a kind is served now"),
    ]


async def test_without_the_gateway_api_it_waits_and_says_what_to_do(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in KINDS:
        if kind.group.startswith("gateway."):
            server.serve(kind.name)
    source = source_of(client)
    async with reading(source, first=False) as reader:
        pending = asyncio.ensure_future(reader.next())
        await server.watched("Service", "EndpointSlice", "Namespace")
        await server.until(lambda: server.count("GET", "/apis/gateway.networking.k8s.io") > 2)
        assert source.unread_kinds == ("GatewayClass", "Gateway")
        assert not pending.done()
        server.put(CLASS)
        for name in ("GatewayClass", "Gateway"):
            server.serve(name, "v1")
        assert set((await pending).changes) == {ref("c", "GatewayClass", "")}
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert {vars(record)["kind"] for record in warnings} == {"GatewayClass", "Gateway"}
    assert all("kubectl apply" in vars(record)["remedy"] for record in warnings)
    assert len(warnings) == 2


async def test_a_crd_that_is_deleted_takes_its_objects_along(client: KubeClient, server: ApiServer) -> None:
    server.put(tcp_route("r"))
    async with reading(source_of(client)) as reader:
        await server.watched("TCPRoute")
        server.drop_watches()
        server.remove_crd("TCPRoute")
        await reader.until(lambda: not reader.state)
        server.serve("TCPRoute", "v1")
        server.put(tcp_route("again"))
        await reader.until(lambda: ref("again", "TCPRoute") in reader.state)
        assert set(reader.state) == {ref("again", "TCPRoute")}


async def test_a_kind_that_comes_back_brings_its_objects(client: KubeClient, server: ApiServer) -> None:
    server.put(tcp_route("r"))
    async with reading(source_of(client)) as reader:
        await server.watched("TCPRoute")
        server.serve("TCPRoute")
        await reader.until(lambda: not reader.state)
        server.serve("TCPRoute", "v1")
        await reader.until(lambda: bool(reader.state))
        assert set(reader.state) == {ref("r", "TCPRoute")}


async def test_a_version_that_goes_away_is_left_for_one_that_stays(client: KubeClient, server: ApiServer) -> None:
    server.serve("TCPRoute", "v1alpha2")
    server.put(tcp_route("r"))
    source = KubernetesSource(client, pace=RARELY)
    async with reading(source) as reader:
        await server.watched("TCPRoute")
        server.serve("TCPRoute", "v1")
        await server.until(lambda: server.count("GET", "/v1/tcproutes?watch") == 1)
        server.put(tcp_route("marker"))
        batch = await reader.next()
        assert set(batch.changes) == {ref("marker", "TCPRoute")}
        path = source.path(ref("r", "TCPRoute"))
        assert path == "/apis/gateway.networking.k8s.io/v1/namespaces/default/tcproutes/r"


async def test_a_404_by_mistake_takes_nothing_away(client: KubeClient, server: ApiServer) -> None:
    server.put(tcp_route("r"))
    async with reading(source_of(client)) as reader:
        await server.watched("TCPRoute")
        server.fail("GET", "tcproutes", 404, times=3)
        server.drop_watches()
        await server.watched("TCPRoute")
        server.put(tcp_route("marker"))
        assert set((await reader.next()).changes) == {ref("marker", "TCPRoute")}


async def test_a_kind_that_is_served_and_not_found_is_told_of_and_not_asked_for_again_and_again(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail("GET", "tcproutes", 404, times=100)
    discovery = "GET /apis/gateway.networking.k8s.io/v1"
    source = KubernetesSource(client, pace=RARELY)
    async with reading(source, first=False) as reader:
        pending = asyncio.ensure_future(reader.next())
        await server.until(lambda: server.requests.count(discovery) == 2)
        await server.watched("Service", "Gateway")
        await asyncio.sleep(PACE.missing)
        assert source.unread_kinds == ("TCPRoute",)
        assert server.count("GET", "tcproutes") == 1
        pending.cancel()
    (record,) = caplog.records
    assert (record.levelname, vars(record)["kind"]) == ("WARNING", "TCPRoute")


async def test_nothing_is_polled_when_nothing_is_missing(client: KubeClient, server: ApiServer) -> None:
    async with reading(source_of(client)):
        await server.watched(*(kind.name for kind in KINDS))
        server.requests.clear()
        await asyncio.sleep(PACE.missing * 5)
    assert server.requests == []


# Namespaces


async def test_with_namespaces_nothing_else_is_asked_for(client: KubeClient, server: ApiServer) -> None:
    for namespace in ("one", "two", "three"):
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        server.put(service("s", namespace=namespace))
    server.put(CLASS)
    async with reading(source_of(client, "one", "two")) as reader:
        assert set(reader.state) == {
            ref("c", "GatewayClass", ""), ref("one", "Namespace", ""), ref("two", "Namespace", ""),
            ref("s", namespace="one"), ref("s", namespace="two"),
        }  # fmt: skip
        await server.watched(*(kind.name for kind in KINDS))
        server.put(service("later", namespace="three"))
        server.put(service("later", namespace="two"))
        assert set((await reader.next()).changes) == {ref("later", namespace="two")}
    wide = [request for request in server.requests if "?" in request and "/namespaces/" not in request]
    assert {request.partition("?")[0] for request in wide if "metadata.name" not in request} == {
        "GET /apis/gateway.networking.k8s.io/v1/gatewayclasses"
    }


async def test_many_namespaces_are_all_read_at_once(client: KubeClient, server: ApiServer) -> None:
    namespaces = [f"n{number}" for number in range(20)]
    for namespace in namespaces:
        server.put(service("s", namespace=namespace))
    async with reading(source_of(client, *namespaces)) as reader:
        assert len(reader.state) == 20
        await server.until(lambda: len(server.watchers) == 20 * (len(KINDS) - 1) + 1)
        server.put(service("later", namespace="n19"))
        assert set((await reader.next()).changes) == {ref("later", namespace="n19")}


# The live side


def with_status(manifest: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {**manifest, "status": status}


async def test_a_status_is_beside_batches(client: KubeClient, server: ApiServer) -> None:
    told: list[Ref] = []
    route = ref("r", "TCPRoute")
    server.put(with_status(tcp_route("r"), parents=[]))
    source = source_of(client)
    source.on_status(told.append)
    async with reading(source) as reader:
        found = server.object("TCPRoute", "r")
        live = Live(found["metadata"]["uid"], found["metadata"]["resourceVersion"], 1, {"parents": []})
        assert source.live(route) == live
        assert source.live_refs() == (route,)
        await server.watched("TCPRoute")
        server.put(with_status(tcp_route("r"), parents=[{"controllerName": "other"}]))
        server.put(tcp_route("marker"))
        assert set((await reader.next()).changes) == {ref("marker", "TCPRoute")}
        assert told == [route]
        changed = source.live(route)
        assert changed is not None
        assert changed.status == {"parents": [{"controllerName": "other"}]}
        server.remove("TCPRoute", "r")
        await reader.next()
        assert source.live(route) is None


async def test_a_status_that_changes_with_all_else_is_told_by_the_batch_alone(
    client: KubeClient, server: ApiServer
) -> None:
    told: list[Ref] = []
    server.put(with_status(tcp_route("r"), parents=[]))
    source = source_of(client)
    source.on_status(told.append)
    async with reading(source) as reader:
        await server.watched("TCPRoute")
        server.put(with_status(tcp_route("r", port=81), parents=[{}]))
        assert set((await reader.next()).changes) == {ref("r", "TCPRoute")}
        live = source.live(ref("r", "TCPRoute"))
        assert live is not None
        assert live.status == {"parents": [{}]}
    assert told == []


async def test_a_new_version_of_the_same_is_nobodys_business(client: KubeClient, server: ApiServer) -> None:
    told: list[Ref] = []
    server.put(with_status(tcp_route("r"), parents=[]))
    source = source_of(client)
    source.on_status(told.append)
    async with reading(source) as reader:
        await server.watched("TCPRoute")
        manifest = with_status(tcp_route("r"), parents=[])
        manifest["metadata"]["managedFields"] = [{"manager": "someone"}]
        server.put(manifest)
        server.put(tcp_route("marker"))
        assert set((await reader.next()).changes) == {ref("marker", "TCPRoute")}
        live = source.live(ref("r", "TCPRoute"))
        assert live is not None
        assert live.resource_version == server.object("TCPRoute", "r")["metadata"]["resourceVersion"]
    assert told == []


async def test_kinds_without_a_status_have_no_live_side(client: KubeClient, server: ApiServer) -> None:
    server.put(with_status(service("a"), loadBalancer={}))
    source = source_of(client)
    async with reading(source):
        assert source.live_refs() == ()
        assert source.path(ref("a")) == "/api/v1/namespaces/default/services/a"
        assert source.path(ref("n", "Namespace", "")) == "/api/v1/namespaces/n"


# What is counted


class Counting(Observer):
    """Counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.numbers: dict[str, int] = {}
        self._moved = asyncio.Event()

    def event(self, kind: str, event: str) -> None:
        self._note(f"event {kind} {event}")

    def listed(self, kind: str, cause: str) -> None:
        self._note(f"list {kind} {cause}")

    def watch_error(self, kind: str, error: str) -> None:
        self._note(f"error {kind} {error}")

    def objects(self, kind: str, count: int) -> None:
        self.numbers[kind] = count

    def _note(self, text: str) -> None:
        self.counts[text] += 1
        self._moved.set()

    async def until(self, text: str, count: int) -> None:
        """Wait until something has been counted so often."""
        async with asyncio.timeout(10):
            while self.counts[text] < count:
                self._moved.clear()
                await self._moved.wait()


async def test_events_lists_errors_and_objects_are_counted(client: KubeClient, server: ApiServer) -> None:
    counter = Counting()
    server.put(service("a"))
    server.put(service("b"))
    async with reading(source_of(client, observer=counter)) as reader:
        await server.watched("Service")
        server.put(service("a", 81))
        await reader.next()
        server.bookmark()
        server.remove("Service", "a")
        await reader.next()
        server.put(CLASS)
        server.compact()
        server.drop_watches()
        await counter.until("list Service expired", 1)
    for text in ("list Service start", "event Service MODIFIED", "event Service BOOKMARK", "event Service DELETED"):
        assert counter.counts[text] == 1
    assert counter.counts["error Service Unreachable"] >= 1
    assert counter.numbers["Service"] == 1
