"""The reflector: what it tells, whatever happens to lists, watches and connections."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gwctl.kube.client import KubeClient
from gwctl.kube.error import Forbidden, KubeError, NotFound, ServerError, TooManyRequests, Unauthorized
from gwctl.kube.kind import Kind
from gwctl.kube.reflector import Backoff, Observer, Pace, Reflector, Trouble
from tests.kube.apiserver import ApiServer

SERVICE = Kind("Service", "services")
SERVICES = "/api/v1/services"
PACE = Pace(first=0.01, longest=0.04, refused=0.02)


def service(name: str, port: int = 80) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port}]}}


class Seen(Observer):
    """Everything that a reflector tells, and what it counts."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.causes: list[str] = []
        self.errors: list[str] = []
        self.synced_times = 0
        self._moved = asyncio.Event()

    def put(self, manifest: dict[str, Any]) -> None:
        assert (manifest["apiVersion"], manifest["kind"]) == ("v1", "Service")
        self._note(f"{manifest['metadata']['name']} {manifest['spec']['ports'][0]['port']}")

    def drop(self, namespace: str, name: str) -> None:
        assert namespace == "default"
        self._note(f"{name} gone")

    def synced(self) -> None:
        self.synced_times += 1
        self._moved.set()

    def listed(self, kind: str, cause: str) -> None:
        self.causes.append(f"{kind} {cause}")

    def watch_error(self, kind: str, error: str) -> None:
        self.errors.append(f"{kind} {error}")
        self._moved.set()

    def _note(self, text: str) -> None:
        self.told.append(text)
        self._moved.set()

    async def wait(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(10):
            while not holds():
                self._moved.clear()
                await self._moved.wait()

    async def until(self, text: str) -> list[str]:
        """Wait until something is told; give and forget all that was."""
        await self.wait(lambda: text in self.told)
        told, self.told = self.told, []
        return told

    async def until_synced(self, times: int) -> None:
        """Wait until so many lists were read."""
        await self.wait(lambda: self.synced_times >= times)


@asynccontextmanager
async def following(client: KubeClient, pace: Pace = PACE) -> AsyncIterator[Seen]:
    seen = Seen()
    reflector = Reflector(client, SERVICE, seen, pace=pace, observer=seen, trouble=Trouble())
    task = asyncio.ensure_future(reflector.run(SERVICES))
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(server: ApiServer, seen: Seen) -> None:
    """Wait for the first list and the watch after it, and forget what was told."""
    await seen.until_synced(1)
    await server.watched("Service")
    seen.told.clear()


def lists(server: ApiServer) -> int:
    return server.count("GET", f"{SERVICES}?limit")


async def test_first_everything_then_every_change(client: KubeClient, server: ApiServer) -> None:
    server.put(service("a"))
    server.put(service("b"))
    async with following(client) as seen:
        assert await seen.until("b 80") == ["a 80", "b 80"]
        await server.watched("Service")
        server.put(service("c"))
        server.put(service("a", 81))
        server.remove("Service", "b")
        assert await seen.until("b gone") == ["c 80", "a 81", "b gone"]
    assert seen.causes == ["Service start"]


async def test_a_long_list_is_read_in_pages(client: KubeClient, server: ApiServer) -> None:
    for number in range(1100):
        server.put(service(f"s{number:04}"))
    async with following(client) as seen:
        assert len(await seen.until("s1099 80")) == 1100
    assert lists(server) == 3


async def test_a_list_that_expires_between_pages_begins_anew(client: KubeClient, server: ApiServer) -> None:
    for number in range(600):
        server.put(service(f"s{number:04}"))
    server.fail("GET", "continue=", 410)
    async with following(client) as seen:
        assert len(await seen.until("s0599 80")) == 600
    assert lists(server) == 4
    assert seen.causes == ["Service start", "Service expired"]


@pytest.mark.parametrize("as_status", [True, False])
async def test_after_a_version_that_expired_only_differences_are_told(
    client: KubeClient, server: ApiServer, as_status: bool
) -> None:
    server.gone_as_status = as_status
    for name in ("stays", "changes", "goes"):
        server.put(service(name))
    async with following(client) as seen:
        await settled(server, seen)
        server.fail("GET", "watch", 500, times=2)
        server.drop_watches()
        server.put(service("changes", 81))
        server.remove("Service", "goes")
        server.put(service("comes"))
        server.compact()
        assert sorted(await seen.until("goes gone")) == ["changes 81", "comes 80", "goes gone"]
        await server.watched("Service")
        server.put(service("later"))
        assert await seen.until("later 80") == ["later 80"]
    assert seen.causes == ["Service start", "Service expired"]


async def test_what_happened_while_the_connection_was_down_is_told_without_a_list(
    client: KubeClient, server: ApiServer
) -> None:
    server.put(service("a"))
    async with following(client) as seen:
        await settled(server, seen)
        server.fail("GET", "watch", 500)
        server.drop_watches()
        server.put(service("b"))
        server.remove("Service", "a")
        assert await seen.until("a gone") == ["b 80", "a gone"]
    assert lists(server) == 1
    assert set(seen.errors) == {"Service Unreachable", "Service ServerError"}


async def test_a_bookmark_saves_the_list(client: KubeClient, server: ApiServer) -> None:
    async with following(client) as seen:
        await settled(server, seen)
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}})
        server.compact()
        server.bookmark()
        server.put(service("a"))
        await seen.until("a 80")
        server.drop_watches()
        server.put(service("b"))
        assert await seen.until("b 80") == ["b 80"]
    assert lists(server) == 1


async def test_a_watch_that_ends_is_followed_by_the_next(client: KubeClient, server: ApiServer) -> None:
    async with following(client) as seen:
        await settled(server, seen)
        for name in "abc":
            server.put(service(name))
            server.end_watches()
            assert await seen.until(f"{name} 80") == [f"{name} 80"]
            await server.until(lambda: not server.watchers)
            await server.watched("Service")
    assert lists(server) == 1


async def test_the_end_of_a_watch_that_lasted_is_no_failure(client: KubeClient, server: ApiServer) -> None:
    async with following(client, Pace(at_once=0.0)) as seen:
        await settled(server, seen)
        server.end_watches()
        await server.until(lambda: server.count("GET", "watch=true") == 2)
    assert seen.errors == []


async def test_watches_that_end_at_once_are_ever_longer_apart_and_what_they_tell_counts(
    client: KubeClient, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def wait(backoff: Backoff, error: KubeError) -> None:
        waits.append(backoff.next(error))

    monkeypatch.setattr(Backoff, "wait", wait)
    for number in range(6):
        added = service(f"s{number}")
        added["metadata"] |= {"namespace": "default", "resourceVersion": str(101 + number)}
        server.answer_with("GET", "watch=true", json.dumps({"type": "ADDED", "object": added}).encode() + b"\n")
    async with following(client, Pace(first=1.0, longest=8.0)) as seen:
        assert await seen.until("s5 80") == [f"s{number} 80" for number in range(6)]
        await server.watched("Service")
    assert lists(server) == 1
    assert seen.errors == ["Service Unreachable"] * 6
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, (1, 2, 4, 8, 8, 8), strict=True))


async def test_a_watch_lasts_as_long_as_its_pace_says(client: KubeClient, server: ApiServer) -> None:
    async with following(client, Pace(watch=100)) as seen:
        await settled(server, seen)
    asked = next(request for request in server.requests if "timeoutSeconds=" in request)
    assert 100 <= int(asked.partition("timeoutSeconds=")[2]) <= 200
    assert "allowWatchBookmarks=true" in asked


async def test_a_connection_that_died_in_silence_is_replaced(client: KubeClient, server: ApiServer) -> None:
    async with following(client, Pace(first=0.01, silence=0.05)) as seen:
        await settled(server, seen)
        await server.until(lambda: server.count("GET", "watch=true") > 3)
        server.put(service("a"))
        assert await seen.until("a 80") == ["a 80"]
    assert lists(server) == 1


@pytest.mark.parametrize(
    "line", [b"not json\n", b'{"type": "ADDED", "object": {}}\n', b'{"type": "NEW", "object": {"metadata": {}}}\n']
)
async def test_an_event_that_makes_no_sense_leads_to_a_list(client: KubeClient, server: ApiServer, line: bytes) -> None:
    server.put(service("a"))
    async with following(client) as seen:
        await settled(server, seen)
        server.send("Service", line)
        await seen.until_synced(2)
        await server.watched("Service")
        server.put(service("b"))
        assert await seen.until("b 80") == ["b 80"]
    assert seen.causes == ["Service start", "Service malformed"]


async def test_a_list_that_is_none_is_tried_again(client: KubeClient, server: ApiServer) -> None:
    server.put(service("a"))
    for body in (b"[]", b"{}", b'{"items": null, "metadata": {}}', b"<html>"):
        server.answer_with("GET", SERVICES, body)
    async with following(client) as seen:
        assert await seen.until("a 80") == ["a 80"]
    assert lists(server) == 5


async def test_an_api_server_that_was_away(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    for name in ("stays", "goes"):
        server.put(service(name))
    async with following(client) as seen:
        await settled(server, seen)
        await server.stop()
        server.remove("Service", "goes")
        server.compact()
        await seen.wait(lambda: len(seen.errors) >= 5)
        assert seen.told == []
        await server.start()
        assert await seen.until("goes gone") == ["goes gone"]
    assert [record.message for record in caplog.records] == [
        "the Kubernetes API server does not answer",
        "the Kubernetes API server answers again",
    ]


async def test_errors_of_the_server_are_logged_once(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    server.fail("GET", SERVICES, 500, times=4)
    async with following(client) as seen:
        await seen.until_synced(1)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "the Kubernetes API fails"),
        ("INFO", "the Kubernetes API works again"),
    ]
    assert vars(caplog.records[0])["error"].startswith(f"GET {SERVICES}: 500: ")


def test_what_fails_for_all_is_told_once_and_a_missing_right_for_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    trouble = Trouble()
    for error in (Unauthorized("unauthorized", 401, ""), ServerError("etcd", 500, "")):
        trouble.begin("blip", "Service", error)
        trouble.end("blip")
    assert caplog.messages == []
    for _ in range(3):
        for kind in ("Service", "Gateway"):
            trouble.begin(kind, kind, ServerError("etcd", 500, ""))
    trouble.end("Service")
    trouble.end("Gateway")
    for times in (3, 5):
        for kind in ("Service", "Gateway"):
            for _ in range(times):
                trouble.begin(kind, kind, Forbidden("no", 403, ""))
    trouble.end("Gateway")
    assert [(record.message, vars(record).get("kind")) for record in caplog.records] == [
        ("the Kubernetes API fails", "Service"),
        ("the Kubernetes API works again", None),
        ("not allowed by the Kubernetes API", "Service"),
        ("not allowed by the Kubernetes API", "Gateway"),
        ("the Kubernetes API works again", None),
    ]


@pytest.mark.parametrize("verb", ["limit", "watch"])
async def test_a_missing_right_is_named_once_and_may_come(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    server.fail("GET", verb, 403, times=5)
    async with following(client) as seen:
        await server.watched("Service")
        server.put(service("a"))
        assert await seen.until("a 80") == ["a 80"]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "not allowed by the Kubernetes API"),
        ("INFO", "the Kubernetes API works again"),
    ]
    assert f"GET {SERVICES}: 403: get is refused by the test" in vars(caplog.records[0])["error"]


async def test_what_is_not_served_is_for_the_caller(client: KubeClient) -> None:
    seen = Seen()
    reflector = Reflector(client, SERVICE, seen, pace=PACE, observer=seen, trouble=Trouble())
    with pytest.raises(NotFound):
        await reflector.run("/apis/example.com/v1/services")
    assert seen.synced_times == 0


async def test_dropping_everything(client: KubeClient, server: ApiServer) -> None:
    server.put(service("a"))
    seen = Seen()
    reflector = Reflector(client, SERVICE, seen, pace=PACE, observer=seen, trouble=Trouble())
    task = asyncio.ensure_future(reflector.run(SERVICES))
    await seen.until("a 80")
    task.cancel()
    reflector.clear()
    assert seen.told == ["a gone"]
    with suppress(asyncio.CancelledError):
        await task


def waits(backoff: Backoff, *errors: KubeError) -> list[float]:
    return [backoff.next(error) for error in errors]


def test_waits_grow_up_to_a_limit_and_differ_between_replicas() -> None:
    error = ServerError("", 500, "")
    backoff = Backoff(Pace(first=1.0, longest=8.0))
    found = waits(backoff, *[error] * 6)
    assert all(most / 2 <= wait <= most for wait, most in zip(found, (1, 2, 4, 8, 8, 8), strict=True))
    backoff.reset()
    assert backoff.next(error) <= 1.0
    assert len({backoff.next(error) for _ in range(5)}) > 1


def test_the_server_says_how_long_to_wait() -> None:
    backoff = Backoff(Pace(first=1.0))
    assert waits(backoff, TooManyRequests("", 429, "", 60.0), ServerError("", 503, "", 30.0)) == [60.0, 30.0]


def test_a_missing_right_is_asked_for_ever_more_rarely() -> None:
    backoff = Backoff(Pace(first=1.0, longest=2.0, refused=8.0))
    found = waits(backoff, *[Forbidden("", 403, "")] * 5)
    assert all(most / 2 <= wait <= most for wait, most in zip(found, (1, 2, 4, 8, 8), strict=True))
    assert backoff.next(ServerError("", 500, "")) <= 1.0
