"""The executor against an API that fails half way."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gwctl.dataplane import Refused
from gwctl.dataplane.client import Client
from gwctl.dataplane.executor import Executor
from gwctl.haproxy.plan import SetServer
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
