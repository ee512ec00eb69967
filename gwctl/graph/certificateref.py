"""certificateRefs: which certificates a listener has, and a Gateway as a client; and why some are left out.

Gateways and a snapshot in; out come certificates by listener and by Gateway, and the Gateways with what is wrong added.
The surprising fact: whether a reference is allowed is asked before whether there is such a Secret, so that nothing is
told across namespaces; and a certificate that has expired is served as any other, because clients are the ones who
judge that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from gwctl.api.gateway import Gateway, Listener
from gwctl.api.listenerset import ListenerSet
from gwctl.api.ref import Ref
from gwctl.api.wire import SecretObjectReference, full_kind
from gwctl.graph import problem
from gwctl.graph.certificate import read_certificate
from gwctl.graph.clientcertificate import FRONTEND, OF_PARENT, config_maps_of, resolve_client_authorities
from gwctl.graph.gatewayclass import own_classes
from gwctl.graph.listenerset import lets_in
from gwctl.graph.node import Authorities, Certificate, GatewayNode, Graph, ListenerKey, Problem, in_order
from gwctl.graph.referencegrant import reference_is_permitted
from gwctl.snapshot import Snapshot

_TLS = ".tls"
_CLIENT = "spec.tls.backend.clientCertificateRef"


class Resolved(NamedTuple):
    """Gateways with the problems of their references as they are now, and certificates.

    ``certificates``: those of each listener that terminates TLS. ``client_certificates``: the one of each Gateway that
    shows one to backends. ``client_authorities``: those of each listener whose clients must show one.
    """

    gateways: Mapping[Ref, GatewayNode]
    certificates: Mapping[ListenerKey, tuple[Certificate, ...]]
    client_certificates: Mapping[Ref, Certificate]
    client_authorities: Mapping[ListenerKey, Authorities]

    def updated(self, other: Resolved) -> Resolved:
        """Give what is resolved now, where some Gateways were resolved anew; what is the same stays the same object."""
        kept = {ref: item for ref, item in self.client_certificates.items() if ref not in other.gateways}
        clients = {**kept, **other.client_certificates}
        trusted = {key: item for key, item in self.client_authorities.items() if key not in other.certificates}
        authorities = {**trusted, **other.client_authorities}
        return Resolved(
            {**self.gateways, **other.gateways},
            {**self.certificates, **other.certificates},
            self.client_certificates if clients == self.client_certificates else clients,
            self.client_authorities if authorities == self.client_authorities else authorities,
        )


def resolve_certificates(nodes: Iterable[GatewayNode], snapshot: Snapshot) -> Resolved:
    """Resolve the certificates of every listener that terminates TLS, and those that Gateways show to backends."""
    gateways: dict[Ref, GatewayNode] = {}
    certificates: dict[ListenerKey, tuple[Certificate, ...]] = {}
    clients: dict[Ref, Certificate] = {}
    authorities: dict[ListenerKey, Authorities] = {}
    for node in nodes:
        found: list[Problem] = []
        trusted = resolve_client_authorities(node, snapshot, found)
        for listener in node.listeners:
            if listener.tls == "Terminate":
                path = f"spec.listeners[{listener.index}]{_TLS}"
                resolved = _resolve(listener.key.owner, path, listener.resource, snapshot, found)
                certificates[listener.key] = tuple(resolved)
            if listener.key in trusted:
                clients_of = trusted[listener.key]
                if clients_of is not None:
                    authorities[listener.key] = clients_of
                else:
                    certificates[listener.key] = ()
        client = _find_client(node.resource, snapshot)
        if isinstance(client, Problem):
            found.append(client)
        elif client is not None:
            clients[node.ref] = client
        lost = {item.listener for item in found if item.subject == node.ref and item.condition == problem.ACCEPTED}
        if node.accepted and not any(item.accepted and item.key.listener not in lost for item in node.own_listeners):
            found.append(problem.listeners_not_valid(node.ref))
        kept = [item for item in node.problems if not _is_ours(item, node)]
        problems = in_order((*kept, *found))
        gateways[node.ref] = node if problems == node.problems else replace(node, problems=problems)
    return Resolved(gateways, certificates, clients, authorities)


def referents_of(owner: Gateway | ListenerSet, snapshot: Snapshot) -> Iterator[Ref]:
    """Yield what a Gateway or a ListenerSet may refer to, existing or not.

    These are Secrets with certificates and ConfigMaps with authorities.
    """
    if isinstance(owner, Gateway):
        yield from config_maps_of(owner, snapshot)
    for reference in _references(owner):
        target = _target(owner.ref, reference)
        if target is not None and reference_is_permitted(snapshot, owner.ref, target):
            yield target


def _references(owner: Gateway | ListenerSet) -> Iterator[SecretObjectReference]:
    for listener in owner.spec.listeners:
        if listener.tls is not None and listener.tls.mode == "Terminate":
            yield from listener.tls.certificate_refs
    client = _client_reference(owner) if isinstance(owner, Gateway) else None
    if client is not None:
        yield client


def _client_reference(gateway: Gateway) -> SecretObjectReference | None:
    backend = gateway.spec.tls.backend if gateway.spec.tls is not None else None
    return backend.client_certificate_ref if backend is not None else None


def find_referents(snapshot: Snapshot, controller_name: str) -> frozenset[Ref]:
    """Find the Secrets and ConfigMaps that must be known to serve the Gateways of our classes, existing or not.

    Of the snapshot only what refers matters, and what says whether that is allowed.
    """
    classes = {ref.name for ref in own_classes(snapshot, controller_name)}
    ours = {ref: item for ref, item in snapshot.gateways.items() if item.spec.gateway_class_name in classes}
    owners: list[Gateway | ListenerSet] = [*ours.values()]
    for listener_set in snapshot.listener_sets.values():
        gateway = ours.get(listener_set.parent) if listener_set.parent is not None else None
        if gateway is not None and lets_in(gateway, listener_set, snapshot):
            owners.append(listener_set)
    return frozenset(referent for owner in owners for referent in referents_of(owner, snapshot))


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
    """Give the certificates that listeners and Gateways have, by their Secrets."""
    found = (*graph.certificates.values(), tuple(graph.client_certificates.values()))
    return {item.secret: item for items in found for item in items}


def _resolve(
    owner: Ref, path: str, listener: Listener, snapshot: Snapshot, found: list[Problem]
) -> Iterator[Certificate]:
    references = listener.tls.certificate_refs if listener.tls is not None else ()
    seen: set[str] = set()
    for index, reference in enumerate(references):
        field = f"{path}.certificateRefs[{index}]"
        certificate = _find(owner, field, listener.name, reference, snapshot)
        if isinstance(certificate, Problem):
            found.append(certificate)
        elif certificate.identity not in seen:
            seen.add(certificate.identity)
            yield certificate
    if not references:
        message = "a listener that terminates TLS needs certificateRefs"
        found.append(problem.invalid_certificate_ref(owner, f"{path}.certificateRefs", listener.name, message))
    if not seen:
        found.append(problem.no_certificate(owner, path, listener.name))


def _find(
    owner: Ref, field: str, listener: str, reference: SecretObjectReference, snapshot: Snapshot
) -> Certificate | Problem:
    target = _target(owner, reference)
    if target is None:
        return problem.invalid_certificate_ref(owner, field, listener, _not_a_secret(reference))
    if not reference_is_permitted(snapshot, owner, target):
        return problem.certificate_ref_not_permitted(owner, field, listener, target)
    secret = snapshot.secrets.get(target)
    if secret is None:
        return problem.invalid_certificate_ref(owner, field, listener, f"there is no {target} that gwctl can read")
    certificate = read_certificate(secret)
    if isinstance(certificate, str):
        return problem.invalid_certificate_ref(owner, field, listener, f"{target} {certificate}")
    return certificate


def _find_client(gateway: Gateway, snapshot: Snapshot) -> Certificate | Problem | None:
    """Find what a Gateway shows to backends; where that cannot be had it shows nothing, and backends decide."""
    reference = _client_reference(gateway)
    if reference is None:
        return None
    target = _target(gateway.ref, reference)
    if target is None:
        return problem.invalid_client_certificate_ref(gateway.ref, _CLIENT, _not_a_secret(reference))
    if not reference_is_permitted(snapshot, gateway.ref, target):
        return problem.client_certificate_ref_not_permitted(gateway.ref, _CLIENT, target)
    secret = snapshot.secrets.get(target)
    if secret is None:
        message = f"there is no {target} that gwctl can read"
        return problem.invalid_client_certificate_ref(gateway.ref, _CLIENT, message)
    certificate = read_certificate(secret)
    if isinstance(certificate, str):
        return problem.invalid_client_certificate_ref(gateway.ref, _CLIENT, f"{target} {certificate}")
    return certificate


def _not_a_secret(reference: SecretObjectReference) -> str:
    return f"only a core Secret can be referred to, not {full_kind(reference.group, reference.kind)}"


def _target(owner: Ref, reference: SecretObjectReference) -> Ref | None:
    if (reference.group, reference.kind) != ("", "Secret"):
        return None
    return Ref("Secret", reference.namespace or owner.namespace, reference.name)


def _is_ours(item: Problem, gateway: GatewayNode) -> bool:
    """Tell whether a problem with a Gateway's listeners, or with itself, is about certificates."""
    if item.field.startswith((FRONTEND, OF_PARENT)):
        return True
    if gateway.accepted and item.reason == "ListenersNotValid":
        return True
    is_listeners = item.listener is not None and _TLS in item.field
    return item.field == _CLIENT or (is_listeners and item.condition in ("ResolvedRefs", "Programmed"))


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
