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
from gwctl.api.ref import Ref
from gwctl.api.wire import SecretObjectReference
from gwctl.graph import problem
from gwctl.graph.certificate import read_certificate
from gwctl.graph.clientcertificate import FRONTEND, config_maps_of, resolve_client_authorities
from gwctl.graph.gatewayclass import own_classes
from gwctl.graph.node import Authorities, Certificate, GatewayNode, Graph, ListenerKey, Problem
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
        trusted = resolve_client_authorities(node.resource, snapshot, found)
        for index, (listener, resource) in enumerate(zip(node.listeners, node.resource.spec.listeners, strict=True)):
            if listener.tls == "Terminate":
                path = f"spec.listeners[{index}]{_TLS}"
                certificates[listener.key] = tuple(_resolve(node.ref, path, resource, snapshot, found))
            if listener.key.listener in trusted:
                clients_of = trusted[listener.key.listener]
                if clients_of is not None:
                    authorities[listener.key] = clients_of
                else:
                    certificates[listener.key] = ()
        client = _find_client(node.resource, snapshot)
        if isinstance(client, Problem):
            found.append(client)
        elif client is not None:
            clients[node.ref] = client
        kept = [item for item in node.problems if not _is_ours(item)]
        problems = tuple(sorted((*kept, *found), key=lambda item: item.order))
        gateways[node.ref] = node if problems == node.problems else replace(node, problems=problems)
    return Resolved(gateways, certificates, clients, authorities)


def referents_of(gateway: Gateway, snapshot: Snapshot) -> Iterator[Ref]:
    """Yield what a Gateway may refer to, existing or not: Secrets with certificates, ConfigMaps with authorities."""
    yield from config_maps_of(gateway, snapshot)
    for reference in _references(gateway):
        target = _target(gateway.ref, reference)
        if target is not None and reference_is_permitted(snapshot, gateway.ref, target):
            yield target


def _references(gateway: Gateway) -> Iterator[SecretObjectReference]:
    for listener in gateway.spec.listeners:
        if listener.tls is not None and listener.tls.mode == "Terminate":
            yield from listener.tls.certificate_refs
    client = _client_reference(gateway)
    if client is not None:
        yield client


def _client_reference(gateway: Gateway) -> SecretObjectReference | None:
    backend = gateway.spec.tls.backend if gateway.spec.tls is not None else None
    return backend.client_certificate_ref if backend is not None else None


def find_referents(snapshot: Snapshot, controller_name: str) -> frozenset[Ref]:
    """Find the Secrets and ConfigMaps that must be known to serve the Gateways of our classes, existing or not.

    Of the snapshot only Gateways, their classes and ReferenceGrants matter.
    """
    classes = {ref.name for ref in own_classes(snapshot, controller_name)}
    ours = (gateway for gateway in snapshot.gateways.values() if gateway.spec.gateway_class_name in classes)
    return frozenset(referent for gateway in ours for referent in referents_of(gateway, snapshot))


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
        return problem.invalid_certificate_ref(gateway, field, listener, _not_a_secret(reference))
    if not reference_is_permitted(snapshot, gateway, target):
        return problem.certificate_ref_not_permitted(gateway, field, listener, target)
    secret = snapshot.secrets.get(target)
    if secret is None:
        return problem.invalid_certificate_ref(gateway, field, listener, f"there is no {target} that gwctl can read")
    certificate = read_certificate(secret)
    if isinstance(certificate, str):
        return problem.invalid_certificate_ref(gateway, field, listener, f"{target} {certificate}")
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
    kind = f"{reference.group}/{reference.kind}" if reference.group else reference.kind
    return f"only a core Secret can be referred to, not {kind}"


def _target(gateway: Ref, reference: SecretObjectReference) -> Ref | None:
    if (reference.group, reference.kind) != ("", "Secret"):
        return None
    return Ref("Secret", reference.namespace or gateway.namespace, reference.name)


def _is_ours(item: Problem) -> bool:
    """Tell whether a Gateway's problem is about certificates."""
    if item.field.startswith(FRONTEND):
        return True
    is_listeners = item.listener is not None and _TLS in item.field
    return item.field == _CLIENT or (is_listeners and item.condition in ("ResolvedRefs", "Programmed"))


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
