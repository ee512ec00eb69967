"""Sessions against the real HAProxy: clients stay at their servers for as long as these are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.certificates import make_pair
from tests.grpcecho import Call, GrpcClient, GrpcEcho
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Connection, Response
from tests.live.gateway import Gwctl
from tests.live.site import Site, get, path, running
from tests.manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    grpc_route,
    http_route,
    https_listener,
    service,
)
from tests.tls import fetch_tls, wait_for_certificate


def rule(where: str, *backends: Manifest, **session: Any) -> Manifest:
    """A rule with sessions."""
    return {"matches": [path(where)], "backendRefs": list(backends), "sessionPersistence": session}


@asynccontextmanager
async def serving(
    dataplane: DataPlane, folder: Path, *routes: Manifest
) -> AsyncIterator[tuple[Site, list[EchoBackend], list[EchoBackend]]]:
    """Run gwctl with Services ``one`` and ``two`` of three servers each."""
    async with AsyncExitStack() as stack:
        names = ("one", "two")
        servers = [[await stack.enter_async_context(EchoBackend(f"{name}-{n}")) for n in range(3)] for name in names]
        parts = [part for name, of in zip(names, servers, strict=True) for part in manifests_of(name, of)]
        site = await stack.enter_async_context(running(dataplane, folder, *routes, *parts))
        yield site, servers[0], servers[1]


def manifests_of(name: str, servers: list[EchoBackend]) -> list[Manifest]:
    """The manifests of a Service."""
    return [service(name), *endpoints(name, [("127.0.0.1", server.port) for server in servers])]


def cookie_of(response: Response) -> str:
    """The cookie that a response sets, without its attributes; empty for none."""
    return response.headers.get("set-cookie", "").partition(";")[0]


async def test_a_client_stays_at_its_server(dataplane: DataPlane, tmp_path: Path) -> None:
    own = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-own", "value": "two"}]}}
    rules = [
        rule("/cookie", backend("one"), sessionName="sid"),
        rule("/named", backend("one")),
        rule("/header", backend("one"), sessionName="X-Session", type="Header"),
        rule("/weights", backend("one", weight=1), {**backend("two", weight=1), "filters": [own]}, sessionName="w"),
        rule("/timed", backend("one"), sessionName="t", absoluteTimeout="1h"),
        rule(
            "/permanent",
            backend("one"),
            sessionName="p",
            absoluteTimeout="90s",
            cookieConfig={"lifetimeType": "Permanent"},
        ),
        rule("/short", backend("one"), sessionName="s", absoluteTimeout="1s"),
        rule("/gone", backend("gone"), backend("one", weight=0), sessionName="g"),
    ]
    async with (
        serving(dataplane, tmp_path, http_route("r", rules)) as (site, one, _),
        Connection(site.port) as connection,
    ):

        async def ask(where: str, **headers: str) -> Response:
            return await connection.send(get(where, **headers))

        for where, attributes in (
            ("/cookie", "Path=/; HttpOnly; SameSite=Lax"),
            ("/named", "Path=/; HttpOnly; SameSite=Lax"),
            ("/weights", "Path=/; HttpOnly; SameSite=Lax"),
            ("/timed", "Path=/; HttpOnly; SameSite=Lax"),
            ("/permanent", "Path=/; HttpOnly; SameSite=Lax; Max-Age=90"),
        ):
            seen = set()
            for _ in range(10):
                first = await ask(where)
                cookie = cookie_of(first)
                assert first.headers["set-cookie"] == f"{cookie}; {attributes}"
                assert "127.0.0.1" not in cookie
                seen.add(first.json()["name"])
                for _ in range(5):
                    again = await ask(where, cookie=f"a=b; {cookie}; c=d")
                    assert again.json()["name"] == first.json()["name"], where
                    assert "set-cookie" not in again.headers
                    assert ("x-own" in again.json()["headers"]) == again.json()["name"].startswith("two")
            assert len(seen) >= 3, where
        first = await ask("/header")
        token = first.headers["x-session"]
        for _ in range(6):
            again = await ask("/header", x_session=token)
            assert (again.json()["name"], again.headers.get("x-session")) == (first.json()["name"], None)

        foreign = cookie_of(await ask("/cookie")).partition("=")[2]
        tokens = [await _token_of_two(connection) for _ in range(20)]
        for bad in (
            "",
            "x",
            "a" * 20,
            foreign[:-1],
            f"{foreign}.zz",
            max(tokens),
            "%",
            '"',
            "0" * 5000,
        ):
            answer = await ask("/cookie", cookie=f"sid={bad}")
            assert answer.status == 200
            assert cookie_of(answer), bad
        # Without a time in it, it is none of a session that has an end.
        assert cookie_of(await ask("/timed", cookie=f"t={foreign}"))
        cookie = cookie_of(await ask("/short"))
        async with asyncio.timeout(10):
            while not cookie_of(await ask("/short", cookie=cookie)):  # noqa: ASYNC110 (HAProxy's clock decides)
                await asyncio.sleep(0.1)
        answer = await ask("/gone")
        assert (answer.status, cookie_of(answer)) == (500, "")

        first = await ask("/cookie")
        rest = [server for server in one if server.name != first.json()["name"]]
        await site.apply(http_route("r", rules), *manifests_of("one", rest), service("two"))
        other = await ask("/cookie", cookie=cookie_of(first))
        assert other.json()["name"] in {server.name for server in rest}
        assert cookie_of(other) not in ("", cookie_of(first))
        again = await ask("/cookie", cookie=cookie_of(other))
        assert (again.json()["name"], cookie_of(again)) == (other.json()["name"], "")


async def test_of_two_backendrefs_of_one_service_the_weights_decide_each_time(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    def named(name: str, weight: int) -> Manifest:
        change = {"set": [{"name": "x-share", "value": name}]}
        own = {"type": "RequestHeaderModifier", "requestHeaderModifier": change}
        return {**backend("one", weight=weight), "filters": [own]}

    rules = [
        rule("/", named("a", 1), named("b", 1), backend("two", weight=1), sessionName="s"),
        rule("/none", named("a", 0), named("b", 1), backend("two", weight=1), sessionName="s"),
    ]
    async with (
        serving(dataplane, tmp_path, http_route("r", rules)) as (site, _, _),
        Connection(site.port) as connection,
    ):
        first = await connection.send(get("/"))
        while not first.json()["name"].startswith("one"):
            first = await connection.send(get("/"))
        for where, shares in (("/", {"a", "b"}), ("/none", {"b"})):
            answers = [await connection.send(get(where, cookie=cookie_of(first))) for _ in range(60)]
            assert {answer.json()["name"] for answer in answers} == {first.json()["name"]}
            assert {answer.json()["headers"]["x-share"][0] for answer in answers} == shares


async def _token_of_two(connection: Connection) -> str:
    """Give a token of a server of Service ``two``, which some rules do not have; empty where another answers."""
    answer = await connection.send(get("/weights"))
    return cookie_of(answer).partition("=")[2] if answer.json()["name"].startswith("two") else ""


async def test_calls_have_sessions_too(dataplane: DataPlane, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(GrpcEcho(f"grpc-{number}")) for number in range(3)]
        session = {"sessionName": "x-session", "type": "Header"}
        route = grpc_route("r", [{"backendRefs": [backend("calls")], "sessionPersistence": session}])
        parts = [service("calls"), *endpoints("calls", [("127.0.0.1", server.port) for server in servers])]
        site = await stack.enter_async_context(running(dataplane, tmp_path, route, *parts))
        client = await stack.enter_async_context(GrpcClient(site.port))
        first = await client.call(Call("/a.B/C"))
        token = str(first.headers["x-session"])
        for _ in range(6):
            assert (await client.call(Call("/a.B/C", metadata=(("x-session", token),)))).backend == first.backend


async def test_over_https_a_cookie_is_secure_and_the_loop_keeps_the_scheme(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    pair, port = make_pair("a.test"), free_port()
    to_web = {"backendRefs": [backend("web")]}
    asking = {"backendRef": {"name": "web", "port": 80}, "protocol": "HTTP", "http": {}}
    rules: list[Manifest] = [
        rule("/kept", backend("web"), sessionName="sid"),
        {"matches": [path("/retried")], "retry": {"attempts": 2}, **to_web},
        {"matches": [path("/asked")], "filters": [{"type": "ExternalAuth", "externalAuth": asking}], **to_web},
    ]
    async with EchoBackend("web") as web:
        manifests = [gateway_class(), gateway([https_listener("https", port, "pair")]), pair.secret("pair")]
        manifests += [http_route("r", rules), *manifests_of("web", [web])]
        async with Gwctl(dataplane, tmp_path / "manifests", *manifests):
            await wait_for_certificate(port, "a.test", pair.der)
            for where in ("/kept", "/retried", "/asked"):
                answer = await fetch_tls(port, "a.test", get(where))
                assert answer.json()["headers"]["x-forwarded-proto"] == ["https"]
                assert answer.headers.get("set-cookie", "").endswith("; Secure") == (where == "/kept")
