"""Statuses and Events of a cluster, from watch to write, against the stand-in API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.kube.client import KubeClient
from gwctl.kube.error import AlreadyExists, NotFound
from gwctl.kube.reflector import Pace
from gwctl.providers.kubernetes import KubernetesSource
from gwctl.providers.statusapi import KubernetesStatusApi
from gwctl.snapshot import Snapshot
from gwctl.status.build import build_statuses
from gwctl.status.event import Event, to_manifest
from gwctl.status.outcome import GatewayAddresses, Outcome
from gwctl.status.status import Statuses
from gwctl.status.writer import StatusWriter
from tests.kube.apiserver import ApiServer
from tests.manifests import CONTROLLER, gateway, gateway_class, http_route, listener, prefix_rule

ROUTE = http_route("r", [prefix_rule("/")])
OTHER = http_route("other", [prefix_rule("/")])
ENTRY = {"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": []}
PACE = Pace(first=0.01, longest=0.04, refused=0.02, missing=0.02)


@pytest.fixture
def server(server: ApiServer) -> ApiServer:
    server.put(gateway_class())
    server.put(gateway([listener("http", 80)]))
    server.put(ROUTE)
    server.put(OTHER)
    return server


@asynccontextmanager
async def telling(client: KubeClient) -> AsyncIterator[StatusWriter]:
    """A controller that does nothing but tell statuses."""
    source = KubernetesSource(client, pace=PACE)
    api = KubernetesStatusApi(source, client)
    writer = StatusWriter(api, CONTROLLER, is_leader=lambda: True, backoff=lambda attempt: 0.01)
    source.on_status(writer.check)

    async def compute() -> None:
        snapshot = Snapshot.of(())
        statuses: Statuses | None = None
        async for batch in source.batches():
            snapshot = snapshot.apply(batch.changes)
            graph = build_graph(snapshot, CONTROLLER)
            addresses = dict.fromkeys(graph.gateways, GatewayAddresses((("IPAddress", "192.0.2.1"),)))
            statuses = build_statuses(Outcome(graph, graph, addresses=addresses), statuses)
            writer.update(statuses)

    tasks = [asyncio.create_task(compute()), asyncio.create_task(writer.run())]
    try:
        yield writer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def entries(server: ApiServer, name: str = "r") -> list[tuple[str, Any]]:
    parents = server.object("HTTPRoute", name).get("status", {}).get("parents", [])
    return [
        (entry["controllerName"], [item["observedGeneration"] for item in entry["conditions"]]) for entry in parents
    ]


def of_generation(number: int) -> list[tuple[str, Any]]:
    return [(CONTROLLER, [number, number])]


async def test_a_cluster_is_told(server: ApiServer, client: KubeClient) -> None:
    async with telling(client) as writer:
        await server.until(lambda: entries(server) == of_generation(1) == entries(server, "other"))
        await server.until(lambda: "listeners" in server.object("Gateway", "gateway").get("status", {}))
        await server.until(lambda: "supportedFeatures" in server.object("GatewayClass", "haproxy").get("status", {}))
        status = server.object("Gateway", "gateway")["status"]
        assert [item["status"] for item in status["conditions"]] == ["True"] * 3
        assert status["listeners"][0]["attachedRoutes"] == 2

        # A new generation; others' entries stay.
        server.put({**ROUTE, "spec": {**ROUTE["spec"], "hostnames": ["a.test"]}, "status": {"parents": [ENTRY]}})
        await server.until(lambda: entries(server) == [("example.com/other", []), *of_generation(2)])

        # Someone takes our entry away.
        server.put({**server.object("HTTPRoute", "r"), "status": {"parents": []}})
        await server.until(lambda: entries(server) == of_generation(2))

        # A refusal and a conflict.
        server.fail("PATCH", "httproutes/other/status", 500)
        server.fail("PATCH", "httproutes/other/status", 409)
        server.put({**server.object("HTTPRoute", "other"), "status": {}})
        await server.until(lambda: entries(server, "other") == of_generation(1))

        # The route turns to nobody.
        server.put({**server.object("HTTPRoute", "r"), "spec": {"rules": ROUTE["spec"]["rules"]}})
        await server.until(lambda: entries(server) == [])
        server.remove("HTTPRoute", "other")
        await server.until(lambda: server.object("Gateway", "gateway")["status"]["listeners"][0]["attachedRoutes"] == 0)
        await writer.settle()


async def test_nothing_is_written_twice(server: ApiServer, client: KubeClient) -> None:
    async with telling(client):
        await server.until(lambda: entries(server) == of_generation(1) == entries(server, "other"))
        await server.until(lambda: server.count("PATCH", "/status") == 4)
        # What the watches tell of our own writes is nothing new: the next change is the next write.
        server.put(
            {
                **ROUTE,
                "spec": {**ROUTE["spec"], "hostnames": ["a.test"]},
                "status": server.object("HTTPRoute", "r")["status"],
            }
        )
        await server.until(lambda: entries(server) == of_generation(2))
        assert server.count("PATCH", "/status") == 5


async def test_what_is_not_there_reads_as_none(server: ApiServer, client: KubeClient) -> None:
    source = KubernetesSource(client, pace=PACE)
    api = KubernetesStatusApi(source, client)
    missing = Ref("HTTPRoute", "default", "missing")
    assert await api.read(missing) is None
    assert api.live(missing) is None
    batches = aiter(source.batches())
    await anext(batches)
    live = await api.read(Ref("HTTPRoute", "default", "r"))
    assert live == api.live(Ref("HTTPRoute", "default", "r"))
    assert live is not None
    assert live.generation == 1
    assert await api.read(missing) is None
    with pytest.raises(NotFound):
        await api.patch_status(missing, {"parents": []}, "1")
    assert Ref("HTTPRoute", "default", "r") in api.live_refs()
    assert server.count("GET", "httproutes/missing") == 1
    await batches.aclose()  # type: ignore[attr-defined]


async def test_events_are_created_once(server: ApiServer, client: KubeClient) -> None:
    api = KubernetesStatusApi(KubernetesSource(client), client)
    event = Event(Ref("HTTPRoute", "default", "r"), "u", "Warning", "BackendNotFound", "no")
    manifest = to_manifest(event, "2026-01-02T03:04:05.000678Z", "pod-1")
    await api.create_event(event.namespace, manifest)
    assert server.object("Event", event.name)["note"] == "no"
    with pytest.raises(AlreadyExists):
        await api.create_event(event.namespace, manifest)
