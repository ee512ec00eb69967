"""certificateRefs: what a listener serves, what is wrong with the rest, and that no other listener minds."""

from __future__ import annotations

from typing import Any

import pytest

from gwctl.api.ref import Ref
from gwctl.graph.build import build_graph
from gwctl.graph.certificateref import check_validity, find_referents, referents_of
from gwctl.graph.node import Graph, ListenerKey
from gwctl.snapshot import Snapshot
from tests.certificates import END, START, make_pair, tls_secret
from tests.graph.manifests import CLASS, CONTROLLER, read, read_all, reasons

A, B = make_pair("a.example"), make_pair("b.example")
FIELD = "spec.listeners[0].tls"


def listener(*refs: dict[str, str], name: str = "https", port: int = 443, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": "HTTPS", "tls": {"certificateRefs": list(refs)}, **more}


def graph_of(listeners: list[dict[str, Any]], *objects: dict[str, Any]) -> Graph:
    gateway = {
        "kind": "Gateway",
        "metadata": {"name": "gw"},
        "spec": {"gatewayClassName": "gwctl", "listeners": listeners},
    }
    resources = [*read_all(CLASS), read(gateway), *map(read, objects)]
    return build_graph(Snapshot.of(resources), CONTROLLER)


def served(graph: Graph, name: str = "https") -> list[str]:
    return [item.secret.name for item in graph.certificates[ListenerKey("default", "gw", name)]]


def about(graph: Graph) -> list[tuple[str, str, str, str]]:
    return [item for item in reasons(graph) if ".tls" in item[1]]


def grant(kind: str = "Gateway", name: str | None = None) -> dict[str, Any]:
    to = {"group": "", "kind": "Secret", **({"name": name} if name else {})}
    source = {"group": "gateway.networking.k8s.io", "kind": kind, "namespace": "default"}
    return {
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "n"},
        "spec": {"from": [source], "to": [to]},
    }


def test_certificates_keep_the_order_of_their_references() -> None:
    graph = graph_of([listener({"name": "b"}, {"name": "a"})], A.secret("a"), B.secret("b"))
    assert served(graph) == ["b", "a"]
    assert about(graph) == []


def test_only_the_certificate_that_is_wrong_is_left_out() -> None:
    graph = graph_of(
        [listener({"name": "none"}, {"name": "a"}, {"name": "mixed"})],
        A.secret("a"),
        tls_secret("mixed", A.certificate, B.key),
    )
    assert served(graph) == ["a"]
    assert [(item.field, item.reason, item.message) for item in graph.problems if ".tls" in item.field] == [
        (f"{FIELD}.certificateRefs[0]", "InvalidCertificateRef", "there is no Secret default/none that gwctl can read"),
        (
            f"{FIELD}.certificateRefs[2]",
            "InvalidCertificateRef",
            "Secret default/mixed tls.key is not the key of the first certificate in tls.crt",
        ),
    ]


def test_a_listener_without_any_certificate_is_not_programmed_and_others_stand() -> None:
    graph = graph_of([listener({"name": "none"}), listener({"name": "a"}, name="two", port=444)], A.secret("a"))
    assert about(graph) == [
        ("gw", FIELD, "Programmed", "Invalid"),
        ("gw", f"{FIELD}.certificateRefs[0]", "ResolvedRefs", "InvalidCertificateRef"),
    ]
    assert (served(graph), served(graph, "two")) == ([], ["a"])


@pytest.mark.parametrize("protocol", ["HTTPS", "TLS"])
def test_a_listener_without_references_has_no_certificate(protocol: str) -> None:
    graph = graph_of([{"name": "https", "port": 443, "protocol": protocol}])
    assert about(graph) == [
        ("gw", FIELD, "Programmed", "Invalid"),
        ("gw", f"{FIELD}.certificateRefs", "ResolvedRefs", "InvalidCertificateRef"),
    ]


def test_what_is_no_secret_is_refused() -> None:
    refs = [{"group": "x.io", "name": "a"}, {"kind": "Wrong", "name": "a"}]
    graph = graph_of([listener(*refs)], A.secret("a"))
    messages = [item.message for item in graph.problems if item.reason == "InvalidCertificateRef"]
    assert messages == [
        "only a core Secret can be referred to, not x.io/Secret",
        "only a core Secret can be referred to, not Wrong",
    ]
    assert list(referents_of(graph.gateways[Ref("Gateway", "default", "gw")].resource, Snapshot())) == []


def test_another_namespace_needs_a_grant() -> None:
    listeners = [listener({"name": "a", "namespace": "n"})]
    secret = A.secret("a", "n")
    for objects in ([secret], [secret, grant("HTTPRoute")], [secret, grant(name="b")], [grant(name="b")]):
        graph = graph_of(listeners, *objects)
        assert ("gw", f"{FIELD}.certificateRefs[0]", "ResolvedRefs", "RefNotPermitted") in about(graph)
        assert served(graph) == []
    for allowed in (grant(), grant(name="a")):
        assert served(graph_of(listeners, secret, allowed)) == ["a"]


def test_the_secrets_to_read_are_those_that_are_allowed_whether_they_exist_or_not() -> None:
    refs = [{"name": "a"}, {"name": "b", "namespace": "n"}, {"name": "c", "namespace": "n"}]
    resources = [
        *read_all(CLASS),
        read(grant(name="b")),
        read(
            {
                "kind": "Gateway",
                "metadata": {"name": "gw"},
                "spec": {"gatewayClassName": "gwctl", "listeners": [listener(*refs)]},
            }
        ),
    ]
    snapshot = Snapshot.of(resources)
    assert find_referents(snapshot, CONTROLLER) == {Ref("Secret", "default", "a"), Ref("Secret", "n", "b")}
    assert find_referents(snapshot, "example.com/other") == frozenset()


def test_one_certificate_in_two_secrets_is_served_once() -> None:
    graph = graph_of([listener({"name": "a"}, {"name": "b"})], A.secret("a"), A.secret("b"))
    assert served(graph) == ["a"]
    assert about(graph) == []


def test_a_certificate_out_of_its_time_is_served_with_a_warning() -> None:
    graph = graph_of([listener({"name": "a"}), listener({"name": "a"}, name="two", port=444)], A.secret("a"))
    assert served(graph) == ["a"]
    start, end = START.timestamp(), END.timestamp()
    assert check_validity(graph, start) == check_validity(graph, end) == ()
    (early,), (late,) = check_validity(graph, start - 1), check_validity(graph, end + 1)
    assert early.subject == late.subject == Ref("Secret", "default", "a")
    assert early.message.startswith("the certificate is not valid before 2026-01-01 00:00:00 UTC")
    assert late.message.startswith("the certificate has expired on 2126-01-01 00:00:00 UTC")


def test_a_secret_that_changes_reaches_its_gateways_alone() -> None:
    listeners = [listener({"name": "a"}, {"name": "b"})]
    graph = graph_of(listeners, A.secret("a"))
    assert graph.index is not None
    changes = {Ref("Secret", "default", "a"): None, Ref("Secret", "default", "b"): read(B.secret("b"))}
    snapshot = graph.index.snapshot.apply(changes)
    after = build_graph(snapshot, CONTROLLER, graph, frozenset(changes))
    assert after.changed_routes == frozenset()
    assert after == build_graph(snapshot, CONTROLLER)
    assert served(after) == ["b"]


def test_a_secret_that_nobody_names_changes_nothing() -> None:
    graph = graph_of([listener({"name": "a"})], A.secret("a"))
    assert graph.index is not None
    changes = {Ref("Secret", "default", "x"): read(B.secret("x"))}
    after = build_graph(graph.index.snapshot.apply(changes), CONTROLLER, graph, frozenset(changes))
    assert after.certificates is graph.certificates or after.certificates == graph.certificates
    assert all(after.gateways[ref] is node for ref, node in graph.gateways.items())
