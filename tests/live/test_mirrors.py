"""Mirrors against the real HAProxy: copies arrive, and no client notices what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gwctl.haproxy.filtering import BODY_MILLISECONDS
from gwctl.routing.request import Request
from tests.grpcecho import END, Call, GrpcClient, GrpcEcho
from tests.harness import DataPlane, EchoBackend, TcpServer, free_port
from tests.http1 import Connection, fetch
from tests.live.site import Site, get, path, running
from tests.manifests import Manifest, backend, endpoints, grpc_route, http_route, service


class Recorder(EchoBackend):
    """A backend that keeps what it has received, each as it would answer it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def note(self, reply: dict[str, Any]) -> None:
        """Keep a request."""
        self.received.put_nowait(reply)

    async def next(self) -> dict[str, Any]:
        """Wait for the next request."""
        async with asyncio.timeout(10):
            return await self.received.get()


def mirror(name: str, **fields: Any) -> Manifest:
    """A mirror filter."""
    return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}, **fields}}


def headers(value: str) -> Manifest:
    """A filter that sets a header."""
    change = {"set": [{"name": "x-a", "value": value}]}
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": change}


def rule(where: str, *filters: Manifest, backends: tuple[Manifest, ...] = (backend("web"),)) -> Manifest:
    """A rule of a path with filters."""
    return {"matches": [path(where)], "filters": list(filters), "backendRefs": list(backends)}


@asynccontextmanager
async def mirroring(
    dataplane: DataPlane, folder: Path, *rules: Manifest, **services: tuple[str, int]
) -> AsyncIterator[tuple[Site, Recorder, Recorder]]:
    """Run gwctl with rules and two Services, ``one`` and ``two``, that record what they get; others by address."""
    async with Recorder("one") as one, Recorder("two") as two:
        addresses = {"one": ("127.0.0.1", one.port), "two": ("127.0.0.1", two.port), **services}
        parts = [part for name, at in addresses.items() for part in (service(name), *endpoints(name, [at]))]
        async with running(dataplane, folder, http_route("r", list(rules)), *parts) as site:
            yield site, one, two


async def test_copies_are_what_the_filters_before_the_mirror_made(dataplane: DataPlane, tmp_path: Path) -> None:
    rewrite = {
        "type": "URLRewrite",
        "urlRewrite": {"hostname": "inside.test", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}},
    }
    own = {**backend("web"), "filters": [headers("own"), mirror("two")]}
    rules = [
        rule("/plain", mirror("one"), mirror("two")),
        rule("/changed", rewrite, mirror("one"), headers("rule"), mirror("two")),
        rule("/own", headers("rule"), mirror("one"), backends=(own,)),
    ]
    sent = (("x-list", "1"), ("x-list", "2"), ("X-Forwarded-For", "192.0.2.1"), ("te", "trailers"))
    async with mirroring(dataplane, tmp_path, *rules) as (site, one, two), Connection(site.port) as connection:
        for method in ("GET", "POST", "PATCH", "OPTIONS"):
            await connection.send(Request(method, "a.test:80", "/plain/a%2Fb", "q=1&r=%20", sent))
            for recorder in (one, two):
                copy = await recorder.next()
                assert (copy["method"], copy["path"], copy["query"]) == (method, "/plain/a%2Fb", "q=1&r=%20")
                assert copy["headers"]["host"] == ["a.test:80"]
                assert copy["headers"]["x-list"] == ["1", "2"]
                assert copy["headers"]["x-forwarded-for"] == ["192.0.2.1", "127.0.0.1"]
                assert not {"gwctl-loop", "te", "expect"} & set(copy["headers"])
        await connection.send(get("/changed/x?q"))
        first, second = await one.next(), await two.next()
        for copy in (first, second):
            assert (copy["path"], copy["query"], copy["headers"]["host"]) == ("/new/x", "q", ["inside.test"])
        assert (first["headers"].get("x-a"), second["headers"]["x-a"]) == (None, ["rule"])
        response = await connection.send(get("/own"))
        assert response.json()["headers"]["x-a"] == ["own"]
        assert ((await one.next())["headers"]["x-a"], (await two.next())["headers"]["x-a"]) == (["rule"], ["own"])


async def test_bodies_are_mirrored_where_they_fit_into_a_buffer(dataplane: DataPlane, tmp_path: Path) -> None:
    async with mirroring(dataplane, tmp_path, rule("/", mirror("one"))) as (site, one, _):
        for length in (0, 1, 5000, 12_000):
            await post(site.port, length)
            assert (await one.next())["body_length"] == length
        await post(site.port, 200_000)
        await post(site.port, 9, chunked=True, pause=1)
        await post(site.port, 5, chunked=True)
        assert (await one.next())["body_length"] == 5
        await post(site.port, 7)
        assert (await one.next())["body_length"] == 7
        assert one.received.empty()


async def test_a_client_that_sends_slowly_is_waited_for_and_a_silent_one_is_not(
    dataplane: DataPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gwctl.haproxy.program._MINUTE", 1_000)
    assert BODY_MILLISECONDS >= 60 * 60 * 1_000
    rules = [
        rule("/mirror", mirror("one")),
        {"matches": [path("/retry")], "retry": {}, "backendRefs": [backend("web")]},
    ]
    async with mirroring(dataplane, tmp_path, *rules) as (site, _, _), asyncio.timeout(20):
        for where in ("/mirror", "/retry"):
            for pieces, status in ((6, b"HTTP/1.1 200"), (3, b"HTTP/1.1 408")):
                reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
                writer.write(f"POST {where} HTTP/1.1\r\nhost: a.test\r\ncontent-length: 6\r\n\r\n".encode())
                for _ in range(pieces):
                    writer.write(b"x")
                    await asyncio.sleep(0.3)
                assert (await reader.readline()).startswith(status), (where, pieces)
                writer.close()


async def post(port: int, length: int, chunked: bool = False, pause: float = 0) -> None:
    """Send a body, a little late but for chunks without a pause, and wait for the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {length}"
    head = f"POST / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n{framing}\r\n\r\n".encode()
    body = b"x" * length
    body = f"{length:x}\r\n".encode() + body + b"\r\n0\r\n\r\n" if chunked else body
    for part in (head + body,) if chunked and not pause else (head, body):
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer


async def test_calls_of_grpc_are_mirrored_and_streams_do_not_wait(dataplane: DataPlane, tmp_path: Path) -> None:
    """A unary call is one message, and comes at once; a stream would never be whole."""
    async with GrpcEcho("main") as main, GrpcEcho("shadow") as shadow:
        parts = [service("main"), *endpoints("main", [("127.0.0.1", main.port)])]
        parts += [service("shadow"), *endpoints("shadow", [("127.0.0.1", shadow.port)])]
        own: Manifest = {"backendRefs": [backend("main")], "filters": [mirror("shadow")]}
        async with (
            running(dataplane, tmp_path, grpc_route("r", [own]), *parts) as site,
            GrpcClient(site.port) as client,
        ):
            for number in range(1, 6):
                reply = await client.call(Call("/a.B/C", body=bytes(2000 * number)))
                assert (reply.code, reply.backend) == ("OK", "main")
                assert await until(lambda: shadow.calls == number)  # noqa: B023
            assert shadow.lengths == [2000, 4000, 6000, 8000, 10_000]
            chat = client.channel().stream_stream("/a.B/Chat")(timeout=20)
            for _ in range(3):
                await chat.write(b"hello")
                assert await chat.read() == b"hello"
            await chat.done_writing()
            assert await chat.read() == END
            assert await until_metrics(site, "gwctl_mirror_losses_total 1.0")
            assert shadow.calls == 5


async def until_metrics(site: Site, line: str) -> bool:
    """Wait until the metrics hold a line."""
    async with asyncio.timeout(20):
        while line not in await site.gwctl.metrics():  # noqa: ASYNC110 (HAProxy is asked)
            await asyncio.sleep(0.1)
    return True


async def test_a_share_of_the_requests_is_mirrored(dataplane: DataPlane, tmp_path: Path) -> None:
    rules = [
        rule("/percent", mirror("one", percent=25), mirror("two", fraction={"numerator": 3, "denominator": 4})),
        rule("/none", mirror("one", percent=0), mirror("two", fraction={"numerator": 0, "denominator": 5})),
        rule("/end", mirror("one"), mirror("two")),
    ]
    async with mirroring(dataplane, tmp_path, *rules) as (site, one, two), Connection(site.port) as connection:
        for where in ("/none", "/percent"):
            for _ in range(400):
                await connection.send(get(where))
        # Six standard deviations around 100 and 300.
        assert await until(lambda: 48 < one.requests < 152)
        assert await until(lambda: 248 < two.requests < 352)
        assert (one.paths["/none"], two.paths["/none"]) == (0, 0)


async def until(condition: Callable[[], bool]) -> bool:
    """Wait until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (another process decides)
            await asyncio.sleep(0.01)
    return True


async def test_clients_never_notice_a_mirror(dataplane: DataPlane, tmp_path: Path) -> None:
    """Missing, without endpoints, refusing, silent, breaking off, or talking without end."""
    endless = bytes(1 << 16)

    async def be_silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {1 << 40}\r\n\r\n".encode())
        while True:
            writer.write(endless)
            await writer.drain()

    handlers = {"silent": be_silent, "breaking": break_off, "talking": talk}
    servers = {name: TcpServer(handle, free_port()) for name, handle in handlers.items()}
    addresses = {name: ("127.0.0.1", server.port) for name, server in servers.items()}
    names = ("gone", "idle", "refusing", *addresses)
    rules = [rule(f"/{name}", mirror(name)) for name in names]
    rules.append(rule("/all", *(mirror(name) for name in names)))
    async with AsyncExitStack() as stack:
        for server in servers.values():
            await stack.enter_async_context(server)
        refusing = ("127.0.0.1", free_port())
        async with mirroring(dataplane, tmp_path, *rules, **addresses, refusing=refusing) as (site, _, _):
            async with asyncio.timeout(20), Connection(site.port) as connection:
                for _ in range(30):
                    for where in (*names, "all"):
                        assert (await connection.send(get(f"/{where}"))).status == 200, where
            # Far more than there are places for copies.
            async with asyncio.timeout(20):
                answers = await asyncio.gather(*(fetch(site.port, get("/silent")) for _ in range(300)))
                assert {answer.status for answer in answers} == {200}
            async with asyncio.timeout(20):
                while "gwctl_mirror_losses_total 0.0" in await site.gwctl.metrics():  # noqa: ASYNC110 (HAProxy is asked)
                    await asyncio.sleep(0.1)
