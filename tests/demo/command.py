"""Programs beside the demo and the benchmark: ``gwctl run`` as a user runs it, and the example backends.

Each is a process of its own, so that what is measured shares no event loop with what measures. The surprising
fact: the kernel ends them with their parent, so none outlives a demo that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.harness import DataPlane, free_port

READY_SECONDS = 120.0
STOP_SECONDS = 5.0
GWCTL = Path(sys.executable).parent / "gwctl"


class CommandError(Exception):
    """A program did not start or ended; the message ends with the last lines of its log."""


class Command:
    """A child process as an asynchronous context manager; its output goes to a file."""

    def __init__(self, name: str, log: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._env = {**os.environ, **(env or {})}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start, in a session of its own: Ctrl-C reaches the demo, which then ends its children in order."""
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def stop(self) -> None:
        """End it: by SIGTERM, after a while by force."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        """Raise `CommandError` when it has ended."""
        if self._process is None or self._process.returncode is not None:
            status = "" if self._process is None else f" with status {self._process.returncode}"
            raise CommandError(f"{self.name} ended{status}:\n{self.tail()}")

    def tail(self) -> str:
        """Give the last lines of the log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


class Gwctl(Command):
    """``gwctl run --source file:FOLDER``, told by its environment where the Data Plane API is."""

    def __init__(self, dataplane: DataPlane, folder: Path, log: Path, *flags: str) -> None:
        self.metrics_port = free_port()
        self.flags = ("run", *flags, "--source", f"file:{folder}")
        self.settings = {
            "GWCTL_DATAPLANE_URL": dataplane.url,
            "GWCTL_DATAPLANE_USERNAME": dataplane.username,
            "GWCTL_DATAPLANE_PASSWORD": dataplane.password,
        }
        address = {"GWCTL_METRICS_ADDRESS": f"127.0.0.1:{self.metrics_port}"}
        super().__init__("gwctl", log, GWCTL, *self.flags, env={**self.settings, **address})

    @property
    def metrics_url(self) -> str:
        """Where the metrics are."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    async def wait_until_ready(self) -> None:
        """Wait until the first state is applied and read back."""
        ready = f"http://127.0.0.1:{self.metrics_port}/readyz"
        try:
            async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient() as client:
                while True:
                    self.check()
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get(ready)).is_success:
                            return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise CommandError(f"gwctl is not ready after {READY_SECONDS:.0f} s:\n{self.tail()}") from None


class Backend(Command):
    """An example backend: HTTP on one port, TCP on another, both answer with its name."""

    def __init__(self, name: str, http_port: int, tcp_port: int, log: Path) -> None:
        self.http_port = http_port
        arguments = (sys.executable, "-m", "tests.demo.backend", name, str(http_port), str(tcp_port))
        super().__init__(f"the backend {name}", log, *arguments)

    async def wait_until_ready(self) -> None:
        """Wait until it listens."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while True:
                    self.check()
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection("127.0.0.1", self.http_port)
                        writer.close()
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise CommandError(f"{self.name} does not listen:\n{self.tail()}") from None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
