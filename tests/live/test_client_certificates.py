"""HTTPS listeners that ask clients for a certificate, before a real HAProxy: who is let in, and changes at runtime."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from gwctl.graph.authority import join_authorities
from gwctl.graph.node import Authorities
from gwctl.haproxy.names import authorities_name, crt_list_name, frontend_name
from gwctl.routing.request import Request
from tests.certificates import make_authority, make_pair
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Connection
from tests.live.gateway import Gwctl
from tests.manifests import (
    Manifest,
    backend,
    config_map,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    https_listener,
    prefix_rule,
    service,
    tls_listener,
    validation,
)
from tests.tls import client_context, status_for

pytestmark = pytest.mark.usefixtures("no_key_in_logs")

WEB = make_pair("web.test")
STAFF, GUEST, NOBODY = (make_pair("client", issuer=issuer) for issuer in ("staff", "guest", "nobody"))
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def asking(gateway: Manifest, default: Manifest, **ports: Manifest) -> Manifest:
    """Let a Gateway ask clients for certificates, at some ports (``p443``) in another way."""
    per_port = [{"port": int(port[1:]), "tls": item} for port, item in ports.items()]
    frontend = {"default": default, "perPort": per_port}
    return {**gateway, "spec": {**gateway["spec"], "tls": {"frontend": frontend}}}


def resume(port: int, session: ssl.SSLSession | None, context: ssl.SSLContext) -> tuple[bool, ssl.SSLSession | None]:
    """Send a request in a connection that goes on with a session; tell whether there was an answer, and the session."""
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="web.test", session=session) as secure:
                secure.sendall(b"GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n")
                answered = secure.recv(1000).startswith(b"HTTP/1.1 200")
                return answered, secure.session
        except (ssl.SSLError, ConnectionError):
            return False, None


async def let_in(port: int) -> tuple[bool, ...]:
    """Tell whether staff, guests, and who shows nothing are let in."""
    found = [await status_for(port, "web.test", shown) for shown in (STAFF, GUEST, None)]
    return tuple(status == 200 for status in found)


async def until_files_have(dataplane: DataPlane, port: int, authority: str) -> None:
    """Wait until the crt-list from which HAProxy would start at a port names one authority and no other."""
    trusted = join_authorities([(authority,)])
    assert isinstance(trusted, Authorities)
    name = crt_list_name(frontend_name("default", "gateway", port))
    (path,) = dataplane.folder.rglob(name)
    async with asyncio.timeout(20):
        while f"[ca-file {authorities_name(trusted.identity)} verify required]" not in path.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_who_is_let_in_and_what_changes_at_runtime(dataplane: DataPlane, tmp_path: Path) -> None:
    port, guests, anyone, mixed = (free_port() for _ in range(4))
    listeners = [
        https_listener("web", port, "web", hostname="web.test"),
        https_listener("guests", guests, "web"),
        https_listener("anyone", anyone, "web"),
        https_listener("mixed", mixed, "web", hostname="web.test"),
        tls_listener("pass", mixed, hostname="pass.test"),
    ]
    ports = {
        f"p{guests}": validation("guest", "missing"),
        f"p{anyone}": validation("staff", mode="AllowInsecureFallback"),
    }
    async with EchoBackend("web") as web:
        manifests = [
            gateway_class(),
            asking(gateway(listeners), validation("staff"), **ports),
            WEB.secret("web"),
            config_map("guest", make_authority("guest")),
            http_route("web", [prefix_rule("/", backend("web"))]),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            # Nobody before there is an authority.
            assert await status_for(port, "web.test", STAFF) is None
            await gwctl.apply("staff.yaml", [config_map("staff", make_authority("staff"))])
            worker, reloads = await dataplane.worker(), await dataplane.reloads()
            for newest in VERSIONS:
                for shown in (STAFF, GUEST, NOBODY, None):
                    found = [
                        await status_for(at, "web.test", shown, newest=newest) for at in (port, guests, anyone, mixed)
                    ]
                    staff, guest = (200 if shown is pair else None for pair in (STAFF, GUEST))
                    assert found == [staff, guest, 200, staff], (newest, shown)
            contexts = [client_context(newest=newest, shown=STAFF) for newest in VERSIONS]
            sessions = [(await asyncio.to_thread(resume, port, None, context))[1] for context in contexts]
            assert all(sessions)
            async with Connection(port, tls=client_context(shown=STAFF), server_name="web.test") as open_one:
                assert (await open_one.send(Request("GET", "web.test", "/"))).status == 200
                both = [config_map("staff", make_authority("staff") + make_authority("guest"))]
                await gwctl.apply("staff.yaml", both)
                assert await let_in(port) == (True, True, False)
                await gwctl.apply("staff.yaml", [config_map("staff", make_authority("guest"))])
                assert await let_in(port) == (False, True, False)
                # Who was let in before is verified anew.
                for context, session in zip(contexts, sessions, strict=True):
                    assert not (await asyncio.to_thread(resume, port, session, context))[0]
                await gwctl.apply("staff.yaml", [config_map("staff", "none of that kind")])
                assert [await status_for(at, "web.test", GUEST) for at in (port, guests, mixed)] == [None, 200, None]
                assert (await open_one.send(Request("GET", "web.test", "/"))).status == 200
            await gwctl.apply("staff.yaml", [config_map("staff", make_authority("staff"))])
            # As it stands in the files that HAProxy starts from.
            assert await let_in(port) == (True, False, False)
            assert (await dataplane.worker(), await dataplane.reloads()) == (worker, reloads)
            assert "gwctl_drift_repaired_total{" not in await gwctl.metrics()
            await until_files_have(dataplane, port, make_authority("staff"))
            await gwctl.until_file_says(f"127.0.0.1:{web.port}")
        await dataplane.restart_haproxy()
        assert await let_in(port) == (True, False, False)
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests):
            assert [await status_for(guests, "web.test", shown) for shown in (GUEST, None)] == [200, None]
