"""The whole program against a real HAProxy: `run` until it is stopped, and the commands that look at it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import write
from tests.harness import DataPlane, EchoBackend, free_port
from tests.manifests import backend, endpoints, gateway, gateway_class, http_route, listener, prefix_rule, service

GWCTL = (sys.executable, "-c", "from gwctl.cli import main; main()")


class Gwctl:
    """Runs commands as processes that know the data plane by variables."""

    def __init__(self, dataplane: DataPlane, manifests: Path) -> None:
        self.manifests = manifests
        self.metrics_port = free_port()
        self.environment = {
            **os.environ,
            "GWCTL_SOURCE": f"file:{manifests}",
            "GWCTL_DATAPLANE_URL": dataplane.url,
            "GWCTL_DATAPLANE_USERNAME": dataplane.username,
            "GWCTL_DATAPLANE_PASSWORD": dataplane.password,
            "GWCTL_HTTP_SLOTS": "8",
            "GWCTL_TCP_SLOTS": "4",
            "GWCTL_METRICS_ADDRESS": f"127.0.0.1:{self.metrics_port}",
            "GWCTL_RESYNC_INTERVAL": "600",
        }

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *GWCTL, *arguments, env=self.environment, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )

    async def finish(self, process: asyncio.subprocess.Process) -> tuple[int | None, str]:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, output.decode()

    async def command(self, name: str, *arguments: str) -> tuple[int | None, str]:
        return await self.finish(await self.start(name, "-f", str(self.manifests), *arguments))

    @property
    def readyz(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/readyz"


async def wait_for(url: str, status: int) -> httpx.Response:
    """Ask until the answer has this status."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(600):
            try:
                answer = await client.get(url)
                if answer.status_code == status:
                    return answer
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError(f"{url} does not answer {status}")


@asynccontextmanager
async def running(gwctl: Gwctl) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await gwctl.start("run")
    try:
        await wait_for(gwctl.readyz, 200)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_run_and_those_who_look_at_it(dataplane: DataPlane, tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    folder = tmp_path / "manifests"
    folder.mkdir()
    async with EchoBackend("web") as web:
        write(
            folder,
            gateway_class(),
            gateway([listener("http", port)]),
            http_route("r", [prefix_rule("/", backend("web"))]),
            service("web"),
            *endpoints("web", [("127.0.0.1", web.port)]),
        )
        gwctl = Gwctl(dataplane, folder)
        url = f"http://example.com:{port}/"
        status, output = await gwctl.command("diff")
        assert status == 1, output
        assert "transaction (first start)" in output
        assert output.endswith("operations at runtime, a reload (first start)\n")
        status, output = await gwctl.command("explain", "GET", url, "--live")
        assert status == 1, output
        assert "live         HAProxy has no frontend" in output
        async with running(gwctl) as process:
            assert await gwctl.command("diff") == (0, "no differences\n")
            status, output = await gwctl.command("explain", "GET", url, "--live")
            assert status == 0, output
            assert "live         default/r/0: default/web/80\n" in output
            assert output.endswith("             agrees\n")

            await dataplane.runtime(f"clear map {_path(dataplane, 'gwctl-services.map')}")
            status, output = await gwctl.command("diff")
            assert status == 1, output
            assert output.endswith("1 operation at runtime, no reload\n")
            status, output = await gwctl.command("explain", "GET", url, "--live")
            assert status == 1, output
            assert "a row of HAProxy leads nowhere" in output

            process.send_signal(number)
            status, output = await gwctl.finish(process)
            assert status == 0, output
            assert "Traceback" not in output
            assert dataplane.password not in output


async def test_a_run_that_is_to_end_goes_on_until_the_delay_is_over(dataplane: DataPlane, tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "manifests"
    folder.mkdir()
    listening = (gateway_class(), gateway([listener("http", port)]))
    write(folder, *listening)
    gwctl = Gwctl(dataplane, folder)
    gwctl.environment["GWCTL_SHUTDOWN_DELAY"] = "3600s"
    async with running(gwctl) as process, EchoBackend("web") as web:
        process.send_signal(signal.SIGTERM)
        answer = await wait_for(gwctl.readyz, 503)
        assert answer.text == "not ready: gwctl is stopping\n"
        added = endpoints("web", [("127.0.0.1", web.port)])
        write(folder, *listening, http_route("r", [prefix_rule("/", backend("web"))]), service("web"), *added)
        await wait_for(f"http://127.0.0.1:{port}/", 200)
        await wait_for(gwctl.readyz, 503)
        process.send_signal(signal.SIGTERM)
        status, output = await gwctl.finish(process)
        assert status == 0, output


def _path(dataplane: DataPlane, table: str) -> Path:
    return next(dataplane.folder.rglob(table))
