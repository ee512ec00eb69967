"""gwctl itself, running in the test's process upon a folder of manifests and a real HAProxy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from gwctl.routing.request import Request
from gwctl.runtime.config import Config
from gwctl.runtime.supervisor import run
from tests.harness import DataPlane, free_port
from tests.http1 import Response, fetch
from tests.manifests import Manifest
from tests.secrecy import find_keys

DEADLINE_SECONDS = 30.0


class Gwctl:
    """``gwctl run`` as an asynchronous context manager; ready when it is entered."""

    def __init__(
        self, dataplane: DataPlane, folder: Path, *manifests: Manifest, slots: int = 16, **options: Any
    ) -> None:
        self.dataplane = dataplane
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self._health_port = free_port()
        self._slots = slots
        self._options = options
        self._task: asyncio.Task[None] | None = None
        self.write("manifests.yaml", manifests)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start and wait until ready."""
        config = Config(
            source=f"file:{self.folder}",
            dataplane_url=self.dataplane.url,
            dataplane_username=self.dataplane.username,
            dataplane_password=self.dataplane.password,
            metrics_address=f"127.0.0.1:{self._health_port}",
            http_slots=self._slots,
            tcp_slots=4,
            resync_interval=1,
            **self._options,
        )
        self._task = asyncio.create_task(run(config))
        await self.wait_until_ready()

    async def stop(self) -> None:
        """Stop as a signal would. What metrics told until then holds no private key."""
        if self._task is not None:
            if not self._task.done():
                assert find_keys([await self.metrics()]) == []
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def wait_until_ready(self) -> None:
        """Wait for /readyz."""
        assert self._task is not None
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._health_port}", verify=False) as client:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    if self._task.done():
                        await self._task
                    try:
                        if (await client.get("/readyz")).is_success:
                            return
                    except httpx.TransportError:
                        pass
                    await asyncio.sleep(0.01)

    async def metrics(self) -> str:
        """Read /metrics."""
        async with httpx.AsyncClient(verify=False) as client:
            return (await client.get(f"http://127.0.0.1:{self._health_port}/metrics")).text

    def write(self, name: str, manifests: Iterable[Manifest]) -> None:
        """Write a file of manifests, in one atomic step."""
        new = self.folder / f".{name}.new"
        new.write_text(yaml.safe_dump_all(list(manifests), allow_unicode=True), encoding="utf-8")
        new.replace(self.folder / name)

    async def apply(self, name: str, manifests: Iterable[Manifest]) -> None:
        """Write a file of manifests and wait until gwctl has applied it and read it back."""
        before = await self._applied()
        self.write(name, manifests)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await self._applied() == before:  # noqa: ASYNC110 (another process would be asked the same way)
                await asyncio.sleep(0.005)

    async def _applied(self) -> str:
        found = re.search(r"^gwctl_event_to_applied_seconds_count (.*)$", await self.metrics(), re.MULTILINE)
        assert found is not None
        return found[1]

    async def until_file_says(self, text: str) -> None:
        """Wait until the file that HAProxy starts from holds a text. Tables are in their files before."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while text not in self.dataplane.config_file.read_text(encoding="utf-8"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def operations(self, table: str) -> dict[str, int]:
        """How many operations of each kind were applied to a table, or to ``servers`` or ``certificates``."""
        pattern = rf'^gwctl_plan_operations_total{{operation="(\w+)",table="{table}"}} (\d+)'
        return {name: int(number) for name, number in re.findall(pattern, await self.metrics(), re.MULTILINE)}

    async def wait_for_checkpoint(self) -> None:
        """Wait until HAProxy's files have been brought up to what it serves at least once."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not re.search(r"^gwctl_checkpoints_total [1-9]", await self.metrics(), re.MULTILINE):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def remove(self, name: str) -> None:
        """Delete a file of manifests."""
        (self.folder / name).unlink()


async def wait_for(
    port: int, request: Request, *, status: int, backend: str = "", seconds: float = DEADLINE_SECONDS
) -> Response:
    """Send a request until the answer has this status and comes from this backend."""
    response: Response | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    response = await fetch(port, request)
                except (OSError, EOFError):
                    response = None
                if (
                    response is not None
                    and response.status == status
                    and (not backend or backend == _name_of(response))
                ):
                    return response
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{request} was not answered {status} by {backend or 'anyone'}: {response}") from None


def _name_of(response: Response) -> str:
    return str(response.json()["name"]) if response.body else ""
