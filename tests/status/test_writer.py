"""The writer of statuses against an API server in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.problem import fall_back
from gwctl.snapshot import Snapshot
from gwctl.status.build import build_statuses
from gwctl.status.merge import has_own_entries
from gwctl.status.outcome import Stale
from gwctl.status.status import Statuses
from gwctl.status.writer import StatusWriter, backoff
from tests.graph.manifests import CONTROLLER, GATEWAY, read_all, stand_in
from tests.status.api import ApiError, MemoryApi
from tests.status.resources import CLASS_REF, GATEWAY_REF, ROUTE_REF, served
from tests.status.test_route import GLOB, route

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
OTHER = Ref("HTTPRoute", "default", "q")
WORLD = GATEWAY + route(meta="name: r") + route(meta="name: q")
FOREIGN = {"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": [{"type": "Accepted"}]}
NEVER = 1e6


def statuses_of(text: str, previous: Statuses | None = None) -> Statuses:
    graph = build_graph(Snapshot.of(read_all(text)), CONTROLLER)
    return build_statuses(served(graph), previous)


class Lab:
    """A writer at work, its API server, and the switch of its leadership."""

    def __init__(self, text: str = WORLD, wait: Callable[[int], float] = lambda attempt: NEVER, limit: int = 8) -> None:
        self.api = MemoryApi()
        for resource in read_all(text):
            self.api.put(resource.ref, generation=resource.metadata.generation)
        self.leads = True
        self.counts: Counter[tuple[str, str]] = Counter()
        self.counted = asyncio.Event()
        self.statuses = statuses_of(text)
        self.writer = StatusWriter(
            self.api,
            CONTROLLER,
            is_leader=lambda: self.leads,
            clock=lambda: NOW,
            count=self._count,
            backoff=wait,
            limit=limit,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.writer.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _count(self, kind: str, result: str) -> None:
        self.counts[kind, result] += 1
        self.counted.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds after a write."""
        async with asyncio.timeout(30):
            while not holds():
                self.counted.clear()
                await self.counted.wait()

    def update(self, text: str) -> None:
        self.statuses = statuses_of(text, self.statuses)
        self.writer.update(self.statuses)

    async def settle(self) -> None:
        async with asyncio.timeout(30):
            await self.writer.settle()

    async def start(self) -> None:
        """Write everything, as at the start."""
        self.writer.update(self.statuses)
        await self.settle()
        assert {ref for ref, _ in self.api.patches} == set(self.statuses.by_ref)
        self.api.patches.clear()
        self.counts.clear()

    def accepted(self, ref: Ref) -> Any:
        """The first condition that we wrote about an object."""
        return self._written(ref)[0]

    def conditions(self, ref: Ref) -> list[tuple[str, str, int]]:
        """Type, status and observedGeneration of all conditions that we wrote about an object."""
        return [(item["type"], item["status"], item["observedGeneration"]) for item in self._written(ref)]

    def _written(self, ref: Ref) -> list[Any]:
        status = self.api.objects[ref].status
        holders = [entry for entry in status.get("parents", []) if entry["controllerName"] == CONTROLLER]
        found: list[Any] = (holders[0] if "parents" in status else status)["conditions"]
        return found


async def test_everything_is_written_once() -> None:
    lab = Lab()
    async with lab.running():
        lab.writer.update(lab.statuses)
        await lab.settle()
        refs = [CLASS_REF, GATEWAY_REF, ROUTE_REF, OTHER]
        assert sorted(ref for ref, _ in lab.api.patches) == sorted(refs)
        assert all(lab.accepted(ref)["lastTransitionTime"] == "2026-01-02T03:04:05Z" for ref in refs)
        assert lab.counts == {("GatewayClass", "written"): 1, ("Gateway", "written"): 1, ("HTTPRoute", "written"): 2}
        for ref in refs:
            lab.writer.check(ref)
        lab.writer.check_all()
        lab.update(WORLD)
        await lab.settle()
        assert len(lab.api.patches) == 4


async def test_what_cannot_be_read_any_more_is_about_what_is_served_until_nobody_knows_that() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.put(ROUTE_REF, generation=2, status=dict(lab.api.objects[ROUTE_REF].status))
        problem = fall_back(ROUTE_REF, "spec.rules[0].matches[0].path.type", "must be 'Exact'")
        outcome = replace(lab.statuses.outcome, stale={ROUTE_REF: Stale(2, (problem,))})
        lab.writer.update(build_statuses(outcome, lab.statuses))
        await lab.settle()
        assert lab.conditions(ROUTE_REF) == [
            ("Accepted", "True", 0),
            ("ResolvedRefs", "True", 0),
            ("PartiallyInvalid", "True", 2),
        ]
        # gwctl starts anew.
        bad = stand_in(route(more=GLOB, meta="name: r, generation: 2").removesuffix("---\n"))
        snapshot = Snapshot.of(read_all(WORLD)).apply({bad.ref: bad})
        lab.writer.update(build_statuses(served(build_graph(snapshot, CONTROLLER))))
        await lab.settle()
        assert lab.conditions(ROUTE_REF) == [("Accepted", "False", 2)]


async def test_a_change_writes_what_it_changed() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.put(ROUTE_REF, generation=2, status=dict(lab.api.objects[ROUTE_REF].status))
        lab.update(WORLD.replace("name: r}", "name: r, generation: 2}"))
        await lab.settle()
        assert [ref for ref, _ in lab.api.patches] == [ROUTE_REF]
        assert lab.accepted(ROUTE_REF)["observedGeneration"] == 2


async def test_only_the_leader_writes() -> None:
    lab = Lab()
    lab.leads = False
    async with lab.running():
        lab.writer.update(lab.statuses)
        lab.writer.check(ROUTE_REF)
        lab.writer.check_all()
        lab.update(WORLD + route(meta="name: z"))
        await lab.settle()
        assert lab.api.patches == []
        lab.api.put(Ref("HTTPRoute", "default", "z"))
        lab.leads = True
        lab.writer.check_all()
        await lab.settle()
        assert {ref for ref, _ in lab.api.patches} == set(lab.statuses.by_ref)


async def test_leadership_that_goes_stops_what_has_not_been_sent() -> None:
    lab = Lab(limit=1)
    lab.api.gate.clear()
    async with lab.running():
        lab.writer.update(lab.statuses)
        await lab.api.begun.wait()
        lab.leads = False
        lab.api.gate.set()
        await lab.settle()
        assert len(lab.api.patches) == 1


async def test_a_conflict_is_merged_anew() -> None:
    lab = Lab()
    lab.api.follows = False
    lab.api.write(ROUTE_REF, {"parents": [FOREIGN]})
    async with lab.running():
        await lab.start()
        parents = lab.api.objects[ROUTE_REF].status["parents"]
        assert parents[0] == FOREIGN
        assert [entry["controllerName"] for entry in parents] == ["example.com/other", CONTROLLER]


async def test_conflicts_are_counted_and_do_not_go_on_for_ever() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.errors[ROUTE_REF] = [ApiError(409)] * 5
        lab.api.write(ROUTE_REF, {})
        lab.writer.check(ROUTE_REF)
        await lab.settle()
        assert lab.counts == {("HTTPRoute", "conflict"): 5, ("HTTPRoute", "failed"): 1}
        lab.writer.check_all()
        await lab.settle()
        assert [ref for ref, _ in lab.api.patches] == [ROUTE_REF]


async def test_an_object_that_is_gone_is_forgotten() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.follows = False
        lab.api.delete(ROUTE_REF)
        lab.update(WORLD.replace("name: r}", "name: r, generation: 2}"))
        await lab.settle()
        assert lab.counts == {("HTTPRoute", "gone"): 1}
        lab.api.tell()
        lab.writer.check(ROUTE_REF)
        lab.writer.check_all()
        await lab.settle()
        assert lab.api.patches == []


async def test_a_status_is_not_given_to_another_object_of_the_same_name() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.put(ROUTE_REF, uid="new")
        lab.writer.check(ROUTE_REF)
        await lab.settle()
        assert lab.api.patches == []
        lab.update(WORLD.replace("name: r}", "name: r, uid: new}"))
        await lab.settle()
        assert [ref for ref, _ in lab.api.patches] == [ROUTE_REF]


async def test_a_status_of_an_older_generation_waits() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.put(ROUTE_REF, generation=2)
        lab.writer.check(ROUTE_REF)
        lab.writer.check_all()
        await lab.settle()
        assert lab.api.patches == []
        lab.update(WORLD.replace("name: r}", "name: r, generation: 2}"))
        await lab.settle()
        assert lab.accepted(ROUTE_REF)["observedGeneration"] == 2


@pytest.mark.parametrize("status", [0, 403, 422, 500])
async def test_an_error_of_one_object_blocks_no_other(status: int) -> None:
    lab = Lab(limit=1)
    lab.api.errors[ROUTE_REF] = [ApiError(status)]
    async with lab.running():
        lab.writer.update(lab.statuses)
        await lab.settle()
        written = {ref for ref, _ in lab.api.patches}
        assert written == set(lab.statuses.by_ref) - {ROUTE_REF}
        # It waits, whatever is told meanwhile.
        lab.writer.check(ROUTE_REF)
        lab.update(WORLD.replace("name: r}", "name: r, labels: {a: b}}"))
        await lab.settle()
        assert lab.counts["HTTPRoute", "failed"] == 1


async def test_an_object_that_failed_is_tried_again() -> None:
    attempts: list[int] = []

    def wait(attempt: int) -> float:
        attempts.append(attempt)
        return 0.0

    lab = Lab(wait=wait)
    lab.api.errors[ROUTE_REF] = [ApiError(500), ApiError(0), ApiError(503, 0.001)]
    async with lab.running():
        lab.writer.update(lab.statuses)
        await lab.until(lambda: lab.counts["HTTPRoute", "written"] == 2)
        assert attempts == [1, 2, 3]
        assert lab.counts["HTTPRoute", "failed"] == 3


async def test_the_api_server_may_ask_to_wait_longer() -> None:
    lab = Lab(wait=lambda attempt: 0.0)
    lab.api.errors[ROUTE_REF] = [ApiError(429, NEVER), ApiError(500)]
    async with lab.running():
        lab.writer.update(lab.statuses)
        await lab.settle()
        for _ in range(10):
            await asyncio.sleep(0)
        await lab.settle()
        assert lab.counts["HTTPRoute", "failed"] == 1


async def test_a_read_that_fails_after_a_conflict_is_tried_again() -> None:
    class Unreadable(MemoryApi):
        async def read(self, ref: Ref) -> None:
            del ref
            raise ApiError(500)

    lab = Lab()
    broken = Unreadable(lab.api.objects, lab.api.cache)
    broken.errors[ROUTE_REF] = [ApiError(409)]
    writer = StatusWriter(
        broken, CONTROLLER, is_leader=lambda: True, backoff=lambda attempt: NEVER, count=lambda *result: None
    )
    task = asyncio.create_task(writer.run())
    writer.update(lab.statuses)
    async with asyncio.timeout(30):
        await writer.settle()
    assert ROUTE_REF not in {ref for ref, _ in broken.patches}
    writer.check_all()
    async with asyncio.timeout(30):
        await writer.settle()
    assert ROUTE_REF in {ref for ref, _ in broken.patches}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_latest_status_wins() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.gate.clear()
        lab.api.begun.clear()
        lab.update(WORLD + route(meta="name: z"))
        await lab.api.begun.wait()
        lab.update(WORLD + route(meta="name: z") + route(meta="name: y"))
        lab.update(WORLD + route(meta="name: z") + route(meta="name: y") + route(meta="name: x"))
        lab.api.gate.set()
        await lab.settle()
        counts = [status["listeners"][0]["attachedRoutes"] for ref, status in lab.api.patches if ref == GATEWAY_REF]
        assert counts == [3, 5]


async def test_writes_are_bounded() -> None:
    text = GATEWAY + "".join(route(meta=f"name: r{index}") for index in range(40))
    lab = Lab(text, limit=3)
    async with lab.running():
        await lab.start()
        assert lab.api.most_in_flight == 3


async def test_our_own_write_is_known_before_the_watch_tells_of_it() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.follows = False
        for number in range(1, 4):
            lab.update(WORLD + "".join(route(meta=f"name: z{index}") for index in range(number)))
            await lab.settle()
        assert [ref for ref, _ in lab.api.patches] == [GATEWAY_REF] * 3
        assert ("Gateway", "conflict") not in lab.counts
        # Told late, what others did in the meantime counts.
        lab.api.write(GATEWAY_REF, {})
        lab.api.tell()
        lab.writer.check(GATEWAY_REF)
        await lab.settle()
        assert lab.api.objects[GATEWAY_REF].status["listeners"][0]["attachedRoutes"] == 5


async def test_what_others_did_to_our_status_is_mended() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.write(ROUTE_REF, {"parents": [FOREIGN]})
        lab.writer.check(ROUTE_REF)
        await lab.settle()
        assert [entry["controllerName"] for entry in lab.api.objects[ROUTE_REF].status["parents"]] == [
            "example.com/other",
            CONTROLLER,
        ]


@pytest.mark.parametrize("follows", [True, False])
async def test_what_others_did_is_mended_also_when_it_is_told_before_our_own_write_is_answered(follows: bool) -> None:
    lab = Lab()
    lab.api.follows = follows
    lab.api.overtaken[ROUTE_REF] = {"parents": [FOREIGN]}
    async with lab.running():
        await lab.start()
        lab.writer.check(ROUTE_REF)
        await lab.settle()
        assert [entry["controllerName"] for entry in lab.api.objects[ROUTE_REF].status["parents"]] == [
            "example.com/other",
            CONTROLLER,
        ]


async def test_a_fight_slows_down_but_news_do_not_wait() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        for _ in range(5):
            lab.api.write(ROUTE_REF, {})
            lab.writer.check(ROUTE_REF)
            await lab.settle()
        assert [ref for ref, _ in lab.api.patches] == [ROUTE_REF]
        lab.update(WORLD.replace("name: r}", "name: r, generation: 1}"))
        await lab.settle()
        assert [ref for ref, _ in lab.api.patches] == [ROUTE_REF] * 2
        assert lab.accepted(ROUTE_REF)["observedGeneration"] == 1


async def test_a_route_that_turns_to_others_loses_our_entry() -> None:
    lab = Lab()
    async with lab.running():
        await lab.start()
        lab.api.write(ROUTE_REF, {"parents": [*lab.api.objects[ROUTE_REF].status["parents"], FOREIGN]})
        gone = WORLD.replace(route(meta="name: r"), route("[]", meta="name: r"))
        lab.update(gone)
        await lab.settle()
        assert lab.api.objects[ROUTE_REF].status["parents"] == [FOREIGN]


async def test_entries_that_an_earlier_leader_left_behind_go() -> None:
    text = WORLD + route("[]", meta="name: old, generation: 3")
    old = Ref("HTTPRoute", "default", "old")
    lab = Lab(text)
    async with lab.running():
        await lab.start()
        entries = lab.api.objects[ROUTE_REF].status["parents"]
        lab.api.put(old, generation=4, status={"parents": entries})
        lab.writer.check(old)
        await lab.settle()
        # Perhaps generation 4 is ours, and the graph does not know yet.
        assert lab.api.patches == []
        lab.update(text.replace("generation: 3", "generation: 4"))
        await lab.settle()
        assert lab.api.patches == [(old, {"parents": []})]


async def test_an_entry_of_an_object_that_the_graph_does_not_know_stays() -> None:
    lab = Lab()
    unknown = Ref("HTTPRoute", "default", "unknown")
    async with lab.running():
        await lab.start()
        lab.api.put(unknown, status={"parents": lab.api.objects[ROUTE_REF].status["parents"]})
        lab.writer.check(unknown)
        await lab.settle()
        assert lab.api.patches == []


async def test_nothing_is_written_before_there_are_statuses() -> None:
    lab = Lab()
    async with lab.running():
        lab.writer.check(ROUTE_REF)
        lab.writer.check_all()
        await lab.settle()
        assert lab.api.patches == []


def test_backoff_grows_to_a_minute() -> None:
    assert [0.4 <= backoff(1) <= 0.6, 0.8 <= backoff(2) <= 1.2, 48 <= backoff(50) <= 72] == [True] * 3


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("routes"), st.sets(st.integers(0, 3), max_size=4)),
        st.tuples(st.just("generation"), st.integers(0, 3)),
        st.tuples(st.just("foreign"), st.integers(0, 3)),
        st.tuples(st.just("wipe"), st.integers(0, 3)),
        st.tuples(st.just("error"), st.integers(0, 3)),
        st.tuples(st.just("leads"), st.booleans()),
        st.tuples(st.just("tell"), st.just(0)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("yield"), st.integers(1, 5)),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_happens_all_is_told_in_the_end(steps: list[tuple[str, Any]]) -> None:
    asyncio.run(_follow(steps))


async def _follow(steps: list[tuple[str, Any]]) -> None:
    generations = dict.fromkeys(range(4), 1)
    ours: set[int] = {0, 1}
    refs = {number: Ref("HTTPRoute", "default", f"r{number}") for number in range(4)}

    def text() -> str:
        parents = {number: "[{name: gw}]" if number in ours else "[]" for number in range(4)}
        return GATEWAY + "".join(
            route(parents[number], meta=f"name: r{number}, generation: {generations[number]}") for number in range(4)
        )

    lab = Lab(text(), wait=lambda attempt: 0.0)
    lab.api.follows = False
    foreign: dict[int, int] = dict.fromkeys(range(4), 0)
    async with lab.running():
        for step, value in steps:
            match step:
                case "routes":
                    ours = set(value)
                    lab.update(text())
                case "generation":
                    generations[value] += 1
                    lab.api.put(
                        refs[value], generation=generations[value], status=dict(lab.api.objects[refs[value]].status)
                    )
                    lab.update(text())
                case "foreign":
                    foreign[value] += 1
                    parents = lab.api.objects[refs[value]].status.get("parents", [])
                    entry = {**FOREIGN, "parentRef": {"name": f"x{foreign[value]}"}}
                    lab.api.write(refs[value], {"parents": [*parents, entry]})
                case "wipe":
                    foreign[value] = 0
                    lab.api.write(refs[value], {})
                case "error":
                    lab.api.errors.setdefault(refs[value], []).append(ApiError(500))
                case "leads":
                    lab.leads = value
                    lab.writer.check_all()
                case "tell":
                    lab.api.tell()
                case "settle":
                    await lab.settle()
                case "yield":
                    for _ in range(value):
                        await asyncio.sleep(0)
        lab.leads = True
        lab.api.errors.clear()
        lab.api.tell()
        lab.update(text())
        for _ in range(2):
            lab.writer.check_all()
            await lab.settle()
            lab.api.tell()
        for number, ref in refs.items():
            status = lab.api.objects[ref].status
            assert has_own_entries(status, CONTROLLER) == (number in ours)
            others = [entry for entry in status.get("parents", []) if entry["controllerName"] != CONTROLLER]
            assert len(others) == foreign[number]
            if number in ours:
                assert lab.accepted(ref)["observedGeneration"] == generations[number]
        gateway = lab.api.objects[GATEWAY_REF].status
        assert gateway["listeners"][0]["attachedRoutes"] == len(ours)
