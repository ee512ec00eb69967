"""One HTTP port for /metrics, /livez and /readyz.

The server speaks as much HTTP/1.1 as probes and Prometheus need: GET and HEAD, one request on a connection.
The surprising fact: it runs in the event loop of everything else, so that an answer also says that the loop
turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

from gwctl.runtime.config import split_address
from gwctl.runtime.metrics import Metrics

_SECONDS = 10.0
_HEAD_LIMIT = 16_384
_TEXT = "text/plain; charset=utf-8"


class ListenError(Exception):
    """The address cannot be listened on. The message is one sentence."""


@dataclass(slots=True)
class Health:
    """What probes are told.

    ``reason`` says why it is not ready, ``waiting_for`` is asked what is missing; ``alive`` is asked at each /livez.
    """

    ready: bool = False
    reason: str = "the first state has not been applied yet"
    alive: Callable[[], bool] = field(default=lambda: True)
    stopping: bool = False
    waiting_for: Callable[[], str] = field(default=lambda: "")

    def set_ready(self) -> None:
        """Tell that everything is applied and read back."""
        if not self.stopping:
            self.ready, self.reason = True, ""

    def stop(self) -> None:
        """Tell, for good, that traffic should go elsewhere because gwctl stops."""
        self.stopping = True
        self.set_not_ready("gwctl is stopping")

    def set_not_ready(self, reason: str) -> None:
        """Tell why traffic should go elsewhere."""
        self.ready, self.reason = False, reason


@dataclass(frozen=True, slots=True)
class _Response:
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT
    headers: tuple[str, ...] = ()


@asynccontextmanager
async def serve_health(address: str, metrics: Metrics, health: Health) -> AsyncIterator[int]:
    """Serve while the context lasts; gives the port (``:0``: any). Raises `ListenError`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                writer.write(await _answer(reader, metrics, health))
                await writer.drain()
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.close()

    host, port = split_address(address)
    try:
        server = await asyncio.start_server(serve, host, port, limit=_HEAD_LIMIT)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from None
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, metrics: Metrics, health: Health) -> bytes:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        return _encode(_plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
    except asyncio.IncompleteReadError as error:
        return _encode(_plain(HTTPStatus.BAD_REQUEST)) if error.partial else b""
    request, *lines = head.split("\r\n")
    parts = request.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return _encode(_plain(HTTPStatus.BAD_REQUEST))
    method, target, _ = parts
    if method not in ("GET", "HEAD"):
        return _encode(_plain(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow: GET, HEAD",)))
    headers = (line.partition(":") for line in lines)
    accept = ",".join(value.strip() for name, _, value in headers if name.lower() == "accept")
    response = _route(target.partition("?")[0], accept, metrics, health)
    return _encode(response, with_body=method == "GET")


def _route(path: str, accept: str, metrics: Metrics, health: Health) -> _Response:
    match path:
        case "/metrics":
            return _Response(HTTPStatus.OK, *metrics.expose(accept))
        case "/livez":
            return _plain(HTTPStatus.OK) if health.alive() else _plain(HTTPStatus.SERVICE_UNAVAILABLE)
        case "/readyz" if not health.ready:
            missing = health.waiting_for()
            waiting = f", waiting for {missing}" if missing else ""
            return _Response(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {health.reason}{waiting}\n".encode())
        case "/readyz":
            return _plain(HTTPStatus.OK)
        case _:
            return _plain(HTTPStatus.NOT_FOUND)


def _plain(status: HTTPStatus, headers: tuple[str, ...] = ()) -> _Response:
    text = "ok" if status is HTTPStatus.OK else status.phrase
    return _Response(status, f"{text}\n".encode(), headers=headers)


def _encode(response: _Response, with_body: bool = True) -> bytes:
    lines = (
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        *response.headers,
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode("latin-1") + (response.body if with_body else b"")
