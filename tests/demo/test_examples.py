"""The examples stand: no problem in any of them, and HAProxy's own TCP example carries connections."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gwctl.cli.manifests import find_findings, read_pipeline
from tests.demo.__main__ import QUICKSTART
from tests.demo.command import Gwctl
from tests.harness import DataPlane, TcpEcho, free_port

TCP = QUICKSTART.parent / "tcp"
TCP_CONTROLLER = "haproxy.org/gateway-controller"


@pytest.mark.parametrize(("folder", "controller"), [(QUICKSTART, "gwctl.io/gateway-controller"), (TCP, TCP_CONTROLLER)])
def test_an_example_has_no_problem(folder: Path, controller: str) -> None:
    result = read_pipeline(folder, controller)
    assert not find_findings(result)
    assert result.pipeline.tables.services


async def test_haproxys_own_tcp_example_carries_connections(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    folder = Path(shutil.copytree(TCP, tmp_path / "tcp"))
    async with TcpEcho("http-echo") as backend:
        for name, old, new in (("gateway", 8000, port), ("service", 5678, backend.port)):
            file = folder / f"{name}.yaml"
            text = file.read_text(encoding="utf-8")
            assert text.count(f"port: {old}\n") == 1
            file.write_text(text.replace(f"port: {old}\n", f"port: {new}\n"), encoding="utf-8")
        flags = ("--gateway-controller-name", TCP_CONTROLLER)
        async with Gwctl(dataplane, folder, tmp_path / "gwctl.log", *flags) as gwctl:
            await gwctl.wait_until_ready()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.readline() == b"http-echo\n"
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
            assert await dataplane.reloads() == 1
