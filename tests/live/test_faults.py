"""gwctl's defence against a Data Plane API that answers well and does something else: read back, and repair."""

from __future__ import annotations

import httpx
import pytest

from gwctl.dataplane import Refused
from gwctl.dataplane.client import Client
from gwctl.dataplane.reader import read_state
from gwctl.haproxy.desired import Pools
from gwctl.runtime.metrics import Metrics
from gwctl.runtime.reconciler import NotConverging, Reconciler
from tests.harness import DataPlane, free_port
from tests.manifests import (
    CONTROLLER,
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
from tests.pipeline import parse


class Faulty(httpx.AsyncHTTPTransport):
    """Passes requests on but for ``times`` of those that ``is_hit`` names, which it answers itself, and well."""

    def __init__(self, method: str, path: str, times: int) -> None:
        super().__init__()
        self.method = method
        self.path = path
        self.times = times

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        hit = self.times > 0 and request.method == self.method and self.path in request.url.path
        if not hit:
            return await super().handle_async_request(request)
        self.times -= 1
        await request.aread()
        return httpx.Response({"POST": 201, "PUT": 200, "DELETE": 204}[request.method], json={})


def site(port: int, *addresses: str, hosts: tuple[str, ...] = ("web.test",)) -> list[Manifest]:
    """One listener, one route, one Service."""
    return [
        gateway_class(),
        gateway([listener("http", port)]),
        http_route("web", [prefix_rule("/", backend("web"))], hosts),
        service("web"),
        *endpoints("web", [(address, 80) for address in addresses]),
    ]


def mismatches(metrics: Metrics) -> bool:
    return b"gwctl_readback_mismatches_total 0.0" not in metrics.expose("")[0]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "gwctl-paths-prefix.map/entries"),
        ("POST", "gwctl-hosts.map/entries"),
        ("DELETE", "gwctl-hosts.map/entries"),
        ("POST", "gwctl-http-00001/servers"),
        ("PUT", "gwctl-http-00001/servers"),
    ],
)
async def test_a_call_that_did_nothing_is_noticed_and_made_good(dataplane: DataPlane, method: str, path: str) -> None:
    port, metrics = free_port(), Metrics()
    transport = Faulty(method, path, times=0)
    async with Client(dataplane.url, dataplane.username, dataplane.password, transport=transport) as client:
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 2), metrics)
        reconciler.update(parse(site(port, "127.0.0.2")))
        await reconciler.apply()
        assert not mismatches(metrics)
        transport.times = 1
        reconciler.update(parse(site(port, "127.0.0.3", hosts=("new.test",))))
        try:
            await reconciler.apply()
        except Refused:  # a change of a server that is not there is refused: the worker would try again, as here
            reconciler.forget()
            await reconciler.apply()
        assert transport.times == 0
        assert mismatches(metrics) or path.endswith("servers")
        state = await read_state(client)
        assert state.tables["gwctl-hosts.map"].keys() == {  # type: ignore[index]
            f"gwctl.default.gateway.{port}/_",
            f"gwctl.default.gateway.{port}/new.test",
        }
        ready = [name for name, server in state.servers["gwctl-http-00001"].items() if server.state == "ready"]
        assert ready == ["127.0.0.3_80"]


async def test_an_api_that_never_does_what_it_says_is_given_up_with_an_error(dataplane: DataPlane) -> None:
    metrics = Metrics()
    transport = Faulty("POST", "gwctl-hosts.map/entries", times=0)
    async with Client(dataplane.url, dataplane.username, dataplane.password, transport=transport) as client:
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 2), metrics)
        port = free_port()
        reconciler.update(parse(site(port)))
        await reconciler.apply()
        transport.times = 1000
        reconciler.update(parse(site(port, hosts=("new.test",))))
        with pytest.raises(NotConverging):
            await reconciler.apply()


async def test_rows_that_a_bulk_call_loses_are_added_one_by_one(dataplane: DataPlane) -> None:
    """Rows of 32 bytes fill the real API's buffer exactly, and it drops what follows."""
    metrics = Metrics()
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 2), metrics)
        port = free_port()
        reconciler.update(parse(site(port, "127.0.0.2")))
        await reconciler.apply()
        rules = [
            {
                "matches": [{"path": {"type": "Exact", "value": f"/{n:04d}"}, "method": "GET"}],
                "backendRefs": [backend("web")],
            }
            for n in range(300)
        ]
        chunks = [http_route(f"r{n:03d}", rules[n : n + 10], ("bulk.test",)) for n in range(0, 300, 10)]
        reconciler.update(parse(chunks))
        await reconciler.apply()
        state = await read_state(client)
        assert len(state.tables["gwctl-paths-exact.map"]) == 300  # type: ignore[index]
        assert await dataplane.reloads() == 1
