"""Client certificates: by which authorities the clients of HTTPS listeners are verified.

A Gateway and a snapshot in; out come sets of authorities by listener, also of those that ListenerSets add, and what is
wrong with references. What a port says takes the place of the default, also where it asks for nothing. The surprising
fact: where none of the references leads to an authority, the listener is not accepted and lets nobody in; it never
gives way to clients without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from gwctl.api.gateway import FrontendValidation, Gateway
from gwctl.api.ref import Ref
from gwctl.api.wire import ObjectReference
from gwctl.graph import problem
from gwctl.graph.authority import join_authorities, read_authorities
from gwctl.graph.node import Authorities, GatewayNode, ListenerKey, Problem
from gwctl.graph.referencegrant import reference_is_permitted
from gwctl.snapshot import Snapshot

FRONTEND = "spec.tls.frontend"
OF_PARENT = "spec.parentRef"
"""The field of a ListenerSet at which it is told what its Gateway does to a listener."""

INSECURE = "AllowInsecureFallback"


def resolve_client_authorities(
    gateway: GatewayNode, snapshot: Snapshot, found: list[Problem]
) -> Mapping[ListenerKey, Authorities | None]:
    """Give the authorities of every listener whose clients are asked for a certificate; None where none can be good.

    What is wrong is added to ``found``. Those of a port that `falls_back` are among them.
    """
    resource, ref = gateway.resource, gateway.ref
    for path, validation in _validations(resource):
        if validation.mode == INSECURE:
            found.append(problem.insecure_frontend_validation(ref, f"{path}.mode"))
    by_listener: dict[ListenerKey, Authorities | None] = {}
    for listener in gateway.listeners:
        settings = _settings(resource, listener.port) if listener.protocol == "HTTPS" else None
        if settings is not None:
            path, validation = settings
            owner, name, wrong = listener.key.owner, listener.key.listener, list[Problem]()
            trusted = _resolve(ref, f"{path}.caCertificateRefs", validation, name, snapshot, wrong)
            found += wrong if owner == ref else (_as_told_to(owner, item, f"{path} of {ref}") for item in wrong)
            by_listener[listener.key] = trusted
    return by_listener


def _as_told_to(owner: Ref, item: Problem, where: str) -> Problem:
    """Give a problem of a Gateway as it is for a ListenerSet, whose readers need not know what it refers to."""
    message = f"a reference of {where} leads to no CA certificate"
    if item.condition == problem.ACCEPTED:
        message = f"{where} leads to no CA certificate, so the listener lets nobody in"
    return replace(item, subject=owner, field=OF_PARENT, message=message)


def falls_back(gateway: Gateway, port: int) -> bool:
    """Tell whether clients of a port are let in whatever they show when they are asked for a certificate."""
    settings = _settings(gateway, port)
    return settings is not None and settings[1].mode == INSECURE


def config_maps_of(gateway: Gateway, snapshot: Snapshot) -> Iterator[Ref]:
    """Yield the ConfigMaps with authorities that a Gateway may refer to, existing or not."""
    for _, validation in _validations(gateway):
        for reference in validation.ca_certificate_refs:
            target = _target(gateway.ref, reference)
            if target is not None and reference_is_permitted(snapshot, gateway.ref, target):
                yield target


def _validations(gateway: Gateway) -> Iterator[tuple[str, FrontendValidation]]:
    frontend = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if frontend is None:
        return
    if frontend.default.validation is not None:
        yield f"{FRONTEND}.default.validation", frontend.default.validation
    for index, item in enumerate(frontend.per_port):
        if item.tls.validation is not None:
            yield f"{FRONTEND}.perPort[{index}].tls.validation", item.tls.validation


def _settings(gateway: Gateway, port: int) -> tuple[str, FrontendValidation] | None:
    frontend = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if frontend is None:
        return None
    for index, item in enumerate(frontend.per_port):
        if item.port == port:
            validation = item.tls.validation
            return (f"{FRONTEND}.perPort[{index}].tls.validation", validation) if validation is not None else None
    validation = frontend.default.validation
    return (f"{FRONTEND}.default.validation", validation) if validation is not None else None


def _resolve(
    gateway: Ref,
    path: str,
    validation: FrontendValidation,
    listener: str,
    snapshot: Snapshot,
    found: list[Problem],
) -> Authorities | None:
    sets: list[tuple[str, ...]] = []
    for index, reference in enumerate(validation.ca_certificate_refs):
        certificates = _find(gateway, f"{path}[{index}]", reference, listener, snapshot)
        if isinstance(certificates, Problem):
            found.append(certificates)
        else:
            sets.append(certificates)
    if not sets:
        message = "none of the references leads to a CA certificate, so the listener lets nobody in"
        found.append(problem.no_valid_ca_certificate(gateway, path, message, listener))
        return None
    joined = join_authorities(sets)
    if isinstance(joined, Authorities):
        return joined
    found.append(problem.no_valid_ca_certificate(gateway, path, joined, listener))
    return None


def _find(
    gateway: Ref, field: str, reference: ObjectReference, listener: str, snapshot: Snapshot
) -> tuple[str, ...] | Problem:
    target = _target(gateway, reference)
    if target is None:
        return problem.invalid_ca_certificate_kind(gateway, field, listener, reference.group, reference.kind)
    if not reference_is_permitted(snapshot, gateway, target):
        return problem.certificate_ref_not_permitted(gateway, field, listener, target)
    config_map = snapshot.config_maps.get(target)
    if config_map is None:
        message = f"there is no {target} that gwctl can read"
        return problem.invalid_ca_certificate_ref(gateway, field, message, listener)
    certificates = read_authorities(config_map)
    if isinstance(certificates, str):
        return problem.invalid_ca_certificate_ref(gateway, field, f"{target} {certificates}", listener)
    return certificates


def _target(gateway: Ref, reference: ObjectReference) -> Ref | None:
    if (reference.group, reference.kind) != ("", "ConfigMap"):
        return None
    return Ref("ConfigMap", reference.namespace or gateway.namespace, reference.name)
