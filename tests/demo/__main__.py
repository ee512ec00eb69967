"""`python -m tests.demo`: starts everything, shows requests being routed and changes reaching traffic, and judges.

Exit status 0 when all was as promised, 1 with the reason when it was not. With ``KEEP=1`` it judges nothing, works on
``examples/quickstart`` itself and stays up until Ctrl-C, so that a person can edit and watch.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from tests.demo.command import Backend, CommandError, Gwctl
from tests.demo.show import bad, dim, good, line, step
from tests.demo.steps import Broken, Demo
from tests.harness import DataPlane, HarnessError
from tests.parts import PartError, find_dataplaneapi, find_haproxy

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
HTTP_PORT, TCP_PORT = 8080, 9000
BACKENDS = {"blue": (11081, 11091), "green": (11082, 11092)}


async def run(keep: bool) -> None:
    """Run the demo. Raises `Broken` when something is not as promised."""
    require_free_ports()
    haproxy, api = find_haproxy(), find_dataplaneapi()
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwctl-demo-")))
        folder = QUICKSTART if keep else Path(shutil.copytree(QUICKSTART, work / "quickstart"))
        step("1  Start")
        started = time.perf_counter()
        backends = [Backend(name, *ports, work / f"{name}.log") for name, ports in BACKENDS.items()]
        for backend in backends:
            await stack.enter_async_context(backend)
        dataplane = await stack.enter_async_context(DataPlane(haproxy=haproxy, api=api))
        line(f"HAProxy with {'its own' if api.kind == 'real' else 'a stand-in for its'} Data Plane API")
        for backend in backends:
            await backend.wait_until_ready()
        for name, (http, tcp) in BACKENDS.items():
            line(f"backend {name:<5} on 127.0.0.1, HTTP {http}, TCP {tcp}")
        gwctl = await stack.enter_async_context(Gwctl(dataplane, _short(folder), work / "gwctl.log"))
        line(dim(f"$ gwctl {' '.join(gwctl.flags)}"))
        begun = time.perf_counter()
        await gwctl.wait_until_ready()
        line(
            f"ready after {time.perf_counter() - begun:.1f} s; HAProxy was reloaded "
            f"{_times(await dataplane.reloads())}, to load the routing program"
        )
        demo = Demo(dataplane, gwctl, folder, HTTP_PORT, TCP_PORT, judges=not keep)
        await demo.show_requests()
        if keep:
            await demo.stay()
        await demo.change_under_load()
        await demo.judge()
        line(
            dim(
                f"({time.perf_counter() - started:.1f} s in all. KEEP=1 stays up, for you to edit {_short(QUICKSTART)})"
            )
        )


def require_free_ports() -> None:
    """Raise `Broken` where a port that the manifests name is taken."""
    for port in (HTTP_PORT, TCP_PORT, *(port for ports in BACKENDS.values() for port in ports)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise Broken(f"port {port} of 127.0.0.1 is taken; the demo's manifests need it") from None


def _short(path: Path) -> Path:
    """Give the path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


async def _run_until_stopped(keep: bool) -> None:
    task = asyncio.ensure_future(run(keep))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    await task


def main() -> int:
    keep = os.environ.get("KEEP", "") not in ("", "0")
    try:
        asyncio.run(_run_until_stopped(keep))
    except asyncio.CancelledError:
        line()
        line("stopped")
        return 0 if keep else 130
    except (Broken, CommandError, HarnessError, PartError) as error:
        with suppress(BrokenPipeError):
            print(f"\n{bad('error:')} {error}", flush=True)
        return 1
    line(good("all as promised"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
