"""TLS as a client sees it: what a server shows to a name, or that it refuses the handshake."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gwctl.routing.request import Request
from tests.certificates import Pair
from tests.harness import EchoBackend
from tests.http1 import Connection, Response

HOST = "127.0.0.1"
WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Handshake:
    """A handshake that was done: the certificate shown (DER), the TLS version and the protocol agreed upon."""

    certificate: bytes
    version: str | None
    protocol: str | None


def client_context(
    *,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    protocols: tuple[str, ...] = (),
    ciphers: str = "",
    shown: Pair | None = None,
) -> ssl.SSLContext:
    """A client's settings, with what it shows when asked; no certificate is checked, since tests compare it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version, context.minimum_version = newest, oldest
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if ciphers:
        context.set_ciphers(ciphers)
    if shown is not None:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(shown.certificate + shown.key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


async def shake_hands(port: int, name: str, context: ssl.SSLContext | None = None) -> Handshake | None:
    """Do a handshake, naming nobody when ``name`` is empty; None when the server refuses it."""
    try:
        _, writer = await asyncio.open_connection(
            HOST, port, ssl=context or client_context(), server_hostname=name or HOST
        )
    except (ssl.SSLError, ConnectionError):
        return None
    session = writer.get_extra_info("ssl_object")
    found = Handshake(session.getpeercert(binary_form=True), session.version(), session.selected_alpn_protocol())
    writer.close()
    return found


def server_context(pair: Pair, folder: Path) -> ssl.SSLContext:
    """A server's settings, with a certificate; its files are written to a folder."""
    file = folder / f"{hashlib.sha256(pair.der).hexdigest()}.pem"
    file.write_text(pair.certificate + pair.key, encoding="utf-8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def greet(port: int, name: str) -> tuple[str, bytes] | None:
    """Greet a `TcpEcho` behind TLS; give its name and the certificate shown, None where the connection is refused."""
    try:
        async with TlsStream(port, name) as stream:
            return stream.greeting, stream.certificate
    except (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
        return None


async def wait_for_greeting(port: int, name: str, wanted: tuple[str, bytes] | None) -> None:
    """Greet until this is the answer."""
    found: tuple[str, bytes] | None = None
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                found = await greet(port, name)
                if found == wanted:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        shown = found[0] if found is not None else None
        raise AssertionError(f"{name!r} at port {port} leads to {shown} or shows another certificate") from None


class TlsBackend(EchoBackend):
    """An `EchoBackend` behind TLS that remembers its handshakes: the names that were asked for and certificates shown.

    ``authority``: it asks clients for a certificate of that, and goes on without where ``required`` is False.
    """

    def __init__(self, name: str, pair: Pair, *, authority: str = "", required: bool = True) -> None:
        with tempfile.TemporaryDirectory() as folder:
            context = server_context(pair, Path(folder))
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = self._note
        if authority:
            context.load_verify_locations(cadata=authority)
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        super().__init__(name, tls=context)
        self._handshakes: list[tuple[str | None, ssl.SSLObject]] = []

    def _note(self, session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        self._handshakes.append((name, session))

    @property
    def names(self) -> list[str | None]:
        """The names that were asked for, of handshakes that may have failed."""
        return [name for name, _ in self._handshakes]

    @property
    def last(self) -> ssl.SSLObject:
        """The latest handshake."""
        return self._handshakes[-1][1]


class TlsStream:
    """A connection to a `TcpEcho` behind TLS."""

    def __init__(self, port: int, name: str) -> None:
        self._port = port
        self._name = name
        self.greeting = ""
        self.certificate = b""

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=client_context(), server_hostname=self._name or "127.0.0.1"
        )
        self.certificate = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            self.greeting = (await self._reader.readuntil()).decode().strip()
        except BaseException:
            self._writer.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> bytes:
        """Send something and give what comes back."""
        self._writer.write(data)
        return await self._reader.readexactly(len(data))


async def status_for(port: int, name: str, shown: Pair | None = None, **more: Any) -> int | None:
    """Send a request as a client that shows a certificate, or none; give its status, None where it is not let in."""
    try:
        async with Connection(port, tls=client_context(shown=shown, **more), server_name=name) as connection:
            return (await connection.send(Request("GET", name, "/"))).status
    except (OSError, EOFError):
        return None


async def fetch_tls(port: int, name: str, request: Request) -> Response:
    """Send one request on a TLS connection of its own, which names ``name``."""
    async with Connection(port, tls=client_context(), server_name=name) as connection:
        return await connection.send(request)


async def wait_for_certificate(port: int, name: str, certificate: bytes | None) -> None:
    """Shake hands until this certificate (DER) is shown, or the handshake is refused (None)."""
    shown: Handshake | None = None
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                shown = await shake_hands(port, name)
                if (shown.certificate if shown is not None else None) == certificate:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{name!r} at port {port} is not shown what was expected: {shown}") from None
