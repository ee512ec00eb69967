"""What ``gwctl status`` prints: objects of one controller in tables, and all that is wrong with them.

In: objects with their status, wherever they come from. Out: lines or JSON. The surprising fact: nothing is judged here;
a problem is what a status says, or that it says nothing yet or is about an earlier generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gwctl.api.parse import Invalid
from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP
from gwctl.cli.failure import Failure
from gwctl.cli.manifests import one_line
from gwctl.graph.attach import PARENTS
from gwctl.runtime.config import Config
from gwctl.status.condition import NOTE, TYPES
from gwctl.status.merge import ref_key

Json = Mapping[str, Any]

# True is what is wrong with these.
_WARNINGS = frozenset({"Conflicted", "InsecureFrontendValidationMode", "PartiallyInvalid"})
# True is worth knowing, and nothing is wrong.
_NOTICES = frozenset({"OverlappingTLSConfig"})
_WORDS = {"True": "yes", "False": "no", "Unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class Item:
    """An object with its status, as far as it is printed."""

    kind: str
    namespace: str
    name: str
    generation: int
    spec: Json
    status: Json

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"

    @property
    def path(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Trouble(NamedTuple):
    """Something that is not as it should be. ``condition`` is empty where no condition says it."""

    object: str
    part: str
    condition: str
    reason: str
    message: str

    def __str__(self) -> str:
        part = f" {self.part}" if self.part else ""
        kind = f"{self.condition}/{self.reason}" if self.condition else self.reason
        return one_line(": ".join(text for text in (f"{self.object}{part}", kind, self.message) if text))


class Parent(NamedTuple):
    """A parentRef of a route. ``conditions`` is None while gwctl has told nothing about it."""

    ref: Json
    name: str
    conditions: Sequence[Json] | None
    exists: bool = True

    @property
    def kind(self) -> str:
        """Gateway or ListenerSet."""
        return str(self.ref.get("kind", "Gateway"))


class Overview:
    """What is printed: the objects of our controller that are asked for."""

    def __init__(
        self,
        items: Iterable[Item],
        invalid: Iterable[Invalid],
        config: Config,
        wanted: Sequence[tuple[str, str]],
        namespace: str | None,
    ) -> None:
        self._controller_name = controller_name = config.gateway_controller_name
        self._namespaces = config.namespaces
        self._wanted = wanted
        self._namespace = namespace
        ordered = sorted(items, key=lambda item: (item.kind, item.namespace, item.name))
        classes = [
            item
            for item in ordered
            if item.kind == "GatewayClass" and item.spec.get("controllerName") == controller_name
        ]
        names = {item.name for item in classes}
        gateways = [item for item in ordered if item.kind == "Gateway"]
        ours = [item for item in gateways if item.spec.get("gatewayClassName") in names]
        sets = [item for item in ordered if item.kind == "ListenerSet"]
        self._own = {("Gateway", item.namespace, item.name) for item in ours}
        self._existing = {(item.kind, item.namespace, item.name) for item in (*gateways, *sets)}
        self.orphans = [item for item in sets if self._is_missing(_gateway_of(item)) and self._is_asked_for(item)]
        sets = [item for item in sets if _gateway_of(item) in self._own]
        self._own |= {("ListenerSet", item.namespace, item.name) for item in sets}
        routes = [(item, self._parents(item)) for item in ordered if item.kind.endswith("Route")]
        self.classes = [item for item in classes if self._is_asked_for(item)]
        self.gateways = [item for item in ours if self._is_asked_for(item)]
        self.sets = [item for item in sets if self._is_asked_for(item)]
        self.routes = [(item, parents) for item, parents in routes if parents and self._is_asked_for(item)]
        policies = (item for item in ordered if item.kind == "BackendTLSPolicy" and self._is_asked_for(item))
        self.policies = [(item, told) for item in policies if (told := list(self._ancestors(item)))]
        self.troubles = sorted({*self._unreadable(invalid), *self._troubles()})

    def check_selectors(self, texts: Sequence[str]) -> None:
        """Raise `Failure` for an object that is named and not there."""
        found = {(item.kind, item.name) for item in self._shown()}
        for text, (kind, name) in zip(texts, self._wanted, strict=True):
            if name and (kind, name) not in found:
                where = f" in namespace {self._namespace}" if self._namespace else ""
                raise Failure(f"{text}: there is no {kind} {name} of {self._controller_name}{where}")

    def lines(self) -> Iterator[str]:
        """Give the text."""
        if self.classes:
            yield from _table(
                ("CLASS", "ACCEPTED"), ((item.name, _word(item.status, "Accepted")) for item in self.classes)
            )
            yield ""
        if self.gateways:
            header = ("GATEWAY", "LISTENER", "PORT", "PROTOCOL", "HOSTNAME", "ROUTES", "PROGRAMMED", "ADDRESSES")
            yield from _table(header, self._listener_rows(self.gateways))
            yield ""
        if self.sets:
            header = ("LISTENERSET", "LISTENER", "PORT", "PROTOCOL", "HOSTNAME", "ROUTES", "PROGRAMMED", "GATEWAY")
            yield from _table(header, self._listener_rows(self.sets))
            yield ""
        if self.routes:
            yield from _table(("ROUTE", "HOSTNAMES", "PARENT", "ACCEPTED", "RESOLVED"), self._route_rows())
            yield ""
        if self.policies:
            yield from _table(("POLICY", "TARGETS", "GATEWAY", "ACCEPTED", "RESOLVED"), self._policy_rows())
            yield ""
        if not self._shown():
            yield f"there is nothing of {self._controller_name}"
        elif not self.troubles:
            yield "no problems"
        if self.troubles:
            yield "PROBLEMS"
            yield from map(str, self.troubles)

    def plain(self) -> dict[str, Any]:
        """Give all as JSON."""
        return {
            "gatewayClasses": [{"name": item.name, "conditions": _conditions(item.status)} for item in self.classes],
            "gateways": [
                {
                    "namespace": item.namespace,
                    "name": item.name,
                    "class": item.spec.get("gatewayClassName"),
                    "addresses": item.status.get("addresses", []),
                    "conditions": _conditions(item.status),
                    "attachedListenerSets": item.status.get("attachedListenerSets", 0),
                    "listeners": list(map(_plain_listener, _listeners(item))),
                }
                for item in self.gateways
            ],
            "listenerSets": [
                {
                    "namespace": item.namespace,
                    "name": item.name,
                    "parentRef": item.spec.get("parentRef"),
                    "conditions": _conditions(item.status),
                    "listeners": list(map(_plain_listener, _listeners(item))),
                }
                for item in self.sets
            ],
            "routes": [
                {
                    "kind": item.kind,
                    "namespace": item.namespace,
                    "name": item.name,
                    "hostnames": item.spec.get("hostnames", []),
                    "parents": [
                        {"parentRef": parent.ref, "conditions": list(parent.conditions or ())} for parent in parents
                    ],
                }
                for item, parents in self.routes
            ],
            "policies": [
                {
                    "kind": item.kind,
                    "namespace": item.namespace,
                    "name": item.name,
                    "targetRefs": item.spec.get("targetRefs", []),
                    "ancestors": [
                        {"ancestorRef": ancestor.ref, "conditions": list(ancestor.conditions or ())}
                        for ancestor in ancestors
                    ],
                }
                for item, ancestors in self.policies
            ],
            "problems": [trouble._asdict() for trouble in self.troubles],
        }

    def _shown(self) -> list[Item]:
        return [*self.classes, *self.gateways, *self.sets, *(item for item, _ in (*self.routes, *self.policies))]

    def _is_asked_for(self, item: Item | Ref) -> bool:
        if self._namespace is not None and item.namespace != self._namespace:
            return False
        return not self._wanted or any(item.kind == kind and name in ("", item.name) for kind, name in self._wanted)

    def _parents(self, route: Item) -> list[Parent]:
        """The parentRefs of a route that are ours, or to something that does not exist."""
        entries = {
            ref_key(entry.get("parentRef"), route.namespace): entry.get("conditions") or []
            for entry in route.status.get("parents") or []
            if entry.get("controllerName") == self._controller_name
        }
        found: list[Parent] = []
        for ref in route.spec.get("parentRefs") or []:
            kind = ref.get("kind", "Gateway")
            if ref.get("group", GATEWAY_GROUP) != GATEWAY_GROUP or kind not in PARENTS:
                continue
            target = (kind, ref.get("namespace") or route.namespace, ref["name"])
            path = "/".join((*target[1:], *([ref["sectionName"]] if ref.get("sectionName") else [])))
            name = f"{path}:{ref['port']}" if ref.get("port") else path
            name = name if kind == "Gateway" else f"{kind} {name}"
            if target in self._own:
                found.append(Parent(ref, name, entries.get(ref_key(ref, route.namespace))))
            elif self._is_missing(target):
                found.append(Parent(ref, name, None, exists=False))
        return found

    def _ancestors(self, policy: Item) -> Iterator[Parent]:
        """The Gateways of ours for which something was told of a policy."""
        for entry in policy.status.get("ancestors") or []:
            if entry.get("controllerName") == self._controller_name:
                ref = entry.get("ancestorRef") or {}
                name = f"{ref.get('namespace') or policy.namespace}/{ref.get('name')}"
                yield Parent(ref, name, entry.get("conditions") or [])

    def _is_missing(self, target: tuple[str, str, str]) -> bool:
        """Tell whether something is known not to exist."""
        return target not in self._existing and (not self._namespaces or target[1] in self._namespaces)

    def _listener_rows(self, items: Iterable[Item]) -> Iterator[tuple[str, ...]]:
        for item in items:
            addresses = ", ".join(str(entry.get("value")) for entry in item.status.get("addresses") or []) or "-"
            last = addresses if item.kind == "Gateway" else "/".join(_gateway_of(item)[1:])
            for listener, told in _listeners(item):
                yield (
                    item.path,
                    listener["name"],
                    str(listener["port"]),
                    listener["protocol"],
                    listener.get("hostname") or "*",
                    str(told.get("attachedRoutes", "-")),
                    _word(told, "Programmed"),
                    last,
                )

    def _route_rows(self) -> Iterator[tuple[str, ...]]:
        for item, parents in self.routes:
            hostnames = ", ".join(item.spec.get("hostnames") or []) or "-"
            for parent in parents:
                told = {"conditions": parent.conditions or []}
                yield (str(item), hostnames, parent.name, _word(told, "Accepted"), _word(told, "ResolvedRefs"))

    def _policy_rows(self) -> Iterator[tuple[str, ...]]:
        for item, ancestors in self.policies:
            targets = ", ".join(
                ":".join(filter(None, (target["name"], target.get("sectionName"))))
                for target in item.spec["targetRefs"]
            )
            for ancestor in ancestors:
                told = {"conditions": ancestor.conditions or []}
                yield (str(item), targets, ancestor.name, _word(told, "Accepted"), _word(told, "ResolvedRefs"))

    def _unreadable(self, invalid: Iterable[Invalid]) -> Iterator[Trouble]:
        for item in invalid:
            # What nobody can name may well be what is asked for.
            if item.subject.kind == "File" or self._is_asked_for(item.subject):
                yield Trouble(str(item.subject), item.field, "", item.reason, item.message)

    def _troubles(self) -> Iterator[Trouble]:
        for item in self.classes:
            yield from self._wrong(item, "", _conditions(item.status))
        for item in (*self.gateways, *self.sets):
            yield from self._wrong(item, "", _conditions(item.status))
            # A ListenerSet that its Gateway does not let in has no listeners.
            is_out = item.kind == "ListenerSet" and _reason(item.status, "Accepted") == "NotAllowed"
            for listener, told in _listeners(item) if not is_out else ():
                yield from self._wrong(item, f"listener {listener['name']}", _conditions(told))
        for item in self.orphans:
            message = f"there is no Gateway {'/'.join(_gateway_of(item)[1:])}"
            yield Trouble(str(item), "", "", "Missing", message)
        for item, parents in self.routes:
            for parent in parents:
                part = f"parent {parent.name}"
                if not parent.exists:
                    yield Trouble(str(item), part, "", "Missing", f"there is no such {parent.kind}")
                else:
                    yield from self._wrong(item, part, parent.conditions or ())

        for item, ancestors in self.policies:
            for ancestor in ancestors:
                yield from self._wrong(item, f"gateway {ancestor.name}", ancestor.conditions or ())

    def _wrong(self, item: Item, part: str, conditions: Sequence[Json]) -> Iterator[Trouble]:
        """What our conditions say that is not as it should be, and whether they are about the object as it is now."""
        ours = [condition for condition in conditions if condition.get("type") in TYPES]
        if not ours:
            yield Trouble(str(item), part, "", "Untold", f"{self._controller_name} has not told anything yet")
        for condition in ours:
            kind, state = condition["type"], condition.get("status")
            message = condition.get("message", "")
            seen = condition.get("observedGeneration", 0)
            if kind in _NOTICES:
                continue
            if state != ("False" if kind in _WARNINGS else "True") or NOTE in message:
                yield Trouble(str(item), part, kind, condition.get("reason", ""), message)
            if seen < item.generation:
                message = f"is about generation {seen}, the object has {item.generation}"
                yield Trouble(str(item), part, kind, "Stale", message)


def _gateway_of(listener_set: Item) -> tuple[str, str, str]:
    """Name the Gateway that a ListenerSet is for."""
    parent = listener_set.spec.get("parentRef") or {}
    return parent.get("kind", "Gateway"), parent.get("namespace") or listener_set.namespace, parent.get("name", "")


def _listeners(owner: Item) -> Iterator[tuple[Json, Json]]:
    """The listeners of a Gateway or a ListenerSet, each with its status."""
    told = {entry.get("name"): entry for entry in owner.status.get("listeners") or []}
    for listener in owner.spec.get("listeners") or []:
        yield listener, told.get(listener["name"], {})


def _plain_listener(item: tuple[Json, Json]) -> Json:
    listener, told = item
    return {
        "name": listener["name"],
        "port": listener["port"],
        "protocol": listener["protocol"],
        **({"hostname": listener["hostname"]} if listener.get("hostname") else {}),
        "attachedRoutes": told.get("attachedRoutes", 0),
        "conditions": _conditions(told),
    }


def _reason(holder: Json, kind: str) -> str:
    return next((str(item.get("reason")) for item in _conditions(holder) if item.get("type") == kind), "")


def _conditions(holder: Json) -> list[Json]:
    return list(holder.get("conditions") or [])


def _word(holder: Json, kind: str) -> str:
    for condition in _conditions(holder):
        if condition.get("type") == kind:
            return _WORDS.get(str(condition.get("status")), "-")
    return "-"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Rows in columns as wide as they must be."""
    lines = [header, *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
