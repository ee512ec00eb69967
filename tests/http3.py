"""HTTP/3 as a client speaks it: a HAProxy of its own, which takes HTTP/1.1 and goes on in HTTP/3."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from gwctl.routing.request import Request
from tests.certificates import Pair
from tests.harness import free_port
from tests.http1 import Response, fetch
from tests.parts import find_haproxy

_CONFIGURATION = """
global
  expose-experimental-directives
defaults
  mode http
  timeout connect 3s
  timeout client 5s
  timeout server 5s
frontend plain
  bind 127.0.0.1:{port}
  default_backend quic
backend quic
  retries 0
  http-response set-header x-version %[res.ver]
  server quic {address} ssl verify none alpn h3 sni str({name}) {shown}
"""


class Http3Client:
    """Sends requests in HTTP/3 to a port; it names ``name`` in the handshake and shows a certificate, or none."""

    def __init__(self, port: int, name: str, *, shown: Pair | None = None) -> None:
        self._address = f"quic4@127.0.0.1:{port}"
        self._name = name
        self._shown = shown
        self._port = free_port()

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        shown = ""
        if self._shown is not None:
            (folder / "shown.pem").write_text(self._shown.certificate + self._shown.key, encoding="utf-8")
            shown = f"crt {folder / 'shown.pem'}"
        text = _CONFIGURATION.format(port=self._port, address=self._address, name=self._name, shown=shown)
        (folder / "client.cfg").write_text(text, encoding="utf-8")
        self._process = subprocess.Popen(  # noqa: ASYNC220 (it is done at once)
            [find_haproxy(), "-db", "-f", folder / "client.cfg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            while not await self._listens():  # noqa: ASYNC110 (another process would be asked the same way)
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True

    async def send(self, host: str, path: str = "/") -> Response | None:
        """Send a request; None where there is no connection to send it on."""
        response = await fetch(self._port, Request("GET", host, path))
        return response if response.headers.get("x-version") == "3.0" else None
