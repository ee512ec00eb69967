"""certificateRefs: which certificates a listener has, and why some that it names are left out.

Gateways and a snapshot in; out come certificates by listener, and the Gateways with what is wrong added. The surprising
fact: whether a reference is allowed is asked before whether there is such a Secret, so that nothing is told across
namespaces; and a certificate that has expired is served as any other, because clients are the ones who judge that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from gwctl.api.gateway import Gateway, Listener
from gwctl.api.ref import Ref
from gwctl.api.wire import SecretObjectReference
from gwctl.graph import problem
from gwctl.graph.certificate import read_certificate
from gwctl.graph.gatewayclass import own_classes
from gwctl.graph.node import Certificate, GatewayNode, Graph, ListenerKey, Problem
from gwctl.graph.referencegrant import reference_is_permitted
from gwctl.snapshot import Snapshot

Certificates = dict[ListenerKey, tuple[Certificate, ...]]

_TLS = ".tls"


def resolve_certificates(
    nodes: Iterable[GatewayNode], snapshot: Snapshot
) -> tuple[dict[Ref, GatewayNode], Certificates]:
    """Resolve the certificates of every listener that terminates TLS.

    Gives the Gateways by Ref, with the problems of their references as they are now, and the certificates.
    """
    gateways: dict[Ref, GatewayNode] = {}
    certificates: Certificates = {}
    for node in nodes:
        found: list[Problem] = []
        for index, (listener, resource) in enumerate(zip(node.listeners, node.resource.spec.listeners, strict=True)):
            if listener.tls == "Terminate":
                path = f"spec.listeners[{index}]{_TLS}"
                certificates[listener.key] = tuple(_resolve(node.ref, path, resource, snapshot, found))
        kept = [item for item in node.problems if not _is_ours(item)]
        problems = tuple(sorted((*kept, *found), key=lambda item: item.order))
        gateways[node.ref] = node if problems == node.problems else replace(node, problems=problems)
    return gateways, certificates


def secrets_of(gateway: Gateway, snapshot: Snapshot) -> Iterator[Ref]:
    """Yield the Secrets that a Gateway's listeners may serve certificates of, existing or not."""
    for listener in gateway.spec.listeners:
        if listener.tls is not None and listener.tls.mode == "Terminate":
            for reference in listener.tls.certificate_refs:
                target = _target(gateway.ref, reference)
                if target is not None and reference_is_permitted(snapshot, gateway.ref, target):
                    yield target


def find_secrets(snapshot: Snapshot, controller_name: str) -> frozenset[Ref]:
    """Find the Secrets that must be known to serve the Gateways of our classes, existing or not.

    Of the snapshot only Gateways, their classes and ReferenceGrants matter.
    """
    classes = {ref.name for ref in own_classes(snapshot, controller_name)}
    ours = (gateway for gateway in snapshot.gateways.values() if gateway.spec.gateway_class_name in classes)
    return frozenset(secret for gateway in ours for secret in secrets_of(gateway, snapshot))


def check_validity(graph: Graph, now: float) -> tuple[Problem, ...]:
    """Find the certificates that are served and not valid at a time, given in seconds since 1970."""
    found: list[Problem] = []
    for ref, certificate in sorted(served_secrets(graph).items()):
        if now > certificate.not_after:
            message = f"the certificate has expired on {_date(certificate.not_after)}; it is served all the same"
            found.append(problem.certificate_not_valid(ref, message))
        elif now < certificate.not_before:
            message = f"the certificate is not valid before {_date(certificate.not_before)}; it is served all the same"
            found.append(problem.certificate_not_valid(ref, message))
    return tuple(found)


def served_secrets(graph: Graph) -> dict[Ref, Certificate]:
    """Give the certificates that listeners have, by their Secrets."""
    return {item.secret: item for items in graph.certificates.values() for item in items}


def _resolve(
    gateway: Ref, path: str, listener: Listener, snapshot: Snapshot, found: list[Problem]
) -> Iterator[Certificate]:
    references = listener.tls.certificate_refs if listener.tls is not None else ()
    seen: set[str] = set()
    for index, reference in enumerate(references):
        field = f"{path}.certificateRefs[{index}]"
        certificate = _find(gateway, field, listener.name, reference, snapshot)
        if isinstance(certificate, Problem):
            found.append(certificate)
        elif certificate.identity not in seen:
            seen.add(certificate.identity)
            yield certificate
    if not references:
        message = "a listener that terminates TLS needs certificateRefs"
        found.append(problem.invalid_certificate_ref(gateway, f"{path}.certificateRefs", listener.name, message))
    if not seen:
        found.append(problem.no_certificate(gateway, path, listener.name))


def _find(
    gateway: Ref, field: str, listener: str, reference: SecretObjectReference, snapshot: Snapshot
) -> Certificate | Problem:
    target = _target(gateway, reference)
    if target is None:
        kind = f"{reference.group}/{reference.kind}" if reference.group else reference.kind
        message = f"only a core Secret can be referred to, not {kind}"
        return problem.invalid_certificate_ref(gateway, field, listener, message)
    if not reference_is_permitted(snapshot, gateway, target):
        return problem.certificate_ref_not_permitted(gateway, field, listener, target)
    secret = snapshot.secrets.get(target)
    if secret is None:
        return problem.invalid_certificate_ref(gateway, field, listener, f"there is no {target} that gwctl can read")
    certificate = read_certificate(secret)
    if isinstance(certificate, str):
        return problem.invalid_certificate_ref(gateway, field, listener, f"{target} {certificate}")
    return certificate


def _target(gateway: Ref, reference: SecretObjectReference) -> Ref | None:
    if (reference.group, reference.kind) != ("", "Secret"):
        return None
    return Ref("Secret", reference.namespace or gateway.namespace, reference.name)


def _is_ours(item: Problem) -> bool:
    """Tell whether a Gateway's problem is about certificates of a listener."""
    return item.listener is not None and _TLS in item.field and item.condition in ("ResolvedRefs", "Programmed")


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
