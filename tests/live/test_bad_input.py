"""Bad input: each mistake is reported with object, field and reason, or honoured exactly; nothing else is harmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import fetch
from tests.live.gateway import Gwctl, wait_for
from tests.manifests import (
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    listener,
    prefix_rule,
    service,
)

WILD = "a b;c\"d'e\\f%g\u00e9\r\nx-injected: 1"


def problems_of(caplog: pytest.LogCaptureFixture) -> set[tuple[str, str]]:
    """Give object and field of every problem that was logged."""
    found = [record.__dict__ for record in caplog.records if record.getMessage() == "resource problem"]
    return {(str(fields["object"]), str(fields["field"])) for fields in found}


def match(**conditions: Any) -> Manifest:
    """A rule with one match."""
    return {"matches": [conditions], "backendRefs": [backend("web")]}


def set_header(value: str) -> Manifest:
    """A rule that sets a header."""
    modifier = {"set": [{"name": "x-set", "value": value}]}
    return prefix_rule(
        "/set", backend("web"), filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}]
    )


BAD: dict[str, tuple[Manifest, str]] = {
    "path": (match(path={"type": "PathPrefix", "value": "/" + WILD}), "spec.rules[0].matches[0].path.value"),
    "path-type": (match(path={"type": "Glob", "value": "/"}), "spec.rules[0].matches[0].path.type"),
    "method": (match(method="GET /x"), "spec.rules[0].matches[0].method"),
    "header-name": (match(headers=[{"name": WILD, "value": "x"}]), "spec.rules[0].matches[0].headers[0].name"),
    "header-regex": (
        match(headers=[{"name": "x", "type": "RegularExpression", "value": "(a"}]),
        "spec.rules[0].matches[0].headers[0].value",
    ),
    "escaping-regex": (
        match(headers=[{"name": "x", "type": "RegularExpression", "value": "a)|(b"}]),
        "spec.rules[0].matches[0].headers[0].value",
    ),
    "path-regex": (
        match(path={"type": "RegularExpression", "value": "/[z-a]"}),
        "spec.rules[0].matches[0].path.value",
    ),
    "set-value": (set_header(WILD), "spec.rules[0].filters[0].requestHeaderModifier.set[0].value"),
    "redirect-host": (
        {"filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": WILD}}]},
        "spec.rules[0].filters[0].requestRedirect.hostname",
    ),
    "missing-service": (prefix_rule("/m", backend("gone")), "spec.rules[0].backendRefs[0].name"),
}


async def test_every_mistake_is_reported_by_object_and_field_and_harms_nothing(
    dataplane: DataPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with EchoBackend("web") as web:
        good = [
            gateway_class(),
            gateway([listener("http", port)]),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
            http_route("good", [prefix_rule("/", backend("web"))], ("good.test",)),
        ]
        async with Gwctl(dataplane, tmp_path / "m", *good) as gwctl:
            worker = await dataplane.worker()
            await gwctl.apply("bad.yaml", [http_route(name, [rule], ("bad.test",)) for name, (rule, _) in BAD.items()])
            for name, (_, field) in BAD.items():
                assert (f"HTTPRoute default/{name}", field) in problems_of(caplog), name
            good_request = Request("GET", "good.test", "/")
            assert (await fetch(port, good_request)).status == 200
            assert (await fetch(port, Request("GET", "bad.test", "/m"))).status == 500
            assert (await fetch(port, Request("GET", "bad.test", "/set"))).status == 404
            gwctl.remove("bad.yaml")
            await wait_for(port, Request("GET", "bad.test", "/m"), status=404)
            assert await dataplane.worker() == worker


async def test_special_characters_that_are_allowed_are_honoured_exactly(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with EchoBackend("web") as web:
        value = "a; b \"c\" \\d %20 'e' ,=&|~>?"
        rules = [
            set_header(value),
            match(path={"type": "Exact", "value": "/p;a=1,b'%20*"}),
            match(path={"type": "PathPrefix", "value": "/h"}, headers=[{"name": "x-odd", "value": value}]),
            match(path={"type": "PathPrefix", "value": "/q"}, queryParams=[{"name": "q", "value": value + "\u00e9"}]),
        ]
        manifests = [
            gateway_class(),
            gateway([listener("http", port)]),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
            http_route("odd", rules),
        ]
        async with Gwctl(dataplane, tmp_path / "m", *manifests):
            response = await wait_for(port, Request("GET", "x.test", "/set"), status=200)
            assert response.json()["headers"]["x-set"] == [value]
            assert (await fetch(port, Request("GET", "x.test", "/p;a=1,b'%20*"))).status == 200
            assert (await fetch(port, Request("GET", "x.test", "/p;a=1,b'%20"))).status == 404
            assert (await fetch(port, Request("GET", "x.test", "/h", headers=(("x-odd", value),)))).status == 200
            assert (await fetch(port, Request("GET", "x.test", "/h", headers=(("x-odd", value[:-1]),)))).status == 404
            query = "q=" + "".join(f"%{byte:02X}" for byte in (value + "\u00e9").encode())
            assert (await fetch(port, Request("GET", "x.test", "/q", query))).status == 200
            assert (await fetch(port, Request("GET", "x.test", "/q", query[:-6]))).status == 404


ODD_VALUES = ("default-src 'self';  script-src 'none'", "Z\u00fcrich \u20ac\U00010348", "tab\t \tspace", "\u00a0x")


async def test_values_that_only_the_standard_channel_admits_are_honoured_exactly(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    values = {**{f"x-{index}": value for index, value in enumerate(ODD_VALUES)}, "x-around": " \ta ", "x-none": "  "}
    headers = [{"name": name, "value": value} for name, value in values.items()]
    filters = [
        {"type": f"{kind}HeaderModifier", f"{kind.lower()}HeaderModifier": {"set": headers}}
        for kind in ("Request", "Response")
    ]
    regexes = {"x-agent": "Mozilla.*( |x)", "x-team": "Z..?r.* "}
    rules = [
        {**prefix_rule("/set", backend("web")), "name": "same", "filters": filters},
        *(
            {**match(headers=[{"name": "x-odd", "value": value}], path={"value": f"/{index}"}), "name": "same"}
            for index, value in enumerate(ODD_VALUES)
        ),
        *(
            match(path={"value": f"/{name}"}, headers=[{"name": name, "type": "RegularExpression", "value": value}])
            for name, value in regexes.items()
        ),
    ]
    port = free_port()
    async with EchoBackend("web") as web:
        manifests = [
            gateway_class(),
            gateway([listener("http", port)]),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
            http_route("odd", rules),
        ]
        async with Gwctl(dataplane, tmp_path / "m", *manifests):
            response = await wait_for(port, Request("GET", "x.test", "/set"), status=200)
            received = response.json()["headers"]
            for name, value in values.items():
                wanted = value.strip(" \t").encode().decode("latin-1")
                assert received[name] == [wanted], name
                assert response.values(name) == [wanted], name
            for index, value in enumerate(ODD_VALUES):
                there = value.encode().decode("latin-1")
                for sent, status in ((there, 200), (there[:-1], 404), (there.replace("  ", " ") + "x", 404)):
                    request = Request("GET", "x.test", f"/{index}", headers=(("x-odd", sent),))
                    assert (await fetch(port, request)).status == status, sent
            agent = Request("GET", "x.test", "/x-agent", headers=(("x-agent", "Mozilla/5.0 x"),))
            assert (await fetch(port, agent)).status == 200
            # A value never ends in a space, so that nothing fits.
            team = Request("GET", "x.test", "/x-team", headers=(("x-team", "Z\u00c3\u00bcrich "),))
            assert (await fetch(port, team)).status == 404


async def test_a_file_that_does_not_parse_keeps_its_last_good_version(
    dataplane: DataPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with EchoBackend("web") as web:
        base = [
            gateway_class(),
            gateway([listener("http", port)]),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
        ]
        async with Gwctl(dataplane, tmp_path / "m", *base) as gwctl:
            await gwctl.apply("route.yaml", [http_route("r", [prefix_rule("/", backend("web"))], ("r.test",))])
            (tmp_path / "m" / "route.yaml").write_text("kind: HTTPRoute\nspec: [unclosed")
            await gwctl.apply("more.yaml", [http_route("more", [prefix_rule("/", backend("web"))], ("more.test",))])
            assert (await fetch(port, Request("GET", "more.test", "/"))).status == 200
            assert (await fetch(port, Request("GET", "r.test", "/"))).status == 200
            assert any("route.yaml" in name for name, _ in problems_of(caplog))
