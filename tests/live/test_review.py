"""What one client, the author of one route or a HAProxy that is gone can do to all the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import perf_counter

from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import fetch
from tests.live.gateway import Gwctl, wait_for
from tests.live.site import get, path, rule, running
from tests.manifests import backend, endpoints, gateway, gateway_class, http_route, listener, prefix_rule, service


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


async def test_a_haproxy_that_is_gone_for_a_while_does_not_end_gwctl(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with EchoBackend("a") as a, EchoBackend("b") as b:
        base = [gateway_class(), gateway([listener("http", port)])]
        for one in (a, b):
            base += [service(one.name), *endpoints(one.name, [("127.0.0.1", one.port)])]
        route = http_route("r", [prefix_rule("/", backend("a"))])
        async with Gwctl(dataplane, tmp_path / "manifests", *base, route) as gwctl:
            await dataplane.stop_haproxy(kill=True)
            await asyncio.sleep(3)
            await dataplane.start_haproxy()
            await wait_for(port, get("/"), status=200, backend="a")
            gwctl.write("route.yaml", [http_route("s", [prefix_rule("/s", backend("b"))])])
            # The Data Plane API may stand still for half a minute after HAProxy died in the middle of a call.
            await wait_for(port, get("/s"), status=200, backend="b", seconds=90)
