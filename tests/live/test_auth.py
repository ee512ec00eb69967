"""The filter ExternalAuth against the real HAProxy: what is asked, what answers do, and that nothing passes without."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from gwctl.haproxy.names import Table
from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Connection
from tests.live.site import get, path, running, serving
from tests.manifests import Manifest, backend, endpoints, http_route, service


class Authority(EchoBackend):
    """A server that lets pass what has ``authorization: good``; it keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__("authority")
        self.asked: list[dict[str, Any]] = []

    def note(self, reply: dict[str, Any]) -> None:
        """Keep a question."""
        self.asked.append(dict(reply))

    def answer(self, method: str, target: str, headers: Any, body_length: int) -> bytes:
        """Answer with headers of its own; a refusal has a body, in chunks where the path says so."""
        super().answer(method, target, headers, body_length)
        if headers.get("authorization") == ["good"]:
            more = "x-user: ann\r\nx-user: bob\r\nx-other: 1\r\ncontent-type: text/x-auth\r\nhost: evil.test\r\n"
            return f"HTTP/1.1 200 OK\r\n{more}content-length: 2\r\n\r\nok".encode()
        head = "HTTP/1.1 401 No\r\nwww-authenticate: Basic\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"
        head += "content-type: text/x-no\r\n"
        if "chunked" in target:
            return f"{head}transfer-encoding: chunked\r\n\r\n3\r\nsor\r\n2\r\nry\r\n0\r\n\r\n".encode()
        if "long" in target:
            return f"{head}content-length: 50000\r\n\r\n{'x' * 50_000}".encode()
        return f"{head}content-length: 5\r\n\r\nsorry".encode() if method != "HEAD" else f"{head}\r\n".encode()


def auth(name: str, **http: Any) -> Manifest:
    """The filter."""
    return {
        "type": "ExternalAuth",
        "externalAuth": {"protocol": "HTTP", "backendRef": {"name": name, "port": 80}, "http": http},
    }


def rule(where: str, *filters: Manifest, **more: Any) -> Manifest:
    """A rule with filters."""
    return {"matches": [path(where)], "backendRefs": [backend("web")], "filters": list(filters), **more}


async def test_nothing_passes_that_is_not_let_pass(dataplane: DataPlane, tmp_path: Path) -> None:
    async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    silent = await asyncio.start_server(be_silent, "127.0.0.1", free_port())
    change = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "x-user", "value": "more"}]}}
    away = {
        "type": "RequestRedirect",
        "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}},
    }
    cors = {"type": "CORS", "cors": {"allowOrigins": ["https://a.test"]}}
    rules = [
        rule("/all", auth("authority")),
        rule(
            "/some",
            change,
            auth("authority", path="/check/", allowedHeaders=["X-Tenant"], allowedResponseHeaders=["X-User"]),
        ),
        rule("/away", away, auth("authority"), backendRefs=[]),
        rule("/cors", cors, auth("authority")),
        rule("/own", backendRefs=[{**backend("web"), "filters": [auth("authority")]}]),
        rule("/both", auth("authority"), backendRefs=[{**backend("web"), "filters": [auth("refusing")]}]),
        *(rule(f"/{name}", auth(name)) for name in ("gone", "idle", "refusing", "silent")),
        rule("/free"),
    ]
    async with silent, Authority() as authority:
        addresses = {"authority": authority.port, "refusing": free_port(), "silent": silent.sockets[0].getsockname()[1]}
        parts = [
            part for name, at in addresses.items() for part in (service(name), *endpoints(name, [("127.0.0.1", at)]))
        ]
        async with (
            running(dataplane, tmp_path, http_route("r", rules), *parts) as site,
            Connection(site.port) as connection,
        ):
            good = (("Authorization", "good"), ("x-user", "forged"), ("x-tenant", "t"), ("x-secret", "s"))
            for method in ("GET", "POST", "DELETE", "HEAD"):
                answer = await connection.send(Request(method, "a.test", "/all/x%2Fy", "q=1", good))
                assert answer.status == 200
                asked = authority.asked[-1]
                assert (asked["method"], asked["path"], asked["query"]) == (method, "/all/x%2Fy", "q=1")
                assert asked["headers"] == {"host": ["a.test"], "authorization": ["good"], "content-length": ["0"]}
                if method != "HEAD":
                    received = answer.json()["headers"]
                    assert (received["x-user"], received["x-other"], received["host"]) == (
                        ["ann", "bob"],
                        ["1"],
                        ["a.test"],
                    )
                    assert "content-type" not in received
            answer = await connection.send(Request("GET", "a.test", "/some", "", good))
            assert (authority.asked[-1]["path"], authority.asked[-1]["headers"]["x-tenant"]) == ("/check/some", ["t"])
            received = answer.json()["headers"]
            assert (received["x-user"], "x-other" in received, received["x-secret"]) == (
                ["ann", "bob", "more"],
                False,
                ["s"],
            )

            for where, body in (("/all", b"sorry"), ("/all/chunked", b"sorry"), ("/all/long", b""), ("/own", b"sorry")):
                before = authority.requests
                answer = await connection.send(get(where))
                assert (answer.status, answer.body, authority.requests) == (401, body, before + 1)
                assert (answer.headers["www-authenticate"], answer.headers["content-type"]) == ("Basic", "text/x-no")
                assert answer.values("set-cookie") == ["a=1", "b=2"]
            assert (await connection.send(Request("HEAD", "a.test", "/all"))).status == 401
            assert (await connection.send(get("/away"))).status == 401
            answer = await connection.send(Request("GET", "a.test", "/away", "", good))
            assert (answer.status, answer.headers["location"]) == (302, f"http://a.test:{site.port}/x")

            preflight = (("origin", "https://a.test"), ("access-control-request-method", "PUT"))
            assert (await connection.send(Request("OPTIONS", "a.test", "/cors", "", preflight))).status == 204
            answer = await connection.send(get("/cors", origin="https://a.test"))
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, "https://a.test")

            found = {}
            for where in ("/gone", "/idle", "/refusing", "/both", "/silent", "/free"):
                found[where] = (await connection.send(Request("GET", "a.test", where, "", good))).status
            assert found == {"/gone": 500, "/idle": 503, "/refusing": 503, "/both": 503, "/silent": 504, "/free": 200}
            big = "x" * 9000
            assert (await connection.send(get("/all", authorization="good", x_big=big))).status == 200


async def test_rows_that_are_missing_let_nothing_pass(dataplane: DataPlane, tmp_path: Path) -> None:
    """Somebody has deleted them; gwctl puts them back in a moment."""
    async with Authority() as authority, serving(dataplane, tmp_path) as site, Connection(site.port) as connection:
        parts = service("authority"), *endpoints("authority", [("127.0.0.1", authority.port)])
        await site.apply(http_route("r", [rule("/", auth("authority"))]), *parts)
        for table in (Table.FILTERS, Table.AUTHS):
            assert (await connection.send(get("/"))).status == 401
            await dataplane.runtime(f"clear map {dataplane.folder}/maps/{table}")
            async with asyncio.timeout(20):
                while (status := (await connection.send(get("/"))).status) != 401:
                    assert status in (500, 503)
