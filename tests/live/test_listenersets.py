"""ListenerSets in a cluster: a team adds ports, host names and certificates to a Gateway, all without a reload."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gwctl.routing.request import Request
from tests.certificates import make_pair
from tests.harness import DataPlane, EchoBackend
from tests.http1 import fetch
from tests.kube.apiserver import ApiServer
from tests.live.cluster import Replica, cluster_gateway, condition, gateway_services, give_addresses, programmed, site
from tests.live.gateway import wait_for
from tests.manifests import (
    Manifest,
    allowed_listeners,
    backend,
    endpoints,
    http_route,
    https_listener,
    listener,
    listener_set,
    prefix_rule,
    service,
)
from tests.tls import fetch_tls, wait_for_certificate

SHOP, NEWER = make_pair("shop.test"), make_pair("shop.test", serial=2)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


def told(server: ApiServer, kind: str, name: str = "shop") -> str:
    """Give status and reason of a condition of a ListenerSet in the namespace ``team``."""
    found = condition(server.object("ListenerSet", name, "team").get("status", {}), kind)
    return f"{found.get('status')}/{found.get('reason')}"


def attached_sets(server: ApiServer) -> int:
    return int(server.object("Gateway", "gateway").get("status", {}).get("attachedListenerSets", 0))


def slots(server: ApiServer) -> dict[int, int]:
    ports = (port for item in gateway_services(server) for port in item["spec"].get("ports", ()))
    return {port["port"]: port["targetPort"] for port in ports}


def team_route(name: str, path: str) -> Manifest:
    parent = {"kind": "ListenerSet", "name": "shop"}
    return http_route(name, [prefix_rule(path, backend("shop"))], parents=(parent,), namespace="team")


async def test_a_team_adds_listeners_to_a_gateway(dataplane: DataPlane, server: ApiServer) -> None:
    async with EchoBackend("web") as web, EchoBackend("shop") as shop:
        for manifest in site(web.port):
            server.put(manifest)
        listeners = [
            listener("same-port", 80, "shop.test"),
            listener("own-port", 8080),
            https_listener("https", 443, "shop", hostname="shop.test"),
            listener("taken", 80),
        ]
        server.put(service("shop", namespace="team"))
        for manifest in endpoints("shop", [("127.0.0.1", shop.port)], "team"):
            server.put(manifest)
        async with Replica(dataplane, "one").running():
            await server.until(lambda: len(gateway_services(server)) == 2, 30)
            give_addresses(server)
            await server.until(lambda: programmed(server)["status"] == "True", 30)
            worker = await dataplane.worker()

            server.put(listener_set("shop", listeners, namespace="team"))
            await server.until(lambda: told(server, "Accepted") == "False/NotAllowed", 30)
            assert told(server, "Programmed") == "False/NotAllowed"
            assert slots(server) == {80: 20001}

            server.put(SHOP.secret("shop", "team"))
            server.put(team_route("all", "/all"))
            server.put(cluster_gateway(**allowed_listeners("All")))
            await server.until(lambda: told(server, "Programmed") == "True/Programmed", 30)
            assert told(server, "Accepted") == "True/ListenersNotValid"
            assert attached_sets(server) == 1
            assert slots(server) == {80: 20001, 8080: 20002, 443: 22001}
            status = server.object("ListenerSet", "shop", "team")["status"]
            assert [(item["name"], item["attachedRoutes"]) for item in status["listeners"]] == [
                (item["name"], 1) for item in listeners
            ]
            taken = condition(status["listeners"][-1], "Conflicted")
            assert (taken["status"], taken["reason"]) == ("True", "HostnameConflict")
            (parent,) = server.object("HTTPRoute", "all", "team")["status"]["parents"]
            assert (parent["parentRef"]["kind"], condition(parent, "Accepted")["status"]) == ("ListenerSet", "True")

            for port, host in ((20001, "shop.test"), (20002, "any.test")):
                assert (await fetch(port, Request("GET", host, "/all"))).json()["name"] == "shop"
                assert (await fetch(port, Request("GET", host, "/other"))).status == 404
            assert (await fetch(20001, Request("GET", "a.test", "/all"))).json()["name"] == "web"
            await wait_for_certificate(22001, "shop.test", SHOP.der)
            assert (await fetch_tls(22001, "shop.test", Request("GET", "shop.test", "/all"))).status == 200
            server.put(NEWER.secret("shop", "team"))
            await wait_for_certificate(22001, "shop.test", NEWER.der)

            notes = {(item["regarding"]["name"], item["reason"]) for item in server.objects("Event").values()}
            assert {("shop", "NotAllowed"), ("shop", "Programmed"), ("shop", "HostnameConflict")} <= notes

            server.remove("ListenerSet", "shop", "team")
            await server.until(lambda: attached_sets(server) == 0, 30)
            await server.until(lambda: slots(server) == {80: 20001}, 30)
            await wait_for(20001, Request("GET", "shop.test", "/x"), status=200, backend="web")
            await wait_for_certificate(22001, "shop.test", None)
            assert await dataplane.worker() == worker
            assert await dataplane.reloads() == 1
