"""gwctl as an operator: an API server's stand-in, a real HAProxy, and all that is between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gwctl.dataplane import DataPlaneError
from gwctl.routing.request import Request
from gwctl.runtime.reconciler import Reconciler
from tests.harness import DataPlane, EchoBackend
from tests.http1 import fetch
from tests.kube.apiserver import ApiServer
from tests.kube.test_bundle import put_crd
from tests.live.cluster import (
    NAMESPACE,
    Replica,
    cluster_gateway,
    condition,
    gateway_services,
    give_addresses,
    holder,
    programmed,
    site,
)
from tests.live.gateway import wait_for
from tests.manifests import (
    CONTROLLER,
    backend,
    endpoints,
    prefix_rule,
)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


async def test_a_gateway_from_its_creation_to_its_end(dataplane: DataPlane, server: ApiServer) -> None:
    async with EchoBackend("web") as echo:
        for manifest in site(echo.port):
            server.put(manifest)
        put_crd(server, "gateways", bundle_version="v1.6.3")
        async with Replica(dataplane, "one").running():
            await server.until(lambda: len(gateway_services(server)) == 2, 30)
            (slot,) = {p["targetPort"] for item in gateway_services(server) for p in item["spec"].get("ports", ())}
            assert slot == 20001

            await server.until(lambda: programmed(server)["reason"] == "AddressNotAssigned", 30)
            give_addresses(server)
            await server.until(lambda: programmed(server)["status"] == "True", 30)
            status = server.object("Gateway", "gateway")["status"]
            assert status["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
            assert status["listeners"][0]["attachedRoutes"] == 1
            assert (await fetch(slot, Request("GET", "a.test", "/x"))).status == 200
            of_class = server.object("GatewayClass", "haproxy", "")["status"]
            assert condition(of_class, "Accepted")["status"] == "True"
            assert condition(of_class, "SupportedVersion")["status"] == "True"
            (parent,) = server.object("HTTPRoute", "web")["status"]["parents"]
            assert parent["controllerName"] == CONTROLLER
            assert condition(parent, "ResolvedRefs")["status"] == "True"

            reasons = {(item["regarding"]["kind"], item["reason"]) for item in server.objects("Event").values()}
            assert reasons == {("Gateway", "Programmed")}

            server.remove("Gateway", "gateway")
            await server.until(lambda: not gateway_services(server), 30)
            assert (await fetch(slot, Request("GET", "a.test", "/x"))).status == 404
            assert await dataplane.reloads() == 1


async def test_replicas_serve_alike_and_one_leads(dataplane: DataPlane, server: ApiServer) -> None:
    """Both program one HAProxy here: what the second would write is what the first has written."""
    async with EchoBackend("web") as echo, AsyncExitStack() as stack:
        for manifest in site(echo.port):
            server.put(manifest)
        first, second = Replica(dataplane, "one"), Replica(dataplane, "two")
        leading = await stack.enter_async_context(AsyncExitStack())
        await leading.enter_async_context(first.running())
        await server.until(lambda: len(gateway_services(server)) == 2, 30)
        give_addresses(server)
        await server.until(lambda: programmed(server)["status"] == "True", 30)
        worker = await dataplane.worker()
        writes = server.count("PATCH", "/status")
        await stack.enter_async_context(second.running())
        await server.until(lambda: second.health.ready, 30)
        assert holder(server) == "one"
        assert server.count("PATCH", "/status") == writes

        await leading.aclose()
        await server.until(lambda: holder(server) == "two", 30)
        server.put(cluster_gateway("more"))
        await server.until(lambda: programmed(server, "more")["reason"] == "AddressNotAssigned", 30)
        slots = {p["targetPort"] for item in gateway_services(server) for p in item["spec"].get("ports", ())}
        assert slots == {20001, 20002}
        assert (await fetch(20001, Request("GET", "a.test", "/x"))).status == 200
        assert await dataplane.worker() == worker


async def test_a_replica_that_has_not_programmed_its_haproxy_does_not_lead(
    dataplane: DataPlane, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for manifest in site(1):
        server.put(manifest)
    async with Replica(dataplane, "one").running():
        await server.until(lambda: len(gateway_services(server)) == 2, 30)
        give_addresses(server)
        await server.until(lambda: programmed(server)["status"] == "True", 30)

    apply, tries, is_whole = Reconciler.apply, asyncio.Queue[None](), asyncio.Event()

    async def apply_if_whole(reconciler: Reconciler) -> None:
        tries.put_nowait(None)
        if not is_whole.is_set():
            raise DataPlaneError("HAProxy is broken")
        await apply(reconciler)

    monkeypatch.setattr(Reconciler, "apply", apply_if_whole)
    second = Replica(dataplane, "two")
    async with second.running(), asyncio.timeout(60):
        for _ in range(4):
            await tries.get()
        assert not second.health.ready
        assert holder(server) == "None"
        is_whole.set()
        await server.until(lambda: holder(server) == "two", 30)
        server.put(cluster_gateway("more"))
        await server.until(lambda: programmed(server, "more")["reason"] == "AddressNotAssigned", 30)
        assert programmed(server)["status"] == "True"


async def test_an_api_server_that_refuses_a_service_is_told_of_and_tried_again(
    dataplane: DataPlane, server: ApiServer
) -> None:
    server.fail("PATCH", "/services/gw-", 422, times=2)
    for manifest in site(1):
        server.put(manifest)
    async with Replica(dataplane, "one", gateway_service_aliases=False).running():
        await server.until(lambda: "cannot be written" in programmed(server).get("message", ""), 30)
        assert programmed(server)["reason"] == "AddressNotAssigned"
        await server.until(lambda: len(gateway_services(server)) == 1, 30)
        give_addresses(server)
        await server.until(lambda: programmed(server)["status"] == "True", 30)


async def test_an_api_server_that_goes_away_changes_nothing_for_traffic(
    dataplane: DataPlane, server: ApiServer
) -> None:
    async with EchoBackend("web") as echo, EchoBackend("new") as new:
        for manifest in site(echo.port):
            server.put(manifest)
        async with Replica(dataplane, "one").running():
            await server.until(lambda: len(gateway_services(server)) == 2, 30)
            give_addresses(server)
            await server.until(lambda: programmed(server)["status"] == "True", 30)
            await server.stop()
            assert (await fetch(20001, Request("GET", "a.test", "/"))).status == 200
            server.put(endpoints("web", [("127.0.0.1", new.port)])[0])
            await server.start()
            await wait_for(20001, Request("GET", "a.test", "/"), status=200, backend="new")
            assert programmed(server)["status"] == "True"


async def test_what_someone_else_makes_of_a_status_is_mended(dataplane: DataPlane, server: ApiServer) -> None:
    for manifest in site(1):
        server.put(manifest)
    async with Replica(dataplane, "one").running():
        await server.until(lambda: programmed(server)["reason"] == "AddressNotAssigned", 30)
        found = server.object("Gateway", "gateway")
        spoilt = [{**item, "status": "True"} for item in found["status"]["conditions"]]
        server.put({**found, "status": {**found["status"], "conditions": spoilt}})
        await server.until(lambda: programmed(server)["status"] == "False", 30)


async def test_a_route_that_can_no_longer_be_read_is_served_as_it_was(dataplane: DataPlane, server: ApiServer) -> None:
    async with EchoBackend("web") as echo:
        for manifest in site(echo.port):
            server.put(manifest)
        async with Replica(dataplane, "one").running():
            await server.until(lambda: len(gateway_services(server)) == 2, 30)
            give_addresses(server)
            await server.until(lambda: programmed(server)["status"] == "True", 30)
            good = server.object("HTTPRoute", "web")
            server.put({**good, "spec": {**good["spec"], "rules": [{**prefix_rule("/", backend("web")), "name": 5}]}})

            def told(kind: str = "PartiallyInvalid") -> str:
                (parent,) = server.object("HTTPRoute", "web")["status"]["parents"]
                return str(condition(parent, kind).get("message", ""))

            await server.until(lambda: told().startswith("Fall Back: spec.rules[0].name: "), 30)
            assert (await fetch(20001, Request("GET", "a.test", "/x"))).status == 200
            server.put({**good, "spec": {**good["spec"], "new": 1}})
            await server.until(lambda: "; but spec.new: " in told("Accepted"), 30)
            assert told() == ""
            server.put(good)
            await server.until(lambda: told("Accepted") == "the route is accepted", 30)


async def test_a_route_that_could_never_be_read_is_told_so(dataplane: DataPlane, server: ApiServer) -> None:
    async with EchoBackend("web") as echo:
        for manifest in site(echo.port):
            server.put(manifest)
        good = server.object("HTTPRoute", "web")
        server.put({**good, "spec": {**good["spec"], "rules": [{**prefix_rule("/", backend("web")), "name": 5}]}})

        def accepted() -> tuple[str, str]:
            parents = server.object("HTTPRoute", "web").get("status", {}).get("parents", [])
            found = condition(parents[0], "Accepted") if parents else {}
            return str(found.get("status", "")), str(found.get("reason", ""))

        async with Replica(dataplane, "one").running():
            await server.until(lambda: accepted() == ("False", "UnsupportedValue"), 30)
            assert (await fetch(20001, Request("GET", "a.test", "/x"))).status == 404
            server.put(good)
            await server.until(lambda: accepted() == ("True", "Accepted"), 30)
            assert (await fetch(20001, Request("GET", "a.test", "/x"))).status == 200


async def test_only_the_namespaces_that_are_named_are_read(dataplane: DataPlane, server: ApiServer) -> None:
    for manifest in site(1):
        server.put(manifest)
    server.put({**cluster_gateway("other"), "metadata": {"name": "other", "namespace": "elsewhere"}})
    async with Replica(dataplane, "one", namespaces="default").running():
        await server.until(lambda: programmed(server)["reason"] == "AddressNotAssigned", 30)
        assert "status" not in server.object("Gateway", "other", "elsewhere")
    read = {request.partition("?")[0] for request in server.requests if "watch=true" in request}
    assert {path for path in read if "/namespaces/" not in path} == {
        "GET /apis/gateway.networking.k8s.io/v1/gatewayclasses",
        "GET /api/v1/namespaces",
    }
    assert f"GET /api/v1/namespaces/{NAMESPACE}/services" in read
    assert f"GET /apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways" not in read
