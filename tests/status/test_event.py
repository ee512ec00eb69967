"""Events: which are told, how they are named, and that sending them never holds anything up."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.node import Graph, ListenerKey
from gwctl.status.build import build_statuses
from gwctl.status.event import Event, build_events, to_manifest
from gwctl.status.outcome import GatewayAddresses, Outcome
from gwctl.status.recorder import EventRecorder
from tests.graph.manifests import CLASS, GATEWAY, graph_of
from tests.status.api import ApiError
from tests.status.resources import CLASS_REF, GATEWAY_REF, ROUTE_REF, gateway, served
from tests.status.test_route import THEIRS, route, rule

BROKEN = route(more=rule("{backendRefs: [{name: gone, port: 80}]}"), meta="name: r, uid: u")
NOTE = "spec.rules[0].backendRefs[0].name: there is no Service default/gone"
BACKEND = Event(ROUTE_REF, "u", "Warning", "BackendNotFound", NOTE, "spec.rules[0].backendRefs[0].name")


def events(before: Outcome | None, after: Outcome) -> list[Event]:
    first = build_statuses(before) if before is not None else None
    return list(build_events(first, build_statuses(after, first)))


def told(before: Graph | None, after: Graph) -> list[Event]:
    return events(served(before) if before is not None else None, served(after))


def test_a_problem_is_told_when_it_appears() -> None:
    good, bad = graph_of(GATEWAY + route()), graph_of(GATEWAY + BROKEN)
    assert told(good, bad) == [BACKEND]
    assert told(bad, bad) == []
    assert told(bad, good) == []


def test_all_problems_are_told_at_the_start() -> None:
    assert told(None, graph_of(GATEWAY + BROKEN)) == [BACKEND]


def test_a_problem_that_stays_is_not_told_again_beside_a_new_one() -> None:
    more = BROKEN.replace("{name: gone, port: 80}", "{name: gone, port: 80}, {name: more, port: 80}")
    assert [event.note.split(":")[0] for event in told(graph_of(GATEWAY + BROKEN), graph_of(GATEWAY + more))] == [
        "spec.rules[0].backendRefs[1].name"
    ]


def test_what_parents_of_others_make_of_a_route_is_not_told() -> None:
    text = route("[{name: missing}, {name: theirs}]", rule("{backendRefs: [{name: gone, port: 80}]}"))
    assert told(None, graph_of(GATEWAY + THEIRS + text)) == []
    beside = route("[{name: missing}, {name: gw, sectionName: none}]")
    assert [event.field for event in told(None, graph_of(GATEWAY + beside))] == ["spec.parentRefs[1]"]


def test_problems_of_gateways_and_classes() -> None:
    text = gateway("[{name: udp, port: 53, protocol: UDP}]").replace(
        CLASS, CLASS.replace("}}", ", parametersRef: {group: g.io, kind: K, name: n}}}")
    )
    found = {(event.subject, event.reason) for event in told(None, graph_of(text))}
    assert found == {
        (CLASS_REF, "InvalidParameters"),
        (GATEWAY_REF, "InvalidParameters"),
        (GATEWAY_REF, "UnsupportedProtocol"),
    }


def test_what_haproxy_and_the_cluster_did_not_take() -> None:
    outcome = served(graph_of(GATEWAY))
    refused = replace(outcome, refused={ListenerKey("default", "gw", "http"): "cannot bind"})
    assert [(event.reason, event.note) for event in events(outcome, refused)] == [
        ("Invalid", "spec.listeners: cannot bind")
    ]
    unusable = replace(outcome, addresses={GATEWAY_REF: GatewayAddresses((), "AddressNotUsable", "1.2.3.4 is taken")})
    assert [(event.reason, event.note) for event in events(outcome, unusable)] == [
        ("AddressNotUsable", "spec.addresses: 1.2.3.4 is taken")
    ]
    assert events(outcome, replace(outcome, addresses={})) == []


def test_a_gateway_that_becomes_programmed() -> None:
    graph = graph_of(gateway("[{name: http, port: 80, protocol: HTTP}]", meta=", generation: 4"))
    outcome = served(graph)
    note = "HAProxy serves generation 4 of the Gateway"
    assert events(replace(outcome, applied=None), outcome) == [Event(GATEWAY_REF, "", "Normal", "Programmed", note)]
    assert events(None, outcome) == []
    assert events(outcome, replace(outcome, applied=None)) == []


def test_an_object_that_is_gone_is_silent() -> None:
    assert told(graph_of(GATEWAY + BROKEN), graph_of(GATEWAY)) == []


def test_names_are_the_same_wherever_they_are_made_and_differ_by_what_is_said() -> None:
    assert BACKEND.name == replace(BACKEND, field="").name
    assert re.fullmatch(r"r\.[0-9a-f]{16}", BACKEND.name)
    others = [
        replace(BACKEND, uid="v"),
        replace(BACKEND, note="other"),
        replace(BACKEND, reason="Other"),
        replace(BACKEND, type="Normal"),
        replace(BACKEND, subject=Ref("TCPRoute", "default", "r")),
    ]
    assert len({BACKEND.name, *(event.name for event in others)}) == len(others) + 1


def test_long_names_and_notes_fit() -> None:
    event = replace(BACKEND, subject=Ref("HTTPRoute", "default", "a" * 235 + "." + "b" * 17))
    assert len(event.name) <= 253
    assert ".." not in event.name
    listeners = "[{name: http, port: 80, protocol: HTTP}]"
    outcome = served(graph_of(gateway(listeners)), refused={ListenerKey("default", "gw", "http"): "é" * 2000})
    (found,) = events(None, outcome)
    assert len(found.note.encode()) <= 1024
    assert found.note.endswith("éé…")


def test_the_manifest() -> None:
    assert to_manifest(BACKEND, "2026-01-02T03:04:05.000678Z", "pod-1") == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": BACKEND.name, "namespace": "default"},
        "eventTime": "2026-01-02T03:04:05.000678Z",
        "reportingController": "gwctl",
        "reportingInstance": "pod-1",
        "action": "Reconcile",
        "type": "Warning",
        "reason": "BackendNotFound",
        "note": NOTE,
        "regarding": {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "namespace": "default",
            "name": "r",
            "uid": "u",
            "fieldPath": "spec.rules[0].backendRefs[0].name",
        },
    }


def test_events_of_cluster_scoped_objects_live_in_default() -> None:
    manifest = to_manifest(Event(CLASS_REF, "", "Warning", "InvalidParameters", "no"), "", "")
    assert manifest["metadata"]["namespace"] == "default"
    assert manifest["regarding"] == {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "name": "gwctl",
    }


class MemoryEvents:
    """Takes Events; ``errors`` are what the next ones are answered with."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.names: list[str] = []

    async def create_event(self, namespace: str, manifest: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        assert manifest["metadata"]["namespace"] == namespace
        assert manifest["eventTime"] == "2026-01-02T03:04:05.000678Z"
        self.names.append(manifest["metadata"]["name"])


class Recording:
    """A recorder and what it counts."""

    def __init__(self, *errors: Exception | None, limit: int = 256) -> None:
        self.api = MemoryEvents(*errors)
        self.leads = True
        self.counts: Counter[str] = Counter()
        self.recorder = EventRecorder(
            self.api,
            "pod-1",
            is_leader=lambda: self.leads,
            clock=lambda: datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
            count=lambda result: self.counts.update([result]),
            limit=limit,
        )

    async def send(self) -> None:
        task = asyncio.create_task(self.recorder.run())
        async with asyncio.timeout(30):
            await self.recorder.settle()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


MANY = [replace(BACKEND, note=f"note {number}") for number in range(5)]


async def test_events_are_sent_in_order() -> None:
    recording = Recording()
    recording.recorder.record(MANY)
    await recording.send()
    assert recording.api.names == [event.name for event in MANY]
    assert recording.counts == {"sent": 5}


@pytest.mark.parametrize(
    ("error", "result"), [(ApiError(409), "known"), (ApiError(403), "failed"), (OSError(), "failed")]
)
async def test_an_event_that_cannot_be_sent_holds_up_no_other(error: Exception, result: str) -> None:
    recording = Recording(None, error, error)
    recording.recorder.record(MANY)
    await recording.send()
    assert recording.api.names == [MANY[index].name for index in (0, 3, 4)]
    assert recording.counts == {"sent": 3, result: 2}


async def test_what_there_is_no_room_for_is_dropped() -> None:
    recording = Recording(limit=2)
    recording.recorder.record(MANY)
    assert recording.counts == {"dropped": 3}
    await recording.send()
    assert recording.api.names == [event.name for event in MANY[:2]]


async def test_only_the_leader_sends() -> None:
    recording = Recording()
    recording.leads = False
    recording.recorder.record(MANY)
    recording.leads = True
    recording.recorder.record(MANY[:1])
    recording.leads = False
    await recording.send()
    assert recording.api.names == []
