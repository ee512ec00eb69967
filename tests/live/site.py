"""A running gwctl with one Gateway, and manifests of rules that name themselves to the backend.

A rule sets a request header with its name, which the backend repeats: so an answer says which rule took the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Connection, Response
from tests.live.gateway import Gwctl
from tests.manifests import Manifest, backend, endpoints, gateway, gateway_class, listener, service

Case = tuple[Request, str | int]


class Site:
    """A running gwctl with one Gateway; Service ``web`` answers, Service ``idle`` has no endpoints."""

    def __init__(self, gwctl: Gwctl, port: int) -> None:
        self.gwctl = gwctl
        self.port = port

    async def apply(self, *routes: Manifest) -> None:
        """Serve these routes."""
        await self.gwctl.apply("routes.yaml", routes)

    async def check(self, cases: Iterable[Case]) -> None:
        """Send requests on one connection; each must be taken by the rule, or answered with the status, named."""
        wrong = []
        async with Connection(self.port) as connection:
            for request, expected in cases:
                response = await connection.send(request)
                found = taken_by(response)
                if found != expected:
                    wrong.append(f"{request}: {found}, not {expected}")
        assert not wrong, "\n".join(wrong)


def taken_by(response: Response) -> str | int:
    """Give the rule that took a request, or the status where no backend answered."""
    if response.status != 200:
        return response.status
    return str(response.json()["headers"].get("x-rule", ["(unnamed)"])[0])


@asynccontextmanager
async def running(dataplane: DataPlane, folder: Path, *routes: Manifest, **listeners: str) -> AsyncIterator[Site]:
    """Run gwctl with routes; ``listeners`` are hostnames by name. HAProxy must not reload after the start."""
    async with serving(dataplane, folder, **listeners) as site:
        worker = await dataplane.worker()
        await site.apply(*routes)
        yield site
        assert await dataplane.worker() == worker, "HAProxy was reloaded"
        assert "gwctl_drift_repaired_total{" not in await site.gwctl.metrics()


@asynccontextmanager
async def serving(dataplane: DataPlane, folder: Path, **listeners: str) -> AsyncIterator[Site]:
    """Run gwctl without routes at first, whatever becomes of HAProxy."""
    port = free_port()
    found = [listener(name, port, hostname) for name, hostname in listeners.items()] or [listener("http", port)]
    async with EchoBackend("web") as web:
        base = [gateway_class(), gateway(found), service("web"), service("idle")]
        base += endpoints("web", [("127.0.0.1", web.port)])
        async with Gwctl(dataplane, folder / "manifests", *base) as gwctl:
            yield Site(gwctl, port)


def rule(name: str, *matches: Manifest, **more: Any) -> Manifest:
    """A rule that names itself to the backend."""
    change = {"set": [{"name": "x-rule", "value": name}]}
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": change}]
    return {"matches": list(matches), "filters": filters, "backendRefs": [backend("web")], **more}


def redirect(where: str, **fields: Any) -> Manifest:
    """A rule that redirects."""
    return {
        "matches": [path(where)],
        "filters": [{"type": "RequestRedirect", "requestRedirect": fields}],
    }


def path(value: str, kind: str = "PathPrefix", **more: Any) -> Manifest:
    """A match of a path."""
    return {"path": {"type": kind, "value": value}, **more}


def header(name: str, value: str, kind: str = "Exact") -> Manifest:
    """A match of one header."""
    return {"headers": [{"name": name, "value": value, "type": kind}]}


def query(name: str, value: str, kind: str = "Exact") -> Manifest:
    """A match of one query parameter."""
    return {"queryParams": [{"name": name, "value": value, "type": kind}]}


def get(target: str = "/", host: str = "a.test", **headers: str) -> Request:
    """A GET request; underscores in names of headers stand for dashes."""
    where, _, asked = target.partition("?")
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request("GET", host, where, asked, named)


async def send_raw(port: int, *lines: str) -> tuple[str, bytes]:
    """Send lines as they are, and give the status line and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return head.decode("latin-1").partition("\r\n")[0], body
