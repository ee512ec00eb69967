"""Filters against the real HAProxy: what reaches the backend, and what the client gets."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gwctl.routing.request import Request
from tests.harness import DataPlane, TcpServer, free_port
from tests.http1 import Connection
from tests.live.site import get, path, redirect, running, send_raw
from tests.manifests import Manifest, backend, endpoints, http_route, service


def prefix(text: str) -> Manifest:
    """A path modifier."""
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": text}


def full(text: str) -> Manifest:
    """A path modifier."""
    return {"type": "ReplaceFullPath", "replaceFullPath": text}


def headers(kind: str = "Request", **changes: Any) -> Manifest:
    """A header modifier."""
    return {"type": f"{kind}HeaderModifier", f"{kind.lower()}HeaderModifier": changes}


def rewrite(**fields: Any) -> Manifest:
    """A rewrite filter."""
    return {"type": "URLRewrite", "urlRewrite": fields}


def setting(name: str, value: str) -> list[Manifest]:
    """A list of one header, as ``set`` and ``add`` take it."""
    return [{"name": name, "value": value}]


def rule(where: str, *filters: Manifest, backends: tuple[Manifest, ...] = (backend("web"),)) -> Manifest:
    """A rule of a path with filters."""
    return {"matches": [path(where)], "filters": list(filters), "backendRefs": list(backends)}


async def test_redirects(dataplane: DataPlane, tmp_path: Path) -> None:
    rules = [
        redirect("/plain", statusCode=301),
        redirect("/https", scheme="https"),
        redirect("/http", scheme="http"),
        redirect("/host", hostname="other.test", statusCode=303),
        redirect("/port", port=80),
        redirect("/odd", scheme="https", port=8443, hostname="other.test", statusCode=307),
        redirect("/full", path=full("/new"), port=80, statusCode=308),
        redirect("/strange", path=full("/a;b'c\"d\\e%20f%g?h#i|&<>,="), port=80),
        redirect("/cut", path=prefix("/"), port=80),
        redirect("/swap/", path=prefix("/new/"), port=80),
        redirect("/none", path=prefix(""), port=80),
    ]
    # A redirect wins over backends.
    rules[0]["backendRefs"] = [backend("web")]
    whole = http_route("whole", [redirect("/", path=prefix("/all"), port=80)], ("b.test",))
    async with running(dataplane, tmp_path, http_route("r", rules, ("a.test", "*.a.test")), whole) as site:
        own = f":{site.port}"
        cases = [
            (get("/plain/x?q=1&r=%20"), 301, f"http://a.test{own}/plain/x?q=1&r=%20"),
            (get("/plain", host="x.a.test:1234"), 301, f"http://x.a.test{own}/plain"),
            (get("/plain?"), 301, f"http://a.test{own}/plain"),
            (get("/https"), 302, "https://a.test/https"),
            (get("/http"), 302, "http://a.test/http"),
            (get("/host/a%2Fb"), 303, f"http://other.test{own}/host/a%2Fb"),
            (get("/port"), 302, "http://a.test/port"),
            (get("/odd"), 307, "https://other.test:8443/odd"),
            (get("/full/x?q"), 308, "http://a.test/new?q"),
            (get("/strange"), 302, "http://a.test/a;b'c%22d%5Ce%20f%25g%3Fh%23i%7C&%3C%3E,="),
            (get("/cut"), 302, "http://a.test/"),
            (get("/cut/"), 302, "http://a.test/"),
            (get("/cut/x;y=1"), 302, "http://a.test/x;y=1"),
            (get("/swap"), 302, "http://a.test/new/"),
            (get("/swap/"), 302, "http://a.test/new/"),
            (get("/swap/x"), 302, "http://a.test/new/x"),
            (get("/none/x?q=1"), 302, "http://a.test/x?q=1"),
            (get("/none"), 302, "http://a.test/"),
            (get("/x", host="b.test"), 302, "http://b.test/all/x"),
            (Request("POST", "a.test", "/odd"), 307, "https://other.test:8443/odd"),
        ]
        wrong = []
        async with Connection(site.port) as connection:
            for request, status, location in cases:
                response = await connection.send(request)
                found = response.status, response.headers.get("location")
                if found != (status, location):
                    wrong.append(f"{request}: {found}, not {(status, location)}")
        assert not wrong, "\n".join(wrong)


async def test_header_changes(dataplane: DataPlane, tmp_path: Path) -> None:
    strange = "a; \"b\", 'c'\\d %e =f|g&h"
    changes: dict[str, Manifest] = {
        "/set": {"set": [{"name": "X-Set", "value": strange}, {"name": "x-twice", "value": "new"}]},
        "/add": {"add": [{"name": "X-Add", "value": strange}, {"name": "x-twice", "value": "more"}]},
        "/remove": {"remove": ["X-Twice", "x-not-there"]},
        "/all": {
            "remove": ["x-gone"],
            "set": [{"name": "x-twice", "value": "one"}],
            "add": [{"name": "x-twice", "value": "two"}],
        },
        "/long": {"set": [{"name": "x-long", "value": "%" * 4096}, {"name": "x-short", "value": "a" * 239}]},
        "/edges": {"set": [{"name": f"x-{n}", "value": "v" * n} for n in (1, 127, 128, 239, 240, 241, 255, 256, 2288)]},
        "/three": {"remove": ["x-twice"], "set": setting("x-twice", "one,two"), "add": setting("x-twice", "three, %")},
        "/token": {"set": [{"name": "x!#$%&'*+-.^_`|~", "value": "%[src]"}], "remove": ["x'"]},
    }
    rules = [rule(where, headers(**change)) for where, change in changes.items()]
    sent = (("X-Twice", "1"), ("x-twice", "2"), ("x-gone", "1"), ("x'", "1"))
    expected: dict[str, dict[str, list[str]]] = {
        "/set": {"x-set": [strange], "x-twice": ["new"], "x-gone": ["1"]},
        "/add": {"x-add": [strange], "x-twice": ["1", "2", "more"]},
        "/remove": {"x-gone": ["1"]},
        "/all": {"x-twice": ["one", "two"]},
        "/long": {"x-long": ["%" * 4096], "x-short": ["a" * 239]},
        "/edges": {f"x-{n}": ["v" * n] for n in (1, 127, 128, 239, 240, 241, 255, 256, 2288)},
        "/three": {"x-twice": ["one,two", "three, %"]},
        "/token": {"x!#$%&'*+-.^_`|~": ["%[src]"]},
    }
    gone = {"/remove": ("x-twice", "x-not-there"), "/all": ("x-gone",), "/token": ("x'",)}
    async with running(dataplane, tmp_path, http_route("r", rules)) as site, Connection(site.port) as connection:
        for where, wanted in expected.items():
            response = await connection.send(Request("GET", "a.test", where, "", sent))
            there = response.json()["headers"]
            assert {name: there.get(name) for name in wanted} == wanted, where
            assert not {*gone.get(where, ())} & set(there), where


async def test_response_headers(dataplane: DataPlane, tmp_path: Path) -> None:
    """Also of answers that the gateway gives itself."""
    change = headers(
        "Response",
        set=setting("X-Set", 'a, "b" %c'),
        add=[*setting("x-twice", "more"), *setting("cache-control", "private")],
        remove=["X-Gone", "content-type"],
    )
    rules = [
        rule("/web", change),
        rule("/idle", change, backends=(backend("idle"),)),
        rule("/gone", change, backends=(backend("gone"),)),
        {**redirect("/away", statusCode=301), "filters": [change, *redirect("/", statusCode=301)["filters"]]},
        rule("/plain"),
    ]
    asked = {"answer_x_set": "1", "answer_x_twice": "2", "answer_x_gone": "3", "answer_x_kept": "4"}
    async with running(dataplane, tmp_path, http_route("r", rules)) as site, Connection(site.port) as connection:
        for where, status in (("/web", 200), ("/idle", 503), ("/gone", 500), ("/away", 301)):
            response = await connection.send(get(where, **asked))
            assert response.status == status, where
            assert response.values("x-set") == ['a, "b" %c'], where
            assert response.values("x-twice")[-1] == "more", where
            assert response.values("cache-control")[-1] == "private", where
            assert not {"x-gone", "content-type"} & set(response.headers), where
        response = await connection.send(get("/web", **asked))
        assert (response.values("x-twice"), response.values("x-kept")) == (["2", "more"], ["4"])
        response = await connection.send(Request("HEAD", "a.test", "/web"))
        assert (response.status, response.values("x-set")) == (200, ['a, "b" %c'])
        response = await connection.send(get("/plain", **asked))
        assert (response.values("x-set"), response.values("x-twice")) == (["1"], ["2"])


async def test_rewrites(dataplane: DataPlane, tmp_path: Path) -> None:
    rules = [
        rule("/swap/", rewrite(path=prefix("/new/"))),
        rule("/cut", rewrite(path=prefix("/"))),
        rule("/none", rewrite(path=prefix(""))),
        rule("/host", rewrite(hostname="inside.test")),
        rule("/both", rewrite(hostname="inside.test", path=full("/one"))),
        rule("/full", rewrite(path=full("/a;b'c\"d\\e%20f%g?h#i|&<>,="))),
        rule("/empty", rewrite(path=full(""))),
        rule("/set", headers(set=setting("Host", "set.test"))),
        rule("/later", rewrite(hostname="inside.test"), headers(set=setting("host", "set.test"))),
        rule("/sooner", headers(set=setting("host", "set.test")), rewrite(hostname="inside.test")),
    ]
    whole = http_route("whole", [rule("/", rewrite(path=prefix("/all")))], ("b.test",))
    cases = [
        ("/swap", "/new/", "a.test"),
        ("/swap/", "/new/", "a.test"),
        ("/swap/x?q=1&r=%20", "/new/x?q=1&r=%20", "a.test"),
        ("/swap//x", "/new//x", "a.test"),
        ("/swap/%2Fx", "/new/%2Fx", "a.test"),
        ("/cut", "/", "a.test"),
        ("/cut/", "/", "a.test"),
        ("/cut?q", "/?q", "a.test"),
        ("/cut/x;y=%C3%A9", "/x;y=%C3%A9", "a.test"),
        ("/none", "/", "a.test"),
        ("/none/x", "/x", "a.test"),
        ("/host/x?q=1", "/host/x?q=1", "inside.test"),
        ("/both/x?q=1", "/one?q=1", "inside.test"),
        ("/full/x?q", "/a;b'c%22d%5Ce%20f%25g%3Fh%23i%7C&%3C%3E,=?q", "a.test"),
        ("/empty/x?q", "/?q", "a.test"),
        ("/set", "/set", "set.test"),
        ("/later", "/later", "set.test"),
        ("/sooner", "/sooner", "inside.test"),
    ]
    requests = [(get(asked), wanted, host) for asked, wanted, host in cases]
    requests += [(get(asked, "b.test"), wanted, "b.test") for asked, wanted in (("/", "/all/"), ("/x", "/all/x"))]
    requests += [(Request("POST", "a.test", "/swap/x"), "/new/x", "a.test")]
    requests += [(get("/host", "A.test:80"), "/host", "inside.test"), (get("http://a.test/cut/x"), "/x", "a.test")]
    routes = http_route("r", rules), whole
    async with running(dataplane, tmp_path, *routes) as site, Connection(site.port) as connection:
        for request, wanted, host in requests:
            received = (await connection.send(request)).json()
            target = received["path"] + (f"?{received['query']}" if received["query"] else "")
            assert (target, received["headers"]["host"]) == (wanted, [host]), request


async def test_filters_of_a_backend_meet_the_requests_that_go_there_and_no_others(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    def share(name: str, weight: int, *filters: Manifest) -> Manifest:
        return {**backend(name, weight=weight), "filters": list(filters)}

    both = (headers(set=setting("x-rule", "rule"), add=setting("x-list", "rule")), rewrite(path=prefix("/rule")))
    own = (
        headers(set=setting("x-rule", "own"), add=setting("x-list", "own")),
        headers("Response", set=setting("x-answer", "own")),
        rewrite(hostname="own.test"),
    )
    away = {"type": "RequestRedirect", "requestRedirect": {"hostname": "away.test", "port": 80, "statusCode": 307}}
    refs = (share("web", 3), share("web", 2, *own), share("web", 1, away), share("gone", 1, *own), share("idle", 1))
    lone = rule("/lone", *both, backends=(share("web", 1, *own),))
    counts: Counter[str] = Counter()
    route = http_route("r", [rule("/all", *both, backends=refs), lone])
    async with running(dataplane, tmp_path, route) as site, Connection(site.port) as connection:
        for _ in range(400):
            response = await connection.send(get("/all/x"))
            share_of = str(response.status)
            if response.status == 307:
                assert response.headers["location"] == "http://away.test/all/x"
            elif response.status == 200:
                there = response.json()["headers"]
                share_of = there["x-rule"][0]
                assert response.json()["path"] == "/rule/x"
                assert there["host"] == (["own.test"] if share_of == "own" else ["a.test"])
                assert there["x-list"] == (["rule", "own"] if share_of == "own" else ["rule"])
            assert response.values("x-answer") == (["own"] if share_of == "own" else [])
            counts[share_of] += 1
        assert set(counts) == {"rule", "own", "307", "500", "503"}
        assert counts["rule"] > counts["307"], counts
        response = await connection.send(get("/lone"))
        assert (response.json()["path"], response.json()["headers"]["x-list"]) == ("/rule", ["rule", "own"])


async def test_as_many_changes_of_headers_as_there_can_be(dataplane: DataPlane, tmp_path: Path) -> None:
    """48 of a rule and 48 of its backend, on either way."""
    actions = ("set", "add", "remove")

    def changes(kind: str, start: str) -> Manifest:
        names = {action: [f"x-{action}-{start}{number:02d}" for number in range(16)] for action in actions}
        pairs = {action: [{"name": name, "value": "new"} for name in names[action]] for action in ("set", "add")}
        return headers(kind, **pairs, remove=names["remove"])

    of_rule, of_backend = ([changes(kind, start) for kind in ("Request", "Response")] for start in "rb")
    sent = [(f"x-{action}-{start}{number:02d}", "old") for action in actions for start in "rb" for number in (0, 15)]
    request = Request("GET", "a.test", "/", "", (*sent, *((f"answer-{name}", value) for name, value in sent)))
    route = http_route("r", [rule("/", *of_rule, backends=({**backend("web"), "filters": of_backend},))])
    async with running(dataplane, tmp_path, route) as site, Connection(site.port) as connection:
        response = await connection.send(request)
        received = response.json()["headers"]
        for name, _ in sent:
            wanted = {"set": ["new"], "add": ["old", "new"], "remove": []}[name.split("-")[1]]
            assert received.get(name, []) == wanted, name
            assert response.values(name) == wanted, name
        for action in ("set", "add"):
            assert len([name for name in received if name.startswith(f"x-{action}-")]) == 32


def cors(**fields: Any) -> Manifest:
    """A CORS filter."""
    return {"type": "CORS", "cors": fields}


async def test_a_preflight_is_answered_for_whatever_method_the_rule_takes(dataplane: DataPlane, tmp_path: Path) -> None:
    policy = cors(allowOrigins=["https://a.test"], allowMethods=["PUT"])
    mark = headers("Response", set=setting("x-rule", "put"))
    rules = [
        {**rule("/", policy, mark, backends=(backend("gone"),)), "matches": [path("/", method="PUT")]},
        {**rule("/", headers("Response", set=setting("x-rule", "any"))), "matches": [path("/")]},
    ]
    origin, asked = ("Origin", "https://a.test"), "Access-Control-Request-Method"
    cases: list[tuple[str, tuple[tuple[str, str], ...], int, str, str | None]] = [
        ("OPTIONS", (origin, (asked, "PUT")), 204, "put", "https://a.test"),
        ("OPTIONS", (("Origin", "https://b.test"), (asked, "PUT")), 204, "put", None),
        ("OPTIONS", (origin, (asked, "DELETE")), 200, "any", None),
        ("OPTIONS", (origin,), 200, "any", None),
        ("OPTIONS", ((asked, "PUT"),), 200, "any", None),
        ("PUT", (origin,), 500, "put", "https://a.test"),
        ("GET", (origin,), 200, "any", None),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules)) as site, Connection(site.port) as connection:
        for method, sent, status, name, allowed in cases:
            response = await connection.send(Request(method, "a.test", "/", "", sent))
            found = response.status, response.headers["x-rule"], response.headers.get("access-control-allow-origin")
            assert found == (status, name, allowed), (method, sent)
            assert response.body == b"" or status != 204


async def test_a_cors_policy_replaces_what_the_backend_says(dataplane: DataPlane, tmp_path: Path) -> None:
    rules = [
        rule("/some", cors(allowOrigins=["https://*.a.test"], exposeHeaders=["x-one"])),
        rule("/all", cors(allowOrigins=["*"], allowCredentials=True, exposeHeaders=["*"])),
        rule("/none"),
        rule("/own", backends=({**backend("web"), "filters": [cors(allowOrigins=["*"])]},)),
    ]
    backends_own = {
        "answer_access_control_allow_origin": "backend",
        "answer_access_control_max_age": "9",
        "answer_x_b": "1",
    }
    cases: list[tuple[str, str, dict[str, str], list[str]]] = [
        (
            "/some",
            "https://x.a.test",
            {"allow-origin": "https://x.a.test", "expose-headers": "x-one"},
            ["Origin"],
        ),
        ("/some", "https://a.test", {}, ["Origin"]),
        (
            "/all",
            "null",
            {"allow-origin": "null", "allow-credentials": "true", "expose-headers": "x-b"},
            ["Origin"],
        ),
        ("/own", "https://a.test", {"allow-origin": "*"}, []),
        ("/none", "https://a.test", {"allow-origin": "backend", "max-age": "9"}, []),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules)) as site, Connection(site.port) as connection:
        for where, origin, wanted, vary in cases:
            response = await connection.send(get(where, origin=origin, **backends_own))
            found = {name: value for name, value in response.headers.items() if name.startswith("access-control-")}
            assert found == {f"access-control-{name}": value for name, value in wanted.items()}, (where, origin)
            assert response.values("vary") == vary, (where, origin)
        response = await connection.send(get("/some", **backends_own))
        assert (response.headers["access-control-allow-origin"], response.headers["vary"]) == ("backend", "Origin")


async def test_messages_of_every_kind_are_rewritten(dataplane: DataPlane, tmp_path: Path) -> None:
    filters = (
        rewrite(path=prefix("/new")),
        headers(set=setting("x-set", "1")),
        headers("Response", set=setting("x-a", "1")),
    )
    chunks = ("5", "hello", "0")
    cases: list[tuple[tuple[str, ...], int]] = [
        (("GET /old/x HTTP/1.0", "host: a.test"), 0),
        (("POST /old/x HTTP/1.0", "host: a.test", "content-length: 2", "", "ab"), 2),
        (("POST /old/x HTTP/1.1", "host: a.test", "connection: close", "content-length: 0"), 0),
        (("PUT /old/x HTTP/1.1", "host: a.test", "connection: close", "content-length: 3", "", "abc"), 3),
        (("POST /old/x HTTP/1.1", "host: a.test", "connection: close", "transfer-encoding: chunked", "", *chunks), 5),
        (("PATCH /old/x HTTP/1.1", "host: a.test", "connection: close", "transfer-encoding: chunked", "", "0"), 0),
        (("PURGE /old/x HTTP/1.1", "host: a.test", "connection: close"), 0),
        (("OPTIONS /old/x HTTP/1.1", "host: a.test", "connection: close"), 0),
    ]
    async with running(dataplane, tmp_path, http_route("r", [rule("/old", *filters)])) as site:
        for lines, length in cases:
            status, body = await send_raw(site.port, *lines)
            assert status.split()[1] == "200", lines
            received = json.loads(body)
            assert (received["path"], received["headers"]["x-set"]) == ("/new/x", ["1"]), lines
            assert (received["method"], received["body_length"]) == (lines[0].split()[0], length)


async def test_expect_100_continue(dataplane: DataPlane, tmp_path: Path) -> None:
    route = http_route("r", [rule("/old", rewrite(path=prefix("/new")), headers("Response", set=setting("x-a", "1")))])
    async with running(dataplane, tmp_path, route) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        head = (
            "POST /old HTTP/1.1\r\nhost: a.test\r\ncontent-length: 5\r\nexpect: 100-continue\r\nconnection: close\r\n"
        )
        writer.write(f"{head}\r\n".encode())
        writer.write(b"hello")
        async with asyncio.timeout(5):
            answer = (await reader.read()).decode()
        writer.close()
        assert "HTTP/1.1 200" in answer
        assert "x-a: 1" in answer
        assert json.loads(answer.rpartition("\r\n\r\n")[2])["body_length"] == 5


@pytest.mark.parametrize("number", [1, 60])
async def test_too_many_headers_are_answered_so(dataplane: DataPlane, tmp_path: Path, number: int) -> None:
    """60 KB in one header, and in 60."""
    lines = [f"x-{index}: {'a' * (60_000 // number)}" for index in range(number)]
    async with running(dataplane, tmp_path, http_route("r", [rule("/", headers(set=setting("x-a", "1")))])) as site:
        status, _ = await send_raw(site.port, "GET / HTTP/1.1", "host: a.test", *lines)
        assert status.split()[1] == "431"
        await site.check([(get("/"), "(unnamed)")])


async def test_a_large_body_passes_in_either_direction_with_flat_memory(dataplane: DataPlane, tmp_path: Path) -> None:
    size = 64 << 20
    chunk = bytes(1 << 20)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(min(left, 1 << 20)))
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(size // len(chunk)):
            writer.write(chunk)
            await writer.drain()

    server = TcpServer(answer, port := free_port())
    filters = rewrite(path=prefix("/new")), headers("Response", set=setting("x-a", "1"))
    route = http_route("r", [rule("/old", *filters, backends=(backend("large"),))])
    large = service("large"), *endpoints("large", [("127.0.0.1", port)])
    async with server, running(dataplane, tmp_path, route, *large) as site:
        before = await memory(dataplane)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(f"POST /old HTTP/1.1\r\nhost: a.test\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(size // len(chunk)):
            writer.write(chunk)
            await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"x-a: 1" in head
        left = size
        while left:
            left -= len(await reader.read(1 << 20))
        writer.close()
        assert await memory(dataplane) - before < 4 << 20


async def memory(dataplane: DataPlane) -> int:
    """Give the bytes of HAProxy's serving process that are in memory."""
    status = Path(f"/proc/{await dataplane.worker_pid()}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
