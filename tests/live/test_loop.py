"""The loop across reloads: it is handed over like every other listener, and no old process stays for its sake."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from tests.harness import DataPlane, EchoBackend
from tests.live.load import Load
from tests.live.site import get, path, serving
from tests.live.test_retries import Flaky
from tests.manifests import Manifest, backend, endpoints, http_route, service

RELOADS = 3


class Alternating(Flaky):
    """A backend that fails three times of five, whoever asks."""

    def note(self, reply: dict[str, Any]) -> None:
        """Keep nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = itertools.cycle((503, 200, 503, 503, 200))

    def answer(self, method: str, target: str, headers: Any, body_length: int) -> bytes:
        """Answer with the next status."""
        self.statuses = [next(self.turn)]
        return super().answer(method, target, headers, body_length)


async def test_a_reload_costs_no_attempt_and_no_copy(dataplane: DataPlane, tmp_path: Path) -> None:
    retry = {"attempts": 50, "codes": [503], "backoff": "5ms"}
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shadow", "port": 80}}}
    rules: list[Manifest] = [
        {"matches": [path("/retried")], "retry": retry, "backendRefs": [backend("flaky")]},
        {"matches": [path("/mirrored")], "filters": [mirror], "backendRefs": [backend("web")]},
    ]
    async with Alternating() as flaky, EchoBackend("shadow") as shadow, serving(dataplane, tmp_path) as site:
        parts = [service("flaky"), *endpoints("flaky", [("127.0.0.1", flaky.port)])]
        parts += [service("shadow"), *endpoints("shadow", [("127.0.0.1", shadow.port)])]
        await site.apply(http_route("r", rules), *parts)
        for port in (flaky.port, shadow.port):
            await site.gwctl.until_file_says(f"127.0.0.1:{port}")
        async with (
            Load(site.port, get("/retried"), lambda answer: answer.status == 200) as attempts,
            Load(site.port, get("/mirrored"), lambda answer: answer.status == 200) as copies,
        ):
            for _ in range(RELOADS):
                await attempts.wait_for(100)
                before = await dataplane.worker()
                await dataplane.master("reload")
                await dataplane.wait_for_reload(before)
            await attempts.wait_for(100)
            await copies.wait_for(100)
        assert (attempts.failures, copies.failures) == ([], [])
        async with asyncio.timeout(30):
            while await _is_left_in_old_processes(dataplane):  # noqa: ASYNC110 (HAProxy is asked)
                await asyncio.sleep(0.1)
            while shadow.requests < copies.total:  # noqa: ASYNC110 (another process sends them)
                await asyncio.sleep(0.02)
        # The load was left with a request in flight on each connection.
        assert shadow.requests <= copies.total + 4


async def _is_left_in_old_processes(dataplane: DataPlane) -> bool:
    """Tell whether one has requests or copies still; the Data Plane API keeps it a little longer by its questions."""
    lines = (await dataplane.master("show proc")).partition("# old workers")[2].splitlines()
    processes = [line.split()[0] for line in lines if "worker" in line]
    return any(["gwctl" in await dataplane.master(f"@!{process} show sess") for process in processes])
