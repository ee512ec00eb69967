"""The executor against an API that fails half way."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from gwctl.dataplane import Refused
from gwctl.dataplane.client import Client
from gwctl.dataplane.executor import BULK_ROWS, Executor
from gwctl.haproxy.names import Table
from gwctl.haproxy.plan import RemoveRow, SetRow, SetServer
from gwctl.haproxy.program import Layout
from gwctl.haproxy.state import Server
from tests.pipeline import NOTHING


async def test_nothing_writes_any_more_once_an_error_is_raised() -> None:
    begun = ended = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal begun, ended
        begun += 1
        if begun == 3:
            ended += 1
            return httpx.Response(400, json={"message": "no"})
        await asyncio.sleep(0.01)
        ended += 1
        return httpx.Response(200, json={})

    operations = tuple(
        SetServer("gwctl-http-00001", f"s{number}", Server("10.0.0.1", 80, "ready"), existing=True)
        for number in range(40)
    )
    async with Client("http://dataplane", "a", "b", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(Refused):
            await Executor(client, Layout("/maps", "/general")).apply_operations(operations, NOTHING)
        assert ended == begun < 40
        at_error = begun
        await asyncio.sleep(0.1)
        assert begun == at_error


async def test_being_cancelled_ends_what_has_begun() -> None:
    begun = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0.01)
        return httpx.Response(200, json={})

    operations = tuple(
        SetServer("gwctl-http-00001", f"s{number}", Server("10.0.0.1", 80, "ready"), existing=True)
        for number in range(40)
    )
    async with Client("http://dataplane", "a", "b", transport=httpx.MockTransport(answer)) as client:
        task = asyncio.create_task(Executor(client, Layout("/maps", "/general")).apply_operations(operations, NOTHING))
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        at_cancel = begun
        await asyncio.sleep(0.1)
        assert begun == at_cancel < 40


async def test_a_table_is_filled_in_one_call_only_before_anything_else_is_written_to_it() -> None:
    rows: dict[str, str] = {}

    async def answer(request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content or "null")
        key = request.url.path.rpartition("/")[2]
        if request.method == "GET":
            entries = [{"key": key, "value": value} for key, value in rows.items()]
            return httpx.Response(200, json=entries if key == "entries" else {"value": rows.get(key, "")})
        if isinstance(sent, list):
            rows.clear()
            rows.update((row["key"], row["value"]) for row in sent)
        elif request.method == "POST":
            rows[sent["key"]] = sent["value"]
        return httpx.Response(200, json={})

    table, other = Table.PATHS_PREFIX, Table.HOSTS
    first, second = (
        tuple(SetRow(table, f"{part}-{number}", "x" * 50, existing=False) for number in range(BULK_ROWS))
        for part in "ab"
    )
    async with Client("http://dataplane", "a", "b", transport=httpx.MockTransport(answer)) as client:
        executor = Executor(client, Layout("/maps", "/general"))
        await executor.apply_operations((*first, RemoveRow(other, "none"), *second), NOTHING)
    assert rows == {step.key: step.value for step in (*first, *second)}
