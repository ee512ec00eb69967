"""backendRefs: to which port of which Service each leads, or why to none.

The surprising fact: a reference that leads nowhere keeps its weight, because its share is answered with 500
and not given to the others. Whether it is allowed is asked before whether it exists, so that nothing is told
across namespaces.
"""

from __future__ import annotations

from typing import NamedTuple

from gwctl.api.ref import Ref
from gwctl.api.wire import BackendObjectReference
from gwctl.graph import problem
from gwctl.graph.node import REFUSED, Policies, Problem, ServicePort
from gwctl.graph.referencegrant import reference_is_permitted
from gwctl.snapshot import Snapshot

_WITHOUT_GRPC = frozenset({"kubernetes.io/ws", "kubernetes.io/wss"})


class ResolvedBackend(NamedTuple):
    """``service`` None: it leads nowhere. ``reference``: the Service that is meant, existing or not, if it is one.

    ``problem`` with a service: it is one only where TLS is terminated. ``forbidden``: the route must not refer to it.
    """

    service: ServicePort | None
    reference: Ref | None
    problem: Problem | None
    forbidden: bool = False


def resolve_backend(
    snapshot: Snapshot, policies: Policies, route: Ref, ref: BackendObjectReference, field: str
) -> ResolvedBackend:
    """Resolve a reference of a route to a backend; ``field`` is its path in the route.

    A Service whose policy cannot be honoured leads nowhere; for a TLSRoute it depends on the listener.
    """
    if ref.group != "" or ref.kind != "Service":
        return _nowhere(None, problem.invalid_kind(route, f"{field}.kind", ref.group, ref.kind))
    target = Ref("Service", ref.namespace or route.namespace, ref.name)
    if not reference_is_permitted(snapshot, route, target):
        return ResolvedBackend(None, target, problem.ref_not_permitted(route, field, target), forbidden=True)
    service = snapshot.services.get(target)
    if service is None:
        return _nowhere(target, problem.backend_not_found(route, f"{field}.name", f"there is no {target}"))
    if service.spec.type == "ExternalName":
        # A Service of one's own making that leads to any address, the cluster's metadata included.
        message = f"{target} is an ExternalName, which is refused"
        return _nowhere(target, problem.unsupported_backend(route, f"{field}.name", message))
    ports = [port for port in service.spec.ports if port.port == ref.port]
    if not ports:
        message = f"{target} has no port {ref.port}"
        return _nowhere(target, problem.backend_not_found(route, f"{field}.port", message))
    for port in ports:
        if port.protocol == "TCP" and route.kind == "GRPCRoute" and port.app_protocol in _WITHOUT_GRPC:
            message = f"port {ref.port} of {target} is for {port.app_protocol}, which carries no gRPC"
            return _nowhere(target, problem.unsupported_backend_protocol(route, f"{field}.port", message))
        if port.protocol == "TCP":
            tls = policies.tls(target, port.name)
            wrong = None
            if tls is None and not policies.is_plain(target, port.name):
                wrong, tls = problem.backend_tls_not_possible(route, f"{field}.name", target), REFUSED
                if route.kind != "TLSRoute":
                    return _nowhere(target, wrong)
            found = ServicePort(target.namespace, target.name, port.port, port.app_protocol or "", tls)
            return ResolvedBackend(found, target, wrong)
    message = f"port {ref.port} of {target} is for {ports[0].protocol} only"
    return _nowhere(target, problem.unsupported_backend_protocol(route, f"{field}.port", message))


def _nowhere(target: Ref | None, why: Problem) -> ResolvedBackend:
    return ResolvedBackend(None, target, why)
