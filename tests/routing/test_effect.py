"""What filters do: the tables of the specification, literally."""

from __future__ import annotations

import pytest

from gwctl.routing.effect import (
    answer_cors,
    change_headers,
    origin_fits,
    redirect_location,
    replace_prefix,
    rewritten_path,
    uri_path,
)
from gwctl.routing.filter import Cors, HeaderFilter, PathChange, Redirect, Rewrite
from gwctl.routing.request import Request
from gwctl.routing.rule import PathKey

ROOT = PathKey("prefix", "")


# HTTPPathModifier.replacePrefixMatch: "Request Path | Prefix Match | Replace Prefix | Modified Path"
@pytest.mark.parametrize(
    ("path", "prefix", "replacement", "modified"),
    [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        # not in the table
        ("/foo/bar", "/", "/xyz", "/xyz/foo/bar"),
        ("/foo/bar", "/", "/", "/foo/bar"),
        ("/foo//bar", "/foo", "/", "//bar"),
    ],
)
def test_replace_prefix_match(path: str, prefix: str, replacement: str, modified: str) -> None:
    assert replace_prefix(path, prefix.rstrip("/"), replacement) == modified
    redirect = Redirect(path=PathChange("prefix", replacement))
    matched = PathKey("prefix", prefix.rstrip("/"))
    assert rewritten_path(Rewrite(path=redirect.path), matched, path) == modified
    assert redirect_location(redirect, matched, Request("GET", "a.test", path), 80) == f"http://a.test{modified}"


# HTTPRequestRedirectFilter.port
@pytest.mark.parametrize(
    ("scheme", "port", "listener_port", "start"),
    [
        # the filter's port
        ("", 8443, 80, "http://a.test:8443"),
        ("https", 8443, 80, "https://a.test:8443"),
        # else the well-known port of the filter's scheme
        ("http", None, 8080, "http://a.test"),
        ("https", None, 8080, "https://a.test"),
        # else the listener's
        ("", None, 80, "http://a.test"),
        ("", None, 8080, "http://a.test:8080"),
        ("", None, 443, "http://a.test:443"),
        # left out where the scheme implies it, and only there
        ("http", 80, 8080, "http://a.test"),
        ("https", 443, 8080, "https://a.test"),
        ("", 80, 8080, "http://a.test"),
        ("http", 443, 8080, "http://a.test:443"),
        ("https", 80, 8080, "https://a.test:80"),
    ],
)
def test_redirect_port(scheme: str, port: int | None, listener_port: int, start: str) -> None:
    redirect = Redirect(scheme, port=port)
    for host in ("a.test", "a.test:9999"):
        request = Request("GET", host, "/x", "q=1")
        assert redirect_location(redirect, ROOT, request, listener_port) == f"{start}/x?q=1"


@pytest.mark.parametrize(
    ("redirect", "host", "path", "query", "location"),
    [
        (Redirect(hostname="b.test"), "a.test", "/x", "", "http://b.test/x"),
        (Redirect(), "[::1]:80", "/x", "", "http://[::1]/x"),
        (Redirect(), "A.test", "/X%2f;y", "a=%20&b", "http://a.test/X%2f;y?a=%20&b"),
        (Redirect(path=PathChange("full", "/new")), "a.test", "/x", "q", "http://a.test/new?q"),
        (Redirect(path=PathChange("full", "")), "a.test", "/x", "", "http://a.test/"),
        (Redirect(path=PathChange("full", "/a%20b%c?d#e")), "a.test", "/x", "", "http://a.test/a%20b%25c%3Fd%23e"),
    ],
)
def test_redirect_location(redirect: Redirect, host: str, path: str, query: str, location: str) -> None:
    assert redirect_location(redirect, ROOT, Request("GET", host, path, query), 80) == location


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        (HeaderFilter((), (), ()), [("a", "1"), ("b", "2"), ("a", "3")]),
        (HeaderFilter((), (), ("A",)), [("b", "2")]),
        (HeaderFilter((("a", "4"),), (), ()), [("b", "2"), ("a", "4")]),
        (HeaderFilter((("C", "4"),), (), ()), [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")]),
        (HeaderFilter((), (("a", "4"),), ()), [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]),
        (HeaderFilter((("a", "4"),), (("A", "5"),), ("b",)), [("a", "4"), ("a", "5")]),
    ],
)
def test_change_headers(change: HeaderFilter, headers: list[tuple[str, str]]) -> None:
    assert change_headers((("A", "1"), ("B", "2"), ("a", "3")), change) == headers


def test_a_location_keeps_escapes_and_encodes_what_a_uri_cannot_hold() -> None:
    assert uri_path("/a%20b/é x?;%zz") == "/a%20b/%C3%A9%20x%3F;%25zz"


@pytest.mark.parametrize(
    ("wanted", "origin", "fits"),
    [
        ("*", "https://a.test", True),
        ("*", "null", True),
        ("https://a.test", "https://a.test", True),
        ("https://a.test", "HTTPS://A.test", True),
        ("https://a.test", "http://a.test", False),
        ("https://a.test", "https://x.a.test", False),
        ("https://a.test", "https://a.test.org", False),
        ("https://a.test", "null", False),
        # "if not included, port 80 is assumed for http scheme origins, and port 443 for https origins"
        ("https://a.test", "https://a.test:443", True),
        ("http://a.test:80", "http://a.test", True),
        ("https://a.test", "https://a.test:8443", False),
        ("https://a.test:8443", "https://a.test:8443", True),
        # "* is a greedy match to the left, including any number of DNS labels"
        ("https://*.a.test", "https://x.a.test", True),
        ("https://*.a.test", "https://y.x.a.test", True),
        ("https://*.a.test", "https://a.test", False),
        ("https://*.a.test", "https://.a.test", False),
        ("https://*.a.test", "https://xa.test", False),
        ("https://*.a.test", "https://x.a.test:8443", False),
        # "A wildcard by itself matches all hosts"
        ("https://*", "https://any.test", True),
        ("https://*", "http://any.test", False),
        ("https://*", "https://any.test:8443", False),
        ("http://*:8080", "http://any.test:8080", True),
        ("http://*", "http://[::1]", True),
    ],
)
def test_origins(wanted: str, origin: str, fits: bool) -> None:
    assert origin_fits(wanted, origin) is fits


PREFLIGHT = {"origin": "https://a.test", "access-control-request-method": "PUT"}
ASKING = {**PREFLIGHT, "access-control-request-headers": "x-one, x-two"}
ALLOW = "access-control-allow"


@pytest.mark.parametrize(
    ("cors", "method", "sent", "answer"),
    [
        (Cors(("https://a.test",)), "GET", {"origin": "https://a.test"}, {f"{ALLOW}-origin": "https://a.test"}),
        (Cors(("https://b.test",)), "GET", {"origin": "https://a.test"}, {}),
        (Cors(("https://b.test",)), "OPTIONS", PREFLIGHT, {}),
        (Cors(), "GET", {"origin": "https://a.test"}, {}),
        (
            Cors(("https://a.test",), True, ("GET", "PUT"), ("x-one", "x-two"), ("x-three", "x-four"), 3600),
            "OPTIONS",
            PREFLIGHT,
            {
                f"{ALLOW}-origin": "https://a.test",
                f"{ALLOW}-credentials": "true",
                f"{ALLOW}-methods": "GET, PUT",
                f"{ALLOW}-headers": "x-one, x-two",
                "access-control-max-age": "3600",
                "access-control-expose-headers": "x-three, x-four",
            },
        ),
        # "the gateway must not return * … it must return a single HTTP method", or what was asked for
        (
            Cors(("*",), True, ("*",), ("*",)),
            "OPTIONS",
            ASKING,
            {
                f"{ALLOW}-origin": "https://a.test",
                f"{ALLOW}-credentials": "true",
                f"{ALLOW}-methods": "PUT",
                f"{ALLOW}-headers": "x-one, x-two",
                "access-control-max-age": "5",
            },
        ),
        (
            Cors(("*",), False, ("*",), ("*",), ("*",)),
            "OPTIONS",
            ASKING,
            {
                f"{ALLOW}-origin": "*",
                f"{ALLOW}-methods": "*",
                f"{ALLOW}-headers": "*",
                "access-control-max-age": "5",
                "access-control-expose-headers": "*",
            },
        ),
        # "If the Access-Control-Request-Headers header is not present … must omit"
        (
            Cors(("*",), True, ("*",), ("*",)),
            "OPTIONS",
            PREFLIGHT,
            {
                f"{ALLOW}-origin": "https://a.test",
                f"{ALLOW}-credentials": "true",
                f"{ALLOW}-methods": "PUT",
                "access-control-max-age": "5",
            },
        ),
        # an OPTIONS that asks for nothing is no preflight
        (Cors(("*",), False, ("PUT",)), "OPTIONS", {"origin": "https://a.test"}, {f"{ALLOW}-origin": "*"}),
        (
            Cors(("*",), True, exposed=("*",)),
            "GET",
            {"origin": "https://a.test"},
            {
                f"{ALLOW}-origin": "https://a.test",
                f"{ALLOW}-credentials": "true",
                "access-control-expose-headers": "server, x-given",
            },
        ),
    ],
)
def test_cors(cors: Cors, method: str, sent: dict[str, str], answer: dict[str, str]) -> None:
    given = [("X-Given", "1"), ("Server", "s"), ("Content-Type", "t"), ("Access-Control-Allow-Origin", "backend")]
    found = answer_cors(cors, Request(method, "a.test", "/", "", tuple(sent.items())), given)
    assert found[:3] == [("x-given", "1"), ("server", "s"), ("content-type", "t")]
    assert [header for header in found[3:] if header[0] == "vary"] == (
        [] if cors.origins == ("*",) and not cors.credentials else [("vary", "Origin")]
    )
    assert {name: value for name, value in found[3:] if name != "vary"} == answer


def test_a_request_without_origin_is_left_alone() -> None:
    request, given = Request("GET", "a.test", "/"), [("access-control-allow-origin", "backend")]
    assert answer_cors(Cors(("*",)), request, given) == given
    assert answer_cors(Cors(("https://a.test",)), request, given) == [*given, ("vary", "Origin")]
