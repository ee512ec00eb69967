"""TLS as a client sees it: what a server shows to a name, or that it refuses the handshake."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from gwctl.routing.request import Request
from tests.http1 import Connection, Response


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
) -> ssl.SSLContext:
    """A client's settings; no certificate is checked, since tests compare it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version, context.minimum_version = newest, oldest
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if ciphers:
        context.set_ciphers(ciphers)
    return context


async def shake_hands(
    port: int, name: str, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Handshake | None:
    """Do a handshake, naming nobody when ``name`` is empty; None when the server refuses it."""
    try:
        _, writer = await asyncio.open_connection(
            host, port, ssl=context or client_context(), server_hostname=name or host
        )
    except (ssl.SSLError, ConnectionError):
        return None
    session = writer.get_extra_info("ssl_object")
    found = Handshake(session.getpeercert(binary_form=True), session.version(), session.selected_alpn_protocol())
    writer.close()
    return found


async def fetch_tls(port: int, name: str, request: Request) -> Response:
    """Send one request on a TLS connection of its own, which names ``name``."""
    async with Connection(port, tls=client_context(), server_name=name) as connection:
        return await connection.send(request)


async def wait_for_certificate(port: int, name: str, certificate: bytes | None, seconds: float = 30.0) -> None:
    """Shake hands until this certificate (DER) is shown, or the handshake is refused (None)."""
    shown: Handshake | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                shown = await shake_hands(port, name)
                if (shown.certificate if shown is not None else None) == certificate:
                    return
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{name!r} at port {port} is not shown what was expected: {shown}") from None
