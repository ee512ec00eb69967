"""The vocabulary of problems: one constructor for each condition and reason that the graph can find.

The reasons are spelled as in the specification. The surprising fact: `conflict_with_older_route` has no
condition of the specification, whose conformance suite wants such a TCPRoute accepted and counted although it
serves nothing. `hostnames_of_older_route` is to TLSRoutes what that is to TCPRoutes.
"""

from __future__ import annotations

from collections.abc import Sequence

from gwctl.api.ref import Ref
from gwctl.api.wire import full_kind
from gwctl.graph.node import ListenerKey, Problem

ACCEPTED = "Accepted"
CONFLICTED = "Conflicted"
INSECURE_FRONTEND_VALIDATION = "InsecureFrontendValidationMode"
PARTIALLY_INVALID = "PartiallyInvalid"
PROGRAMMED = "Programmed"
RESOLVED_REFS = "ResolvedRefs"
VALID = "Valid"

DROPPED_RULE = "Dropped Rule: "
FALL_BACK = "Fall Back: "
"""What messages of a route's PartiallyInvalid must begin with (RouteConditionPartiallyInvalid).

Without these a problem is about a field that the object stands without: what tells it is the message of ``Accepted``.
"""

_SOME = 3


# Objects of any kind


def fall_back(subject: Ref, field: str, message: str) -> Problem:
    """What the object was before is served, because what it is now cannot be read."""
    told = f"{FALL_BACK}{message}; what it was before is served"
    return Problem(subject, field, PARTIALLY_INVALID, "UnsupportedValue", told)


def unknown_field(subject: Ref, field: str) -> Problem:
    """The object stands without it: it is of another version of the CRDs than we know."""
    return Problem(
        subject, field, PARTIALLY_INVALID, "UnknownField", "gwctl does not know this field and leaves it out"
    )


# GatewayClass and Gateway


def unreadable_gateway(gateway: Ref, field: str, message: str) -> Problem:
    """Nobody knows what it was before."""
    return Problem(gateway, field, ACCEPTED, "Invalid", message)


def invalid_parameters(subject: Ref, field: str, message: str) -> Problem:
    return Problem(subject, field, ACCEPTED, "InvalidParameters", message)


def unsupported_address(gateway: Ref, field: str, message: str) -> Problem:
    return Problem(gateway, field, ACCEPTED, "UnsupportedAddress", message)


def listeners_not_valid(gateway: Ref) -> Problem:
    return Problem(gateway, "spec.listeners", ACCEPTED, "ListenersNotValid", "no listener is accepted")


def unsupported_gateway_field(gateway: Ref, field: str, message: str) -> Problem:
    """The Gateway stands without it."""
    return Problem(gateway, field, PARTIALLY_INVALID, "UnsupportedValue", message)


def no_place_in_policy(gateway: Ref, policy: Ref, limit: int) -> Problem:
    """The policy holds for the Gateway's routes all the same (PolicyStatus.ancestors)."""
    message = f"a route uses {policy}, whose status has no place for this Gateway beside {limit} older ones"
    return Problem(gateway, "spec.listeners", PARTIALLY_INVALID, "PolicyStatusFull", message)


# ListenerSets. A set of which no listener stands needs no problem of its own.


def listener_set_not_allowed(listener_set: Ref, gateway: Ref) -> Problem:
    message = f"spec.allowedListeners of {gateway} lets in no ListenerSet from namespace {listener_set.namespace}"
    return Problem(listener_set, "spec.parentRef", ACCEPTED, "NotAllowed", message)


def parent_not_accepted(listener_set: Ref, message: str) -> Problem:
    return Problem(listener_set, "spec.parentRef", ACCEPTED, "ParentNotAccepted", message)


# Listeners, of Gateways and of ListenerSets


def listener_not_programmed(key: ListenerKey, message: str) -> Problem:
    """The data plane did not take the listener."""
    return Problem(key.owner, "spec.listeners", PROGRAMMED, "Invalid", message, listener=key.listener)


def unsupported_protocol(owner: Ref, field: str, listener: str, message: str) -> Problem:
    return Problem(owner, f"{field}.protocol", ACCEPTED, "UnsupportedProtocol", message, listener=listener)


def unsupported_listener_value(owner: Ref, field: str, listener: str, message: str) -> Problem:
    return Problem(owner, field, ACCEPTED, "UnsupportedValue", message, listener=listener)


def port_unavailable(owner: Ref, field: str, listener: str, port: int, holder: Ref) -> Problem:
    message = f"port {port} is taken by {'the older ' if owner.kind == holder.kind else ''}{holder}"
    return Problem(owner, f"{field}.port", ACCEPTED, "PortUnavailable", message, listener=listener)


def protocol_conflict(owner: Ref, field: str, listener: str, message: str) -> Problem:
    return Problem(owner, f"{field}.protocol", CONFLICTED, "ProtocolConflict", message, listener=listener)


def hostname_conflict(owner: Ref, field: str, listener: str, message: str) -> Problem:
    return Problem(owner, f"{field}.hostname", CONFLICTED, "HostnameConflict", message, listener=listener)


def invalid_route_kinds(owner: Ref, field: str, listener: str, message: str) -> Problem:
    return Problem(owner, field, RESOLVED_REFS, "InvalidRouteKinds", message, listener=listener)


def no_certificate(owner: Ref, field: str, listener: str) -> Problem:
    """The listener is accepted and cannot be served."""
    message = "the listener has no certificate that can be used"
    return Problem(owner, field, PROGRAMMED, "Invalid", message, listener=listener)


def invalid_certificate_ref(owner: Ref, field: str, listener: str, message: str) -> Problem:
    return Problem(owner, field, RESOLVED_REFS, "InvalidCertificateRef", message, listener=listener)


def certificate_ref_not_permitted(owner: Ref, field: str, listener: str, target: Ref) -> Problem:
    message = _not_permitted(owner, target)
    return Problem(owner, field, RESOLVED_REFS, "RefNotPermitted", message, listener=listener)


def certificate_not_valid(secret: Ref, message: str) -> Problem:
    """A warning: the certificate is served, and clients do not take it."""
    return Problem(secret, "data[tls.crt]", VALID, "CertificateNotValid", message)


def certificate_refused(secret: Ref, message: str) -> Problem:
    return Problem(secret, "data[tls.crt]", VALID, "CertificateRefused", f"HAProxy did not take it: {message}")


def invalid_ca_certificate_kind(gateway: Ref, field: str, listener: str, group: str, kind: str) -> Problem:
    message = _not_a_config_map(group, kind)
    return Problem(gateway, field, RESOLVED_REFS, "InvalidCACertificateKind", message, listener=listener)


def insecure_frontend_validation(gateway: Ref, field: str) -> Problem:
    """A warning, with a condition of its own (FrontendTLSValidation.mode)."""
    message = "clients are let in without a valid certificate"
    return Problem(gateway, field, INSECURE_FRONTEND_VALIDATION, "ConfigurationChanged", message)


def invalid_client_certificate_ref(gateway: Ref, field: str, message: str) -> Problem:
    return Problem(gateway, field, RESOLVED_REFS, "InvalidClientCertificateRef", message)


def client_certificate_ref_not_permitted(gateway: Ref, field: str, target: Ref) -> Problem:
    return Problem(gateway, field, RESOLVED_REFS, "RefNotPermitted", _not_permitted(gateway, target))


# BackendTLSPolicy


def invalid_policy(policy: Ref, field: str, message: str) -> Problem:
    return Problem(policy, field, ACCEPTED, "Invalid", message)


def unsupported_policy_field(policy: Ref, field: str, message: str) -> Problem:
    """The policy stands without it."""
    return Problem(policy, field, PARTIALLY_INVALID, "UnsupportedValue", message)


def policy_target_not_found(policy: Ref, field: str, message: str) -> Problem:
    return Problem(policy, field, ACCEPTED, "TargetNotFound", message)


def policy_conflict(policy: Ref, field: str, target: Ref, older: Ref) -> Problem:
    return Problem(policy, field, ACCEPTED, "Conflicted", f"{target} has the older {older}")


def no_valid_ca_certificate(subject: Ref, field: str, message: str, listener: str | None = None) -> Problem:
    """Of a policy, or of a Gateway's listener: it is kept, and nothing gets through."""
    return Problem(subject, field, ACCEPTED, "NoValidCACertificate", message, listener=listener)


def invalid_ca_certificate_ref(subject: Ref, field: str, message: str, listener: str | None = None) -> Problem:
    return Problem(subject, field, RESOLVED_REFS, "InvalidCACertificateRef", message, listener=listener)


def invalid_ca_kind(policy: Ref, field: str, group: str, kind: str) -> Problem:
    return Problem(policy, field, RESOLVED_REFS, "InvalidKind", _not_a_config_map(group, kind))


def _not_a_config_map(group: str, kind: str) -> str:
    return f"only a core ConfigMap can be referred to, not {full_kind(group, kind)}"


def authorities_refused(subject: Ref, field: str, message: str) -> Problem:
    return Problem(subject, field, VALID, "CertificateRefused", f"HAProxy did not take them: {message}")


# Routes and their parents


def _parent_field(parent: int) -> str:
    return f"spec.parentRefs[{parent}]"


def no_matching_parent(route: Ref, parent: int, message: str) -> Problem:
    return Problem(route, _parent_field(parent), ACCEPTED, "NoMatchingParent", message, parent)


def not_allowed_by_listeners(route: Ref, parent: int, message: str) -> Problem:
    return Problem(route, _parent_field(parent), ACCEPTED, "NotAllowedByListeners", message, parent)


def no_matching_listener_hostname(route: Ref, parent: int, message: str) -> Problem:
    return Problem(route, _parent_field(parent), ACCEPTED, "NoMatchingListenerHostname", message, parent)


def unsupported_hostname(route: Ref, parent: int, place: int, message: str, *, others_stand: bool) -> Problem:
    """A host name is left out. The parent takes the route where it has another one there."""
    condition = PARTIALLY_INVALID if others_stand else ACCEPTED
    return Problem(route, f"spec.hostnames[{place}]", condition, "UnsupportedValue", message, parent)


def conflict_with_older_route(route: Ref, parent: int, listener: str, older: Ref) -> Problem:
    message = f"listener {listener} serves the older {older}"
    return Problem(route, _parent_field(parent), CONFLICTED, "ListenerConflict", message, parent)


def hostnames_of_older_route(route: Ref, parent: int, listener: str, hostnames: Sequence[str], older: Ref) -> Problem:
    """The reason is our own: two TLSRoutes share no host name."""
    message = f"listener {listener} serves {_list_some(hostnames)} by the older {older}"
    return Problem(route, _parent_field(parent), CONFLICTED, "HostnameConflict", message, parent)


def _list_some(hostnames: Sequence[str]) -> str:
    more = f" and {len(hostnames) - _SOME} more" if len(hostnames) > _SOME else ""
    return ", ".join("any name" if name == "*" else name for name in hostnames[:_SOME]) + more


def hostname_of_other_kind(route: Ref, parent: int, listener: str, older: Ref, elsewhere: bool) -> Problem:
    """HTTPRoutes and GRPCRoutes share no host name (GRPCRouteSpec.hostnames). The reason is our own.

    ``elsewhere``: the parent has another listener that takes the route, so that it is accepted after all.
    """
    message = f"listener {listener} serves the older {older}, of another kind and with a hostname in common"
    condition = CONFLICTED if elsewhere else ACCEPTED
    return Problem(route, _parent_field(parent), condition, "HostnameConflict", message, parent)


def hostnames_not_closed(route: Ref, parent: int, listener: str, hostnames: Sequence[str], other: Ref) -> Problem:
    """What a route would answer with errors, for it is not accepted, another serves."""
    message = f"listener {listener} serves {_list_some(hostnames)} by {other}, of another kind"
    return Problem(route, _parent_field(parent), CONFLICTED, "HostnameConflict", message, parent)


# Rules


def unreadable_route(route: Ref, field: str, message: str) -> Problem:
    """Nobody knows what it was before."""
    return Problem(route, field, ACCEPTED, "UnsupportedValue", message)


def unsupported_value(route: Ref, field: str, message: str, *, others_stand: bool) -> Problem:
    """A rule is refused. What the condition is depends on whether other rules of the route stand."""
    if others_stand:
        return Problem(route, field, PARTIALLY_INVALID, "UnsupportedValue", f"{DROPPED_RULE}{message}")
    return Problem(route, field, ACCEPTED, "UnsupportedValue", message)


def unsupported_route_field(route: Ref, field: str, message: str) -> Problem:
    """The route stands without it."""
    return Problem(route, field, PARTIALLY_INVALID, "UnsupportedValue", message)


# backendRefs


def invalid_kind(route: Ref, field: str, group: str, kind: str) -> Problem:
    message = f"only a core Service can be referred to, not {full_kind(group, kind)}"
    return Problem(route, field, RESOLVED_REFS, "InvalidKind", message)


def ref_not_permitted(route: Ref, field: str, target: Ref) -> Problem:
    return Problem(route, field, RESOLVED_REFS, "RefNotPermitted", _not_permitted(route, target))


def _not_permitted(source: Ref, target: Ref) -> str:
    who = f"a {source.kind} of {source.namespace}"
    return f"no ReferenceGrant in namespace {target.namespace} lets {who} refer to {target}"


def backend_not_found(route: Ref, field: str, message: str) -> Problem:
    return Problem(route, field, RESOLVED_REFS, "BackendNotFound", message)


def backend_tls_not_possible(route: Ref, field: str, target: Ref) -> Problem:
    """The reason is our own: what a policy asks for cannot be had (HTTPBackendRef.backendRef)."""
    message = f"a BackendTLSPolicy of {target} cannot be honoured, see its status"
    return Problem(route, field, RESOLVED_REFS, "InvalidBackendTLSPolicy", message)


def unsupported_backend(route: Ref, field: str, message: str) -> Problem:
    return Problem(route, field, RESOLVED_REFS, "UnsupportedValue", message)


def unsupported_backend_protocol(route: Ref, field: str, message: str) -> Problem:
    return Problem(route, field, RESOLVED_REFS, "UnsupportedProtocol", message)
