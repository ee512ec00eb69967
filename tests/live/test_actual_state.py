"""The actual state is read, not remembered: what HAProxy has decides what is written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gwctl.dataplane.client import Client
from gwctl.haproxy.desired import Pools
from gwctl.haproxy.names import Table
from gwctl.routing.request import Request
from gwctl.runtime import reconciler
from gwctl.runtime.metrics import Metrics
from tests.harness import BOOTSTRAP, DataPlane, EchoBackend, free_port
from tests.http1 import fetch
from tests.live.gateway import Gwctl, wait_for
from tests.manifests import (
    CONTROLLER,
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

REQUEST = Request("GET", "web.test", "/")


@asynccontextmanager
async def running(dataplane: DataPlane, folder: Path, port: int, backend_port: int) -> AsyncIterator[Gwctl]:
    """Run gwctl with one route."""
    manifests = [
        gateway_class(),
        gateway([listener("http", port)]),
        http_route("web", [prefix_rule("/", backend("web"))], ("web.test",)),
        service("web"),
        *endpoints("web", [("127.0.0.1", backend_port)]),
    ]
    async with Gwctl(dataplane, folder, *manifests) as gwctl:
        await wait_for(port, REQUEST, status=200)
        yield gwctl


async def calls_that_write(gwctl: Gwctl) -> list[str]:
    """Give the Data Plane API calls that were not reads, as the metric counts them."""
    pattern = r'^gwctl_dataplane_requests_total\{call="([^"]*)",method="([A-Z]+)",.*$'
    found = re.findall(pattern, await gwctl.metrics(), re.MULTILINE)
    assert found
    return sorted(f"{method} {call}" for call, method in found if method != "GET")


async def test_the_lua_file_of_another_version_is_replaced(dataplane: DataPlane, tmp_path: Path) -> None:
    general = dataplane.folder / "general"
    (general / "gwctl-0123.lua").write_text("-- an older version\n")
    (general / "theirs.lua").write_text("-- somebody else's\n")
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", free_port(), web.port):
        names = sorted(path.name for path in general.glob("*.lua"))
    assert len(names) == 2
    assert names[0] != "gwctl-0123.lua"
    assert names[1] == "theirs.lua"


async def test_nothing_is_written_to_a_haproxy_that_is_already_right(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with EchoBackend("web") as web:
        async with running(dataplane, tmp_path / "m", port, web.port):
            pass
        worker, config = await dataplane.worker(), dataplane.config_file.read_text()
        async with running(dataplane, tmp_path / "m", port, web.port) as gwctl:
            assert await calls_that_write(gwctl) == []
        assert await dataplane.worker() == worker
        assert dataplane.config_file.read_text() == config


async def test_exactly_the_stale_and_foreign_rows_and_servers_are_repaired(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with EchoBackend("web") as web:
        async with running(dataplane, tmp_path / "m", port, web.port):
            pass
        table, slot = "gwctl-paths-prefix.map", "gwctl-http-00001"
        path = "default/gateway/http/web.test%2F"
        maps = dataplane.folder / "maps"
        for command in (
            f"set map {maps}/{table} {path} !|default/gone/0",
            f"add map {maps}/{table} default/gateway/http/web.test%2Fold%2F !|default/old/0",
            f"del map {maps}/gwctl-services.map default/web/80",
            f"add server {slot}/stranger 127.0.0.1:1",
        ):
            await dataplane.runtime(command)
        await dataplane.runtime(f"enable server {slot}/stranger")
        worker = await dataplane.worker()
        async with running(dataplane, tmp_path / "m", port, web.port) as gwctl:
            assert await calls_that_write(gwctl) == [
                "DELETE /services/haproxy/runtime/maps/{name}/entries/{key}",
                "POST /services/haproxy/runtime/maps/{name}/entries",
                "PUT /services/haproxy/runtime/backends/{name}/servers/{key}",
                "PUT /services/haproxy/runtime/maps/{name}/entries/{key}",
            ]
            operations = re.findall(r"^gwctl_plan_operations_total\{.*\} (.*)$", await gwctl.metrics(), re.MULTILINE)
            assert [float(count) for count in operations] == [1.0, 1.0, 1.0, 1.0]
        assert await dataplane.worker() == worker


async def test_drift_under_a_running_gwctl_is_repaired_and_counted(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", port, web.port) as gwctl:
        maps = dataplane.folder / "maps"
        await dataplane.runtime(f"clear map {maps}/gwctl-hosts.map")
        await wait_for(port, REQUEST, status=404)
        await wait_for(port, REQUEST, status=200)
        assert 'gwctl_drift_repaired_total{kind="SetRow"} 2.0' in await gwctl.metrics()


async def test_a_restarted_haproxy_serves_again_and_a_dead_data_plane_api_is_waited_for(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", port, web.port) as gwctl:
        await gwctl.apply("more.yaml", [http_route("more", [prefix_rule("/", backend("web"))], ("more.test",))])
        more = Request("GET", "more.test", "/")
        await wait_for(port, more, status=200)
        await dataplane.restart_haproxy()
        await wait_for(port, more, status=200, seconds=90)  # the Data Plane API may wait 30 s for the dead process
        await dataplane.stop_api(kill=True)
        gwctl.write("more.yaml", [http_route("more", [prefix_rule("/", backend("web"))], ("again.test",))])
        assert (await wait_for(port, more, status=200)).status == 200
        await dataplane.start_api()
        await wait_for(port, Request("GET", "again.test", "/"), status=200, seconds=90)


async def test_a_haproxy_that_starts_anew_serves_everything_from_its_files(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    more = Request("GET", "more.test", "/")
    async with EchoBackend("web") as web, EchoBackend("other") as other:
        async with running(dataplane, tmp_path / "m", port, web.port) as gwctl:
            manifests = [
                http_route("more", [prefix_rule("/", backend("other"))], ("more.test",)),
                service("other"),
                *endpoints("other", [("127.0.0.1", other.port)]),
            ]
            await gwctl.apply("more.yaml", manifests)
            await gwctl.until_file_says(f"127.0.0.1:{other.port}")
            assert await dataplane.reloads() == 1
        await dataplane.restart_haproxy()
        await wait_for(port, more, status=200, backend="other")
        await wait_for(port, REQUEST, status=200, backend="web")


async def test_files_follow_also_where_changes_never_end(
    dataplane: DataPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_CHECKPOINT_SECONDS", 2.0)
    port = free_port()
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", port, web.port) as gwctl:
        await gwctl.wait_for_checkpoint()
        new = [http_route("new", [prefix_rule("/", backend("web"))], ("new.test",))]
        await gwctl.apply("new.yaml", new)
        async with asyncio.timeout(30):
            number = 0
            while "new.test" not in (dataplane.folder / "maps" / Table.HOSTS).read_text():
                number += 1
                busy = http_route("busy", [prefix_rule(f"/{number}", backend("web"))], ("busy.test",))
                await gwctl.apply("busy.yaml", [busy])
        await gwctl.stop()
        await dataplane.restart_haproxy()
        assert (await fetch(port, Request("GET", "new.test", "/"))).status == 200


async def test_a_gwctl_that_starts_anew_brings_files_up_to_date_that_another_has_left(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", port, web.port) as gwctl:
        await gwctl.wait_for_checkpoint()
        await gwctl.stop()
        hosts = dataplane.folder / "maps" / Table.HOSTS
        good = hosts.read_text()
        hosts.write_text("# nothing\n")
        await gwctl.start()
        await gwctl.wait_for_checkpoint()
        assert hosts.read_text() == good


async def test_a_data_plane_api_with_another_directory_is_written_to_there(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", port, web.port) as gwctl:
        dataplane.maps = dataplane.folder / "maps-2"
        dataplane.maps.mkdir()
        await dataplane.restart_api()
        new = [http_route("new", [prefix_rule("/", backend("web"))], ("new.test",))]
        gwctl.write("new.yaml", new)
        await wait_for(port, Request("GET", "new.test", "/"), status=200)
        await wait_for(port, REQUEST, status=200)
        assert "new.test" in (dataplane.maps / Table.HOSTS).read_text()


async def test_servers_that_have_retired_are_deleted_also_where_changes_never_end(
    dataplane: DataPlane, tmp_path: Path
) -> None:
    port = free_port()
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", port, web.port) as gwctl:
        new = [http_route("new", [prefix_rule("/", backend("new"))], ("new.test",)), service("new")]
        await gwctl.apply("new.yaml", [*new, *endpoints("new", [("127.0.0.2", 1)])])
        async with asyncio.timeout(30):
            number = 2
            while "127.0.0.2" in await dataplane.runtime("show servers state"):
                number += 1
                await gwctl.apply(
                    "new.yaml", [*new, *endpoints("new", [(f"127.1.{number // 250}.{number % 250 + 1}", 1)])]
                )


async def test_an_address_is_the_same_however_haproxy_writes_it(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", port, web.port) as gwctl:
        odd = endpoints("odd", [("::1.2.3.4", 80), ("::ffff:192.0.2.1", 80)])
        await gwctl.apply("odd.yaml", [http_route("odd", [prefix_rule("/", backend("odd"))]), service("odd"), *odd])
        assert "gwctl_readback_mismatches_total 0.0" in await gwctl.metrics()


async def test_a_checkpoint_stops_for_changes_with_nothing_stored_until_it_is_urgent(
    dataplane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = [
        gateway_class(),
        gateway([listener("http", free_port())]),
        http_route("web", [prefix_rule("/", backend("web"))], ("web.test",)),
        service("web"),
        *endpoints("web", [("127.0.0.1", free_port())]),
    ]
    metrics = Metrics()
    monkeypatch.setattr(reconciler, "_CHECKPOINT_SECONDS", 0.0)
    async with Client(dataplane.url, dataplane.username, dataplane.password) as client:
        writer = reconciler.Reconciler(client, CONTROLLER, Pools(16, 4), metrics)
        writer.update(parse(manifests[:-1]))
        await writer.apply()
        writer.update(parse(manifests))
        await writer.apply()
        files = [dataplane.config_file, *(dataplane.folder / "maps").iterdir()]
        before = [file.read_text() for file in files]
        await writer.checkpoint(lambda: True)
        assert [file.read_text() for file in files] == before
        monkeypatch.setattr(reconciler, "_URGENT_CHECKPOINT_SECONDS", 0.0)
        await writer.checkpoint(lambda: True)
        assert metrics.registry.get_sample_value("gwctl_checkpoints_total") == 1
        assert [file.read_text() for file in files] != before


async def test_sections_of_others_stay_as_they_are(haproxy: Path, tmp_path: Path) -> None:
    mine, theirs = free_port(), free_port()
    foreign = f"""
frontend theirs
  bind 127.0.0.1:{theirs}
  use_backend their-backend

backend their-backend
  http-request return status 418
"""
    async with DataPlane(tmp_path / "d", haproxy=haproxy, haproxy_cfg=BOOTSTRAP + foreign) as dataplane:
        async with EchoBackend("web") as web, running(dataplane, tmp_path / "m", mine, web.port):
            response = await wait_for(theirs, REQUEST, status=418)
            assert response.status == 418
        text = dataplane.config_file.read_text()
        assert re.search(r"^backend their-backend.*\n  http-request return status 418$", text, re.MULTILINE)
        assert f"bind 127.0.0.1:{theirs}" in text
