"""Leader election: one leader at most, and soon another when it goes."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest

from gwctl.kube.client import KubeClient
from gwctl.kube.lease import Election, Terms
from tests.kube.apiserver import ApiServer

LEASES = "/apis/coordination.k8s.io/v1/namespaces/gwctl/leases"


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(client: KubeClient, identity: str, clock: Clock, changes: list[bool] | None = None) -> Election:
    told = changes if changes is not None else []
    return Election(client, "gwctl", "leader", identity, on_change=told.append, clock=clock)


def spec(server: ApiServer) -> dict[str, Any]:
    found: dict[str, Any] = server.object("Lease", "leader", "gwctl")["spec"]
    return found


async def test_the_first_candidate_leads(client: KubeClient, server: ApiServer, clock: Clock) -> None:
    changes: list[bool] = []
    first = candidate(client, "a", clock, changes)
    await first.attempt()
    assert (first.is_leader, first.holder, changes) == (True, "a", [True])
    assert (spec(server)["holderIdentity"], spec(server)["leaseDurationSeconds"]) == ("a", 15)
    assert spec(server)["renewTime"].endswith("Z")


async def test_nobody_else_leads_while_the_leader_renews(client: KubeClient, clock: Clock) -> None:
    changes: list[bool] = []
    first, second = candidate(client, "a", clock, changes), candidate(client, "b", clock)
    for _ in range(60):
        await first.attempt()
        await second.attempt()
        assert (first.is_leader, second.is_leader, second.holder) == (True, False, "a")
        clock.now += 2.0
    assert changes == [True]


async def test_a_leader_that_is_gone_is_followed_when_its_lease_has_not_changed_for_its_duration(
    client: KubeClient, server: ApiServer, clock: Clock
) -> None:
    changes: list[bool] = []
    first, second = candidate(client, "a", clock), candidate(client, "b", clock, changes)
    await first.attempt()
    clock.now += 100.0
    await second.attempt()
    clock.now += 14.9
    await second.attempt()
    assert changes == []
    clock.now += 0.2
    await second.attempt()
    assert (second.is_leader, changes) == (True, [True])
    assert (spec(server)["holderIdentity"], spec(server)["leaseTransitions"]) == ("b", 1)


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
async def test_clocks_of_other_machines_mean_nothing(
    client: KubeClient, server: ApiServer, clock: Clock, renewed: str
) -> None:
    lease = {"holderIdentity": "other", "leaseDurationSeconds": 30, "renewTime": renewed}
    server.put({"kind": "Lease", "metadata": {"name": "leader", "namespace": "gwctl"}, "spec": lease})
    second = candidate(client, "b", clock)
    for seconds in (0.0, 29.0):
        clock.now += seconds
        await second.attempt()
        assert not second.is_leader
    clock.now += 1.5
    await second.attempt()
    assert second.is_leader


async def test_a_lease_that_was_given_back_is_taken_at_once(
    client: KubeClient, server: ApiServer, clock: Clock
) -> None:
    changes: list[bool] = []
    first, second = candidate(client, "a", clock, changes), candidate(client, "b", clock)
    await first.attempt()
    await second.attempt()
    await first.release()
    assert changes == [True, False]
    assert "holderIdentity" not in spec(server)
    await second.attempt()
    assert second.is_leader


async def test_a_leader_that_was_followed_gives_nothing_back(
    client: KubeClient, server: ApiServer, clock: Clock
) -> None:
    first, second = candidate(client, "a", clock), candidate(client, "b", clock)
    await first.attempt()
    await second.attempt()
    clock.now += 16.0
    await second.attempt()
    await first.release()
    assert spec(server)["holderIdentity"] == "b"


async def test_a_leader_without_an_api_server_leads_until_the_deadline_and_again_later(
    client: KubeClient, server: ApiServer, clock: Clock
) -> None:
    changes: list[bool] = []
    first = candidate(client, "a", clock, changes)
    await first.attempt()
    await server.stop()
    clock.now += 9.9
    await first.attempt()
    assert (first.is_leader, changes) == (True, [True])
    clock.now += 0.2
    assert not first.is_leader
    await first.attempt()
    assert changes == [True, False]
    await server.start()
    await first.attempt()
    assert (first.is_leader, changes) == (True, [True, False, True])


async def test_a_leader_that_did_not_run_for_long_does_not_lead(client: KubeClient, clock: Clock) -> None:
    first = candidate(client, "a", clock)
    await first.attempt()
    clock.now += 10.0
    assert not first.is_leader


async def test_a_leader_stops_when_another_holds_the_lease(client: KubeClient, server: ApiServer, clock: Clock) -> None:
    changes: list[bool] = []
    first = candidate(client, "a", clock, changes)
    await first.attempt()
    lease = {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    server.put({"kind": "Lease", "metadata": {"name": "leader", "namespace": "gwctl"}, "spec": lease})
    await first.attempt()
    assert (first.is_leader, first.holder, changes) == (False, "other", [True, False])


async def test_a_conflict_is_no_defeat(client: KubeClient, server: ApiServer, clock: Clock) -> None:
    first = candidate(client, "a", clock)
    await first.attempt()
    server.fail("PATCH", "leases", 409)
    clock.now += 2.0
    await first.attempt()
    assert first.is_leader
    clock.now += 7.0
    await first.attempt()
    clock.now += 9.0
    assert first.is_leader


async def test_of_two_that_create_the_lease_one_wins(client: KubeClient, server: ApiServer, clock: Clock) -> None:
    candidates = [candidate(client, identity, clock) for identity in "abc"]
    await asyncio.gather(*(each.attempt() for each in candidates))
    assert [each.is_leader for each in candidates].count(True) == 1
    assert server.count("POST", LEASES) >= 1


async def test_the_deadline_counts_from_the_start_of_a_renewal(
    client: KubeClient, server: ApiServer, clock: Clock
) -> None:
    first = candidate(client, "a", clock)
    await first.attempt()
    renewal = asyncio.ensure_future(first.attempt())
    await server.until(lambda: server.count("PATCH", LEASES) == 1)
    clock.now += 6.0
    await renewal
    clock.now += 4.5
    assert not first.is_leader


async def test_a_renewal_is_given_only_the_time_that_is_left(
    client: KubeClient, server: ApiServer, clock: Clock
) -> None:
    first = candidate(client, "a", clock)
    await first.attempt()
    server.hang("GET", LEASES)
    clock.now += 9.9
    async with asyncio.timeout(5):
        await first.attempt()
    assert first.is_leader


async def test_a_call_that_hangs_ends_at_the_deadline(client: KubeClient, server: ApiServer) -> None:
    changes: list[bool] = []
    first = Election(
        client, "gwctl", "leader", "a", terms=Terms(renew_deadline=0.2, retry=0.01), on_change=changes.append
    )
    await first.attempt()
    server.hang("GET", "leases")
    await first.attempt()
    assert (first.is_leader, changes) == (False, [True, False])


async def test_running_replicas_hand_over(client: KubeClient, server: ApiServer) -> None:
    terms = Terms(retry=0.01)
    leads = {identity: asyncio.Event() for identity in "ab"}

    def note(identity: str) -> Election:
        def tell(leader: bool) -> None:
            if leader:
                leads[identity].set()

        return Election(client, "gwctl", "leader", identity, terms=terms, on_change=tell)

    elections = {identity: note(identity) for identity in "ab"}
    tasks = {"a": asyncio.ensure_future(elections["a"].run())}
    async with asyncio.timeout(10):
        await leads["a"].wait()
        tasks["b"] = asyncio.ensure_future(elections["b"].run())
        await server.until(lambda: server.count("GET", LEASES) > 4)
        assert not leads["b"].is_set()
        tasks["a"].cancel()
        with suppress(asyncio.CancelledError):
            await tasks["a"]
        await leads["b"].wait()
    assert (elections["a"].is_leader, elections["b"].is_leader) == (False, True)
    tasks["b"].cancel()
    with suppress(asyncio.CancelledError):
        await tasks["b"]
    assert "holderIdentity" not in spec(server)


async def test_one_that_is_stopped_while_it_acquires_leaves_nothing_behind(
    client: KubeClient, server: ApiServer, clock: Clock
) -> None:
    first, ghost = candidate(client, "a", clock), candidate(client, "a", clock)
    await ghost.attempt()
    server.fail("PATCH", "leases", 409)
    await first.release()
    assert "holderIdentity" not in spec(server)


async def test_a_missing_right_is_told_once(
    client: KubeClient, server: ApiServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    server.fail("GET", "leases", 403, times=5)
    first = candidate(client, "a", clock)
    for _ in range(6):
        await first.attempt()
    assert first.is_leader
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "not allowed by the Kubernetes API"),
        ("INFO", "the Kubernetes API works again"),
        ("INFO", "leading"),
    ]


async def test_a_lease_that_cannot_be_given_back_ends_by_itself(
    client: KubeClient, server: ApiServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first = candidate(client, "a", clock)
    await first.attempt()
    server.fail("PATCH", "leases", 500)
    await first.release()
    assert not first.is_leader
    assert "the lease could not be given back" in caplog.text
