"""Listeners: several Gateways, ports that are taken, ports that come and go."""

import asyncio
from pathlib import Path

from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, TcpEcho, free_port
from tests.live.gateway import Gwctl, wait_for
from tests.manifests import (
    GATEWAY_API,
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


def site(name: str, port: int, backend_port: int) -> list[Manifest]:
    """A Gateway with one HTTP listener, its route and its Service."""
    return [
        gateway([listener("http", port)], name=name),
        http_route(name, [prefix_rule("/", backend(name))], parents=({"name": name},)),
        service(name),
        *endpoints(name, [("127.0.0.1", backend_port)]),
    ]


def grant() -> Manifest:
    """A ReferenceGrant that nothing uses."""
    spec = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "a"}],
        "to": [{"group": "", "kind": "Service"}],
    }
    meta = {"name": "grant", "namespace": "default"}
    return {"apiVersion": GATEWAY_API, "kind": "ReferenceGrant", "metadata": meta, "spec": spec}


async def test_a_taken_port_harms_no_other_listener_and_is_reported(dataplane: DataPlane, tmp_path: Path) -> None:
    good, other, taken = free_port(), free_port(), free_port()
    holder = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", taken)
    async with holder, EchoBackend("a") as a, EchoBackend("b") as b, EchoBackend("c") as c:
        manifests = [gateway_class(), *site("a", good, a.port), *site("b", taken, b.port), *site("c", other, c.port)]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            await wait_for(good, Request("GET", "x.test", "/"), status=200, backend="a")
            await wait_for(other, Request("GET", "x.test", "/"), status=200, backend="c")
            assert 'gwctl_problems{condition="Programmed"} 1.0' in await gwctl.metrics()
            worker = await dataplane.worker()
            await gwctl.apply(
                "more.yaml", [http_route("d", [prefix_rule("/d", backend("c"))], parents=({"name": "a"},))]
            )
            await wait_for(good, Request("GET", "x.test", "/d"), status=200, backend="c")
            reloads = await dataplane.reloads()
            await gwctl.apply("grant.yaml", [grant()])  # which builds everything anew
            assert (await dataplane.worker(), await dataplane.reloads()) == (worker, reloads)


async def test_a_new_listener_is_one_reload_and_a_route_none(dataplane: DataPlane, tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    async with (
        EchoBackend("a") as a,
        EchoBackend("b") as b,
        Gwctl(dataplane, tmp_path / "manifests", gateway_class(), *site("a", first, a.port)) as gwctl,
    ):
        await wait_for(first, Request("GET", "x.test", "/"), status=200, backend="a")
        assert await dataplane.reloads() == 1
        await gwctl.apply("more.yaml", site("b", second, b.port))
        await wait_for(second, Request("GET", "x.test", "/"), status=200, backend="b")
        await wait_for(first, Request("GET", "x.test", "/"), status=200, backend="a")
        assert await dataplane.reloads() == 2
        assert 'gwctl_reloads_total{reason="listener added"} 1.0' in await gwctl.metrics()


async def test_tcp_goes_by_weight_and_a_listener_without_route_closes_at_once(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with TcpEcho("a") as a, TcpEcho("b") as b:
        manifests = [
            gateway_class(),
            gateway([listener("tcp", port, protocol="TCP")]),
            *(service(name) for name in "ab"),
            *endpoints("a", [("127.0.0.1", a.port)]),
            *endpoints("b", [("127.0.0.1", b.port)]),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            worker = await dataplane.worker()
            assert await _greeting(port) == b""
            await gwctl.apply("route.yaml", [tcp_route("t", [backend("a", weight=3), backend("b", weight=1)])])
            counts = {b"a\n": 0, b"b\n": 0}
            for _ in range(200):
                counts[await _greeting(port)] += 1
            assert 110 < counts[b"a\n"] < 185, counts
            await gwctl.apply("route.yaml", [tcp_route("t", [backend("a", weight=0), backend("missing")])])
            assert await _greeting(port) == b""
            gwctl.remove("route.yaml")
            await gwctl.apply("other.yaml", [service("unused")])
            assert await _greeting(port) == b""
            assert await dataplane.worker() == worker


async def _greeting(port: int) -> bytes:
    """Read what a TCP backend says first; nothing when the connection is closed or reset at once."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return await reader.readline()
            finally:
                writer.close()
    except ConnectionResetError:
        return b""
