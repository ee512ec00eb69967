"""HTTP against the real HAProxy: what the specification says about hosts, paths, conditions and errors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gwctl.routing.request import Request
from tests.harness import DataPlane
from tests.http1 import Connection, fetch
from tests.live.site import Case, get, header, path, query, redirect, rule, running, send_raw, taken_by
from tests.manifests import Manifest, backend, http_route


async def test_errors(dataplane: DataPlane, tmp_path: Path) -> None:
    missing = [backend("gone"), backend("web", port=81), {"group": "example.com", "kind": "Bucket", "name": "web"}]
    rules = [
        rule("good", path("/good")),
        rule("idle", path("/idle"), backendRefs=[backend("idle")]),
        rule("none", path("/none"), backendRefs=[]),
        rule("zero", path("/zero"), backendRefs=[backend("web", weight=0)]),
        *(rule("gone", path(f"/gone{index}"), backendRefs=[ref]) for index, ref in enumerate(missing)),
        rule("zero-and-gone", path("/mixed"), backendRefs=[backend("web", weight=0), backend("gone")]),
        rule("gone-and-zero", path("/fine"), backendRefs=[backend("web"), backend("gone", weight=0)]),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules, ("a.test",)), some="*.test") as site:
        await site.check(
            [
                (get("/good"), "good"),
                (get("/other"), 404),
                (get("/good", host="b.test"), 404),
                (get("/good", host="elsewhere.org"), 404),
                (get("/idle"), 503),
                (get("/none"), 500),
                (get("/zero"), 500),
                (get("/gone0"), 500),
                (get("/gone1"), 500),
                (get("/gone2"), 500),
                (get("/mixed"), 500),
                (get("/fine"), "gone-and-zero"),
            ]
        )


async def test_weights_and_the_share_of_a_missing_backend(dataplane: DataPlane, tmp_path: Path) -> None:
    refs = [backend("web", weight=2), backend("idle"), backend("gone"), backend("web", port=81, weight=0)]
    async with running(dataplane, tmp_path, http_route("r", [rule("web", path("/"), backendRefs=refs)])) as site:
        counts: Counter[str | int] = Counter()
        async with Connection(site.port) as connection:
            for _ in range(800):
                counts[taken_by(await connection.send(get()))] += 1
        assert set(counts) == {"web", 500, 503}
        # Six standard deviations around 400, 200 and 200.
        assert 315 < counts["web"] < 485, counts
        assert 126 < counts[500] < 274, counts
        assert 126 < counts[503] < 274, counts


async def test_hosts(dataplane: DataPlane, tmp_path: Path) -> None:
    deep = ".".join("abcdefghijkl") + ".test"
    names = ("a.test", "*.a.test", "*.x.a.test", "y.x.a.test", "*.test", f"*.{deep.partition('.')[2]}", deep)
    routes = [http_route(f"r{index}", [rule(name)], (name,)) for index, name in enumerate(names)]
    async with running(dataplane, tmp_path, *routes, http_route("any", [rule("any")])) as site:
        await site.check(
            [
                (get(), "a.test"),
                (get(host="A.Test"), "a.test"),
                (get(host="a.test:8080"), "a.test"),
                (get(host="a.test."), "a.test"),
                (get(host="A.TEST.:80"), "a.test"),
                (get(host="b.test"), "*.test"),
                (get(host="xa.test"), "*.test"),
                (get(host="b.a.test"), "*.a.test"),
                (get(host="x.a.test"), "*.a.test"),
                (get(host="b.b.a.test"), "*.a.test"),
                (get(host="b.x.a.test"), "*.x.a.test"),
                (get(host="Y.X.A.Test:1"), "y.x.a.test"),
                (get(host="b.y.x.a.test"), "*.x.a.test"),
                (get(host=deep), deep),
                (get(host=f"x.{deep}"), f"*.{deep.partition('.')[2]}"),
                (get(host=f"5.4.3.2.1.x.{deep}"), f"*.{deep.partition('.')[2]}"),
                (get(host="1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.a.test"), "*.a.test"),
                (get(host="test"), "any"),
                (get(host="a.test.org"), "any"),
                (get(host="127.0.0.1"), "any"),
                (get(host="[::1]"), "any"),
                (get(host=f"[fd00::1]:{site.port}"), "any"),
                (get(host="under_score.test"), "*.test"),
                (get(host="_.a.test"), "*.a.test"),
                (get(host="*.a.test"), "*.a.test"),
                (get(host="a.test/../b"), 400),
                (get("http://a.test/x"), "a.test"),
                (get("http://a.test:80/x", host="a.test:80"), "a.test"),
            ]
        )
        for lines in (("GET / HTTP/1.0",), ("GET / HTTP/1.0", "host: "), ("GET / HTTP/1.1", "connection: close")):
            status, body = await send_raw(site.port, *lines)
            assert (status.split()[1], json.loads(body)["headers"]["x-rule"]) == ("200", ["any"]), lines
        status, body = await send_raw(site.port, "GET / HTTP/1.0", "Host: a.test")
        assert json.loads(body)["headers"]["x-rule"] == ["a.test"]


async def test_listeners_are_isolated(dataplane: DataPlane, tmp_path: Path) -> None:
    def at(name: str, *rules: Manifest, hostnames: tuple[str, ...] = ()) -> Manifest:
        return http_route(name, list(rules), hostnames, ({"name": "gateway", "sectionName": name},))

    routes = [
        at("any", rule("any"), hostnames=()),
        at("wild", rule("wild", path("/wild"))),
        at("exact", rule("exact", path("/exact"))),
    ]
    async with running(dataplane, tmp_path, *routes, any="", wild="*.a.test", exact="x.a.test") as site:
        await site.check(
            [
                (get("/wild", host="x.a.test"), 404),
                (get("/exact", host="x.a.test"), "exact"),
                (get("/wild", host="y.a.test"), "wild"),
                (get("/exact", host="y.a.test"), 404),
                (get("/", host="y.a.test"), 404),
                (get("/", host="a.test"), "any"),
            ]
        )


async def test_paths(dataplane: DataPlane, tmp_path: Path) -> None:
    longest = "/" + "%2B" * 341
    rules = [
        rule("root", path("/")),
        rule("v2", path("/v2")),
        rule("v2/deep", path("/v2/deep/")),
        rule("exact v2", path("/v2", "Exact")),
        rule("exact slash", path("/e/", "Exact")),
        rule("regex", path("/r/[0-9]+|/v2/z", "RegularExpression")),
        rule("inner regex", path("/q.*z", "RegularExpression")),
        rule("semicolon", path("/s;v=1")),
        rule("exact semicolon", path("/s;v=1/x", "Exact")),
        rule("quote", path("/it's,a=(b)*!$&@:~")),
        rule("escape", path("/a%20b")),
        rule("percent", path("/100%25", "Exact")),
        rule("utf-8", path("/%C3%A9")),
        rule("longest", path(longest)),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules)) as site:
        await site.check(
            [
                (get("/"), "root"),
                (get("/other"), "root"),
                (get("//"), "root"),
                (get("/v2"), "exact v2"),
                (get("/v2?x=/v2/deep"), "exact v2"),
                (get("/v2/"), "v2"),
                (get("/v2/x"), "v2"),
                (get("/v2x"), "root"),
                (get("/v2;x"), "root"),
                (get("/V2/x"), "root"),
                (get("/v2%2Fx"), "root"),
                (get("/v2%2fdeep/x"), "root"),
                (get("/v2/a%2Fb"), "v2"),
                (get("/v2/deep"), "v2/deep"),
                (get("/v2/deep/x/y"), "v2/deep"),
                (get("/v2/deeper"), "v2"),
                (get("/v2//deep"), "v2"),
                (get("/v2/./deep"), "v2"),
                (get("/v2/z"), "regex"),
                (get("/v2/z/"), "v2"),
                (get("/e/"), "exact slash"),
                (get("/e"), "root"),
                (get("/e/x"), "root"),
                (get("/r/12"), "regex"),
                (get("/r/12/"), "root"),
                (get("/x/r/12"), "root"),
                (get("/q/%0a/z"), "inner regex"),
                (get("/s;v=1"), "semicolon"),
                (get("/s;v=1/x"), "exact semicolon"),
                (get("/s;v=1/x/y"), "semicolon"),
                (get("/s;v=10"), "root"),
                (get("/s"), "root"),
                (get("/s%3Bv=1"), "root"),
                (get("/it's,a=(b)*!$&@:~"), "quote"),
                (get("/it's,a=(b)*!$&@:~/x"), "quote"),
                (get("/a%20b/c"), "escape"),
                (get("/a+b"), "root"),
                (get("/100%25"), "percent"),
                (get("/100%"), "root"),
                (get("/%C3%A9/x"), "utf-8"),
                (get("/v2/" + "x" * 8000), "v2"),
                (get("/v2/" + "%E3%81%82" * 1300), "v2"),
                (get("/v2/deep/" + "/" * 11_000), "v2/deep"),
                (get(longest), "longest"),
                (get(longest + "/" + "%" * 11_000), "longest"),
                (get(longest + "x"), "root"),
                (get("/" + "%" * 11_000), "root"),
                (Request("OPTIONS", "a.test", "*"), 404),
            ]
        )


async def test_methods(dataplane: DataPlane, tmp_path: Path) -> None:
    methods = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")
    rules = [rule(method, path("/m", method=method)) for method in methods]
    async with running(dataplane, tmp_path, http_route("r", [*rules, rule("any", path("/m"))])) as site:
        cases: list[Case] = [(Request(method, "a.test", "/m"), method) for method in methods if method != "HEAD"]
        await site.check([*cases, (Request("PURGE", "a.test", "/m/x"), "any"), (Request("get", "a.test", "/m"), "any")])
        assert (await fetch(site.port, Request("HEAD", "a.test", "/m"))).status == 200


async def test_header_conditions(dataplane: DataPlane, tmp_path: Path) -> None:
    regex = "RegularExpression"
    rules = [
        rule("exact", path("/exact", **header("X-One", "a; \"b\", 'c'\\d %e"))),
        rule("no a", path("/no-a", **header("x-one", "[^a]*", regex))),
        rule("secret", path("/secret", **header("x-one", "(?s).*secret.*", regex))),
        rule("lines", path("/lines", **header("x-one", "(?ms).*^x-two.*", regex))),
        rule("anchored", path("/anchored", **header("x-one", "^a$", regex))),
        rule("empty", path("/empty", **header("x-one", "^$", regex))),
        rule("either", path("/either", **header("x-one", "a|bc", regex))),
        rule("case", path("/case", **header("x-one", "(?i)ABC", regex))),
        rule("any", path("/any", **header("x-one", ".*", regex))),
        rule("joined", path("/joined", **header("x-one", "1,2"))),
        rule("host", path("/host", **header("Host", "a.test:1"))),
        rule(
            "both",
            path("/both", headers=[{"name": "x-one", "value": "1"}, {"name": "x-two", "value": "2"}]),
        ),
        rule("token", path("/token", **header("x!#$%&'*+-.^_`|~", "1"))),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules)) as site:
        two = Request("GET", "a.test", "/joined", "", (("X-One", "1"), ("other", "x"), ("x-one", "2")))
        strange = Request("GET", "a.test", "/token", "", (("x!#$%&'*+-.^_`|~", "1"),))
        await site.check(
            [
                (get("/exact", x_one="a; \"b\", 'c'\\d %e"), "exact"),
                (get("/exact", X_ONE="  a; \"b\", 'c'\\d %e "), "exact"),
                (get("/exact", x_one="a; \"b\", 'c'\\d %E"), 404),
                (get("/exact"), 404),
                (get("/no-a", x_one="b", x_two="a"), "no a"),
                (get("/no-a", x_one=""), "no a"),
                (get("/no-a", x_one="bab"), 404),
                (get("/no-a", x_two="b"), 404),
                (get("/secret", x_one="a", x_two="secret"), 404),
                (get("/secret", a_one="secret", x_one="a"), 404),
                (get("/secret", x_one="the secret one"), "secret"),
                (get("/lines", x_one="a", x_two="b"), 404),
                (get("/anchored", x_one="a"), "anchored"),
                (get("/anchored", x_one="ab"), 404),
                (get("/anchored", x_one="b", x_two="a"), 404),
                (get("/empty", x_one=""), "empty"),
                (get("/empty"), 404),
                (get("/empty", x_one="a"), 404),
                (get("/either", x_one="a"), "either"),
                (get("/either", x_one="bc"), "either"),
                (get("/either", x_one="ac"), 404),
                (get("/either", x_one="abc"), 404),
                (get("/case", x_one="aBc"), "case"),
                (get("/any", x_one="\xe9\xff"), "any"),
                (get("/any"), 404),
                (two, "joined"),
                (get("/joined", x_one="1,2"), "joined"),
                (get("/joined", x_one="1, 2"), 404),
                (get("/host", host="a.test:1"), "host"),
                (get("/host", host="a.test"), 404),
                (get("/both", x_one="1", x_two="2"), "both"),
                (get("/both", x_one="1"), 404),
                (strange, "token"),
            ]
        )


async def test_query_conditions(dataplane: DataPlane, tmp_path: Path) -> None:
    regex = "RegularExpression"
    value = "a b;\"'\\%&=+é"
    rules = [
        rule("exact", path("/exact", **query("q", value))),
        rule("name", path("/name", **query("q'%", "1"))),
        rule("digits", path("/digits", **query("q", "[0-9]*", regex))),
        rule("secret", path("/secret", **query("q", "(?s).*secret.*", regex))),
        rule("both", path("/both", queryParams=[{"name": "q", "value": "1"}, {"name": "Q", "value": "2"}])),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules)) as site:
        await site.check(
            [
                (get(f"/exact?q={quote(value, safe='')}"), "exact"),
                (get(f"/exact?p=1&q={quote(value, safe='').replace('%20', '+').lower()}&q=2"), "exact"),
                (get(f"/exact?q=1&q={quote(value, safe='')}"), 404),
                (get(f"/exact?Q={quote(value, safe='')}"), 404),
                (get("/exact"), 404),
                (get("/name?q'%25=1"), "name"),
                (get("/name?q'%=1"), "name"),
                (get("/name?%71%27%25=%31"), "name"),
                (get("/digits?q=12"), "digits"),
                (get("/digits?q="), "digits"),
                (get("/digits?q"), "digits"),
                (get("/digits?"), 404),
                (get("/digits?q=1a"), 404),
                (get("/digits?q=1%00"), 404),
                (get("/digits?q=1%0a"), 404),
                (get("/digits?qq=1"), 404),
                (get("/digits?&&q=1&"), "digits"),
                (get("/digits?p=q=1"), 404),
                (get("/secret?q=1&p=secret"), 404),
                (get("/secret?q=%0asecret%00"), "secret"),
                (get("/both?q=1&Q=2"), "both"),
                (get("/both?Q=2&q=1"), "both"),
                (get("/both?q=1&q=2"), 404),
            ]
        )


async def test_precedence_across_routes_and_a_rule_without_matches(dataplane: DataPlane, tmp_path: Path) -> None:
    routes = [
        http_route("all", [{**rule("all"), "matches": []}]),
        http_route("b", [rule("plain", path("/a")), rule("method", path("/a", method="GET", **header("x-one", "2")))]),
        http_route("c", [rule("header", path("/a", **header("x-one", "1"), **query("q", "1")))]),
        http_route("d", [rule("two", path("/a", headers=[{"name": f"x-{n}", "value": "1"} for n in ("one", "two")]))]),
        http_route("e", [rule("long", path("/a/b", method="POST")), rule("query", path("/a", **query("q", "1")))]),
        http_route("f", [rule("loser", path("/a"))]),
    ]
    async with running(dataplane, tmp_path, *routes) as site:
        await site.check(
            [
                (get("/"), "all"),
                (get("/a"), "plain"),
                (get("/a", x_one="2"), "method"),
                (get("/a?q=1", x_one="1"), "header"),
                (get("/a?q=1", x_one="1", x_two="1"), "two"),
                (get("/a?q=1"), "query"),
                (get("/a/b?q=1"), "query"),
                (get("/a/b"), "plain"),
                (Request("POST", "a.test", "/a/b"), "long"),
                (Request("POST", "a.test", "/a/bc"), "plain"),
            ]
        )


async def test_a_kept_alive_connection_crosses_virtual_hosts(dataplane: DataPlane, tmp_path: Path) -> None:
    routes = [
        http_route("a", [rule("a", header("x-one", "1")), redirect("/r", scheme="https")], ("a.test",)),
        http_route("b", [rule("b", path("/"))], ("b.test",)),
        http_route("c", [rule("c", path("/"), backendRefs=[backend("gone")])], ("c.test",)),
    ]
    async with running(dataplane, tmp_path, *routes) as site:
        some: list[Case] = [
            (get(x_one="1"), "a"),
            (get(host="b.test"), "b"),
            (get(host="c.test"), 500),
            (get(), 404),
            (get("/r"), 302),
            (get(host="nowhere.test"), 404),
            (get(host="b.test", x_one="1"), "b"),
        ]
        await site.check(some * 5)


async def test_rules_that_need_long_rows(dataplane: DataPlane, tmp_path: Path) -> None:
    """Eighty rules with conditions at one path are a chain of groups; each rule is found, and what follows them."""

    def value(number: int) -> str:
        return f"{number:03d}" + "; " * 150

    def many(change: str) -> list[Manifest]:
        names = [f"{change}{number:03d}" for number in range(80)]
        conditional = [
            rule(name, path("/long", **header("x-one", value(number).strip()))) for number, name in enumerate(names)
        ]
        return [http_route(f"r{start:03d}", conditional[start : start + 16]) for start in range(0, 80, 16)]

    fallback = http_route("z", [rule("short", path("/long", **query("q", "1"))), rule("root")])
    async with running(dataplane, tmp_path, *many("a"), fallback) as site:
        for change in ("a", "b"):
            if change == "b":
                await site.apply(*many("b"), fallback)
            cases: list[Case] = [
                (get("/long", x_one=value(number).strip()), f"{change}{number:03d}") for number in range(80)
            ]
            await site.check([*cases, (get("/long?q=1", x_one="x"), "short"), (get("/long/x"), "root")])


async def test_the_longest_rows_there_can_be(dataplane: DataPlane, tmp_path: Path) -> None:
    """A group that is not quite full, and then rules of the greatest length that is accepted."""

    def conditions(*lengths: int) -> dict[str, str]:
        return {f"x_{index}": f"{length}" + "a" * (length - 4) for index, length in enumerate(lengths)}

    def match(sent: dict[str, str], **more: Any) -> Manifest:
        headers = [{"name": name.replace("_", "-"), "value": value} for name, value in sent.items()]
        return path("/", headers=headers, **more)

    small, large, larger = conditions(3900), conditions(4000, 3900, 1070), conditions(4000, 3900, 1060, 1)
    rules = [
        rule("small", match(small, method="GET")),
        rule("large", match(large)),
        rule("larger", match(larger)),
        rule("rest", path("/", **header("x-0", "1"))),
    ]
    async with running(dataplane, tmp_path, http_route("r", rules)) as site:
        await site.check(
            [
                (get(**small), "small"),
                (get(**large), "large"),
                (get(**larger), "larger"),
                (get(x_0="1"), "rest"),
                (get(x_0="2"), 404),
            ]
        )


async def test_a_rule_too_large_for_a_row_is_refused_and_harms_nothing(
    dataplane: DataPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    huge = [{"name": f"x-{index}", "value": "%" * 4096} for index in range(2)]
    change = {"set": [{"name": f"x-{index}", "value": "a" * 4096} for index in range(3)]}
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": change}]
    routes = [
        http_route("some", [rule("large", path("/a", headers=huge)), rule("other", path("/b"))]),
        http_route("only", [rule("only", path("/a/b", headers=huge))]),
        http_route("filter", [rule("filter", path("/a/b"), filters=filters)]),
        http_route("deeper", [rule("deeper", path("/a/b", **header("x-one", "1")))]),
        http_route("below", [rule("root", path("/"))]),
    ]
    async with running(dataplane, tmp_path, *routes) as site:
        await site.check(
            [
                (get("/a"), "root"),
                (get("/a/b"), "root"),
                (get("/a/b", x_one="1"), "deeper"),
                (get("/b"), "other"),
            ]
        )
    found = [
        tuple(record.__dict__[name] for name in ("object", "field", "condition", "reason"))
        for record in caplog.records
        if record.getMessage() == "resource problem"
    ]
    modifier = "spec.rules[0].filters[0].requestHeaderModifier"
    assert sorted(found) == [
        ("HTTPRoute default/filter", modifier, "Accepted", "UnsupportedValue"),
        ("HTTPRoute default/only", "spec.rules[0].matches[0]", "Accepted", "UnsupportedValue"),
        ("HTTPRoute default/some", "spec.rules[0].matches[0]", "PartiallyInvalid", "UnsupportedValue"),
    ]
