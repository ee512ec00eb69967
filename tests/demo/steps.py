"""The demo's steps: requests and who answers them, edits under load, and the verdict.

Every fact that is printed is measured outside gwctl: who answered is what the backend says, the rule is what HAProxy
logged, and reloads are what HAProxy's master and worker say of themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from gwctl.routing.request import Request
from tests.demo.command import Gwctl
from tests.demo.load import CONNECTIONS, Load, Target, answer_of
from tests.demo.show import bad, bold, dim, good, line, step
from tests.harness import DataPlane
from tests.http1 import Connection, Response, fetch

SHOP = "shop.localhost"
STEADY = 20
"""So many right answers in a row mean that a change has reached traffic; the time is that of the first of them."""

CHANGE_SECONDS = 10.0
SETTLE_SECONDS = 0.4
SAMPLES = 200
WATCH_SECONDS = 0.1

SALE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {namespace: demo, name: sale}
spec:
  parentRefs: [{name: gateway, sectionName: http}]
  hostnames: [sale.localhost]
  rules:
    - backendRefs: [{name: sale, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {namespace: demo, name: sale}
spec:
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: demo, name: sale, labels: {kubernetes.io/service-name: sale}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
ports: [{port: 11082}]
"""


class Broken(Exception):
    """Something is not as promised."""


@dataclass(frozen=True)
class Shown:
    """A request of the demo, the answer it should get, and what of the response is worth a remark."""

    request: Request
    answer: str
    remark: Callable[[Response], str]


def _says(text: str) -> Callable[[Response], str]:
    return lambda response: text


def _headers_seen(response: Response) -> str:
    headers = response.json()["headers"]
    tenant = ", ".join(headers.get("x-tenant", []))
    return f"it saw x-tenant: {tenant!r}, and {'an' if 'x-debug' in headers else 'no'} x-debug"


SHOWN = (
    Shown(Request("GET", SHOP, "/"), "blue", _says("")),
    Shown(Request("GET", SHOP, "/api/items"), "green", _says("the longer prefix goes first")),
    Shown(Request("GET", SHOP, "/apidocs"), "blue", _says("whole path elements only: not below /api")),
    Shown(Request("GET", SHOP, "/checkout", headers=(("x-canary", "always"),)), "green", _says("the header decides")),
    Shown(Request("GET", SHOP, "/headers", headers=(("x-debug", "1"),)), "blue", _headers_seen),
    Shown(Request("GET", SHOP, "/stock"), "green", _says("another namespace, by a ReferenceGrant")),
    Shown(
        Request("GET", "www.old.localhost", "/a", "b=c"), "301", lambda r: f"to {r.headers.get('location', 'nowhere')}"
    ),
    Shown(Request("GET", "other.localhost", "/"), "404", _says("no route has this host")),
)


class Demo:
    """What is up and running, and what went wrong so far."""

    def __init__(
        self, dataplane: DataPlane, gwctl: Gwctl, folder: Path, port: int, tcp_port: int, *, judges: bool
    ) -> None:
        self.dataplane = dataplane
        self.gwctl = gwctl
        self.folder = folder
        self.port = port
        self.tcp_port = tcp_port
        self.judges = judges
        self._wrong: list[str] = []
        self._load = Load(port, tcp_port, [])

    # Requests

    async def show_requests(self) -> None:
        """Send one request of each kind; print which rule took it and who answered."""
        step("2  Requests are routed")
        for shown in SHOWN:
            response, rule = await self._send_and_find_rule(shown.request)
            answer = answer_of(response)
            self._expect(answer == shown.answer, f"{_text(shown.request)} was answered by {answer}, not {shown.answer}")
            self._row(_text(shown.request), rule, answer, shown.remark(response) if answer == shown.answer else "")
        checkout = Request("GET", SHOP, "/checkout")
        async with Connection(self.port) as connection:
            counts = Counter([answer_of(await connection.send(checkout)) for _ in range(SAMPLES)])
        likely = counts.keys() == {"blue", "green"} and 2 < counts["green"] < SAMPLES / 4
        self._expect(likely, f"{SAMPLES} requests by weights 9 and 1 went to {dict(counts)}")
        self._row(f"{_text(checkout)}  ({SAMPLES} times)", "demo/checkout/1", _counts(counts), "weights 9 and 1")
        counts = Counter([await self._greeting() for _ in range(SAMPLES // 2)])
        self._expect(counts.keys() == {"blue", "green"}, f"TCP connections went to {dict(counts)}")
        self._row(
            f"TCP 127.0.0.1:{self.tcp_port}  ({SAMPLES // 2} times)", "demo/line/0", _counts(counts), "weights 1 and 1"
        )

    async def _send_and_find_rule(self, request: Request) -> tuple[Response, str]:
        log = self.dataplane.haproxy_log
        before = log.stat().st_size
        response = await fetch(self.port, request)
        for _ in range(50):
            with log.open(encoding="utf-8", errors="replace") as file:
                file.seek(before)
                for found in file:
                    if f'"{request.method} {request.path}' in found and found.endswith("\n"):
                        rule = found.partition("] ")[2].split()[1]
                        return response, "" if rule == "-" else rule
            await asyncio.sleep(0.01)
        return response, "?"

    async def _greeting(self) -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.tcp_port)
            try:
                return (await reader.readline()).decode().strip() or "nobody"
            finally:
                writer.close()
        except OSError:
            return "nobody"

    @staticmethod
    def _row(request: str, rule: str, answer: str, remark: str) -> None:
        gap = " " * max(2, 7 - len(answer))
        line(f"{request:<50} {rule or '-':<16} {bold(answer)}{gap}{dim(remark)}".rstrip())

    # Changes

    async def change_under_load(self) -> None:
        """Edit manifests while requests go on; print how long each edit took to reach traffic."""
        step("3  Manifests are edited while requests go on")
        worker, reloads = await self.dataplane.worker(), await self.dataplane.reloads()
        home = Target(Request("GET", SHOP, "/"), frozenset({"blue"}))
        api = Target(Request("GET", SHOP, "/api"), frozenset({"green"}))
        checkout = Target(Request("GET", SHOP, "/checkout"), frozenset({"blue", "green"}))
        headers = Target(Request("GET", SHOP, "/headers"), frozenset({"blue"}))
        line(dim(f"{CONNECTIONS} connections that are kept alive, and one TCP connection that stays open"))
        self._load = Load(self.port, self.tcp_port, [home, api, checkout, headers])
        async with self._load:
            await asyncio.sleep(SETTLE_SECONDS)
            await self._change(
                "a host, its Service and its endpoint are new",
                "routes/sale.yaml",
                lambda old: SALE,
                Target(Request("GET", "sale.localhost", "/"), frozenset({"404"})),
                "green",
            )
            await self._change(
                "a route's backend: blue to green",
                "routes/shop.yaml",
                lambda old: old.replace("name: blue", "name: green"),
                home,
                "green",
            )
            await self._change(
                "weights: 9 and 1 to 0 and 1",
                "routes/checkout.yaml",
                lambda old: old.replace("weight: 9", "weight: 0"),
                checkout,
                "green",
            )
            await self._change(
                "an endpoint moves from port 11081 to 11082",
                "services/blue-endpoints.yaml",
                lambda old: old.replace("port: 11081", "port: 11082"),
                headers,
                "green",
            )
            stock = Target(Request("GET", SHOP, "/stock"), frozenset({"green"}))
            await self._change(
                "a ReferenceGrant is revoked", "services/stock-grant.yaml", lambda old: None, stock, "500"
            )
            await self._change(
                "the route of a host is deleted",
                "routes/sale.yaml",
                lambda old: None,
                Target(Request("GET", "sale.localhost", "/"), frozenset({"green"})),
                "404",
            )
            await asyncio.sleep(SETTLE_SECONDS)
        await self._report(await self.dataplane.worker() == worker, await self.dataplane.reloads() - reloads)

    async def _change(
        self, title: str, name: str, edit: Callable[[str], str | None], target: Target, answer: str
    ) -> None:
        """Edit a file and measure from its write to the first right answer of a steady row of them."""
        path = self.folder / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = edit(old)
        if new == old:
            raise Broken(f"{path} does not hold what the demo edits: is it as in git?")
        target.right |= {answer}
        async with Connection(self.port) as connection:
            await connection.send(target.request)
            started = time.perf_counter()
            if new is None:
                path.unlink()
            else:
                path.write_text(new, encoding="utf-8")
            first, count = 0.0, 0
            while count < STEADY:
                response = await connection.send(target.request)
                now = time.perf_counter()
                if answer_of(response) == answer:
                    first, count = (now, 1) if count == 0 else (first, count + 1)
                else:
                    count = 0
                    if now - started > CHANGE_SECONDS:
                        raise Broken(f"{title}: no effect on {_text(target.request)} after {CHANGE_SECONDS:.0f} s")
        target.right = frozenset({answer})
        verb = "deleted" if new is None else "edited" if old else "written"
        line(f"{title:<46} {bold(f'{(first - started) * 1000:5.0f} ms')}  {dim(f'{name} {verb}; now {answer}')}")
        await asyncio.sleep(SETTLE_SECONDS)

    async def _report(self, same_worker: bool, reloads: int) -> None:
        load = self._load
        worker = await self.dataplane.worker()
        since = datetime.fromtimestamp(worker.started).astimezone().strftime("%H:%M:%S")
        process = "the same process" if same_worker else "ANOTHER process"
        step("4  Result")
        line(f"requests {load.sent:>6}   failed {_zero(len(load.failures))}   reloads of HAProxy {_zero(reloads)}")
        line(dim(f"HAProxy answers from {process} as before the edits: {worker.pid}, since {since}"))
        self._expect(not load.failures, f"{len(load.failures)} requests failed: {'; '.join(load.failures[:3])}")
        self._expect(load.sent > 500, f"only {load.sent} requests were sent")
        self._expect(load.bytes_echoed > 0, "nothing came back on the TCP connection")
        self._expect(same_worker and reloads == 0, f"HAProxy was reloaded {reloads} times, or restarted")

    async def judge(self) -> None:
        """Raise `Broken` when anything was not as promised."""
        if self._wrong:
            self._fail()

    def _expect(self, kept: bool, message: str) -> None:
        if self.judges and not kept:
            self._wrong.append(message)

    def _fail(self) -> NoReturn:
        raise Broken("not as promised:\n  " + "\n  ".join(self._wrong) + f"\ngwctl said last:\n{self.gwctl.tail()}")

    # Staying up

    async def stay(self) -> NoReturn:
        """Say what can be tried, then print whatever changes, until stopped."""
        step("3  Yours")
        settings = " ".join(f"{name}={value}" for name, value in self.gwctl.settings.items())
        source = self.gwctl.flags[-1].removeprefix("file:")
        for text in (
            f"edit the files below {source}, or try",
            "",
            f"  curl http://{SHOP}:{self.port}/",
            f"  curl -H 'x-canary: always' http://{SHOP}:{self.port}/checkout",
            f"  curl -i 'http://www.old.localhost:{self.port}/a?b=c'",
            f"  nc 127.0.0.1 {self.tcp_port}",
            f"  gwctl explain -f {source} GET http://{SHOP}:{self.port}/checkout",
            f"  {settings} \\",
            f"    gwctl diff -f {source}",
            f"  curl {self.gwctl.metrics_url}",
            "",
            "what changes is printed here; Ctrl-C ends it",
        ):
            line(text)
        line()
        await self._watch()

    async def _watch(self) -> NoReturn:
        answers = {shown.request: shown.answer for shown in SHOWN}
        worker = await self.dataplane.worker()
        said = self.gwctl.log.stat().st_size
        while True:
            self.gwctl.check()
            for request, before in answers.items():
                answer = await self._ask(request)
                if answer != before:
                    answers[request] = answer
                    line(f"{_now()}  {_text(request)}  {before} → {bold(answer)}")
            with suppress(OSError, KeyError):
                if (now := await self.dataplane.worker()) != worker:
                    worker = now
                    line(f"{_now()}  {bad('HAProxy was reloaded')}: its process is {now.pid}")
            with self.gwctl.log.open(encoding="utf-8", errors="replace") as log:
                log.seek(said)
                for text in log:
                    line(f"{_now()}  {dim('gwctl: ' + text.rstrip())}")
                said = log.tell()
            await asyncio.sleep(WATCH_SECONDS)

    async def _ask(self, request: Request) -> str:
        try:
            async with asyncio.timeout(CHANGE_SECONDS):
                return answer_of(await fetch(self.port, request))
        except (OSError, EOFError, TimeoutError):
            return "nobody"


def _text(request: Request) -> str:
    query = f"?{request.query}" if request.query else ""
    headers = "".join(f"  {name}: {value}" for name, value in request.headers)
    return f"{request.method} {request.host}{request.path}{query}{headers}"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _zero(number: int) -> str:
    return good("0") if number == 0 else bad(str(number))


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
