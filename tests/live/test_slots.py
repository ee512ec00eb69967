"""Listener slots: frontends that listen before any Gateway needs them, so that a new Gateway is but rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from gwctl.api.parse import Resource
from gwctl.api.ref import Ref
from gwctl.dataplane.client import Client
from gwctl.dataplane.reader import read_state
from gwctl.graph.gatewayservice import service_ref
from gwctl.haproxy.desired import Pools
from gwctl.haproxy.names import Table, listener_slot_port
from gwctl.haproxy.program import Listening
from gwctl.routing.request import Request
from gwctl.runtime.metrics import Metrics
from gwctl.runtime.reconciler import Reconciler
from tests.harness import DataPlane, EchoBackend, TcpEcho
from tests.http1 import Connection, fetch
from tests.live.gateway import wait_for
from tests.live.site import serving
from tests.manifests import (
    CONTROLLER,
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
    tcp_route,
)
from tests.pipeline import parse

NAMESPACE = "gwctl-system"
POOLS = Pools(4, 4, http_listeners=4, tcp_listeners=2)


def gateway_service(name: str, ports: Mapping[int, int]) -> Manifest:
    ref = service_ref(Ref("Gateway", "default", name), NAMESPACE)
    listed = [{"name": f"p{port}", "port": port, "targetPort": slot} for port, slot in ports.items()]
    metadata = {"name": ref.name, "namespace": NAMESPACE, "annotations": {"gwctl.io/gateway": f"default/{name}"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": listed}}


def named_gateway(name: str, *listeners: Manifest) -> Manifest:
    manifest = gateway(list(listeners))
    return {**manifest, "metadata": {**manifest["metadata"], "name": name}}


async def test_gateways_that_share_a_port_come_and_go_without_a_reload(dataplane: DataPlane) -> None:
    async with (
        EchoBackend("web") as echo,
        TcpEcho("tcp") as tcp,
        Client(dataplane.url, dataplane.username, dataplane.password) as client,
    ):
        reconciler = Reconciler(client, CONTROLLER, POOLS, Metrics(), service_namespace=NAMESPACE)
        reconciler.update(parse([gateway_class()]))
        await reconciler.apply()
        worker = await dataplane.worker()

        manifests = [
            named_gateway("one", listener("http", 80)),
            named_gateway("two", listener("http", 80), listener("tcp", 9000, protocol="TCP")),
            http_route("one", [prefix_rule("/one", backend("web"))], parents=({"name": "one"},)),
            http_route("two", [prefix_rule("/two", backend("web"))], parents=({"name": "two"},)),
            tcp_route("tcp", [backend("tcp")], parents=({"name": "two"},)),
            service("web"),
            *endpoints("web", [("127.0.0.1", echo.port)]),
            service("tcp"),
            *endpoints("tcp", [("127.0.0.1", tcp.port)]),
        ]
        reconciler.update(parse(manifests))
        await reconciler.apply()
        assert (await fetch(20001, Request("GET", "a.test", "/one"))).status == 404

        reconciler.update(
            parse([gateway_service("one", {80: 20002}), gateway_service("two", {80: 20001, 9000: 30002})])
        )
        await reconciler.apply()
        assert (await fetch(20002, Request("GET", "a.test", "/one"))).status == 200
        assert (await fetch(20002, Request("GET", "a.test", "/two"))).status == 404
        assert (await fetch(20001, Request("GET", "a.test", "/two"))).status == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", 30002)
        assert (await reader.read(100)).startswith(b"tcp")
        writer.close()

        redirect = {
            "type": "RequestRedirect",
            "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}},
        }
        rule = {"matches": [{"path": {"type": "PathPrefix", "value": "/one"}}], "filters": [redirect]}
        reconciler.update(parse([http_route("one", [rule], parents=({"name": "one"},))]))
        await reconciler.apply()
        async with httpx.AsyncClient(verify=False) as plain:
            answer = await plain.get("http://127.0.0.1:20002/one", headers={"host": "a.test"})
        assert answer.headers["location"] == "http://a.test/x"  # the Gateway's port, not the slot's

        reconciler.update({Ref("Gateway", "default", "one"): None})
        await reconciler.apply()
        assert (await fetch(20002, Request("GET", "a.test", "/one"))).status == 404
        assert await dataplane.worker() == worker


async def test_a_slot_beyond_the_pool_makes_it_grow(dataplane: DataPlane) -> None:
    """Another replica's pool may be larger: what the Service says is served."""
    async with EchoBackend("web") as echo, Client(dataplane.url, dataplane.username, dataplane.password) as client:
        reconciler = Reconciler(client, CONTROLLER, POOLS, Metrics(), service_namespace=NAMESPACE)
        manifests = [
            gateway_class(),
            gateway([listener("http", 80)]),
            gateway_service("gateway", {80: 20006}),
            http_route("web", [prefix_rule("/", backend("web"))]),
            service("web"),
            *endpoints("web", [("127.0.0.1", echo.port)]),
        ]
        reconciler.update(parse(manifests))
        await reconciler.apply()
        assert (await fetch(20006, Request("GET", "a.test", "/"))).status == 200
        slots = [name for _, name in (await read_state(client)).sections if listener_slot_port(name)]
        assert len(slots) == 8 + 2


async def test_slots_listen_on_ipv6_where_that_is_asked_for(dataplane: DataPlane) -> None:
    async with (
        EchoBackend("web") as echo,
        Client(dataplane.url, dataplane.username, dataplane.password) as client,
    ):
        reconciler = Reconciler(
            client, CONTROLLER, POOLS, Metrics(), service_namespace=NAMESPACE, listening=Listening(ipv6=True)
        )
        reconciler.update(
            parse(
                [
                    gateway_class(),
                    named_gateway("one", listener("http", 80)),
                    gateway_service("one", {80: 20002}),
                    http_route("one", [prefix_rule("/one", backend("web"))], parents=({"name": "one"},)),
                    service("web"),
                    *endpoints("web", [("127.0.0.1", echo.port)]),
                ]
            )
        )
        await reconciler.apply()
        for address in ("127.0.0.1", "::1"):
            async with Connection(20002, address) as connection:
                assert (await connection.send(Request("GET", "a.test", "/one"))).status == 200
        worker = await dataplane.worker()
        observation = await reconciler.observe()
        assert observation is not None
        assert await reconciler.repair(observation)
        assert await dataplane.worker() == worker


async def test_a_request_on_its_way_meets_the_service_that_it_has_chosen_and_none_that_comes_meanwhile(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    async with EchoBackend("one") as one, EchoBackend("other") as other, serving(dataplane, tmp_path) as site:
        services = [
            manifest
            for echo in (one, other)
            for manifest in (service(echo.name), *endpoints(echo.name, [("127.0.0.1", echo.port)]))
        ]
        mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}}}
        await site.apply(http_route("r", [{**prefix_rule("/", backend("one")), "filters": [mirror]}]), *services)
        await wait_for(site.port, Request("GET", "a.test", "/"), status=200, backend="one")
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\nconnection: close\r\n\r\n")
        # A later request is answered, so HAProxy has this one, and waits for its body.
        await wait_for(site.port, Request("GET", "a.test", "/"), status=200, backend="one")
        for backends in (["web"], ["web", "other"]):
            await site.apply(http_route("r", [prefix_rule(f"/{name}", backend(name)) for name in backends]), *services)
            await wait_for(site.port, Request("GET", "a.test", f"/{backends[-1]}"), status=200, backend=backends[-1])
        writer.write(b"hello")
        async with asyncio.timeout(30):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ") and b'"name": "one"' in answer, answer[:200]


def _led_to(name: str) -> dict[Ref, Resource]:
    services = [manifest for of in ("one", "two") for manifest in (service(of), *endpoints(of, [("127.0.0.1", 9)]))]
    route = http_route("r", [prefix_rule("/", backend(name))])
    return parse([gateway_class(), gateway([listener("http", 80)], address="127.0.0.2"), route, *services])


async def _served(client: Client) -> dict[str, list[str]]:
    """Give the states of the servers of each Service that HAProxy knows."""
    state = await read_state(client)
    slots = {key.split("/")[1]: slot for key, slot in state.tables[Table.SERVICES].items()}
    return {name: [server.state for server in state.servers.get(slot, {}).values()] for name, slot in slots.items()}


async def test_a_service_that_routes_have_left_stays_for_those_that_wait_and_is_no_drift_when_it_goes(
    dataplane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gwctl.runtime.reconciler._REST_SECONDS", 0.0)
    metrics = Metrics()
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 4), metrics)
        for name in ("one", "two"):
            reconciler.update(_led_to(name))
            await reconciler.apply()
        assert await _served(client) == {"one": ["ready"], "two": ["ready"]}
        observation = await reconciler.observe()
        assert observation is not None
        assert await reconciler.repair(observation)
        assert await _served(client) == {"two": ["ready"]}
        assert not next(iter(metrics.drift_repaired.collect())).samples


async def test_of_a_service_that_routes_have_left_endpoints_and_itself_go_when_they_are_gone(
    dataplane: DataPlane,
) -> None:
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 4), Metrics())
        for name in ("one", "two"):
            reconciler.update(_led_to(name))
            await reconciler.apply()
        reconciler.update({Ref("EndpointSlice", "default", "one-9"): None})
        await reconciler.apply()
        assert await _served(client) == {"one": ["maint"], "two": ["ready"]}
        reconciler.update({Ref("Service", "default", "one"): None})
        await reconciler.apply()
        assert await _served(client) == {"two": ["ready"]}
