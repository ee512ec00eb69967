"""TLSRoutes before a real HAProxy: by the name in the handshake, passed through, terminated, and both on one port."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

from gwctl.haproxy.socket import VARIABLE
from gwctl.routing.matcher import find_sni_rule
from gwctl.routing.request import Request
from gwctl.routing.virtualhost import FrontendKey
from tests.certificates import make_pair
from tests.harness import DataPlane, EchoBackend, TcpEcho, free_port
from tests.http1 import Connection
from tests.live.gateway import Gwctl
from tests.manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    https_listener,
    prefix_rule,
    random_tls_routes,
    service,
    tls_listener,
    tls_route,
)
from tests.pipeline import build_pipeline
from tests.tls import (
    TlsStream,
    client_context,
    fetch_tls,
    greet,
    server_context,
    shake_hands,
    wait_for_certificate,
    wait_for_greeting,
)

pytestmark = pytest.mark.usefixtures("no_key_in_logs")

OWN, EDGE = make_pair("own.test"), make_pair("*.edge.test", "web.test")


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Mapping[str, TcpEcho]]:
    """Three that do TLS themselves, and two that do not."""
    tls = server_context(OWN, tmp_path)
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(TcpEcho(name, tls=tls if name.startswith("tls") else None))
            for name in ("tls-one", "tls-two", "tls-three", "plain", "plain-two")
        }


def base(servers: Mapping[str, TcpEcho], *listeners: Manifest) -> list[Manifest]:
    manifests = [gateway_class(), gateway(list(listeners))]
    for name, server in servers.items():
        manifests += [service(name), *endpoints(name, [("127.0.0.1", server.port)])]
    return manifests


async def test_a_connection_is_passed_through_by_the_name_in_its_handshake(
    dataplane: DataPlane, servers: Mapping[str, TcpEcho], tmp_path: Path
) -> None:
    port = free_port()
    listeners = [
        tls_listener("wild", port, hostname="*.wild.test"),
        tls_listener("exact", port, hostname="a.wild.test"),
        tls_listener("any", port),
    ]
    routes = [
        tls_route("one", [backend("tls-one")], ("*.wild.test", "x.y.wild.test"), at("wild")),
        tls_route("two", [backend("tls-two")], ("*.y.wild.test", "a.wild.test"), at("wild")),
        tls_route("three", [backend("tls-three")], ("other.test",), at("any")),
        tls_route("missing", [backend("missing")], ("missing.test",), at("any")),
    ]
    async with Gwctl(dataplane, tmp_path / "manifests", *base(servers, *listeners), *routes) as gwctl:
        await wait_for_greeting(port, "other.test", ("tls-three", OWN.der))
        for name, server in (
            ("b.wild.test", "tls-one"),
            ("B.Wild.TEST", "tls-one"),
            ("b.c.wild.test", "tls-one"),
            ("x.y.wild.test", "tls-one"),
            ("z.y.wild.test", "tls-two"),
            ("a.z.y.wild.test", "tls-two"),
            ("a.wild.test", None),  # it is another listener's, which has no route
            ("wild.test", None),
            ("missing.test", None),
            ("more.other.test", None),
            ("", None),
        ):
            assert (name, await greet(port, name)) == (name, (server, OWN.der) if server else None)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: other.test\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        reloads = await dataplane.reloads()
        anything = tls_route("anything", [backend("tls-one")], (), at("any"))
        await gwctl.apply("more.yaml", [anything])
        for name in ("more.other.test", ""):
            assert await greet(port, name) == ("tls-one", OWN.der)
        assert await greet(port, "a.wild.test") is None
        assert await dataplane.reloads() == reloads


def at(*listeners: str) -> tuple[Manifest, ...]:
    return tuple({"name": "gateway", "sectionName": name} for name in listeners)


async def test_weights_hold_and_an_invalid_share_is_refused(
    dataplane: DataPlane, servers: Mapping[str, TcpEcho], tmp_path: Path
) -> None:
    port = free_port()
    shares = [backend("tls-one", weight=2), backend("tls-two", weight=1), backend("none", weight=1)]
    manifests = [*base(servers, tls_listener("tls", port)), tls_route("r", shares, ("a.test",))]
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests):
        await wait_for_greeting(port, "a.test", ("tls-one", OWN.der))
        answers = await asyncio.gather(*(greet(port, "a.test") for _ in range(200)))
        found = Counter(answer[0] if answer is not None else "" for answer in answers)
    assert found.keys() == {"tls-one", "tls-two", ""}
    assert 70 < found["tls-one"] < 130
    assert 25 < found["tls-two"] < 80


async def test_tls_is_terminated_with_a_certificate_that_changes_without_a_reload(
    dataplane: DataPlane, servers: Mapping[str, TcpEcho], tmp_path: Path
) -> None:
    port = free_port()
    manifests = base(servers, tls_listener("tls", port, "edge", hostname="*.edge.test"))
    routes = [
        tls_route("a", [backend("plain")], ("a.edge.test",)),
        tls_route("b", [backend("plain-two")], ("*.b.edge.test",)),
    ]
    async with Gwctl(dataplane, tmp_path / "manifests", *manifests, *routes) as gwctl:
        await gwctl.apply("secret.yaml", [EDGE.secret("edge")])
        await wait_for_greeting(port, "a.edge.test", ("plain", EDGE.der))
        # A certificate's wildcard stands for one label, but a client may not mind.
        await wait_for_greeting(port, "x.b.edge.test", ("plain-two", EDGE.der))
        for name in ("c.edge.test", "edge.test", "a.test", ""):
            assert await shake_hands(port, name) is None
        worker, reloads = await dataplane.worker(), await dataplane.reloads()
        renewed = make_pair("*.edge.test", serial=2)
        async with TlsStream(port, "a.edge.test") as stream:
            await gwctl.apply("secret.yaml", [renewed.secret("edge")])
            assert await greet(port, "a.edge.test") == ("plain", renewed.der)
            assert await stream.send(b"still here") == b"still here"
            gwctl.remove("secret.yaml")
            await wait_for_greeting(port, "a.edge.test", None)
            assert await stream.send(b"still here") == b"still here"
        assert (await dataplane.worker(), await dataplane.reloads()) == (worker, reloads)


@pytest.fixture(params=["", "abns@another"], ids=["", "sockets of another name"])
def sockets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How HAProxy's own sockets begin, where its environment says so."""
    if request.param:
        monkeypatch.setenv(VARIABLE, request.param)


@pytest.mark.usefixtures("sockets")
async def test_https_and_both_modes_of_tls_share_a_port(
    dataplane: DataPlane, servers: Mapping[str, TcpEcho], tmp_path: Path
) -> None:
    port, other = free_port(), free_port()
    listeners = [
        tls_listener("pass", port, hostname="own.test"),
        tls_listener("end", port, "edge", hostname="*.edge.test"),
        https_listener("web", port, "edge", hostname="web.test"),
    ]
    async with EchoBackend("web") as web:
        manifests = [
            *base(servers, *listeners),
            EDGE.secret("edge"),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
        ]
        routes = [
            tls_route("pass", [backend("tls-one")], ("own.test",)),
            tls_route("end", [backend("plain")], ("a.edge.test",)),
            http_route("web", [prefix_rule("/", backend("web"))], ("web.test",)),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests, *routes) as gwctl:
            await wait_for_certificate(port, "web.test", EDGE.der)
            assert await greet(port, "own.test") == ("tls-one", OWN.der)
            assert await greet(port, "a.edge.test") == ("plain", EDGE.der)
            response = await fetch_tls(port, "web.test", Request("GET", "web.test", "/"))
            assert response.status == 200
            headers = response.json()["headers"]
            assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == (["127.0.0.1"], ["https"])
            done = await shake_hands(port, "web.test", client_context(protocols=("h2",)))
            assert done is not None
            assert done.protocol == "h2"
            async with Connection(port, tls=client_context(), server_name="web.test") as connection:
                for host, status in (("web.test", 200), ("own.test", 421), ("a.edge.test", 421), ("none.test", 404)):
                    assert (host, (await connection.send(Request("GET", host, "/"))).status) == (host, status)
                assert await dataplane.reloads() == 1
                # One more port is a reload without a cluster; what goes on is not disturbed.
                async with TlsStream(port, "own.test") as passed, TlsStream(port, "a.edge.test") as ended:
                    more = gateway([*listeners, tls_listener("more", other)])
                    await gwctl.apply("gateway.yaml", [more])
                    await wait_for_greeting(other, "own.test", ("tls-one", OWN.der))
                    assert await dataplane.reloads() == 2
                    for _ in range(20):
                        assert await greet(port, "own.test") == ("tls-one", OWN.der)
                        assert await greet(port, "a.edge.test") == ("plain", EDGE.der)
                        assert (await fetch_tls(port, "web.test", Request("GET", "web.test", "/"))).status == 200
                    assert await passed.send(b"on") == await ended.send(b"on") == b"on"
                assert (await connection.send(Request("GET", "web.test", "/"))).status == 200
            await gwctl.wait_for_checkpoint()
        await dataplane.restart_haproxy()
        assert await greet(port, "own.test") == ("tls-one", OWN.der)
        assert await greet(port, "a.edge.test") == ("plain", EDGE.der)
        assert (await fetch_tls(port, "web.test", Request("GET", "web.test", "/"))).status == 200


async def test_haproxy_decides_by_the_name_as_the_reference_matcher_does(
    dataplane: DataPlane, servers: Mapping[str, TcpEcho], tmp_path: Path
) -> None:
    seed = int(os.environ.get("GWCTL_ORACLE_SEED", Random().randrange(1 << 32)))
    print(f"oracle: GWCTL_ORACLE_SEED={seed}")
    random, port = Random(seed), free_port()
    hostnames = random.sample(["", "*.a.test", "x.a.test", "b.test", "*.x.a.test"], random.randint(1, 4))
    listeners = [tls_listener(f"t{index}", port, hostname=name) for index, name in enumerate(hostnames)]
    fixed = base(servers, *listeners)
    async with Gwctl(dataplane, tmp_path / "manifests", *fixed) as gwctl:
        for number in range(5):
            routes = random_tls_routes(random, ["tls-one", "tls-two", "missing"], random.randint(1, 8))
            await gwctl.apply("routes.yaml", routes)
            routing = build_pipeline([*fixed, *routes]).routing
            for name in ("", "a.test", "x.a.test", "Y.x.a.test", "z.y.x.a.test", "b.test", "y.b.test", "c.test"):
                verdict = find_sni_rule(routing, FrontendKey("default", "gateway", port), name)
                backends = verdict.rule.backends if verdict is not None and verdict.rule is not None else ()
                wanted = {item.service.name if item.service else None for item in backends if item.weight} or {None}
                answer = await greet(port, name)
                assert (answer[0] if answer else None) in wanted, f"seed {seed}, set {number}: {name!r}, {verdict}"
        assert await dataplane.reloads() == 1
