"""A load that never stops: kept-alive connections that send one request after another and judge each answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gwctl.routing.request import Request
from tests.http1 import Connection, Response


class Load:
    """Sends ``request`` on several connections until it is left; ``is_right`` judges each answer.

    ``answers`` counts by what answered (the ``name`` or ``pod`` in its JSON), ``failures`` holds what went wrong.
    """

    def __init__(
        self,
        port: int,
        request: Request,
        is_right: Callable[[Response], bool],
        connections: int = 4,
        host: str = "127.0.0.1",
    ) -> None:
        self.port = port
        self.host = host
        self.request = request
        self.is_right = is_right
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._connections = connections
        self._tasks: list[asyncio.Task[None]] = []
        self._progress = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._send()) for _ in range(self._connections)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def total(self) -> int:
        """How many answers have come."""
        return sum(self.answers.values())

    async def wait_for(self, more: int) -> None:
        """Wait until so many more answers have come."""
        goal = self.total + more
        async with asyncio.timeout(60), self._progress:
            await self._progress.wait_for(lambda: self.total >= goal)

    async def _send(self) -> None:
        async with Connection(self.port, self.host) as connection:
            while True:
                try:
                    response = await connection.send(self.request)
                except (OSError, EOFError) as error:
                    self.failures.append(repr(error))
                    await asyncio.sleep(0.01)
                    continue
                if not self.is_right(response):
                    self.failures.append(f"{response.status} {response.body[:200]!r}")
                answer = response.json() if response.status == 200 else {}
                name = answer.get("name") or answer.get("pod") or str(response.status)
                async with self._progress:
                    self.answers[name] += 1
                    self._progress.notify_all()
