"""The features that gwctl supports, by the names of the Gateway API, and what supports each.

They are what a GatewayClass says in ``supportedFeatures``, which the conformance suite takes as a claim. A feature gets
its row with the change that makes it work.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

FEATURES: Mapping[str, str] = {
    "BackendTLSPolicy": "graph/backendtls.py: authorities of ConfigMaps, ports, conflicts; haproxy/state.py: ServerTLS",
    "GRPCRoute": "routing/rule.py: services, methods, headers, header modifiers, weights",
    "GRPCRouteNamedRouteRule": "graph/route.py: names of rules are kept",
    "Gateway": "graph/gateway.py: listeners, conflicts, allowed routes",
    "GatewayAddressEmpty": "graph/gateway.py: an address without a value is of the implementation's choosing",
    "GatewayBackendClientCertificate": "haproxy/table.py: servers of their own for each certificate of a Gateway",
    "GatewayFrontendClientCertificateValidation": "graph/clientcertificate.py: crt-list entries name authorities",
    "GatewayFrontendClientCertificateValidationInsecureFallback": "haproxy/program.py: a bind that ignores errors",
    "GatewayHTTPListenerIsolation": "routing/virtualhost.py: a host belongs to its most specific listener",
    "GatewayHTTPSListenerDetectMisdirectedRequests": "haproxy/program.py: a request for another listener's host is 421",
    "GatewayInfrastructure": "the Gateway's Service takes its labels and annotations",
    "GatewayPort8080": "listeners have any port",
    "GatewayStaticAddresses": "the Gateway's Service asks for the addresses of spec.addresses",
    "HTTPRoute": "routing/rule.py: hosts, paths, headers, header modifiers, redirects, weights",
    "HTTPRoute303RedirectStatusCode": "haproxy/filtering.py: a redirect rule for each status",
    "HTTPRoute307RedirectStatusCode": "haproxy/filtering.py: a redirect rule for each status",
    "HTTPRoute308RedirectStatusCode": "haproxy/filtering.py: a redirect rule for each status",
    "HTTPRouteBackendProtocolH2C": "routing/filter.py: the appProtocol of a Service port",
    "HTTPRouteBackendProtocolWebSocket": "haproxy/program.py: the timeout of tunnels in every slot",
    "HTTPRouteBackendRequestHeaderModification": "routing/filter.py: filters of a backendRef",
    "HTTPRouteBackendTimeout": "haproxy/filtering.py: set-timeout in every slot",
    "HTTPRouteCORS": "haproxy/gwctl.lua: gwctl_cors",
    "HTTPRouteDestinationPortMatching": "graph/attach.py: a parentRef's port must be a listener's",
    "HTTPRouteHostRewrite": "routing/filter.py: URLRewrite's hostname",
    "HTTPRouteMethodMatching": "routing/rule.py: the method is a condition of a match",
    "HTTPRouteNamedRouteRule": "graph/route.py: names of rules are kept",
    "HTTPRouteParentRefPort": "graph/attach.py: a parentRef's port must be a listener's",
    "HTTPRoutePathRedirect": "routing/filter.py: ReplaceFullPath and ReplacePrefixMatch",
    "HTTPRoutePathRewrite": "routing/filter.py: ReplaceFullPath and ReplacePrefixMatch",
    "HTTPRoutePortRedirect": "routing/filter.py: the port of a redirect",
    "HTTPRouteQueryParamMatching": "routing/rule.py: query parameters are conditions of a match",
    "HTTPRouteRequestMirror": "haproxy/gwctl.lua: gwctl_mirror",
    "HTTPRouteRequestMultipleMirrors": "haproxy/gwctl.lua: gwctl_mirror",
    "HTTPRouteRequestPercentageMirror": "haproxy/gwctl.lua: gwctl_mirror",
    "HTTPRouteRequestTimeout": "haproxy/filtering.py: set-timeout in every slot",
    "HTTPRouteResponseHeaderModification": "haproxy/filtering.py: http-after-response rules",
    "HTTPRouteRetry": "haproxy/loop.py: attempts, codes and pauses",
    "HTTPRouteRetryBackendTimeout": "haproxy/loop.py: a timeout of each attempt",
    "HTTPRouteRetryConnectionError": "haproxy/loop.py: what no backend has answered is tried again",
    "HTTPRouteSchemeRedirect": "routing/filter.py: the scheme of a redirect",
    "ListenerSet": "graph/gateway.py: listeners of ListenerSets after the Gateway's own; graph/listenerset.py",
    "ReferenceGrant": "graph/referencegrant.py",
    "TCPRoute": "graph/conflict.py: the oldest TCPRoute has the listener; weights",
    "TLSRoute": "haproxy/connection.py: the name in the handshake leads to a Service; weights",
    "TLSRouteModeMixed": "haproxy/connection.py: a name's row leads to a Service or to what terminates TLS",
    "TLSRouteModeTerminate": "haproxy/connection.py: an inner frontend terminates TLS",
}

SUPPORTED_FEATURES: tuple[str, ...] = tuple(sorted(FEATURES))
"""In ascending order, as the Gateway API wants it (GatewayClassStatus.supportedFeatures)."""

_EXPERIMENTAL = frozenset({"HTTPRouteRetry", "HTTPRouteRetryBackendTimeout", "HTTPRouteRetryConnectionError"})
"""What routes can ask for by the CRDs of the experimental channel alone: the API server drops the field else."""


def find_features(channels: Collection[str]) -> tuple[str, ...]:
    """Give what is supported with CRDs of these channels: only what all CRDs can say, unless all are experimental."""
    if set(channels) == {"experimental"}:
        return SUPPORTED_FEATURES
    return tuple(name for name in SUPPORTED_FEATURES if name not in _EXPERIMENTAL)
