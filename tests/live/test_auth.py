"""The filter ExternalAuth against the real HAProxy: what is asked, what answers do, and that nothing passes without."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from gwctl.haproxy.names import Table
from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, TcpServer, free_port
from tests.http1 import Connection, fetch
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
        if b"/drip" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 8000\r\n\r\n")
            gone = asyncio.create_task(reader.read())
            while not gone.done():
                writer.write(b"x")
                await asyncio.wait([gone], timeout=0.2)
        await reader.read()

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
    async with TcpServer(be_silent) as silent, Authority() as authority:
        addresses = {"authority": authority.port, "refusing": free_port(), "silent": silent.port}
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

            answer = await connection.send(get("/all", content_type="application/grpc"))
            assert (answer.status, answer.headers["grpc-status"], answer.body) == (200, "16", b"")

            drip = asyncio.create_task(fetch(site.port, get("/silent/drip")))
            found = {}
            for where in ("/gone", "/idle", "/refusing", "/both", "/silent", "/free"):
                found[where] = (await connection.send(Request("GET", "a.test", where, "", good))).status
            assert found == {"/gone": 500, "/idle": 503, "/refusing": 503, "/both": 503, "/silent": 504, "/free": 200}
            async with asyncio.timeout(20):
                assert (await drip).status == 504, "whatever is sent, an answer that does not end is none"
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


async def test_a_slow_service_gets_no_more_questions_than_there_are_places(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    """And clients that give up leave their places to others."""
    asked: set[asyncio.StreamWriter] = set()

    async def answer_some(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if b"/fast" in await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            else:
                asked.add(writer)
            await reader.read()
        finally:
            asked.discard(writer)

    slow = TcpServer(answer_some, free_port())
    parts = [service("slow"), *endpoints("slow", [("127.0.0.1", slow.port)])]
    rules = [rule("/", auth("slow")), rule("/free")]
    async with slow, running(dataplane, tmp_path, http_route("r", rules), *parts) as site, asyncio.timeout(60):
        info = dict(line.split(": ", 1) for line in (await dataplane.runtime("show info")).splitlines() if ": " in line)
        places = 50 * int(info["Nbthread"])
        for _ in range(3):
            async with AsyncExitStack() as clients:
                for _ in range(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
                    clients.push_async_callback(_give_up, writer)
                    writer.write(_hundred_requests("/slow"))
                    await _read_an_answer(reader)
                assert 0 < len(asked) <= places
                assert (await fetch(site.port, get("/free"))).status == 200
            for _ in range(20):
                while (status := (await fetch(site.port, get("/fast"))).status) != 200:
                    assert status == 503


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _hundred_requests(where: str) -> bytes:
    """All that an HTTP/2 client says who asks for a path a hundred times."""
    fields = ((":method", "GET"), (":scheme", "http"), (":path", where), (":authority", "a.test"))
    block = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode() for name, value in fields
    )
    requests = b"".join(_frame(1, 5, 2 * index + 1, block) for index in range(100))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + requests


async def _give_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _read_an_answer(reader: asyncio.StreamReader) -> None:
    """Wait until one of them has an answer: of a hundred some always find no place."""
    kind = None
    while kind != 1:
        head = await reader.readexactly(9)
        kind = head[3]
        await reader.readexactly(int.from_bytes(head[:3], "big"))


async def test_a_request_that_waits_while_its_route_changes_is_changed_as_it_was_to_be(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    may_answer, is_asked = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        is_asked.set()
        await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    waiting = TcpServer(wait, free_port())
    parts = [service("waiting"), *endpoints("waiting", [("127.0.0.1", waiting.port)])]
    change: Manifest = {"set": [{"name": "x-tenant", "value": "one"}], "remove": ["x-admin"]}
    filters: list[Manifest] = [
        auth("waiting"),
        {"type": "RequestHeaderModifier", "requestHeaderModifier": change},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-seen", "value": "one"}]}},
    ]
    async with (
        waiting,
        running(
            dataplane, tmp_path, http_route("r", [rule("/", *filters), rule("/kept", auth("waiting"))]), *parts
        ) as site,
        asyncio.timeout(20),
    ):
        held = asyncio.create_task(fetch(site.port, get("/", x_admin="yes")))
        await is_asked.wait()
        await site.apply(http_route("r", [rule("/kept", auth("waiting"))]), *parts)
        may_answer.set()
        answer = await held
        assert (answer.status, answer.headers["x-seen"]) == (200, "one")
        received = answer.json()["headers"]
        assert (received["x-tenant"], "x-admin" in received) == (["one"], False)


async def test_a_slot_that_changed_hands_while_a_request_waited_gets_none_of_another_service(
    dataplane: DataPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gwctl.runtime.reconciler._REST_SECONDS", 0.0)
    asked, released = asyncio.Event(), asyncio.Event()

    async def let_pass_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await released.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    authority = await asyncio.start_server(let_pass_later, "127.0.0.1", free_port())

    def manifests(name: str, port: int) -> list[Manifest]:
        rules = [rule("/", auth("authority"), backendRefs=[backend(name)])]
        to_authority = endpoints("authority", [("127.0.0.1", authority.sockets[0].getsockname()[1])])
        to_backend = [service(name), *endpoints(name, [("127.0.0.1", port)])]
        return [http_route("r", rules), service("authority"), *to_authority, *to_backend]

    async with (
        authority,
        EchoBackend("old") as old,
        EchoBackend("new") as new,
        running(dataplane, tmp_path, *manifests("old", old.port)) as site,
        asyncio.timeout(20),
    ):
        slots = (await dataplane.runtime(f"show map {dataplane.folder}/maps/{Table.SERVICES}")).splitlines()
        request = asyncio.create_task(fetch(site.port, get("/")))
        await asked.wait()
        # The Service goes with the routes; with the next change its slot is free.
        await site.apply(service("authority"))
        await site.apply(service("authority"), service("another"))
        await site.apply(*manifests("new", new.port))
        released.set()
        assert (await request).status == 503
        assert (await fetch(site.port, get("/"))).json()["name"] == "new"
        changed = (await dataplane.runtime(f"show map {dataplane.folder}/maps/{Table.SERVICES}")).splitlines()
        taken = {line.split()[2] for line in slots if "default/old/80" in line}
        assert taken == {line.split()[2] for line in changed if "default/new/80" in line}
