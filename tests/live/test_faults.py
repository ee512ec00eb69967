"""gwctl's defence against a Data Plane API that answers well and does something else: read back, and repair."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from gwctl.dataplane import Refused, VersionConflict
from gwctl.dataplane.client import Client
from gwctl.dataplane.executor import Executor
from gwctl.dataplane.reader import read_layout, read_state
from gwctl.haproxy.desired import Pools
from gwctl.haproxy.names import frontend_name
from gwctl.haproxy.program import Listening
from gwctl.haproxy.state import SectionKind, State
from gwctl.routing.request import Request
from gwctl.runtime.metrics import Metrics
from gwctl.runtime.reconciler import NotConverging, Reconciler
from tests.certificates import make_pair
from tests.harness import DataPlane, EchoBackend, free_port
from tests.live.gateway import wait_for
from tests.manifests import (
    CONTROLLER,
    Manifest,
    backend,
    endpoints,
    gateway,
    gateway_class,
    http_route,
    https_listener,
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


Answer = Callable[[httpx.Request], Awaitable[httpx.Response | None]]


class Answering(httpx.AsyncHTTPTransport):
    """Answers ``times`` of the requests that put a part of ``name`` with what ``answer`` gives; None passes them on."""

    def __init__(self, name: str, times: int, answer: Answer) -> None:
        super().__init__()
        self.name = "".join(f"%{byte:02X}" for byte in name.encode())
        self.times = times
        self.answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.times and request.method == "PUT" and self.name in request.url.raw_path.decode():
            self.times -= 1
            await request.aread()
            if (response := await self.answer(request)) is not None:
                return response
        return await super().handle_async_request(request)


@asynccontextmanager
async def relistening(
    dataplane: DataPlane, ports: list[int], transport: httpx.AsyncBaseTransport
) -> AsyncIterator[tuple[Reconciler, Client]]:
    """Serve one listener per port, then give a gwctl that is to let them listen otherwise."""
    listeners = [listener(f"l{port}", port) for port in ports]
    resources = parse([gateway_class(), gateway(listeners), *site(ports[0], "127.0.0.2")[2:]])
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        first = Reconciler(client, CONTROLLER, Pools(4, 2), Metrics())
        first.update(resources)
        await first.apply()
    async with Client(dataplane.url, dataplane.username, dataplane.password, transport=transport) as client:
        other = Reconciler(client, CONTROLLER, Pools(4, 2), Metrics(), listening=Listening(proxies=("192.0.2.0/24",)))
        moved = gateway(listeners, address="127.0.0.3")
        other.update(resources | parse([moved]))
        yield other, client


def addresses(state: State) -> list[str]:
    """Give the address of every frontend in the order of their ports."""
    prefix = frontend_name("default", "gateway", 0)[:-1]
    found = {key.name: section["binds"] for key, section in state.sections.items() if key.name.startswith(prefix)}
    return [bind["address"] for _, binds in sorted(found.items()) for bind in binds.values()]


def refuse(status: int) -> Answer:
    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"code": status, "message": "no space left on device"})

    return answer


@pytest.mark.parametrize("status", [429, 500])
async def test_an_error_of_the_api_harms_no_listener_and_is_tried_again(dataplane: DataPlane, status: int) -> None:
    ports = sorted(free_port() for _ in range(2))
    transport = Answering(frontend_name("default", "gateway", ports[1]), 1, refuse(status))
    async with relistening(dataplane, ports, transport) as (reconciler, client):
        before = await read_state(client)
        with pytest.raises(Refused):
            await reconciler.apply()
        assert (await read_state(client)).sections == before.sections
        await reconciler.apply()
        assert addresses(await read_state(client)) == ["127.0.0.3"] * 2
        assert not reconciler.refused
    assert await dataplane.reloads() == 2


@pytest.mark.parametrize("status", [400, 406])
async def test_what_is_refused_once_is_tried_again_at_once(dataplane: DataPlane, status: int) -> None:
    ports = sorted(free_port() for _ in range(2))
    transport = Answering(frontend_name("default", "gateway", ports[1]), 1, refuse(status))
    async with relistening(dataplane, ports, transport) as (reconciler, client):
        await reconciler.apply()
        assert addresses(await read_state(client)) == ["127.0.0.3"] * 2
        assert not reconciler.refused
    assert await dataplane.reloads() == 2


async def test_a_listener_that_is_always_refused_stays_as_it_was(dataplane: DataPlane) -> None:
    ports = sorted(free_port() for _ in range(2))
    transport = Answering(frontend_name("default", "gateway", ports[1]), -1, refuse(400))
    async with relistening(dataplane, ports, transport) as (reconciler, client):
        await reconciler.apply()
        assert addresses(await read_state(client)) == ["127.0.0.3", "127.0.0.1"]
        assert [key.listener for key in reconciler.refused] == [f"l{ports[1]}"]
        reloads = await dataplane.reloads()
        reconciler.forget()
        await reconciler.apply()
        assert await dataplane.reloads() == reloads


async def test_a_commit_of_somebody_else_meanwhile_costs_a_new_try_and_no_listener(dataplane: DataPlane) -> None:
    ports = sorted(free_port() for _ in range(2))

    async def commit_theirs(_: httpx.Request) -> None:
        async with dataplane.client() as other:
            path = "/services/haproxy/transactions"
            version = (await other.get("/services/haproxy/configuration/version")).json()
            within = {"transaction_id": (await other.post(path, params={"version": version})).json()["id"]}
            await other.post("/services/haproxy/configuration/backends", params=within, json={"name": "theirs"})
            done = await other.put(f"{path}/{within['transaction_id']}", params={"force_reload": "true"})
            assert done.is_success

    transport = Answering(frontend_name("default", "gateway", ports[1]), 1, commit_theirs)
    async with relistening(dataplane, ports, transport) as (reconciler, client):
        await reconciler.apply()
        assert addresses(await read_state(client)) == ["127.0.0.3"] * 2
        assert not reconciler.refused
        assert "theirs" in {section["name"] for section in await client.sections(SectionKind.BACKENDS)}
    assert await dataplane.reloads() == 3


async def test_a_listener_that_haproxy_cannot_move_is_served_where_it_was(dataplane: DataPlane) -> None:
    port, other = free_port(), free_port()
    async with (
        EchoBackend("web") as web,
        Client(dataplane.url, dataplane.username, dataplane.password) as client,
    ):
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 2), Metrics())
        resources = parse([*site(port)[:4], *endpoints("web", [("127.0.0.1", web.port)])])
        reconciler.update(resources)
        await reconciler.apply()
        moved = gateway([listener("http", port), listener("other", other)], address="192.0.2.1")
        reconciler.update(parse([moved]))
        await reconciler.apply()
        assert addresses(await read_state(client)) == ["127.0.0.1"]
        assert {key.listener for key in reconciler.refused} == {"http", "other"}
        await wait_for(port, Request("GET", "web.test", "/"), status=200)
        reconciler.update(resources)
        await reconciler.apply()
        assert not reconciler.refused


async def test_a_listener_that_is_served_where_it_was_still_gets_certificates(dataplane: DataPlane) -> None:
    listeners = [https_listener("https", free_port(), "web")]
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 2), Metrics())
        reconciler.update(parse([gateway_class(), gateway(listeners), make_pair("a.test").secret("web")]))
        await reconciler.apply()
        reconciler.update(parse([gateway(listeners, address="192.0.2.1")]))
        await reconciler.apply()
        before = await read_state(client)
        assert addresses(before) == ["127.0.0.1"]
        assert len(before.certificates) == 1
        reconciler.update(parse([make_pair("b.test").secret("web")]))
        await reconciler.apply()
        after = await read_state(client)
        assert after.sections == before.sections
        assert len(after.certificates) == 1
        assert after.certificates != before.certificates
        (entries,) = after.crt_lists.values()
        assert {entry.certificate for entry in entries} == after.certificates


@pytest.mark.parametrize("is_older", [False, True])
async def test_transactions_that_others_have_left_open_are_dropped_where_they_are_too_many(
    dataplane: DataPlane, is_older: bool
) -> None:
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        opened = [await client.begin(await client.configuration_version()) for _ in range(20)]
        if is_older:
            await client.reread_file()
        await dataplane.restart_api()
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 2), Metrics())
        reconciler.update(parse(site(free_port(), "127.0.0.2")))
        await reconciler.apply()
        assert await client.open_transactions() == {}
        with pytest.raises(VersionConflict):
            await client.commit(opened[0])


async def test_a_transaction_that_can_be_committed_is_left_to_whoever_has_begun_it(dataplane: DataPlane) -> None:
    port = free_port()
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        reconciler = Reconciler(client, CONTROLLER, Pools(4, 2), Metrics())
        for address in ("127.0.0.2", "127.0.0.3"):
            reconciler.update(parse(site(port, address)))
            await reconciler.apply()
        for _ in range(19):
            await client.begin(await client.configuration_version())
        await client.reread_file()
        theirs = await client.begin(await client.configuration_version())
        state = await read_state(client)
        assert await Executor(client, await read_layout(client)).checkpoint(state, lambda: False)
        assert list(await client.open_transactions()) == [theirs]
    assert "127.0.0.3:80" in dataplane.config_file.read_text()
