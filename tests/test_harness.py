"""The harness itself: processes, what it reads of them, and the backends, against the Data Plane API that is
there.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.harness import BOOTSTRAP, DataPlane, EchoBackend, HarnessError, TcpEcho, free_port
from tests.parts import Part

RAW = "/services/haproxy/configuration/raw"


async def read_raw(client: httpx.AsyncClient) -> tuple[str, str]:
    """HAProxy's configuration and its version, as the Data Plane API has them."""
    answer = await client.get(RAW)
    answer.raise_for_status()
    return answer.text, (await client.get("/services/haproxy/configuration/version")).text.strip()


async def test_worker_changes_when_a_configuration_is_posted(dataplane: DataPlane) -> None:
    before = await dataplane.worker()
    assert await dataplane.reloads() == 0
    async with dataplane.client() as client:
        text, version = await read_raw(client)
        posted = await client.post(
            RAW,
            params={"version": version, "force_reload": "true"},
            content=f"{text}\nbackend added\n  mode http\n",
            headers={"content-type": "text/plain"},
        )
        assert posted.status_code in (200, 201, 202), posted.text
    after = await dataplane.wait_for_reload(before)
    assert after.pid != before.pid
    assert await dataplane.reloads() == 1
    assert "added" in await dataplane.runtime("show backend")


async def test_worker_stays_when_a_configuration_is_posted_without_reload(dataplane: DataPlane) -> None:
    before = await dataplane.worker()
    async with dataplane.client() as client:
        text, version = await read_raw(client)
        posted = await client.post(
            RAW,
            params={"version": version, "skip_reload": "true"},
            content=f"{text}\nbackend added\n  mode http\n",
            headers={"content-type": "text/plain"},
        )
        assert posted.status_code in (200, 201, 202), posted.text
    await asyncio.sleep(1.5)
    assert await dataplane.worker() == before
    assert "added" in dataplane.config_file.read_text(encoding="utf-8")
    await dataplane.restart_haproxy()
    assert "added" in await dataplane.runtime("show backend")


async def test_restarts_keep_the_address(dataplane: DataPlane) -> None:
    before, url = await dataplane.worker(), dataplane.url
    await dataplane.restart_haproxy()
    assert await dataplane.worker() != before
    again = await dataplane.worker()
    await dataplane.restart_api()
    assert dataplane.url == url
    assert await dataplane.worker() == again
    async with dataplane.client() as client:
        assert (await client.get("/services/haproxy/runtime/info")).status_code == 200


async def test_a_wrong_password_is_refused(dataplane: DataPlane) -> None:
    async with httpx.AsyncClient(base_url=dataplane.url, auth=("admin", "wrong")) as client:
        assert (await client.get("/v3/services/haproxy/runtime/info")).status_code == 401


async def test_stopping_ends_every_process_and_removes_the_folder(haproxy: Path, dataplaneapi: Part) -> None:
    async with DataPlane(haproxy=haproxy, api=dataplaneapi) as running:
        pid = await running.worker_pid()
        assert Path(f"/proc/{pid}").exists()
        assert await running.worker_start() > 0
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not running.folder.exists()


async def test_a_long_folder_gets_its_sockets_elsewhere(tmp_path: Path, haproxy: Path, dataplaneapi: Part) -> None:
    folder = tmp_path / ("x" * 120)
    async with DataPlane(folder, haproxy=haproxy, api=dataplaneapi) as running:
        assert running.sockets != folder
        assert await running.worker_pid()
    assert folder.exists()
    assert not running.sockets.exists()


async def test_a_process_that_dies_shows_its_log(tmp_path: Path, haproxy: Path, dataplaneapi: Part) -> None:
    broken = DataPlane(tmp_path, haproxy=haproxy, api=dataplaneapi, haproxy_cfg=BOOTSTRAP + "  no-such-word\n")
    with pytest.raises(HarnessError, match="no-such-word"):
        await broken.start()
    await broken.stop()


async def test_traffic_reaches_backends_through_haproxy(tmp_path: Path, haproxy: Path, dataplaneapi: Part) -> None:
    http, tcp = free_port(), free_port()
    async with EchoBackend("web") as web, TcpEcho("line") as line:
        configuration = (
            f"{BOOTSTRAP}\n"
            f"frontend http\n  bind 127.0.0.1:{http}\n  log global\n  option httplog\n  default_backend web\n"
            f"backend web\n  server web {web.host}:{web.port}\n"
            f"listen tcp\n  mode tcp\n  bind 127.0.0.1:{tcp}\n  server line {line.host}:{line.port}\n"
        )
        async with DataPlane(tmp_path, haproxy=haproxy, api=dataplaneapi, haproxy_cfg=configuration) as running:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http}") as client:
                answer = await client.post("/a%20b?c=d", content=b"12345", headers={"X-Kind": "one"})
            assert answer.json()["path"] == "/a%20b"
            assert answer.json()["query"] == "c=d"
            assert answer.json()["headers"]["x-kind"] == ["one"]
            assert answer.json()["body_length"] == 5
            reader, writer = await asyncio.open_connection("127.0.0.1", tcp)
            assert await reader.readline() == b"line\n"
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
            assert "/a%20b" in running.haproxy_log.read_text(encoding="utf-8")
        assert (web.requests, web.paths["/a%20b"], line.connections) == (1, 1, 1)


async def test_echo_backend_keeps_connections_and_reads_chunks() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"three"

    async with (
        EchoBackend("web") as web,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}") as client,
    ):
        assert (await client.post("/", content=chunks())).json()["body_length"] == 8
        assert (await client.get("/status/503")).status_code == 503
        assert (await client.get("/status/204")).content == b""
        assert (await client.head("/")).headers["content-type"] == "application/json"
        assert (web.requests, web.connections) == (4, 1)


async def test_a_stopped_backend_refuses_and_comes_back_on_its_port() -> None:
    async with (
        EchoBackend("web") as web,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}") as client,
    ):
        await client.get("/")
        await web.stop()
        with pytest.raises(httpx.TransportError):
            await client.get("/")
        await web.start()
        assert (await client.get("/")).json()["name"] == "web"


def test_free_ports_are_not_handed_out_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == len(ports)
