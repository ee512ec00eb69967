"""Retries against the real HAProxy: what is tried again, how often and when, and what clients get in the end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, TcpServer, free_port
from tests.http1 import Connection, fetch, websocket
from tests.live.site import Site, get, path, running
from tests.manifests import Manifest, backend, endpoints, http_route, service

ENOUGH = 5.0
"""Seconds within which a slow machine answers what is not delayed."""


class Flaky(EchoBackend):
    """A backend whose answers to one path have the statuses of a list, and 200 after its end.

    ``received`` holds what came in, and ``times`` when.
    """

    def __init__(self, *statuses: int) -> None:
        super().__init__("flaky")
        self.statuses = list(statuses)
        self.received: list[dict[str, Any]] = []
        self.times: list[float] = []

    def note(self, reply: dict[str, Any]) -> None:
        """Keep a request."""
        self.received.append(dict(reply))
        self.times.append(perf_counter())

    def answer(self, method: str, target: str, headers: Any, body_length: int) -> bytes:
        """Answer with the next status."""
        answer = super().answer(method, target, headers, body_length)
        return answer.replace(b" 200 ", b" %d " % self.statuses.pop(0), 1) if self.statuses else answer

    def expect(self, *statuses: int) -> None:
        """Forget what came in, and answer with these statuses first."""
        self.statuses = list(statuses)
        self.received.clear()
        self.times.clear()


def rule(where: str, attempts: int | None = None, *codes: int, **more: Any) -> Manifest:
    """A rule with retries."""
    retry = {**({"attempts": attempts} if attempts is not None else {}), **({"codes": list(codes)} if codes else {})}
    if "backoff" in more:
        retry["backoff"] = more.pop("backoff")
    return {"matches": [path(where)], "backendRefs": [backend("flaky")], "retry": retry, **more}


@asynccontextmanager
async def retrying(
    dataplane: DataPlane, folder: Path, *routes: list[Manifest], others: tuple[tuple[str, int], ...] = ()
) -> AsyncIterator[tuple[Site, Flaky]]:
    """Run gwctl with the rules of routes upon a flaky backend; its Service has other endpoints too."""
    async with Flaky() as flaky:
        addresses = [("127.0.0.1", flaky.port), *others]
        parts = [service("flaky"), *endpoints("flaky", addresses)]
        found = [http_route(f"r{index}", rules) for index, rules in enumerate(routes)]
        async with running(dataplane, folder, *found, *parts) as site:
            yield site, flaky


async def test_codes(dataplane: DataPlane, tmp_path: Path) -> None:
    codes = (500, 502, 503, 504, 400, 404, 425, 429, 599)
    rules = [rule("/other", 3, 507), rule("/none", 3), rule("/zero", 0, *codes)]
    for code in codes:
        rules += [rule(f"/some/{code}", 2, code), rule(f"/once/{code}", None, code, 501)]
    async with retrying(dataplane, tmp_path, rules[:14], rules[14:]) as (site, flaky), Connection(site.port) as client:
        for code, (where, failures, status, tries) in itertools.product(
            codes,
            (
                ("/some/{}", 1, 200, 2),
                ("/some/{}", 2, 200, 3),
                ("/some/{}", 3, 0, 3),
                ("/once/{}", 1, 200, 2),
                ("/once/{}", 2, 0, 2),
                ("/other", 1, 0, 1),
                ("/none", 1, 0, 1),
                ("/zero", 1, 0, 1),
            ),
        ):
            flaky.expect(*[code] * failures)
            response = await client.send(get(where.format(code)))
            assert (response.status, len(flaky.received)) == (status or code, tries), (where, code, failures)
            assert response.json()["name"] == "flaky"
            assert "gwctl-status" not in response.headers


async def test_an_attempt_is_the_same_request_again(dataplane: DataPlane, tmp_path: Path) -> None:
    filters: list[Manifest] = [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"add": [{"name": "x-a", "value": "1"}]}},
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x-b", "value": "1"}]}},
        {
            "type": "URLRewrite",
            "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/old/old"}},
        },
    ]
    plain = {"matches": [path("/plain")], "backendRefs": [backend("web")]}
    async with retrying(dataplane, tmp_path, [rule("/old", 3, 503, filters=filters), plain]) as (site, flaky):
        assert "gwctl-loop" not in (await fetch(site.port, get("/plain", gwctl_loop="forged"))).json()["headers"]
        flaky.expect(503)
        answer = await fetch(site.port, get("/old", content_type="application/grpc"))
        assert (answer.status, len(flaky.received)) == (503, 1), "a call is never sent again"
        flaky.expect(503, 503)
        request = Request("PUT", "a.test", "/old/x%2Fy", "q=%20", (("gwctl-loop", "attempt|forged"),))
        response = await fetch(site.port, request)
        assert response.values("x-b") == ["1"]
        assert len(flaky.received) == 3
        for received in flaky.received:
            assert received == flaky.received[0]
        assert (received["method"], received["path"], received["query"]) == ("PUT", "/old/old/x%2Fy", "q=%20")
        headers = received["headers"]
        assert (headers["x-a"], headers["host"], headers["x-forwarded-for"]) == (["1"], ["a.test"], ["127.0.0.1"])
        assert not [name for name in headers if name.startswith("gwctl")]


async def test_a_client_that_does_not_read_holds_up_no_other(dataplane: DataPlane, tmp_path: Path) -> None:
    async def send_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(50_000))
            await writer.drain()

    endless = TcpServer(send_without_end, free_port())
    parts = [service("endless"), *endpoints("endless", [("127.0.0.1", endless.port)])]
    rules = [
        rule("/endless", 2, 503, backendRefs=[backend("endless")]),
        rule("/", 2, 503, backendRefs=[backend("web")]),
    ]
    async with endless, running(dataplane, tmp_path, http_route("r", rules), *parts) as site:
        idle = []
        for _ in range(4):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1000)
            writer.write(b"GET /endless HTTP/1.1\r\nhost: a.test\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            idle.append(writer)
        for _ in range(40):
            async with asyncio.timeout(ENOUGH):
                assert (await fetch(site.port, get("/"))).status == 200
        for writer in idle:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def test_bodies_that_fit_into_a_buffer_are_sent_again_and_others_once(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    async with retrying(dataplane, tmp_path, [rule("/", 2, 503)]) as (site, flaky):
        for length, tries in ((10_000, 3), (300_000, 1)):
            flaky.expect(503, 503)
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(
                f"POST / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n".encode()
            )
            writer.write(bytes(length))
            async with asyncio.timeout(ENOUGH):
                answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 200" if tries == 3 else b"HTTP/1.1 503"), length
            assert [received["body_length"] for received in flaky.received] == [length] * tries


async def test_pauses_come_before_every_attempt_but_the_first(dataplane: DataPlane, tmp_path: Path) -> None:
    rules = [rule("/", 3, 503, backoff="200ms"), rule("/long", 3, 503, backoff="1m")]
    async with retrying(dataplane, tmp_path, rules) as (site, flaky):
        async with asyncio.timeout(20):
            assert (await fetch(site.port, get("/long"))).status == 200
        flaky.expect(503, 503)
        assert (await fetch(site.port, get("/"))).status == 200
        first, second, third = flaky.times
        assert second - first >= 0.2
        assert third - second >= 0.2
        flaky.expect(*[503] * 4)
        assert (await fetch(site.port, get("/"))).status == 503
        assert len(flaky.times) == 4
        assert flaky.times[3] - flaky.times[0] >= 0.6


async def test_each_attempt_has_the_backends_timeout_and_all_together_the_requests(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    async def never_answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    silent = TcpServer(never_answer, free_port())
    parts = [service("silent"), *endpoints("silent", [("127.0.0.1", silent.port)])]
    to_silent = {"backendRefs": [backend("silent")]}
    rules = [
        rule("/backend", 2, timeouts={"backendRequest": "200ms"}, **to_silent),
        rule("/request", 9, timeouts={"request": "700ms", "backendRequest": "200ms"}, **to_silent),
        rule("/pause", 9, 503, backoff="10s", timeouts={"request": "500ms"}),
        rule("/alone", 9, timeouts={"request": "300ms"}, **to_silent),
    ]
    async with silent, Flaky() as flaky:
        parts += [service("flaky"), *endpoints("flaky", [("127.0.0.1", flaky.port)])]
        async with running(dataplane, tmp_path, http_route("r", rules), *parts) as site:
            for where, least in (("/backend", 0.6), ("/request", 0.7), ("/alone", 0.3), ("/pause", 0.5)):
                flaky.expect(503)
                start = perf_counter()
                response = await fetch(site.port, get(where))
                assert response.status == 504, where
                assert least <= perf_counter() - start < ENOUGH, where
            assert len(flaky.received) == 1


async def test_connections_that_fail_are_tried_again(dataplane: DataPlane, tmp_path: Path) -> None:
    """At another endpoint: refused, closed before the answer, closed within it."""

    async def close(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")

    async with TcpServer(close) as closing, TcpServer(break_off) as breaking:
        others = tuple(("127.0.0.1", port) for port in (free_port(), closing.port, breaking.port))
        async with retrying(dataplane, tmp_path, [rule("/", 4)], others=others) as (site, flaky):
            for _ in range(20):
                assert (await fetch(site.port, get("/"))).status == 200
            assert len(flaky.received) == 20


async def test_what_is_never_there_is_an_error_in_the_end(dataplane: DataPlane, tmp_path: Path) -> None:
    closed = [service("closed"), *endpoints("closed", [("127.0.0.1", free_port())])]
    rules = [
        rule("/closed", 3, 503, backendRefs=[backend("closed")]),
        rule("/idle", 3, 503, backoff="20s", backendRefs=[backend("idle")]),
        rule("/gone", 3, 500, backendRefs=[backend("gone")]),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules), *closed) as site, asyncio.timeout(ENOUGH):
        answers = [await fetch(site.port, get(where)) for where in ("/closed", "/idle", "/gone")]
        assert [answer.status for answer in answers] == [503, 503, 500]
        assert [answer.body for answer in answers[:2]] == 2 * [b"503 Service Unavailable\n"]


async def test_a_slot_that_changed_hands_during_a_pause_gets_no_attempt_of_another_service(
    dataplane: DataPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gwctl.runtime.reconciler._REST_SECONDS", 0.0)
    asked = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    old = await asyncio.start_server(refuse, "127.0.0.1", free_port())

    def manifests(name: str, port: int) -> list[Manifest]:
        rules = [rule("/", 1, 503, backoff="4s", backendRefs=[backend(name)])]
        return [http_route("r", rules), service(name), *endpoints(name, [("127.0.0.1", port)])]

    async with (
        old,
        EchoBackend("new") as new,
        running(dataplane, tmp_path, *manifests("old", old.sockets[0].getsockname()[1])) as site,
        asyncio.timeout(30),
    ):
        request = asyncio.create_task(fetch(site.port, get("/")))
        await asked.wait()
        # The Service goes with the routes; with the next change its slot is free.
        await site.apply(service("flaky"))
        await site.apply(service("flaky"), service("another"))
        await site.apply(*manifests("new", new.port))
        assert (await request).status == 503
        assert new.requests == 0


async def test_a_websocket_passes(dataplane: DataPlane, tmp_path: Path) -> None:
    rules = [
        rule("/retried", 2, 503, backendRefs=[backend("web")]),
        {"matches": [path("/")], "backendRefs": [backend("web")]},
    ]
    async with asyncio.timeout(20), running(dataplane, tmp_path, http_route("r", rules)) as site:
        for where in ("/", "/retried"):
            async with websocket(site.port, get(where)) as (reader, writer):
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
            await _open_websocket_over_http2(site.port, where)


async def _open_websocket_over_http2(port: int, where: str) -> None:
    """By an extended CONNECT (RFC 8441), in frames made by hand; status 200 is one byte of HPACK."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload

    fields = (
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", where),
        (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    )
    block = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode() for name, value in fields
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block))
    answered = False
    while True:
        head = await reader.readexactly(9)
        kind, payload = head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind == 1:
            assert payload[0] == 0x88, payload
            writer.write(frame(0, 0, 1, b"hello"))
            answered = True
        if kind == 0:
            break
    writer.close()
    assert answered
    assert payload == b"hello"
