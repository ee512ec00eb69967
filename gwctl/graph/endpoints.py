"""Endpoints of a Service's port, from its EndpointSlices.

The surprising fact: ports are joined by name, never by targetPort; that is what makes named, headless and
dual-stack Services all the same (discovery/v1).
"""

from __future__ import annotations

from gwctl.api.endpointslice import EndpointSlice
from gwctl.api.ref import Ref
from gwctl.api.wire import BackendObjectReference
from gwctl.graph.backendref import resolve_backend
from gwctl.graph.node import Endpoint, Graph, ServicePort
from gwctl.snapshot import Snapshot


def resolve_endpoints(snapshot: Snapshot, service_port: ServicePort) -> tuple[Endpoint, ...]:
    """The endpoints that take requests: sorted, each once, empty when there is none.

    Those that terminate and still serve are ``draining``; when no other is left, they are all there is and
    not draining.
    """
    ref = Ref("Service", service_port.namespace, service_port.name)
    service = snapshot.services.get(ref)
    if service is None:
        return ()
    names = {port.name for port in service.spec.ports if port.port == service_port.port and port.protocol == "TCP"}
    ready: set[tuple[str, int]] = set()
    leaving: set[tuple[str, int]] = set()
    for entry in snapshot.slices(ref):
        _read_slice(entry, names, ready, leaving)
    if not ready:
        return tuple(Endpoint(address, port) for address, port in sorted(leaving))
    found = [(address, port, False) for address, port in ready]
    found += [(address, port, True) for address, port in leaving - ready]
    return tuple(Endpoint(*item) for item in sorted(found))


def resolve_left(graph: Graph, service_port: ServicePort) -> tuple[Endpoint, ...] | None:
    """The endpoints of a port that routes have left; None where it is gone or is another now, as by a policy."""
    assert graph.index is not None
    snapshot, policies = graph.index.snapshot, graph.index.policies
    # A TLSRoute of the Service's own namespace may refer to it whatever its protocol is.
    route = Ref("TLSRoute", service_port.namespace, "")
    reference = BackendObjectReference(name=service_port.name, port=service_port.port)
    if resolve_backend(snapshot, policies, route, reference, "").service != service_port:
        return None
    return resolve_endpoints(snapshot, service_port)


def _read_slice(
    entry: EndpointSlice, names: set[str], ready: set[tuple[str, int]], leaving: set[tuple[str, int]]
) -> None:
    if entry.address_type == "FQDN":
        return
    ports = [
        port.port for port in entry.ports if port.port is not None and port.protocol == "TCP" and port.name in names
    ]
    if not ports:
        return
    for endpoint in entry.endpoints:
        conditions = endpoint.conditions
        if conditions.ready is not False:
            into = ready
        elif conditions.serving and conditions.terminating:
            into = leaving
        else:
            continue
        # The addresses of one endpoint are fungible: readers use the first (discovery/v1 Endpoint.addresses).
        into.update((endpoint.addresses[0], port) for port in ports)
