"""Timeouts of rules against the real HAProxy: 504 in time, and nothing cut that they are not meant for."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Response, fetch, websocket
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


async def test_an_upload_is_not_cut_and_a_websocket_lives_on(dataplane: DataPlane, tmp_path: Path) -> None:
    """The timeout runs from the end of the request to the answer; with retries too."""
    to_socket = {"backendRefs": [backend("socket")]}
    both = {"request": "300ms", "backendRequest": "200ms"}
    rules = [
        rule("/upload/request", request="300ms"),
        rule("/upload/backend", backendRequest="300ms"),
        rule("/request", request="300ms") | to_socket,
        rule("/backend", backendRequest="300ms") | to_socket,
        rule("/retry", **both) | to_socket | {"retry": {"attempts": 2, "codes": [503]}},
        rule("/mirror", **both)
        | to_socket
        | {"filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}}}]},
    ]
    socket_service = service("socket")
    socket_service["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/ws"
    async with EchoBackend("socket") as echo, asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        parts = [socket_service, *endpoints("socket", [("127.0.0.1", echo.port)])]
        async with running(dataplane, tmp_path, http_route("r", rules), *parts) as site:
            uploads = [tasks.create_task(_upload(site.port, f"/upload/{name}")) for name in ("request", "backend")]
            names = ("/request", "/backend", "/retry", "/mirror")
            sockets = [tasks.create_task(_be_silent_and_talk(site.port, name)) for name in names]
            assert [(await upload)[:12] for upload in uploads] == [b"HTTP/1.1 200"] * 2
            assert [await socket for socket in sockets] == [b"still here"] * 4


async def _upload(port: int, target: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {target} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\ncontent-length: 10\r\n\r\n".encode())
    for _ in range(10):
        await asyncio.sleep(0.1)
        writer.write(b"x")
    answer = await reader.read()
    writer.close()
    return answer


async def _be_silent_and_talk(port: int, target: str) -> bytes:
    async with websocket(port, get(target)) as (reader, writer):
        await asyncio.sleep(1)
        writer.write(b"still here")
        return await reader.readexactly(10)
