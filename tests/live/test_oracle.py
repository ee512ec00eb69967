"""The oracle: random routes and random requests, decided by the reference matcher and by a real HAProxy.

Seeds are printed; ``GWCTL_ORACLE_SEED`` repeats one, ``GWCTL_ORACLE_SETS`` sets how many sets of routes are tried.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from gwctl.graph.node import ServicePort
from gwctl.routing.effect import answer_cors, change_headers, forward, redirect_location
from gwctl.routing.matcher import Verdict, find_rule
from gwctl.routing.request import Request
from gwctl.routing.rule import Backend
from gwctl.routing.virtualhost import FrontendKey, Routing
from tests.grpcecho import OK, UNAVAILABLE, UNIMPLEMENTED, Call, GrpcClient, GrpcEcho, Reply
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Connection, Response
from tests.live.gateway import Gwctl
from tests.manifests import (
    allowed_listeners,
    attach_to_sets,
    endpoints,
    gateway,
    gateway_class,
    random_call,
    random_grpc_routes,
    random_listener_sets,
    random_listeners,
    random_request,
    random_routes,
    service,
)
from tests.pipeline import build_pipeline

SETS = int(os.environ.get("GWCTL_ORACLE_SETS", "12"))
REQUESTS = 250
CALLS = 60


async def test_haproxy_decides_as_the_reference_matcher_does(dataplane: DataPlane, tmp_path: Path) -> None:
    seed = int(os.environ.get("GWCTL_ORACLE_SEED", Random().randrange(1 << 32)))
    print(f"oracle: GWCTL_ORACLE_SEED={seed}, {SETS} sets of routes, {REQUESTS} requests each")
    random = Random(seed)
    port = free_port()
    listeners = random_listeners(random, port)
    async with (
        EchoBackend("s1") as one,
        EchoBackend("s2") as two,
        GrpcEcho("g1") as three,
        GrpcEcho("g2") as four,
        Connection(port) as connection,
        GrpcClient(port) as client,
    ):
        servers = (one, two, three, four)
        fixed = [
            gateway_class(),
            gateway(listeners, **allowed_listeners("Same")),
            *(service(name) for name in ("s1", "s2", "g1", "g2", "empty")),
            *(part for server in servers for part in endpoints(server.name, [("127.0.0.1", server.port)])),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *fixed) as gwctl:
            worker = await dataplane.worker()
            for number in range(SETS):
                routes = random_routes(random, ["s1", "s2", "empty", "missing"], random.randint(1, 12))
                if number % 2:
                    routes += random_grpc_routes(random, ["g1", "g2", "empty", "missing"], random.randint(1, 8))
                sets = [item for item in random_listener_sets(random, port, 3) if number % 3]
                routes = [*attach_to_sets(random, routes, 3), *sets]
                await gwctl.apply("routes.yaml", routes)
                routing = build_pipeline([*fixed, *routes]).routing
                for _ in range(REQUESTS):
                    difference = await _compare(connection, routing, port, random_request(random))
                    assert not difference, f"seed {seed}, set {number}: {difference}"
                for _ in range(CALLS if number % 2 else 0):
                    difference = await _compare_call(client, routing, port, random_call(random))
                    assert not difference, f"seed {seed}, set {number}: {difference}"
            assert await dataplane.worker() == worker, "HAProxy was reloaded"
            assert "gwctl_drift_repaired_total{" not in await gwctl.metrics()


async def _compare(connection: Connection, routing: Routing, port: int, request: Request) -> str:
    """Send a request; say what of the answer is not what the reference model says, nothing if all is."""
    verdict = find_rule(routing, FrontendKey("default", "gateway", port), request)
    if verdict.candidate is not None and verdict.candidate.rule.route.kind == "GRPCRoute":
        return ""  # what gRPC servers say to plain requests is not the gateway's business
    response = await connection.send(request)
    differences = ""
    # Any backend with a weight may have been picked.
    for backend in (verdict.candidate.rule.backends if verdict.candidate else ()) or (None,):
        for what, there, wanted in _answers(verdict, backend, request, response, port):
            if there != wanted:
                differences += f"{what}: {there!r}, not {wanted!r}\n"
                break
        else:
            return ""
    return f"{request}\n{differences}{verdict}\n{response}"


def _answers(
    verdict: Verdict, backend: Backend | None, request: Request, response: Response, port: int
) -> Iterator[tuple[str, object, object]]:
    """Yield what the answer holds and what it should hold when this backend was picked."""
    if verdict.candidate is None:
        yield "status", response.status, 404
        return
    matched = verdict.candidate.match.path
    filters = verdict.candidate.rule.filters_of(backend)
    status = 200
    given: tuple[tuple[str, str], ...] = ()
    received: Any = None
    if filters.cors is not None and request.preflight_method:
        status = 204
    elif denied := [503 if auth.service else 500 for auth in filters.auths if _denies(auth.service)]:
        status = denied[0]
    elif filters.redirect is not None:
        status = filters.redirect.status
        yield "location", response.headers.get("location"), redirect_location(filters.redirect, matched, request, port)
    elif backend is None or backend.service is None:
        status = 500
    elif backend.service.name == "empty":
        status = 503
    yield "status", response.status, status
    if status == 200 and backend is not None and backend.service is not None:
        received = response.json()
        wanted = forward(filters, matched, request)
        yield "backend", received["name"], backend.service.name
        yield from _received(received, wanted)
        given = tuple(_asked_answer(wanted.headers))
        session = verdict.candidate.rule.session
        if session is not None and session.in_header:
            given += ((session.name, response.headers.get(session.name, "none")),)
    there = [header for header in response.lines if header[0].startswith(("x-", "vary", "access-control-"))]
    answered = given if filters.cors is None else answer_cors(filters.cors, request, given)
    yield "response headers", _by_name(there), _by_name(change_headers(answered, filters.response_headers))


def _denies(service: ServicePort | None) -> bool:
    """Tell whether nobody answers a question; `EchoBackend` allows everything."""
    return service is None or service.name == "empty"


def _received(received: Any, wanted: Request) -> Iterator[tuple[str, object, object]]:
    """Yield what a backend got and what it should get."""
    for what in ("method", "path", "query"):
        yield what, received[what], getattr(wanted, what)
    yield "host", received["headers"]["host"], [wanted.host]
    headers = _by_name(wanted.headers)
    there = {name: values for name, values in received["headers"].items() if name in headers or name.startswith("x-")}
    there.pop("x-forwarded-for", None)
    yield "headers", there, headers


async def _compare_call(client: GrpcClient, routing: Routing, port: int, request: Request) -> str:
    """Make a gRPC call; say what of its end is not what the reference model says, nothing if all is."""
    verdict = find_rule(routing, FrontendKey("default", "gateway", port), request)
    if verdict.candidate is not None and verdict.candidate.rule.route.kind != "GRPCRoute":
        return ""
    reply = await client.call(Call(request.path, request.host, request.headers[1:]))
    for what, there, wanted in _call_answers(verdict, request, reply):
        if there != wanted:
            return f"{request}\n{what}: {there!r}, not {wanted!r}\n{verdict}\n{reply}"
    return ""


def _call_answers(verdict: Verdict, request: Request, reply: Reply) -> Iterator[tuple[str, object, object]]:
    if verdict.candidate is None:
        yield "code", reply.code, UNIMPLEMENTED
        return
    (backend,) = verdict.candidate.rule.backends
    if backend.service is None or backend.service.name == "empty":
        yield "code", (reply.code, reply.message[:8]), (UNAVAILABLE, "HTTP 503" if backend.service else "HTTP 500")
        return
    yield "code", (reply.code, reply.backend), (OK, backend.service.name)
    yield "path", reply.echo["path"], request.path
    sent = change_headers(request.headers, verdict.candidate.rule.filters.request_headers)
    headers = {name: values for name, values in _by_name(sent).items() if name.startswith("x-")}
    there = {name: values for name, values in reply.echo["metadata"].items() if name.startswith("x-")}
    there.pop("x-forwarded-for", None)
    yield "headers", there, headers
    changed = change_headers([("x-backend", reply.backend)], verdict.candidate.rule.filters.response_headers)
    yield "response headers", dict(reply.headers), dict(_joined(changed))


def _joined(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return ((name, values[-1]) for name, values in _by_name(headers).items())


def _asked_answer(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Give the headers that `EchoBackend` is asked to answer with."""
    return [(name.removeprefix("answer-"), value) for name, value in headers if name.startswith("answer-")]


def _by_name(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return found
