"""`python -m tests.demo.backend NAME HTTP_PORT TCP_PORT`: an example backend, until SIGTERM comes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from tests.harness import EchoBackend, TcpEcho


async def serve(name: str, http_port: int, tcp_port: int) -> None:
    """Serve until SIGTERM comes."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with EchoBackend(name, http_port), TcpEcho(name, tcp_port):
        await stopped.wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
