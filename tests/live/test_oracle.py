"""The oracle: random routes and random requests, decided by the reference matcher and by a real HAProxy.

Seeds are printed; ``GWCTL_ORACLE_SEED`` repeats one, ``GWCTL_ORACLE_SETS`` sets how many sets of routes are tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

from gwctl.routing.filter import change_headers, redirect_location
from gwctl.routing.matcher import Verdict, find_rule
from gwctl.routing.request import Request
from gwctl.routing.virtualhost import FrontendKey, Routing
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Connection, Response
from tests.live.gateway import Gwctl
from tests.manifests import (
    endpoints,
    gateway,
    gateway_class,
    random_listeners,
    random_request,
    random_routes,
    service,
)
from tests.pipeline import build_pipeline

SETS = int(os.environ.get("GWCTL_ORACLE_SETS", "12"))
REQUESTS = 250


async def test_haproxy_decides_as_the_reference_matcher_does(dataplane: DataPlane, tmp_path: Path) -> None:
    seed = int(os.environ.get("GWCTL_ORACLE_SEED", Random().randrange(1 << 32)))
    print(f"oracle: GWCTL_ORACLE_SEED={seed}, {SETS} sets of routes, {REQUESTS} requests each")
    random = Random(seed)
    port = free_port()
    listeners = random_listeners(random, port)
    async with EchoBackend("s1") as one, EchoBackend("s2") as two, Connection(port) as connection:
        fixed = [
            gateway_class(),
            gateway(listeners),
            *(service(name) for name in ("s1", "s2", "empty")),
            *endpoints("s1", [("127.0.0.1", one.port)]),
            *endpoints("s2", [("127.0.0.1", two.port)]),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *fixed) as gwctl:
            worker = await dataplane.worker()
            for number in range(SETS):
                routes = random_routes(random, ["s1", "s2", "empty", "missing"], random.randint(1, 12))
                await gwctl.apply("routes.yaml", routes)
                routing = build_pipeline([*fixed, *routes]).routing
                for _ in range(REQUESTS):
                    difference = await _compare(connection, routing, port, random_request(random))
                    assert not difference, f"seed {seed}, set {number}: {difference}"
            assert await dataplane.worker() == worker, "HAProxy was reloaded"
            assert "gwctl_drift_repaired_total{" not in await gwctl.metrics()


async def _compare(connection: Connection, routing: Routing, port: int, request: Request) -> str:
    """Send a request; say what of the answer is not what the reference model says, nothing if all is."""
    verdict = find_rule(routing, FrontendKey("default", "gateway", port), request)
    response = await connection.send(request)
    for what, there, wanted in _answers(verdict, request, response, port):
        if there != wanted:
            return f"{request}\n{what}: {there!r}, not {wanted!r}\n{verdict}\n{response}"
    return ""


def _answers(verdict: Verdict, request: Request, response: Response, port: int) -> Iterator[tuple[str, object, object]]:
    """Yield what the answer holds and what it should hold."""
    if verdict.candidate is None:
        yield "status", response.status, 404
        return
    rule = verdict.candidate.rule
    if rule.redirect is not None:
        yield "status", response.status, rule.redirect.status
        location = redirect_location(rule.redirect, verdict.candidate.match.path, request, port)
        yield "location", response.headers.get("location"), location
        return
    backend = rule.backends[0].service
    if backend is None or backend.name == "empty":
        yield "status", response.status, 500 if backend is None else 503
        return
    yield "status", response.status, 200
    received = response.json()
    yield "backend", received["name"], backend.name
    yield "path", received["path"], request.path
    yield "query", received["query"], request.query
    yield "method", received["method"], request.method
    sent = request.headers
    headers = change_headers(sent, rule.request_headers) if rule.request_headers else sent
    wanted: dict[str, list[str]] = {}
    for name, value in headers:
        wanted.setdefault(name.lower(), []).append(value)
    there = {name: values for name, values in received["headers"].items() if name in wanted or name.startswith("x-")}
    there.pop("x-forwarded-for", None)
    yield "headers", there, wanted
