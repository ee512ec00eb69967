"""An HTTP/1.1 client that sends exactly the bytes it is given; ordinary clients normalise paths and headers."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from gwctl.routing.request import Request


@dataclass(frozen=True)
class Response:
    """A response. ``lines`` are its headers as they came; in ``headers`` the last of equal names counts."""

    status: int
    headers: dict[str, str]
    body: bytes
    lines: tuple[tuple[str, str], ...] = ()

    def values(self, name: str) -> list[str]:
        """Give the values of a header, in lower case, in the order in which they came."""
        return [value for key, value in self.lines if key == name]

    def json(self) -> Any:
        """The body as JSON, which is what `EchoBackend` answers with."""
        return json.loads(self.body)


class Connection:
    """One kept-alive connection; it opens itself again after the server has closed it.

    With ``tls`` it names ``server_name`` in the handshake, or nothing when that is empty, and checks no certificate.
    """

    def __init__(
        self, port: int, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None, server_name: str = ""
    ) -> None:
        self.address = (host, port)
        self._tls = {"ssl": tls, "server_hostname": server_name or host} if tls is not None else {}
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, request: Request) -> Response:
        """Send a request and read its response. Raises OSError or EOFError when the connection breaks."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self.address, **self._tls)  # type: ignore[arg-type]
        reader, writer = self._streams
        try:
            writer.write(_render(request))
            response = await _read(reader, request.method)
        except BaseException:
            await self.close()
            raise
        if response.headers.get("connection", "").lower() == "close":
            await self.close()
        return response

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the server has shown, None while there is no connection."""
        if self._streams is None:
            return None
        shown: bytes | None = self._streams[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
        return shown

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


WEBSOCKET = (
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-version", "13"),
)
"""The headers that ask for a WebSocket (RFC 6455, section 4.1)."""


@asynccontextmanager
async def websocket(port: int, request: Request) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a WebSocket, without frames: what is written is sent as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_render(replace(request, headers=(*request.headers, *WEBSOCKET))))
        response = await _read(reader, request.method)
        assert response.status == 101, response
        yield reader, writer
    finally:
        writer.close()


async def fetch(port: int, request: Request) -> Response:
    """Send one request on a connection of its own."""
    async with Connection(port) as connection:
        return await connection.send(request)


def _render(request: Request) -> bytes:
    target = request.path + (f"?{request.query}" if request.query else "")
    lines = [f"{request.method} {target} HTTP/1.1", f"host: {request.host}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.method in ("POST", "PUT"):
        lines.append("content-length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read(reader: asyncio.StreamReader, method: str) -> Response:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    status = int(first.split(" ")[1])
    pairs = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    headers = dict(pairs)
    body = b""
    if method == "HEAD" or status in (101, 204, 304):
        pass
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Response(status, headers, body, pairs)
