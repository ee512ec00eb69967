"""What rules see of a request."""

import pytest

from gwctl.routing.request import Request


@pytest.mark.parametrize(
    ("host", "without_port", "hostname"),
    [
        ("a.test", "a.test", "a.test"),
        ("a.test:8080", "a.test", "a.test"),
        ("A.Test:80", "A.Test", "a.test"),
        ("a.test.", "a.test.", "a.test"),
        ("a.test.:80", "a.test.", "a.test"),
        ("127.0.0.1:80", "127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]", "[::1]"),
        ("[FD00::1]:8080", "[FD00::1]", "[fd00::1]"),
        ("", "", ""),
    ],
)
def test_host(host: str, without_port: str, hostname: str) -> None:
    request = Request("GET", host, "/")
    assert (request.host_without_port, request.hostname) == (without_port, hostname)


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ((), None),
        ((("X-One", "1"),), "1"),
        ((("x-one", ""),), ""),
        ((("x-one", "1"), ("y", "2"), ("X-ONE", "3")), "1,3"),
        ((("x-one-more", "1"),), None),
    ],
)
def test_lines_of_one_header_are_one_value(headers: tuple[tuple[str, str], ...], value: str | None) -> None:
    assert Request("GET", "a.test", "/", headers=headers).header("x-one") == value


def test_the_host_is_a_header_too() -> None:
    assert Request("GET", "a.test:80", "/").header("host") == "a.test:80"
    assert Request("GET", "a.test", "/", headers=(("Host", "a.test"),)).header("host") == "a.test"
    assert Request("GET", "", "/").header("host") is None


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", None),
        ("q", ""),
        ("q=", ""),
        ("q=1", "1"),
        ("Q=1", None),
        ("q=1&q=2", "1"),
        ("&&p=0&q=1", "1"),
        ("q=a+b", "a b"),
        ("q=a%2Bb", "a+b"),
        ("q=a%20b%3d=c", "a b==c"),
        ("q=%", "%"),
        ("q=%4", "%4"),
        ("q=%zz", "%zz"),
        ("%71=1", "1"),
        ("q=%C3%A9", "Ã©"),
        ("p=q=1", None),
        ("p;q=1", None),
    ],
)
def test_the_first_parameter_of_a_name_counts_and_is_decoded(query: str, value: str | None) -> None:
    assert Request("GET", "a.test", "/", query).parameter("q") == value
