"""Kubernetes Events: what a user must fix, and that a Gateway or a ListenerSet is programmed, as it happens.

In: statuses before and after. Out: Events to send. The surprising fact: an Event's name is a hash of what it says, so
that whoever says the same again, another replica or a gwctl that starts anew, finds it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP
from gwctl.graph.node import GatewayNode, Problem
from gwctl.graph.problem import listener_not_programmed
from gwctl.status.condition import Condition
from gwctl.status.outcome import Outcome
from gwctl.status.route import is_ours
from gwctl.status.status import Status, Statuses

NOTE_LIMIT = 1024
"""Longest note in bytes (events.k8s.io/v1)."""

_NAME_LIMIT = 253
_DIGEST = 16
_REPORTER = "gwctl"
_TOLD_OF_ADDRESSES = frozenset({"AddressNotUsable"})
"""What a user must fix; the others pass by themselves, as a rule."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something to tell about an object. ``field`` is the path inside it, empty when it is about the whole."""

    subject: Ref
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    note: str
    field: str = ""

    @property
    def name(self) -> str:
        """The Event's own name: the object's, and a hash of what it says."""
        said = "\0".join((*self.subject, self.uid, self.type, self.reason, self.note))
        digest = hashlib.sha256(said.encode()).hexdigest()[:_DIGEST]
        return f"{self.subject.name[: _NAME_LIMIT - _DIGEST - 1].rstrip('.-')}.{digest}"

    @property
    def namespace(self) -> str:
        """Where the Event lives: with its object, and those of cluster-scoped objects in ``default``."""
        return self.subject.namespace or "default"


def build_events(before: Statuses | None, after: Statuses) -> tuple[Event, ...]:
    """Give what became known with statuses that were built upon others; all problems when there are no others."""
    found: list[Event] = []
    for ref in sorted(after.changed if before is not None else after.by_ref):
        status = after.by_ref.get(ref)
        if status is None:
            continue
        known = set(find_problems(before.outcome, ref)) if before is not None else set()
        for problem in find_problems(after.outcome, ref):
            if problem not in known:
                note = _cut(f"{problem.field}: {problem.message}")
                found.append(Event(ref, status.uid, "Warning", problem.reason, note, problem.field))
        programmed = _find_programmed(status)
        if before is not None and programmed is not None and _find_programmed(before.by_ref.get(ref)) is None:
            generation = status.generation if programmed.generation is None else programmed.generation
            note = f"HAProxy serves generation {generation} of the {ref.kind}"
            found.append(Event(ref, status.uid, "Normal", "Programmed", note))
    return tuple(dict.fromkeys(found))


def find_problems(outcome: Outcome, ref: Ref) -> tuple[Problem, ...]:
    """Give everything that a user must fix in an object of ours, so far as it concerns us."""
    own = tuple(_PROBLEMS.get(ref.kind, _route_problems)(outcome, ref))
    return (*outcome.stale_problems(ref), *own)


def to_manifest(event: Event, now: str, instance: str) -> Mapping[str, Any]:
    """Give an Event as JSON. ``now`` is an RFC 3339 time in microseconds, ``instance`` names who sends it."""
    regarding = {
        "apiVersion": f"{GATEWAY_GROUP}/v1",
        "kind": event.subject.kind,
        "name": event.subject.name,
        **({"namespace": event.subject.namespace} if event.subject.namespace else {}),
        **({"uid": event.uid} if event.uid else {}),
        **({"fieldPath": event.field} if event.field else {}),
    }
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": event.name, "namespace": event.namespace},
        "eventTime": now,
        "reportingController": _REPORTER,
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "type": event.type,
        "reason": event.reason,
        "note": event.note,
        "regarding": regarding,
    }


def _class_problems(outcome: Outcome, ref: Ref) -> Iterator[Problem]:
    return (problem for problem in outcome.graph.class_problems if problem.subject == ref)


def _gateway_problems(outcome: Outcome, ref: Ref) -> Iterator[Problem]:
    node = outcome.graph.gateways.get(ref)
    if node is None:
        return
    yield from _problems_of(outcome, node, ref)
    yield from outcome.graph.unlisted.get(ref, ())
    addresses = outcome.addresses.get(ref)
    if addresses is not None and addresses.reason in _TOLD_OF_ADDRESSES:
        yield Problem(ref, "spec.addresses", "Programmed", addresses.reason, addresses.message)


def _listener_set_problems(outcome: Outcome, ref: Ref) -> Iterator[Problem]:
    graph = outcome.graph
    node = graph.listener_sets.get(ref) or graph.orphans.get(ref)
    if node is not None:
        yield from node.problems
        if node.gateway in graph.gateways:
            yield from _problems_of(outcome, graph.gateways[node.gateway], ref)


def _problems_of(outcome: Outcome, gateway: GatewayNode, owner: Ref) -> Iterator[Problem]:
    """Yield what of a Gateway's listeners is wrong with those that one object declares, and with that object."""
    yield from (problem for problem in gateway.problems if problem.subject == owner)
    for listener in gateway.listeners if outcome.refused else ():
        if listener.key in outcome.refused and listener.key.owner == owner:
            yield listener_not_programmed(listener.key, outcome.refused[listener.key])


def _route_problems(outcome: Outcome, ref: Ref) -> Iterator[Problem]:
    """The problems of a route with parents of ours; what others' or missing parents make of it is not for us to say."""
    node = outcome.graph.routes.get(ref)
    if node is None:
        return
    ours = {
        index
        for index, parent in enumerate(node.resource.spec.parent_refs)
        if node.problems and is_ours(parent, ref, outcome.graph)
    }
    for problem in node.problems if ours else ():
        if problem.parent is None or problem.parent in ours:
            yield problem


def _policy_problems(outcome: Outcome, ref: Ref) -> Iterator[Problem]:
    node = outcome.graph.policies.get(ref)
    yield from node.problems if node is not None else ()


_PROBLEMS: Mapping[str, Callable[[Outcome, Ref], Iterator[Problem]]] = {
    "GatewayClass": _class_problems,
    "Gateway": _gateway_problems,
    "BackendTLSPolicy": _policy_problems,
    "ListenerSet": _listener_set_problems,
}


def _find_programmed(status: Status | None) -> Condition | None:
    """Give the condition that says that an object is programmed, None where none does."""
    conditions = status.conditions if status is not None else None
    return next((item for item in conditions or () if (item.type, item.status) == ("Programmed", "True")), None)


def _cut(text: str) -> str:
    data = text.encode()
    if len(data) <= NOTE_LIMIT:
        return text
    return f"{data[: NOTE_LIMIT - 3].decode(errors='ignore')}…"
