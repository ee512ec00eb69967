"""Traffic under change: nothing fails and HAProxy's process stays the same while routes and endpoints change."""

from __future__ import annotations

from pathlib import Path
from random import Random

from gwctl.routing.request import Request
from tests.harness import DataPlane, EchoBackend, free_port
from tests.http1 import Response
from tests.live.gateway import Gwctl, wait_for
from tests.live.load import Load
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

REQUEST = Request("GET", "web.test", "/shop/cart", headers=(("x-env", "canary"),))


def is_ok(response: Response) -> bool:
    return response.status == 200


def route_variants(random: Random) -> list[Manifest]:
    """A route that always answers, each time in another way."""
    canary = {"path": {"type": "PathPrefix", "value": "/shop"}, "headers": [{"name": "x-env", "value": "canary"}]}
    choices = [
        [prefix_rule("/", backend("a", weight=random.randint(0, 9)), backend("b", weight=random.randint(1, 9)))],
        [prefix_rule("/", backend("a")), prefix_rule("/shop", backend("b"))],
        [prefix_rule("/", backend("a")), {"matches": [canary], "backendRefs": [backend("b")]}],
        [
            {
                "matches": [{"path": {"type": "RegularExpression", "value": "/shop/.*"}}],
                "backendRefs": [backend("b")],
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": "x-seen", "value": str(random.random())}]},
                    }
                ],
            },
            prefix_rule("/", backend("a")),
        ],
        [{"matches": [{"path": {"type": "Exact", "value": "/shop/cart"}}], "backendRefs": [backend("b")]}],
    ]
    hostnames = random.choice([("web.test",), ("*.test",), ("web.test", "*.test"), ()])
    extra = [
        http_route(f"extra{n}", [prefix_rule(f"/extra{n}", backend("a"))], ("web.test",))
        for n in range(random.randint(0, 3))
    ]
    fallback = http_route("fallback", [prefix_rule("/shop", backend("a"))], ("web.test", "*.test"))
    return [http_route("web", random.choice(choices), hostnames), fallback, *extra]


async def test_no_request_fails_while_routes_weights_and_endpoints_change(dataplane: DataPlane, tmp_path: Path) -> None:
    random = Random(7)
    port = free_port()
    async with EchoBackend("a1") as a1, EchoBackend("a2") as a2, EchoBackend("b1") as b1, EchoBackend("b2") as b2:
        base = [gateway_class(), gateway([listener("http", port)]), service("a"), service("b")]
        everything = {"a": [a1, a2], "b": [b1, b2]}

        def some_endpoints() -> list[Manifest]:
            found = []
            for name, backends in everything.items():
                chosen = random.sample(backends, random.randint(1, 2))
                found += endpoints(name, [("127.0.0.1", item.port) for item in chosen])
            return found

        async with Gwctl(dataplane, tmp_path / "manifests", *base) as gwctl:
            await gwctl.apply("endpoints.yaml", some_endpoints())
            await gwctl.apply("routes.yaml", route_variants(random))
            await wait_for(port, REQUEST, status=200)
            worker, reloads = await dataplane.worker(), await dataplane.reloads()
            async with Load(port, REQUEST, is_ok) as load:
                for number in range(60):
                    if number % 3 == 2:
                        gwctl.write("endpoints.yaml", some_endpoints())
                    else:
                        gwctl.write("routes.yaml", route_variants(random))
                    await load.wait_for(40)
            assert load.failures == []
            assert len(load.answers) >= 3, load.answers
            assert (await dataplane.worker(), await dataplane.reloads()) == (worker, reloads)


async def test_a_removed_endpoint_finishes_what_it_has(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with EchoBackend("a1") as a1, EchoBackend("a2") as a2:
        base = [
            gateway_class(),
            gateway([listener("http", port)]),
            service("a"),
            http_route("a", [prefix_rule("/", backend("a"))]),
        ]
        async with Gwctl(dataplane, tmp_path / "manifests", *base) as gwctl:
            await gwctl.apply("endpoints.yaml", endpoints("a", [("127.0.0.1", a1.port)]))
            async with Load(port, REQUEST, is_ok) as load:
                await load.wait_for(50)
                await gwctl.apply("endpoints.yaml", endpoints("a", [("127.0.0.1", a2.port)]))
                before = a1.requests
                await load.wait_for(200)
                assert a1.requests - before <= 4, "more than what was under way went to the removed endpoint"
            assert load.failures == []
            await gwctl.apply("endpoints.yaml", endpoints("a", [("127.0.0.1", a1.port)]))
            await wait_for(port, REQUEST, status=200, backend="a1")


async def test_a_pool_that_runs_low_grows_in_one_transaction_without_a_failed_request(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with EchoBackend("a") as a:
        base = [gateway_class(), gateway([listener("http", port)])]

        def sites(count: int) -> list[Manifest]:
            found: list[Manifest] = []
            for number in range(count):
                name = f"s{number:02d}"
                found += [
                    service(name),
                    *endpoints(name, [("127.0.0.1", a.port)]),
                    http_route(name, [prefix_rule("/", backend(name))], (f"{name}.test",)),
                ]
            return found

        async with Gwctl(dataplane, tmp_path / "manifests", *base, slots=8) as gwctl:
            await gwctl.apply("sites.yaml", sites(6))
            first = Request("GET", "s00.test", "/")
            await wait_for(port, first, status=200)
            assert await dataplane.reloads() == 1
            async with Load(port, first, is_ok) as load:
                await gwctl.apply("sites.yaml", sites(9))
                for number in range(9):
                    await wait_for(port, Request("GET", f"s{number:02d}.test", "/"), status=200)
                await load.wait_for(100)
            assert load.failures == []
            assert await dataplane.reloads() == 2
            assert 'gwctl_pool_slots{mode="http",state="free"} 7.0' in await gwctl.metrics()
