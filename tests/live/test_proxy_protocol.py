"""The PROXY protocol before a real HAProxy: who may say whose connection it is, on every kind of listener."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import make_pair
from tests.harness import DataPlane, EchoBackend, TcpEcho, free_port
from tests.http3 import Http3Client
from tests.live.gateway import Gwctl
from tests.manifests import (
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    https_listener,
    listener,
    prefix_rule,
    service,
    tcp_route,
    tls_listener,
    tls_route,
)
from tests.tls import client_context

pytestmark = pytest.mark.usefixtures("no_key_in_logs")

MANY_NETWORKS = tuple(f"fd00:{number:x}::/32" for number in range(1, 120))
BALANCER, OTHER = "127.0.0.1", "127.0.0.2"
REQUEST = "GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n"
BEGINNING = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\n"


async def speak(source: str, port: int, first: bytes, tls: str = "", host: str = "a.test") -> str:
    """Send a request from an address, with something before all else; give all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(first)
        if tls:
            await writer.start_tls(client_context(), server_hostname=tls)
        writer.write(REQUEST.format(host).encode())
        return (await reader.read(4096)).decode()
    except OSError:
        return ""
    finally:
        writer.close()


async def test_only_named_networks_say_whose_connection_it_is(dataplane: DataPlane, tmp_path: Path) -> None:
    http, https, mixed, tcp = (free_port() for _ in range(4))
    pair = make_pair("a.test", "b.test")
    listeners = [
        listener("http", http),
        https_listener("https", https, "a"),
        https_listener("mixed-https", mixed, "a", hostname="a.test"),
        tls_listener("mixed-tls", mixed, "a", hostname="b.test"),
        listener("tcp", tcp, protocol="TCP"),
    ]
    names = ("http", "https", "mixed-https")
    parents = tuple({"name": "gateway", "sectionName": name} for name in names)
    async with EchoBackend("web") as web, TcpEcho("echo") as echo:
        manifests = [
            gateway_class(),
            gateway(listeners),
            pair.secret("a"),
            http_route("web", [prefix_rule("/", backend("web"))], parents=parents),
            tcp_route("tcp", [backend("echo")], ({"name": "gateway", "sectionName": "tcp"},)),
            tls_route("tls", [backend("echo")], ("b.test",), ({"name": "gateway", "sectionName": "mixed-tls"},)),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
            service("echo"),
            *endpoints("echo", [("127.0.0.1", echo.port)]),
        ]
        options: dict[str, Any] = {"http3": True, "proxy_protocol_from": (*MANY_NETWORKS, f"{BALANCER}/32")}
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests, **options):
            for port, tls in ((http, ""), (https, "a.test"), (mixed, "a.test")):
                assert '"203.0.113.7"' in await speak(BALANCER, port, BEGINNING, tls), port
                assert f'"{OTHER}"' in await speak(OTHER, port, b"", tls), port
            for port, tls in ((tcp, ""), (mixed, "b.test")):
                assert (await speak(BALANCER, port, BEGINNING, tls)).startswith("echo"), port
                assert (await speak(OTHER, port, b"", tls)).startswith("echo"), port
            for port, tls in ((http, ""), (https, "a.test"), (mixed, "a.test"), (mixed, "b.test"), (tcp, "")):
                assert await speak(BALANCER, port, b"", tls) == "", port
            assert (await speak(OTHER, http, BEGINNING)).startswith("HTTP/1.1 400 ")
            for port, tls in ((https, "a.test"), (mixed, "a.test"), (mixed, "b.test")):
                assert await speak(OTHER, port, BEGINNING, tls) == "", port
            for port in (https, mixed):
                async with Http3Client(port, "a.test") as client:
                    response = await client.send("a.test")
                    assert response is not None
                    assert response.json()["headers"]["x-forwarded-for"] == [BALANCER]
