"""`python -m tests.bench`: with 1,000 and with 3,000 routes live, 50 more are added, each timed until it serves.

Timed from the beginning of the file's write to the first right response on a kept-alive connection that asks all the
time. Exit status 1 when a limit is missed, or when a request got another status than 404 before and 200 after.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, quantiles

from tests.bench.manifests import Manifests
from tests.demo.command import Backend, CommandError, Gwctl
from tests.harness import DataPlane, HarnessError, free_port
from tests.http1 import Connection
from tests.parts import PartError

MEAN_MS, WORST_MS, RATIO = 25.0, 100.0, 1.3
PAUSE_SECONDS = 0.05
ASK_SECONDS = 0.0005
DEADLINE_SECONDS = 10.0


@dataclass(frozen=True)
class Figures:
    """What one run measured: times in ms, statuses seen, and what HAProxy did."""

    routes: int
    times: tuple[float, ...]
    statuses: Counter[int]
    reloads: int

    def __str__(self) -> str:
        p95 = quantiles(self.times, n=20)[-1]
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.routes:>7} {fmean(self.times):>8.1f} {median(self.times):>8.1f} {p95:>8.1f} {max(self.times):>8.1f}"
            f" {self.reloads:>8}   {statuses}"
        )


HEADER = f"{'routes':>7} {'mean':>8} {'median':>8} {'p95':>8} {'worst':>8} {'reloads':>8}   statuses (times in ms)"


async def measure(routes: int, added: int, *, one_host: bool) -> Figures:
    """Start everything with so many routes, add some and time each."""
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwctl-bench-")))
        backend = await stack.enter_async_context(Backend("web", free_port(), free_port(), work / "backend.log"))
        dataplane = await stack.enter_async_context(DataPlane())
        port = free_port()
        manifests = Manifests(work / "manifests", port, backend.http_port, one_host=one_host)
        manifests.write(range(routes))
        started = time.perf_counter()
        gwctl = await stack.enter_async_context(Gwctl(dataplane, manifests.folder, work / "gwctl.log"))
        await gwctl.wait_until_ready()
        await backend.wait_until_ready()
        _say(f"  {routes} routes live after {time.perf_counter() - started:.1f} s, adding {added} more ")
        reloads, worker = await dataplane.reloads(), await dataplane.worker()
        statuses: Counter[int] = Counter()
        times = []
        async with Connection(port) as connection:
            for number in range(routes, routes + added):
                times.append(await _add(manifests, number, connection, statuses))
                await asyncio.sleep(PAUSE_SECONDS)
                _say(".")
        gwctl.check()
        _say("\n")
        restarts = int(await dataplane.worker() != worker)
        return Figures(routes, tuple(times), statuses, max(restarts, await dataplane.reloads() - reloads))


async def _add(manifests: Manifests, number: int, connection: Connection, statuses: Counter[int]) -> float:
    """Write a route's file; give the ms until its request is answered 200."""
    request, text, path = manifests.request(number), manifests.text(number), manifests.path(number)
    statuses[(await connection.send(request)).status] += 1
    started = time.perf_counter()
    path.write_text(text, encoding="utf-8")
    while True:
        status = (await connection.send(request)).status
        now = time.perf_counter()
        statuses[status] += 1
        if status == 200:
            return (now - started) * 1000
        if now - started > DEADLINE_SECONDS:
            raise CommandError(f"{path.name} had no effect after {DEADLINE_SECONDS:.0f} s: status {status}")
        await asyncio.sleep(ASK_SECONDS)


def find_misses(small: Figures, large: Figures) -> Iterator[str]:
    """Yield every limit that was missed."""
    for figures in (small, large):
        mean, worst = fmean(figures.times), max(figures.times)
        if mean > MEAN_MS:
            yield f"mean {mean:.1f} ms at {figures.routes} routes, at most {MEAN_MS:.0f} wanted"
        if worst > WORST_MS:
            yield f"worst {worst:.1f} ms at {figures.routes} routes, at most {WORST_MS:.0f} wanted"
        if figures.statuses.keys() - {404, 200}:
            yield f"statuses other than 404 and 200 at {figures.routes} routes"
        if figures.reloads:
            yield f"{figures.reloads} reloads at {figures.routes} routes"
    ratio = fmean(large.times) / fmean(small.times)
    if ratio > RATIO:
        yield f"{large.routes} routes take {ratio:.2f} times as long as {small.routes}, at most {RATIO} wanted"


async def run(sizes: tuple[int, int], added: int) -> int:
    """Measure both kinds at both sizes; give the exit status."""
    missed: list[str] = []
    for title, one_host in (("each route on a host of its own", False), ("all routes on one host", True)):
        print(f"{title}:", flush=True)
        small, large = [await measure(routes, added, one_host=one_host) for routes in sizes]
        print(f"{HEADER}\n{small}\n{large}")
        print(f"  ratio of the means {fmean(large.times) / fmean(small.times):.2f}\n", flush=True)
        missed += (f"{title}: {miss}" for miss in find_misses(small, large))
    for miss in missed:
        print(f"missed: {miss}")
    if not missed:
        print(f"within the limits: mean {MEAN_MS:.0f} ms, worst {WORST_MS:.0f} ms, ratio {RATIO}")
    return 1 if missed else 0


def _say(text: str) -> None:
    print(text, end="", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="how long a change takes to reach traffic")
    parser.add_argument("--routes", type=int, nargs=2, default=(1000, 3000), metavar=("FEW", "MANY"))
    parser.add_argument("--added", type=int, default=50)
    options = parser.parse_args()
    try:
        return asyncio.run(run(tuple(options.routes), options.added))
    except (CommandError, HarnessError, PartError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
