"""A load that goes on while manifests are edited, and that forgives nothing.

In: targets, each with the answers that are right now. Out: how many requests were sent and everything that went
wrong. The surprising fact: a request is judged by what was right when it was *sent*, so a late answer of the old
kind after a change counts as a failure.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from gwctl.routing.request import Request
from tests.http1 import Connection, Response

PAUSE_SECONDS = 0.004
CONNECTIONS = 8


@dataclass
class Target:
    """A request, and the backends of which one must answer it."""

    request: Request
    right: frozenset[str]


@dataclass
class Load:
    """Sends the targets' requests in turn on kept-alive connections, and holds one TCP connection open all along."""

    port: int
    tcp_port: int
    targets: list[Target]
    sent: int = 0
    bytes_echoed: int = 0
    failures: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        workers = [self._send(number) for number in range(CONNECTIONS)]
        self._tasks = [asyncio.create_task(worker) for worker in (*workers, self._echo())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                self.failures.append(f"the load itself broke: {result!r}")

    async def _send(self, number: int) -> None:
        async with Connection(self.port) as connection:
            while True:
                target = self.targets[number % len(self.targets)]
                number += 1
                right = target.right
                self.sent += 1
                where = f"{target.request.host}{target.request.path}"
                try:
                    response = await connection.send(target.request)
                except (OSError, EOFError) as error:
                    self.failures.append(f"{where}: {error!r}")
                    await asyncio.sleep(0.05)
                    continue
                if (answer := answer_of(response)) not in right:
                    self.failures.append(f"{where} was answered by {answer}, not {' or '.join(sorted(right))}")
                await asyncio.sleep(PAUSE_SECONDS)

    async def _echo(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.tcp_port)
        try:
            await reader.readline()
            while True:
                writer.write(b"still there?\n")
                if await reader.readline() != b"still there?\n":
                    self.failures.append("the TCP connection that was open all along broke")
                    return
                self.bytes_echoed += 13
                await asyncio.sleep(0.01)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def answer_of(response: Response) -> str:
    """Give the backend's name, or the status where no backend answered."""
    if response.status == 200 and response.body:
        return str(response.json()["name"])
    return str(response.status)
