"""Listeners, one by one and against each other: what each lets in, and which fight over a port.

In: a listener and who declares it, a Gateway or a ListenerSet. Out: what its node is made of, and problems. The
surprising fact: of conflicting listeners of one object none wins, but one that comes after those of another object
loses, and a loser takes nothing from those that come after it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Literal

from gwctl.api.gateway import Listener
from gwctl.api.ref import Ref
from gwctl.api.wire import GATEWAY_GROUP, LabelSelector, full_kind
from gwctl.graph import problem
from gwctl.graph.gatewayservice import slot_fits
from gwctl.graph.node import Problem
from gwctl.graph.validate import hostname_error

# The protocols that we serve and the kinds of routes that each can take.
_HTTP_KINDS = ("HTTPRoute", "GRPCRoute")
SUPPORTED_KINDS: Mapping[str, tuple[str, ...]] = {
    "HTTP": _HTTP_KINDS,
    "HTTPS": _HTTP_KINDS,
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
}

# Protocols of one line can share a port when their host names differ.
_SHARING = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}
_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})


class HeldPorts:
    """What of a Gateway's ports is taken, for listeners that come after: by a line of protocols, and by host names."""

    def __init__(self) -> None:
        self._lines: dict[tuple[bool, int], tuple[str, Ref]] = {}
        self._hosts: dict[tuple[str, int, str], Ref] = {}

    def add(self, owner: Ref, listener: Listener) -> None:
        """Take what a listener needs. Protocols that are not served need nothing."""
        line = _SHARING.get(listener.protocol)
        if line is not None:
            self._lines.setdefault((line == "UDP", listener.port), (line, owner))
            self._hosts.setdefault((line, listener.port, _host(listener)), owner)

    def find_conflict(self, owner: Ref, index: int, listener: Listener) -> Problem | None:
        """Tell why a listener comes too late. Nothing is said of others' listeners but whose they are."""
        line = _SHARING.get(listener.protocol)
        if line is None:
            return None
        path, port = f"spec.listeners[{index}]", listener.port
        taken, holder = self._lines.get((line == "UDP", port), (line, None))
        if holder is not None and taken != line:
            message = f"port {port} has another protocol at {_describe_holder(holder)}"
            return problem.protocol_conflict(owner, path, listener.name, message)
        holder = self._hosts.get((line, port, _host(listener)))
        if holder is not None and line in ("TCP", "UDP"):
            message = f"port {port} is also that of a listener of {_describe_holder(holder)}"
            return problem.protocol_conflict(owner, path, listener.name, message)
        if holder is not None:
            message = f"port and hostname are also those of a listener of {_describe_holder(holder)}"
            return problem.hostname_conflict(owner, path, listener.name, message)
        return None


def _host(listener: Listener) -> str:
    return (listener.hostname or "").lower()


def _describe_holder(holder: Ref) -> str:
    return str(holder) if holder.kind == "Gateway" else "an older ListenerSet"


def check_options(owner: Ref, index: int, listener: Listener) -> list[Problem]:
    """What of a listener is left out, though it stands."""
    return [
        problem.unsupported_gateway_field(
            owner, f"spec.listeners[{index}].tls.options[{key}]", "options of TLS are not supported"
        )
        for key in sorted(listener.tls.options if listener.tls is not None else ())
    ]


def tls_mode(listener: Listener) -> Literal["Terminate", "Passthrough"] | None:
    """Give what becomes of TLS at a listener, None where there is none."""
    if listener.tls is not None:
        return listener.tls.mode
    return "Terminate" if listener.protocol in ("HTTPS", "TLS") else None


def slot_of(listener: Listener, slots: Mapping[int, int]) -> int:
    """Give the listener slot that serves a listener, of those of its Gateway's ports; 0 for none."""
    slot = slots.get(listener.port, 0)
    return slot if slot_fits(slot, listener.protocol) else 0


def check_listener(owner: Ref, index: int, listener: Listener) -> list[Problem]:
    """What keeps a listener from being accepted, whatever others there are."""
    path = f"spec.listeners[{index}]"
    found: list[Problem] = []
    if listener.protocol not in SUPPORTED_KINDS:
        if listener.protocol == "UDP":
            message = "HAProxy proxies no UDP"
        else:
            message = f"{listener.protocol} is not a protocol that is supported"
        found.append(problem.unsupported_protocol(owner, path, listener.name, message))
    hostname = hostname_error(listener.hostname or "")
    if hostname is not None:
        found.append(problem.unsupported_listener_value(owner, f"{path}.hostname", listener.name, hostname))
    if listener.tls is not None and listener.tls.frontend_validation is not None:
        # Without it clients would be let in that must show a certificate.
        where, message = f"{path}.tls.frontendValidation", "is not supported: use spec.tls.frontend of newer CRDs"
        found.append(problem.unsupported_listener_value(owner, where, listener.name, message))
    namespaces = listener.allowed_routes.namespaces
    if namespaces.from_ == "Selector":
        for where, message in check_selector(namespaces.selector, f"{path}.allowedRoutes.namespaces.selector"):
            found.append(problem.unsupported_listener_value(owner, where, listener.name, message))
    return found


def check_selector(selector: LabelSelector | None, path: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a selector, which the CRDs do not check: the field and a message."""
    for place, wanted in enumerate(selector.match_expressions if selector is not None else ()):
        where = f"{path}.matchExpressions[{place}]"
        if wanted.operator not in _OPERATORS:
            yield f"{where}.operator", f"must be In, NotIn, Exists or DoesNotExist, not {wanted.operator!r}"
        elif (wanted.operator in ("In", "NotIn")) != bool(wanted.values):
            yield f"{where}.values", "must be given for In and NotIn, and for these only"


def read_kinds(owner: Ref, index: int, listener: Listener) -> tuple[tuple[str, ...], list[Problem]]:
    """Give the kinds of routes that a listener takes, and what is wrong with those that it names."""
    supported = SUPPORTED_KINDS.get(listener.protocol, ())
    wanted = listener.allowed_routes.kinds
    if not wanted:
        return supported, []
    kinds: list[str] = []
    found: list[Problem] = []
    for place, item in enumerate(wanted):
        if item.group == GATEWAY_GROUP and item.kind in supported:
            if item.kind not in kinds:
                kinds.append(item.kind)
        else:
            path = f"spec.listeners[{index}].allowedRoutes.kinds[{place}]"
            message = f"a listener with protocol {listener.protocol} takes no {full_kind(item.group, item.kind)}"
            found.append(problem.invalid_route_kinds(owner, path, listener.name, message))
    return tuple(kinds), found


def find_conflicts(
    owner: Ref, listeners: Sequence[Listener], lost: Container[int] = frozenset()
) -> dict[int, list[Problem]]:
    """The listeners of one object that are not distinct, by place. No one of them wins (Gateway.spec.listeners).

    Those of ``lost`` are not served in any case.
    """
    by_port: dict[tuple[bool, int], list[int]] = {}
    for index, listener in enumerate(listeners):
        if listener.protocol in _SHARING and index not in lost:
            by_port.setdefault((listener.protocol == "UDP", listener.port), []).append(index)
    found: dict[int, list[Problem]] = {}
    for indices in by_port.values():
        for index in indices:
            listener = listeners[index]
            path = f"spec.listeners[{index}]"
            others = [listeners[other] for other in indices if other != index]
            line = _SHARING[listener.protocol]
            strangers = sorted(other.name for other in others if _SHARING[other.protocol] != line)
            same = sorted(
                other.name for other in others if _SHARING[other.protocol] == line and _host(other) == _host(listener)
            )
            if strangers:
                message = f"port {listener.port} has another protocol at {_name(strangers)}"
                found.setdefault(index, []).append(problem.protocol_conflict(owner, path, listener.name, message))
            elif same and line in ("TCP", "UDP"):
                message = f"port {listener.port} is also that of {_name(same)}"
                found.setdefault(index, []).append(problem.protocol_conflict(owner, path, listener.name, message))
            elif same:
                message = f"port and hostname are also those of {_name(same)}"
                found.setdefault(index, []).append(problem.hostname_conflict(owner, path, listener.name, message))
    return found


def _name(listeners: Sequence[str]) -> str:
    return f"listener{'s' if len(listeners) > 1 else ''} {', '.join(listeners)}"


def addresses_overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two sets of bind addresses share one. Empty is all; so are ``::`` and, of IPv4, ``0.0.0.0``."""
    if not one or not other:
        return True
    return any(_covers(a, b) or _covers(b, a) for a in one for b in other)


def _covers(wide: str, address: str) -> bool:
    return wide in (address, "::") or (wide == "0.0.0.0" and ":" not in address)


def selector_fits(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether labels fit a selector.

    None fits nothing, nor does one that is wrong; an empty selector fits everything (meta/v1 LabelSelector).
    """
    if selector is None or any(check_selector(selector, "")):
        return False
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for wanted in selector.match_expressions:
        value = labels.get(wanted.key)
        match wanted.operator:
            case "In":
                fits = value is not None and value in wanted.values
            case "NotIn":
                fits = value is None or value not in wanted.values
            case "Exists":
                fits = value is not None
            case "DoesNotExist":
                fits = value is None
            case _:
                fits = False
        if not fits:
            return False
    return True
