"""What one client, or the author of one route, can do to all the others."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from tests.harness import DataPlane
from tests.http1 import fetch
from tests.live.test_http import get, path, rule, running
from tests.manifests import http_route


async def test_regular_expressions_that_go_astray_fit_nothing_and_leave_haproxy_alive(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    """HAProxy's watchdog kills a process that does nothing else for two seconds."""

    def astray(name: str) -> dict[str, str]:
        return {"name": "x-a", "type": "RegularExpression", "value": f"(?:{name})?(a+)+[bc]"}

    rules = [
        rule(f"astray-{number}", *(path("/", headers=[astray(f"{number}x{place}")]) for place in range(8)))
        for number in range(15)
    ]
    routes = [http_route(f"r{number}", [*rules, rule("plain", path("/"))], ("a.test",)) for number in range(3)]
    async with running(dataplane, tmp_path, *routes) as site:
        for number in range(2):
            started = perf_counter()
            response = await fetch(site.port, get("/", x_a="a" * 1000 + "!"))
            seconds = perf_counter() - started
            assert response.json()["headers"]["x-rule"] == ["plain"]
            print(f"request {number}: {seconds:.2f} s")
        await site.check([(get("/", x_a="aab"), "astray-0")])
