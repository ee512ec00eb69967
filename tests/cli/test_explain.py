"""`gwctl explain`: the answers, as people read them."""

from pathlib import Path

import pytest

from tests.certificates import make_authority, make_pair
from tests.cli.conftest import Run, write
from tests.manifests import (
    allowed_listeners,
    backend,
    backend_tls_policy,
    config_map,
    endpoints,
    gateway,
    gateway_class,
    grpc_route,
    http_route,
    https_listener,
    listener,
    listener_set,
    prefix_rule,
    service,
    tls_listener,
    tls_route,
)

MOVED = {"type": "RequestRedirect", "requestRedirect": {"hostname": "moved.test"}}


def lines(run: Run, manifests: Path, *arguments: str) -> list[str]:
    result = run("explain", "-f", manifests, *arguments)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_the_rule_the_reason_and_the_backends(run: Run, shop: Path) -> None:
    url = "http://shop.example.com:8080/cart/7"
    assert lines(run, shop, "POST", url, "-H", "x-user: admin") == [
        "gateway      default/gateway, port 8080 on 127.0.0.1",
        "listener     http (*.example.com)",
        "host         shop.example.com",
        "rule         default/shop/0: path prefix /cart, method POST, header x-user = 'admin'",
        "why          it goes before default/shop/1, which fits too: a rule with a method goes first",
        "passed over  1 whose path does not fit (--all lists them)",
        "then         Service default/web port 80 (10.0.0.1:8080, 10.0.0.2:8080), 3 of 4",
        "             Service default/idle port 80 (no endpoint is ready: 503), 1 of 4",
    ]


def test_what_was_passed_over_and_why(run: Run, shop: Path) -> None:
    url = "http://shop.example.com:8080/cart?q=a"
    assert lines(run, shop, "GET", url, "-H", "X-User: bob", "--all")[3:] == [
        "rule         default/shop/1: path prefix /cart",
        "why          it goes before default/shop/4, which fits too: the longer prefix goes first",
        "passed over  default/shop/2: path exactly /old does not fit",
        "             default/shop/0: method POST, not GET; header x-user = 'admin', sent is 'bob'",
        "             default/shop/0: query parameter q = 'a b', sent is 'a'",
        "then         Service default/web port 80 (10.0.0.1:8080, 10.0.0.2:8080)",
    ]


def test_what_else_becomes_of_a_request(run: Run, tmp_path: Path) -> None:
    to_web = {"backendRef": {"name": "web", "port": 80}}
    filters = [
        {"type": "RequestMirror", "requestMirror": {**to_web, "percent": 20}},
        {"type": "ExternalAuth", "externalAuth": {**to_web, "protocol": "HTTP", "http": {}}},
        {
            "type": "ExternalAuth",
            "externalAuth": {"backendRef": {"name": "gone", "port": 80}, "protocol": "HTTP", "http": {}},
        },
    ]
    retry = {"attempts": 2, "codes": [503], "backoff": "50ms"}
    session = {"sessionName": "sid", "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}
    rules = [
        prefix_rule("/retried", backend("web")) | {"filters": filters, "retry": retry},
        prefix_rule("/kept", backend("web")) | {"sessionPersistence": session},
        prefix_rule("/header", backend("web")) | {"sessionPersistence": {"type": "Header", "sessionName": "x-id"}},
    ]
    parts = [gateway_class(), gateway([listener("http", 80)]), http_route("r", rules), service("web")]
    manifests = write(tmp_path, *parts)
    found = lines(run, manifests, "GET", "http://a.test/retried")
    assert found[found.index("auth         Service default/web port 80 is asked") :] == [
        "auth         Service default/web port 80 is asked",
        "auth         nobody can be asked, so it is denied",
        "mirror       Service default/web port 80, 20 of 100",
        "retry        2 more attempts after a failed connection, or status 503, each after 50 ms",
        "then         500",
        "note         the manifests have 1 problem: see gwctl validate",
    ]
    assert "session      permanent cookie sid, for 3600 s" in lines(run, manifests, "GET", "http://a.test/kept")
    assert "session      header x-id" in lines(run, manifests, "GET", "http://a.test/header")


@pytest.mark.parametrize(
    ("url", "last"),
    [
        ("http://shop.example.com:8080/old?x=1", "then         301 to https://shop.example.com/old?x=1"),
        ("http://shop.example.com:8080/none", "then         500: the rule has no backend with a weight"),
        ("http://other.example.com:8080/", "then         404"),
        ("http://example.com:8080/", "then         404"),
        ("http://x:9000/", "then         Service default/web port 80 (10.0.0.1:8080, 10.0.0.2:8080)"),
        (
            "http://x/",
            "port         80 has no listener, so connections are refused (ports with a listener: 8080, 9000)",
        ),
    ],
)
def test_what_then_happens(run: Run, shop: Path, url: str, last: str) -> None:
    assert lines(run, shop, "GET", url)[-1] == last


def test_the_host_header_goes_before_the_url(run: Run, shop: Path) -> None:
    found = lines(run, shop, "GET", "http://127.0.0.1:8080/", "-H", "Host: shop.example.com")
    assert "host         shop.example.com" in found


def test_several_gateways_on_one_port_are_told_apart(run: Run, tmp_path: Path) -> None:
    manifests = write(
        tmp_path,
        gateway_class(),
        gateway([listener("http", 80)], "one", address="127.0.0.1"),
        gateway([listener("http", 80)], "two", address="127.0.0.2"),
        http_route("r", [prefix_rule("/", backend("missing"))], parents=({"name": "two"},)),
        service("other"),
    )
    assert lines(run, manifests, "GET", "http://é.com/ü?q=ö") == [
        "port         80 belongs to several Gateways, by address: default/one, default/two",
        "gateway      default/one, port 80 on 127.0.0.1",
        "listener     http (any host)",
        "host         any (*)",
        "rule         none fits",
        "then         404",
        "gateway      default/two, port 80 on 127.0.0.2",
        "listener     http (any host)",
        "host         any (*)",
        "rule         default/r/0: path prefix /",
        "why          no other rule fits",
        "then         500: its backendRef is invalid, forbidden or missing, or its policy cannot be honoured",
        "note         the manifests have 1 problem: see gwctl validate",
    ]


TLS = [
    gateway_class(),
    gateway(
        [
            https_listener("any", 443, "cert"),
            https_listener("shop", 443, "cert", "old", hostname="shop.test"),
            https_listener("none", 443, "missing", hostname="none.test"),
            https_listener("only", 444, "cert", hostname="only.test"),
            listener("http", 80),
        ]
    ),
    http_route("web", [prefix_rule("/", backend("web"))]),
    http_route("old", [prefix_rule("/old", filters=[MOVED])], parents=({"name": "gateway", "sectionName": "any"},)),
    service("web"),
    make_pair("*.test").secret("cert"),
    make_pair("old.test").secret("old"),
]


@pytest.mark.parametrize(
    ("url", "host", "answer"),
    [
        (
            "https://shop.test/",
            "",
            ["certificate  Secret default/cert, Secret default/old", "listener     shop (shop.test)"],
        ),
        ("https://10.0.0.1/", "", ["certificate  Secret default/cert", "listener     any (any host)"]),
        (
            "https://other.test/",
            "shop.test",
            [
                "certificate  Secret default/cert",
                "then         421: the handshake was for listener any, the host is one of shop",
            ],
        ),
        ("https://none.test/", "", ["then         the handshake is refused: listener none has no certificate"]),
        ("https://other.test:444/", "", ["then         the handshake is refused: other.test is no listener's"]),
        ("https://10.0.0.1:444/", "", ["then         the handshake is refused: no name is no listener's"]),
        ("http://shop.test:443/", "", ["then         refused: the port speaks TLS, so the URL begins with https://"]),
        ("https://shop.test:80/", "", ["then         refused: the port speaks no TLS, so the URL begins with http://"]),
    ],
)
def test_what_a_handshake_leads_to(run: Run, tmp_path: Path, url: str, host: str, answer: list[str]) -> None:
    arguments = ("-H", f"Host: {host}") if host else ()
    found = lines(run, write(tmp_path, *TLS), "GET", url, *arguments)
    assert found[1 : 1 + len(answer)] == answer


SNI = [
    gateway_class(),
    gateway(
        [
            tls_listener("pass", 443, hostname="*.db.test"),
            tls_listener("end", 443, "cert", hostname="edge.test"),
            tls_listener("none", 443, "missing", hostname="none.test"),
            https_listener("web", 443, "cert", hostname="web.test"),
        ]
    ),
    make_pair("edge.test", "web.test").secret("cert"),
    service("db"),
    *endpoints("db", [("10.0.0.1", 5432)]),
    tls_route("db", [backend("db")], ("a.db.test", "edge.test", "none.test")),
    http_route("web", [prefix_rule("/", backend("db"))]),
]
"""Both modes of TLS, and HTTPS, at one port."""


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        (
            "https://a.db.test/",
            [
                "listener     pass (TLS is passed through: the request itself is not looked at)",
                "rule         default/db/0",
                "then         Service default/db port 80 (10.0.0.1:5432)",
            ],
        ),
        (
            "https://edge.test/",
            [
                "listener     end (TLS is terminated: the request itself is not looked at)",
                "certificate  Secret default/cert",
                "rule         default/db/0",
                "then         Service default/db port 80 (10.0.0.1:5432)",
            ],
        ),
        (
            "https://none.test/",
            [
                "listener     none (TLS is terminated: the request itself is not looked at)",
                "then         the handshake is refused: listener none has no certificate",
            ],
        ),
        (
            "https://b.db.test/",
            [
                "listener     pass (TLS is passed through: the request itself is not looked at)",
                "then         no TLSRoute has b.db.test: connections are closed at once",
            ],
        ),
        ("https://other.test/", ["then         connections are closed at once: other.test is no listener's"]),
        ("http://a.db.test:443/", ["then         refused: the port speaks TLS, so the URL begins with https://"]),
        ("https://web.test/", ["certificate  Secret default/cert", "listener     web (web.test)"]),
    ],
)
def test_what_a_name_in_a_handshake_leads_to(run: Run, tmp_path: Path, url: str, answer: list[str]) -> None:
    found = lines(run, write(tmp_path, *SNI), "GET", url)
    assert found[1 : len(answer) + 1] == answer


def test_a_redirect_keeps_the_scheme_of_its_listener(run: Run, tmp_path: Path) -> None:
    manifests = write(tmp_path, *TLS)
    assert "then         302 to https://moved.test/old" in lines(run, manifests, "GET", "https://a.test/old")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("GET", "shop/"), "shop/ is not of the form http[s]://HOST[:PORT]/PATH"),
        (("GET", "ftp://shop/"), "ftp://shop/ is not of the form http[s]://HOST[:PORT]/PATH"),
        (("GET", "http://u:p@shop/"), "a user in the URL is not supported"),
        (("GET", "http://shop/a b"), "the URL holds a space or a control character"),
        (("GET", "http://shop:99999/"), "is no URL: Port out of range 0-65535"),
        (("G T", "http://shop/"), "'G T' is no method"),
        (("GET", "http://shop/", "-H", "x"), "'x' is not of the form 'name: value'"),
    ],
)
def test_wrong_usage(run: Run, shop: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("explain", "-f", shop, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_data_plane_that_does_not_answer_is_one_sentence(run: Run, shop: Path) -> None:
    url = "unix:///nowhere.sock"
    result = run("explain", "-f", shop, "GET", "http://x:8080/", "--live", "--dataplane-url", url)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert f"no answer from {url}: ConnectError" in result.output


def test_a_grpc_call_is_a_post_to_its_service_and_method(run: Run, tmp_path: Path) -> None:
    rules = [
        {"matches": [{"method": {"service": "a.B", "method": "Echo"}}], "backendRefs": [backend("web")]},
        {"matches": [{"method": {"service": "a.B"}}], "backendRefs": [backend("missing")]},
        {"matches": [{"method": {"method": "Echo"}, "headers": [{"name": "x", "value": "1"}]}]},
        {"matches": [{"method": {"type": "RegularExpression", "method": "E.*"}}]},
    ]
    manifests = [gateway_class(), gateway([listener("grpc", 80)]), service("web"), grpc_route("r", rules, ("a.com",))]
    write(tmp_path, *manifests)
    assert lines(run, tmp_path, "POST", "http://a.com/a.B/Echo", "-H", "x: 1")[2:] == [
        "host         a.com",
        "rule         default/r/0: path exactly /a.B/Echo",
        "why          it goes before default/r/1, which fits too: an exact method goes before any method",
        "then         Service default/web port 80 (no endpoint is ready: 503 (gRPC: UNAVAILABLE))",
        "note         the manifests have 1 problem: see gwctl validate",
    ]
    assert lines(run, tmp_path, "POST", "http://a.com/a.B/Eat")[4:6] == [
        "why          it goes before default/r/3, which fits too: an exact service goes before any service",
        "passed over  1 whose path does not fit (--all lists them)",
    ]
    assert lines(run, tmp_path, "POST", "http://a.com/a.B/Eat")[6] == (
        "then         500 (gRPC: UNAVAILABLE): its backendRef is invalid, forbidden or missing, "
        "or its policy cannot be honoured"
    )
    why = lines(run, tmp_path, "POST", "http://a.com/c.D/Echo", "-H", "x: 1")[4]
    assert why.endswith("default/r/3, which fits too: an exact method goes before an expression for the method")
    assert "then         404 (gRPC: UNIMPLEMENTED)" in lines(run, tmp_path, "POST", "http://a.com/c.D/X")
    call = ("POST", "http://b.com/c.D/X", "-H", "content-type: application/grpc")
    assert "then         404 (gRPC: UNIMPLEMENTED)" in lines(run, tmp_path, *call)
    assert "then         404" in lines(run, tmp_path, "POST", "http://b.com/c.D/X")


def test_a_backend_with_tls_is_named_with_the_name_that_it_must_have(run: Run, tmp_path: Path) -> None:
    rules = [prefix_rule("/", backend("web")), prefix_rule("/bad", backend("bad"))]
    world = [gateway_class(), gateway([listener("http", 80)]), http_route("r", rules), service("web"), service("bad")]
    policies = [backend_tls_policy("p", "web", "ca"), backend_tls_policy("q", "bad", "missing")]
    write(tmp_path, *world, *policies, config_map("ca", make_authority("root")))
    (*_, last, _) = lines(run, tmp_path, "GET", "http://a.test/")
    assert last == "then         Service default/web port 80, TLS as backend.test (no endpoint is ready: 503)"
    (*_, last, _) = lines(run, tmp_path, "GET", "http://a.test/bad")
    assert last == "then         500: its backendRef is invalid, forbidden or missing, or its policy cannot be honoured"


def test_a_listener_of_a_listener_set_is_named_with_it(run: Run, tmp_path: Path) -> None:
    manifests = write(
        tmp_path,
        gateway_class(),
        gateway([listener("http", 80, "a.test")], **allowed_listeners("Same")),
        listener_set("shop", [listener("http", 80, "shop.test")]),
        http_route("web", [prefix_rule("/", backend("web"))], parents=({"kind": "ListenerSet", "name": "shop"},)),
    )
    assert (
        lines(run, manifests, "GET", "http://shop.test/")[1]
        == "listener     http of ListenerSet default/shop (shop.test)"
    )
    assert lines(run, manifests, "GET", "http://a.test/")[1] == "listener     http (a.test)"
