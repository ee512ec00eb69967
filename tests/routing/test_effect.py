"""What filters do: the tables of the specification, literally."""

from __future__ import annotations

import pytest

from gwctl.routing.effect import change_headers, redirect_location, replace_prefix, rewritten_path, uri_path
from gwctl.routing.filter import HeaderFilter, PathChange, Redirect, Rewrite
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
