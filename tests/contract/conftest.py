"""HAProxy with each Data Plane API there is: the stand-in always, a real one where the machine has it.

A test gets one as if fresh. One whose process and files a test left as they were is tidied and lent to the
next test, because starting is what takes the time.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.contract.wire import expect
from tests.harness import BOOTSTRAP, DataPlane, Worker, free_port
from tests.parts import Part, PartError, find_dataplaneapi

CONFIG = """
frontend web
  bind 127.0.0.1:WEB_PORT
  use_backend %[path,map_beg({folder}/maps/paths.map,blue)]

backend blue
  balance roundrobin

backend green
  balance roundrobin
"""

State = tuple[Worker, int, str, dict[str, bytes]]


@pytest.fixture(scope="session", params=["standin", "real"])
def target(request: pytest.FixtureRequest) -> Part:
    """The Data Plane API under test."""
    try:
        return find_dataplaneapi(request.param)
    except PartError as error:
        if request.param == "real" and "GWCTL_DATAPLANEAPI" not in os.environ:
            pytest.skip(f"THE CONTRACT IS NOT CHECKED AGAINST A REAL DATA PLANE API: {error}")
        raise


@pytest.fixture(scope="session")
def web_port() -> int:
    """Where the frontend `web` listens."""
    return free_port()


@pytest.fixture(scope="session")
def config() -> str:
    """The sections beside the bootstrap."""
    return CONFIG


def client_of(plane: DataPlane) -> httpx.AsyncClient:
    """A client with credentials whose paths start below `/v3/services/haproxy`."""
    client = plane.client()
    client.base_url = httpx.URL(f"{plane.url}/v3/services/haproxy")
    return client


async def state_of(plane: DataPlane) -> State:
    """The process, how often it was reloaded, its certificates, and every file that outlives a call."""
    files = [plane.config_file]
    for folder in ("maps", "ssl", "general", "backups", "transactions"):
        files += [path for path in sorted((plane.folder / folder).rglob("*")) if path.is_file()]
    contents = {str(path): path.read_bytes() for path in files}
    certificates = await plane.runtime("show ssl cert") + await plane.runtime("show ssl ca-file")
    return await plane.worker(), await plane.reloads(), certificates, contents


async def tidy(api: httpx.AsyncClient) -> None:
    """Remove what tests leave behind at runtime."""
    for transaction in expect(await api.get("/transactions"), 200).json():
        expect(await api.delete(f"/transactions/{transaction['id']}"), 204)
    for backend in ("blue", "green"):
        path = f"/runtime/backends/{backend}/servers"
        for server in expect(await api.get(path), 200).json():
            expect(await api.delete(f"{path}/{server['name']}"), 204)
    expect(await api.delete("/runtime/maps/paths.map"), 204)


class Shelf:
    """At most one running HAProxy for the next test, and how it was when it started."""

    def __init__(self, haproxy: Path, folders: pytest.TempPathFactory) -> None:
        self._haproxy = haproxy
        self._folders = folders
        self._kept: tuple[Part, str] | None = None
        self._plane: DataPlane | None = None
        self._fresh: State | None = None

    async def take(self, target: Part, text: str) -> DataPlane:
        """The kept one if it has the same parts, else a new one."""
        if self._plane and self._kept == (target, text):
            return self._plane
        await self.drop()
        folder = self._folders.mktemp("plane")
        for empty in ("maps/paths.map", "ssl/list.txt"):
            (folder / empty).parent.mkdir()
            (folder / empty).touch()
        self._plane = DataPlane(folder, haproxy=self._haproxy, api=target, haproxy_cfg=text)
        self._kept = (target, text)
        await self._plane.start()
        self._fresh = await state_of(self._plane)
        return self._plane

    async def give_back(self, *, failed: bool) -> None:
        """Keep it if it is again as it was when it started."""
        assert self._plane
        if not failed and await self._plane.worker() == (self._fresh and self._fresh[0]):
            async with client_of(self._plane) as api:
                if expect(await api.get("/reloads"), 200).json() == []:
                    await tidy(api)
                    if await state_of(self._plane) == self._fresh:
                        return
        await self.drop()

    async def drop(self) -> None:
        """End it."""
        if self._plane:
            await self._plane.stop()
        self._plane = None


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shelf(haproxy: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shelf]:
    """Where a running HAProxy waits for the next test."""
    made = Shelf(haproxy, tmp_path_factory)
    yield made
    await made.drop()


@pytest.fixture
async def plane(
    request: pytest.FixtureRequest, shelf: Shelf, target: Part, web_port: int, config: str
) -> AsyncIterator[DataPlane]:
    """HAProxy with one empty map, one empty list of certificates, and the API under test."""
    failures = request.session.testsfailed
    text = BOOTSTRAP + config.replace("WEB_PORT", str(web_port))
    try:
        yield await shelf.take(target, text)
    except BaseException:
        await shelf.drop()
        raise
    await shelf.give_back(failed=request.session.testsfailed > failures)


@pytest.fixture
async def api(plane: DataPlane) -> AsyncIterator[httpx.AsyncClient]:
    """A client with credentials whose paths start below `/v3/services/haproxy`."""
    async with client_of(plane) as client:
        yield client
