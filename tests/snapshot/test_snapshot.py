"""Snapshots: changes make new ones and share the rest; slices and grants are found without a search."""

from __future__ import annotations

import pytest

from gwctl.api.ref import Ref
from gwctl.snapshot import Snapshot
from tests.graph.manifests import read, read_all

SERVICE = Ref("Service", "default", "s")


def slice_of(name: str, service: str | None) -> dict[str, object]:
    labels = {} if service is None else {"kubernetes.io/service-name": service}
    return {"kind": "EndpointSlice", "metadata": {"name": name, "labels": labels}, "addressType": "IPv4"}


def names(snapshot: Snapshot, service: Ref = SERVICE) -> list[str]:
    return [entry.ref.name for entry in snapshot.slices(service)]


def test_a_change_makes_a_new_snapshot_and_leaves_the_old() -> None:
    (service, namespace) = read_all(
        "{kind: Service, metadata: {name: s}, spec: {}}\n---\n{kind: Namespace, metadata: {name: n}}"
    )
    first = Snapshot.of([service])
    second = first.apply({service.ref: None, namespace.ref: namespace, Ref("Pod", "a", "b"): None})
    assert first.get(SERVICE) is service
    assert second.get(SERVICE) is None
    assert list(second.resources()) == [namespace]
    assert second.services is not first.services
    assert second.gateways is first.gateways
    assert second.get(Ref("Pod", "a", "b")) is None
    with pytest.raises(TypeError):
        second.services[SERVICE] = service  # type: ignore[index]


def test_taking_away_what_is_not_there_changes_nothing() -> None:
    ref = Ref("EndpointSlice", "default", "a")
    assert Snapshot().apply({ref: None, SERVICE: None}) == Snapshot()


def test_slices_follow_their_label() -> None:
    one, two = read(slice_of("b", "s")), read(slice_of("a", "s"))
    snapshot = Snapshot.of([one, two, read(slice_of("x", None)), read(slice_of("y", "other"))])
    assert names(snapshot) == ["a", "b"]
    moved = snapshot.apply({two.ref: read(slice_of("a", "other"))})
    assert names(moved) == ["b"]
    assert names(moved, Ref("Service", "default", "other")) == ["a", "y"]
    assert names(moved.apply({one.ref: None})) == []
    assert names(snapshot) == ["a", "b"]


def test_grants_are_found_by_namespace() -> None:
    (grant,) = read_all(
        "{kind: ReferenceGrant, metadata: {name: g, namespace: n}, "
        "spec: {from: [{group: g, kind: K, namespace: m}], to: [{group: '', kind: Service}]}}"
    )
    snapshot = Snapshot.of([grant])
    assert snapshot.grants("n") == (grant,)
    assert snapshot.grants("m") == ()
    assert snapshot.apply({grant.ref: None}).grants("n") == ()


def test_a_namespace_without_object_has_its_name_as_label() -> None:
    (namespace,) = read_all("{kind: Namespace, metadata: {name: n, labels: {team: a}}}")
    snapshot = Snapshot.of([namespace])
    assert snapshot.namespace_labels("n") == {"team": "a", "kubernetes.io/metadata.name": "n"}
    assert snapshot.namespace_labels("m") == {"kubernetes.io/metadata.name": "m"}
