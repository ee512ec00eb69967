"""Timeouts of rules against the real HAProxy: 504 in time, and nothing cut that they are not meant for."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import pytest

from tests.harness import DataPlane, free_port
from tests.http1 import Response, fetch
from tests.live.site import get, path, running
from tests.manifests import Manifest, backend, endpoints, http_route, service

ENOUGH = 5.0
"""Seconds within which a slow machine answers what is not delayed."""


def rule(where: str, name: str = "web", **timeouts: str) -> Manifest:
    """A rule with timeouts."""
    return {"matches": [path(where)], "backendRefs": [backend(name)], "timeouts": timeouts}


async def timed(port: int, target: str) -> tuple[Response, float]:
    """Send a request; give the response and how many seconds it took."""
    start = perf_counter()
    response = await fetch(port, get(target))
    return response, perf_counter() - start


async def test_a_backend_that_is_too_slow_is_answered_504(dataplane: DataPlane, tmp_path: Path) -> None:
    rules = [
        rule("/request", request="300ms"),
        rule("/backend", backendRequest="300ms"),
        rule("/both", request="20s", backendRequest="300ms"),
        rule("/never", request="0s"),
        rule("/never-backend", backendRequest="0s"),
        rule("/request-alone", request="300ms", backendRequest="0s"),
        rule("/backend-alone", request="0s", backendRequest="300ms"),
        rule("/unset"),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules)) as site:
        for where in ("/request", "/backend", "/both", "/request-alone", "/backend-alone"):
            response, seconds = await timed(site.port, f"{where}?delay=20")
            assert response.status == 504, where
            assert 0.3 <= seconds < ENOUGH, (where, seconds)
            assert (await fetch(site.port, get(where))).status == 200, where
        for where in ("/never", "/never-backend", "/unset"):
            response, seconds = await timed(site.port, f"{where}?delay=0.5")
            assert response.status == 200, where


async def test_waiting_for_a_connection_is_a_part_of_the_time(dataplane: DataPlane, tmp_path: Path) -> None:
    """A full backlog drops connections, as a machine that is gone does; one that refuses them is answered 503."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", free_port()))
        full.listen(0)
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        closed = [service("closed"), *endpoints("closed", [("127.0.0.1", free_port())])]
        silent = [service("silent"), *endpoints("silent", [full.getsockname()])]
        rules = [rule("/silent", "silent", request="700ms"), rule("/closed", "closed", request="700ms")]
        async with running(dataplane, tmp_path, http_route("r", rules), *closed, *silent) as site:
            response, seconds = await timed(site.port, "/silent")
            assert response.status == 504
            assert 0.4 < seconds < ENOUGH
            assert (await fetch(site.port, get("/closed"))).status == 503


@pytest.mark.parametrize("which", ["request", "backendRequest"])
async def test_an_upload_is_not_cut_and_an_upgraded_connection_lives_on(
    dataplane: DataPlane, tmp_path: Path, which: str
) -> None:
    """The timeout runs from the end of the request to the answer."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        server = await asyncio.start_server(_switch_protocols, "127.0.0.1", port := free_port())
        upgrading = [service("upgrading"), *endpoints("upgrading", [("127.0.0.1", port)])]
        rules = [rule("/upload", **{which: "300ms"}), rule("/upgrade", "upgrading", **{which: "300ms"})]
        async with server, running(dataplane, tmp_path, http_route("r", rules), *upgrading) as site:
            upload = tasks.create_task(_upload(site.port))
            upgrade = tasks.create_task(_upgrade(site.port))
            assert (await upload).startswith(b"HTTP/1.1 200")
            assert await upgrade == b"still here"


async def _upload(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /upload HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\ncontent-length: 10\r\n\r\n")
    for _ in range(10):
        await asyncio.sleep(0.1)
        writer.write(b"x")
    answer = await reader.read()
    writer.close()
    return answer


async def _upgrade(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /upgrade HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    await asyncio.sleep(1)
    writer.write(b"still here")
    answer = await reader.readexactly(10)
    writer.close()
    return answer


async def _switch_protocols(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
