"""Events: one for each thing said, counted when it is said again."""

import pytest

from gwctl.kube.client import KubeClient
from gwctl.kube.error import Conflict
from gwctl.kube.event import record_event
from tests.kube.apiserver import ApiServer, Json

ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "namespace": "shop",
    "name": "cart",
    "uid": "1-2-3",
}


async def record(client: KubeClient, note: str = "no such Service", regarding: dict[str, str] = ROUTE) -> None:
    await record_event(
        client, regarding, "Warning", "BackendNotFound", note,
        action="Resolve", controller="gwctl.io/gateway-controller", instance="pod-1",
    )  # fmt: skip


def events(server: ApiServer) -> list[Json]:
    return [found for (_, _), found in sorted(server.objects("Event").items())]


async def test_an_event_says_what_happened_to_what(client: KubeClient, server: ApiServer) -> None:
    await record(client)
    (event,) = events(server)
    assert event["metadata"]["namespace"] == "shop"
    assert event["metadata"]["name"].startswith("cart.")
    assert event["regarding"] == ROUTE
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "BackendNotFound", "no such Service")
    assert "series" not in event


async def test_the_same_again_is_counted(client: KubeClient, server: ApiServer) -> None:
    for _ in range(3):
        await record(client)
    await record(client, "another")
    assert sorted(event.get("series", {}).get("count", 1) for event in events(server)) == [1, 3]


async def test_an_object_without_a_namespace_and_with_a_long_name(client: KubeClient, server: ApiServer) -> None:
    name = ("x" * 219) + "." + ("y" * 33)
    await record(client, "n" * 5000, {"apiVersion": "v1", "kind": "GatewayClass", "name": name, "uid": "1"})
    (event,) = events(server)
    assert event["metadata"]["namespace"] == "default"
    assert len(event["metadata"]["name"]) < 253
    assert ".." not in event["metadata"]["name"]
    assert len(event["note"]) == 1024


@pytest.mark.parametrize("status", [404, 409])
async def test_another_replica_was_faster(client: KubeClient, server: ApiServer, status: int) -> None:
    await record(client)
    server.fail("PATCH", "events", status, times=2)
    await record(client)
    assert [event["series"]["count"] for event in events(server)] == [2]


async def test_it_does_not_try_for_ever(client: KubeClient, server: ApiServer) -> None:
    await record(client)
    server.fail("PATCH", "events", 409, times=10)
    with pytest.raises(Conflict):
        await record(client)
