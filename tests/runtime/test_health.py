"""The port for probes and Prometheus, as they speak to it."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from gwctl.runtime.health import Health, ListenError, serve_health
from gwctl.runtime.metrics import Metrics


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def port(health: Health) -> AsyncIterator[int]:
    async with serve_health("127.0.0.1:0", Metrics(), health) as port:
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield client


async def send(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_ready_only_when_told(client: httpx.AsyncClient, health: Health) -> None:
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: the first state has not been applied yet\n")
    health.set_ready()
    answer = await client.get("/readyz?verbose")
    assert (answer.status_code, answer.text) == (200, "ok\n")
    health.set_not_ready("HAProxy is gone")
    assert (await client.get("/readyz")).text == "not ready: HAProxy is gone\n"


async def test_alive_is_asked_each_time(client: httpx.AsyncClient, health: Health) -> None:
    assert (await client.get("/livez")).status_code == 200
    health.alive = lambda: False
    assert (await client.get("/livez")).status_code == 503


async def test_metrics_in_the_format_that_is_asked_for(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "gwctl_build_info" in answer.text
    openmetrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_head_has_the_length_and_no_body(client: httpx.AsyncClient) -> None:
    answer = await client.head("/livez")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "3", b"")
    assert answer.headers["connection"] == "close"


async def test_anything_else_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 404
    assert (await client.get("/readyz/")).status_code == 404
    answer = await client.post("/livez")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"nonsense\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /livez HTTP/2\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /livez HTTP/1.1\r\nHost: x", b"HTTP/1.1 400 "),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", b"HTTP/1.1 431 "),
        (b"", b""),
    ],
)
async def test_what_is_no_request_is_answered_shortly(port: int, data: bytes, start: bytes) -> None:
    answer = await send(port, data)
    assert answer.startswith(start) if start else answer == b""


async def test_an_address_in_use_is_one_sentence(port: int) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: "):
        async with serve_health(f"127.0.0.1:{port}", Metrics(), Health()):
            pass
