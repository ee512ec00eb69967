"""Runtime servers: added, changed and removed with no reload and no trace in the file."""

import asyncio

import httpx
import pytest

from tests.contract.wire import Json, expect, pid, refused, reload
from tests.harness import DataPlane, EchoBackend, TcpServer

BLUE = "/runtime/backends/blue/servers"
SERVER = {"name": "a", "address": "127.0.0.1", "port": 8001}


async def change(api: httpx.AsyncClient, **fields: str | int) -> Json:
    """Change the server and return its new state."""
    changed: Json = expect(await api.put(f"{BLUE}/a", json=fields), 200).json()
    read = expect(await api.get(f"{BLUE}/a"), 200).json()
    assert read | {"last_time_change": 0} == changed | {"last_time_change": 0}  # that one counts seconds
    return changed


async def test_an_added_server_waits_in_maintenance(api: httpx.AsyncClient) -> None:
    assert expect(await api.get(BLUE), 200).json() == []
    assert expect(await api.post(BLUE, json=SERVER | {"weight": 10}), 201).json() == SERVER | {"weight": 10}
    (state,) = expect(await api.get(BLUE), 200).json()
    assert state["name"] == "a"
    assert (state["address"], state["port"], state["weight"]) == ("127.0.0.1", 8001, 10)
    assert (state["admin_state"], state["operational_state"]) == ("maint", "down")


async def test_a_server_lives_without_reload_and_outside_the_file(plane: DataPlane, api: httpx.AsyncClient) -> None:
    process, file = await pid(api), plane.config_file.read_text(encoding="utf-8")
    expect(await api.post(BLUE, json=SERVER), 201)
    ready = await change(api, admin_state="ready")
    assert (ready["admin_state"], ready["operational_state"]) == ("ready", "up")
    assert (await change(api, admin_state="drain"))["admin_state"] == "drain"
    moved = await change(api, address="127.0.0.2", port=8002)
    assert (moved["address"], moved["port"], moved["admin_state"]) == ("127.0.0.2", 8002, "drain")
    for weight in (0, 1, 256):
        assert (await change(api, weight=weight))["weight"] == weight
    both = await change(api, admin_state="ready", weight=7)
    assert (both["admin_state"], both["weight"]) == ("ready", 7)
    maint = await change(api, admin_state="maint")
    assert (maint["admin_state"], maint["operational_state"]) == ("maint", "down")
    expect(await api.delete(f"{BLUE}/a"), 204)
    assert expect(await api.get(BLUE), 200).json() == []
    assert expect(await api.get("/configuration/backends/blue/servers"), 200).json() is None
    assert plane.config_file.read_text(encoding="utf-8") == file
    assert await pid(api) == process
    assert await plane.reloads() == 0


async def test_a_ready_server_without_connections_is_deleted_at_once(api: httpx.AsyncClient) -> None:
    expect(await api.post(BLUE, json=SERVER), 201)
    await change(api, admin_state="ready")
    expect(await api.delete(f"{BLUE}/a"), 204)


async def test_a_server_that_still_answers_a_request_is_not_deleted(api: httpx.AsyncClient, web_port: int) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    async with TcpServer(serve) as slow:
        expect(await api.post(BLUE, json=SERVER | {"port": slow.port}), 201)
        await change(api, admin_state="ready")
        async with httpx.AsyncClient() as client:
            request = asyncio.create_task(client.get(f"http://127.0.0.1:{web_port}/"))
            await asked.wait()
            assert "connections" in refused(await api.delete(f"{BLUE}/a"), 500)
            # refused, yet in maintenance from now on
            assert expect(await api.get(f"{BLUE}/a"), 200).json()["admin_state"] == "maint"
            answer.set()
            assert (await request).text == "ok"
        for _ in range(200):
            if (await api.delete(f"{BLUE}/a")).status_code == 204:
                break
            await asyncio.sleep(0.05)
        refused(await api.get(f"{BLUE}/a"), 404)


async def test_requests_reach_a_server_that_is_ready(api: httpx.AsyncClient, web_port: int) -> None:
    async with EchoBackend("a") as backend, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{web_port}/"
        assert (await client.get(url)).status_code == 503
        expect(await api.post(BLUE, json=SERVER | {"port": backend.port}), 201)
        assert (await client.get(url)).status_code == 503
        await change(api, admin_state="ready")
        assert (await client.get(url)).json()["name"] == "a"
        await change(api, admin_state="maint")
        assert (await client.get(url)).status_code == 503


async def test_a_reload_loses_runtime_servers(api: httpx.AsyncClient) -> None:
    expect(await api.post(BLUE, json=SERVER), 201)
    await reload(api)
    assert expect(await api.get(BLUE), 200).json() == []


async def test_what_is_missing_is_a_404_and_what_exists_a_409(api: httpx.AsyncClient) -> None:
    nope = "/runtime/backends/nope/servers"
    refused(await api.get(nope), 404)
    refused(await api.post(nope, json=SERVER), 404)
    for path in (f"{nope}/a", f"{BLUE}/a"):
        refused(await api.get(path), 404)
        refused(await api.delete(path), 404)
        refused(await api.put(path, json={"admin_state": "ready"}), 404)
    expect(await api.post(BLUE, json=SERVER), 201)
    refused(await api.post(BLUE, json=SERVER), 409)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"address": "127.0.0.1", "port": 80}, 400),
        ({"name": "a", "address": "not an address", "port": 80}, 422),
        ({"name": "a", "address": "127.0.0.1", "port": 80, "ssl": "yes"}, 422),
        # what only HAProxy itself refuses is a 500
        ({"name": "a", "address": "127.0.0.1", "port": 80, "ssl": "enabled", "ssl_cafile": "nope"}, 500),
    ],
)
async def test_a_server_that_cannot_be_is_refused(api: httpx.AsyncClient, body: Json, status: int) -> None:
    refused(await api.post(BLUE, json=body), status)
    assert expect(await api.get(BLUE), 200).json() == []


async def test_a_state_or_weight_that_cannot_be_is_refused(api: httpx.AsyncClient) -> None:
    expect(await api.post(BLUE, json=SERVER), 201)
    refused(await api.put(f"{BLUE}/a", json={"admin_state": "nope"}), 422)
    refused(await api.put(f"{BLUE}/a", json={"weight": 257}), 500)
