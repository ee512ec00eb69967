"""What to write: the desired status of an object and its live status as JSON in, its new status out.

What others wrote stays as it is and where it is: conditions of types that are not ours, entries of other controllers,
fields that we do not know. The surprising fact: what a condition says is left alone when it is about a newer generation
of the object than ours, since then it is we who are late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gwctl.api.backendtlspolicy import ANCESTORS_LIMIT
from gwctl.api.wire import GATEWAY_GROUP
from gwctl.status.condition import TYPES, Condition
from gwctl.status.status import ListenerStatus, ParentStatus, Status

JSON = Mapping[str, Any]

CONDITIONS_LIMIT = 8
ENTRIES: Mapping[str, tuple[str, int]] = {
    "parents": ("parentRef", 32),
    "ancestors": ("ancestorRef", ANCESTORS_LIMIT),
}
"""The lists that controllers share: what names an entry, and how many the CRDs allow."""

_REF_FIELDS = ("group", "kind", "namespace", "name", "sectionName", "port")


@dataclass(frozen=True, slots=True)
class _Merge:
    """What holds for all parts of one object's status."""

    generation: int
    namespace: str
    controller_name: str
    now: str


def merge_status(
    desired: Status, live: JSON | None, *, namespace: str, controller_name: str, now: str
) -> dict[str, Any] | None:
    """Give the whole new status of an object, None when nothing would change.

    ``namespace`` is the object's own, which a parentRef without one means. ``now`` is an RFC 3339 time in seconds.
    """
    live = live if isinstance(live, Mapping) else {}
    merge = _Merge(desired.generation, namespace, controller_name, now)
    new = dict(live)
    for field, attribute, combine in _FIELDS:
        value = getattr(desired, attribute)
        if value is not None:
            old = live.get(field)
            combined = combine(merge, value, old if isinstance(old, list) else [])
            if combined or field in live or field in ENTRIES:
                new[field] = combined
    # None is not written as 0, because CRDs before v1.5 have no such field and would drop it again and again.
    if desired.attached_listener_sets or (desired.attached_listener_sets == 0 and "attachedListenerSets" in live):
        new["attachedListenerSets"] = desired.attached_listener_sets
    return None if _is_same(new, live) else new


def _is_same(new: JSON, live: JSON) -> bool:
    """Whether two statuses say the same. A list that is empty says as much as one that is not there."""
    return all(live.get(field) == value or (value == [] and not live.get(field)) for field, value in new.items())


def has_own_entries(live: JSON | None, controller_name: str) -> bool:
    """Tell whether a status has entries of our controller, wanted or not."""
    return any(_is_own(entry, controller_name) for field in ENTRIES for entry in _mappings((live or {}).get(field)))


def release(live: JSON, uid: str, generation: int) -> Status:
    """Give the desired status of an object that is none of ours: no entry, in each list of entries that it has."""
    fields: dict[str, Any] = {field: () for field in ENTRIES if field in live}
    return Status(uid, generation, **fields)


def _merge_conditions(merge: _Merge, desired: Iterable[Condition], live: Sequence[Any]) -> list[Any]:
    wanted = {condition.type: condition for condition in desired}
    found: list[Any] = []
    for entry in live:
        kind = str(entry.get("type")) if isinstance(entry, Mapping) else ""
        condition = wanted.pop(kind, None)
        if condition is not None:
            found.append(_merge_condition(merge, condition, entry))
        elif kind not in TYPES or _is_newer(merge, entry):
            found.append(entry)
    return _add(found, (_merge_condition(merge, condition, {}) for condition in wanted.values()), CONDITIONS_LIMIT)


def _merge_condition(merge: _Merge, condition: Condition, live: JSON) -> JSON:
    if _is_newer(merge, live):
        return live
    time = live.get("lastTransitionTime")
    return {
        "type": condition.type,
        "status": condition.status,
        "observedGeneration": merge.generation if condition.generation is None else condition.generation,
        "lastTransitionTime": time if time and live.get("status") == condition.status else merge.now,
        "reason": condition.reason,
        "message": condition.message,
    }


def _is_newer(merge: _Merge, condition: JSON) -> bool:
    """Whether a condition is about a newer generation of the object than the one that we know."""
    generation = condition.get("observedGeneration")
    return isinstance(generation, int) and generation > merge.generation


def _merge_listeners(merge: _Merge, desired: Sequence[ListenerStatus], live: Sequence[Any]) -> list[Any]:
    wanted = {listener.name: listener for listener in desired}
    found: list[Any] = []
    for entry in _mappings(live):
        listener = wanted.pop(str(entry.get("name")), None)
        if listener is not None:
            found.append(_merge_listener(merge, listener, entry))
    return [*found, *(_merge_listener(merge, listener, {}) for listener in wanted.values())]


def _merge_listener(merge: _Merge, listener: ListenerStatus, live: JSON) -> JSON:
    kinds = [{"group": GATEWAY_GROUP, "kind": kind} for kind in listener.supported_kinds]
    return {
        **live,
        "name": listener.name,
        "supportedKinds": _keep_order(kinds, live.get("supportedKinds")),
        "attachedRoutes": listener.attached_routes,
        "conditions": _merge_conditions(merge, listener.conditions, _list(live.get("conditions"))),
    }


def _merge_addresses(_: _Merge, desired: Sequence[tuple[str, str]], live: Sequence[Any]) -> list[Any]:
    return _keep_order([{"type": kind, "value": value} for kind, value in desired], live)


def _merge_features(_: _Merge, desired: Sequence[str], _live: Sequence[Any]) -> list[Any]:
    return [{"name": name} for name in desired]


def _merge_entries(field: str) -> Callable[[_Merge, Sequence[ParentStatus], Sequence[Any]], list[Any]]:
    name, limit = ENTRIES[field]

    def merge_entries(merge: _Merge, desired: Sequence[ParentStatus], live: Sequence[Any]) -> list[Any]:
        wanted: dict[tuple[str, ...], ParentStatus] = {}
        for parent in desired:
            wanted.setdefault(ref_key(_ref_json(parent), merge.namespace), parent)
        # Which of ours there is place for must not depend on which came first.
        others = sum(not isinstance(entry, Mapping) or not _is_own(entry, merge.controller_name) for entry in live)
        wanted = dict(islice(wanted.items(), max(0, limit - others)))
        found: list[Any] = []
        for entry in live:
            if not isinstance(entry, Mapping) or not _is_own(entry, merge.controller_name):
                found.append(entry)
                continue
            match = wanted.pop(ref_key(entry.get(name), merge.namespace), None)
            if match is not None:
                found.append(make(merge, match, entry))
            elif any(_is_newer(merge, condition) for condition in _mappings(entry.get("conditions"))):
                found.append(entry)
        return _add(found, (make(merge, parent, {}) for parent in wanted.values()), limit)

    def make(merge: _Merge, parent: ParentStatus, live: JSON) -> JSON:
        return {
            **live,
            name: _ref_json(parent),
            "controllerName": merge.controller_name,
            "conditions": _merge_conditions(merge, parent.conditions, _list(live.get("conditions"))),
        }

    return merge_entries


def _is_own(entry: JSON, controller_name: str) -> bool:
    return entry.get("controllerName") == controller_name


def _ref_json(parent: ParentStatus) -> dict[str, Any]:
    return parent.ref.model_dump(mode="json", by_alias=True, exclude_none=True)


def ref_key(ref: Any, namespace: str) -> tuple[str, ...]:
    """Give what a parentRef of an object in a namespace means, however it is spelled."""
    given = ref if isinstance(ref, Mapping) else {}
    defaults = {"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": namespace}
    return tuple(str(given.get(field, defaults.get(field, ""))) for field in _REF_FIELDS)


def _add(kept: list[Any], new: Iterable[Any], limit: int) -> list[Any]:
    """What is kept, and as much of what is new as may be there: what others have is never given up for ours."""
    return [*kept, *islice(new, max(0, limit - len(kept)))]


def _keep_order(new: list[Any], live: Any) -> list[Any]:
    """The live list when it has the same items in whatever order, so that order alone changes nothing."""
    if isinstance(live, list) and len(live) == len(new) and all(item in live for item in new):
        return live
    return new


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mappings(value: Any) -> Iterator[JSON]:
    return (item for item in _list(value) if isinstance(item, Mapping))


_FIELDS: tuple[tuple[str, str, Callable[[_Merge, Any, list[Any]], list[Any]]], ...] = (
    ("conditions", "conditions", _merge_conditions),
    ("addresses", "addresses", _merge_addresses),
    ("listeners", "listeners", _merge_listeners),
    ("supportedFeatures", "supported_features", _merge_features),
    ("parents", "parents", _merge_entries("parents")),
    ("ancestors", "ancestors", _merge_entries("ancestors")),
)
