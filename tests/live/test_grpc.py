"""GRPCRoutes with real gRPC calls: of every kind of streaming, their ends and errors, and their rules."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gwctl.routing.request import Request
from tests.certificates import make_authority, make_pair
from tests.grpcecho import END, OK, UNAVAILABLE, UNIMPLEMENTED, Call, GrpcClient, GrpcEcho
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import fetch
from tests.live.gateway import Gwctl, wait_for
from tests.manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    grpc_route,
    http_route,
    https_listener,
    listener,
    service,
)

HOST = "grpc.test"


class Site(NamedTuple):
    """A Gateway whose GRPCRoutes lead to two servers, ``one`` and ``two``."""

    port: int
    client: GrpcClient
    gwctl: Gwctl
    one: GrpcEcho
    two: GrpcEcho


@pytest.fixture
async def site(dataplane: DataPlane, tmp_path: Path) -> AsyncIterator[Site]:
    port, dead = free_port(), free_port()
    async with GrpcEcho("one") as one, GrpcEcho("two") as two, GrpcClient(port) as client:
        manifests = [
            gateway_class(),
            gateway([listener("grpc", port)]),
            *(service(name) for name in ("one", "two", "empty", "dead")),
            *endpoints("one", [("127.0.0.1", one.port)]),
            *endpoints("two", [("127.0.0.1", two.port)]),
            *endpoints("dead", [("127.0.0.1", dead)]),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests) as gwctl:
            yield Site(port, client, gwctl, one, two)


def calls(service_name: str = "", method: str = "", **more: Any) -> Manifest:
    """A match of a method."""
    named = {"service": service_name, "method": method}
    return {"method": {key: text for key, text in named.items() if text}, **more}


def rule(*backends: Manifest, matches: list[Manifest] | None = None, **more: Any) -> Manifest:
    return {"backendRefs": list(backends), **({"matches": matches} if matches else {}), **more}


async def route(site: Site, *rules: Manifest) -> None:
    await site.gwctl.apply("routes.yaml", [grpc_route("r", list(rules), (HOST,))])


async def test_metadata_goes_both_ways_and_trailers_come_last(site: Site) -> None:
    await route(site, rule(backend("one")))
    reply = await site.client.call(Call("/a.B/Echo", metadata=(("x-one", "1"), ("x-two", "a, b")), body=b"x" * 100_000))
    assert (reply.code, reply.backend) == (OK, "one")
    assert reply.echo["path"] == "/a.B/Echo"
    assert reply.echo["length"] == 100_000
    assert reply.echo["metadata"]["x-one"] == ["1"]
    assert reply.echo["metadata"]["x-two"] == ["a, b"]
    assert reply.headers["x-backend"] == "one"
    assert (reply.trailers["x-trailer"], reply.trailers["x-blob-bin"]) == ("sent last", b"\x00\xff")


async def test_an_error_of_the_server_reaches_the_client_as_it_is(site: Site) -> None:
    await route(site, rule(backend("one")))
    reply = await site.client.call(Call("/a.B/Fail"))
    assert (reply.code, reply.message, reply.trailers["x-trailer"]) == ("FAILED_PRECONDITION", "nö", "sent last")


async def test_streams_of_every_kind(site: Site) -> None:
    await route(site, rule(backend("one")))
    channel = site.client.channel(HOST)
    counted = [message async for message in channel.unary_stream("/a.B/Count")(b"300")]
    assert counted == [str(number).encode() for number in range(300)]

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 10_000

    assert await channel.stream_unary("/a.B/Sum")(parts()) == b"500000"
    chat = channel.stream_stream("/a.B/Chat")()
    for number in range(20):
        # Each answer is awaited before the next question is asked: nothing on the way collects them.
        await chat.write(b"%d" % number)
        assert await asyncio.wait_for(chat.read(), 10) == b"%d" % number
    await chat.done_writing()
    assert await chat.read() is END
    assert (await chat.code()).name == OK


async def test_a_call_that_its_client_gives_up_ends_at_the_server_too(site: Site) -> None:
    await route(site, rule(backend("one")))
    call = site.client.channel(HOST).unary_stream("/a.B/Wait")(b"")
    assert await call.read() == b"first"
    call.cancel()
    await asyncio.wait_for(site.one.cancelled.wait(), 10)


async def test_a_stream_outlives_its_rule_and_its_services_slot(site: Site, dataplane: DataPlane) -> None:
    await route(site, rule(backend("one")))
    call = site.client.channel(HOST).unary_stream("/a.B/Wait")(b"")
    assert await call.read() == b"first"
    before = await dataplane.worker()
    await route(site, rule(backend("two"), matches=[calls("other.Service")]))
    assert (await site.client.call(Call("/a.B/Echo"))).code == UNIMPLEMENTED
    site.one.release.set()
    assert await asyncio.wait_for(call.read(), 10) == b"last"
    assert (await call.code()).name == OK
    assert await dataplane.worker() == before, "HAProxy was reloaded"


async def test_what_the_gateway_answers_itself_is_a_grpc_status(site: Site) -> None:
    await route(
        site,
        rule(backend("missing"), matches=[calls("missing.S")]),
        rule(matches=[calls("none.S")]),
        rule(backend("empty"), matches=[calls("empty.S")]),
        rule(backend("dead"), matches=[calls("dead.S")]),
        rule(backend("one"), matches=[calls("a.B", "Echo")]),
    )
    for call, code, message in (
        (Call("/a.B/Echo"), OK, ""),
        (Call("/a.B/Other"), UNIMPLEMENTED, "HTTP 404 of the gateway"),
        (Call("/a.B/Echo", host="unknown.test"), UNIMPLEMENTED, "HTTP 404 of the gateway"),
        (Call("/missing.S/M"), UNAVAILABLE, "HTTP 500 of the gateway"),
        (Call("/none.S/M"), UNAVAILABLE, "HTTP 500 of the gateway"),
        (Call("/empty.S/M"), UNAVAILABLE, "HTTP 503 of the gateway"),
    ):
        reply = await site.client.call(call)
        assert (reply.code, reply.message) == (code, message), call
    # Whether a refused connection is 502 or 503 depends on when HAProxy's HTTP/2 learns of it.
    assert (await site.client.call(Call("/dead.S/M"))).code == UNAVAILABLE


@pytest.mark.parametrize("content", ["text/plain", "application/grpc-web+proto", ""])
async def test_other_clients_get_plain_errors(site: Site, content: str) -> None:
    await route(site, rule(backend("empty"), matches=[calls("empty.S")]), rule(matches=[calls("none.S")]))
    headers = (("content-type", content),) if content else ()
    for path, status, body in (
        ("/empty.S/M", 503, b"503 Service Unavailable\n"),
        ("/none.S/M", 500, b""),
        ("/other.S/M", 404, b""),
    ):
        response = await fetch(site.port, Request("POST", HOST, path, headers=headers))
        assert (response.status, response.body) == (status, body)
        assert "grpc-status" not in response.headers


async def test_the_most_specific_rule_takes_a_call(site: Site) -> None:
    await route(
        site,
        rule(backend("two")),
        rule(backend("one"), matches=[calls("a.B")]),
        rule(backend("two"), matches=[calls("a.B", "Echo")]),
        rule(backend("one"), matches=[calls("a.B", "Echo", headers=[{"name": "Version", "value": "one"}])]),
        rule(backend("one"), matches=[{"method": {"type": "RegularExpression", "service": "c[.].*"}}]),
        rule(backend("one"), matches=[calls("", "Everywhere")]),
    )
    for call, name in (
        (Call("/a.B/Echo"), "two"),
        (Call("/a.B/Echo", metadata=(("version", "one"),)), "one"),
        (Call("/a.B/Echo", metadata=(("version", "two"),)), "two"),
        (Call("/a.B/EchoTwo"), "one"),
        (Call("/a.B/Everywhere"), "one"),
        (Call("/a.C/Everywhere"), "one"),
        (Call("/a.C/Echo"), "two"),
        (Call("/c.D/Echo"), "one"),
    ):
        reply = await site.client.call(call)
        assert (reply.code, reply.backend) == (OK, name), call


async def test_weights_share_calls_of_one_connection(site: Site) -> None:
    await route(site, rule(backend("one", weight=7), backend("two", weight=3), backend("empty", weight=0)))
    found = Counter([(await site.client.call(Call("/a.B/Echo"))).backend for _ in range(400)])
    assert found.keys() == {"one", "two"}
    # Six standard deviations of a fair draw are 55.
    assert abs(found["one"] - 280) < 55


async def test_headers_are_changed_for_calls_and_answers(site: Site) -> None:
    change = {"set": [{"name": "x-one", "value": "set"}], "add": [{"name": "x-new", "value": "1"}], "remove": ["x-old"]}
    response = {"set": [{"name": "x-backend", "value": "hidden"}], "add": [{"name": "x-more", "value": "1"}]}
    await route(
        site,
        rule(
            backend("one"),
            filters=[
                {"type": "RequestHeaderModifier", "requestHeaderModifier": change},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": response},
            ],
        ),
    )
    reply = await site.client.call(Call("/a.B/Echo", metadata=(("x-one", "1"), ("x-old", "1"))))
    received = reply.echo["metadata"]
    assert (received["x-one"], received["x-new"]) == (["set"], ["1"])
    assert "x-old" not in received
    assert (reply.headers["x-backend"], reply.headers["x-more"]) == ("hidden", "1")
    assert reply.trailers["x-trailer"] == "sent last"


async def test_a_new_route_and_a_new_service_need_no_reload(site: Site, dataplane: DataPlane) -> None:
    await route(site, rule(backend("one")))
    before = await dataplane.worker()
    added = [
        service("late"),
        *endpoints("late", [("127.0.0.1", site.two.port)]),
        grpc_route("late", [rule(backend("late"), matches=[calls("late.S")])], (HOST,)),
    ]
    await site.gwctl.apply("late.yaml", added)
    assert (await site.client.call(Call("/late.S/Echo"))).backend == "two"
    assert (await site.client.call(Call("/a.B/Echo"))).backend == "one"
    assert await dataplane.worker() == before


async def test_a_haproxy_that_starts_anew_speaks_http2_by_its_file(site: Site, dataplane: DataPlane) -> None:
    await route(site, rule(backend("one")))
    await site.gwctl.until_file_says(f"127.0.0.1:{site.one.port} proto h2")
    await site.gwctl.stop()
    await dataplane.restart_haproxy()
    await site.client.until(Call("/a.B/Echo"), OK, "one")


async def test_an_older_httproute_keeps_its_host(site: Site) -> None:
    async with EchoBackend("web") as web:
        old = http_route("old", [{"backendRefs": [backend("web")]}], (HOST,))
        old["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
        new = grpc_route("new", [rule(backend("one"))], (HOST, "other.test"))
        new["metadata"]["creationTimestamp"] = "2021-01-01T00:00:00Z"
        web_service = [service("web"), *endpoints("web", [("127.0.0.1", web.port)])]
        await site.gwctl.apply("routes.yaml", [old, new, *web_service])
        await wait_for(site.port, Request("GET", HOST, "/"), status=200, backend="web")
        assert (await site.client.call(Call("/a.B/Echo", host="other.test"))).code == UNIMPLEMENTED
        await site.gwctl.apply("routes.yaml", [new, *web_service])
        assert (await site.client.call(Call("/a.B/Echo", host=HOST))).backend == "one"
        assert (await site.client.call(Call("/a.B/Echo", host="other.test"))).backend == "one"


async def test_an_httproute_speaks_http2_to_a_service_that_asks_for_it(site: Site) -> None:
    h2c = service("h2c")
    h2c["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/h2c"
    async with EchoBackend("web") as web:
        manifests = [
            h2c,
            *endpoints("h2c", [("127.0.0.1", site.one.port)]),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
            http_route(
                "mixed",
                [
                    {"matches": [{"path": {"value": "/a.B"}}], "backendRefs": [backend("h2c")]},
                    {"backendRefs": [backend("web")]},
                ],
                (HOST,),
            ),
        ]
        await site.gwctl.apply("routes.yaml", manifests)
        assert (await site.client.call(Call("/a.B/Echo"))).backend == "one"
        await wait_for(site.port, Request("GET", HOST, "/"), status=200, backend="web")


async def test_one_service_has_servers_for_each_protocol(site: Site, dataplane: DataPlane) -> None:
    async with EchoBackend("web") as web:
        both = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "both", "namespace": "default"},
            "spec": {"ports": [{"name": "web", "port": 80}, {"name": "grpc", "port": 81}]},
        }
        manifests = [
            both,
            *endpoints("both", [("127.0.0.1", web.port)], port_name="web"),
            *endpoints("both", [("127.0.0.1", site.one.port)], port_name="grpc"),
            http_route("web", [{"backendRefs": [backend("both")]}], ("web.test",)),
            grpc_route("grpc", [rule(backend("both", 81))], (HOST,)),
        ]
        await site.gwctl.apply("routes.yaml", manifests)
        assert (await site.client.call(Call("/a.B/Echo"))).backend == "one"
        await wait_for(site.port, Request("GET", "web.test", "/"), status=200, backend="web")
        assert await dataplane.reloads() == 1


async def test_calls_over_tls_reach_the_routes_of_an_https_listener(dataplane: DataPlane, tmp_path: Path) -> None:
    port, pair = free_port(), make_pair("grpc.test", "*.calls.test", "other.test", issuer="root")
    listeners = [
        https_listener("grpc", port, "cert", hostname="grpc.test"),
        https_listener("calls", port, "cert", hostname="*.calls.test"),
        https_listener("other", port, "cert", hostname="other.test"),
    ]
    async with (
        GrpcEcho("one") as one,
        GrpcEcho("two") as two,
        GrpcClient(port, trusted=make_authority("root")) as client,
        Gwctl(
            dataplane,
            tmp_path / "manifests",
            gateway_class(),
            gateway(listeners),
            pair.secret("cert"),
            *(service(name) for name in ("one", "two")),
            *endpoints("one", [("127.0.0.1", one.port)]),
            *endpoints("two", [("127.0.0.1", two.port)]),
            grpc_route("one", [rule(backend("one"), matches=[calls("a.B")])], (HOST,)),
            grpc_route("two", [rule(backend("two"))], ("*.calls.test",)),
        ) as gwctl,
    ):
        worker = await dataplane.worker()
        reply = await client.call(Call("/a.B/Echo", body=b"x" * 100_000))
        assert (reply.code, reply.backend, reply.echo["length"]) == (OK, "one", 100_000)
        assert reply.echo["metadata"]["x-forwarded-proto"] == ["https"]
        assert (await client.call(Call("/a.B/Echo", "x.calls.test"))).backend == "two"
        assert (await client.call(Call("/c.D/Echo"))).code == UNIMPLEMENTED
        assert (await client.call(Call("/a.B/Echo", "other.test"))).code == UNIMPLEMENTED
        counted = client.channel(HOST).unary_stream("/a.B/Count")
        assert [int(number) async for number in counted(b"3")] == [0, 1, 2]
        await gwctl.apply("more.yaml", [grpc_route("more", [rule(backend("two"))], ("other.test",))])
        assert (await client.call(Call("/a.B/Echo", "other.test"))).backend == "two"
        assert await dataplane.worker() == worker
