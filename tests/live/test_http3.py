"""HTTP/3 before a real HAProxy: at the ports of HTTPS listeners, with their certificates, clients and hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gwctl.routing.request import Request
from tests.certificates import make_authority, make_pair
from tests.harness import DataPlane, EchoBackend, TcpEcho, free_port
from tests.http1 import fetch
from tests.http3 import Http3Client
from tests.live.gateway import Gwctl
from tests.manifests import (
    backend,
    config_map,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    https_listener,
    listener,
    prefix_rule,
    service,
    tls_listener,
    tls_route,
    validation,
)
from tests.tls import fetch_tls, server_context, wait_for_greeting

pytestmark = pytest.mark.usefixtures("no_key_in_logs")

WEB, OWN = make_pair("web.test", "other.test"), make_pair("own.test")


async def test_https_listeners_take_http3_and_offer_it(dataplane: DataPlane, tmp_path: Path) -> None:
    port, mixed, plain = free_port(), free_port(), free_port()
    listeners = [
        https_listener("web", port, "web", hostname="web.test"),
        https_listener("other", port, "web", hostname="other.test"),
        https_listener("asking", mixed, "web", hostname="web.test"),
        tls_listener("pass", mixed, hostname="own.test"),
        listener("http", plain),
    ]
    site = gateway(listeners)
    asking = {"default": {}, "perPort": [{"port": mixed, "tls": validation("staff")}]}
    site = {**site, "spec": {**site["spec"], "tls": {"frontend": asking}}}
    async with EchoBackend("web") as web, TcpEcho("db", tls=server_context(OWN, tmp_path)) as db:
        manifests = [
            gateway_class(),
            site,
            WEB.secret("web"),
            config_map("staff", make_authority("staff")),
            http_route("web", [prefix_rule("/", backend("web"))]),
            tls_route("db", [backend("db")], ("own.test",)),
            *(service(name) for name in ("web", "db")),
            *endpoints("web", [("127.0.0.1", web.port)]),
            *endpoints("db", [("127.0.0.1", db.port)]),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests, http3=True) as gwctl:
            assert await dataplane.reloads() == 1
            async with Http3Client(port, "web.test") as client:
                response = await client.send("web.test", "/cart")
                assert response is not None
                received = response.json()
                assert (response.status, received["path"]) == (200, "/cart")
                assert received["headers"]["x-forwarded-for"] == ["127.0.0.1"]
                assert received["headers"]["x-forwarded-proto"] == ["https"]
                assert response.headers["alt-svc"] == 'h3=":443"'
                response = await client.send(f"web.test:{port}")
                assert response is not None and response.headers["alt-svc"] == f'h3=":{port}"'
                for host, status in (("other.test", 421), ("none.test", 404)):
                    response = await client.send(host)
                    assert response is not None and response.status == status
                # A certificate that changes, while connections go on.
                await gwctl.apply("secret.yaml", [make_pair("web.test", "other.test", serial=2).secret("web")])
                assert await client.send("web.test") is not None
            over_tcp = await fetch_tls(port, "web.test", Request("GET", f"web.test:{port}", "/"))
            assert over_tcp.headers["alt-svc"] == f'h3=":{port}"'
            async with Http3Client(mixed, "web.test", shown=make_pair("client", issuer="staff")) as client:
                assert await client.send("web.test") is not None
            for name, shown in (("web.test", None), ("own.test", make_pair("client", issuer="staff"))):
                async with Http3Client(mixed, name, shown=shown) as client:
                    assert await client.send("web.test") is None
            await wait_for_greeting(mixed, "own.test", ("db", OWN.der))
            assert "alt-svc" not in (await fetch(plain, Request("GET", "web.test", "/"))).headers
            assert await dataplane.reloads() == 1
            assert "gwctl_drift_repaired_total{" not in await gwctl.metrics()
