"""Random Gateway API manifests and requests that meet them, for properties and for the oracle.

All choices come from one `random.Random`, so that Hypothesis can shrink them and a seed repeats them. The alphabets
are small on purpose: hosts, paths, headers and parameters of different routes must collide.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from gwctl.routing.request import Request

Manifest = dict[str, Any]

GATEWAY_API = "gateway.networking.k8s.io/v1"
CONTROLLER = "gwctl.io/gateway-controller"

HOSTS = ("a.test", "x.a.test", "y.x.a.test", "b.test", "x.b.test")
ROUTE_HOSTS = (*HOSTS, "*.a.test", "*.x.a.test", "*.test", "*.b.test")
PATHS = ("/", "/a", "/a/b", "/a/b/c", "/ab", "/a;v=1", "/a%20b", "/a/b%2Cc", "/x.y~z", "/a'b", "/a/b/c/d")
PATH_REGEXES = ("/a/[0-9]+", "/(a|x)/.*", ".*b", "/[^/]+", "/a.b", "/a/b|/x", "^/ab$", "/a/(?i)B")
METHODS = ("GET", "POST", "DELETE")
HEADER_NAMES = ("x-one", "X-Two", "x-three")
HEADER_VALUES = ("1", "two words", "a;b", 'q"q', "back\\slash", "100%", "a,b", "=", "é")
HEADER_REGEXES = ("[0-9]+", "two.*", "[^a]*", ".+", "(?i)A;B", "^1$", "a|a,b", "\\S+\\s\\S+")
ORIGINS = ("https://a.test", "https://*.a.test", "http://a.test:80", "https://*:8443", "http://*", "https://B.test:443")
REQUEST_ORIGINS = (
    *("https://a.test", "https://x.a.test", "https://y.x.a.test:443", "http://a.test", "https://b.test:8443", "null"),
    *("https://b.test", "http://xa.test", "https://a.test:8443", "https://.a.test", "ftp://a.test", "https://A.TEST"),
)
GRPC_SERVICES = ("a.B", "a.C", "b.B", "B")
GRPC_METHODS = ("Echo", "EchoTwo", "Get")
GRPC_SERVICE_REGEXES = ("a[.].*", ".*B", "(?i)A[.]b", "[^.]+", "^a.B|b.B$")
GRPC_METHOD_REGEXES = ("E.*", "Echo(Two)?", "(?i)get", ".*")
QUERY_NAMES = ("q", "Q", "q~x", "100%")
QUERY_VALUES = ("1", "a b", "a+b", "100%", "é", "", "x=y")
QUERY_REGEXES = ("[0-9]*", "a.b", ".*%", "[^1]+", "^$")


def service(name: str, ports: dict[str, int] | int = 80, namespace: str = "default") -> Manifest:
    """A Service; ``ports`` is one port or ports by name."""
    named = {"": ports} if isinstance(ports, int) else ports
    entries = [{"port": port, **({"name": key} if key else {})} for key, port in named.items()]
    return _object("v1", "Service", name, namespace, {"ports": entries})


def endpoints(
    name: str, addresses: list[tuple[str, int]], namespace: str = "default", port_name: str = ""
) -> list[Manifest]:
    """EndpointSlices of a Service: one for each port in ``addresses``."""
    slices = []
    for port in sorted({port for _, port in addresses}):
        meta = {
            "name": f"{name}-{port}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        }
        slices.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": meta,
                "addressType": "IPv6" if any(":" in address for address, _ in addresses) else "IPv4",
                "endpoints": [{"addresses": [address]} for address, at in addresses if at == port],
                "ports": [{"port": port, **({"name": port_name} if port_name else {})}],
            }
        )
    return slices


def config_map(name: str, *authorities: str, namespace: str = "default") -> Manifest:
    """A ConfigMap with certificate authorities in PEM."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": "".join(authorities)}}


def backend_tls_policy(
    name: str,
    service: str,
    *config_maps: str,
    hostname: str = "backend.test",
    section: str = "",
    created: str = "",
    **validation: Any,
) -> Manifest:
    """A BackendTLSPolicy for a Service, or one port of it, that trusts the authorities of ConfigMaps."""
    target = {"group": "", "kind": "Service", "name": service, **({"sectionName": section} if section else {})}
    references = [{"group": "", "kind": "ConfigMap", "name": item} for item in config_maps]
    validation = {"hostname": hostname, **({"caCertificateRefs": references} if references else {}), **validation}
    made = _object(GATEWAY_API, "BackendTLSPolicy", name, "default", {"targetRefs": [target], "validation": validation})
    if created:
        made["metadata"]["creationTimestamp"] = created
    return made


def gateway_class(name: str = "haproxy", controller: str = CONTROLLER) -> Manifest:
    """A GatewayClass of ours."""
    return {
        "apiVersion": GATEWAY_API,
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
    }


def gateway(
    listeners: list[Manifest],
    name: str = "gateway",
    namespace: str = "default",
    address: str = "127.0.0.1",
    **more: Any,
) -> Manifest:
    """A Gateway bound to the loopback address alone."""
    spec = {
        "gatewayClassName": "haproxy",
        "listeners": listeners,
        "addresses": [{"type": "IPAddress", "value": address}],
        **more,
    }
    return _object(GATEWAY_API, "Gateway", name, namespace, spec)


def allowed_listeners(from_: str) -> Manifest:
    """Which ListenerSets a Gateway lets in."""
    return {"allowedListeners": {"namespaces": {"from": from_}}}


def listener_set(
    name: str, listeners: list[Manifest], parent: str = "gateway", namespace: str = "default", created: str = ""
) -> Manifest:
    """A ListenerSet for a Gateway in the namespace ``default``."""
    spec = {"parentRef": {"name": parent, "namespace": "default"}, "listeners": listeners}
    manifest = _object(GATEWAY_API, "ListenerSet", name, namespace, spec)
    if created:
        manifest["metadata"]["creationTimestamp"] = created
    return manifest


def listener(name: str, port: int, hostname: str = "", protocol: str = "HTTP", **more: Any) -> Manifest:
    """A listener that takes routes of every namespace."""
    return {
        "name": name,
        "port": port,
        "protocol": protocol,
        "allowedRoutes": {"namespaces": {"from": "All"}},
        **({"hostname": hostname} if hostname else {}),
        **more,
    }


def https_listener(name: str, port: int, *secrets: str, hostname: str = "", **more: Any) -> Manifest:
    """A listener that terminates TLS with certificates of Secrets."""
    tls = {"certificateRefs": [{"name": secret} for secret in secrets]}
    return listener(name, port, hostname, "HTTPS", tls=tls, **more)


def tls_listener(name: str, port: int, *secrets: str, hostname: str = "", **more: Any) -> Manifest:
    """A listener for TLSRoutes that terminates TLS with certificates of Secrets, or passes it through without any."""
    tls: Manifest = {"mode": "Passthrough"}
    if secrets:
        tls = {"mode": "Terminate", "certificateRefs": [{"name": secret} for secret in secrets]}
    return listener(name, port, hostname, "TLS", tls=tls, **more)


def http_route(
    name: str,
    rules: list[Manifest],
    hostnames: tuple[str, ...] = (),
    parents: tuple[Manifest, ...] = ({"name": "gateway"},),
    namespace: str = "default",
) -> Manifest:
    """An HTTPRoute."""
    spec: Manifest = {"parentRefs": list(parents), "rules": rules}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    return _object(GATEWAY_API, "HTTPRoute", name, namespace, spec)


def grpc_route(name: str, rules: list[Manifest], hostnames: tuple[str, ...] = (), **more: Any) -> Manifest:
    """A GRPCRoute; the rest is as with `http_route`."""
    return {**http_route(name, rules, hostnames, **more), "kind": "GRPCRoute"}


def tcp_route(name: str, backends: list[Manifest], parents: tuple[Manifest, ...] = ({"name": "gateway"},)) -> Manifest:
    """A TCPRoute."""
    spec = {"parentRefs": list(parents), "rules": [{"backendRefs": backends}]}
    return _object(GATEWAY_API, "TCPRoute", name, "default", spec)


def tls_route(
    name: str,
    backends: list[Manifest],
    hostnames: tuple[str, ...],
    parents: tuple[Manifest, ...] = ({"name": "gateway"},),
) -> Manifest:
    """A TLSRoute."""
    spec = {"parentRefs": list(parents), "hostnames": list(hostnames), "rules": [{"backendRefs": backends}]}
    return _object(GATEWAY_API, "TLSRoute", name, "default", spec)


def validation(*config_maps: str, mode: str = "AllowValidOnly") -> Manifest:
    """What a Gateway or one of its ports wants of clients: a certificate of an authority in a ConfigMap."""
    references = [{"group": "", "kind": "ConfigMap", "name": name} for name in config_maps]
    return {"validation": {"mode": mode, "caCertificateRefs": references}}


def prefix_rule(path: str, *backends: Manifest, **more: Any) -> Manifest:
    """A rule of one path prefix."""
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": path}}],
        "backendRefs": list(backends),
        **more,
    }


def backend(name: str, port: int = 80, weight: int = 1) -> Manifest:
    """A backendRef."""
    return {"name": name, "port": port, "weight": weight}


def backend_object(name: str) -> Manifest:
    """A reference to port 80 of a Service without a weight."""
    return {"name": name, "port": 80}


def _object(version: str, kind: str, name: str, namespace: str, spec: Manifest) -> Manifest:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def random_listeners(random: Random, port: int) -> list[Manifest]:
    """One to three listeners of one port, with different hostnames."""
    names = random.sample(["", "*.a.test", "x.a.test", "b.test"], random.randint(1, 3))
    return [listener(f"l{index}", port, hostname) for index, hostname in enumerate(names)]


def random_listener_sets(random: Random, port: int, count: int, more_ports: tuple[int, ...] = ()) -> list[Manifest]:
    """ListenerSets whose listeners collide with each other and with those of `random_listeners`; some are elsewhere."""
    found = []
    for index in range(count):
        listeners = random_listeners(random, port)
        if random.random() < 0.2:
            listeners.append(listener("tcp", random.choice([port, *more_ports]), protocol="TCP"))
        created = f"2026-01-0{random.randint(1, 3)}T00:00:00Z"
        found.append(listener_set(f"set{index}", listeners, created=created))
    return found


def attach_to_sets(random: Random, routes: list[Manifest], count: int) -> list[Manifest]:
    """Let some routes name ListenerSets of `random_listener_sets`, with the Gateway or alone."""
    for route in routes:
        if random.random() < 0.5:
            parent: Manifest = {"kind": "ListenerSet", "name": f"set{random.randrange(count)}"}
            if random.random() < 0.3:
                parent["sectionName"] = random.choice(["l0", "l1"])
            kept = route["spec"]["parentRefs"] if random.random() < 0.5 else []
            route["spec"]["parentRefs"] = [*kept, parent]
    return routes


def random_routes(random: Random, services: list[str], count: int) -> list[Manifest]:
    """HTTPRoutes whose hosts, paths and conditions collide."""
    return [_random_route(random, f"r{index:02d}", services) for index in range(count)]


def _random_route(random: Random, name: str, services: list[str]) -> Manifest:
    hostnames = tuple(random.sample(ROUTE_HOSTS, random.choice([0, 1, 1, 2])))
    parent: Manifest = {"name": "gateway"}
    if random.random() < 0.15:
        parent["sectionName"] = random.choice(["l0", "l1"])
    rules = [_random_rule(random, services) for _ in range(random.randint(1, 3))]
    return http_route(name, rules, hostnames, (parent,))


def random_tls_listeners(random: Random, port: int) -> list[Manifest]:
    """One to four listeners of one port in both modes of TLS and with HTTPS, with different hostnames."""
    names = random.sample(["", "*.a.test", "x.a.test", "b.test", "*.x.a.test"], random.randint(1, 4))
    found = []
    for index, hostname in enumerate(names):
        is_https = random.random() < 0.2
        kind = https_listener if is_https else tls_listener
        secrets = ("cert",) if is_https or random.random() < 0.4 else ()
        found.append(kind(f"t{index}", port, *secrets, hostname=hostname))
    return found


def random_tls_routes(random: Random, services: list[str], count: int) -> list[Manifest]:
    """TLSRoutes whose names collide."""
    return [
        tls_route(
            f"t{index:02d}",
            [backend(random.choice(services), weight=random.randint(0, 3)) for _ in range(random.randint(1, 2))],
            tuple(random.sample(ROUTE_HOSTS, random.choice([0, 1, 1, 2]))),
        )
        for index in range(count)
    ]


def random_grpc_routes(random: Random, services: list[str], count: int) -> list[Manifest]:
    """GRPCRoutes that collide with each other, and in their hosts with HTTPRoutes, before or after them by name."""
    return [_random_grpc_route(random, f"{random.choice('az')}{index:02d}", services) for index in range(count)]


def _random_grpc_route(random: Random, name: str, services: list[str]) -> Manifest:
    hostnames = tuple(random.sample(ROUTE_HOSTS, random.choice([0, 1, 1, 2])))
    return grpc_route(name, [_random_grpc_rule(random, services) for _ in range(random.randint(0, 3))], hostnames)


def _random_grpc_rule(random: Random, services: list[str]) -> Manifest:
    matches = [_random_grpc_match(random) for _ in range(random.randint(0, 3))]
    rule: Manifest = {"backendRefs": [backend(random.choice(services))], "matches": matches}
    kinds = [kind for kind in ("RequestHeaderModifier", "ResponseHeaderModifier") if random.random() < 0.3]
    if kinds:
        rule["filters"] = [_random_header_filter(random, kind) for kind in kinds]
    if random.random() < 0.2:
        mirror = {"backendRef": backend_object(random.choice([*services, "missing"])), "percent": 50}
        rule.setdefault("filters", []).append({"type": "RequestMirror", "requestMirror": mirror})
    return rule


def _random_grpc_match(random: Random) -> Manifest:
    match: Manifest = {}
    kind = random.random()
    if kind < 0.85:
        is_exact = random.random() < 0.6
        services, methods = (GRPC_SERVICES, GRPC_METHODS) if is_exact else (GRPC_SERVICE_REGEXES, GRPC_METHOD_REGEXES)
        parts = random.choice([("service",), ("method",), ("service", "method"), ("service", "method")])
        named = {"service": random.choice(services), "method": random.choice(methods)}
        match["method"] = {
            "type": "Exact" if is_exact else "RegularExpression",
            **{part: named[part] for part in parts},
        }
    if random.random() < 0.35:
        names = random.sample(HEADER_NAMES, random.randint(1, 2))
        match["headers"] = [_random_value(random, name, HEADER_VALUES[:-1], HEADER_REGEXES) for name in names]
    return match


def random_call(random: Random) -> Request:
    """A gRPC call that is likely to meet several of the random GRPCRoutes."""
    path = f"/{random.choice(GRPC_SERVICES)}/{random.choice(GRPC_METHODS)}"
    headers = [
        (name.lower(), random.choice(HEADER_VALUES[:-1]))
        for name in HEADER_NAMES
        for _ in range(random.choice([0, 1, 2]))
    ]
    content = ("content-type", "application/grpc")
    return Request("POST", random.choice([*HOSTS, "z.test", "other.org"]), path, "", (content, *headers))


def _random_rule(random: Random, services: list[str]) -> Manifest:
    matches = [_random_match(random) for _ in range(random.randint(0, 2))]
    prefixes = [m.get("path", {"type": "PathPrefix"})["type"] for m in matches] in ([], ["PathPrefix"])
    rule: Manifest = {"matches": matches} if matches else {}
    if random.random() > 0.85:
        return {**rule, "filters": _random_filters(random, prefixes, redirect=True)}
    refs = [backend(name) for name in random.sample(services, min(len(services), random.choice([1, 1, 1, 2])))]
    for ref in refs:
        if random.random() > 0.7:
            ref["filters"] = _random_filters(random, prefixes, redirect=random.random() > 0.8)
    if random.random() > 0.5:
        rule["filters"] = _random_filters(random, prefixes)
    if random.random() > 0.8:
        rule["timeouts"] = {random.choice(["request", "backendRequest"]): random.choice(["0s", "10s", "1h"])}
    if random.random() > 0.85:
        rule["retry"] = {"attempts": random.randint(1, 3), "codes": random.sample([500, 503], random.randint(0, 2))}
    elif random.random() > 0.85:
        rule["sessionPersistence"] = random.choice([{}, {"type": "Header", "sessionName": "x-session"}])
    return {**rule, "backendRefs": refs}


def _random_filters(random: Random, prefixes: bool, redirect: bool = False) -> list[Manifest]:
    filters = [_random_redirect(random, prefixes)] if redirect else []
    if not redirect and random.random() > 0.5:
        filters.append(_random_rewrite(random, prefixes))
    kinds = [kind for kind in ("RequestHeaderModifier", "ResponseHeaderModifier") if random.random() > 0.5]
    filters += (_random_header_filter(random, kind) for kind in kinds)
    if random.random() > 0.75:
        filters.append(_random_cors(random))
    if random.random() > 0.85:
        mirror = {"backendRef": backend_object(random.choice(["s1", "missing"])), "percent": random.choice([50, 100])}
        filters.append({"type": "RequestMirror", "requestMirror": mirror})
    if random.random() > 0.9:
        reference = {"backendRef": backend_object(random.choice(["s1", "s1", "s2", "empty", "missing"]))}
        filters.append({"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "http": {}, **reference}})
    return random.sample(filters, len(filters))


def _random_match(random: Random) -> Manifest:
    match: Manifest = {}
    kind = random.random()
    if kind < 0.35:
        match["path"] = {"type": "Exact", "value": random.choice(PATHS)}
    elif kind < 0.7:
        match["path"] = {"type": "PathPrefix", "value": random.choice(PATHS) + random.choice(["", ""])}
    elif kind < 0.85:
        match["path"] = {"type": "RegularExpression", "value": random.choice(PATH_REGEXES)}
    if random.random() < 0.25:
        match["method"] = random.choice(METHODS)
    if random.random() < 0.35:
        names = random.sample(HEADER_NAMES, random.randint(1, 2))
        match["headers"] = [_random_value(random, name, HEADER_VALUES[:-1], HEADER_REGEXES) for name in names]
    if random.random() < 0.25:
        match["queryParams"] = [_random_value(random, random.choice(QUERY_NAMES), QUERY_VALUES[:-2], QUERY_REGEXES)]
    return match


def _random_value(random: Random, name: str, values: tuple[str, ...], regexes: tuple[str, ...]) -> Manifest:
    if random.random() < 0.4:
        return {"name": name, "type": "RegularExpression", "value": random.choice(regexes)}
    return {"name": name, "value": random.choice(values)}


def _random_redirect(random: Random, prefixes: bool) -> Manifest:
    redirect: Manifest = {"statusCode": random.choice([301, 302])}
    if random.random() < 0.3:
        redirect["scheme"] = random.choice(["http", "https"])
    if random.random() < 0.3:
        redirect["hostname"] = random.choice(["other.test", "b.test"])
    if random.random() < 0.3:
        redirect["port"] = random.choice([80, 443, 8443])
    return {"type": "RequestRedirect", "requestRedirect": redirect | _random_path_change(random, prefixes)}


def _random_rewrite(random: Random, prefixes: bool) -> Manifest:
    rewrite: Manifest = {"hostname": "rewritten.test"} if random.random() > 0.5 else {}
    return {"type": "URLRewrite", "urlRewrite": rewrite | _random_path_change(random, prefixes)}


def _random_cors(random: Random) -> Manifest:
    def some(values: tuple[str, ...]) -> list[str]:
        return ["*"] if random.random() > 0.8 else random.sample(values, random.randint(0, 2))

    cors: Manifest = {
        "allowOrigins": some(ORIGINS),
        "allowMethods": some(("GET", "PUT", "DELETE")),
        "allowHeaders": some(("x-one", "X-Two", "authorization")),
        "exposeHeaders": some(("x-one", "x-four")),
    }
    if random.random() > 0.5:
        cors |= {"allowCredentials": True, "maxAge": random.choice([1, 3600])}
    return {"type": "CORS", "cors": cors}


def _random_path_change(random: Random, prefixes: bool) -> Manifest:
    if random.random() < 0.3:
        full = random.choice(["/", "", "/new", "/n;w/%C3%A9%20x", "/100%", "/a?b#c"])
        return {"path": {"type": "ReplaceFullPath", "replaceFullPath": full}}
    if prefixes and random.random() < 0.6:
        new = random.choice(["/", "", "/new", "/new/", "/n/w"])
        return {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": new}}
    return {}


def _random_header_filter(random: Random, kind: str) -> Manifest:
    modifier: Manifest = {}
    if random.random() < 0.7:
        modifier["set"] = [{"name": "x-one", "value": random.choice(HEADER_VALUES[:-1])}]
    if random.random() < 0.7:
        modifier["add"] = [{"name": random.choice(["X-Added", "x-two"]), "value": random.choice(HEADER_VALUES[:-1])}]
    if random.random() < 0.4 or not modifier:
        modifier["remove"] = ["x-three"]
    if kind == "RequestHeaderModifier" and random.random() > 0.9:
        modifier.setdefault("set", []).append({"name": "Host", "value": "set.test"})
    return {"type": kind, kind[0].lower() + kind[1:]: modifier}


def _random_origin(random: Random) -> Iterator[tuple[str, str]]:
    yield "Origin", random.choice(REQUEST_ORIGINS)
    if random.random() > 0.3:
        yield "Access-Control-Request-Method", random.choice(["GET", "PUT", "DELETE"])
    if random.random() > 0.5:
        yield "Access-Control-Request-Headers", "x-one, x-two"


def random_request(random: Random) -> Request:
    """A request that is likely to meet several of the random routes."""
    host = random.choice([*HOSTS, "z.test", "other.org", "X.a.TEST", "a.test.", "a.test:8080"])
    path = random.choice(PATHS)
    if random.random() < 0.4:
        path += random.choice(["/", "/x", "x", "/1", "/b", "/b/c"])
    path = path.replace("//", "/")
    headers = []
    for name in HEADER_NAMES:
        for _ in range(random.choice([0, 0, 1, 1, 2])):
            value = random.choice(HEADER_VALUES).encode().decode("latin-1")
            headers.append((random.choice([name, name.upper()]), value))
        if random.random() > 0.5:
            value = random.choice(HEADER_VALUES).encode().decode("latin-1")
            headers.append((f"answer-{random.choice([name, name.upper()])}", value))
    query = "&".join(
        f"{_percent(random, name)}={_percent(random, random.choice(QUERY_VALUES))}"
        for name in random.choices(QUERY_NAMES, k=random.choice([0, 0, 1, 2, 3]))
    )
    method = random.choice(METHODS)
    if random.random() > 0.6:
        method = random.choice([method, "OPTIONS"])
        headers += _random_origin(random)
        headers += (("answer-access-control-allow-origin", "backend"), ("answer-vary", "x-one"))
    return Request(method, host, path, query, tuple(headers))


def _percent(random: Random, text: str) -> str:
    every = random.random() < 0.2
    out = []
    for byte in text.encode():
        character = chr(byte)
        if character == " " and random.random() < 0.5:
            out.append("+")
        elif not every and (character.isascii() and character.isalnum()):
            out.append(character)
        else:
            out.append(f"%{byte:02x}")
    return "".join(out)
