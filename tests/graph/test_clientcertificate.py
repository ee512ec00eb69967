"""spec.tls.frontend of a Gateway: which listeners ask clients for certificates, of whom, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.authority import AUTHORITIES_LIMIT, join_authorities
from gwctl.graph.build import build_graph
from gwctl.graph.certificateref import find_referents
from gwctl.graph.clientcertificate import falls_back
from gwctl.graph.node import Authorities, Graph, ListenerKey
from gwctl.snapshot import Snapshot
from tests.certificates import make_authority, make_pair
from tests.graph.manifests import CLASS, CONTROLLER, read, read_all
from tests.manifests import Manifest, config_map, https_listener, listener, tls_listener, validation

STAFF, GUEST = make_authority("staff"), make_authority("guest")
LISTENERS = [
    https_listener("web", 443, "cert"),
    https_listener("other", 8443, "cert"),
    tls_listener("tls", 9443, "cert"),
    listener("http", 80),
]
FIELD = "spec.tls.frontend"


def gateway(default: Manifest, **ports: Manifest) -> Manifest:
    frontend = {"default": default, "perPort": [{"port": int(port[1:]), "tls": tls} for port, tls in ports.items()]}
    spec = {"gatewayClassName": "gwctl", "listeners": LISTENERS, "tls": {"frontend": frontend}}
    return {"kind": "Gateway", "metadata": {"name": "gw"}, "spec": spec}


def snapshot_of(*manifests: Mapping[str, Any]) -> Snapshot:
    pair = make_pair("web.test").secret("cert")
    return Snapshot.of([*read_all(CLASS), *(read(manifest) for manifest in (pair, *manifests))])


def graph_of(*manifests: Mapping[str, Any]) -> Graph:
    return build_graph(snapshot_of(*manifests), CONTROLLER)


def trusted(graph: Graph) -> dict[str, Authorities]:
    """The authorities by the names of listeners."""
    return {key.listener: authorities for key, authorities in graph.client_authorities.items()}


def told(graph: Graph) -> list[tuple[str | None, str, str, str]]:
    """The problems of the Gateway: listener, field below ``spec.tls.frontend``, condition, reason."""
    return [
        (item.listener, item.field.removeprefix(f"{FIELD}."), item.condition, item.reason)
        for item in graph.problems
        if item.field.startswith(FIELD)
    ]


def served(graph: Graph) -> set[str]:
    """The listeners that have a certificate to show, without which nobody gets in."""
    return {key.listener for key, certificates in graph.certificates.items() if certificates}


def test_the_default_is_for_https_listeners_and_a_ports_own_takes_its_place() -> None:
    graph = graph_of(
        gateway(validation("staff"), p8443=validation("guest", "staff"), p80=validation("missing")),
        config_map("staff", STAFF),
        config_map("guest", GUEST),
    )
    assert trusted(graph) == {"web": join_authorities([[STAFF]]), "other": join_authorities([[GUEST], [STAFF]])}
    assert told(graph) == []
    assert served(graph) == {"web", "other", "tls"}


def test_a_port_may_ask_for_nothing() -> None:
    graph = graph_of(gateway(validation("staff"), p8443={}), config_map("staff", STAFF))
    assert trusted(graph).keys() == {"web"}
    assert served(graph) == {"web", "other", "tls"}


def test_the_insecure_fallback_asks_too_and_is_told() -> None:
    lax = validation("staff", mode="AllowInsecureFallback")
    graph = graph_of(gateway(validation("staff"), p8443=lax), config_map("staff", STAFF))
    assert trusted(graph).keys() == {"web", "other"}
    (node,) = graph.gateways.values()
    assert [falls_back(node.resource, port) for port in (443, 8443)] == [False, True]
    field = "perPort[0].tls.validation.mode"
    assert told(graph) == [(None, field, "InsecureFrontendValidationMode", "ConfigurationChanged")]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"name": "missing"}, "InvalidCACertificateRef"),
        ({"name": "empty"}, "InvalidCACertificateRef"),
        ({"name": "staff", "kind": "Secret"}, "InvalidCACertificateKind"),
        ({"name": "staff", "group": "example.com"}, "InvalidCACertificateKind"),
        ({"name": "staff", "namespace": "n"}, "RefNotPermitted"),
    ],
)
@pytest.mark.parametrize("mode", ["AllowValidOnly", "AllowInsecureFallback"])
def test_where_no_reference_leads_to_an_authority_nobody_gets_in(
    reference: Mapping[str, str], reason: str, mode: str
) -> None:
    wrong = {"group": "", "kind": "ConfigMap", **reference}
    objects = [config_map("staff", STAFF), config_map("staff", STAFF, namespace="n"), config_map("empty", "\n")]
    settings = {"validation": {"mode": mode, "caCertificateRefs": [wrong]}}
    graph = graph_of(gateway({}, p443=settings), *objects)
    field = "perPort[0].tls.validation.caCertificateRefs"
    about = [item for item in told(graph) if item[0] is not None]
    assert about == [
        ("web", field, "Accepted", "NoValidCACertificate"),
        ("web", f"{field}[0]", "ResolvedRefs", reason),
    ]
    assert served(graph) == {"other", "tls"}
    assert trusted(graph) == {}
    # One that leads to an authority is enough; what is wrong is told all the same.
    both = {"validation": {"caCertificateRefs": [wrong, *validation("staff")["validation"]["caCertificateRefs"]]}}
    graph = graph_of(gateway({}, p443=both), *objects)
    assert told(graph) == [("web", f"{field}[0]", "ResolvedRefs", reason)]
    assert trusted(graph) == {"web": join_authorities([[STAFF]])}


def test_another_namespace_needs_a_grant_and_what_is_allowed_is_read() -> None:
    reference = {"group": "", "kind": "ConfigMap", "name": "staff", "namespace": "n"}
    ours = gateway({"validation": {"caCertificateRefs": [reference]}})
    grant = {
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "n"},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default"}],
            "to": [{"group": "", "kind": "ConfigMap"}],
        },
    }
    secret, wanted = Ref("Secret", "default", "cert"), Ref("ConfigMap", "n", "staff")
    assert find_referents(snapshot_of(ours), CONTROLLER) == {secret}
    assert find_referents(snapshot_of(ours, grant), CONTROLLER) == {secret, wanted}
    assert trusted(graph_of(ours, grant, config_map("staff", STAFF, namespace="n"))).keys() == {"web", "other"}


def test_too_many_authorities_let_nobody_in() -> None:
    many = "".join(make_authority(f"a{index}") for index in range(1 + AUTHORITIES_LIMIT // 400))
    graph = graph_of(gateway(validation("many")), config_map("many", many))
    assert {item[3] for item in told(graph)} == {"NoValidCACertificate"}
    assert served(graph) == {"tls"}


def test_a_config_map_that_changes_reaches_its_listeners_and_no_other() -> None:
    ours = gateway(validation("staff"), p8443=validation("guest"))
    before = snapshot_of(ours, config_map("guest", GUEST))
    graph = build_graph(before, CONTROLLER)
    assert trusted(graph).keys() == {"other"}
    for authority in (STAFF, GUEST, "nothing"):
        made = read(config_map("staff", authority))
        after = before.apply({made.ref: made})
        graph = build_graph(after, CONTROLLER, graph, frozenset({made.ref}))
        anew = build_graph(after, CONTROLLER)
        assert replace(graph, index=None) == replace(anew, index=None)
        assert trusted(graph).get("web") == (None if authority == "nothing" else join_authorities([[authority]]))
        assert graph.client_authorities[ListenerKey("default", "gw", "other")].identity
        before = after


def test_what_a_gateway_asks_for_it_asks_of_the_clients_of_its_listener_sets_too() -> None:
    manifest = gateway(validation("staff"), p8443=validation("missing"))
    manifest["spec"] |= {"allowedListeners": {"namespaces": {"from": "All"}}, "listeners": LISTENERS[:1]}
    added = [
        https_listener("more", 443, "cert", hostname="more.test"),
        https_listener("lost", 8443, "cert"),
        listener("http", 80),
    ]
    listener_set = {
        "kind": "ListenerSet",
        "metadata": {"name": "set", "namespace": "team"},
        "spec": {"parentRef": {"name": "gw", "namespace": "default"}, "listeners": added},
    }
    objects = [manifest, listener_set, make_pair("more.test").secret("cert", "team")]
    graph = graph_of(*objects, config_map("staff", STAFF))
    assert trusted(graph) == {"web": join_authorities([[STAFF]]), "more": join_authorities([[STAFF]])}
    assert served(graph) == {"web", "more"}
    lost = [item for item in graph.problems if item.subject == Ref("ListenerSet", "team", "set")]
    assert [(item.listener, item.field, item.reason) for item in lost] == [
        ("lost", "spec.parentRef", "NoValidCACertificate"),
        ("lost", "spec.parentRef", "InvalidCACertificateRef"),
    ]
    assert not any("missing" in item.message for item in lost)
    assert told(graph) == []
    # Without the ConfigMap nobody is let in, and with it again all are.
    config = read(config_map("staff", STAFF))
    before = snapshot_of(*objects)
    without = build_graph(before, CONTROLLER)
    assert served(without) == set()
    of_gateway = {(item.field, item.reason) for item in without.problems if item.subject.kind == "Gateway"}
    assert ("spec.listeners", "ListenersNotValid") in of_gateway
    after = build_graph(before.apply({config.ref: config}), CONTROLLER, without, frozenset({config.ref}))
    assert (after.certificates, after.client_authorities) == (graph.certificates, graph.client_authorities)
    assert after.problems == graph.problems
